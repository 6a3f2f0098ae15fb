// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {LibBit} from "solady/utils/LibBit.sol";
import {Region} from "../types/Types.sol";

/// @title Regions
/// @notice Places as prefixes: continent (2 bytes), country (2), site (1 to 4), padded with zero bytes.
library Regions {
    uint256 private constant CONTINENT_BYTES = 2;
    uint256 private constant COUNTRY_BYTES = 4;
    uint64 private constant LOW_BITS = 0x0101010101010101;
    uint64 private constant HIGH_BITS = 0x8080808080808080;

    /// @notice Whether `region` names at least a continent, its parts are complete and nothing stands behind the
    /// padding. Which letters are used is not looked at: they are compared, never interpreted.
    function isWellFormed(Region region) internal pure returns (bool) {
        return _isWellFormed(region, lengthOf(region));
    }

    /// @notice Whether `region` names a continent and a country, as the place of a machine must.
    function namesCountry(Region region) internal pure returns (bool) {
        uint256 length = lengthOf(region);
        return length >= COUNTRY_BYTES && _isWellFormed(region, length);
    }

    /// @notice Whether `place` lies in `region`. Both must be well formed.
    function contains(Region region, Region place) internal pure returns (bool) {
        unchecked {
            uint256 unnamedBits = (8 - lengthOf(region)) * 8;
            return (Region.unwrap(region) ^ Region.unwrap(place)) >> unnamedBits == 0;
        }
    }

    /// @notice Bytes up to the last one that is not zero.
    function lengthOf(Region region) internal pure returns (uint256) {
        uint256 text = uint64(Region.unwrap(region));
        if (text == 0) return 0;
        unchecked {
            return 8 - LibBit.ffs(text) / 8;
        }
    }

    function _isWellFormed(Region region, uint256 length) private pure returns (bool) {
        if (length < CONTINENT_BYTES || length == CONTINENT_BYTES + 1) return false;
        unchecked {
            // Padding filled up, a zero byte is one that borrows when 1 is taken from it and had no high bit to lend.
            uint64 text = uint64(Region.unwrap(region)) | uint64(type(uint256).max >> (192 + length * 8));
            return (text - LOW_BITS) & ~text & HIGH_BITS == 0;
        }
    }
}
