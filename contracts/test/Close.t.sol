// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DealId, DealState, EndCause, Epoch, Match, OfferHash} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract CloseTest is Base {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        nextEpochs(1);
    }

    function expectNotYetOver(uint32 closableFrom) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotYetOver.selector, dealId, Epoch.wrap(closableFrom)));
        market.closeDeal(refOf(dealId));
    }

    function test_TermOverReturnsBondAndCapacity() public {
        serve(provider.agent, TERM);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealEnded(dealId, EndCause.TermOver, 0, provider.account, BOND);
        vm.prank(stranger);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
        assertEq(free(provider.payout), TERM * PRICE);
        assertEq(free(provider.account), START_FREE);
        assertEq(free(developer), START_FREE - TERM * PRICE);
        (uint256 milliCpu,) = usedOf(supplyOf(provider));
        assertEq(milliCpu, 0);
        (uint16 live,) = placementOf(market.hashDeveloperOffer(demandOf(1)));
        assertEq(live, 0);
    }

    function test_NotBeforeTheLastEpochCanNoLongerBeAttested() public {
        serve(provider.agent, TERM - 1);
        expectNotYetOver(TERM + 1 + WINDOW);
        toEpoch(TERM + WINDOW);
        expectNotYetOver(TERM + 1 + WINDOW);
        nextEpochs(1);
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), START_FREE - (TERM - 1) * PRICE, "the missed epoch returns");
    }

    function test_AMissingEndOfTermCostsTheBondWhoeverCloses() public {
        serve(provider.agent, TERM - EVICT_AFTER);
        toEpoch(TERM + 1 + WINDOW);
        vm.prank(provider.account);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        assertEq(free(provider.account), START_FREE - BOND);
    }

    function test_UnfundedBeyondGrace() public {
        drain(developer);
        serve(provider.agent, PREPAID);
        claim(dealId);
        expectNotYetOver(5 + GRACE);
        toEpoch(5 + GRACE - 1);
        expectNotYetOver(5 + GRACE);
        nextEpochs(1);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealEnded(dealId, EndCause.Unfunded, 0, provider.account, BOND);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.account), START_FREE);
    }

    function test_DustDoesNotMoveTheEndOfGrace() public {
        drain(developer);
        serve(provider.agent, PREPAID);
        claim(dealId);
        toEpoch(5 + GRACE);
        fund(stranger, PRICE - 1);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), PRICE - 1);
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), PRICE - 1);
    }

    function test_ADealWithMoneyAgainGoesOnInsteadOfClosing() public {
        drain(developer);
        serve(provider.agent, PREPAID);
        claim(dealId);
        toEpoch(5 + GRACE);
        fund(developer, PRICE);
        expectNotYetOver(TERM + 1 + WINDOW);
    }

    function test_AnUnfundedDealPaysWhatIsAttestableBeforeItCloses() public {
        drain(developer);
        nextEpochs(PREPAID);
        claim(dealId);
        // Epochs 1 to 4 are locked for; the deal waits for their windows.
        attest(provider.agent, 1);
        attest(provider.agent, 2);
        attest(provider.agent, 3);
        toEpoch(4 + WINDOW);
        attest(provider.agent, 4);
        toEpoch(5 + GRACE);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), 4 * PRICE);
    }

    function test_ThePlaceOfAnUnfundedDealReopens() public {
        drain(developer);
        serve(provider.agent, PREPAID);
        claim(dealId);
        toEpoch(5 + GRACE);
        market.closeDeal(refOf(dealId));
        fund(developer, START_FREE);
        Provider memory other = fundedProvider(2);
        assertEq(submit(signedMatch(demandOf(1), other, supplyOf(other))), 1);
    }

    function test_EndedStaysEnded() public {
        serve(provider.agent, TERM);
        market.closeDeal(refOf(dealId));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId));
        market.closeDeal(refOf(dealId));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId));
        market.fundDeal(refOf(dealId), 1);
    }
}
