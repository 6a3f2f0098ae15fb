// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {
    ArtifactUpdate,
    DealChange,
    DealId,
    DealView,
    DeveloperOffer,
    Epoch,
    OfferHash,
    ProviderOffer,
    Receipt as DealReceipt
} from "../../src/types/Types.sol";
import {Base} from "../Base.t.sol";

/// @dev What is signed besides offers, and sums over all of a market's money.
abstract contract Actions is Base {
    /// @dev Accounts whose balances, and deals whose locks and bonds, make up all of the market's tokens.
    address[] internal accounts;
    DealId[] internal deals;

    // --- Changes --------------------------------------------------------------------------------------------------

    /// @dev The next change of a deal, which leaves everything as it is.
    function changeOf(DealId dealId) internal view returns (DealChange memory) {
        DealView memory shown = deal(dealId);
        return DealChange({
            dealId: dealId,
            sequence: shown.changes + 1,
            endEpoch: Epoch.unwrap(shown.endEpoch),
            milliCpu: shown.milliCpu,
            memoryMib: shown.memoryMib,
            pricePerEpoch: shown.pricePerEpoch,
            validUntil: VALID_UNTIL
        });
    }

    function signChange(uint256 key, DealChange memory change) internal view returns (bytes memory) {
        return sign(key, OfferHash.wrap(market.hashDealChange(change)));
    }

    /// @dev Both have signed, somebody else carries it out.
    function agree(Provider memory provider, DealChange memory change) internal {
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        vm.prank(stranger);
        market.changeDeal(refOf(change.dealId), change, supplyOf(provider), byDeveloper, byProvider);
    }

    function reprice(Provider memory provider, DealId dealId, uint64 price) internal {
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = price;
        agree(provider, change);
    }

    /// @dev As `agree`, and expects to fail like this.
    function expectRefused(Provider memory provider, DealChange memory change, DealId dealId, bytes memory why)
        internal
    {
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        ProviderOffer memory supply = supplyOf(provider);
        vm.expectRevert(why);
        vm.prank(stranger);
        market.changeDeal(refOf(dealId), change, supply, byDeveloper, byProvider);
    }

    function expectRefused(Provider memory provider, DealChange memory change, bytes memory why) internal {
        expectRefused(provider, change, change.dealId, why);
    }

    // --- Receipts and updates -------------------------------------------------------------------------------------

    /// @dev The key behind the agent of `providerNo(number)`.
    function agentKeyNo(uint256 number) internal returns (uint256 key) {
        (, key) = makeAddrAndKey(string.concat("agent", vm.toString(number)));
    }

    function receiptOf(DealId dealId, uint64 sequence, bytes32 content) internal pure returns (DealReceipt memory) {
        return DealReceipt(dealId, sequence, content);
    }

    function signReceipt(uint256 key, DealReceipt memory receipt) internal view returns (bytes memory) {
        return sign(key, OfferHash.wrap(market.hashReceipt(receipt)));
    }

    /// @dev Proves two different receipts of one number, signed by `key`.
    function slashWith(uint256 key, DealId dealId) internal {
        DealReceipt memory first = receiptOf(dealId, 7, "one");
        DealReceipt memory second = receiptOf(dealId, 7, "other");
        bytes memory firstSigned = signReceipt(key, first);
        bytes memory secondSigned = signReceipt(key, second);
        vm.prank(stranger);
        market.slash(refOf(dealId), first, firstSigned, second, secondSigned);
    }

    function updateOf(DeveloperOffer memory demand, uint32 version) internal view returns (ArtifactUpdate memory) {
        return ArtifactUpdate({
            developerOffer: market.hashDeveloperOffer(demand),
            version: version,
            artifact: keccak256(abi.encode("artifact", version)),
            manifest: keccak256(abi.encode("manifest", version)),
            validUntil: VALID_UNTIL,
            artifactUrl: "https://artifacts.example/next.wasm"
        });
    }

    function signUpdate(uint256 key, ArtifactUpdate memory update) internal view returns (bytes memory) {
        return sign(key, OfferHash.wrap(market.hashArtifactUpdate(update)));
    }

    // --- Money ----------------------------------------------------------------------------------------------------

    /// @dev As `fund`, beyond what the token's faucet gives.
    function fundWithMuch(address account, uint256 amount) internal {
        deal(address(token), account, amount);
        vm.startPrank(account);
        token.approve(address(market), amount);
        market.deposit(amount);
        vm.stopPrank();
    }

    function watch(Provider memory provider) internal {
        accounts.push(provider.account);
        accounts.push(provider.payout);
    }

    /// @dev Everything that the market holds belongs to one of the accounts, or lies in one of the deals.
    function assertConserved() internal view {
        uint256 total;
        for (uint256 i = 0; i < accounts.length; ++i) {
            total += free(accounts[i]);
        }
        for (uint256 i = 0; i < deals.length; ++i) {
            DealView memory shown = deal(deals[i]);
            total += uint256(shown.locked) + shown.bond;
        }
        assertEq(total, token.balanceOf(address(market)), "every atom is somewhere");
    }
}
