// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DeveloperOffer, ProviderOffer} from "../types/Types.sol";

/// @title OfferEncoding
/// @notice Offers copied from calldata to memory as a whole, and written to the log from there.
/// @dev Decoding and encoding field by field costs some thousands of gas. `abi.encode` of an offer and the offer in memory
/// are the same words, but for the places of its lists and its text: relative in the one, absolute in the other. So one
/// copy serves for reading, hashing and logging, provided that the caller has encoded in the one order that all encoders
/// use, without gaps: whatever else comes is refused. Words that hold more than their type are left to `OfferRules`.
///
/// In memory: a box (one place, and where the offer stands), the number of bytes of `abi.encode(offer)`, its first word
/// (0x20), then the offer.
library OfferEncoding {
    /// @notice The caller has encoded an offer in another way than `abi.encode` does.
    error OfferNotCanonical();

    uint256 private constant WORD = 32;
    uint256 private constant PROVIDER_WORDS = 13;
    uint256 private constant DEVELOPER_WORDS = 19;

    /// @notice `offer` in memory.
    /// @return box One place with the offer in it: for a struct that is returned by itself, an empty one is made first.
    function load(ProviderOffer calldata offer) internal pure returns (ProviderOffer[] memory box) {
        uint256 start;
        uint256 size = PROVIDER_WORDS * WORD;
        bool isCanonical;
        assembly ("memory-safe") {
            start := offer
            isCanonical := eq(calldataload(add(start, 0x180)), size)
        }
        uint256 at;
        (at, isCanonical) = _copy(start, size, isCanonical);
        if (!isCanonical) revert OfferNotCanonical();
        _moveProviderPointer(at, at);
        assembly ("memory-safe") {
            box := sub(at, 0x80)
        }
    }

    /// @notice As above.
    function load(DeveloperOffer calldata offer) internal pure returns (DeveloperOffer[] memory box) {
        uint256 start;
        uint256 size = DEVELOPER_WORDS * WORD;
        bool isCanonical;
        assembly ("memory-safe") {
            start := offer
            // regions, allow, deny and artifactUrl, each behind the one before.
            isCanonical := eq(calldataload(add(start, 0xc0)), size)
            let length := calldataload(add(start, size))
            let lengths := length
            size := add(add(size, 0x20), shl(5, length))
            isCanonical := and(isCanonical, eq(calldataload(add(start, 0x200)), size))
            length := calldataload(add(start, size))
            lengths := or(lengths, length)
            size := add(add(size, 0x20), shl(5, length))
            isCanonical := and(isCanonical, eq(calldataload(add(start, 0x220)), size))
            length := calldataload(add(start, size))
            lengths := or(lengths, length)
            size := add(add(size, 0x20), shl(5, length))
            isCanonical := and(isCanonical, eq(calldataload(add(start, 0x240)), size))
            // So that nothing has overflowed.
            isCanonical := and(isCanonical, iszero(shr(32, lengths)))
        }
        uint256 at;
        (at, isCanonical) = _copy(start, size, isCanonical);
        if (!isCanonical) revert OfferNotCanonical();
        _moveDeveloperPointers(at, at);
        assembly ("memory-safe") {
            box := sub(at, 0x80)
        }
    }

    /// @notice Logs a loaded offer: an event of two indexed words, the hash and the agent, whose data are the offer. Its text
    /// can't be read afterwards.
    function log(ProviderOffer memory loaded, bytes32 selector, bytes32 offerHash) internal {
        uint256 at;
        assembly ("memory-safe") {
            at := loaded
        }
        unchecked {
            _moveProviderPointer(at, 0 - at);
        }
        assembly ("memory-safe") {
            log3(sub(at, 0x20), mload(sub(at, 0x40)), selector, offerHash, mload(add(at, 0x20)))
        }
    }

    /// @notice Logs a loaded offer: an event of two indexed words, the hash and the developer, whose data are the offer. Its
    /// lists and its text can't be read afterwards.
    function log(DeveloperOffer memory loaded, bytes32 selector, bytes32 offerHash) internal {
        uint256 at;
        assembly ("memory-safe") {
            at := loaded
        }
        unchecked {
            _moveDeveloperPointers(at, 0 - at);
        }
        assembly ("memory-safe") {
            log3(sub(at, 0x20), mload(sub(at, 0x40)), selector, offerHash, mload(at))
        }
    }

    function _moveProviderPointer(uint256 at, uint256 by) private pure {
        assembly ("memory-safe") {
            let pointer := add(at, 0x180)
            mstore(pointer, add(mload(pointer), by))
        }
    }

    function _moveDeveloperPointers(uint256 at, uint256 by) private pure {
        assembly ("memory-safe") {
            let pointer := add(at, 0xc0)
            mstore(pointer, add(mload(pointer), by))
            pointer := add(at, 0x200)
            mstore(pointer, add(mload(pointer), by))
            pointer := add(at, 0x220)
            mstore(pointer, add(mload(pointer), by))
            pointer := add(at, 0x240)
            mstore(pointer, add(mload(pointer), by))
        }
    }

    /// @dev Copies an offer whose last part is a text, `size` bytes behind `start`.
    /// @return at Where it stands in memory, behind its box and the two words that `_log` needs.
    /// @return isGood Whether all of it is in calldata, and zeros fill the last word of the text. Nothing else is copied.
    function _copy(uint256 start, uint256 size, bool isCanonical) private pure returns (uint256 at, bool isGood) {
        assembly ("memory-safe") {
            let length := calldataload(add(start, size))
            isGood := and(isCanonical, iszero(shr(32, length)))
            length := and(length, 0xffffffff)
            let padded := and(add(length, 31), not(31))
            let textEnd := add(add(start, size), add(0x20, length))
            size := add(size, add(0x20, padded))
            isGood := and(isGood, iszero(gt(add(start, size), calldatasize())))
            // The text's last word without the text; all of a word is text where none is padded.
            let last := calldataload(sub(textEnd, and(length, 31)))
            if and(length, 31) { isGood := and(isGood, iszero(shl(shl(3, and(length, 31)), last))) }
            if isGood {
                let free := mload(0x40)
                at := add(free, 0x80)
                mstore(free, 1)
                mstore(add(free, 0x20), at)
                mstore(add(free, 0x40), add(size, 0x20))
                mstore(add(free, 0x60), 0x20)
                calldatacopy(at, start, size)
                mstore(0x40, add(at, size))
            }
        }
    }
}
