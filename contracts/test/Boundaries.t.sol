// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {
    DealId,
    DealState,
    DeveloperOffer,
    EndCause,
    Epoch,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
    Reason
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";

/// @dev The last value that holds and the first that does not, for matches and offers.
contract MatchBoundariesTest is Actions {
    uint64 internal constant MAX_PRICE = (1 << 48) - 1;

    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    function reasonOf(DeveloperOffer memory demand, ProviderOffer memory supply) internal view returns (Reason) {
        return market.checkFill(demand, supply);
    }

    /// @dev What the check says is what the match does.
    function assertMatch(DeveloperOffer memory demand, ProviderOffer memory supply, Reason expected) internal {
        assertReason(reasonOf(demand, supply), expected);
        assertEq(submit(signedMatch(demand, provider, supply)), expected == Reason.None ? 1 : 0);
    }

    // --- Time ---------------------------------------------------------------------------------------------------------

    function testFuzz_OffersHoldThroughTheirLastSecond(uint32 left, bool isDevelopers, int8 around) public {
        around = int8(bound(around, -2, 2));
        left = uint32(bound(left, 2, 30 days));
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = supplyOf(provider);
        uint64 last = uint64(GENESIS + left);
        if (isDevelopers) demand.validUntil = last;
        else supply.validUntil = last;
        vm.warp(uint256(int256(uint256(last)) + around));
        Reason expired = isDevelopers ? Reason.DeveloperOfferExpired : Reason.ProviderOfferExpired;
        assertMatch(demand, supply, around <= 0 ? Reason.None : expired);
    }

    function testFuzz_ADealStartsWithTheEpochAfterItsMatch(uint16 epoch, uint32 second) public {
        second = uint32(bound(second, 0, EPOCH_LENGTH - 1));
        vm.warp(GENESIS + uint256(epoch) * EPOCH_LENGTH + second);
        DealId dealId = openDeal(provider);
        assertEpoch(deal(dealId).settledUntil, uint256(epoch) + 1, "start");
        assertEpoch(deal(dealId).endEpoch, uint256(epoch) + 1 + TERM, "end");
    }

    function test_EpochsChangeWithTheSecond() public {
        vm.warp(GENESIS + EPOCH_LENGTH - 1);
        assertEq(epochNow(), 0);
        vm.warp(GENESIS + EPOCH_LENGTH);
        assertEq(epochNow(), 1);
    }

    function test_TheLastEpochOfATermTakesNoReplica() public {
        DeveloperOffer memory demand = demandOf(2);
        openDeal(demand, provider);
        Provider memory other = fundedProvider(2);
        toEpoch(TERM - 1);
        // The replica would start with epoch TERM, the last one.
        assertReason(reasonOf(demand, supplyOf(other)), Reason.None);
        toEpoch(TERM);
        assertReason(reasonOf(demand, supplyOf(other)), Reason.TermOver);
    }

    function test_ATermOfOneEpoch() public {
        DeveloperOffer memory demand = demandOf(1);
        (demand.epochs, demand.prepaidEpochs) = (1, 1);
        DealId dealId = openDeal(demand, provider);
        assertEq(deal(dealId).locked, PRICE);
        nextEpochs(1);
        serve(provider.agent, 1);
        assertEq(claim(dealId), PRICE);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
        assertEq(free(developer), START_FREE - PRICE);
    }

    function testFuzz_TheLongestTermOfAProvider(uint32 maxEpochs, uint32 epochs, bool isClose) public {
        maxEpochs = uint32(bound(maxEpochs, 1, type(uint32).max));
        if (isClose) epochs = maxEpochs + uint32(bound(epochs, 0, maxEpochs == type(uint32).max ? 0 : 1));
        epochs = uint32(bound(epochs, 1, type(uint32).max));
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = supplyOf(provider);
        (demand.epochs, supply.maxEpochs) = (epochs, maxEpochs);
        // The clock ends before the longest terms do.
        uint256 term = epochs == type(uint32).max ? epochs - 1 : epochs;
        assertMatch(demand, supply, term <= maxEpochs ? Reason.None : Reason.TermTooLong);
    }

    // --- Prices and money ---------------------------------------------------------------------------------------------

    function testFuzz_ThePriceMayReachTheMaximum(uint64 maximum, uint64 ask, bool isClose) public {
        maximum = uint64(bound(maximum, 0, MAX_PRICE));
        if (isClose) ask = maximum + (ask & 1);
        ask = uint64(bound(ask, 0, MAX_PRICE + 1));
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = priced(ask);
        (demand.milliCpu, demand.memoryMib, demand.maxPricePerEpoch) = (1000, 1, maximum);
        fundWithMuch(developer, uint256(MAX_PRICE) * PREPAID);
        fundWithMuch(provider.account, uint256(MAX_PRICE) * BOND_EPOCHS);
        assertMatch(demand, supply, ask <= maximum ? Reason.None : Reason.PriceAboveMaximum);
    }

    /// @dev 1,000 milli-CPU cost `ask`.
    function priced(uint64 ask) internal view returns (ProviderOffer memory supply) {
        supply = supplyOf(provider);
        (supply.pricePerVcpuEpoch, supply.pricePerGibEpoch) = (ask, 0);
    }

    function test_TheHighestMaximum() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.maxPricePerEpoch = MAX_PRICE;
        assertReason(reasonOf(demand, supplyOf(provider)), Reason.None);
        demand.maxPricePerEpoch = MAX_PRICE + 1;
        assertMatch(demand, supplyOf(provider), Reason.DeveloperOfferMalformed);
    }

    function test_APriceOfOneAtom() public {
        DeveloperOffer memory demand = demandOf(1);
        (demand.milliCpu, demand.memoryMib, demand.maxPricePerEpoch) = (1000, 1, 1);
        drain(developer);
        fund(developer, PREPAID);
        drain(provider.account);
        fund(provider.account, BOND_EPOCHS);
        assertMatch(demand, priced(1), Reason.None);
        DealId dealId = refTo(demand, priced(1));
        nextEpochs(1);
        serve(provider.agent, PREPAID + 1);
        assertEq(claim(dealId), PREPAID);
        assertEq(free(developer) + free(provider.account), 0);
    }

    /// @dev Prices round down: less than an atom is nothing.
    function test_APriceOfLessThanOneAtom() public view {
        ProviderOffer memory supply = priced(1);
        assertEq(market.askOf(supply, 999, 1), 0);
        assertEq(market.askOf(supply, 1000, 1), 1);
        assertEq(market.askOf(supply, 1999, 1), 1);
    }

    function testFuzz_FundsToTheAtom(uint64 money, uint32 prepaid, bool isClose) public {
        prepaid = uint32(bound(prepaid, MIN_PREPAID, TERM + 3));
        uint256 lock = uint256(PRICE) * (prepaid < TERM ? prepaid : TERM);
        if (isClose) money = uint64(lock - 1 + money % 3);
        money = uint64(bound(money, 0, 900e9));
        drain(developer);
        if (money != 0) fund(developer, money);
        DeveloperOffer memory demand = demandOf(1);
        demand.prepaidEpochs = prepaid;
        assertMatch(demand, supplyOf(provider), money >= lock ? Reason.None : Reason.FundsTooLow);
        if (money >= lock) assertEq(free(developer), money - lock);
    }

    function testFuzz_BondToTheAtom(uint64 money, bool isClose) public {
        if (isClose) money = uint64(BOND - 1 + money % 3);
        money = uint64(bound(money, 0, 900e9));
        drain(provider.account);
        if (money != 0) fund(provider.account, money);
        assertMatch(demandOf(1), supplyOf(provider), money >= BOND ? Reason.None : Reason.BondTooLow);
        if (money >= BOND) assertEq(free(provider.account), money - BOND);
    }

    // --- Sizes --------------------------------------------------------------------------------------------------------

    function testFuzz_CapacityToTheUnit(uint32 milliCpu, uint32 memoryMib, uint8 around) public {
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = supplyOf(provider);
        supply.milliCpu = uint32(bound(milliCpu, 501, (1 << 20) - 1));
        supply.memoryMib = uint32(bound(memoryMib, 513, (1 << 20) - 1));
        (supply.pricePerVcpuEpoch, supply.pricePerGibEpoch) = (1, 1);
        assertMatch(demand, supply, Reason.None);
        // What is left, or one more of either.
        demand.nonce = 1;
        demand.milliCpu = supply.milliCpu - 500 + (around & 1);
        demand.memoryMib = supply.memoryMib - 512 + ((around >> 1) & 1);
        Reason expected = around & 1 == 1 ? Reason.CpuExceedsFree : Reason.MemoryExceedsFree;
        assertMatch(demand, supply, around & 3 == 0 ? Reason.None : expected);
    }

    function test_TheLargestSizes() public {
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = supplyOf(provider);
        (supply.milliCpu, supply.memoryMib) = ((1 << 30) - 1, (1 << 30) - 1);
        (supply.pricePerVcpuEpoch, supply.pricePerGibEpoch) = (1, 1);
        (demand.milliCpu, demand.memoryMib) = ((1 << 20) - 1, (1 << 20) - 1);
        assertMatch(demand, supply, Reason.None);
        (uint256 usedMilliCpu, uint256 usedMemoryMib) = usedOf(supply);
        assertEq(usedMilliCpu, (1 << 20) - 1);
        assertEq(usedMemoryMib, (1 << 20) - 1);
        (demand.nonce, demand.milliCpu) = (1, 1 << 20);
        assertMatch(demand, supply, Reason.DeveloperOfferMalformed);
        (demand.milliCpu, demand.memoryMib) = (1, 1 << 20);
        assertMatch(demand, supply, Reason.DeveloperOfferMalformed);
        (demand.memoryMib, supply.nonce, supply.milliCpu) = (1, 1, 1 << 30);
        assertMatch(demand, supply, Reason.ProviderOfferMalformed);
        (supply.milliCpu, supply.memoryMib) = (1, 1 << 30);
        assertMatch(demand, supply, Reason.ProviderOfferMalformed);
        supply.memoryMib = 1;
        assertMatch(demand, supply, Reason.None);
    }

    // --- Counts -------------------------------------------------------------------------------------------------------

    function testFuzz_NoncesReachDownToTheFloor(uint64 floor, uint64 nonce, bool isClose, bool isDevelopers) public {
        floor = uint64(bound(floor, 1, type(uint64).max));
        if (isClose) nonce = floor - (nonce & 1);
        vm.prank(isDevelopers ? developer : provider.account);
        market.raiseNonceFloor(floor);
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = supplyOf(provider);
        if (isDevelopers) demand.nonce = nonce;
        else supply.nonce = nonce;
        Reason tooLow = isDevelopers ? Reason.DeveloperNonceTooLow : Reason.ProviderNonceTooLow;
        assertMatch(demand, supply, nonce >= floor ? Reason.None : tooLow);
        // The word next to it is the balance.
        assertEq(market.account(developer).nonceFloor, isDevelopers ? floor : 0);
    }

    function testFuzz_PrepaidEpochs(uint32 prepaid, uint32 epochs, uint16 least, uint8 around) public {
        least = uint16(bound(least, 1, type(uint16).max));
        epochs = uint32(bound(epochs, 1, 1 << 17));
        // Around the market's minimum, the term, and what fits.
        if (around < 60) prepaid = uint32(least) - 1 + around % 3;
        else if (around < 120) prepaid = epochs - 1 + around % 3;
        else if (around < 180) prepaid = uint32(type(uint16).max) - 1 + around % 3;
        MarketConfig memory constants = defaultConfig();
        constants.minPrepaidEpochs = least;
        market = deployMarket(constants);
        DeveloperOffer memory demand = demandOf(1);
        (demand.prepaidEpochs, demand.epochs) = (prepaid, epochs);
        bool isGood = prepaid <= type(uint16).max && (prepaid >= least || prepaid >= epochs);
        if (!isGood) {
            vm.expectRevert(
                abi.encodeWithSelector(IMarketEvents.OfferMalformed.selector, Reason.DeveloperOfferMalformed)
            );
        }
        vm.prank(developer);
        market.postDeveloperOffer(demand);
    }

    function testFuzz_Replicas(uint16 replicas, uint16 least, bool isClose) public {
        if (isClose) (replicas, least) = (98 + replicas % 5, 98 + least % 5);
        DeveloperOffer memory demand = demandOf(replicas);
        demand.minReplicas = least;
        bool isGood = least >= 1 && least <= replicas && replicas <= 100;
        if (!isGood) {
            vm.expectRevert(
                abi.encodeWithSelector(IMarketEvents.OfferMalformed.selector, Reason.DeveloperOfferMalformed)
            );
        }
        vm.prank(developer);
        market.postDeveloperOffer(demand);
    }

    function test_AHundredReplicasAndNotOneMore() public {
        DeveloperOffer memory demand = demandOf(100);
        demand.minReplicas = 100;
        Provider[] memory providers = new Provider[](101);
        ProviderOffer[] memory supplies = new ProviderOffer[](101);
        for (uint256 i = 0; i < 101; ++i) {
            providers[i] = fundedProvider(100 + i);
            supplies[i] = supplyOf(providers[i]);
        }
        Match memory item = signedMatch(demand, providers, supplies);
        expectFillSkipped(item, 100, Reason.ReplicasFull);
        assertEq(submit(item), 100);
        (uint16 live,) = placementOf(market.hashDeveloperOffer(demand));
        assertEq(live, 100);
        assertEq(free(developer), START_FREE - 100 * PREPAID * PRICE);
    }
}

/// @dev The same for deals, attestations, money and the market's constants.
contract DealBoundariesTest is Actions {
    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    function useMarket(MarketConfig memory constants) internal {
        market = deployMarket(constants);
        fund(developer, START_FREE);
        fund(provider.account, START_FREE);
    }

    function tryIt(bytes memory data) internal returns (bool success, bytes memory answer) {
        (success, answer) = address(market).call(data);
    }

    // --- Attestations -------------------------------------------------------------------------------------------------

    function testFuzz_AttestableAreTheEpochsOfTheWindow(uint8 window, uint16 current, uint16 epoch, uint8 around)
        public
    {
        window = uint8(bound(window, 1, 16));
        current = uint16(bound(current, 0, 3000));
        if (around & 1 == 1) epoch = uint16(bound((around >> 1) % 24, 0, 23) + (current > 20 ? current - 20 : 0));
        MarketConfig memory constants = defaultConfig();
        constants.attestationWindow = window;
        market = deployMarket(constants);
        // At the first second of an epoch and at its last.
        vm.warp(GENESIS + uint256(current) * EPOCH_LENGTH + (around & 128 == 0 ? 0 : EPOCH_LENGTH - 1));
        bool isGood = epoch < current && uint256(epoch) + window >= current;
        if (!isGood) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    IMarketEvents.EpochNotAttestable.selector, Epoch.wrap(epoch), Epoch.wrap(current)
                )
            );
        }
        vm.prank(provider.agent);
        market.attest(Epoch.wrap(epoch), "root");
        assertEq(market.isAttested(provider.agent, Epoch.wrap(epoch)), isGood);
    }

    /// @dev An epoch that can be attested is paid for, one that can't be is settled as missed: at no time both or neither.
    function testFuzz_AHoleIsFinalWhenItsWindowCloses(uint8 window) public {
        MarketConfig memory constants = defaultConfig();
        constants.attestationWindow = uint32(bound(window, 1, 16));
        constants.evictAfterMissed = 200;
        useMarket(constants);
        DealId dealId = openDeal(provider);
        toEpoch(2 + constants.attestationWindow);
        attest(provider.agent, 2);
        vm.warp(block.timestamp - 1);
        claim(dealId);
        assertEpoch(deal(dealId).settledUntil, 1, "epoch 1 can still be attested");
        vm.warp(block.timestamp + 1);
        assertEq(claim(dealId), PRICE);
        assertEpoch(deal(dealId).settledUntil, 3, "settledUntil");
    }

    function test_EpochsOfOneSecond() public {
        MarketConfig memory constants = defaultConfig();
        constants.epochLength = 1;
        useMarket(constants);
        DealId dealId = openDeal(provider);
        for (uint32 epoch = 1; epoch <= TERM; ++epoch) {
            vm.warp(GENESIS + epoch + 1);
            attest(provider.agent, epoch);
        }
        assertEq(claim(dealId), TERM * PRICE);
    }

    // --- Eviction -----------------------------------------------------------------------------------------------------

    function testFuzz_EvictableAfterExactlySoManyMissed(uint8 missed, uint8 window, uint8 served) public {
        MarketConfig memory constants = defaultConfig();
        constants.evictAfterMissed = uint32(bound(missed, 1, 200));
        constants.attestationWindow = uint32(bound(window, 1, 16));
        useMarket(constants);
        DeveloperOffer memory demand = demandOf(1);
        demand.epochs = 1000;
        DealId dealId = openDeal(demand, provider);
        served = uint8(bound(served, 0, 10));
        nextEpochs(1);
        serve(provider.agent, served);
        // The last second before the last of them can't be attested any more.
        uint256 evictable = uint256(served) + 1 + constants.evictAfterMissed + constants.attestationWindow;
        vm.warp(GENESIS + evictable * EPOCH_LENGTH - 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotEvictable.selector, dealId));
        market.evict(refOf(dealId));
        vm.warp(block.timestamp + 1);
        market.evict(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.ProviderEvicted);
        assertEq(free(provider.payout), served * uint256(PRICE));
    }

    /// @dev When the deal was settled now and then, it makes no difference.
    function testFuzz_SettlingDoesNotMoveTheEviction(uint8 missed, uint256 when) public {
        MarketConfig memory constants = defaultConfig();
        constants.evictAfterMissed = uint32(bound(missed, 1, 200));
        useMarket(constants);
        DeveloperOffer memory demand = demandOf(1);
        demand.epochs = 1000;
        DealId dealId = openDeal(demand, provider);
        uint256 evictable = 1 + constants.evictAfterMissed + WINDOW;
        while (epochNow() < evictable) {
            if ((when >> (epochNow() % 256)) & 1 == 1) claim(dealId);
            assertFalse(canEvict(dealId));
            nextEpochs(1);
        }
        assertTrue(canEvict(dealId));
    }

    function canEvict(DealId dealId) internal returns (bool success) {
        uint256 before = vm.snapshotState();
        (success,) = tryIt(abi.encodeCall(market.evict, (refOf(dealId))));
        vm.revertToState(before);
    }

    // --- Grace, notice and end ----------------------------------------------------------------------------------------

    function testFuzz_AnUnfundedDealStaysOpenThroughGrace(uint16 grace) public {
        grace = uint16(bound(grace, 0, 500));
        MarketConfig memory constants = defaultConfig();
        constants.graceEpochs = grace;
        useMarket(constants);
        DeveloperOffer memory demand = demandOf(1);
        demand.epochs = 1000;
        DealId dealId = openDeal(demand, provider);
        drain(developer);
        nextEpochs(1);
        serve(provider.agent, PREPAID);
        claim(dealId);
        uint256 closable = 1 + PREPAID + grace;
        if (grace != 0) {
            vm.warp(GENESIS + closable * EPOCH_LENGTH - 1);
            bytes4 notYet = IMarketEvents.NotYetOver.selector;
            vm.expectRevert(abi.encodeWithSelector(notYet, dealId, Epoch.wrap(uint32(closable))));
            market.closeDeal(refOf(dealId));
        }
        toEpoch(closable);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.Unfunded);
        assertEq(free(provider.account), START_FREE);
    }

    /// @dev Whenever closing is refused, it says from when on it works.
    function testFuzz_ClosableWhenItSaysSo(uint32 served, uint8 at, bool isDrained, bool isCancelled) public {
        DealId dealId = openDeal(provider);
        if (isDrained) drain(developer);
        at = uint8(bound(at, 1, TERM + WINDOW));
        for (uint256 epoch = 0; epoch < at; ++epoch) {
            toEpoch(epoch + 1);
            if ((served >> epoch) & 1 == 1) attest(provider.agent, epoch);
            if ((served >> (epoch + 7)) & 3 == 0) claim(dealId);
        }
        if (isCancelled) cancel(dealId);
        // From here on the end of the money is on record.
        claim(dealId);
        (bool success, bytes memory answer) = tryIt(abi.encodeCall(market.closeDeal, (refOf(dealId))));
        if (success) return;
        assertEq(bytes4(answer), IMarketEvents.NotYetOver.selector);
        uint256 closableFrom;
        assembly {
            closableFrom := mload(add(answer, 0x44))
        }
        assertGt(closableFrom, epochNow());
        toEpoch(closableFrom);
        (success,) = tryIt(abi.encodeCall(market.closeDeal, (refOf(dealId))));
        if (success) return;
        // Money of epochs that were missed has made the deal go on meanwhile.
        assertTrue(isDrained);
        claim(dealId);
        assertEpoch(deal(dealId).unfundedSince, 0, "goes on");
    }

    function testFuzz_NoticeIsGivenForExactlySoLong(uint32 notice, uint16 at) public {
        MarketConfig memory constants = defaultConfig();
        constants.noticeEpochs = notice;
        useMarket(constants);
        DealId dealId = openDeal(provider);
        at = uint16(bound(at, 0, TERM + 2));
        toEpoch(at);
        giveNotice(provider, dealId);
        uint256 end = uint256(at) + 1 + notice;
        bool isSooner = end < TERM + 1;
        assertEpoch(deal(dealId).endEpoch, isSooner ? end : TERM + 1, "end");
        assertState(
            dealId, isSooner ? DealState.Ending : DealState.Active, isSooner ? EndCause.ProviderLeft : EndCause.None
        );
    }

    function testFuzz_CancelEndsWithTheEpoch(uint16 at, uint32 second) public {
        DealId dealId = openDeal(provider);
        at = uint16(bound(at, 0, TERM + 2));
        vm.warp(GENESIS + uint256(at) * EPOCH_LENGTH + bound(second, 0, EPOCH_LENGTH - 1));
        cancel(dealId);
        assertEpoch(deal(dealId).endEpoch, at < TERM ? uint256(at) + 1 : TERM + 1, "end");
        assertState(
            dealId,
            at < TERM ? DealState.Ending : DealState.Active,
            at < TERM ? EndCause.DeveloperCancelled : EndCause.None
        );
    }

    function test_ATermIsOverWhenItsLastEpochCannotBeAttested() public {
        DealId dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, TERM - 1);
        uint256 closable = TERM + 1 + WINDOW;
        vm.warp(GENESIS + closable * EPOCH_LENGTH - 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotYetOver.selector, dealId, Epoch.wrap(uint32(closable))));
        market.closeDeal(refOf(dealId));
        uint256 before = vm.snapshotState();
        attest(provider.agent, TERM);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), TERM * PRICE);
        vm.revertToState(before);
        vm.warp(block.timestamp + 1);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), (TERM - 1) * PRICE);
        assertState(dealId, DealState.Ended, EndCause.TermOver);
    }

    // --- Money --------------------------------------------------------------------------------------------------------

    function test_OneAtomInAndOut() public {
        fund(stranger, 1);
        assertEq(free(stranger), 1);
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, 1, 2));
        market.withdraw(2, stranger);
        market.withdraw(1, stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, 0, 1));
        market.withdraw(1, stranger);
        vm.stopPrank();
        assertEq(token.balanceOf(stranger), 1);
    }

    /// @dev A balance fills 63 bits and no more; the nonce floor next to it stays what it is.
    function test_TheLargestBalance() public {
        fundWithMuch(stranger, (1 << 63) - 1);
        assertEq(free(stranger), (1 << 63) - 1);
        deal(address(token), stranger, 1);
        vm.startPrank(stranger);
        token.approve(address(market), 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLarge.selector, 1 << 63));
        market.deposit(1);
        market.withdraw((1 << 63) - 1, stranger);
        vm.stopPrank();
        assertEq(market.account(stranger).nonceFloor, 0);
    }

    function test_TheLargestLock() public {
        DealId dealId = openDeal(provider);
        uint256 locked = PREPAID * PRICE;
        fundWithMuch(stranger, (1 << 63) - 1);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), (1 << 63) - 1);
        fundWithMuch(stranger, (1 << 63) - 1);
        uint64 room = uint64(type(uint64).max - locked - ((1 << 63) - 1));
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLarge.selector, 1 << 64));
        market.fundDeal(refOf(dealId), room + 1);
        market.fundDeal(refOf(dealId), room);
        vm.stopPrank();
        assertEq(deal(dealId).locked, type(uint64).max);
        assertEpoch(deal(dealId).paidUntil, TERM + 1, "paidUntil");
        nextEpochs(1);
        serve(provider.agent, 2);
        assertEq(claim(dealId), 2 * PRICE);
        cancel(dealId);
        assertEq(deal(dealId).locked, PRICE);
    }

    function testFuzz_ResumesWithOneEpochsPrice(uint64 amount, bool isClose) public {
        if (isClose) amount = PRICE - 1 + amount % 3;
        amount = uint64(bound(amount, 1, 10 * PRICE));
        DealId dealId = openDeal(provider);
        drain(developer);
        nextEpochs(1);
        serve(provider.agent, PREPAID);
        claim(dealId);
        fund(stranger, amount);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), amount);
        assertEpoch(deal(dealId).unfundedSince, amount >= PRICE ? 0 : 1 + PREPAID, "unfundedSince");
    }

    // --- Constants ----------------------------------------------------------------------------------------------------

    function deployExternally(MarketConfig memory constants) external {
        deployMarket(constants);
    }

    function test_ConstantsReachTheirLimitsAndNotBeyond() public {
        MarketConfig memory constants = defaultConfig();
        constants.genesis = uint64(block.timestamp);
        (constants.attestationWindow, constants.evictAfterMissed) = (16, 200);
        (constants.bondEpochs, constants.minPrepaidEpochs) = (10_000, 65_535);
        (constants.epochLength, constants.graceEpochs) = (type(uint32).max, type(uint32).max);
        constants.noticeEpochs = type(uint32).max;
        this.deployExternally(constants);
        (constants.attestationWindow, constants.evictAfterMissed, constants.minPrepaidEpochs) = (1, 1, 1);
        (constants.bondEpochs, constants.graceEpochs, constants.noticeEpochs) = (0, 0, 0);
        (constants.epochLength, constants.genesis) = (1, 0);
        this.deployExternally(constants);
        for (uint256 i = 0; i < 5; ++i) {
            constants = defaultConfig();
            bytes32 field;
            if (i == 0) (constants.genesis, field) = (uint64(block.timestamp) + 1, "genesis");
            if (i == 1) (constants.evictAfterMissed, field) = (201, "evictAfterMissed");
            if (i == 2) (constants.bondEpochs, field) = (10_001, "bondEpochs");
            if (i == 3) (constants.minPrepaidEpochs, field) = (65_536, "minPrepaidEpochs");
            if (i == 4) (constants.attestationWindow, field) = (17, "attestationWindow");
            vm.expectRevert(abi.encodeWithSelector(IMarketEvents.ConfigInvalid.selector, field));
            this.deployExternally(constants);
        }
    }

    function test_WithoutABondOrNoticeOrGrace() public {
        MarketConfig memory constants = defaultConfig();
        (constants.bondEpochs, constants.noticeEpochs, constants.graceEpochs) = (0, 0, 0);
        useMarket(constants);
        drain(provider.account);
        DealId dealId = openDeal(provider);
        assertEq(deal(dealId).bond, 0);
        nextEpochs(1);
        giveNotice(provider, dealId);
        assertEpoch(deal(dealId).endEpoch, 2, "end");
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), PRICE);
        assertEq(free(provider.account), 0);
    }
}
