// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {Multicallable} from "solady/utils/Multicallable.sol";
import {IMarketCore} from "../src/interfaces/IMarketCore.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DealId, DealState, EndCause, Epoch, Match, OfferHash, Reason} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract CancelTest is Base {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
    }

    function test_CancelEndsAtTheNextBoundaryAndRefundsTheRest() public {
        nextEpochs(1);
        serve(provider.agent, 2);
        vm.prank(developer);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealSettled(dealId, 2 * PRICE, 0, Epoch.wrap(3));
        vm.expectEmit(address(market));
        emit IMarketEvents.DealEnding(dealId, EndCause.DeveloperCancelled, Epoch.wrap(4), PRICE);
        market.cancelDeals(refsOf(dealId));
        assertState(dealId, DealState.Ending, EndCause.DeveloperCancelled);
        assertEq(deal(dealId).locked, PRICE, "the running epoch stays covered");
        assertEq(free(developer), START_FREE - 3 * PRICE);
        serve(provider.agent, 2);
        assertEq(claim(dealId), PRICE);
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), START_FREE - 3 * PRICE);
        assertEq(free(provider.payout), 3 * PRICE);
        assertEq(free(provider.account), START_FREE);
    }

    function test_ServedEpochsStayClaimableAfterCancel() public {
        nextEpochs(3);
        cancel(dealId);
        nextEpochs(1);
        for (uint256 epoch = 1; epoch <= 3; ++epoch) {
            attest(provider.agent, epoch);
        }
        assertEq(claim(dealId), 3 * PRICE);
    }

    function test_CancelBeforeTheFirstBilledEpochRefundsAll() public {
        cancel(dealId);
        assertEq(free(developer), START_FREE);
        assertEq(deal(dealId).locked, 0);
        assertEpoch(deal(dealId).endEpoch, 1, "end");
        nextEpochs(1);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.account), START_FREE);
    }

    function test_CancelTwiceIsHarmless() public {
        nextEpochs(1);
        cancel(dealId);
        uint256 before = free(developer);
        nextEpochs(1);
        vm.recordLogs();
        cancel(dealId);
        assertEq(vm.getRecordedLogs().length, 0);
        assertEq(free(developer), before);
        assertEpoch(deal(dealId).endEpoch, 2, "end");
    }

    function test_OnlyTheDeveloperCancels() public {
        vm.startPrank(provider.account);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotDeveloper.selector, dealId, provider.account));
        market.cancelDeals(refsOf(dealId));
    }

    function test_EndedAndUnknownDealsAreNotOpen() public {
        cancel(dealId);
        nextEpochs(1);
        market.closeDeal(refOf(dealId));
        vm.startPrank(developer);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId));
        market.cancelDeals(refsOf(dealId));
        DealId unknown = refTo(demandOf(7), supplyOf(provider));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, unknown));
        market.cancelDeals(refsOf(unknown));
    }

    function test_CancelOfAnUnfundedDeal() public {
        drain(developer);
        nextEpochs(1);
        serve(provider.agent, PREPAID + 1);
        claim(dealId);
        assertEpoch(deal(dealId).unfundedSince, 5, "unfundedSince");
        cancel(dealId);
        assertState(dealId, DealState.Ending, EndCause.DeveloperCancelled);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), 0);
        assertEq(free(provider.account), START_FREE);
    }

    function test_OfferAndDealsInOneTransaction() public {
        OfferHash offerHash = market.hashDeveloperOffer(demandOf(1));
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IMarketCore.cancelOffer, (offerHash));
        calls[1] = abi.encodeCall(IMarketCore.cancelDeals, (refsOf(dealId)));
        vm.prank(developer);
        Multicallable(address(market)).multicall(calls);
        assertTrue(market.isCancelled(developer, offerHash));
        assertState(dealId, DealState.Ending, EndCause.DeveloperCancelled);
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        expectMatchSkipped(item, Reason.DeveloperOfferCancelled);
        assertEq(submit(item), 0);
    }

    /// @dev Whenever the developer cancels: served epochs are paid, the rest returns, nothing is left behind.
    function testFuzz_CancelConserves(uint8 servedBefore, uint8 servedAfter, bool settleFirst) public {
        servedBefore = uint8(bound(servedBefore, 0, TERM - 1));
        nextEpochs(1);
        serve(provider.agent, servedBefore);
        if (settleFirst) claim(dealId);
        cancel(dealId);
        serve(provider.agent, bound(servedAfter, 0, 3));
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        uint256 paid = (servedBefore + (servedAfter == 0 ? 0 : 1)) * uint256(PRICE);
        if (bound(servedAfter, 0, 3) == 0) paid = servedBefore * uint256(PRICE);
        assertEq(free(provider.payout), paid);
        assertEq(free(developer), START_FREE - paid);
        assertEq(deal(dealId).locked, 0);
    }
}
