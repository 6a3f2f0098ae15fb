// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DealId, DealState, DeveloperOffer, EndCause, Epoch, Match, OfferHash, Reason} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract NoticeTest is Base {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        nextEpochs(1);
    }

    function test_NoticeEndsAfterTheNoticePeriod() public {
        vm.prank(provider.account);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealEnding(dealId, EndCause.ProviderLeft, Epoch.wrap(4), PRICE);
        market.giveNotice(refsOf(dealId));
        assertState(dealId, DealState.Ending, EndCause.ProviderLeft);
        serve(provider.agent, 3);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderLeft);
        assertEq(free(provider.payout), 3 * PRICE);
        assertEq(free(provider.account), START_FREE, "bond returned");
        assertEq(free(developer), START_FREE - 3 * PRICE);
    }

    function test_TheAgentMayGiveNoticeToo() public {
        vm.prank(provider.agent);
        market.giveNotice(refsOf(dealId));
        assertState(dealId, DealState.Ending, EndCause.ProviderLeft);
    }

    function test_NobodyElseMay() public {
        vm.startPrank(developer);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotProvider.selector, dealId, developer));
        market.giveNotice(refsOf(dealId));
    }

    function test_NoticeNearTheEndChangesNothing() public {
        toEpoch(TERM - NOTICE);
        vm.recordLogs();
        giveNotice(provider, dealId);
        assertEq(vm.getRecordedLogs().length, 0);
        assertState(dealId, DealState.Active, EndCause.None);
    }

    function test_NoticeAfterCancelChangesNothing() public {
        cancel(dealId);
        giveNotice(provider, dealId);
        assertState(dealId, DealState.Ending, EndCause.DeveloperCancelled);
    }

    function test_CancelDuringNoticeEndsSooner() public {
        giveNotice(provider, dealId);
        cancel(dealId);
        assertState(dealId, DealState.Ending, EndCause.DeveloperCancelled);
        assertEpoch(deal(dealId).endEpoch, 2, "end");
    }

    function test_LeavingBeforeNoticeIsOverCostsTheBond() public {
        serve(provider.agent, 1);
        giveNotice(provider, dealId);
        nextEpochs(EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        assertEq(free(provider.account), START_FREE - BOND);
        assertEq(free(developer), START_FREE - PRICE + BOND);
    }

    function test_TheDealIsToppedUpDuringNoticeToItsEndOnly() public {
        drain(developer);
        fund(developer, 10 * PRICE);
        giveNotice(provider, dealId);
        assertEq(deal(dealId).locked, 3 * PRICE);
        serve(provider.agent, 1);
        claim(dealId);
        assertEq(deal(dealId).locked, 2 * PRICE);
        assertEq(free(developer), 11 * PRICE);
    }

    function test_AReplicaThatLeftIsFilledElsewhereForTheRest() public {
        giveNotice(provider, dealId);
        Provider memory other = fundedProvider(2);
        DeveloperOffer memory demand = demandOf(1);
        Match memory item = signedMatch(demand, other, supplyOf(other));
        expectFillSkipped(item, 0, Reason.ReplicasFull);
        assertEq(submit(item), 0);
        serve(provider.agent, 3);
        market.closeDeal(refOf(dealId));
        OfferHash offerHash = market.hashDeveloperOffer(demand);
        (uint16 live,) = placementOf(offerHash);
        assertEq(live, 0);
        assertEq(submit(item), 1);
        assertEpoch(deal(market.dealIdOf(offerHash, other.account)).endEpoch, TERM + 1, "end");
        // But never again at the one that left.
        item = signedMatch(demand, provider, supplyOf(provider));
        assertReason(market.checkFill(demand, item.fills[0].offer), Reason.ReplicasFull);
    }
}
