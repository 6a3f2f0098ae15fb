// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {IMarket} from "../interfaces/IMarket.sol";
import {DealTerms, Terms} from "../libraries/DealTerms.sol";
import {Deal} from "../libraries/DealWord.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {DealId, DealState, EndCause, Epoch} from "../types/Types.sol";
import {Deals} from "./Deals.sol";

/// @title Endings
/// @notice How deals end: cancelled, left with notice, evicted, or closed when nothing can be attested any more.
/// An ended deal gives back its capacity and its place in the developer offer.
abstract contract Endings is Deals {
    using EpochBitmap for EpochBitmap.Bitmap;

    /// @inheritdoc IMarket
    function cancelDeals(DealId[] calldata dealIds) external {
        uint256 end = _currentEpoch() + 1;
        for (uint256 i = 0; i < dealIds.length; ++i) {
            Deal memory item = _openDeal(dealIds[i]);
            Terms memory terms = DealTerms.read(item.termsNumber, item.termsIndex);
            if (terms.developer != msg.sender) revert NotDeveloper(dealIds[i], msg.sender);
            _endBy(dealIds[i], item, terms, end, EndCause.DeveloperCancelled);
        }
    }

    /// @inheritdoc IMarket
    function giveNotice(DealId[] calldata dealIds) external {
        uint256 end = _currentEpoch() + 1 + NOTICE_EPOCHS;
        for (uint256 i = 0; i < dealIds.length; ++i) {
            Deal memory item = _openDeal(dealIds[i]);
            Terms memory terms = DealTerms.read(item.termsNumber, item.termsIndex);
            if (terms.provider != msg.sender && terms.agent != msg.sender) revert NotProvider(dealIds[i], msg.sender);
            _endBy(dealIds[i], item, terms, end, EndCause.ProviderLeft);
        }
    }

    /// @inheritdoc IMarket
    function evict(DealId dealId) external {
        Deal memory item = _openDeal(dealId);
        Terms memory terms = DealTerms.read(item.termsNumber, item.termsIndex);
        _settle(dealId, item, terms);
        if (!_isEvictable(item, terms)) revert NotEvictable(dealId);
        _finish(dealId, item, terms, EndCause.ProviderEvicted);
    }

    /// @inheritdoc IMarket
    function closeDeal(DealId dealId) external {
        Deal memory item = _openDeal(dealId);
        Terms memory terms = DealTerms.read(item.termsNumber, item.termsIndex);
        _settle(dealId, item, terms);
        EndCause cause = _closingCause(dealId, item);
        // Whoever comes first, the provider to close or anybody to evict, the bond goes the same way.
        if (_isEvictable(item, terms)) cause = EndCause.ProviderEvicted;
        _finish(dealId, item, terms, cause);
    }

    /// @dev Moves the end forward to `end`; money for later epochs returns. No effect on a deal that ends by then.
    function _endBy(DealId dealId, Deal memory item, Terms memory terms, uint256 end, EndCause cause) private {
        if (end >= item.endEpoch) return;
        // Before settling, so that nothing is locked for epochs that will not be.
        item.endEpoch = uint32(end);
        item.state = DealState.Ending;
        item.cause = cause;
        _settle(dealId, item, terms);
        uint256 epochs = FixedPointMathLib.zeroFloorSub(_billedUntil(item), item.settledUntil);
        uint256 refund = FixedPointMathLib.zeroFloorSub(item.locked, epochs * terms.pricePerEpoch);
        item.locked -= uint64(refund);
        _store(dealId, item);
        _credit(terms.developer, refund);
        emit DealEnding(dealId, cause, Epoch.wrap(item.endEpoch), uint64(refund));
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
            uint256 graceOver = item.unfundedSince + GRACE_EPOCHS;
            if (current >= graceOver && item.settledUntil >= item.unfundedSince) return EndCause.Unfunded;
            uint256 settled = item.unfundedSince + ATTESTATION_WINDOW;
            closableFrom = FixedPointMathLib.min(closableFrom, FixedPointMathLib.max(graceOver, settled));
        }
        revert NotYetOver(dealId, Epoch.wrap(uint32(closableFrom)));
    }

    /// @dev Whether the last epochs that can't be attested any more and were paid for are all missing. The deal is
    /// settled.
    function _isEvictable(Deal memory item, Terms memory terms) private view returns (bool) {
        uint256 until = FixedPointMathLib.min(_closedBefore(_currentEpoch()), _billedUntil(item));
        if (until < item.fundedSince + EVICT_AFTER_MISSED) return false;
        return _attested[terms.agent].count(until - EVICT_AFTER_MISSED, until) == 0;
    }

    function _finish(DealId dealId, Deal memory item, Terms memory terms, EndCause cause) private {
        uint64 refund = item.locked;
        uint64 bond = _bondOf(terms);
        address bondTo = cause == EndCause.ProviderEvicted ? terms.developer : terms.provider;
        item.locked = 0;
        item.state = DealState.Ended;
        item.cause = cause;
        _store(dealId, item);
        _developerRecords[terms.developerOffer].liveReplicas -= 1;
        ProviderRecord storage supply = _providerRecords[terms.providerOffer];
        supply.usedMilliCpu -= terms.milliCpu;
        supply.usedMemoryMib -= terms.memoryMib;
        _credit(terms.developer, refund);
        _credit(bondTo, bond);
        emit DealEnded(dealId, cause, refund, bondTo, bond);
    }
}
