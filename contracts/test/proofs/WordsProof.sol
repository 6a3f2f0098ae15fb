// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Deal, DealWord} from "../../src/libraries/DealWord.sol";
import {DemandWord} from "../../src/libraries/DemandWord.sol";
import {SupplyWord} from "../../src/libraries/SupplyWord.sol";
import {DealState, EndCause} from "../../src/types/Types.sol";
import {Proof} from "./Proof.sol";

/// @notice Words of storage hold what was put into them. Nothing is bounded but by the types and `OfferRules`.
/// @custom:halmos --panic-error-codes *
contract WordsProof is Proof {
    using DealWord for uint256;
    using DemandWord for uint256;
    using SupplyWord for uint256;

    function check_ADealSurvivesItsWord(uint256 word) public pure {
        Deal memory item = _deal(word);
        assert(DealWord.pack(item) == word);
        assert(word.locked() == item.locked);
        assert(word.settledUntil() == item.settledUntil);
        assert(DealWord.endEpoch(word) == item.endEpoch);
        assert(word.price() == item.price);
    }

    function check_AnOpenedDealIsItsWord(uint64 lock, uint32 start, uint32 end, uint48 ask, uint256 number)
        public
        pure
    {
        vm.assume(number < 1 << 33);
        Deal memory item;
        DealWord.unpack(DealWord.opened(lock, start, end, ask, number), item);
        assert(item.locked == lock && item.settledUntil == start && item.endEpoch == end);
        assert(item.price == ask && item.offerNumber == number && item.state == DealState.Active);
        assert(item.unfundedSince == 0 && item.fundedFor == 0 && item.cause == EndCause.None && !item.isChanged);
    }

    function check_SettledChangesThreeFields(uint256 word, uint64 lock, uint32 until) public pure {
        Deal memory item = _deal(word);
        vm.assume(until >= item.settledUntil);
        uint256 fundedFor = item.fundedFor + until - item.settledUntil;
        item.fundedFor = fundedFor > 255 ? 255 : fundedFor;
        item.locked = lock;
        item.settledUntil = until;
        assert(word.settled(lock, until) == DealWord.pack(item));
    }

    function check_PlainAndOpenAreWhatTheySay(uint256 word, uint256 number) public pure {
        vm.assume(number < 1 << 33);
        Deal memory item = _deal(word);
        bool isPlain = item.unfundedSince == 0 && !item.isChanged && item.offerNumber == number;
        assert((word & DealWord.PLAIN == DealWord.plain(number)) == isPlain);
        assert(word.isOpen() == (item.state == DealState.Active || item.state == DealState.Ending));
    }

    function check_ADemandSurvivesItsWord(address owner, uint16 prepaid, uint256 cpu, uint256 memory_) public pure {
        vm.assume(cpu < 1 << 20 && memory_ < 1 << 20);
        uint256 word = DemandWord.opened(owner, prepaid, cpu, memory_);
        _assertDemand(word, owner, prepaid, cpu, memory_);
        assert(word.liveReplicas() == 0 && DemandWord.endEpoch(word) == 0 && word & DemandWord.CANCELLED == 0);
    }

    /// @dev Nobody places replicas of an offer that is cancelled, so that mark need not survive.
    function check_PlacedChangesReplicasAndEnd(uint256 word, uint256 replicas, uint32 end) public pure {
        vm.assume(replicas < 128);
        uint256 placed = word.placed(replicas, end);
        assert(placed.liveReplicas() == replicas && DemandWord.endEpoch(placed) == end);
        _assertDemand(placed, word.developer(), word.prepaidEpochs(), word.milliCpu(), word.memoryMib());
        assert(placed & DemandWord.CANCELLED == 0);
    }

    function check_OneReplicaLess(uint256 word) public pure {
        vm.assume(word.liveReplicas() != 0);
        uint256 less = word - DemandWord.ONE_REPLICA;
        assert(less.liveReplicas() == word.liveReplicas() - 1);
        assert((less ^ word) & ~(uint256(0x7f) << 32) == 0);
    }

    function check_ASupplySurvivesItsWord(address agent, bool hasPayout, uint256 number) public pure {
        vm.assume(number < 1 << 33);
        uint256 word = SupplyWord.opened(agent, hasPayout).numbered(number);
        assert(word.agent() == agent && word.number() == number);
        assert(word.usedMilliCpu() == 0 && word.usedMemoryMib() == 0);
        assert((word & SupplyWord.PAYOUT != 0) == hasPayout);
        assert(word & SupplyWord.KNOWN != 0 && word & SupplyWord.CANCELLED == 0);
    }

    function check_CapacityIsTakenAndGivenBack(uint256 word, uint256 cpu, uint256 memory_) public pure {
        vm.assume(cpu < 1 << 20 && memory_ < 1 << 20);
        vm.assume(word.usedMilliCpu() + cpu < 1 << 30 && word.usedMemoryMib() + memory_ < 1 << 30);
        uint256 more = word.reserve(cpu, memory_);
        assert(more.usedMilliCpu() == word.usedMilliCpu() + cpu);
        assert(more.usedMemoryMib() == word.usedMemoryMib() + memory_);
        assert(more.agent() == word.agent() && more.number() == word.number() && (more ^ word) & 7 == 0);
        assert(more.release(cpu, memory_) == word);
    }

    /// @dev The deal of a word whose cause is one.
    function _deal(uint256 word) private pure returns (Deal memory item) {
        vm.assume((word >> 1) & 7 <= uint256(type(EndCause).max));
        DealWord.unpack(word, item);
    }

    function _assertDemand(uint256 word, address owner, uint256 prepaid, uint256 cpu, uint256 memory_) private pure {
        assert(word.developer() == owner && word.prepaidEpochs() == prepaid);
        assert(word.milliCpu() == cpu && word.memoryMib() == memory_);
    }
}
