// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {DealId, DealView, DeveloperOffer, ProviderOffer} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";

/// @dev A claim settles everyday deals by a short path, and all others by the whole rule. Both must come to the same: every
/// case is claimed twice from one state, the second time with deals that are marked as changed, by a change of nothing,
/// which the short path leaves alone.
contract ClaimPathsTest is Actions {
    /// @dev Where the market keeps its deals and their changes.
    uint256 internal constant DEALS_SLOT = 5;
    uint256 internal constant CHANGES_SLOT = 6;

    Provider internal provider;
    address internal secondDeveloper;
    uint256 internal secondKey;
    address[] internal developers;

    /// @dev All that a claim can change.
    struct Outcome {
        uint256 paid;
        bytes32 dealsNow;
        bytes32 balances;
        bytes32 events;
    }

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        (secondDeveloper, secondKey) = makeAddrAndKey("second developer");
        fund(secondDeveloper, START_FREE);
        developers.push(developer);
        developers.push(secondDeveloper);
        watch(provider);
        accounts.push(developer);
        accounts.push(secondDeveloper);
    }

    // --- Deals and paths ----------------------------------------------------------------------------------------------

    function open(uint256 who, uint64 nonce, uint32 prepaid, uint32 epochs, uint64 price, address payout)
        internal
        returns (DealId dealId)
    {
        DeveloperOffer memory demand = demandOf(1);
        demand.developer = developers[who];
        (demand.nonce, demand.prepaidEpochs, demand.epochs) = (nonce, prepaid, epochs);
        (demand.milliCpu, demand.memoryMib) = (1000, 1);
        demand.maxPricePerEpoch = (1 << 48) - 1;
        uint256 key = who == 0 ? developerKey : secondKey;
        (developer, developerKey, key) = (developers[who], key, developerKey);
        assertEq(submit(signedMatch(demand, provider, priced(price, payout))), 1, "opened");
        (developer, developerKey) = (developers[0], who == 0 ? developerKey : key);
        dealId = refTo(demand, priced(price, payout));
        deals.push(dealId);
    }

    /// @dev A supply at which 1,000 milli-CPU cost `price`.
    function priced(uint64 price, address payout) internal view returns (ProviderOffer memory supply) {
        supply = supplyOf(provider);
        supply.milliCpu = 1_000_000;
        (supply.pricePerVcpuEpoch, supply.pricePerGibEpoch) = (price, 0);
        supply.payout = payout;
    }

    function wordSlot(DealId dealId) internal pure returns (bytes32) {
        return keccak256(abi.encode(dealId, DEALS_SLOT));
    }

    function changeSlot(DealId dealId) internal pure returns (bytes32) {
        return keccak256(abi.encode(dealId, CHANGES_SLOT));
    }

    /// @dev From here on the deal is settled by the whole rule. Its change holds from epoch 0 on: nothing else is new.
    function takeWholeRule(DealId dealId) internal {
        bytes32 word = vm.load(address(market), wordSlot(dealId));
        assertNotEq(word, 0, "the deal is where it is looked for");
        DealView memory shown = deal(dealId);
        vm.store(address(market), wordSlot(dealId), word | bytes32(uint256(1)));
        // Behind number, epoch and old price, which are 0, the change has the size that the deal has anyway.
        uint256 size = (uint256(shown.milliCpu) << 128) | (uint256(shown.memoryMib) << 160);
        vm.store(address(market), changeSlot(dealId), bytes32(size));
    }

    function isRead(bytes32 slot) internal returns (bool) {
        (bytes32[] memory reads,) = vm.accesses(address(market));
        for (uint256 i = 0; i < reads.length; ++i) {
            if (reads[i] == slot) return true;
        }
        return false;
    }

    // --- Comparing ------------------------------------------------------------------------------------------------------

    function outcomeOf(DealId[] memory dealIds, bool isWhole) internal returns (Outcome memory outcome) {
        for (uint256 i = 0; isWhole && i < dealIds.length; ++i) {
            takeWholeRule(dealIds[i]);
        }
        vm.recordLogs();
        outcome.paid = claim(dealIds);
        outcome.events = digest(vm.getRecordedLogs());
        (outcome.dealsNow, outcome.balances) = stateNow(dealIds);
        assertConserved();
    }

    function stateNow(DealId[] memory dealIds) internal view returns (bytes32 dealsNow, bytes32 balances) {
        for (uint256 i = 0; i < dealIds.length; ++i) {
            // The very word, but for the mark.
            bytes32 word = vm.load(address(market), wordSlot(dealIds[i])) | bytes32(uint256(1));
            dealsNow = keccak256(abi.encode(dealsNow, word, deal(dealIds[i])));
        }
        for (uint256 i = 0; i < accounts.length; ++i) {
            balances = keccak256(abi.encode(balances, free(accounts[i])));
        }
    }

    function digest(Vm.Log[] memory logs) internal pure returns (bytes32 all) {
        for (uint256 i = 0; i < logs.length; ++i) {
            all = keccak256(abi.encode(all, logs[i].topics, logs[i].data));
        }
    }

    function assertSame(Outcome memory left, Outcome memory right) internal pure {
        assertEq(left.paid, right.paid, "paid");
        assertEq(left.dealsNow, right.dealsNow, "deals");
        assertEq(left.balances, right.balances, "balances");
        assertEq(left.events, right.events, "events");
    }

    /// @dev Claims from here by both paths, and goes on behind the short one.
    function assertPathsAgree(DealId[] memory dealIds) internal returns (uint256 paid) {
        uint256 before = vm.snapshotState();
        Outcome memory whole = outcomeOf(dealIds, true);
        vm.revertToState(before);
        Outcome memory plain = outcomeOf(dealIds, false);
        assertSame(plain, whole);
        return plain.paid;
    }

    // --- The comparison itself ------------------------------------------------------------------------------------------

    function test_TheTwoPathsAreTaken() public {
        DealId dealId = open(0, 0, PREPAID, TERM, PRICE, provider.payout);
        nextEpochs(1);
        serve(provider.agent, 2);
        uint256 before = vm.snapshotState();
        vm.record();
        assertEq(claim(dealId), 2 * PRICE);
        assertFalse(isRead(changeSlot(dealId)), "the short path knows of no change");
        vm.revertToState(before);
        takeWholeRule(dealId);
        vm.record();
        assertEq(claim(dealId), 2 * PRICE);
        assertTrue(isRead(changeSlot(dealId)), "the whole rule looks it up");
        assertEq(deal(dealId).changes, 0);
        assertEq(deal(dealId).pricePerEpoch, PRICE);
    }

    // --- One deal -------------------------------------------------------------------------------------------------------

    struct Life {
        uint64 price;
        uint16 prepaid;
        uint8 epochs;
        uint32 missed;
        uint32 late;
        uint32 claimed;
        uint16 around;
        uint8 atoms;
    }

    /// @dev A life with holes and late attestations, claimed now and then, where the developer has about as much as is
    /// wanted for a number of epochs, to a few atoms.
    function testFuzz_OneDeal(Life memory life) public {
        life.prepaid = uint16(bound(life.prepaid, MIN_PREPAID, 30));
        life.epochs = uint8(bound(life.epochs, MIN_PREPAID, 24));
        life.price = uint64(bound(life.price, 1, 10 * PRICE));
        DealId dealId = open(0, 0, life.prepaid, life.epochs, life.price, provider.payout);
        leaveAbout(life);
        liveAndCompare(dealId, life);
    }

    function leaveAbout(Life memory life) private {
        uint256 wanted = uint256(life.price) * bound(life.around, 0, 12) + bound(life.atoms, 0, 4);
        wanted = wanted > 2 ? wanted - 2 : 0;
        drain(developer);
        if (wanted != 0) fund(developer, wanted);
    }

    function liveAndCompare(DealId dealId, Life memory life) private {
        DealId[] memory one = only(dealId);
        uint256 paid;
        for (uint256 i = 1; i <= uint256(life.epochs) + 2; ++i) {
            toEpoch(i + 1);
            bool isLate = (life.late >> (i % 32)) & 1 == 1;
            if ((life.missed >> (i % 32)) & 1 == 0 && !isLate) attest(provider.agent, i);
            if (i > 2 && (life.late >> ((i - 2) % 32)) & 1 == 1) attest(provider.agent, i - 2);
            if ((life.claimed >> (i % 32)) & 1 == 1) paid += assertPathsAgree(one);
        }
        nextEpochs(WINDOW);
        paid += assertPathsAgree(one);
        assertEq(free(provider.payout), paid);
    }

    /// @dev Served without a hole, so that nothing but the money decides, to the atom around every whole epoch.
    function testFuzz_MoneyToTheAtom(uint64 price, uint8 prepaid, uint8 served, uint8 epochsOfMoney, uint8 atoms)
        public
    {
        price = uint64(bound(price, 1, 100 * PRICE));
        prepaid = uint8(bound(prepaid, MIN_PREPAID, 8));
        served = uint8(bound(served, 1, 10));
        DealId dealId = open(0, 0, prepaid, TERM, price, provider.payout);
        uint256 left = uint256(price) * bound(epochsOfMoney, 0, 12) + bound(atoms, 0, 2);
        drain(developer);
        if (left > 1) fund(developer, left - 1);
        nextEpochs(1);
        serve(provider.agent, served);
        assertPathsAgree(only(dealId));
        serve(provider.agent, 1);
        assertPathsAgree(only(dealId));
    }

    function testFuzz_AFreeDeal(uint8 served, uint8 missed) public {
        served = uint8(bound(served, 0, TERM + 2));
        DealId dealId = open(0, 0, PREPAID, TERM, 0, provider.payout);
        nextEpochs(1);
        serve(provider.agent, served);
        nextEpochs(bound(missed, 0, 2 * WINDOW));
        assertEq(assertPathsAgree(only(dealId)), 0);
        serve(provider.agent, 1);
        assertEq(assertPathsAgree(only(dealId)), 0);
    }

    /// @dev Prices near 2^48, locks and payments near 2^64.
    function testFuzz_HugePrices(uint64 price, uint16 prepaid, uint256 left, uint16 served) public {
        price = uint64(bound(price, (1 << 48) - 1000, (1 << 48) - 1));
        prepaid = uint16(bound(prepaid, 2, 20_000));
        served = uint16(bound(served, 1, 300));
        left = bound(left, 0, 1 << 62);
        if (left % 3 == 0) left = uint256(price) * (left % 400) + left % 3;
        fundWithMuch(provider.account, uint256(price) * BOND_EPOCHS);
        fundWithMuch(developer, uint256(price) * prepaid);
        DealId dealId = open(0, 0, prepaid, 100_000, price, provider.payout);
        drain(developer);
        if (left != 0) fundWithMuch(developer, left);
        nextEpochs(1);
        serve(provider.agent, served);
        assertPathsAgree(only(dealId));
        serve(provider.agent, 1);
        assertPathsAgree(only(dealId));
    }

    /// @dev More than 64 bits can't be moved by one settlement: the balance holds that much, the lock does not.
    function test_MoreThanOneSettlementMayMove() public {
        uint64 price = (1 << 48) - 1;
        fundWithMuch(provider.account, uint256(price) * BOND_EPOCHS);
        fundWithMuch(developer, uint256(price) * 32_000);
        DealId dealId = open(0, 0, 32_000, 200_000, price, provider.payout);
        drain(developer);
        fundWithMuch(developer, (1 << 63) - 1);
        fundDealBy(stranger, dealId, (1 << 63) - 1);
        nextEpochs(1);
        serve(provider.agent, 2);
        assertPathsAgree(only(dealId));
        assertGt(deal(dealId).locked, 1 << 63);
    }

    function fundDealBy(address from, DealId dealId, uint64 amount) private {
        fundWithMuch(from, amount);
        vm.prank(from);
        market.fundDeal(refOf(dealId), amount);
        accounts.push(from);
    }

    /// @dev What somebody else has added lies above what is wanted ahead.
    function testFuzz_MoreIsLockedThanWanted(uint64 extra, uint8 served) public {
        extra = uint64(bound(extra, 1, 30 * PRICE));
        DealId dealId = open(0, 0, PREPAID, TERM, PRICE, provider.payout);
        fundDealBy(stranger, dealId, extra);
        nextEpochs(1);
        for (uint256 i = 0; i < 3; ++i) {
            serve(provider.agent, bound(served, 1, TERM / 2));
            assertPathsAgree(only(dealId));
        }
    }

    function testFuzz_AroundTheEnd(uint8 epochs, uint8 served, uint8 behind, bool isCancelled) public {
        epochs = uint8(bound(epochs, 1, 10));
        served = uint8(bound(served, 1, epochs + 2));
        DealId dealId = open(0, 0, PREPAID, epochs, PRICE, provider.payout);
        nextEpochs(1);
        serve(provider.agent, served);
        if (isCancelled) cancel(dealId);
        serve(provider.agent, bound(behind, 0, 3));
        assertPathsAgree(only(dealId));
        nextEpochs(WINDOW);
        assertPathsAgree(only(dealId));
    }

    /// @dev Across the 192 epochs of a word of attestations.
    function testFuzz_AcrossWords(uint16 first, uint16 served, uint16 hole) public {
        first = uint16(bound(first, 150, 260));
        served = uint16(bound(served, 1, 420));
        hole = uint16(bound(hole, 0, 2 * served));
        toEpoch(first);
        DealId dealId = open(0, 0, PREPAID, 1200, PRICE, provider.payout);
        nextEpochs(1);
        for (uint256 i = 0; i < served; ++i) {
            if (i != hole) serve(provider.agent, 1);
            else nextEpochs(1);
        }
        assertPathsAgree(only(dealId));
        serve(provider.agent, 1);
        assertPathsAgree(only(dealId));
    }

    /// @dev The developer is paid by itself: what it is paid can't be spent by the same claim.
    function testFuzz_TheDeveloperIsThePayee(uint8 served, uint8 epochsOfMoney, uint8 atoms) public {
        DealId dealId = open(0, 0, PREPAID, TERM, PRICE, developer);
        drain(developer);
        fund(developer, 1 + PRICE * bound(epochsOfMoney, 0, 6) + bound(atoms, 0, PRICE));
        nextEpochs(1);
        serve(provider.agent, bound(served, 1, 10));
        assertPathsAgree(only(dealId));
        serve(provider.agent, 1);
        assertPathsAgree(only(dealId));
    }

    // --- Batches --------------------------------------------------------------------------------------------------------

    /// @dev Six deals of two developers in a random order, some of them twice, with little money.
    function mixedBatch(uint256 seed) internal returns (DealId[] memory dealIds) {
        for (uint64 i = 0; i < 6; ++i) {
            uint32 prepaid = uint32(MIN_PREPAID + (seed >> (8 * i)) % 5);
            uint32 epochs = uint32(4 + (seed >> (8 * i + 3)) % 16);
            open((seed >> i) & 1, i, prepaid, epochs, PRICE, provider.payout);
        }
        for (uint256 i = 0; i < developers.length; ++i) {
            drain(developers[i]);
            fund(developers[i], 1 + (seed >> (64 + 32 * i)) % (16 * PRICE));
        }
        dealIds = new DealId[](8);
        for (uint256 i = 0; i < dealIds.length; ++i) {
            dealIds[i] = deals[(i + (seed >> (128 + i))) % 6];
        }
        for (uint256 epoch = 1; epoch <= 8; ++epoch) {
            toEpoch(epoch + 1);
            if ((seed >> (144 + epoch)) & 3 != 0) attest(provider.agent, epoch);
        }
    }

    function testFuzz_ABatchTakesEitherPath(uint256 seed) public {
        DealId[] memory dealIds = mixedBatch(seed);
        assertPathsAgree(dealIds);
        serve(provider.agent, 3);
        assertPathsAgree(dealIds);
        nextEpochs(WINDOW);
        assertPathsAgree(dealIds);
    }

    /// @dev Both paths within one batch, in turns.
    function testFuzz_PathsTakeTurns(uint256 seed) public {
        DealId[] memory dealIds = mixedBatch(seed);
        uint256 before = vm.snapshotState();
        Outcome memory plain = outcomeOf(dealIds, false);
        vm.revertToState(before);
        for (uint256 i = 0; i < dealIds.length; ++i) {
            if ((seed >> (200 + i)) & 1 == 1) takeWholeRule(dealIds[i]);
        }
        assertSame(outcomeOf(dealIds, false), plain);
    }

    /// @dev One by one in the same order comes to the same, however little money there is.
    function testFuzz_ABatchIsItsSingleClaims(uint256 seed) public {
        DealId[] memory dealIds = mixedBatch(seed);
        uint256 before = vm.snapshotState();
        Outcome memory together = outcomeOf(dealIds, false);
        vm.revertToState(before);
        Outcome memory apart;
        vm.recordLogs();
        for (uint256 i = 0; i < dealIds.length; ++i) {
            apart.paid += claim(dealIds[i]);
        }
        apart.events = digest(vm.getRecordedLogs());
        (apart.dealsNow, apart.balances) = stateNow(dealIds);
        assertSame(together, apart);
    }

    /// @dev With money enough for all, not even the order matters.
    function testFuzz_AnyOrderPaysTheSame(uint256 seed) public {
        DealId[] memory dealIds = mixedBatch(seed);
        fund(developer, START_FREE);
        fund(secondDeveloper, START_FREE);
        uint256 before = vm.snapshotState();
        uint256 paid = claim(dealIds);
        (bytes32 dealsThen, bytes32 balancesThen) = stateNow(deals);
        vm.revertToState(before);
        DealId[] memory turned = new DealId[](dealIds.length);
        for (uint256 i = 0; i < dealIds.length; ++i) {
            turned[i] = dealIds[dealIds.length - 1 - i];
        }
        assertEq(claim(turned), paid);
        (bytes32 dealsNow, bytes32 balances) = stateNow(deals);
        assertEq(dealsNow, dealsThen);
        assertEq(balances, balancesThen);
    }
}
