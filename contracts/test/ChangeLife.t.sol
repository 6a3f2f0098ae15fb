// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {
    DealChange,
    DealId,
    DealState,
    DealView,
    DeveloperOffer,
    EndCause,
    Epoch,
    OfferHash
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";

/// @dev The life of a deal across a change: what is paid at which price, and every way to end it while the change waits.
contract ChangeLifeTest is Actions {
    uint64 internal constant NEW_PRICE = 2 * PRICE;
    /// @dev In this epoch the price changes; epochs from the next one on cost the new one.
    uint32 internal constant CHANGED_IN = 3;
    uint32 internal constant PRICE_FROM = CHANGED_IN + 1;

    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        toEpoch(CHANGED_IN);
        watch(provider);
        accounts.push(developer);
        accounts.push(stranger);
        deals.push(dealId);
    }

    /// @dev What the epochs in `[from, to)` cost, one by one.
    function costOf(uint256 from, uint256 to) internal pure returns (uint256 cost) {
        for (uint256 epoch = from; epoch < to; ++epoch) {
            cost += epoch < PRICE_FROM ? PRICE : NEW_PRICE;
        }
    }

    function attestAll(uint256 from, uint256 to) internal {
        for (uint256 epoch = from; epoch < to; ++epoch) {
            attest(provider.agent, epoch);
        }
    }

    // --- Which price ------------------------------------------------------------------------------------------------

    function test_EpochsBeforeTheChangeCostTheOldPriceHoweverLateTheyAreAttested() public {
        reprice(provider, dealId, NEW_PRICE);
        assertEq(free(provider.payout), 0, "nothing was attested yet");
        toEpoch(CHANGED_IN + 2);
        // Epoch 1 is the first that can still be attested, 4 the first at the new price.
        attestAll(1, CHANGED_IN + 2);
        assertEq(claim(dealId), 3 * PRICE + NEW_PRICE);
        assertEpoch(deal(dealId).settledUntil, CHANGED_IN + 2, "settledUntil");
        assertConserved();
    }

    function test_MissedEpochsBeforeTheChangeAreNotPaid() public {
        reprice(provider, dealId, NEW_PRICE);
        toEpoch(CHANGED_IN + 2);
        attest(provider.agent, 2);
        attest(provider.agent, PRICE_FROM);
        nextEpochs(WINDOW);
        assertEq(claim(dealId), PRICE + NEW_PRICE);
        assertConserved();
    }

    function test_ASettlementMayStopBetweenThePrices() public {
        reprice(provider, dealId, NEW_PRICE);
        toEpoch(CHANGED_IN + 2);
        attestAll(1, PRICE_FROM);
        assertEq(claim(dealId), 3 * PRICE);
        assertEpoch(deal(dealId).settledUntil, PRICE_FROM, "settledUntil");
        attest(provider.agent, PRICE_FROM);
        assertEq(claim(dealId), NEW_PRICE);
        assertConserved();
    }

    function test_TheEndMayLieWithinTheEpochsOfTheOldPrice() public {
        reprice(provider, dealId, NEW_PRICE);
        // Cancelled in the same epoch: the new price never comes to hold.
        cancel(dealId);
        assertEpoch(deal(dealId).endEpoch, PRICE_FROM, "end");
        toEpoch(PRICE_FROM + 1);
        attestAll(1, PRICE_FROM + 1);
        assertEq(claim(dealId), 3 * PRICE);
        market.closeDeal(refOf(dealId));
        assertEq(free(developer), START_FREE - 3 * PRICE);
        assertEq(free(provider.account), START_FREE);
        assertConserved();
    }

    /// @dev However much is locked, `paidUntil` counts each epoch at its price.
    function testFuzz_PaidUntilCountsEachEpochAtItsPrice(uint64 extra, uint8 served) public {
        served = uint8(bound(served, 0, CHANGED_IN - 1));
        extra = uint64(bound(extra, 1, 40 * PRICE));
        attestAll(1, 1 + served);
        reprice(provider, dealId, NEW_PRICE);
        drain(developer);
        fund(stranger, extra);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), extra);
        DealView memory shown = deal(dealId);
        uint256 epoch = 1 + uint256(served);
        assertEpoch(shown.settledUntil, epoch, "settledUntil");
        while (epoch <= TERM && costOf(1 + served, epoch + 1) <= shown.locked) {
            ++epoch;
        }
        assertEpoch(shown.paidUntil, epoch, "paidUntil");
        assertConserved();
    }

    /// @dev Exactly that many epochs are paid: at each its price, until the lock is used up.
    function testFuzz_TheLockPaysEachEpochAtItsPrice(uint64 extra) public {
        extra = uint64(bound(extra, 1, 20 * PRICE));
        reprice(provider, dealId, NEW_PRICE);
        drain(developer);
        fund(stranger, extra);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), extra);
        uint256 locked = deal(dealId).locked;
        uint256 until = Epoch.unwrap(deal(dealId).paidUntil);
        attestAll(1, CHANGED_IN);
        serve(provider.agent, TERM - 2);
        claim(dealId);
        assertEq(free(provider.payout), costOf(1, until));
        assertEq(deal(dealId).locked, locked - costOf(1, until));
        assertEpoch(deal(dealId).unfundedSince, until > TERM ? 0 : until, "unfundedSince");
        assertConserved();
    }

    // --- How often --------------------------------------------------------------------------------------------------

    /// @dev One deal is settled whenever the bits of `when` say so, its twin once at the end, both across the change.
    function testFuzz_OneClaimEqualsMany(uint32 served, uint32 when, uint64 newPrice, uint8 changedIn) public {
        newPrice = uint64(bound(newPrice, 0, 10 * PRICE));
        changedIn = uint8(bound(changedIn, CHANGED_IN, TERM - 2));
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        demand.epochs = TERM - CHANGED_IN;
        DealId once = openDeal(demand, provider);
        deals.push(once);
        uint256 due;
        for (uint256 epoch = CHANGED_IN; epoch <= TERM; ++epoch) {
            toEpoch(epoch);
            if (epoch == changedIn) {
                reprice(provider, dealId, newPrice);
                reprice(provider, once, newPrice);
            }
            toEpoch(epoch + 1);
            if ((served >> epoch) & 1 == 1) {
                attest(provider.agent, epoch);
                // The twin bills from the next epoch on.
                if (epoch == CHANGED_IN) due += PRICE;
                else due += 2 * (epoch <= changedIn ? PRICE : newPrice);
            }
            if ((when >> epoch) & 1 == 1) claim(dealId);
        }
        nextEpochs(WINDOW);
        claim(dealId);
        claim(once);
        assertEq(free(provider.payout), due);
        assertEq(Epoch.unwrap(deal(dealId).settledUntil), Epoch.unwrap(deal(once).settledUntil), "settledUntil");
        market.closeDeal(refOf(dealId));
        market.closeDeal(refOf(once));
        uint256 forfeited = deal(once).cause == EndCause.ProviderEvicted ? 2 * newPrice * BOND_EPOCHS : 0;
        assertEq(free(developer), START_FREE - due + forfeited);
        assertConserved();
    }

    // --- Ends while a change waits ------------------------------------------------------------------------------------

    function test_CancelledLater() public {
        reprice(provider, dealId, NEW_PRICE);
        toEpoch(CHANGED_IN + 2);
        attestAll(1, CHANGED_IN + 2);
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), costOf(1, CHANGED_IN + 3));
        assertEq(free(developer), START_FREE - costOf(1, CHANGED_IN + 3));
        assertEq(free(provider.account), START_FREE, "the higher bond returned");
        assertConserved();
    }

    function test_ACancelLocksWhatIsLeftToBill() public {
        reprice(provider, dealId, NEW_PRICE);
        toEpoch(CHANGED_IN + 2);
        // Nothing is attested yet, so epochs 1 to 5 may all still be billed.
        cancel(dealId);
        assertEq(deal(dealId).locked, costOf(1, CHANGED_IN + 3));
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        assertEq(free(developer), START_FREE + 2 * BOND);
        assertConserved();
    }

    function test_TheProviderLeaves() public {
        reprice(provider, dealId, NEW_PRICE);
        giveNotice(provider, dealId);
        assertEpoch(deal(dealId).endEpoch, CHANGED_IN + 1 + NOTICE, "end");
        attestAll(1, CHANGED_IN);
        serve(provider.agent, 1 + NOTICE);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderLeft);
        assertEq(free(provider.payout), costOf(1, CHANGED_IN + 1 + NOTICE));
        assertEq(free(provider.account), START_FREE);
        assertConserved();
    }

    function test_EvictionTakesTheNewBond() public {
        reprice(provider, dealId, NEW_PRICE);
        // Epochs 1 to 3 are missed, all of them at the old price.
        toEpoch(1 + EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        assertEq(free(developer), START_FREE + 2 * BOND);
        assertEq(free(provider.account), START_FREE - 2 * BOND);
        (uint256 milliCpu, uint256 memoryMib) = usedOf(supplyOf(provider));
        assertEq(milliCpu + memoryMib, 0);
        assertConserved();
    }

    function test_MissesOnBothSidesOfTheChangeCountTogether() public {
        attestAll(1, 2);
        reprice(provider, dealId, NEW_PRICE);
        // Missed are 2 and 3 before the change, and 4 after it.
        toEpoch(2 + EVICT_AFTER + WINDOW - 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotEvictable.selector, dealId));
        market.evict(refOf(dealId));
        nextEpochs(1);
        market.evict(refOf(dealId));
        assertEq(free(provider.payout), PRICE);
        assertConserved();
    }

    function test_ClosedAtTheEndOfItsNewTerm() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch = PRICE_FROM + 2;
        change.pricePerEpoch = NEW_PRICE;
        agree(provider, change);
        attestAll(1, CHANGED_IN);
        serve(provider.agent, 3);
        // Closing settles: no claim is needed before.
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
        assertEq(free(provider.payout), costOf(1, PRICE_FROM + 2));
        assertEq(free(developer), START_FREE - costOf(1, PRICE_FROM + 2));
        assertConserved();
    }

    function test_SlashTakesTheNewBondAndPaysWhatWasServed() public {
        attestAll(1, CHANGED_IN);
        reprice(provider, dealId, NEW_PRICE);
        serve(provider.agent, 1);
        slashWith(agentKeyNo(1), dealId);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
        assertEq(free(provider.payout), 3 * PRICE);
        assertEq(free(developer), START_FREE - 3 * PRICE + 2 * BOND);
        assertConserved();
    }

    function test_AnExtendedDealOutlivesItsOffer() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch = 2 * TERM;
        agree(provider, change);
        attestAll(1, CHANGED_IN);
        serve(provider.agent, TERM);
        (uint16 live, Epoch end) = placementOf(market.hashDeveloperOffer(demandOf(1)));
        assertEq(live, 1);
        assertEpoch(end, TERM + 1, "the offer's term is what it was");
        // Its place is not filled again behind the offer's own term.
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        Provider memory other = fundedProvider(2);
        assertEq(submit(signedMatch(demandOf(1), other, supplyOf(other))), 0);
    }

    // --- Money ------------------------------------------------------------------------------------------------------

    /// @dev Random lives with changes in them: after every step each atom is somewhere, and what was paid is what the
    /// attested epochs cost at most.
    function testFuzz_MoneyIsConserved(uint256 seed) public {
        for (uint256 i = 0; i < 30; ++i) {
            uint256 bits = uint256(keccak256(abi.encode(seed, i)));
            uint32 epoch = epochNow();
            if (bits & 3 == 0) tryChange(bits >> 8);
            if ((bits >> 2) & 7 == 0) claim(dealId);
            if ((bits >> 5) & 7 == 0 && i > 20) endSomehow(bits >> 8);
            assertConserved();
            nextEpochs(1);
            if ((bits >> 120) & 3 != 0) attest(provider.agent, epoch);
            if ((bits >> 122) & 15 == 0) drain(developer);
            if ((bits >> 126) & 7 == 0) fund(developer, (bits >> 128) % (5 * PRICE) + 1);
        }
        nextEpochs(3 * TERM);
        if (deal(dealId).state != DealState.Ended) market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, deal(dealId).cause);
        assertEq(deal(dealId).locked, 0);
        (uint256 milliCpu, uint256 memoryMib) = usedOf(supplyOf(provider));
        assertEq(milliCpu + memoryMib, 0, "capacity");
        assertConserved();
    }

    function tryChange(uint256 bits) private {
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = uint64(bits % (4 * PRICE));
        change.endEpoch = epochNow() + 1 + uint32((bits >> 32) % TERM);
        change.milliCpu = uint32((bits >> 48) % 4500);
        change.memoryMib = uint32((bits >> 64) % 9000);
        try this.agreeExternally(change) {} catch {}
    }

    function agreeExternally(DealChange memory change) external {
        agree(provider, change);
    }

    function endSomehow(uint256 bits) private {
        DealState state = deal(dealId).state;
        if (state == DealState.Ended) return;
        if (bits & 1 == 0) cancel(dealId);
        if (bits & 6 == 0) giveNotice(provider, dealId);
        if (bits & 24 == 0) slashWith(agentKeyNo(1), dealId);
    }
}
