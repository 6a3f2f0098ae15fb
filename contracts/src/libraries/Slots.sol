// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealId} from "../types/Types.sol";

/// @dev Place of a word in storage.
type Slot is uint256;

/// @title Slots
/// @notice Places of words of mappings, so that a word that is read and later written is looked up once.
library Slots {
    function at(mapping(address => uint256) storage words, address key) internal pure returns (Slot slot) {
        return _at(uint160(key), _slotOf(words));
    }

    function at(mapping(bytes32 => uint256) storage words, bytes32 key) internal pure returns (Slot slot) {
        return _at(uint256(key), _slotOf(words));
    }

    function at(mapping(DealId => uint256) storage words, DealId key) internal pure returns (Slot slot) {
        return _at(uint256(DealId.unwrap(key)), _slotOf(words));
    }

    function read(Slot slot) internal view returns (uint256 word) {
        assembly ("memory-safe") {
            word := sload(slot)
        }
    }

    function write(Slot slot, uint256 word) internal {
        assembly ("memory-safe") {
            sstore(slot, word)
        }
    }

    function _slotOf(mapping(address => uint256) storage words) private pure returns (uint256 slot) {
        assembly ("memory-safe") {
            slot := words.slot
        }
    }

    function _slotOf(mapping(bytes32 => uint256) storage words) private pure returns (uint256 slot) {
        assembly ("memory-safe") {
            slot := words.slot
        }
    }

    function _slotOf(mapping(DealId => uint256) storage words) private pure returns (uint256 slot) {
        assembly ("memory-safe") {
            slot := words.slot
        }
    }

    /// @dev Where Solidity keeps the value of `key` in the mapping at `slot`.
    function _at(uint256 key, uint256 slot) private pure returns (Slot place) {
        assembly ("memory-safe") {
            mstore(0, key)
            mstore(0x20, slot)
            place := keccak256(0, 0x40)
        }
    }
}
