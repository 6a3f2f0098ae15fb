// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DealId, DealState, EndCause, Match} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract PauseTest is Base {
    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    function pause() internal {
        vm.prank(operator);
        market.setMatchingPaused(true);
    }

    function test_PauseStopsMatchesOnly() public {
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        vm.expectEmit(address(market));
        emit IMarketEvents.MatchingPaused(true);
        pause();
        assertTrue(market.matchingPaused());
        vm.expectRevert(IMarketEvents.MatchingIsPaused.selector);
        submit(item);
        vm.prank(operator);
        market.setMatchingPaused(false);
        assertFalse(market.matchingPaused());
        assertEq(submit(item), 1);
    }

    function test_NoExitIsBlocked() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        pause();
        serve(provider.agent, 2);
        assertEq(claim(dealId), 2 * PRICE);
        fund(stranger, PRICE);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), PRICE);
        cancel(dealId);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.DeveloperCancelled);
    }

    function test_EvictionAndWithdrawalGoOn() public {
        DealId dealId = openDeal(provider);
        pause();
        nextEpochs(1 + EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        drain(developer);
        drain(provider.account);
    }

    function test_OnlyTheOperatorPauses() public {
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotOperator.selector, stranger));
        market.setMatchingPaused(true);
    }
}
