// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DeveloperOffer, Match, OfferHash, ProviderOffer, Reason, Region} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract PostOfferTest is Base {
    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    // --- Posting ----------------------------------------------------------------------------------------------------

    function test_PostedOffersNeedNoSignature() public {
        ProviderOffer memory supply = supplyOf(provider);
        DeveloperOffer memory demand = demandOf(1);
        OfferHash supplyHash = market.hashProviderOffer(supply);
        OfferHash demandHash = market.hashDeveloperOffer(demand);
        vm.expectEmit(address(market));
        emit IMarketEvents.ProviderOfferOpened(supplyHash, provider.agent, supply);
        vm.prank(provider.account);
        assertEq(OfferHash.unwrap(market.postProviderOffer(supply)), OfferHash.unwrap(supplyHash));
        vm.expectEmit(address(market));
        emit IMarketEvents.DeveloperOfferOpened(demandHash, developer, demand);
        vm.prank(developer);
        assertEq(OfferHash.unwrap(market.postDeveloperOffer(demand)), OfferHash.unwrap(demandHash));

        Match memory item = signedMatch(demand, provider, supply);
        item.developerSignature = "";
        item.fills[0].signature = "";
        assertEq(submit(item), 1);
    }

    function test_OnlyTheOwnerPosts() public {
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotOfferOwner.selector, provider.account, stranger));
        market.postProviderOffer(supplyOf(provider));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotOfferOwner.selector, developer, stranger));
        market.postDeveloperOffer(demandOf(1));
    }

    function test_AnOfferIsOpenedOnce() public {
        vm.prank(developer);
        OfferHash demandHash = market.postDeveloperOffer(demandOf(1));
        vm.prank(developer);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferAlreadyOpened.selector, demandHash));
        market.postDeveloperOffer(demandOf(1));
        vm.prank(provider.account);
        OfferHash supplyHash = market.postProviderOffer(supplyOf(provider));
        vm.prank(provider.account);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferAlreadyOpened.selector, supplyHash));
        market.postProviderOffer(supplyOf(provider));
    }

    function test_VoidOffersAreNotPosted() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.validUntil = uint64(block.timestamp - 1);
        expectVoid(demand, Reason.DeveloperOfferExpired);
        demand.validUntil = uint64(block.timestamp);
        vm.prank(developer);
        market.raiseNonceFloor(1);
        expectVoid(demand, Reason.DeveloperNonceTooLow);
        demand.nonce = 1;
        OfferHash demandHash = market.hashDeveloperOffer(demand);
        vm.prank(developer);
        market.cancelOffer(demandHash);
        expectVoid(demand, Reason.DeveloperOfferCancelled);

        ProviderOffer memory supply = supplyOf(provider);
        supply.validUntil = uint64(block.timestamp - 1);
        expectVoid(supply, Reason.ProviderOfferExpired);
        vm.prank(provider.account);
        market.raiseNonceFloor(1);
        expectVoid(supply, Reason.ProviderNonceTooLow);
        OfferHash supplyHash = market.hashProviderOffer(supply);
        vm.prank(provider.account);
        market.cancelOffer(supplyHash);
        expectVoid(supply, Reason.ProviderOfferCancelled);
    }

    function expectVoid(DeveloperOffer memory demand, Reason reason) internal {
        OfferHash offerHash = market.hashDeveloperOffer(demand);
        vm.prank(developer);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferVoid.selector, offerHash, reason));
        market.postDeveloperOffer(demand);
    }

    function expectVoid(ProviderOffer memory supply, Reason reason) internal {
        OfferHash offerHash = market.hashProviderOffer(supply);
        vm.prank(provider.account);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferVoid.selector, offerHash, reason));
        market.postProviderOffer(supply);
    }

    // --- Limits of the fields ---------------------------------------------------------------------------------------

    function test_MalformedProviderOffers() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.agent = address(0);
        expectMalformed(supply);
        supply = supplyOf(provider);
        supply.payout = address(0);
        expectMalformed(supply);
        supply = supplyOf(provider);
        supply.milliCpu = 0;
        expectMalformed(supply);
        supply = supplyOf(provider);
        supply.memoryMib = 0;
        expectMalformed(supply);
        supply = supplyOf(provider);
        supply.region = Region.wrap("eu");
        expectMalformed(supply);
        supply.region = Region.wrap(0);
        expectMalformed(supply);
        supply.region = Region.wrap(0x6575646500667261);
        expectMalformed(supply);
        supply = supplyOf(provider);
        supply.endpoint = string(new bytes(513));
        expectMalformed(supply);
        supply.endpoint = string(new bytes(512));
        vm.prank(provider.account);
        market.postProviderOffer(supply);
    }

    function expectMalformed(ProviderOffer memory supply) internal {
        vm.prank(provider.account);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferMalformed.selector, Reason.ProviderOfferMalformed));
        market.postProviderOffer(supply);
    }

    function test_MalformedDeveloperOffers() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.artifact = 0;
        expectMalformed(demand);
        demand = demandOf(1);
        demand.milliCpu = 0;
        expectMalformed(demand);
        demand = demandOf(1);
        demand.memoryMib = 0;
        expectMalformed(demand);
        demand = demandOf(1);
        demand.minReplicas = 0;
        expectMalformed(demand);
        demand = demandOf(1);
        demand.minReplicas = 2;
        expectMalformed(demand);
        expectMalformed(demandOf(101));
        demand = demandOf(1);
        demand.epochs = 0;
        expectMalformed(demand);
        demand = demandOf(1);
        demand.prepaidEpochs = MIN_PREPAID - 1;
        expectMalformed(demand);
    }

    function test_MalformedDeveloperOfferLists() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.allow = new address[](33);
        expectMalformed(demand);
        demand = demandOf(1);
        demand.deny = new address[](33);
        expectMalformed(demand);
        demand = demandOf(1);
        demand.artifactUrl = string(new bytes(513));
        expectMalformed(demand);
        demand = demandOf(1);
        demand.regions[0] = Region.wrap("e");
        expectMalformed(demand);
        demand.regions[0] = Region.wrap("eud");
        expectMalformed(demand);
        demand.regions = new Region[](17);
        for (uint256 i = 0; i < 17; ++i) {
            demand.regions[i] = Region.wrap("eu");
        }
        expectMalformed(demand);
    }

    function expectMalformed(DeveloperOffer memory demand) internal {
        vm.prank(developer);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.OfferMalformed.selector, Reason.DeveloperOfferMalformed));
        market.postDeveloperOffer(demand);
    }

    function test_LimitsThemselvesAreAllowed() public {
        DeveloperOffer memory demand = demandOf(100);
        demand.minReplicas = 100;
        demand.allow = new address[](32);
        demand.deny = new address[](32);
        demand.artifactUrl = string(new bytes(512));
        demand.regions = new Region[](16);
        for (uint256 i = 0; i < 16; ++i) {
            demand.regions[i] = Region.wrap(i % 2 == 0 ? bytes8("eu") : bytes8("eudef"));
        }
        // A term shorter than the market's least prepayment is prepaid as a whole.
        demand.epochs = 1;
        demand.prepaidEpochs = 1;
        vm.prank(developer);
        market.postDeveloperOffer(demand);
    }

    // --- Cancelling -------------------------------------------------------------------------------------------------

    function test_CancelKnownOffer() public {
        vm.startPrank(developer);
        OfferHash offerHash = market.postDeveloperOffer(demandOf(1));
        assertFalse(market.isCancelled(developer, offerHash));
        vm.expectEmit(address(market));
        emit IMarketEvents.OfferCancelled(developer, offerHash);
        market.cancelOffer(offerHash);
        assertTrue(market.isCancelled(developer, offerHash));
        vm.stopPrank();
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        expectMatchSkipped(item, Reason.DeveloperOfferCancelled);
        assertEq(submit(item), 0);
    }

    function test_CancelTwiceSaysItOnce() public {
        vm.startPrank(developer);
        OfferHash offerHash = market.postDeveloperOffer(demandOf(1));
        market.cancelOffer(offerHash);
        vm.recordLogs();
        market.cancelOffer(offerHash);
        assertEq(vm.getRecordedLogs().length, 0);
        assertTrue(market.isCancelled(developer, offerHash));
    }

    function test_CancelOfAnotherOwnersKnownOfferIsRefused() public {
        vm.prank(developer);
        OfferHash demandHash = market.postDeveloperOffer(demandOf(1));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotOfferOwner.selector, developer, stranger));
        vm.prank(stranger);
        market.cancelOffer(demandHash);
        assertFalse(market.isCancelled(developer, demandHash));
    }

    /// @dev Provider offers are kept by owner: nothing tells the market that the hash is somebody else's.
    function test_CancelOfAnotherProvidersOfferMarksTheCallersOwnOnly() public {
        vm.prank(provider.account);
        OfferHash supplyHash = market.postProviderOffer(supplyOf(provider));
        vm.prank(stranger);
        market.cancelOffer(supplyHash);
        assertTrue(market.isCancelled(stranger, supplyHash));
        assertFalse(market.isCancelled(provider.account, supplyHash));
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        item.fills[0].signature = "";
        assertEq(submit(item), 1);
    }

    function test_CancelOfUnseenOfferBindsItsOwnerOnly() public {
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        OfferHash demandHash = market.hashDeveloperOffer(item.developerOffer);
        vm.prank(stranger);
        market.cancelOffer(demandHash);
        assertTrue(market.isCancelled(stranger, demandHash));
        assertFalse(market.isCancelled(developer, demandHash));
        assertEq(submit(item), 1);
    }

    function test_UnseenSignedOffersAreRevocable() public {
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        OfferHash supplyHash = market.hashProviderOffer(item.fills[0].offer);
        vm.prank(provider.account);
        market.cancelOffer(supplyHash);
        expectFillSkipped(item, 0, Reason.ProviderOfferCancelled);
        expectMatchSkipped(item, Reason.TooFewReplicas);
        assertEq(submit(item), 0);
        OfferHash demandHash = market.hashDeveloperOffer(item.developerOffer);
        vm.prank(developer);
        market.cancelOffer(demandHash);
        expectMatchSkipped(item, Reason.DeveloperOfferCancelled);
        assertEq(submit(item), 0);
    }

    function test_NonceFloorVoidsSmallerNonces() public {
        vm.startPrank(developer);
        vm.expectEmit(address(market));
        emit IMarketEvents.NonceFloorRaised(developer, 7);
        market.raiseNonceFloor(7);
        assertEq(market.account(developer).nonceFloor, 7);
        assertEq(free(developer), START_FREE, "balance in the same word");
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NonceFloorNotRaised.selector, 7, 7));
        market.raiseNonceFloor(7);
        vm.stopPrank();
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 6;
        Match memory item = signedMatch(demand, provider, supplyOf(provider));
        expectMatchSkipped(item, Reason.DeveloperNonceTooLow);
        assertEq(submit(item), 0);
        demand.nonce = 7;
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1);
    }

    function test_NonceFloorVoidsKnownProviderOffers() public {
        vm.startPrank(provider.account);
        market.postProviderOffer(supplyOf(provider));
        market.raiseNonceFloor(1);
        vm.stopPrank();
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        expectFillSkipped(item, 0, Reason.ProviderNonceTooLow);
        assertEq(submit(item), 0);
    }
}
