// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {EpochBitmap} from "../../src/libraries/EpochBitmap.sol";
import {Proof} from "./Proof.sol";

/// @notice Counting across an edge of words is what a loop over epochs does.
/// @custom:halmos --panic-error-codes *
contract CountProof is Proof {
    using EpochBitmap for EpochBitmap.Bitmap;

    uint256 internal constant SPAN = EpochBitmap.SPAN;
    uint256 internal constant BITS = (1 << 192) - 1;

    /// @dev Index of the first word that the proofs look at. The compiler must not know keys of mappings.
    uint256 internal immutable FIRST;

    EpochBitmap.Bitmap internal bitmap;

    constructor() {
        FIRST = 7;
    }

    /// @custom:halmos --loop 33
    function check_CountIsThatOfALoop(uint8 pattern, uint8[2] memory at) public {
        (uint256 from, uint256 to) = _put(pattern, at);
        assert(bitmap.count(from, to) == _countByLoop(from, to));
    }

    /// @custom:halmos --loop 33
    function check_IsFullAcrossWordsIsThatOfALoop(uint8 pattern, uint8[2] memory at) public {
        (uint256 from, uint256 to) = _put(pattern, at);
        assert(bitmap.isFull(from, to) == (_countByLoop(from, to) == to - from));
    }

    /// @custom:halmos --loop 33
    function check_EndOfNthIsThatOfALoop(uint8 pattern, uint8[2] memory at, uint8 nth) public {
        (uint256 from, uint256 to) = _put(pattern, at);
        uint256 wanted = _caseOf(nth, 6);
        uint256 expected = from;
        for (uint256 counted = 0; expected < to && counted < wanted; ++expected) {
            if (bitmap.get(expected)) ++counted;
        }
        assert(bitmap.endOfNth(from, to, wanted) == expected);
    }

    function _countByLoop(uint256 from, uint256 to) private view returns (uint256 total) {
        for (uint256 epoch = from; epoch < to; ++epoch) {
            if (bitmap.get(epoch)) ++total;
        }
    }

    /// @dev Two words that are all set or not at all, but for four epochs around their edge, and what is asked about: a stretch of
    /// these four. Heads are what `BitmapProof` proves that `set` makes of them.
    function _put(uint8 pattern, uint8[2] memory at) private returns (uint256 from, uint256 to) {
        uint256 inner = _caseOf(pattern, 32);
        uint256 outer = inner & 16 == 0 ? 0 : BITS;
        uint256 low = (outer >> 2) | ((inner & 3) << 190);
        uint256 high = (outer & (BITS << 2)) & BITS | ((inner >> 2) & 3);
        uint256 before = (outer == 0 ? 0 : SPAN - 2) + (inner & 1) + ((inner >> 1) & 1);
        if (low != 0) bitmap.words[FIRST] = (FIRST << 224) | low;
        uint256 head = low == 0 ? (FIRST + 1) << 224 : (FIRST << 224) | (before << 192);
        if (high != 0) bitmap.words[FIRST + 1] = head | high;
        from = (FIRST + 1) * SPAN - 2 + _caseOf(at[0], 4);
        to = (FIRST + 1) * SPAN - 1 + _caseOf(at[1], 4);
        vm.assume(from < to);
    }
}
