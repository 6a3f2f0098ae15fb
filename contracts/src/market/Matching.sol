// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {IMarket} from "../interfaces/IMarket.sol";
import {DealTerms, Terms} from "../libraries/DealTerms.sol";
import {Deal} from "../libraries/DealWord.sol";
import {OfferRules} from "../libraries/OfferRules.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {
    DealId,
    DealState,
    DeveloperOffer,
    EndCause,
    Epoch,
    Match,
    OfferHash,
    ProviderOffer,
    Reason
} from "../types/Types.sol";
import {Deals} from "./Deals.sol";

/// @title Matching
/// @notice Opens deals. A match is checked as a whole before any of it is carried out, so that one that places too
/// few replicas leaves no trace but its events.
abstract contract Matching is Deals {
    using OfferRules for DeveloperOffer;
    using OfferRules for ProviderOffer;

    /// @dev A developer offer during its match.
    struct Demand {
        bytes32 offerHash;
        bool isKnown;
        uint256 live;
        uint256 startEpoch;
        uint256 endEpoch;
        // Replicas found so far, and what they take of the developer's free balance.
        uint256 placed;
        uint256 committed;
    }

    /// @dev A provider offer that a replica was found for.
    struct Fill {
        bytes32 offerHash;
        bool isKnown;
        uint256 index;
        uint256 price;
        uint256 lock;
        uint256 bond;
    }

    /// @dev One word: both are read and the number is written by every match.
    struct MatchingState {
        bool paused;
        uint40 lastTermsNumber;
    }

    MatchingState private _matching;

    /// @inheritdoc IMarket
    function matchOffers(Match[] calldata matches) external returns (uint256 opened) {
        if (_matching.paused) revert MatchingIsPaused();
        for (uint256 i = 0; i < matches.length; ++i) {
            opened += _match(matches[i]);
        }
    }

    /// @inheritdoc IMarket
    function checkFill(DeveloperOffer calldata developerOffer, ProviderOffer calldata providerOffer)
        external
        view
        returns (Reason reason)
    {
        Demand memory demand = _demandOf(developerOffer);
        reason = _refuseDemand(developerOffer, demand);
        if (reason != Reason.None) return reason;
        if (demand.live >= developerOffer.replicas) return Reason.ReplicasFull;
        Fill memory fill = _fillOf(providerOffer, 0);
        reason = _refuseSupply(providerOffer, fill);
        if (reason == Reason.None) reason = _refusePair(developerOffer, providerOffer, demand);
        if (reason == Reason.None) reason = _refuseSize(developerOffer, providerOffer, demand, fill);
        if (reason == Reason.None) reason = _refuseMoney(developerOffer, providerOffer, demand, fill);
        return reason;
    }

    /// @inheritdoc IMarket
    function setMatchingPaused(bool paused) external {
        if (msg.sender != OPERATOR) revert NotOperator(msg.sender);
        _matching.paused = paused;
        emit MatchingPaused(paused);
    }

    /// @inheritdoc IMarket
    function matchingPaused() external view returns (bool) {
        return _matching.paused;
    }

    function _match(Match calldata item) private returns (uint256) {
        if (item.providerOffers.length != item.providerSignatures.length) revert LengthMismatch();
        DeveloperOffer calldata wanted = item.developerOffer;
        Demand memory demand = _demandOf(wanted);
        Reason reason = _refuseDemand(wanted, demand);
        if (reason == Reason.None && !demand.isKnown) {
            bool isSigned = Signatures.isValid(wanted.developer, demand.offerHash, item.developerSignature);
            if (!isSigned) reason = Reason.DeveloperSignatureInvalid;
        }
        if (reason != Reason.None) {
            emit MatchSkipped(OfferHash.wrap(demand.offerHash), reason);
            return 0;
        }
        Fill[] memory fills = _findFills(item, demand);
        if (demand.live + demand.placed < wanted.minReplicas) {
            emit MatchSkipped(OfferHash.wrap(demand.offerHash), Reason.TooFewReplicas);
            return 0;
        }
        if (demand.placed != 0) _openDeals(item, demand, fills);
        return demand.placed;
    }

    function _demandOf(DeveloperOffer calldata wanted) private view returns (Demand memory demand) {
        demand.offerHash = _hash(wanted);
        DeveloperRecord storage record = _developerRecords[demand.offerHash];
        demand.isKnown = record.developer != address(0);
        demand.live = record.liveReplicas;
        demand.startEpoch = _currentEpoch() + 1;
        demand.endEpoch = record.endEpoch;
        if (demand.endEpoch == 0) {
            demand.endEpoch = FixedPointMathLib.min(demand.startEpoch + wanted.epochs, type(uint32).max);
        }
    }

    function _fillOf(ProviderOffer calldata offered, uint256 index) private view returns (Fill memory fill) {
        fill.index = index;
        fill.offerHash = _hash(offered);
        fill.isKnown = _providerRecords[fill.offerHash].provider != address(0);
    }

    /// @dev Tries the provider offers in their order until no more replicas are wanted.
    function _findFills(Match calldata item, Demand memory demand) private returns (Fill[] memory fills) {
        fills = new Fill[](item.providerOffers.length);
        for (uint256 i = 0; i < item.providerOffers.length; ++i) {
            Fill memory fill = _fillOf(item.providerOffers[i], i);
            Reason reason = _refuseFill(item, demand, fills, fill);
            if (reason != Reason.None) {
                emit FillSkipped(OfferHash.wrap(demand.offerHash), OfferHash.wrap(fill.offerHash), reason);
                continue;
            }
            fills[demand.placed] = fill;
            demand.placed += 1;
            demand.committed += fill.lock;
            if (item.providerOffers[i].provider == item.developerOffer.developer) demand.committed += fill.bond;
        }
    }

    /// @dev Why this fill can't be; fills in its price, lock and bond. The signature is looked at only when the offer
    /// itself is good: it costs most.
    function _refuseFill(Match calldata item, Demand memory demand, Fill[] memory fills, Fill memory fill)
        private
        view
        returns (Reason reason)
    {
        DeveloperOffer calldata wanted = item.developerOffer;
        ProviderOffer calldata offered = item.providerOffers[fill.index];
        if (demand.live + demand.placed >= wanted.replicas) return Reason.ReplicasFull;
        reason = _refuseSupply(offered, fill);
        if (reason != Reason.None) return reason;
        if (!fill.isKnown) {
            bool isSigned = Signatures.isValid(offered.provider, fill.offerHash, item.providerSignatures[fill.index]);
            if (!isSigned) return Reason.ProviderSignatureInvalid;
        }
        for (uint256 i = 0; i < demand.placed; ++i) {
            if (item.providerOffers[fills[i].index].provider == offered.provider) return Reason.AlreadyHosting;
        }
        reason = _refusePair(wanted, offered, demand);
        if (reason == Reason.None) reason = _refuseSize(wanted, offered, demand, fill);
        if (reason == Reason.None) reason = _refuseMoney(wanted, offered, demand, fill);
    }

    function _refuseDemand(DeveloperOffer calldata wanted, Demand memory demand) private view returns (Reason reason) {
        if (wanted.isMalformed(MIN_PREPAID_EPOCHS)) return Reason.DeveloperOfferMalformed;
        reason = _voidReason(wanted, demand.offerHash);
        if (reason != Reason.None) return reason;
        if (wanted.matcher != address(0) && wanted.matcher != msg.sender) return Reason.MatcherNotNamed;
        if (demand.startEpoch >= demand.endEpoch) return Reason.TermOver;
    }

    function _refuseSupply(ProviderOffer calldata offered, Fill memory fill) private view returns (Reason) {
        if (offered.isMalformed()) return Reason.ProviderOfferMalformed;
        return _voidReason(offered, fill.offerHash);
    }

    function _refusePair(DeveloperOffer calldata wanted, ProviderOffer calldata offered, Demand memory demand)
        private
        view
        returns (Reason reason)
    {
        reason = wanted.listed(offered);
        if (reason != Reason.None) return reason;
        DealId dealId = dealIdOf(OfferHash.wrap(demand.offerHash), offered.provider);
        if (_exists(dealId)) return Reason.AlreadyHosting;
        if (!wanted.regionFits(offered)) return Reason.RegionMismatch;
        if (wanted.features & ~offered.features != 0) return Reason.FeaturesMissing;
        uint256 remaining = demand.endEpoch - demand.startEpoch;
        if (offered.maxEpochs != 0 && offered.maxEpochs < remaining) return Reason.TermTooLong;
    }

    function _refuseSize(
        DeveloperOffer calldata wanted,
        ProviderOffer calldata offered,
        Demand memory demand,
        Fill memory fill
    ) private view returns (Reason) {
        ProviderRecord storage record = _providerRecords[fill.offerHash];
        if (uint256(record.usedMilliCpu) + wanted.milliCpu > offered.milliCpu) return Reason.CpuExceedsFree;
        if (uint256(record.usedMemoryMib) + wanted.memoryMib > offered.memoryMib) return Reason.MemoryExceedsFree;
        fill.price = offered.ask(wanted.milliCpu, wanted.memoryMib);
        if (fill.price > wanted.maxPricePerEpoch) return Reason.PriceAboveMaximum;
        uint256 remaining = demand.endEpoch - demand.startEpoch;
        fill.lock = fill.price * FixedPointMathLib.min(wanted.prepaidEpochs, remaining);
        fill.bond = fill.price * BOND_EPOCHS;
        return Reason.None;
    }

    /// @dev Amounts beyond 64 bits are refused as well: a deal could not hold them.
    function _refuseMoney(
        DeveloperOffer calldata wanted,
        ProviderOffer calldata offered,
        Demand memory demand,
        Fill memory fill
    ) private view returns (Reason) {
        uint256 needed = demand.committed + fill.lock;
        uint256 free = _accounts[wanted.developer].free;
        if (fill.lock > type(uint64).max || needed > free) return Reason.FundsTooLow;
        free = _accounts[offered.provider].free;
        // One account may be both; what it pays as the developer can't be its bond.
        if (offered.provider == wanted.developer) free -= needed;
        if (fill.bond > type(uint64).max || fill.bond > free) return Reason.BondTooLow;
        return Reason.None;
    }

    function _openDeals(Match calldata item, Demand memory demand, Fill[] memory fills) private {
        DeveloperOffer calldata wanted = item.developerOffer;
        if (!demand.isKnown) _open(wanted, demand.offerHash);
        DeveloperRecord storage record = _developerRecords[demand.offerHash];
        record.endEpoch = uint32(demand.endEpoch);
        record.liveReplicas = uint16(demand.live + demand.placed);
        uint40 termsNumber = ++_matching.lastTermsNumber;
        Terms memory terms = _developerTerms(wanted, demand);
        bytes memory data = DealTerms.head(terms);
        for (uint256 i = 0; i < demand.placed; ++i) {
            ProviderOffer calldata offered = item.providerOffers[fills[i].index];
            _reserve(wanted, offered, fills[i]);
            _fillTerms(terms, offered, fills[i]);
            data = bytes.concat(data, DealTerms.entry(terms));
            Deal memory opened = Deal({
                locked: uint64(fills[i].lock),
                settledUntil: uint32(demand.startEpoch),
                endEpoch: uint32(demand.endEpoch),
                unfundedSince: 0,
                fundedSince: uint32(demand.startEpoch),
                termsNumber: termsNumber,
                termsIndex: uint8(i),
                state: DealState.Active,
                cause: EndCause.None
            });
            DealId dealId = dealIdOf(OfferHash.wrap(demand.offerHash), offered.provider);
            _store(dealId, opened);
            _emitOpened(dealId, opened, terms);
        }
        DealTerms.write(data, termsNumber);
    }

    /// @dev Takes capacity, lock and bond.
    function _reserve(DeveloperOffer calldata wanted, ProviderOffer calldata offered, Fill memory fill) private {
        if (!fill.isKnown) _open(offered, fill.offerHash);
        ProviderRecord storage record = _providerRecords[fill.offerHash];
        record.usedMilliCpu += wanted.milliCpu;
        record.usedMemoryMib += wanted.memoryMib;
        _debit(wanted.developer, fill.lock);
        _debit(offered.provider, fill.bond);
    }

    function _developerTerms(DeveloperOffer calldata wanted, Demand memory demand)
        private
        pure
        returns (Terms memory terms)
    {
        terms.developerOffer = demand.offerHash;
        terms.developer = wanted.developer;
        terms.milliCpu = wanted.milliCpu;
        terms.memoryMib = wanted.memoryMib;
        terms.startEpoch = uint32(demand.startEpoch);
        terms.prepaidEpochs = wanted.prepaidEpochs;
    }

    function _fillTerms(Terms memory terms, ProviderOffer calldata offered, Fill memory fill) private pure {
        terms.providerOffer = fill.offerHash;
        terms.provider = offered.provider;
        terms.agent = offered.agent;
        terms.payout = offered.payout;
        terms.pricePerEpoch = uint64(fill.price);
    }

    function _emitOpened(DealId dealId, Deal memory opened, Terms memory terms) private {
        emit DealOpened(
            dealId,
            OfferHash.wrap(terms.developerOffer),
            terms.agent,
            OfferHash.wrap(terms.providerOffer),
            terms.developer,
            terms.provider,
            terms.pricePerEpoch,
            Epoch.wrap(opened.settledUntil),
            Epoch.wrap(opened.endEpoch),
            opened.locked,
            _bondOf(terms)
        );
    }
}
