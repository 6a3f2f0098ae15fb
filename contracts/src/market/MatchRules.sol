// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {OfferEncoding} from "../libraries/OfferEncoding.sol";
import {OfferHashing} from "../libraries/OfferHashing.sol";
import {OfferRules} from "../libraries/OfferRules.sol";
import {Slot, Slots} from "../libraries/Slots.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {DealId, DeveloperOffer, OfferHash, ProviderOffer, Reason} from "../types/Types.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title MatchRules
/// @notice The one predicate of matching: why a replica of a developer offer can't be placed under a provider offer.
/// @dev Of an offer only what changes and what deals need is kept, in one word each; the rest comes with every match and
/// is held by the offer's hash.
abstract contract MatchRules is MarketBase {
    using DemandWord for uint256;
    using Slots for Slot;
    using Slots for mapping(address => uint256);
    using Slots for mapping(bytes32 => uint256);
    using Slots for mapping(DealId => uint256);
    using OfferEncoding for DeveloperOffer;
    using OfferEncoding for ProviderOffer;
    using OfferHashing for DeveloperOffer;
    using OfferHashing for ProviderOffer;
    using OfferRules for DeveloperOffer;
    using OfferRules for ProviderOffer;
    using SupplyWord for uint256;

    /// @dev A developer offer during its match.
    struct DemandSide {
        bytes32 offerHash;
        bool isKnown;
        // What is, or would be, kept of the offer.
        uint256 word;
        uint256 startEpoch;
        uint256 endEpoch;
        // The developer's account.
        uint256 owner;
        // Where `word` and `owner` are stored.
        Slot slot;
        Slot ownerSlot;
        // Replicas found so far, and what they take of the developer's free balance.
        uint256 placed;
        // A bit for the last byte of each of their providers.
        uint256 providers;
        uint256 committed;
        uint256 committedBonds;
    }

    /// @dev A provider offer during a match, and the replica that it would host.
    struct SupplySide {
        bytes32 offerHash;
        // What is kept of the offer.
        uint256 word;
        address provider;
        // The provider's account.
        uint256 owner;
        // Where `word` and `owner` are stored, and where the deal will be.
        Slot slot;
        Slot ownerSlot;
        Slot dealSlot;
        // Of the replica that it would host.
        DealId dealId;
        uint256 price;
        uint256 lock;
        uint256 bond;
    }

    /// @dev What is signed (EIP-712). The domain separator is the same for all offers of a call.
    function _digest(bytes32 domain, bytes32 structHash) private pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            mstore(0, 0x1901)
            mstore(0x20, domain)
            let free := mload(0x40)
            mstore(0x40, structHash)
            digest := keccak256(0x1e, 0x42)
            mstore(0x40, free)
        }
    }

    /// @dev Fills in `side`, which is empty.
    function _readDemand(bytes32 domain, DeveloperOffer memory wanted, DemandSide memory side) internal view {
        side.offerHash = _digest(domain, wanted.structHash());
        side.slot = _demands.at(side.offerHash);
        uint256 word = side.slot.read();
        side.ownerSlot = _accounts.at(wanted.developer);
        side.owner = side.ownerSlot.read();
        unchecked {
            side.startEpoch = _currentEpoch() + 1;
            side.isKnown = word != 0;
            if (!side.isKnown) {
                // Whatever does not fit is refused as malformed.
                word = DemandWord.opened(
                    wanted.developer,
                    uint16(wanted.prepaidEpochs),
                    wanted.milliCpu & 0xfffff,
                    wanted.memoryMib & 0xfffff
                );
            }
            side.word = word;
            uint256 end = word.endEpoch();
            side.endEpoch = end != 0 ? end : FixedPointMathLib.min(side.startEpoch + wanted.epochs, type(uint32).max);
        }
    }

    /// @dev Fills in `side`, which is empty.
    function _readSupply(bytes32 domain, ProviderOffer memory offered, SupplySide memory side) internal view {
        address provider = offered.provider;
        side.offerHash = _digest(domain, offered.structHash());
        side.slot = _supplies[provider].at(side.offerHash);
        side.word = side.slot.read();
        side.provider = provider;
        side.ownerSlot = _accounts.at(provider);
        side.owner = side.ownerSlot.read();
    }

    /// @dev Why the developer offer can't be matched at all.
    function _refuseDemand(DeveloperOffer memory wanted, DemandSide memory side) internal view returns (Reason) {
        // An offer that the chain knows was looked at before.
        if (!side.isKnown && wanted.isMalformed(MIN_PREPAID_EPOCHS)) return Reason.DeveloperOfferMalformed;
        Reason reason = _voidReason(wanted, side);
        if (reason != Reason.None) return reason;
        if (wanted.matcher != address(0) && wanted.matcher != msg.sender) return Reason.MatcherNotNamed;
        if (side.startEpoch >= side.endEpoch) return Reason.TermOver;
        return Reason.None;
    }

    /// @dev Why the provider offer can't be matched at all.
    function _refuseSupply(ProviderOffer memory offered, SupplySide memory side) internal view returns (Reason) {
        // An offer that the chain knows was looked at before.
        if (side.word & SupplyWord.KNOWN == 0 && offered.isMalformed()) return Reason.ProviderOfferMalformed;
        return _voidReason(offered, side);
    }

    /// @dev Why the two do not go together; fills in the deal.
    function _refusePair(
        DeveloperOffer memory wanted,
        ProviderOffer memory offered,
        DemandSide memory demand,
        SupplySide memory side
    ) internal view returns (Reason) {
        if (wanted.isNotAllowed(side.provider)) return Reason.ProviderNotAllowed;
        if (wanted.isDenied(side.provider)) return Reason.ProviderDenied;
        side.dealId = _dealIdOf(OfferHash.wrap(demand.offerHash), side.provider);
        side.dealSlot = _deals.at(side.dealId);
        if (side.dealSlot.read() != 0) return Reason.AlreadyHosting;
        if (!wanted.regionFits(offered)) return Reason.RegionMismatch;
        if (wanted.features & ~offered.features != 0) return Reason.FeaturesMissing;
        unchecked {
            uint256 remaining = demand.endEpoch - demand.startEpoch;
            if (offered.maxEpochs != 0 && offered.maxEpochs < remaining) return Reason.TermTooLong;
            // All parts are below 2^32.
            if (side.word.usedMilliCpu() + wanted.milliCpu > offered.milliCpu) return Reason.CpuExceedsFree;
            if (side.word.usedMemoryMib() + wanted.memoryMib > offered.memoryMib) return Reason.MemoryExceedsFree;
            side.price = offered.ask(wanted.milliCpu, wanted.memoryMib);
            if (side.price > wanted.maxPricePerEpoch) return Reason.PriceAboveMaximum;
            // A price is below 2^48, the factors below 2^16: both products fit in 64 bits.
            side.lock = side.price * FixedPointMathLib.min(wanted.prepaidEpochs, remaining);
            side.bond = side.price * BOND_EPOCHS;
        }
        return _refuseMoney(wanted, offered, demand, side);
    }

    /// @dev One account may be both sides; what it pays as the developer can't be its bond.
    function _refuseMoney(
        DeveloperOffer memory wanted,
        ProviderOffer memory offered,
        DemandSide memory demand,
        SupplySide memory side
    ) private pure returns (Reason) {
        unchecked {
            uint256 needed = demand.committed + demand.committedBonds + side.lock + wanted.matcherFee;
            uint256 free = uint128(demand.owner);
            if (needed > free) return Reason.FundsTooLow;
            free = offered.provider == wanted.developer ? free - needed : uint128(side.owner);
            return side.bond > free ? Reason.BondTooLow : Reason.None;
        }
    }

    /// @dev Why the offer accepts no match any more, whatever the other side.
    function _voidReason(ProviderOffer memory offer, SupplySide memory side) internal view returns (Reason) {
        if (side.word & SupplyWord.CANCELLED != 0) return Reason.ProviderOfferCancelled;
        if (offer.nonce < _nonceFloorOf(side.owner)) return Reason.ProviderNonceTooLow;
        if (offer.validUntil < block.timestamp) return Reason.ProviderOfferExpired;
        return Reason.None;
    }

    /// @dev As above.
    function _voidReason(DeveloperOffer memory offer, DemandSide memory side) internal view returns (Reason) {
        if (_isCancelled(offer.developer, side)) return Reason.DeveloperOfferCancelled;
        if (offer.nonce < _nonceFloorOf(side.owner)) return Reason.DeveloperNonceTooLow;
        if (offer.validUntil < block.timestamp) return Reason.DeveloperOfferExpired;
        return Reason.None;
    }

    function _isCancelled(address developer, DemandSide memory side) private view returns (bool) {
        if (side.isKnown) return side.word & DemandWord.CANCELLED != 0;
        return side.owner & HAS_CANCELLED != 0 && _supplies[developer][side.offerHash] & SupplyWord.CANCELLED != 0;
    }

    /// @dev Makes the offer known; `side.word` is left for the caller to store.
    function _open(ProviderOffer memory offer, SupplySide memory side) internal {
        bool hasPayout = offer.payout != offer.provider;
        if (hasPayout) _payouts[side.offerHash] = offer.payout;
        side.word = SupplyWord.opened(offer.agent, hasPayout);
        offer.log(ProviderOfferOpened.selector, side.offerHash);
    }
}
