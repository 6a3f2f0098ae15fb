// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {LibBit} from "solady/utils/LibBit.sol";

/// @title EpochBitmap
/// @notice One bit per epoch, in words of 192, and in the rest of each word the number of bits set before it: counting
/// any number of epochs reads two words.
/// @dev From above: index of the first word of the *chain* 32, bits in earlier words of the chain 32, bits 192. A chain
/// is a row of words that all have a bit set. Where an agent was silent for a whole word, the next one starts a new
/// chain; counting goes from chain to chain. Bits are set no further back than `REACH` behind the newest, so that at most
/// the last two words of a chain change.
library EpochBitmap {
    struct Bitmap {
        mapping(uint256 index => uint256 word) words;
    }

    uint256 internal constant SPAN = 192;
    uint256 internal constant REACH = 16;
    uint256 private constant BITS = (1 << 192) - 1;
    uint256 private constant ONE_BEFORE = 1 << 192;

    /// @notice Whether `epoch` is set.
    function get(Bitmap storage bitmap, uint256 epoch) internal view returns (bool) {
        return (bitmap.words[epoch / SPAN] >> (epoch % SPAN)) & 1 == 1;
    }

    /// @notice Sets `epoch`. No epoch from `open` on was set before, and `epoch` lies less than `REACH` behind the newest.
    /// @return wasSet Whether it was set before.
    function set(Bitmap storage bitmap, uint256 epoch, uint256 open) internal returns (bool wasSet) {
        unchecked {
            uint256 index = epoch / SPAN;
            uint256 mask = 1 << (epoch % SPAN);
            uint256 word = bitmap.words[index];
            if (word & mask != 0) return true;
            if (word == 0) word = _head(bitmap, index);
            bitmap.words[index] = word | mask;
            // A late one: the next word may have begun, and then it counts this one as well.
            if (open > (index + 1) * SPAN) {
                uint256 next = bitmap.words[index + 1];
                if (next != 0 && next >> 224 <= index) bitmap.words[index + 1] = next + ONE_BEFORE;
            }
        }
    }

    /// @notice Whether all epochs in `[from, to)` are set; `from` must be before `to`.
    function isFull(Bitmap storage bitmap, uint256 from, uint256 to) internal view returns (bool) {
        unchecked {
            uint256 index = from / SPAN;
            uint256 start = index * SPAN;
            if (to > start + SPAN) return count(bitmap, from, to) == to - from;
            uint256 mask = ((1 << (to - from)) - 1) << (from - start);
            return ~bitmap.words[index] & mask == 0;
        }
    }

    /// @notice Number of set epochs in `[from, to)`.
    function count(Bitmap storage bitmap, uint256 from, uint256 to) internal view returns (uint256 total) {
        // Epochs have 32 bits: nothing here overflows.
        unchecked {
            while (from < to) {
                uint256 index = (to - 1) / SPAN;
                uint256 word = bitmap.words[index];
                if (word == 0) {
                    to = index * SPAN;
                    continue;
                }
                total += _countBefore(word, to - index * SPAN);
                uint256 chainFrom = (word >> 224) * SPAN;
                if (chainFrom <= from) return total - _countBefore(bitmap.words[from / SPAN], from % SPAN);
                to = chainFrom;
            }
        }
    }

    /// @notice End of the unbroken run of set epochs that starts with `from`, not beyond `to`; `from` when `to` is not
    /// behind it.
    function runEnd(Bitmap storage bitmap, uint256 from, uint256 to) internal view returns (uint256 end) {
        end = from;
        unchecked {
            while (end < to) {
                uint256 offset = end % SPAN;
                // Zeros move in from above, so a run never seems to leave its word.
                uint256 ones = LibBit.ffs(~((bitmap.words[end / SPAN] & BITS) >> offset));
                end += ones;
                if (end > to) return to;
                if (offset + ones < SPAN) break;
            }
        }
    }

    /// @notice First epoch behind the `nth` set one in `[from, to)`; `from` for 0, `to` when fewer are set.
    function endOfNth(Bitmap storage bitmap, uint256 from, uint256 to, uint256 nth) internal view returns (uint256) {
        if (nth == 0) return from;
        unchecked {
            while (from < to) {
                uint256 start = from - from % SPAN;
                uint256 bits = (bitmap.words[from / SPAN] & BITS) >> (from - start);
                uint256 ones = LibBit.popCount(bits);
                if (ones >= nth) {
                    for (; nth > 1; --nth) {
                        bits &= bits - 1;
                    }
                    uint256 end = from + LibBit.ffs(bits) + 1;
                    return end < to ? end : to;
                }
                nth -= ones;
                from = start + SPAN;
            }
        }
        return to;
    }

    /// @dev Head of a word that gets its first bit: it goes on with the chain of the word before, or starts one.
    function _head(Bitmap storage bitmap, uint256 index) private view returns (uint256) {
        unchecked {
            uint256 previous = index == 0 ? 0 : bitmap.words[index - 1];
            if (previous == 0) return index << 224;
            return (previous & ~BITS) + (LibBit.popCount(previous & BITS) << 192);
        }
    }

    /// @dev Set epochs of the chain before the bit at `offset`, which is at most `SPAN`.
    function _countBefore(uint256 word, uint256 offset) private pure returns (uint256) {
        unchecked {
            // forge-lint: disable-next-line(incorrect-shift)
            return uint32(word >> 192) + LibBit.popCount(word & ((1 << offset) - 1));
        }
    }
}
