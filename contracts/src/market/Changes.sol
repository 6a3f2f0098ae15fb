// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketExtension} from "../interfaces/IMarketExtension.sol";
import {Deal, DealWord} from "../libraries/DealWord.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {OfferEncoding} from "../libraries/OfferEncoding.sol";
import {OfferHashing} from "../libraries/OfferHashing.sol";
import {OfferRules} from "../libraries/OfferRules.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {
    ArtifactUpdate,
    DealChange,
    DealId,
    DealRef,
    DealState,
    Epoch,
    OfferHash,
    ProviderOffer
} from "../types/Types.sol";
import {Deals} from "./Deals.sol";

/// @title Changes
/// @notice What can change about a deal while it lasts: its money, its terms, what it runs.
abstract contract Changes is IMarketExtension, Deals {
    using OfferHashing for ArtifactUpdate;
    using OfferHashing for DealChange;
    using OfferEncoding for ProviderOffer;
    using OfferHashing for ProviderOffer;

    /// @inheritdoc IMarketExtension
    function fundDeal(DealRef calldata ref, uint64 amount) external {
        if (amount == 0) revert ZeroAmount();
        (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(ref);
        _settleAndCredit(dealId, item, terms);
        _debit(msg.sender, amount);
        uint256 locked = item.locked + amount;
        if (locked > type(uint64).max) revert BalanceTooLarge(locked);
        item.locked = locked;
        emit DealFunded(dealId, msg.sender, amount, _paidUntil(item, terms));
        if (item.unfundedSince != 0) {
            _settleAndCredit(dealId, item, terms);
            if (item.unfundedSince != 0) emit DealUnfunded(dealId, Epoch.wrap(uint32(item.unfundedSince)));
        }
        _deals[dealId] = DealWord.pack(item);
    }

    /// @inheritdoc IMarketExtension
    function updateArtifact(ArtifactUpdate calldata update, bytes calldata signature) external {
        bytes32 offerHash = OfferHash.unwrap(update.developerOffer);
        address developer = DemandWord.developer(_demands[offerHash]);
        if (developer == address(0)) revert OfferUnknown(update.developerOffer);
        if (update.artifact == 0 || bytes(update.artifactUrl).length > OfferRules.MAX_URL_BYTES) {
            revert UpdateMalformed();
        }
        Artifact storage kept = _artifacts[offerHash];
        _requireNext(kept.version, update.version);
        _requireNotExpired(update.validUntil);
        _requireSignedBy(developer, update.structHash(), signature);
        kept.version = update.version;
        kept.artifact = update.artifact;
        kept.manifest = update.manifest;
        emit ArtifactUpdated(
            update.developerOffer, update.version, update.artifact, update.manifest, update.artifactUrl
        );
    }

    /// @inheritdoc IMarketExtension
    function changeDeal(
        DealRef calldata ref,
        DealChange calldata change,
        ProviderOffer calldata providerOffer,
        bytes calldata developerSignature,
        bytes calldata providerSignature
    ) external {
        (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(ref);
        // Behind the term nobody was bound to host: an extension then would bill epochs that nobody agreed on in time.
        if (item.state != DealState.Active || _currentEpoch() >= item.endEpoch) revert DealNotActive(dealId);
        _requireAgreed(dealId, terms, change, developerSignature, providerSignature);
        _settleAndCredit(dealId, item, terms);
        if (item.settledUntil < terms.priceFrom) revert ChangePending(Epoch.wrap(uint32(terms.priceFrom)));
        if (_hashTypedData(providerOffer.load()[0].structHash()) != OfferHash.unwrap(ref.providerOffer)) {
            revert ProviderOfferMismatch(dealId);
        }
        _resize(change, terms, providerOffer);
        _reprice(dealId, item, terms, change);
        _relock(dealId, item, terms);
        _deals[dealId] = DealWord.pack(item);
    }

    function _requireAgreed(
        DealId dealId,
        Terms memory terms,
        DealChange calldata change,
        bytes calldata developerSignature,
        bytes calldata providerSignature
    ) private view {
        bool isMeant = DealId.unwrap(change.dealId) == DealId.unwrap(dealId);
        if (!isMeant || !OfferRules.isPrice(change.pricePerEpoch)) revert ChangeMalformed();
        if (!OfferRules.isSize(change.milliCpu, change.memoryMib)) revert ChangeMalformed();
        _requireNext(_changes[dealId].sequence, change.sequence);
        _requireNotExpired(change.validUntil);
        bytes32 structHash = change.structHash();
        _requireSignedBy(terms.developer, structHash, developerSignature);
        _requireSignedBy(terms.provider, structHash, providerSignature);
    }

    /// @dev Takes and gives back capacity: deals that start with the next epoch may use what this one gives up.
    function _resize(DealChange calldata change, Terms memory terms, ProviderOffer calldata providerOffer) private {
        bytes32 offerHash = OfferHash.unwrap(terms.providerOffer);
        uint256 supply = _supplies[terms.provider][offerHash];
        supply = SupplyWord.release(supply, terms.milliCpu, terms.memoryMib);
        uint256 freeMilliCpu = providerOffer.milliCpu - SupplyWord.usedMilliCpu(supply);
        uint256 freeMemoryMib = providerOffer.memoryMib - SupplyWord.usedMemoryMib(supply);
        if (change.milliCpu > freeMilliCpu) revert CapacityExceeded(freeMilliCpu, change.milliCpu);
        if (change.memoryMib > freeMemoryMib) revert CapacityExceeded(freeMemoryMib, change.memoryMib);
        supply = SupplyWord.reserve(supply, change.milliCpu, change.memoryMib);
        _supplies[terms.provider][offerHash] = supply;
    }

    /// @dev Remembers the old price for epochs that are not settled, and makes the bond fit the new one.
    function _reprice(DealId dealId, Deal memory item, Terms memory terms, DealChange calldata change) private {
        terms.priceFrom = _currentEpoch() + 1;
        // An unfunded deal has no next epoch that a new price could hold from.
        if (item.unfundedSince != 0 || change.endEpoch <= terms.priceFrom) revert ChangeMalformed();
        terms.oldPrice = item.price;
        uint256 bondBefore = _bondOf(item);
        item.price = change.pricePerEpoch;
        item.endEpoch = change.endEpoch;
        item.isChanged = true;
        _changes[dealId] = Change({
            sequence: change.sequence,
            from: uint32(terms.priceFrom),
            oldPrice: uint64(terms.oldPrice),
            milliCpu: change.milliCpu,
            memoryMib: change.memoryMib
        });
        uint256 bond = _bondOf(item);
        if (bond > bondBefore) _debit(terms.provider, bond - bondBefore);
        if (bond < bondBefore) _credit(terms.provider, bondBefore - bond);
        _emitChanged(dealId, change, bond, _paidUntil(item, terms));
    }

    function _emitChanged(DealId dealId, DealChange calldata change, uint256 bond, Epoch paidUntil) private {
        emit DealChanged(
            dealId,
            change.sequence,
            _changes[dealId].from,
            change.endEpoch,
            change.pricePerEpoch,
            change.milliCpu,
            change.memoryMib,
            uint64(bond),
            paidUntil
        );
    }

    /// @dev Makes the lock fit the new price and end: more comes from the developer's free balance as far as there is
    /// some, what is too much returns.
    function _relock(DealId dealId, Deal memory item, Terms memory terms) private {
        uint256 excess = _takeExcess(item, terms);
        if (excess != 0) {
            _credit(terms.developer, excess);
            emit DealRefunded(dealId, uint64(excess), _paidUntil(item, terms));
        }
        _settleAndCredit(dealId, item, terms);
    }

    function _requireNext(uint32 standing, uint32 given) private pure {
        if (given != standing + 1) revert SequenceWrong(standing + 1, given);
    }

    function _requireNotExpired(uint64 validUntil) private view {
        if (validUntil < block.timestamp) revert Expired(validUntil);
    }

    /// @dev Who calls need not sign.
    function _requireSignedBy(address signer, bytes32 structHash, bytes calldata signature) private view {
        if (signer == msg.sender) return;
        if (!Signatures.isValid(signer, _hashTypedData(structHash), signature)) revert SignatureInvalid(signer);
    }
}
