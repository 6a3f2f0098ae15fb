// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {LibBit} from "solady/utils/LibBit.sol";

/// @title EpochBitmap
/// @notice One bit per epoch in words of 256. Counting costs one read per word, whatever the number of epochs.
library EpochBitmap {
    struct Bitmap {
        mapping(uint256 word => uint256 bits) words;
    }

    /// @notice Whether `epoch` is set.
    function get(Bitmap storage bitmap, uint256 epoch) internal view returns (bool) {
        return (bitmap.words[epoch >> 8] >> (epoch & 255)) & 1 == 1;
    }

    /// @notice Sets `epoch`.
    /// @return wasSet Whether it was set before.
    function set(Bitmap storage bitmap, uint256 epoch) internal returns (bool wasSet) {
        // forge-lint: disable-next-line(incorrect-shift)
        uint256 mask = 1 << (epoch & 255);
        uint256 bits = bitmap.words[epoch >> 8];
        if (bits & mask != 0) return true;
        bitmap.words[epoch >> 8] = bits | mask;
    }

    /// @notice Number of set epochs in `[from, to)`.
    function count(Bitmap storage bitmap, uint256 from, uint256 to) internal view returns (uint256 total) {
        // Epochs have 32 bits: nothing here overflows.
        unchecked {
            while (from < to) {
                total += LibBit.popCount(_masked(bitmap, from, to));
                from = _nextWord(from);
            }
        }
    }

    /// @notice End of the unbroken run of set epochs that starts with `from`, not beyond `to`; `from` when `to` is not
    /// behind it.
    function runEnd(Bitmap storage bitmap, uint256 from, uint256 to) internal view returns (uint256 end) {
        end = from;
        unchecked {
            while (end < to) {
                uint256 offset = end & 255;
                // Zeros move in from above, so a run never seems to leave its word; `ffs(0)` is 256.
                uint256 ones = LibBit.ffs(~(bitmap.words[end >> 8] >> offset));
                end += ones;
                if (end > to) return to;
                if (offset + ones < 256) break;
            }
        }
    }

    /// @notice First epoch behind the `nth` set one in `[from, to)`; `from` for 0, `to` when fewer are set.
    function endOfNth(Bitmap storage bitmap, uint256 from, uint256 to, uint256 nth) internal view returns (uint256) {
        if (nth == 0) return from;
        while (from < to) {
            uint256 bits = _masked(bitmap, from, to);
            uint256 ones = LibBit.popCount(bits);
            if (ones >= nth) {
                for (; nth > 1; --nth) {
                    bits &= bits - 1;
                }
                return (from & ~uint256(255)) + LibBit.ffs(bits) + 1;
            }
            nth -= ones;
            from = _nextWord(from);
        }
        return to;
    }

    /// @dev The word of `from` without the bits outside of `[from, to)`. `from < to`.
    function _masked(Bitmap storage bitmap, uint256 from, uint256 to) private view returns (uint256 bits) {
        bits = bitmap.words[from >> 8] & (type(uint256).max << (from & 255));
        unchecked {
            // forge-lint: disable-next-line(incorrect-shift)
            if (to >> 8 == from >> 8) bits &= (1 << (to & 255)) - 1;
        }
    }

    function _nextWord(uint256 epoch) private pure returns (uint256) {
        unchecked {
            return (epoch & ~uint256(255)) + 256;
        }
    }
}
