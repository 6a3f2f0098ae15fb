// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DeveloperOffer, ProviderOffer, Reason, Region} from "../types/Types.sol";
import {Regions} from "./Regions.sol";

/// @title OfferRules
/// @notice What can be said of offers by looking at them alone.
library OfferRules {
    using Regions for Region;

    uint256 internal constant MAX_REGIONS = 16;
    uint256 internal constant MAX_LISTED_PROVIDERS = 32;
    uint256 internal constant MAX_REPLICAS = 100;
    uint256 internal constant MAX_URL_BYTES = 512;

    /// @notice Whether a field of the provider offer is outside of its limits.
    function isMalformed(ProviderOffer calldata offer) internal pure returns (bool) {
        return offer.provider == address(0) || offer.agent == address(0) || offer.payout == address(0)
            || offer.milliCpu == 0 || offer.memoryMib == 0 || bytes(offer.endpoint).length > MAX_URL_BYTES
            || !offer.region.namesCountry();
    }

    /// @notice Whether a field of the developer offer is outside of its limits.
    function isMalformed(DeveloperOffer calldata offer, uint256 minPrepaidEpochs) internal pure returns (bool) {
        if (offer.developer == address(0) || offer.artifact == 0 || offer.milliCpu == 0 || offer.memoryMib == 0) {
            return true;
        }
        if (offer.minReplicas == 0 || offer.minReplicas > offer.replicas || offer.replicas > MAX_REPLICAS) return true;
        uint256 leastPrepaid = offer.epochs < minPrepaidEpochs ? offer.epochs : minPrepaidEpochs;
        if (offer.epochs == 0 || offer.prepaidEpochs < leastPrepaid) return true;
        if (offer.allow.length > MAX_LISTED_PROVIDERS || offer.deny.length > MAX_LISTED_PROVIDERS) return true;
        if (offer.regions.length > MAX_REGIONS || bytes(offer.artifactUrl).length > MAX_URL_BYTES) return true;
        for (uint256 i = 0; i < offer.regions.length; ++i) {
            if (!offer.regions[i].isWellFormed()) return true;
        }
        return false;
    }

    /// @notice Whether the lists of the developer offer speak against the provider.
    function listed(DeveloperOffer calldata wanted, ProviderOffer calldata offered) internal pure returns (Reason) {
        if (wanted.allow.length != 0 && !_lists(wanted.allow, offered.provider)) return Reason.ProviderNotAllowed;
        if (_lists(wanted.deny, offered.provider)) return Reason.ProviderDenied;
        return Reason.None;
    }

    /// @notice Whether the provider stands in one of the wanted places.
    function regionFits(DeveloperOffer calldata wanted, ProviderOffer calldata offered) internal pure returns (bool) {
        if (wanted.regions.length == 0) return true;
        for (uint256 i = 0; i < wanted.regions.length; ++i) {
            if (wanted.regions[i].contains(offered.region)) return true;
        }
        return false;
    }

    /// @notice Price of one replica of the given size for one epoch, rounded down.
    function ask(ProviderOffer calldata offer, uint256 milliCpu, uint256 memoryMib) internal pure returns (uint256) {
        // 96 bits of amount and price and 10 of factor: no sum comes near 256 bits.
        unchecked {
            uint256 cpuPart = milliCpu * offer.pricePerVcpuEpoch * 1024;
            uint256 memoryPart = memoryMib * offer.pricePerGibEpoch * 1000;
            return (cpuPart + memoryPart) / 1_024_000;
        }
    }

    function _lists(address[] calldata list, address account) private pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == account) return true;
        }
        return false;
    }
}
