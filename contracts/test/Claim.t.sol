// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {
    DealId,
    DealState,
    DealView,
    DeveloperOffer,
    EndCause,
    Epoch,
    ProviderOffer,
    Reason
} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract ClaimTest is Base {
    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    function longDemand() internal view returns (DeveloperOffer memory demand) {
        demand = demandOf(1);
        demand.epochs = 1200;
    }

    // --- What is paid -----------------------------------------------------------------------------------------------

    function test_PaysAttestedEpochsToThePayoutAccountAndRenewsTheLock() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, 3);
        uint256 developerBefore = free(developer);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealSettled(dealId, 3 * PRICE, 3 * PRICE, Epoch.wrap(4));
        vm.prank(stranger);
        assertEq(claim(dealId), 3 * PRICE);
        assertEq(free(provider.payout), 3 * PRICE);
        assertEq(free(developer), developerBefore - 3 * PRICE);
        assertEq(free(stranger), 0);
        DealView memory shown = deal(dealId);
        assertEq(shown.locked, PREPAID * PRICE);
        assertEpoch(shown.settledUntil, 4, "settledUntil");
        assertEpoch(shown.paidUntil, 8, "paidUntil");
    }

    function test_NothingNewPaysAndSaysNothing() public {
        DealId dealId = openDeal(provider);
        vm.recordLogs();
        assertEq(claim(dealId), 0);
        nextEpochs(1);
        assertEq(claim(dealId), 0);
        assertEq(vm.getRecordedLogs().length, 0);
        serve(provider.agent, 1);
        assertEq(claim(dealId), PRICE);
        assertEq(claim(dealId), 0);
    }

    function test_EpochsBeforeTheFirstBilledOneAreNotPaid() public {
        nextEpochs(2);
        DealId dealId = openDeal(provider);
        serve(provider.agent, 2);
        assertEq(claim(dealId), PRICE);
    }

    function test_MissedEpochsAreNotPaid() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, 1);
        nextEpochs(2);
        serve(provider.agent, 1);
        nextEpochs(WINDOW);
        assertEq(claim(dealId), 2 * PRICE);
        assertEpoch(deal(dealId).settledUntil, 5, "settledUntil");
    }

    function test_AHoleWithinTheWindowWaitsAndForfeitsNothing() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, 1);
        nextEpochs(1);
        serve(provider.agent, 1);
        assertEq(claim(dealId), PRICE);
        assertEpoch(deal(dealId).settledUntil, 2, "settledUntil");
        attest(provider.agent, 2);
        assertEq(claim(dealId), 2 * PRICE);
        assertEpoch(deal(dealId).settledUntil, 4, "settledUntil");
    }

    function test_NothingIsPaidBeyondTheTerm() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, TERM + 5);
        assertEq(claim(dealId), TERM * PRICE);
        DealView memory shown = deal(dealId);
        assertEpoch(shown.settledUntil, TERM + 1, "settledUntil");
        assertEpoch(shown.paidUntil, TERM + 1, "paidUntil");
        assertEq(shown.locked, 0);
    }

    function test_AThousandEpochsAtOnce() public {
        fund(developer, START_FREE);
        DealId dealId = openDeal(longDemand(), provider);
        nextEpochs(1);
        serve(provider.agent, 1000);
        assertEq(claim(dealId), 1000 * PRICE);
        assertEpoch(deal(dealId).settledUntil, 1001, "settledUntil");
    }

    function test_AFreeDealIsSettledWithoutMoney() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.pricePerVcpuEpoch = 0;
        supply.pricePerGibEpoch = 0;
        drain(developer);
        submit(signedMatch(demandOf(1), provider, supply));
        DealId dealId = refTo(demandOf(1), supply);
        nextEpochs(1);
        serve(provider.agent, TERM);
        assertEq(claim(dealId), 0);
        assertEpoch(deal(dealId).settledUntil, TERM + 1, "settledUntil");
        assertEpoch(deal(dealId).unfundedSince, 0, "unfundedSince");
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
    }

    // --- Batches ----------------------------------------------------------------------------------------------------

    function test_OneBadItemBlocksNoOther() public {
        DealId first = openDeal(provider);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId ended = openDeal(demand, provider);
        cancel(ended);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(ended));
        attest(provider.agent, epochNow() - 1);
        nextEpochs(WINDOW);
        demand.nonce = 2;
        DealId[] memory dealIds = new DealId[](4);
        dealIds[0] = refTo(demand, supplyOf(provider));
        dealIds[1] = ended;
        dealIds[2] = first;
        dealIds[3] = first;
        vm.expectEmit(address(market));
        emit IMarketEvents.ClaimSkipped(dealIds[0], Reason.DealUnknown);
        vm.expectEmit(address(market));
        emit IMarketEvents.ClaimSkipped(ended, Reason.DealAlreadyEnded);
        assertEq(claim(dealIds), PRICE);
    }

    // --- Independence of how often ------------------------------------------------------------------------------------

    /// @dev One deal is settled whenever the bits of `when` say so, its twin once at the end: the totals agree.
    function testFuzz_TotalDoesNotDependOnHowOftenItIsSettled(uint32 served, uint32 when) public {
        DealId often = openDeal(provider);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId once = openDeal(demand, provider);
        nextEpochs(1);
        uint256 paidOften;
        uint256 attested;
        for (uint256 i = 0; i < TERM; ++i) {
            uint256 epoch = epochNow();
            nextEpochs(1);
            if ((served >> i) & 1 == 1) {
                attest(provider.agent, epoch);
                ++attested;
            }
            if ((when >> i) & 1 == 1) paidOften += claim(often);
        }
        nextEpochs(WINDOW);
        paidOften += claim(often);
        assertEq(paidOften, attested * PRICE, "often");
        assertEq(claim(once), attested * PRICE, "once");
        market.closeDeal(refOf(often));
        market.closeDeal(refOf(once));
        uint256 forfeited = deal(often).cause == EndCause.ProviderEvicted ? 2 * BOND : 0;
        assertEq(free(developer), START_FREE - 2 * attested * PRICE + forfeited);
    }

    /// @dev Attesting late, in any order, within the window pays the same as attesting on time.
    function testFuzz_LateAttestationsAreWorthTheSame(uint8 delay) public {
        delay = uint8(bound(delay, 1, WINDOW));
        DealId dealId = openDeal(provider);
        uint256 paid;
        for (uint256 epoch = 1; epoch <= TERM; ++epoch) {
            toEpoch(epoch + delay);
            attest(provider.agent, epoch);
            paid += claim(dealId);
        }
        assertEq(paid, TERM * PRICE);
    }
}
