// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {OfferRules} from "../../src/libraries/OfferRules.sol";
import {Regions} from "../../src/libraries/Regions.sol";
import {ProviderOffer, Region} from "../../src/types/Types.sol";
import {Proof} from "./Proof.sol";

/// @notice Places and prices.
/// @custom:halmos --panic-error-codes *
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

    /// @dev For all sizes and unit prices within the limits: no product or sum is too large, and it is the exact sum that
    /// is divided.
    function check_AskDividesTheExactSum(uint64[2] memory prices, uint32[2] memory sizes) public pure {
        vm.assume(prices[0] < 1 << 63 && prices[1] < 1 << 63 && sizes[0] < 1 << 20 && sizes[1] < 1 << 20);
        ProviderOffer memory offer;
        offer.pricePerVcpuEpoch = prices[0];
        offer.pricePerGibEpoch = prices[1];
        unchecked {
            uint256 cpu = uint256(sizes[0]) * offer.pricePerVcpuEpoch;
            uint256 memory_ = uint256(sizes[1]) * offer.pricePerGibEpoch;
            assert(cpu >> 83 == 0 && memory_ >> 83 == 0);
            assert(OfferRules.ask(offer, sizes[0], sizes[1]) == (cpu * 1024 + memory_ * 1000) / 1_024_000);
        }
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
