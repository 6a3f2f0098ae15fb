// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {DealId, DealState, DealView, EndCause, Epoch} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

/// @dev Rolling funding. A default deal starts with epoch 1 and has four epochs locked.
contract FundingTest is Base {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        drain(developer);
        nextEpochs(1);
    }

    function assertUnfunded(uint256 since) internal view {
        assertEpoch(deal(dealId).unfundedSince, since, "unfundedSince");
    }

    /// @dev Serves all that is locked and records that the money is at its end.
    function runDry() internal {
        serve(provider.agent, PREPAID);
        assertEq(claim(dealId), PREPAID * PRICE);
        assertUnfunded(1 + PREPAID);
    }

    function fundBy(address account, uint64 amount) internal {
        fund(account, amount);
        vm.prank(account);
        market.fundDeal(refOf(dealId), amount);
    }

    // --- The end of the money ---------------------------------------------------------------------------------------

    function test_TheLockIsUsedUpThenTheDealIsUnfunded() public {
        serve(provider.agent, PREPAID - 1);
        assertEq(claim(dealId), (PREPAID - 1) * PRICE);
        assertUnfunded(0);
        serve(provider.agent, 1);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealSettled(dealId, PRICE, 0, Epoch.wrap(5));
        vm.expectEmit(address(market));
        emit IMarketEvents.DealUnfunded(dealId, Epoch.wrap(5));
        assertEq(claim(dealId), PRICE);
        assertUnfunded(5);
        assertEpoch(deal(dealId).paidUntil, 5, "paidUntil");
        assertState(dealId, DealState.Active, EndCause.None);
    }

    function test_UnfundedEpochsAreNotPaidAlthoughAttested() public {
        runDry();
        serve(provider.agent, 3);
        assertEq(claim(dealId), 0);
        assertUnfunded(5);
        assertEq(free(provider.payout), PREPAID * PRICE);
    }

    function test_ExactlyTheCoveredEpochsArePaidWhenNobodySettledForLong() public {
        serve(provider.agent, 10);
        assertEq(claim(dealId), PREPAID * PRICE);
        assertUnfunded(5);
        assertEpoch(deal(dealId).settledUntil, 5, "settledUntil");
    }

    function test_MissedEpochsLeaveTheirMoneyForLaterOnes() public {
        nextEpochs(2);
        serve(provider.agent, 10);
        assertEq(claim(dealId), PREPAID * PRICE);
        // Epochs 1 and 2 were missed, 3 to 6 are paid.
        assertUnfunded(7);
    }

    function test_WhatTheLockCoversIsPaidEvenWhenAttestedAfterTheMoneyEnded() public {
        nextEpochs(PREPAID);
        assertEq(claim(dealId), 0);
        assertUnfunded(5);
        for (uint256 epoch = 1; epoch <= PREPAID; ++epoch) {
            attest(provider.agent, epoch);
        }
        assertEq(claim(dealId), PREPAID * PRICE);
        assertUnfunded(5);
    }

    function test_TheLastEpochsOfATermNeedNoMoneyBeyondIt() public {
        fund(developer, (TERM - PREPAID) * PRICE);
        serve(provider.agent, TERM);
        assertEq(claim(dealId), TERM * PRICE);
        assertUnfunded(0);
        assertEq(free(developer), 0);
    }

    function test_AShortPrepaymentIsNoShortage() public {
        fund(developer, 10 * PRICE);
        // Nobody attests or settles for longer than is prepaid, within the window: the lock follows.
        nextEpochs(WINDOW);
        assertEq(claim(dealId), 0);
        assertUnfunded(0);
        assertEpoch(deal(dealId).paidUntil, 6, "paidUntil");
    }

    function test_DustIsLeftAlone() public {
        fund(developer, PRICE - 1);
        runDry();
        assertEq(free(developer), PRICE - 1);
        assertEq(deal(dealId).locked, 0);
    }

    // --- Going on ---------------------------------------------------------------------------------------------------

    function test_FundingResumesWithTheNextEpochAndSkipsTheGap() public {
        runDry();
        serve(provider.agent, 2);
        fund(stranger, 3 * PRICE);
        vm.prank(stranger);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealFunded(dealId, stranger, 3 * PRICE, Epoch.wrap(5));
        vm.expectEmit(address(market));
        emit IMarketEvents.DealSettled(dealId, 0, 0, Epoch.wrap(8));
        market.fundDeal(refOf(dealId), 3 * PRICE);
        assertUnfunded(0);
        // Epochs 5 and 6 were attested, 7 is the current one: none of them is ever paid.
        serve(provider.agent, 3);
        assertEq(claim(dealId), 2 * PRICE);
        assertEq(free(provider.payout), (PREPAID + 2) * PRICE);
    }

    function test_ADepositOfTheDeveloperIsFoundAtTheNextSettlement() public {
        runDry();
        nextEpochs(2);
        fund(developer, 10 * PRICE);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealSettled(dealId, 0, PREPAID * PRICE, Epoch.wrap(8));
        assertEq(claim(dealId), 0);
        assertUnfunded(0);
        assertEq(free(developer), 6 * PRICE);
    }

    function test_FundingInTimeLeavesNoGap() public {
        serve(provider.agent, PREPAID - 1);
        fundBy(stranger, 2 * PRICE);
        assertUnfunded(0);
        assertEpoch(deal(dealId).paidUntil, 7, "paidUntil");
        serve(provider.agent, 3);
        assertEq(claim(dealId), 3 * PRICE);
        assertEq(free(provider.payout), (PREPAID + 2) * PRICE);
        assertUnfunded(7);
    }

    function test_DustDoesNotResume() public {
        runDry();
        fund(stranger, PRICE - 1);
        vm.prank(stranger);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealFunded(dealId, stranger, PRICE - 1, Epoch.wrap(5));
        vm.expectEmit(address(market));
        emit IMarketEvents.DealUnfunded(dealId, Epoch.wrap(5));
        market.fundDeal(refOf(dealId), PRICE - 1);
        assertUnfunded(5);
        fundBy(stranger, 1);
        assertUnfunded(0);
        assertEpoch(deal(dealId).paidUntil, 7, "paidUntil");
    }

    function test_ResumingWaitsForEpochsThatAreStillAttestable() public {
        nextEpochs(PREPAID);
        claim(dealId);
        fundBy(stranger, 5 * PRICE);
        // Epochs 1 to 4 are locked for and may still be attested.
        assertUnfunded(5);
        assertEpoch(deal(dealId).paidUntil, 5, "paidUntil");
        for (uint256 epoch = 1; epoch <= PREPAID; ++epoch) {
            attest(provider.agent, epoch);
        }
        assertEq(claim(dealId), PREPAID * PRICE);
        assertUnfunded(0);
        assertEpoch(deal(dealId).settledUntil, 6, "settledUntil");
        assertEq(deal(dealId).locked, 5 * PRICE);
    }

    function test_MoneyOfMissedEpochsResumesAfterTheyAreFinal() public {
        nextEpochs(PREPAID);
        claim(dealId);
        assertUnfunded(5);
        nextEpochs(WINDOW);
        assertEq(claim(dealId), 0);
        // All four locked epochs were missed, so their money pays from the next epoch on.
        assertUnfunded(0);
        assertEpoch(deal(dealId).settledUntil, epochNow() + 1, "settledUntil");
        assertEq(deal(dealId).locked, PREPAID * PRICE);
    }

    function test_ADealMayRunDryAgain() public {
        runDry();
        fundBy(stranger, PRICE);
        serve(provider.agent, 3);
        assertEq(claim(dealId), PRICE);
        assertUnfunded(7);
        fundBy(stranger, PRICE);
        serve(provider.agent, 3);
        assertEq(claim(dealId), PRICE);
    }

    function test_NothingResumesAtTheEndOfTheTerm() public {
        runDry();
        toEpoch(TERM);
        fundBy(stranger, 5 * PRICE);
        assertUnfunded(5);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), 5 * PRICE);
    }

    // --- Limits -----------------------------------------------------------------------------------------------------

    function test_FundRefusals() public {
        vm.startPrank(stranger);
        vm.expectRevert(IMarketEvents.ZeroAmount.selector);
        market.fundDeal(refOf(dealId), 0);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, 0, 1));
        market.fundDeal(refOf(dealId), 1);
        DealId unknown = refTo(demandOf(7), supplyOf(provider));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, unknown));
        market.fundDeal(refOf(unknown), 1);
    }

    function test_FundingBeyondTheTermReturnsAtTheEnd() public {
        fundBy(stranger, 100 * PRICE);
        serve(provider.agent, TERM);
        claim(dealId);
        assertEpoch(deal(dealId).paidUntil, TERM + 1, "paidUntil");
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), (100 + PREPAID - TERM) * PRICE);
        assertEq(free(provider.payout), TERM * PRICE);
    }

    // --- The rate ---------------------------------------------------------------------------------------------------

    /// @dev Random deposits, attestations and settlements. Against a plain model: an epoch is paid at most once, only
    /// when attested, and never when it lies in a recorded gap; at the end every atom is somewhere.
    function testFuzz_NeverMoreThanTheRateAndNeverTheGap(uint256 seed) public {
        uint256 funded = PREPAID * PRICE;
        uint256 payable_;
        uint32 gapUntil;
        for (uint256 i = 0; i < TERM + 2 * WINDOW; ++i) {
            uint256 bits = uint256(keccak256(abi.encode(seed, i)));
            uint32 epoch = epochNow();
            nextEpochs(1);
            bool inGap = Epoch.unwrap(deal(dealId).unfundedSince) != 0 || epoch < gapUntil;
            if (bits & 3 != 0) {
                attest(provider.agent, epoch);
                if (!inGap && epoch <= TERM) ++payable_;
            }
            if ((bits >> 8) & 3 == 0) {
                uint64 amount = uint64((bits >> 16) % (3 * PRICE) + 1);
                fundBy(stranger, amount);
                funded += amount;
            }
            if ((bits >> 80) & 1 == 0) claim(dealId);
            if (Epoch.unwrap(deal(dealId).unfundedSince) == 0) {
                uint32 settled = Epoch.unwrap(deal(dealId).settledUntil);
                if (settled > epochNow()) gapUntil = settled;
            }
        }
        claim(dealId);
        DealView memory shown = deal(dealId);
        assertEq(free(provider.payout) + shown.locked, funded, "nothing lost");
        assertLe(free(provider.payout), payable_ * PRICE, "nothing beyond what was served while funded");
        assertEq(free(provider.payout) % PRICE, 0, "whole epochs");
    }
}
