// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title DemandWord
/// @notice What the chain keeps of a developer offer, as one word of storage; 0 while it does not know the offer.
/// @dev From above: developer 160, prepaidEpochs 16, milliCpu 20, memoryMib 20, cancelled 1, liveReplicas 7, endEpoch 32.
/// The limits of `OfferRules` make every value fit.
library DemandWord {
    uint256 internal constant CANCELLED = 1 << 39;
    uint256 internal constant ONE_REPLICA = 1 << 32;

    /// @notice The word of an offer that was never matched.
    function opened(address owner, uint256 prepaid, uint256 cpu, uint256 memory_) internal pure returns (uint256 word) {
        word = uint160(owner);
        word = (word << 16) | prepaid;
        word = (word << 20) | cpu;
        word = (word << 20) | memory_;
        word <<= 40;
    }

    /// @notice `word` with other replicas and another end.
    function placed(uint256 word, uint256 replicas, uint256 end) internal pure returns (uint256) {
        return (word >> 40 << 40) | (replicas << 32) | end;
    }

    function developer(uint256 word) internal pure returns (address) {
        return address(uint160(word >> 96));
    }

    function prepaidEpochs(uint256 word) internal pure returns (uint256) {
        return (word >> 80) & 0xffff;
    }

    function milliCpu(uint256 word) internal pure returns (uint256) {
        return (word >> 60) & 0xfffff;
    }

    function memoryMib(uint256 word) internal pure returns (uint256) {
        return (word >> 40) & 0xfffff;
    }

    function liveReplicas(uint256 word) internal pure returns (uint256) {
        return (word >> 32) & 0x7f;
    }

    function endEpoch(uint256 word) internal pure returns (uint256) {
        return word & 0xffffffff;
    }
}
