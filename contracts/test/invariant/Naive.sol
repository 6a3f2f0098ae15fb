// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealState, DealView, DeveloperOffer, Epoch, ProviderOffer, Region} from "../../src/types/Types.sol";

/// @dev The rules said again in the plainest way, epoch by epoch and letter by letter, sharing no code with the market.
library Naive {
    /// @dev What an epoch costs from this one on.
    struct Price {
        uint256 from;
        uint256 price;
    }

    function priceAt(Price[] storage prices, uint256 epoch) internal view returns (uint256) {
        uint256 last = prices.length - 1;
        while (prices[last].from > epoch) --last;
        return prices[last].price;
    }

    /// @dev As the deal itself shows it: it remembers one price before the present one.
    function priceAt(DealView memory item, uint256 epoch) internal pure returns (uint256) {
        bool isOld = item.changes != 0 && epoch < Epoch.unwrap(item.priceFrom);
        return isOld ? item.oldPricePerEpoch : item.pricePerEpoch;
    }

    /// @dev Walks on from what is settled while the lock pays one more epoch; a gap ends the walk.
    function paidUntil(DealView memory item) internal pure returns (Epoch) {
        uint256 end = Epoch.unwrap(item.endEpoch);
        uint256 gap = Epoch.unwrap(item.unfundedSince);
        if (gap != 0) return Epoch.wrap(uint32(gap < end ? gap : end));
        uint256 left = item.locked;
        uint256 epoch = Epoch.unwrap(item.settledUntil);
        while (epoch < end && left >= priceAt(item, epoch)) {
            left -= priceAt(item, epoch);
            ++epoch;
        }
        return Epoch.wrap(uint32(epoch));
    }

    /// @dev Price of the epochs in `[from, to)`.
    function cost(DealView memory item, uint256 from, uint256 to) internal pure returns (uint256 sum) {
        for (uint256 epoch = from; epoch < to; ++epoch) {
            sum += priceAt(item, epoch);
        }
    }

    /// @dev What one epoch costs exactly, in 1,024,000ths of an atom.
    function exactAsk(ProviderOffer memory offered, uint256 milliCpu, uint256 memoryMib)
        internal
        pure
        returns (uint256)
    {
        return milliCpu * offered.pricePerVcpuEpoch * 1024 + memoryMib * offered.pricePerGibEpoch * 1000;
    }

    /// @dev Whether a deal that was just opened is one that both offers ask for.
    function fits(DeveloperOffer memory wanted, ProviderOffer memory offered, DealView memory item)
        internal
        pure
        returns (bool)
    {
        uint256 price = item.pricePerEpoch;
        if (price != exactAsk(offered, wanted.milliCpu, wanted.memoryMib) / 1_024_000) return false;
        if (price > wanted.maxPricePerEpoch) return false;
        for (uint256 bit = 0; bit < 64; ++bit) {
            bool isWanted = (wanted.features >> bit) & 1 == 1;
            if (isWanted && (offered.features >> bit) & 1 == 0) return false;
        }
        uint256 epochs = Epoch.unwrap(item.endEpoch) - Epoch.unwrap(item.settledUntil);
        if (epochs == 0 || epochs > wanted.epochs) return false;
        if (offered.maxEpochs != 0 && epochs > offered.maxEpochs) return false;
        uint256 prepaid = wanted.prepaidEpochs < epochs ? wanted.prepaidEpochs : epochs;
        if (item.locked != prepaid * price) return false;
        if (wanted.allow.length != 0 && !lists(wanted.allow, item.provider)) return false;
        if (lists(wanted.deny, item.provider)) return false;
        return standsIn(wanted.regions, offered.region);
    }

    function lists(address[] memory list, address account) internal pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == account) return true;
        }
        return false;
    }

    function standsIn(Region[] memory regions, Region place) internal pure returns (bool) {
        if (regions.length == 0) return true;
        for (uint256 i = 0; i < regions.length; ++i) {
            if (isPrefix(Region.unwrap(regions[i]), Region.unwrap(place))) return true;
        }
        return false;
    }

    function isPrefix(bytes8 prefix, bytes8 text) internal pure returns (bool) {
        for (uint256 i = 0; i < 8; ++i) {
            if (prefix[i] != 0 && prefix[i] != text[i]) return false;
        }
        return true;
    }

    /// @dev Whether the deal was opened and has not ended.
    function isOpen(DealView memory item) internal pure returns (bool) {
        return item.state == DealState.Active || item.state == DealState.Ending;
    }
}
