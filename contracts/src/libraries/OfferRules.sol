// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DeveloperOffer, ProviderOffer, Region} from "../types/Types.sol";
import {Regions} from "./Regions.sol";

/// @title OfferRules
/// @notice What can be said of offers by looking at them alone.
library OfferRules {
    using Regions for Region;

    uint256 internal constant MAX_REGIONS = 16;
    uint256 internal constant MAX_LISTED_PROVIDERS = 32;
    uint256 internal constant MAX_REPLICAS = 100;
    uint256 internal constant MAX_URL_BYTES = 512;
    /// @dev Capacity stays below 2^30 milli-CPU and MiB, a replica's size below 2^20, its price below 2^48 and the
    /// epochs locked ahead below 2^16: what the words of storage have room for.
    uint256 private constant CAPACITY_BITS = 30;
    uint256 private constant SIZE_BITS = 20;
    uint256 private constant PRICE_BITS = 48;
    uint256 private constant PREPAID_BITS = 16;
    uint256 private constant UNIT_PRICE_BITS = 63;

    /// @notice Whether a field of the provider offer is outside of its limits or of its type.
    /// @dev Here and below every field is looked at, without a branch between them: that costs a third. The words are as
    /// the caller sent them.
    function isMalformed(ProviderOffer memory offer) internal pure returns (bool) {
        uint256 bad;
        assembly ("memory-safe") {
            let milliCpu := mload(add(offer, 0x80))
            let memoryMib := mload(add(offer, 0xa0))
            let provider := mload(offer)
            let agent := mload(add(offer, 0x20))
            let payout := mload(add(offer, 0x40))
            bad := or(iszero(provider), or(iszero(agent), iszero(payout)))
            bad := or(bad, shr(160, or(provider, or(agent, payout))))
            // The region fills the first 64 bits.
            bad := or(bad, shl(64, mload(add(offer, 0x60))))
            // maxEpochs; features, validUntil, nonce
            bad := or(bad, shr(32, mload(add(offer, 0x120))))
            bad := or(bad, shr(64, or(mload(add(offer, 0xc0)), or(mload(add(offer, 0x140)), mload(add(offer, 0x160))))))
            bad := or(bad, or(iszero(milliCpu), iszero(memoryMib)))
            bad := or(bad, shr(CAPACITY_BITS, or(milliCpu, memoryMib)))
            // pricePerVcpuEpoch, pricePerGibEpoch
            bad := or(bad, shr(UNIT_PRICE_BITS, or(mload(add(offer, 0xe0)), mload(add(offer, 0x100)))))
            // endpoint
            bad := or(bad, gt(mload(mload(add(offer, 0x180))), MAX_URL_BYTES))
        }
        return bad != 0 || !offer.region.namesCountry();
    }

    /// @notice Whether a field of the developer offer is outside of its limits or of its type.
    function isMalformed(DeveloperOffer memory offer, uint256 minPrepaidEpochs) internal pure returns (bool) {
        uint256 bad;
        assembly ("memory-safe") {
            let milliCpu := mload(add(offer, 0x60))
            let memoryMib := mload(add(offer, 0x80))
            let developer := mload(offer)
            // artifact
            bad := or(iszero(developer), iszero(mload(add(offer, 0x20))))
            // matcher; features, validUntil, nonce, matcherFee
            bad := or(bad, shr(160, or(developer, mload(add(offer, 0x1c0)))))
            let wide := or(mload(add(offer, 0x180)), or(mload(add(offer, 0x1a0)), mload(add(offer, 0x1e0))))
            bad := or(bad, shr(64, or(wide, mload(add(offer, 0xa0)))))
            bad := or(bad, or(iszero(milliCpu), iszero(memoryMib)))
            bad := or(bad, shr(SIZE_BITS, or(milliCpu, memoryMib)))
            let minReplicas := mload(add(offer, 0xe0))
            let replicas := mload(add(offer, 0x100))
            bad := or(bad, or(iszero(minReplicas), gt(minReplicas, replicas)))
            bad := or(bad, gt(replicas, MAX_REPLICAS))
            // maxPricePerEpoch
            bad := or(bad, shr(PRICE_BITS, mload(add(offer, 0x120))))
            let epochs := mload(add(offer, 0x140))
            let prepaidEpochs := mload(add(offer, 0x160))
            bad := or(bad, or(iszero(epochs), or(shr(32, epochs), shr(PREPAID_BITS, prepaidEpochs))))
            bad := or(bad, and(lt(prepaidEpochs, minPrepaidEpochs), lt(prepaidEpochs, epochs)))
            // regions, allow, deny, artifactUrl
            bad := or(bad, gt(mload(mload(add(offer, 0xc0))), MAX_REGIONS))
            bad := or(bad, gt(mload(mload(add(offer, 0x200))), MAX_LISTED_PROVIDERS))
            bad := or(bad, gt(mload(mload(add(offer, 0x220))), MAX_LISTED_PROVIDERS))
            bad := or(bad, gt(mload(mload(add(offer, 0x240))), MAX_URL_BYTES))
        }
        if (bad != 0) return true;
        for (uint256 i = 0; i < offer.regions.length; ++i) {
            if (!offer.regions[i].isWellFormed()) return true;
        }
        return _hasExcess(offer);
    }

    /// @dev Whether an element of a list has bits outside of its type. The lengths are within their limits.
    function _hasExcess(DeveloperOffer memory offer) private pure returns (bool) {
        uint256 excess;
        assembly ("memory-safe") {
            let element := mload(add(offer, 0xc0))
            let end := add(element, shl(5, mload(element)))
            for {} lt(element, end) {} {
                element := add(element, 0x20)
                excess := or(excess, shl(64, mload(element)))
            }
            element := mload(add(offer, 0x200))
            end := add(element, shl(5, mload(element)))
            for {} lt(element, end) {} {
                element := add(element, 0x20)
                excess := or(excess, shr(160, mload(element)))
            }
            element := mload(add(offer, 0x220))
            end := add(element, shl(5, mload(element)))
            for {} lt(element, end) {} {
                element := add(element, 0x20)
                excess := or(excess, shr(160, mload(element)))
            }
        }
        return excess != 0;
    }

    /// @notice Whether a replica can have this size.
    function isSize(uint256 milliCpu, uint256 memoryMib) internal pure returns (bool) {
        return milliCpu != 0 && memoryMib != 0 && (milliCpu | memoryMib) >> SIZE_BITS == 0;
    }

    /// @notice Whether a replica can cost this much per epoch.
    function isPrice(uint256 price) internal pure returns (bool) {
        return price >> PRICE_BITS == 0;
    }

    /// @notice Whether the developer offer names the providers that it wants, and not this one.
    function isNotAllowed(DeveloperOffer memory wanted, address provider) internal pure returns (bool) {
        return wanted.allow.length != 0 && !_lists(wanted.allow, provider);
    }

    /// @notice Whether the developer offer does not want this provider.
    function isDenied(DeveloperOffer memory wanted, address provider) internal pure returns (bool) {
        return wanted.deny.length != 0 && _lists(wanted.deny, provider);
    }

    /// @notice Whether the provider stands in one of the wanted places.
    function regionFits(DeveloperOffer memory wanted, ProviderOffer memory offered) internal pure returns (bool) {
        if (wanted.regions.length == 0) return true;
        for (uint256 i = 0; i < wanted.regions.length; ++i) {
            if (wanted.regions[i].contains(offered.region)) return true;
        }
        return false;
    }

    /// @notice Price of one replica of the given size for one epoch, rounded down.
    function ask(ProviderOffer memory offer, uint256 milliCpu, uint256 memoryMib) internal pure returns (uint256) {
        // 96 bits of amount and price and 10 of factor: no sum comes near 256 bits.
        unchecked {
            uint256 cpuPart = milliCpu * offer.pricePerVcpuEpoch * 1024;
            uint256 memoryPart = memoryMib * offer.pricePerGibEpoch * 1000;
            return (cpuPart + memoryPart) / 1_024_000;
        }
    }

    function _lists(address[] memory list, address account) private pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == account) return true;
        }
        return false;
    }
}
