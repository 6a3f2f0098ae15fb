// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DealId, DealState, DeveloperOffer, EndCause, Match, OfferHash, Reason} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract EvictTest is Base {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
    }

    function expectNotEvictable() internal {
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotEvictable.selector, dealId));
        market.evict(refOf(dealId));
    }

    function test_EvictAfterEnoughMissedEpochs() public {
        nextEpochs(1);
        serve(provider.agent, 2);
        nextEpochs(EVICT_AFTER + WINDOW);
        vm.expectEmit(address(market));
        // Settled through epoch 5, so the lock had been renewed through the current one, 10.
        emit IMarketEvents.DealEnded(dealId, EndCause.ProviderEvicted, 5 * PRICE, developer, BOND);
        vm.prank(stranger);
        market.evict(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        assertEq(free(provider.payout), 2 * PRICE, "served epochs are paid first");
        assertEq(free(developer), START_FREE - 2 * PRICE + BOND);
        assertEq(free(provider.account), START_FREE - BOND);
        assertEq(deal(dealId).bond, 0);
        (uint256 milliCpu, uint256 memoryMib) = usedOf(supplyOf(provider));
        assertEq(milliCpu, 0);
        assertEq(memoryMib, 0);
    }

    function test_NotOneEpochTooEarly() public {
        // Epochs 1 to 3 are missed for good when epoch 3 + WINDOW has ended.
        toEpoch(EVICT_AFTER + WINDOW);
        expectNotEvictable();
        nextEpochs(1);
        market.evict(refOf(dealId));
    }

    function test_EpochsBeforeTheDealAreNotMissed() public {
        toEpoch(50);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        dealId = openDeal(demand, fundedProvider(2));
        toEpoch(50 + EVICT_AFTER + WINDOW);
        expectNotEvictable();
    }

    function test_OneAttestationStartsTheCountAnew() public {
        nextEpochs(EVICT_AFTER);
        serve(provider.agent, 1);
        nextEpochs(WINDOW);
        expectNotEvictable();
        nextEpochs(EVICT_AFTER);
        market.evict(refOf(dealId));
    }

    function test_AttestableEpochsAreNotMissed() public {
        nextEpochs(EVICT_AFTER + WINDOW);
        attest(provider.agent, EVICT_AFTER);
        nextEpochs(1);
        expectNotEvictable();
    }

    function test_UnfundedEpochsAreNotMissed() public {
        drain(developer);
        nextEpochs(1);
        serve(provider.agent, PREPAID);
        // Nobody settles; the provider stops where the lock ends.
        nextEpochs(EVICT_AFTER + 3 * WINDOW);
        expectNotEvictable();
        claim(dealId);
        expectNotEvictable();
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.Unfunded);
        assertEq(free(provider.account), START_FREE, "bond returned");
    }

    function test_TheCountStartsAnewAfterAGap() public {
        drain(developer);
        nextEpochs(1);
        serve(provider.agent, PREPAID);
        claim(dealId);
        nextEpochs(3);
        fund(developer, 100 * PRICE);
        claim(dealId);
        uint256 resumed = epochNow() + 1;
        toEpoch(resumed + EVICT_AFTER + WINDOW - 1);
        expectNotEvictable();
        nextEpochs(1);
        market.evict(refOf(dealId));
    }

    function test_MissesBeforeAGapStillCount() public {
        drain(developer);
        toEpoch(EVICT_AFTER + WINDOW + 1);
        claim(dealId);
        // Epochs 1 to 3 are missed for good, so their money covers 4 to 7.
        assertEpoch(deal(dealId).unfundedSince, 8, "unfundedSince");
        market.evict(refOf(dealId));
        assertEq(free(developer), PREPAID * PRICE + BOND);
    }

    function test_ThePlaceReopensAndIsFilledElsewhere() public {
        Provider memory other = fundedProvider(2);
        toEpoch(1 + EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        OfferHash offerHash = market.hashDeveloperOffer(demandOf(1));
        (uint16 live,) = placementOf(offerHash);
        assertEq(live, 0);
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        assertReason(market.checkFill(item.developerOffer, item.fills[0].offer), Reason.AlreadyHosting);
        assertEq(submit(signedMatch(demandOf(1), other, supplyOf(other))), 1);
        assertEpoch(deal(market.dealIdOf(offerHash, other.account)).endEpoch, TERM + 1, "end");
    }

    function test_OnlyOpenDealsAreEvicted() public {
        toEpoch(1 + EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId));
        market.evict(refOf(dealId));
    }
}
