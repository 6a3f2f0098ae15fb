// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealState, EndCause} from "../types/Types.sol";

/// @dev What changes about a deal, and what binds it to the offers that it was made of.
struct Deal {
    uint256 locked;
    uint256 settledUntil;
    uint256 endEpoch;
    // First epoch of the gap while unfunded, else 0; epoch 0 can't be one because a deal starts after its match.
    uint256 unfundedSince;
    uint256 price;
    // Number of the provider offer: short, and no two offers share one.
    uint256 offerNumber;
    // Settled epochs since the deal was last without money, up to 255.
    uint256 fundedFor;
    DealState state;
    EndCause cause;
    // Whether there is a `Change` of this deal.
    bool isChanged;
}

/// @title DealWord
/// @notice A deal as one word of storage: read once, written once.
/// @dev From above: locked 64, settledUntil 32, endEpoch 32, unfundedSince 32, price 48, offerNumber 33, fundedFor 8,
/// state 2, cause 3, isChanged 1. The limits of `OfferRules` make every value fit.
library DealWord {
    uint256 internal constant MAX_FUNDED_FOR = 255;
    /// @dev unfundedSince, offerNumber and isChanged.
    uint256 internal constant PLAIN = (0xffffffff << 95) | (0x1ffffffff << 14) | 1;
    /// @dev All but locked, settledUntil and fundedFor.
    uint256 private constant UNSETTLED = ((1 << 159) - 1) ^ (0xff << 6);

    /// @notice The word of a deal that starts.
    function opened(uint256 lock, uint256 start, uint256 end, uint256 ask, uint256 offerNumber)
        internal
        pure
        returns (uint256 word)
    {
        word = (lock << 191) | (start << 159) | (end << 127);
        word |= (ask << 47) | (offerNumber << 14) | (uint256(DealState.Active) << 4);
    }

    /// @notice What `word & PLAIN` is for a deal that did not run out of money and was never changed, under the provider
    /// offer of this number.
    function plain(uint256 offerNumber) internal pure returns (uint256) {
        return offerNumber << 14;
    }

    /// @notice Whether the deal of `word` was opened and has not ended.
    function isOpen(uint256 word) internal pure returns (bool) {
        // Of the two bits of `state`, `Active` and `Ending` have one each.
        return ((word >> 4) ^ (word >> 5)) & 1 == 1;
    }

    /// @notice `word` with another lock, settled until another epoch.
    function settled(uint256 word, uint256 lock, uint256 until) internal pure returns (uint256) {
        unchecked {
            uint256 fundedFor = ((word >> 6) & 0xff) + until - settledUntil(word);
            if (fundedFor > MAX_FUNDED_FOR) fundedFor = MAX_FUNDED_FOR;
            return (word & UNSETTLED) | (lock << 191) | (until << 159) | (fundedFor << 6);
        }
    }

    /// @notice The word of `item`.
    function pack(Deal memory item) internal pure returns (uint256 word) {
        word = item.locked;
        word = (word << 32) | item.settledUntil;
        word = (word << 32) | item.endEpoch;
        word = (word << 32) | item.unfundedSince;
        word = (word << 48) | item.price;
        word = (word << 33) | item.offerNumber;
        word = (word << 8) | item.fundedFor;
        word = (word << 2) | uint256(item.state);
        word = (word << 3) | uint256(item.cause);
        word = (word << 1) | (item.isChanged ? 1 : 0);
    }

    /// @notice Reads `word` into `item`; state `None` for 0.
    function unpack(uint256 word, Deal memory item) internal pure {
        item.locked = word >> 191;
        item.settledUntil = uint32(word >> 159);
        item.endEpoch = uint32(word >> 127);
        item.unfundedSince = uint32(word >> 95);
        item.price = uint48(word >> 47);
        item.offerNumber = (word >> 14) & 0x1ffffffff;
        item.fundedFor = uint8(word >> 6);
        item.state = DealState((word >> 4) & 3);
        item.cause = EndCause((word >> 1) & 7);
        item.isChanged = word & 1 == 1;
    }

    function locked(uint256 word) internal pure returns (uint256) {
        return word >> 191;
    }

    function settledUntil(uint256 word) internal pure returns (uint256) {
        return (word >> 159) & 0xffffffff;
    }

    function endEpoch(uint256 word) internal pure returns (uint256) {
        return (word >> 127) & 0xffffffff;
    }

    function price(uint256 word) internal pure returns (uint256) {
        return (word >> 47) & 0xffffffffffff;
    }
}
