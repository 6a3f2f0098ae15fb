// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {LibBit} from "solady/utils/LibBit.sol";
import {EpochBitmap} from "../../src/libraries/EpochBitmap.sol";
import {Proof} from "./Proof.sol";

/// @notice Counting bits, and that the heads of words stay right.
/// @dev That a word's number of bits is counted rightly is proved once. Where a proof needs it of a particular word it is
/// assumed there, which spares the solver what it is slow at.
/// @custom:halmos --panic-error-codes *
contract BitmapProof is Proof {
    using EpochBitmap for EpochBitmap.Bitmap;

    uint256 internal constant SPAN = EpochBitmap.SPAN;
    uint256 internal constant BITS = (1 << 192) - 1;
    uint256 internal constant SILENT = 0;
    uint256 internal constant STARTS = 1;
    uint256 internal constant FOLLOWS = 2;
    /// @dev Silence, a word that starts a chain, and one that follows it: 0 + 2 * STARTS + 6 * FOLLOWS.
    uint256 internal constant LATE_IN_FIRST_WORD = 14;

    /// @dev Index of the first word that the proofs look at. The compiler must not know keys of mappings.
    uint256 internal immutable FIRST;

    EpochBitmap.Bitmap internal bitmap;

    constructor() {
        FIRST = 7;
    }

    // --- One word -----------------------------------------------------------------------------------------------------

    /// @dev Without its lowest bit a word has one bit less: the step of an induction from 0 to every word.
    function check_PopCountIsTheNumberOfBits(uint256 word) public pure {
        assert(LibBit.popCount(0) == 0);
        vm.assume(word != 0);
        assert(LibBit.popCount(word) == LibBit.popCount(word & (word - 1)) + 1);
    }

    /// @dev It is the lowest bit that is looked for, and each of them is found.
    /// @custom:halmos --solver z3
    function check_FfsIsTheLowestBit(uint256 word) public pure {
        unchecked {
            assert(LibBit.ffs(word) == LibBit.ffs(word & (0 - word)));
        }
        for (uint256 i = 0; i < 256; ++i) {
            assert(LibBit.ffs(1 << i) == i);
        }
    }

    // --- Setting ------------------------------------------------------------------------------------------------------

    /// @dev For every epoch, also a late one. One case of eighteen is not proved: solvers do not manage it.
    /// @custom:halmos --loop 18
    function check_SetSetsOneBitAndKeepsHeadsRight(
        uint32 epoch,
        uint256 open,
        uint8 kinds,
        uint32[2] memory before,
        uint192[3] memory bits
    ) public {
        uint256 kind = _caseOf(kinds, 18);
        vm.assume(kind != LATE_IN_FIRST_WORD);
        _set(epoch, open, kind, before, bits);
    }

    /// @dev `previous`, `word` and `next` are the words before, at and behind that of `epoch`.
    function _set(uint32 epoch, uint256 open, uint256 kind, uint32[2] memory before, uint192[3] memory bits) private {
        vm.assume(epoch < open && open <= uint256(epoch) + EpochBitmap.REACH);
        uint256 index = epoch / SPAN;
        uint256 bit = 1 << (epoch % SPAN);
        unchecked {
            uint256 previous = kind % 2 == 0 ? 0 : _anyWord(index - 1, before, bits[0]);
            vm.assume(index != 0 || previous == 0);
            uint256 word = _wordOf(kind / 2 % 3, index, previous, bits[1]);
            uint256 next = _wordOf(kind / 6, index + 1, word, bits[2]);
            // Nothing is set from `open` on.
            vm.assume(next == 0 || open > (index + 1) * SPAN);
            bitmap.words[index - 1] = previous;
            bitmap.words[index] = word;
            bitmap.words[index + 1] = next;
            uint256 wordKind = word != 0 ? kind / 2 % 3 : previous == 0 ? STARTS : FOLLOWS;
            uint256 wordAfter = _wordOf(wordKind, index, previous, (word & BITS) | bit);
            uint256 counted = LibBit.popCount(word & BITS);
            vm.assume(LibBit.popCount(previous & BITS) <= SPAN && counted <= SPAN);
            if (word & bit == 0) vm.assume(LibBit.popCount(wordAfter & BITS) == counted + 1);
            assert(bitmap.set(epoch, open) == (word & bit != 0));
            assert(bitmap.words[index] == wordAfter);
            assert(bitmap.words[index + 1] == _wordOf(kind / 6, index + 1, wordAfter, bits[2]));
            assert(bitmap.words[index - 1] == previous);
        }
    }

    /// @dev No word is written but those two, whatever is in them.
    function check_SetLeavesOtherWordsAlone(uint32 epoch, uint256 open, uint256[3] memory words, uint256 other) public {
        uint256 index = epoch / SPAN;
        vm.assume(other != index && other != index + 1);
        bitmap.words[index] = words[0];
        bitmap.words[index + 1] = words[1];
        bitmap.words[other] = words[2];
        bitmap.set(epoch, open);
        assert(bitmap.words[other] == words[2]);
    }

    // --- Runs and full stretches --------------------------------------------------------------------------------------

    /// @dev The last four epochs of a word, whatever else is in it.
    /// @custom:halmos --loop 5
    function check_IsFullIsThatOfALoop(uint256 word, uint8[2] memory at) public {
        bitmap.words[FIRST] = word;
        uint256 first = (FIRST + 1) * SPAN - 4;
        uint256 from = first + _caseOf(at[0], 4);
        uint256 to = first + 1 + _caseOf(at[1], 4);
        vm.assume(from < to);
        uint256 all = 1;
        for (uint256 epoch = from; epoch < to; ++epoch) {
            all &= word >> (epoch % SPAN);
        }
        assert(bitmap.isFull(from, to) == (all & 1 == 1));
    }

    /// @dev Four epochs around an edge, one by one; all others are set, or none.
    /// @custom:halmos --loop 33
    function check_RunEndIsThatOfALoop(uint8 pattern, uint8[2] memory at) public {
        uint256 first = _putPattern(_caseOf(pattern, 32));
        uint256 from = first + _caseOf(at[0], 5);
        uint256 to = first + _caseOf(at[1], 5);
        uint256 expected = from;
        while (expected < to && bitmap.get(expected)) {
            ++expected;
        }
        assert(bitmap.runEnd(from, to) == expected);
    }

    // --- Words --------------------------------------------------------------------------------------------------------

    /// @dev The invariant: a word is made of its bits and of the word before. A silent one is 0; another either starts a
    /// chain or goes on with that of the word before, which then isn't silent.
    function _wordOf(uint256 kind, uint256 index, uint256 previous, uint256 bits) private pure returns (uint256) {
        if (kind == SILENT) return 0;
        vm.assume(bits != 0);
        if (kind == STARTS) return (index << 224) | bits;
        vm.assume(previous != 0);
        // Heads count epochs, of which there are fewer than 2^32.
        uint256 head = uint32((previous >> 192) + LibBit.popCount(previous & BITS));
        return (previous >> 224 << 224) | (head << 192) | bits;
    }

    /// @dev A word of a chain that began anywhere before. There are fewer than 2^32 epochs, and heads count some of them.
    function _anyWord(uint256 index, uint32[2] memory before, uint256 bits) private pure returns (uint256) {
        vm.assume(before[0] <= index && before[1] < type(uint32).max - 4 * SPAN && bits != 0);
        return (uint256(before[0]) << 224) | (uint256(before[1]) << 192) | bits;
    }

    /// @dev Two words that are all set or not at all, but for four epochs around their edge, of which the first is returned.
    function _putPattern(uint256 pattern) private returns (uint256 first) {
        uint256 inner = pattern & 15;
        uint256 outer = pattern & 16 == 0 ? 0 : BITS;
        bitmap.words[FIRST] = (FIRST << 224) | (outer >> 2) | ((inner & 3) << 190);
        bitmap.words[FIRST + 1] = ((FIRST + 1) << 224) | (outer & (BITS << 2)) & BITS | (inner >> 2);
        return (FIRST + 1) * SPAN - 2;
    }
}
