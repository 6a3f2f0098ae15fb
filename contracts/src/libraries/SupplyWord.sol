// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title SupplyWord
/// @notice What the chain keeps of a provider offer, as one word of storage.
/// @dev From above: agent 160, used milli-CPU 30, used MiB 30, number 33 (given at the offer's first match, from 1 on), and
/// the marks below. The limits of `OfferRules` make every value fit.
library SupplyWord {
    /// @dev Posted or matched: its signature need not be looked at again.
    uint256 internal constant KNOWN = 4;
    uint256 internal constant CANCELLED = 2;
    /// @dev Payments go to another account than the provider's.
    uint256 internal constant PAYOUT = 1;

    uint256 private constant NUMBER_MASK = (1 << 33) - 1;
    uint256 private constant USED_MASK = (1 << 30) - 1;

    /// @notice The word of an offer that was never matched.
    function opened(address agent_, bool hasPayout) internal pure returns (uint256 word) {
        return (uint256(uint160(agent_)) << 96) | KNOWN | (hasPayout ? PAYOUT : 0);
    }

    /// @notice `word` with its number.
    function numbered(uint256 word, uint256 number_) internal pure returns (uint256) {
        return word | (number_ << 3);
    }

    /// @notice `word` with more capacity in use.
    function reserve(uint256 word, uint256 milliCpu, uint256 memoryMib) internal pure returns (uint256) {
        unchecked {
            return word + (milliCpu << 66) + (memoryMib << 36);
        }
    }

    /// @notice `word` with less capacity in use, which it must have.
    function release(uint256 word, uint256 milliCpu, uint256 memoryMib) internal pure returns (uint256) {
        unchecked {
            return word - (milliCpu << 66) - (memoryMib << 36);
        }
    }

    function agent(uint256 word) internal pure returns (address) {
        return address(uint160(word >> 96));
    }

    function usedMilliCpu(uint256 word) internal pure returns (uint256) {
        return (word >> 66) & USED_MASK;
    }

    function usedMemoryMib(uint256 word) internal pure returns (uint256) {
        return (word >> 36) & USED_MASK;
    }

    function number(uint256 word) internal pure returns (uint256) {
        return (word >> 3) & NUMBER_MASK;
    }
}
