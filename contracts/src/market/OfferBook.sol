// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarket} from "../interfaces/IMarket.sol";
import {OfferHashing} from "../libraries/OfferHashing.sol";
import {OfferRules} from "../libraries/OfferRules.sol";
import {DeveloperOffer, Epoch, OfferHash, ProviderOffer, Reason} from "../types/Types.sol";
import {Escrow} from "./Escrow.sol";

/// @title OfferBook
/// @notice Offers that the chain knows, and those that their owners voided.
/// @dev Of an offer only what changes is kept, in one word; its terms come with every match and are held by its hash.
abstract contract OfferBook is Escrow {
    using OfferHashing for DeveloperOffer;
    using OfferHashing for ProviderOffer;
    using OfferRules for DeveloperOffer;
    using OfferRules for ProviderOffer;

    struct ProviderRecord {
        address provider;
        uint32 usedMilliCpu;
        uint32 usedMemoryMib;
        bool cancelled;
    }

    struct DeveloperRecord {
        address developer;
        uint32 endEpoch;
        uint16 liveReplicas;
        bool cancelled;
    }

    mapping(bytes32 offerHash => ProviderRecord) internal _providerRecords;
    mapping(bytes32 offerHash => DeveloperRecord) internal _developerRecords;
    /// @dev Offers that were cancelled before the chain knew them. Keyed by the owner, since nobody can tell whose a
    /// bare hash is.
    mapping(address owner => mapping(bytes32 offerHash => bool)) private _cancelledUnseen;

    /// @inheritdoc IMarket
    function postProviderOffer(ProviderOffer calldata offer) external returns (OfferHash) {
        if (offer.provider != msg.sender) revert NotOfferOwner(offer.provider, msg.sender);
        if (offer.isMalformed()) revert OfferMalformed(Reason.ProviderOfferMalformed);
        bytes32 offerHash = _hash(offer);
        if (_providerRecords[offerHash].provider != address(0)) revert OfferAlreadyOpened(OfferHash.wrap(offerHash));
        Reason reason = _voidReason(offer, offerHash);
        if (reason != Reason.None) revert OfferVoid(OfferHash.wrap(offerHash), reason);
        _open(offer, offerHash);
        return OfferHash.wrap(offerHash);
    }

    /// @inheritdoc IMarket
    function postDeveloperOffer(DeveloperOffer calldata offer) external returns (OfferHash) {
        if (offer.developer != msg.sender) revert NotOfferOwner(offer.developer, msg.sender);
        if (offer.isMalformed(MIN_PREPAID_EPOCHS)) revert OfferMalformed(Reason.DeveloperOfferMalformed);
        bytes32 offerHash = _hash(offer);
        if (_developerRecords[offerHash].developer != address(0)) revert OfferAlreadyOpened(OfferHash.wrap(offerHash));
        Reason reason = _voidReason(offer, offerHash);
        if (reason != Reason.None) revert OfferVoid(OfferHash.wrap(offerHash), reason);
        _open(offer, offerHash);
        return OfferHash.wrap(offerHash);
    }

    /// @inheritdoc IMarket
    function cancelOffer(OfferHash offerHash) external {
        if (!_cancel(OfferHash.unwrap(offerHash))) emit OfferCancelled(msg.sender, offerHash);
    }

    /// @inheritdoc IMarket
    function raiseNonceFloor(uint64 floor) external {
        uint64 standing = _accounts[msg.sender].nonceFloor;
        if (floor <= standing) revert NonceFloorNotRaised(standing, floor);
        _accounts[msg.sender].nonceFloor = floor;
        emit NonceFloorRaised(msg.sender, floor);
    }

    /// @inheritdoc IMarket
    function hashProviderOffer(ProviderOffer calldata offer) external view returns (OfferHash) {
        return OfferHash.wrap(_hash(offer));
    }

    /// @inheritdoc IMarket
    function hashDeveloperOffer(DeveloperOffer calldata offer) external view returns (OfferHash) {
        return OfferHash.wrap(_hash(offer));
    }

    /// @inheritdoc IMarket
    function isCancelled(address owner, OfferHash offerHash) external view returns (bool) {
        bytes32 key = OfferHash.unwrap(offerHash);
        DeveloperRecord storage developerRecord = _developerRecords[key];
        if (developerRecord.developer == owner && developerRecord.cancelled) return true;
        ProviderRecord storage providerRecord = _providerRecords[key];
        if (providerRecord.provider == owner && providerRecord.cancelled) return true;
        return _cancelledUnseen[owner][key];
    }

    /// @inheritdoc IMarket
    function nonceFloor(address owner) external view returns (uint64) {
        return _accounts[owner].nonceFloor;
    }

    /// @inheritdoc IMarket
    function usedCapacity(OfferHash providerOffer) external view returns (uint64 milliCpu, uint64 memoryMib) {
        ProviderRecord storage record = _providerRecords[OfferHash.unwrap(providerOffer)];
        return (record.usedMilliCpu, record.usedMemoryMib);
    }

    /// @inheritdoc IMarket
    function placement(OfferHash developerOffer) external view returns (uint16 liveReplicas, Epoch endEpoch) {
        DeveloperRecord storage record = _developerRecords[OfferHash.unwrap(developerOffer)];
        return (record.liveReplicas, Epoch.wrap(record.endEpoch));
    }

    /// @inheritdoc IMarket
    function askOf(ProviderOffer calldata offer, uint32 milliCpu, uint32 memoryMib) external pure returns (uint256) {
        return offer.ask(milliCpu, memoryMib);
    }

    function _hash(ProviderOffer calldata offer) internal view returns (bytes32) {
        return _hashTypedData(offer.structHash());
    }

    function _hash(DeveloperOffer calldata offer) internal view returns (bytes32) {
        return _hashTypedData(offer.structHash());
    }

    function _open(ProviderOffer calldata offer, bytes32 offerHash) internal {
        _providerRecords[offerHash].provider = offer.provider;
        emit ProviderOfferOpened(OfferHash.wrap(offerHash), offer.provider, offer);
    }

    function _open(DeveloperOffer calldata offer, bytes32 offerHash) internal {
        _developerRecords[offerHash].developer = offer.developer;
        emit DeveloperOfferOpened(OfferHash.wrap(offerHash), offer.developer, offer);
    }

    /// @dev Why the offer accepts no match any more, whatever the other side.
    function _voidReason(ProviderOffer calldata offer, bytes32 offerHash) internal view returns (Reason) {
        ProviderRecord storage record = _providerRecords[offerHash];
        bool known = record.provider != address(0);
        bool cancelled = known ? record.cancelled : _cancelledUnseen[offer.provider][offerHash];
        if (cancelled) return Reason.ProviderOfferCancelled;
        if (offer.nonce < _accounts[offer.provider].nonceFloor) return Reason.ProviderNonceTooLow;
        if (offer.validUntil < block.timestamp) return Reason.ProviderOfferExpired;
        return Reason.None;
    }

    /// @dev As above.
    function _voidReason(DeveloperOffer calldata offer, bytes32 offerHash) internal view returns (Reason) {
        DeveloperRecord storage record = _developerRecords[offerHash];
        bool known = record.developer != address(0);
        bool cancelled = known ? record.cancelled : _cancelledUnseen[offer.developer][offerHash];
        if (cancelled) return Reason.DeveloperOfferCancelled;
        if (offer.nonce < _accounts[offer.developer].nonceFloor) return Reason.DeveloperNonceTooLow;
        if (offer.validUntil < block.timestamp) return Reason.DeveloperOfferExpired;
        return Reason.None;
    }

    /// @dev Marks the caller's offer as cancelled and says whether it was so before.
    function _cancel(bytes32 offerHash) private returns (bool wasCancelled) {
        DeveloperRecord storage developerRecord = _developerRecords[offerHash];
        if (developerRecord.developer != address(0)) {
            _requireOwner(developerRecord.developer);
            wasCancelled = developerRecord.cancelled;
            developerRecord.cancelled = true;
            return wasCancelled;
        }
        ProviderRecord storage providerRecord = _providerRecords[offerHash];
        if (providerRecord.provider != address(0)) {
            _requireOwner(providerRecord.provider);
            wasCancelled = providerRecord.cancelled;
            providerRecord.cancelled = true;
            return wasCancelled;
        }
        wasCancelled = _cancelledUnseen[msg.sender][offerHash];
        _cancelledUnseen[msg.sender][offerHash] = true;
    }

    function _requireOwner(address owner) private view {
        if (owner != msg.sender) revert NotOfferOwner(owner, msg.sender);
    }
}
