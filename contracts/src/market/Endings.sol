// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {IMarketExtension} from "../interfaces/IMarketExtension.sol";
import {Deal, DealWord} from "../libraries/DealWord.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {OfferHashing} from "../libraries/OfferHashing.sol";
import {Signatures} from "../libraries/Signatures.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {DealId, DealRef, DealState, EndCause, Epoch, OfferHash, Receipt} from "../types/Types.sol";
import {Deals} from "./Deals.sol";

/// @title Endings
/// @notice How deals end otherwise than by their developer: left with notice, evicted, slashed, or closed when nothing
/// can be attested any more. An ended deal gives back its capacity and its place in the developer offer.
abstract contract Endings is IMarketExtension, Deals {
    using EpochBitmap for EpochBitmap.Bitmap;
    using OfferHashing for Receipt;

    /// @inheritdoc IMarketExtension
    function giveNotice(DealRef[] calldata deals) external {
        uint256 end = _currentEpoch() + 1 + NOTICE_EPOCHS;
        for (uint256 i = 0; i < deals.length; ++i) {
            (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(deals[i]);
            if (terms.provider != msg.sender && terms.agent != msg.sender) revert NotProvider(dealId, msg.sender);
            _endBy(dealId, item, terms, end, EndCause.ProviderLeft);
        }
    }

    /// @inheritdoc IMarketExtension
    function evict(DealRef calldata ref) external {
        (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(ref);
        _settleAndCredit(dealId, item, terms);
        if (!_isEvictable(item, terms)) revert NotEvictable(dealId);
        _finish(dealId, item, terms, EndCause.ProviderEvicted);
    }

    /// @inheritdoc IMarketExtension
    function closeDeal(DealRef calldata ref) external {
        (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(ref);
        _settleAndCredit(dealId, item, terms);
        EndCause cause = _closingCause(dealId, item);
        // Whoever comes first, the provider to close or anybody to evict, the bond goes the same way.
        if (_isEvictable(item, terms)) cause = EndCause.ProviderEvicted;
        _finish(dealId, item, terms, cause);
    }

    /// @inheritdoc IMarketExtension
    function slash(
        DealRef calldata ref,
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external {
        (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(ref);
        bool isSameDeal = DealId.unwrap(first.dealId) == DealId.unwrap(dealId)
            && DealId.unwrap(second.dealId) == DealId.unwrap(dealId);
        if (!isSameDeal || first.sequence != second.sequence || first.content == second.content) {
            revert ReceiptsAgree();
        }
        _requireReceiptOf(terms.agent, first, firstSignature);
        _requireReceiptOf(terms.agent, second, secondSignature);
        _settleAndCredit(dealId, item, terms);
        _finish(dealId, item, terms, EndCause.ProviderSlashed);
    }

    function _requireReceiptOf(address agent, Receipt calldata receipt, bytes calldata signature) private view {
        bool isSigned = Signatures.isValid(agent, _hashTypedData(receipt.structHash()), signature);
        if (!isSigned) revert SignatureInvalid(agent);
    }

    /// @dev Why the deal can be closed now; reverts when it can't. The deal is settled.
    function _closingCause(DealId dealId, Deal memory item) private view returns (EndCause) {
        uint256 current = _currentEpoch();
        uint256 closableFrom = item.endEpoch + ATTESTATION_WINDOW;
        // With every epoch attested and paid there is nothing to wait for.
        bool settledToEnd = current >= item.endEpoch && item.settledUntil >= item.endEpoch;
        if (current >= closableFrom || settledToEnd) {
            return item.cause == EndCause.None ? EndCause.TermOver : item.cause;
        }
        if (item.unfundedSince != 0) {
            uint256 from = item.unfundedSince + GRACE_EPOCHS;
            bool isSettled = item.settledUntil >= item.unfundedSince;
            if (current >= from && isSettled) return EndCause.Unfunded;
            if (!isSettled) from = FixedPointMathLib.max(from, item.unfundedSince + ATTESTATION_WINDOW);
            closableFrom = FixedPointMathLib.min(closableFrom, from);
        }
        revert NotYetOver(dealId, Epoch.wrap(uint32(closableFrom)));
    }

    /// @dev Whether the last epochs that can't be attested any more and were paid for are all missing. The deal is
    /// settled.
    function _isEvictable(Deal memory item, Terms memory terms) private view returns (bool) {
        uint256 until = FixedPointMathLib.min(_closedBefore(_currentEpoch()), _billedUntil(item));
        // `settledUntil - fundedFor` is the first epoch since which the deal is funded, or a later one that lies further
        // back than the constants reach.
        if (until + item.fundedFor < item.settledUntil + EVICT_AFTER_MISSED) return false;
        return _attested[terms.agent].count(until - EVICT_AFTER_MISSED, until) == 0;
    }

    function _finish(DealId dealId, Deal memory item, Terms memory terms, EndCause cause) private {
        uint256 refund = item.locked;
        uint256 bond = _bondOf(item);
        bool isForfeit = cause == EndCause.ProviderEvicted || cause == EndCause.ProviderSlashed;
        address bondTo = isForfeit ? terms.developer : terms.provider;
        item.locked = 0;
        item.state = DealState.Ended;
        item.cause = cause;
        _deals[dealId] = DealWord.pack(item);
        _demands[OfferHash.unwrap(terms.developerOffer)] -= DemandWord.ONE_REPLICA;
        bytes32 providerOffer = OfferHash.unwrap(terms.providerOffer);
        uint256 supply = _supplies[terms.provider][providerOffer];
        _supplies[terms.provider][providerOffer] = SupplyWord.release(supply, terms.milliCpu, terms.memoryMib);
        _credit(terms.developer, refund);
        _credit(bondTo, bond);
        emit DealEnded(dealId, cause, uint64(refund), bondTo, uint64(bond));
    }
}
