// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Regions} from "../../src/libraries/Regions.sol";
import {Region} from "../../src/types/Types.sol";
import {Proof} from "./Proof.sol";

/// @notice Places.
contract RulesProof is Proof {
    using Regions for Region;

    /// @custom:halmos --loop 8
    function check_WellFormedIsThatOfALoop(bytes8 text) public pure {
        (uint256 length, bool isPadded) = _lengthOf(text);
        Region region = Region.wrap(text);
        assert(region.isWellFormed() == (isPadded && (length == 2 || length >= 4)));
        assert(region.namesCountry() == (isPadded && length >= 4));
    }

    /// @custom:halmos --loop 8
    function check_ContainsIsThatOfALoop(bytes8 region, bytes8 place) public pure {
        vm.assume(Region.wrap(region).isWellFormed() && Region.wrap(place).isWellFormed());
        bool expected = true;
        for (uint256 i = 0; i < 8; ++i) {
            uint256 wanted = _byteOf(region, i);
            expected = expected && (wanted == 0 || wanted == _byteOf(place, i));
        }
        assert(Region.wrap(region).contains(Region.wrap(place)) == expected);
    }

    /// @dev Bytes before the first zero, and whether only zeros follow.
    function _lengthOf(bytes8 text) private pure returns (uint256 length, bool isPadded) {
        isPadded = true;
        bool isText = true;
        for (uint256 i = 0; i < 8; ++i) {
            uint256 letter = _byteOf(text, i);
            if (letter == 0) isText = false;
            else if (isText) ++length;
            else isPadded = false;
        }
    }

    function _byteOf(bytes8 text, uint256 i) private pure returns (uint256) {
        return (uint64(text) >> (56 - 8 * i)) & 0xff;
    }
}
