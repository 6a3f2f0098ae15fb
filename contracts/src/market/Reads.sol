// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketExtension} from "../interfaces/IMarketExtension.sol";
import {Deal, DealWord} from "../libraries/DealWord.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {OfferEncoding} from "../libraries/OfferEncoding.sol";
import {OfferHashing} from "../libraries/OfferHashing.sol";
import {OfferRules} from "../libraries/OfferRules.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {
    AccountView,
    ArtifactUpdate,
    DealChange,
    DealId,
    DealRef,
    DealState,
    DealView,
    DeveloperOffer,
    DeveloperOfferView,
    Epoch,
    MarketConfig,
    OfferHash,
    ProviderOffer,
    ProviderOfferView,
    Reason,
    Receipt
} from "../types/Types.sol";
import {Deals} from "./Deals.sol";
import {MatchRules} from "./MatchRules.sol";

/// @title Reads
/// @notice Everything that the market says of itself: a whole deal, offer or account in one call.
abstract contract Reads is IMarketExtension, Deals, MatchRules {
    using EpochBitmap for EpochBitmap.Bitmap;
    using OfferHashing for ArtifactUpdate;
    using OfferHashing for DealChange;
    using DemandWord for uint256;
    using OfferEncoding for DeveloperOffer;
    using OfferEncoding for ProviderOffer;
    using OfferHashing for DeveloperOffer;
    using OfferHashing for ProviderOffer;
    using OfferHashing for Receipt;
    using OfferRules for ProviderOffer;
    using SupplyWord for uint256;

    /// @inheritdoc IMarketExtension
    function dealIdOf(OfferHash offerHash, address provider) external pure returns (DealId) {
        return _dealIdOf(offerHash, provider);
    }

    /// @inheritdoc IMarketExtension
    function deal(DealRef calldata ref) external view returns (DealView memory shown) {
        DealId dealId = _dealIdOf(ref.developerOffer, ref.provider);
        Deal memory item;
        DealWord.unpack(_deals[dealId], item);
        if (item.state == DealState.None) return shown;
        Terms memory terms = _hostTerms(ref.provider, ref.providerOffer);
        if (terms.offerNumber != item.offerNumber) revert ProviderOfferMismatch(dealId);
        _readTerms(dealId, item, terms, ref.developerOffer);
        shown.dealId = dealId;
        _showTerms(shown, terms);
        shown.changes = _changes[dealId].sequence;
        shown.pricePerEpoch = uint64(item.price);
        shown.endEpoch = Epoch.wrap(uint32(item.endEpoch));
        shown.settledUntil = Epoch.wrap(uint32(item.settledUntil));
        shown.paidUntil = _paidUntil(item, terms);
        shown.locked = uint64(item.locked);
        shown.bond = item.state == DealState.Ended ? 0 : uint64(_bondOf(item));
        shown.unfundedSince = Epoch.wrap(uint32(item.unfundedSince));
        shown.state = item.state;
        shown.cause = item.cause;
    }

    /// @inheritdoc IMarketExtension
    function developerOffer(OfferHash offerHash) external view returns (DeveloperOfferView memory shown) {
        uint256 kept = _demands[OfferHash.unwrap(offerHash)];
        Artifact memory artifact = _artifacts[OfferHash.unwrap(offerHash)];
        shown.developer = kept.developer();
        shown.liveReplicas = uint16(kept.liveReplicas());
        shown.endEpoch = Epoch.wrap(uint32(kept.endEpoch()));
        shown.prepaidEpochs = uint32(kept.prepaidEpochs());
        shown.milliCpu = uint32(DemandWord.milliCpu(kept));
        shown.memoryMib = uint32(kept.memoryMib());
        shown.version = artifact.version;
        shown.artifact = artifact.artifact;
        shown.manifest = artifact.manifest;
    }

    /// @inheritdoc IMarketExtension
    function providerOffer(address provider, OfferHash offerHash)
        external
        view
        returns (ProviderOfferView memory shown)
    {
        uint256 kept = _supplies[provider][OfferHash.unwrap(offerHash)];
        shown.cancelled = kept & SupplyWord.CANCELLED != 0;
        if (kept & SupplyWord.KNOWN == 0) return shown;
        shown.agent = kept.agent();
        shown.payout = _payoutOf(provider, offerHash, kept);
        shown.usedMilliCpu = uint32(kept.usedMilliCpu());
        shown.usedMemoryMib = uint32(kept.usedMemoryMib());
    }

    /// @inheritdoc IMarketExtension
    function account(address owner) external view returns (AccountView memory) {
        uint256 kept = _accounts[owner];
        return AccountView({
            free: uint128(kept), nonceFloor: uint64(_nonceFloorOf(kept)), receiptsHash: _rollingHashes[owner]
        });
    }

    /// @inheritdoc IMarketExtension
    function isCancelled(address owner, OfferHash offerHash) external view returns (bool) {
        bytes32 hash = OfferHash.unwrap(offerHash);
        uint256 demand = _demands[hash];
        if (demand != 0 && demand.developer() == owner) return demand & DemandWord.CANCELLED != 0;
        return _supplies[owner][hash] & SupplyWord.CANCELLED != 0;
    }

    /// @inheritdoc IMarketExtension
    function isAttested(address agent, Epoch epoch) external view returns (bool) {
        return _attested[agent].get(Epoch.unwrap(epoch));
    }

    /// @inheritdoc IMarketExtension
    function attestedEpochs(address agent, Epoch from, Epoch to) external view returns (uint256) {
        return _attested[agent].count(Epoch.unwrap(from), Epoch.unwrap(to));
    }

    /// @inheritdoc IMarketExtension
    function matchingPaused() external view returns (bool) {
        return _matchingPaused;
    }

    /// @inheritdoc IMarketExtension
    function checkFill(DeveloperOffer calldata wanted, ProviderOffer calldata offered) external view returns (Reason) {
        DeveloperOffer memory demanded = wanted.load()[0];
        DemandSide memory demand;
        _readDemand(_domainSeparator(), demanded, demand);
        Reason reason = _refuseDemand(demanded, demand);
        if (reason != Reason.None) return reason;
        if (demand.word.liveReplicas() >= wanted.replicas) return Reason.ReplicasFull;
        ProviderOffer memory supplied = offered.load()[0];
        SupplySide memory side;
        _readSupply(_domainSeparator(), supplied, side);
        reason = _refuseSupply(supplied, side);
        if (reason != Reason.None) return reason;
        return _refusePair(demanded, supplied, demand, side);
    }

    /// @inheritdoc IMarketExtension
    function hashProviderOffer(ProviderOffer calldata offer) external view returns (OfferHash) {
        return OfferHash.wrap(_hashTypedData(offer.load()[0].structHash()));
    }

    /// @inheritdoc IMarketExtension
    function hashDeveloperOffer(DeveloperOffer calldata offer) external view returns (OfferHash) {
        return OfferHash.wrap(_hashTypedData(offer.load()[0].structHash()));
    }

    /// @inheritdoc IMarketExtension
    function hashDealChange(DealChange calldata change) external view returns (bytes32) {
        return _hashTypedData(change.structHash());
    }

    /// @inheritdoc IMarketExtension
    function hashArtifactUpdate(ArtifactUpdate calldata update) external view returns (bytes32) {
        return _hashTypedData(update.structHash());
    }

    /// @inheritdoc IMarketExtension
    function hashReceipt(Receipt calldata receipt) external view returns (bytes32) {
        return _hashTypedData(receipt.structHash());
    }

    /// @inheritdoc IMarketExtension
    function askOf(ProviderOffer calldata offer, uint32 milliCpu, uint32 memoryMib) external pure returns (uint256) {
        return offer.load()[0].ask(milliCpu, memoryMib);
    }

    /// @inheritdoc IMarketExtension
    function config() external view returns (MarketConfig memory) {
        return MarketConfig({
            token: TOKEN,
            operator: OPERATOR,
            genesis: uint64(GENESIS),
            epochLength: uint32(EPOCH_LENGTH),
            attestationWindow: uint32(ATTESTATION_WINDOW),
            evictAfterMissed: uint32(EVICT_AFTER_MISSED),
            bondEpochs: uint32(BOND_EPOCHS),
            minPrepaidEpochs: uint32(MIN_PREPAID_EPOCHS),
            graceEpochs: uint32(GRACE_EPOCHS),
            noticeEpochs: uint32(NOTICE_EPOCHS)
        });
    }

    /// @inheritdoc IMarketExtension
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparator();
    }

    /// @inheritdoc IMarketExtension
    function genesis() external view returns (uint64) {
        return uint64(GENESIS);
    }

    /// @inheritdoc IMarketExtension
    function currentEpoch() external view returns (Epoch) {
        return Epoch.wrap(uint32(_currentEpoch()));
    }

    function _showTerms(DealView memory shown, Terms memory terms) private pure {
        shown.developerOffer = terms.developerOffer;
        shown.providerOffer = terms.providerOffer;
        shown.developer = terms.developer;
        shown.provider = terms.provider;
        shown.agent = terms.agent;
        shown.payout = terms.payout;
        shown.milliCpu = uint32(terms.milliCpu);
        shown.memoryMib = uint32(terms.memoryMib);
        shown.priceFrom = Epoch.wrap(uint32(terms.priceFrom));
        shown.oldPricePerEpoch = uint64(terms.oldPrice);
    }
}
