// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketCore} from "../interfaces/IMarketCore.sol";
import {DealWord} from "../libraries/DealWord.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {OfferEncoding} from "../libraries/OfferEncoding.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {Slot, Slots} from "../libraries/Slots.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {DealId, DeveloperOffer, Fill, Match, OfferHash, ProviderOffer, Reason} from "../types/Types.sol";
import {MatchRules} from "./MatchRules.sol";

/// @title Matching
/// @notice Opens deals. A match is checked as a whole before any of it is carried out, so that one that places too
/// few replicas leaves no trace but its events.
abstract contract Matching is IMarketCore, MatchRules {
    using DemandWord for uint256;
    using OfferEncoding for DeveloperOffer;
    using OfferEncoding for ProviderOffer;
    using Slots for Slot;
    using SupplyWord for uint256;

    /// @dev A replica that a place was found for.
    struct Place {
        ProviderOffer offered;
        SupplySide side;
    }

    /// @inheritdoc IMarketCore
    function matchOffers(Match[] calldata matches) external returns (uint256 opened) {
        if (_matchingPaused) revert MatchingIsPaused();
        bytes32 domain = _domainSeparator();
        for (uint256 i = 0; i < matches.length; ++i) {
            opened += _match(matches[i], domain);
        }
    }

    /// @inheritdoc IMarketCore
    function setMatchingPaused(bool paused) external {
        if (msg.sender != OPERATOR) revert NotOperator(msg.sender);
        _matchingPaused = paused;
        emit MatchingPaused(paused);
    }

    function _match(Match calldata item, bytes32 domain) private returns (uint256) {
        DeveloperOffer memory wanted = item.developerOffer.load()[0];
        DemandSide memory demand;
        _readDemand(domain, wanted, demand);
        Reason reason = _refuseDemand(wanted, demand);
        if (reason == Reason.None) {
            bool isSigned =
                demand.isKnown || Signatures.isValid(wanted.developer, demand.offerHash, item.developerSignature);
            if (isSigned) return _place(item, wanted, demand, domain);
            reason = Reason.DeveloperSignatureInvalid;
        }
        emit MatchSkipped(OfferHash.wrap(demand.offerHash), reason);
        return 0;
    }

    function _place(Match calldata item, DeveloperOffer memory wanted, DemandSide memory demand, bytes32 domain)
        private
        returns (uint256)
    {
        Place[] memory places = _findPlaces(item, wanted, demand, domain);
        if (_replicas(demand) < wanted.minReplicas) {
            emit MatchSkipped(OfferHash.wrap(demand.offerHash), Reason.TooFewReplicas);
            return 0;
        }
        if (demand.placed != 0) _openDeals(wanted, demand, places);
        return demand.placed;
    }

    /// @dev Tries the provider offers in their order until no more replicas are wanted.
    function _findPlaces(Match calldata item, DeveloperOffer memory wanted, DemandSide memory demand, bytes32 domain)
        private
        returns (Place[] memory places)
    {
        uint256 offers = item.fills.length;
        places = _emptyPlaces(offers);
        for (uint256 i = 0; i < offers; ++i) {
            Fill calldata fill = item.fills[i];
            ProviderOffer memory offered = fill.offer.load()[0];
            SupplySide memory side;
            _readSupply(domain, offered, side);
            Reason reason = _refuseFill(wanted, offered, demand, side, places, fill.signature);
            if (reason != Reason.None) {
                emit FillSkipped(OfferHash.wrap(demand.offerHash), OfferHash.wrap(side.offerHash), reason);
                continue;
            }
            places[demand.placed] = Place(offered, side);
            unchecked {
                demand.placed += 1;
                demand.providers |= 1 << (uint160(side.provider) & 0xff);
                demand.committed += side.lock + wanted.matcherFee;
                if (side.provider == wanted.developer) demand.committedBonds += side.bond;
            }
        }
    }

    /// @dev `new Place[](length)` would fill every place with an empty offer first. Only places below `placed` are read.
    function _emptyPlaces(uint256 length) private pure returns (Place[] memory places) {
        assembly ("memory-safe") {
            places := mload(0x40)
            mstore(places, length)
            mstore(0x40, add(places, shl(5, add(length, 1))))
        }
    }

    /// @dev Why this fill can't be. The signature is looked at only when the offer itself is good: it costs most.
    function _refuseFill(
        DeveloperOffer memory wanted,
        ProviderOffer memory offered,
        DemandSide memory demand,
        SupplySide memory side,
        Place[] memory places,
        bytes calldata signature
    ) private view returns (Reason reason) {
        if (_replicas(demand) >= wanted.replicas) return Reason.ReplicasFull;
        reason = _refuseSupply(offered, side);
        if (reason != Reason.None) return reason;
        if (side.word & SupplyWord.KNOWN == 0) {
            bool isSigned = Signatures.isValid(side.provider, side.offerHash, signature);
            if (!isSigned) return Reason.ProviderSignatureInvalid;
        }
        if (demand.placed != 0 && _isPlaced(demand, side.provider, places)) return Reason.AlreadyHosting;
        return _refusePair(wanted, offered, demand, side);
    }

    /// @dev Whether the provider hosts one of the replicas found so far. Most often one look at `providers` tells that it
    /// does not.
    function _isPlaced(DemandSide memory demand, address provider, Place[] memory places) private pure returns (bool) {
        uint256 mark = 1 << (uint160(provider) & 0xff);
        if (demand.providers & mark == 0) return false;
        for (uint256 i = 0; i < demand.placed; ++i) {
            if (places[i].side.provider == provider) return true;
        }
        return false;
    }

    function _replicas(DemandSide memory demand) private pure returns (uint256) {
        unchecked {
            return demand.word.liveReplicas() + demand.placed;
        }
    }

    function _openDeals(DeveloperOffer memory wanted, DemandSide memory demand, Place[] memory places) private {
        if (!demand.isKnown) wanted.log(DeveloperOfferOpened.selector, demand.offerHash);
        unchecked {
            demand.slot.write(demand.word.placed(_replicas(demand), demand.endEpoch));
            // `_refuseMoney` has seen that there is as much.
            demand.ownerSlot.write(demand.owner - demand.committed);
        }
        for (uint256 i = 0; i < demand.placed; ++i) {
            _openDeal(wanted, places[i].offered, demand, places[i].side);
        }
        if (wanted.matcherFee != 0) {
            uint256 fees = demand.placed * wanted.matcherFee;
            _credit(msg.sender, fees);
            emit MatcherPaid(OfferHash.wrap(demand.offerHash), msg.sender, fees);
        }
    }

    /// @dev Takes capacity and bond, and opens the deal.
    function _openDeal(
        DeveloperOffer memory wanted,
        ProviderOffer memory offered,
        DemandSide memory demand,
        SupplySide memory side
    ) private {
        if (side.word & SupplyWord.KNOWN == 0) _open(offered, side);
        uint256 word = side.word;
        // A provider that is the developer as well has just paid.
        uint256 account = side.provider == wanted.developer ? side.ownerSlot.read() : side.owner;
        unchecked {
            if (word.number() == 0) {
                account += ONE_OFFER;
                word = word.numbered((account << 1) >> 193);
            }
            side.ownerSlot.write(account - side.bond);
        }
        side.slot.write(word.reserve(wanted.milliCpu, wanted.memoryMib));
        side.dealSlot.write(DealWord.opened(side.lock, demand.startEpoch, demand.endEpoch, side.price, word.number()));
        _logOpened(demand, side);
    }

    /// @dev `emit DealOpened(...)`, which would look once more whether the numbers fit their types.
    function _logOpened(DemandSide memory demand, SupplySide memory side) private {
        bytes32 selector = DealOpened.selector;
        DealId dealId = side.dealId;
        bytes32 developerOffer = demand.offerHash;
        bytes32 providerOffer = side.offerHash;
        uint256 price = side.price;
        uint256 startEpoch = demand.startEpoch;
        uint256 endEpoch = demand.endEpoch;
        uint256 locked = side.lock;
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, price)
            mstore(add(data, 0x20), startEpoch)
            mstore(add(data, 0x40), endEpoch)
            mstore(add(data, 0x60), locked)
            log4(data, 0x80, selector, dealId, developerOffer, providerOffer)
        }
    }
}
