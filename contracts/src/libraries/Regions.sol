// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Region} from "../types/Types.sol";

/// @title Regions
/// @notice Places as prefixes: continent (2 bytes), country (2), site (1 to 4), padded with zero bytes.
library Regions {
    uint256 private constant LOW_BITS = 0x0101010101010101;
    uint256 private constant ALL_BUT_HIGH_BITS = 0x7f7f7f7f7f7f7f7f;
    /// @dev Padding of a place that is a continent, and of the two that are cut off in the middle of a part or before it.
    uint256 private constant CONTINENT_PADDING = 0xffffffffffff;
    uint256 private constant HALF_COUNTRY_PADDING = 0xffffffffff;
    uint256 private constant COUNTRY_PADDING = 0xffffffff;

    /// @notice Whether `region` names at least a continent, its parts are complete and nothing stands behind the
    /// padding. Which letters are used is not looked at: they are compared, never interpreted.
    function isWellFormed(Region region) internal pure returns (bool) {
        uint256 padding = _zeroBytes(region);
        return _isAtTheEnd(padding) && padding <= CONTINENT_PADDING && padding != HALF_COUNTRY_PADDING;
    }

    /// @notice Whether `region` names a continent and a country, as the place of a machine must.
    function namesCountry(Region region) internal pure returns (bool) {
        uint256 padding = _zeroBytes(region);
        return _isAtTheEnd(padding) && padding <= COUNTRY_PADDING;
    }

    /// @notice Whether `place` lies in `region`. Both must be well formed.
    function contains(Region region, Region place) internal pure returns (bool) {
        uint256 difference = uint64(Region.unwrap(region) ^ Region.unwrap(place));
        return difference & ~_zeroBytes(region) == 0;
    }

    /// @dev 0xff in place of each zero byte of `region`, and 0 in place of the others.
    function _zeroBytes(Region region) private pure returns (uint256) {
        unchecked {
            uint256 text = uint64(Region.unwrap(region));
            // The high bit of each byte that is not zero: no sum leaves its byte.
            uint256 named = ((text & ALL_BUT_HIGH_BITS) + ALL_BUT_HIGH_BITS) | text;
            return (~(named >> 7) & LOW_BITS) * 0xff;
        }
    }

    function _isAtTheEnd(uint256 padding) private pure returns (bool) {
        unchecked {
            return padding & (padding + 1) == 0;
        }
    }
}
