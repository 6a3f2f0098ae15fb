// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketCore} from "../interfaces/IMarketCore.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {OfferEncoding} from "../libraries/OfferEncoding.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {DeveloperOffer, OfferHash, ProviderOffer, Reason} from "../types/Types.sol";
import {OfferRules} from "../libraries/OfferRules.sol";
import {MatchRules} from "./MatchRules.sol";

/// @title OfferBook
/// @notice Offers that their owners post or void.
abstract contract OfferBook is IMarketCore, MatchRules {
    using OfferEncoding for DeveloperOffer;
    using OfferEncoding for ProviderOffer;
    using OfferRules for DeveloperOffer;
    using OfferRules for ProviderOffer;

    /// @inheritdoc IMarketCore
    function postProviderOffer(ProviderOffer calldata offer) external returns (OfferHash) {
        ProviderOffer memory loaded = offer.load()[0];
        if (loaded.provider != msg.sender) revert NotOfferOwner(loaded.provider, msg.sender);
        if (loaded.isMalformed()) revert OfferMalformed(Reason.ProviderOfferMalformed);
        SupplySide memory side;
        _readSupply(_domainSeparator(), loaded, side);
        OfferHash offerHash = OfferHash.wrap(side.offerHash);
        if (side.word & SupplyWord.KNOWN != 0) revert OfferAlreadyOpened(offerHash);
        Reason reason = _voidReason(loaded, side);
        if (reason != Reason.None) revert OfferVoid(offerHash, reason);
        _open(loaded, side);
        _supplies[msg.sender][side.offerHash] = side.word;
        return offerHash;
    }

    /// @inheritdoc IMarketCore
    function postDeveloperOffer(DeveloperOffer calldata offer) external returns (OfferHash) {
        DeveloperOffer memory loaded = offer.load()[0];
        if (loaded.developer != msg.sender) revert NotOfferOwner(loaded.developer, msg.sender);
        if (loaded.isMalformed(MIN_PREPAID_EPOCHS)) revert OfferMalformed(Reason.DeveloperOfferMalformed);
        DemandSide memory side;
        _readDemand(_domainSeparator(), loaded, side);
        OfferHash offerHash = OfferHash.wrap(side.offerHash);
        if (side.isKnown) revert OfferAlreadyOpened(offerHash);
        Reason reason = _voidReason(loaded, side);
        if (reason != Reason.None) revert OfferVoid(offerHash, reason);
        loaded.log(DeveloperOfferOpened.selector, side.offerHash);
        _demands[side.offerHash] = side.word;
        return offerHash;
    }

    /// @inheritdoc IMarketCore
    function cancelOffer(OfferHash offerHash) external {
        bytes32 hash = OfferHash.unwrap(offerHash);
        uint256 demand = _demands[hash];
        if (demand != 0) {
            address developer = DemandWord.developer(demand);
            if (developer != msg.sender) revert NotOfferOwner(developer, msg.sender);
            if (demand & DemandWord.CANCELLED != 0) return;
            _demands[hash] = demand | DemandWord.CANCELLED;
        } else {
            uint256 supply = _supplies[msg.sender][hash];
            if (supply & SupplyWord.CANCELLED != 0) return;
            _supplies[msg.sender][hash] = supply | SupplyWord.CANCELLED;
            // May be a developer offer that the chain does not know: those are looked up here only when this says so.
            if (supply == 0) _accounts[msg.sender] |= HAS_CANCELLED;
        }
        emit OfferCancelled(msg.sender, offerHash);
    }

    /// @inheritdoc IMarketCore
    function raiseNonceFloor(uint64 floor) external {
        uint256 word = _accounts[msg.sender];
        uint256 standing = _nonceFloorOf(word);
        if (floor <= standing) revert NonceFloorNotRaised(uint64(standing), floor);
        _accounts[msg.sender] = word + ((floor - standing) << 128);
        emit NonceFloorRaised(msg.sender, floor);
    }
}
