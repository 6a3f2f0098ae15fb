// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {VmSafe} from "forge-std/Vm.sol";
import {Multicallable} from "solady/utils/Multicallable.sol";
import {IMarketCore} from "../../src/interfaces/IMarketCore.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {EpochBitmap} from "../../src/libraries/EpochBitmap.sol";
import {
    ArtifactUpdate,
    DealChange,
    DealId,
    DealRef,
    DeveloperOffer,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
    Receipt as SignedReceipt
} from "../../src/types/Types.sol";
import {Base} from "../Base.t.sol";

/// @dev What each action costs, as a whole transaction. It measures the committed bytecode in `abi/`, which is what is
/// deployed, and runs with `--isolate`, so that every call is a transaction of its own.
contract GasTest is Base {
    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        // A market that has been used.
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1_000_000;
        openDeal(demand, fundedProvider(1000));
    }

    function deployMarket(MarketConfig memory constants) internal override returns (IMarket) {
        return IMarket(
            deployCode(
                "abi/Market.json", abi.encode(constants, deployCode("abi/MarketExtension.json", abi.encode(constants)))
            )
        );
    }

    /// @dev The provider is paid to its own account; what another one costs is measured apart.
    function supplyOf(Provider memory seller) internal view override returns (ProviderOffer memory supply) {
        supply = super.supplyOf(seller);
        supply.payout = seller.account;
    }

    function record(string memory name) internal {
        record(name, gasOfLastCall());
    }

    function record(string memory name, uint256 gas) internal {
        vm.snapshotValue("gas", name, gas);
    }

    function gasOfLastCall() internal view returns (uint256) {
        VmSafe.Gas memory gas = vm.lastCallGas();
        return gas.gasTotalUsed;
    }

    function longDemand(uint64 nonce) internal view returns (DeveloperOffer memory demand) {
        demand = demandOf(1);
        demand.epochs = 2000;
        demand.nonce = nonce;
    }

    /// @dev Signed before anything is measured: signing asks the market for hashes.
    function firstMatches(uint256 fills, uint64 nonce) internal returns (Match[] memory matches) {
        Provider[] memory providers = new Provider[](fills);
        ProviderOffer[] memory supplies = new ProviderOffer[](fills);
        for (uint256 i = 0; i < fills; ++i) {
            providers[i] = fundedProvider(i + 1);
            supplies[i] = supplyOf(providers[i]);
        }
        DeveloperOffer memory demand = demandOf(uint16(fills));
        demand.nonce = nonce;
        matches = new Match[](1);
        matches[0] = signedMatch(demand, providers, supplies);
    }

    // --- Opening ----------------------------------------------------------------------------------------------------

    function test_OpenReplicas() public {
        Match[] memory one = firstMatches(1, 0);
        Match[] memory eleven = firstMatches(11, 1);
        uint256 before = vm.snapshotState();
        market.matchOffers(one);
        uint256 first = gasOfLastCall();
        record("open_first_replica_gas", first);
        vm.revertToState(before);
        market.matchOffers(eleven);
        record("open_next_replica_gas", (gasOfLastCall() - first) / 10);
    }

    function test_OpenReplicasAtKnownProviders() public {
        Match[] memory opening = firstMatches(11, 0);
        Match[] memory one = firstMatches(1, 1);
        Match[] memory eleven = firstMatches(11, 2);
        market.matchOffers(opening);
        for (uint256 i = 0; i < 11; ++i) {
            eleven[0].fills[i].signature = "";
        }
        one[0].fills[0].signature = "";
        uint256 before = vm.snapshotState();
        market.matchOffers(one);
        uint256 first = gasOfLastCall();
        record("open_first_replica_known_provider_gas", first);
        vm.revertToState(before);
        market.matchOffers(eleven);
        record("open_next_replica_known_provider_gas", (gasOfLastCall() - first) / 10);
    }

    /// @dev Wallets sign in 65 bytes; matchers shorten what is an account's own.
    function test_OpenFirstReplicaWithLongSignatures() public {
        Match[] memory one = firstMatches(1, 0);
        one[0].developerSignature = long(one[0].developerSignature);
        one[0].fills[0].signature = long(one[0].fills[0].signature);
        market.matchOffers(one);
        record("open_first_replica_long_signatures_gas");
    }

    function long(bytes memory short) internal pure returns (bytes memory) {
        (bytes32 r, uint256 vs) = abi.decode(short, (bytes32, uint256));
        return abi.encodePacked(r, vs & (type(uint256).max >> 1), uint8(27 + (vs >> 255)));
    }

    function test_OpenFirstReplicaThatPaysElsewhere() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.payout = provider.payout;
        Match[] memory matches = new Match[](1);
        matches[0] = signedMatch(demandOf(1), provider, supply);
        market.matchOffers(matches);
        record("open_first_replica_other_payout_gas");
    }

    function test_RegisterProvider() public {
        ProviderOffer memory supply = supplyOf(provider);
        vm.prank(provider.account);
        market.postProviderOffer(supply);
        record("register_provider_gas");
    }

    // --- Attesting and settling -------------------------------------------------------------------------------------

    function test_Attest() public {
        nextEpochs(1);
        serve(provider.agent, 2);
        nextEpochs(1);
        attest(provider.agent, epochNow() - 1);
        record("attest_gas");
    }

    /// @dev Once in 192 epochs.
    function test_AttestInANewWord() public {
        toEpoch(EpochBitmap.SPAN - 1);
        serve(provider.agent, 1);
        nextEpochs(1);
        attest(provider.agent, EpochBitmap.SPAN);
        record("attest_new_word_gas");
    }

    function test_SettleOne() public {
        DealId dealId = openDeal(longDemand(0), provider);
        nextEpochs(1);
        serve(provider.agent, 1);
        claim(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        record("settle_one_gas");
    }

    function test_SettleAThousandEpochs() public {
        DealId dealId = openDeal(longDemand(0), provider);
        nextEpochs(1);
        serve(provider.agent, 1);
        claim(dealId);
        serve(provider.agent, 1000);
        assertEq(claim(dealId), 1000 * PRICE);
        record("settle_one_1000_epochs_gas");
    }

    function test_SettleABatchOfTen() public {
        DealId[] memory dealIds = new DealId[](10);
        ProviderOffer memory supply = supplyOf(provider);
        supply.milliCpu = 5000;
        for (uint64 i = 0; i < 10; ++i) {
            DeveloperOffer memory demand = longDemand(i);
            submit(signedMatch(demand, provider, supply));
            dealIds[i] = refTo(demand, supply);
        }
        nextEpochs(1);
        serve(provider.agent, 1);
        claim(dealIds);
        serve(provider.agent, 1);
        assertEq(claim(dealIds), 10 * PRICE);
        record("settle_batch10_each_gas", gasOfLastCall() / 10);
    }

    // --- Changing ---------------------------------------------------------------------------------------------------

    function test_ChangeAndSlash() public {
        DealId dealId = openDeal(longDemand(0), provider);
        nextEpochs(1);
        serve(provider.agent, 1);
        claim(dealId);
        DealChange memory change = DealChange(dealId, 1, 3000, 500, 512, PRICE * 2, VALID_UNTIL);
        bytes32 digest = market.hashDealChange(change);
        bytes memory fromDeveloper = sign(developerKey, OfferHash.wrap(digest));
        bytes memory fromProvider = sign(provider.key, OfferHash.wrap(digest));
        ProviderOffer memory supply = supplyOf(provider);
        DealRef memory ref = refOf(dealId);
        market.changeDeal(ref, change, supply, fromDeveloper, fromProvider);
        record("change_deal_gas");
        (, uint256 agentKey) = makeAddrAndKey("agent1");
        SignedReceipt memory first = SignedReceipt(dealId, 7, "one");
        SignedReceipt memory second = SignedReceipt(dealId, 7, "another");
        bytes memory firstSignature = sign(agentKey, OfferHash.wrap(market.hashReceipt(first)));
        bytes memory secondSignature = sign(agentKey, OfferHash.wrap(market.hashReceipt(second)));
        market.slash(ref, first, firstSignature, second, secondSignature);
        record("slash_gas");
    }

    function test_UpdateArtifact() public {
        openDeal(longDemand(0), provider);
        OfferHash offerHash = market.hashDeveloperOffer(longDemand(0));
        ArtifactUpdate memory update =
            ArtifactUpdate(offerHash, 1, keccak256("new.wasm"), 0, VALID_UNTIL, "https://artifacts.example/new.wasm");
        vm.prank(developer);
        market.updateArtifact(update, "");
        record("update_artifact_first_gas");
    }

    // --- Escrow -----------------------------------------------------------------------------------------------------

    /// @dev With a standing allowance, as wallets give it, and with one that the deposit uses up in part.
    function test_DepositAgain() public {
        token.mint(developer, 40e6);
        vm.startPrank(developer);
        token.approve(address(market), type(uint256).max);
        market.deposit(10e6);
        market.deposit(5e6);
        record("deposit_again_gas");
        token.approve(address(market), 10e6);
        market.deposit(5e6);
        record("deposit_again_counted_allowance_gas");
    }

    function test_Withdraw() public {
        token.mint(developer, 1e6);
        vm.prank(developer);
        market.withdraw(5e6, developer);
        record("withdraw_gas");
    }

    // --- Ending -----------------------------------------------------------------------------------------------------

    function test_Cancel() public {
        DealId dealId = openDeal(longDemand(0), provider);
        nextEpochs(1);
        serve(provider.agent, 2);
        claim(dealId);
        cancel(dealId);
        record("cancel_gas");
    }

    function test_CancelOfferAndDeal() public {
        DealId dealId = openDeal(longDemand(0), provider);
        OfferHash offerHash = market.hashDeveloperOffer(longDemand(0));
        nextEpochs(1);
        serve(provider.agent, 2);
        claim(dealId);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IMarketCore.cancelOffer, (offerHash));
        calls[1] = abi.encodeCall(IMarketCore.cancelDeals, (refsOf(dealId)));
        vm.prank(developer);
        Multicallable(address(market)).multicall(calls);
        record("cancel_offer_and_deal_gas");
    }

    function test_EvictAndClose() public {
        DealId first = openDeal(longDemand(0), provider);
        DealId second = openDeal(longDemand(1), provider);
        vm.prank(developer);
        market.cancelDeals(refsOf(second));
        nextEpochs(1 + EVICT_AFTER + WINDOW);
        market.closeDeal(refOf(second));
        record("close_gas");
        market.evict(refOf(first));
        record("evict_gas");
    }
}
