// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealState, EndCause} from "../types/Types.sol";

/// @dev What changes about a deal. The rest are its `Terms`.
struct Deal {
    uint64 locked;
    uint32 settledUntil;
    uint32 endEpoch;
    // First epoch of the gap while unfunded, else 0; epoch 0 can't be one because a deal starts after its match.
    uint32 unfundedSince;
    // First epoch since which the deal has been funded without a gap.
    uint32 fundedSince;
    // Data contract that holds the terms, and the deal's place in it.
    uint40 termsNumber;
    uint8 termsIndex;
    DealState state;
    EndCause cause;
}

/// @title DealWord
/// @notice A deal as one word of storage: read once, written once.
library DealWord {
    /// @notice The word of `item`.
    function pack(Deal memory item) internal pure returns (uint256 word) {
        word = item.locked;
        word = (word << 32) | item.settledUntil;
        word = (word << 32) | item.endEpoch;
        word = (word << 32) | item.unfundedSince;
        word = (word << 32) | item.fundedSince;
        word = (word << 40) | item.termsNumber;
        word = (word << 8) | item.termsIndex;
        word = (word << 8) | uint8(item.state);
        word = (word << 8) | uint8(item.cause);
    }

    /// @notice The deal of `word`; state `None` for 0.
    function unpack(uint256 word) internal pure returns (Deal memory item) {
        item.locked = uint64(word >> 192);
        item.settledUntil = uint32(word >> 160);
        item.endEpoch = uint32(word >> 128);
        item.unfundedSince = uint32(word >> 96);
        item.fundedSince = uint32(word >> 64);
        item.termsNumber = uint40(word >> 24);
        item.termsIndex = uint8(word >> 16);
        item.state = DealState(uint8(word >> 8));
        item.cause = EndCause(uint8(word));
    }
}
