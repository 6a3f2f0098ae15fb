// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Market} from "../src/Market.sol";
import {MarketExtension} from "../src/MarketExtension.sol";
import {IMarketCore} from "../src/interfaces/IMarketCore.sol";
import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarketExtension} from "../src/interfaces/IMarketExtension.sol";
import {
    ArtifactUpdate,
    DealChange,
    DealId,
    DealRef,
    DealState,
    DeveloperOffer,
    EndCause,
    Epoch,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
    Receipt as DealReceipt,
    Reason
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";

/// @dev The market is two contracts over one storage.
contract ExtensionTest is Actions {
    Provider internal provider;
    IMarketExtension internal extension;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        extension = IMarketExtension(market.extension());
    }

    // --- One storage: written by the one, read by the other -------------------------------------------------------------

    function test_AccountsAreShared() public {
        // Balance and nonce floor by the market, read by the extension, in one word.
        fund(stranger, 10);
        vm.prank(stranger);
        market.raiseNonceFloor(77);
        assertEq(market.account(stranger).free, 10);
        assertEq(market.account(stranger).nonceFloor, 77);
        // Spent by the extension, read by the market.
        DealId dealId = openDeal(provider);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), 4);
        assertEq(market.freeBalance(stranger), 6);
    }

    function test_ProviderOffersAreShared() public {
        ProviderOffer memory supply = supplyOf(provider);
        vm.prank(provider.account);
        OfferHash offerHash = market.postProviderOffer(supply);
        assertEq(market.providerOffer(provider.account, offerHash).agent, provider.agent);
        assertEq(market.providerOffer(provider.account, offerHash).payout, provider.payout);
        vm.prank(provider.account);
        market.cancelOffer(offerHash);
        assertTrue(market.isCancelled(provider.account, offerHash));
    }

    function test_CapacityGivenBackByTheExtensionIsFoundByTheMarket() public {
        DeveloperOffer memory demand = demandOf(1);
        (demand.milliCpu, demand.memoryMib, demand.maxPricePerEpoch) = (4000, 8192, 100e6);
        DealId dealId = openDeal(demand, provider);
        demand.nonce = 1;
        Match memory item = signedMatch(demand, provider, supplyOf(provider));
        assertEq(submit(item), 0, "full");
        slashWith(agentKeyNo(1), dealId);
        assertEq(submit(item), 1);
    }

    function test_DeveloperOffersAndDealsAreShared() public {
        DealId dealId = openDeal(provider);
        assertState(dealId, DealState.Active, EndCause.None);
        OfferHash offerHash = market.hashDeveloperOffer(demandOf(1));
        assertEq(market.developerOffer(offerHash).liveReplicas, 1);
        // Ended by the extension; the market has the place free again, and skips the deal.
        slashWith(agentKeyNo(1), dealId);
        vm.expectEmit(address(market));
        emit IMarketEvents.ClaimSkipped(dealId, Reason.DealAlreadyEnded);
        claim(dealId);
        Provider memory other = fundedProvider(2);
        assertEq(submit(signedMatch(demandOf(1), other, supplyOf(other))), 1);
    }

    function test_ChangesAreShared() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        reprice(provider, dealId, 2 * PRICE);
        serve(provider.agent, 2);
        assertEq(claim(dealId), 3 * PRICE);
    }

    function test_AttestationsAreShared() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, 2);
        assertTrue(market.isAttested(provider.agent, Epoch.wrap(2)));
        assertEq(market.attestedEpochs(provider.agent, Epoch.wrap(0), Epoch.wrap(9)), 2);
        assertNotEq(market.account(provider.agent).receiptsHash, 0);
        nextEpochs(EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        assertEq(market.freeBalance(provider.payout), 2 * PRICE);
    }

    function test_ArtifactsAndThePauseAreShared() public {
        openDeal(provider);
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        vm.prank(developer);
        market.updateArtifact(update, "");
        // One word behind another: the market keeps its deals right when the extension writes artifacts.
        assertEq(market.developerOffer(update.developerOffer).artifact, update.artifact);
        assertFalse(market.matchingPaused());
        vm.prank(operator);
        market.setMatchingPaused(true);
        assertTrue(market.matchingPaused());
    }

    function test_BothSignUnderTheMarketsDomain() public view {
        bytes32 domainType =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 named = keccak256("Wharfage Market");
        bytes32 expected = keccak256(abi.encode(domainType, named, keccak256("1"), block.chainid, address(market)));
        assertEq(market.domainSeparator(), expected);
        assertNotEq(extension.domainSeparator(), expected);
    }

    // --- Deployment -----------------------------------------------------------------------------------------------------

    function deployWith(MarketConfig memory constants, address code) external returns (Market) {
        return new Market(constants, code);
    }

    function expectRefused(address code) internal {
        MarketConfig memory constants = defaultConfig();
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.ConfigInvalid.selector, bytes32("extension")));
        this.deployWith(constants, code);
    }

    function test_AnExtensionWithoutCodeIsRefused() public {
        expectRefused(address(0));
        expectRefused(stranger);
    }

    function test_AnExtensionOfOtherConstantsIsRefused() public {
        vm.warp(GENESIS + 1);
        for (uint256 field = 0; field < 10; ++field) {
            MarketConfig memory other = defaultConfig();
            if (field == 0) other.token = address(this);
            if (field == 1) other.operator = stranger;
            if (field == 2) other.genesis += 1;
            if (field == 3) other.epochLength += 1;
            if (field == 4) other.attestationWindow += 1;
            if (field == 5) other.evictAfterMissed += 1;
            if (field == 6) other.bondEpochs += 1;
            if (field == 7) other.minPrepaidEpochs += 1;
            if (field == 8) other.graceEpochs += 1;
            if (field == 9) other.noticeEpochs += 1;
            expectRefused(address(new MarketExtension(other)));
        }
        assertEq(this.deployWith(defaultConfig(), address(extension)).extension(), address(extension));
    }

    function test_SomethingThatIsNoExtensionIsRefused() public {
        MarketConfig memory constants = defaultConfig();
        vm.expectRevert();
        this.deployWith(constants, address(token));
    }

    // --- Called directly --------------------------------------------------------------------------------------------------

    /// @dev On its own storage the extension knows no deal, no offer and no balance, and has no way in.
    function test_ByItselfTheExtensionIsAnEmptyMarket() public {
        DealId dealId = openDeal(provider);
        DealRef memory ref = refOf(dealId);
        DealRef[] memory refs = refsOf(dealId);
        bytes memory notOpen = abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId);
        vm.record();
        vm.startPrank(developer);
        vm.expectRevert(notOpen);
        extension.fundDeal(ref, 1);
        vm.expectRevert(notOpen);
        extension.giveNotice(refs);
        vm.expectRevert(notOpen);
        extension.evict(ref);
        vm.expectRevert(notOpen);
        extension.closeDeal(ref);
        DealReceipt memory receipt = receiptOf(dealId, 1, "x");
        vm.expectRevert(notOpen);
        extension.slash(ref, receipt, "", receipt, "");
        DealChange memory change;
        vm.expectRevert(notOpen);
        extension.changeDeal(ref, change, supplyOf(provider), "", "");
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferUnknown.selector, update.developerOffer));
        extension.updateArtifact(update, "");
        vm.stopPrank();
        (, bytes32[] memory writes) = vm.accesses(address(extension));
        assertEq(writes.length, 0, "nothing was written");
        assertEq(uint8(extension.deal(ref).state), uint8(DealState.None));
        assertEq(extension.account(developer).free, 0);
    }

    function test_ByItselfTheExtensionTakesNothingIn() public {
        token.mint(stranger, 5e6);
        vm.startPrank(stranger);
        token.approve(address(extension), 5e6);
        (bool success,) = address(extension).call(abi.encodeCall(IMarketCore.deposit, (5e6)));
        assertFalse(success);
        (success,) = address(extension).call(abi.encodeCall(IMarketCore.withdraw, (1, stranger)));
        assertFalse(success);
        vm.stopPrank();
        assertEq(token.balanceOf(address(extension)), 0);
        assertEq(token.balanceOf(stranger), 5e6);
    }

    // --- Through the market -----------------------------------------------------------------------------------------------

    function test_OnlyTheCallerActsInAMulticall() public {
        DealId dealId = openDeal(provider);
        bytes[] memory calls = new bytes[](3);
        calls[0] = abi.encodeCall(market.updateArtifact, (updateOf(demandOf(1), 1), ""));
        calls[1] = abi.encodeCall(market.fundDeal, (refOf(dealId), PRICE));
        calls[2] = abi.encodeCall(market.cancelDeals, (refsOf(dealId)));
        // The developer's signature is missing, so it must be the developer who calls.
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, developer));
        vm.prank(stranger);
        Market(address(market)).multicall(calls);
        vm.prank(developer);
        bytes[] memory answers = Market(address(market)).multicall(calls);
        assertEq(answers.length, 3);
        assertState(dealId, DealState.Ending, EndCause.DeveloperCancelled);
        assertEq(market.developerOffer(refOf(dealId).developerOffer).version, 1);
        assertEq(free(developer), START_FREE, "funded and given back");
    }

    function test_AMulticallOfBothPartsIsAllOrNothing() public {
        DealId dealId = openDeal(provider);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(market.giveNotice, (refsOf(dealId)));
        calls[1] = abi.encodeCall(market.withdraw, (START_FREE, provider.account));
        uint256 left = START_FREE - BOND;
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, left, START_FREE));
        vm.prank(provider.account);
        Market(address(market)).multicall(calls);
        assertState(dealId, DealState.Active, EndCause.None);
        // Reads answer in it as well.
        calls[0] = abi.encodeCall(market.account, (developer));
        calls[1] = abi.encodeCall(market.freeBalance, (developer));
        bytes[] memory answers = Market(address(market)).multicall(calls);
        assertEq(abi.decode(answers[1], (uint256)), free(developer));
        assertEq(keccak256(answers[0]), keccak256(abi.encode(market.account(developer))));
    }

    function test_UnknownFunctionsAreRefused() public {
        (bool success, bytes memory answer) = address(market).call(hex"12345678");
        assertFalse(success);
        assertEq(answer.length, 0);
        (success,) = address(market).call("");
        assertFalse(success);
        (success,) = address(market).call(hex"12");
        assertFalse(success);
    }

    function test_EtherIsRefused() public {
        vm.deal(stranger, 10 ether);
        bytes[] memory none = new bytes[](0);
        bytes[5] memory calls = [
            bytes(""),
            abi.encodeCall(IMarketCore.raiseNonceFloor, (1)),
            abi.encodeCall(market.account, (developer)),
            abi.encodeCall(Market(address(market)).multicall, (none)),
            hex"12345678"
        ];
        vm.startPrank(stranger);
        for (uint256 i = 0; i < calls.length; ++i) {
            (bool success,) = address(market).call{value: 1}(calls[i]);
            assertFalse(success, vm.toString(i));
            (success,) = address(extension).call{value: 1}(calls[i]);
            assertFalse(success, vm.toString(i));
        }
        assertEq(address(market).balance, 0);
        assertEq(stranger.balance, 10 ether);
    }

    function test_ErrorsOfTheExtensionComeThrough() public {
        DealRef memory ref = DealRef(OfferHash.wrap("none"), stranger, OfferHash.wrap("none"));
        DealId dealId = market.dealIdOf(ref.developerOffer, stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId));
        market.evict(ref);
    }
}
