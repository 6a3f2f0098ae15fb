// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {IMarketCore} from "../interfaces/IMarketCore.sol";
import {Deal, DealWord} from "../libraries/DealWord.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {Slot, Slots} from "../libraries/Slots.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {DealId, DealRef, DealState, EndCause, OfferHash, Reason} from "../types/Types.sol";
import {Deals} from "./Deals.sol";

/// @title Claims
/// @notice What happens to deals every day: providers are paid, developers stop what they need no more.
abstract contract Claims is IMarketCore, Deals {
    using DealWord for uint256;
    using EpochBitmap for EpochBitmap.Bitmap;
    using Slots for Slot;
    using Slots for mapping(address => uint256);
    using Slots for mapping(DealId => uint256);

    /// @dev What the deals of one claim have in common.
    struct Batch {
        // `DealWord.plain` of the provider offer.
        uint256 plain;
        uint256 current;
        // The agent has attested all of these epochs, which most deals of a batch have to settle.
        uint256 servedFrom;
        uint256 servedUntil;
        // Account of the developer whose deals are being settled: read when the first of them is, written back when somebody
        // else's turn comes. `owner` is 0 while there is nothing to write.
        address owner;
        Slot ownerSlot;
        uint256 ownerWord;
    }

    /// @inheritdoc IMarketCore
    function claim(address provider, OfferHash providerOffer, OfferHash[] calldata developerOffers)
        external
        returns (uint256 paid)
    {
        uint256 supply = _supplies[provider][OfferHash.unwrap(providerOffer)];
        EpochBitmap.Bitmap storage attested = _attested[SupplyWord.agent(supply)];
        Batch memory batch;
        batch.plain = DealWord.plain(SupplyWord.number(supply));
        batch.current = _currentEpoch();
        for (uint256 i = 0; i < developerOffers.length; ++i) {
            OfferHash developerOffer;
            assembly ("memory-safe") {
                // Within the list, whose length was checked against calldata.
                developerOffer := calldataload(add(developerOffers.offset, shl(5, i)))
            }
            DealId dealId = _dealIdOf(developerOffer, provider);
            uint256 got = _settlePlain(dealId, developerOffer, attested, batch);
            if (got == 0) {
                _putBack(batch);
                got = _settleAny(dealId, DealRef(developerOffer, provider, providerOffer));
            }
            unchecked {
                // Each is below 2^65, and no call can carry 2^190 of them.
                paid += got;
            }
        }
        _putBack(batch);
        if (paid != 0) _credit(_payoutOf(provider, providerOffer, supply), paid);
    }

    /// @inheritdoc IMarketCore
    function cancelDeals(DealRef[] calldata deals) external {
        uint256 end = _currentEpoch() + 1;
        for (uint256 i = 0; i < deals.length; ++i) {
            (DealId dealId, Deal memory item, Terms memory terms) = _openDeal(deals[i]);
            if (terms.developer != msg.sender) revert NotDeveloper(dealId, msg.sender);
            _endBy(dealId, item, terms, end, EndCause.DeveloperCancelled);
        }
    }

    /// @dev What `_settle` does in the everyday case, at a fraction of its cost: a deal that never ran out of money and was
    /// never changed, served without a hole up to now, with money for all that is wanted. Pays 0 and does nothing in any
    /// other case. `test/ClaimPaths.t.sol` holds the two against each other.
    function _settlePlain(
        DealId dealId,
        OfferHash developerOffer,
        EpochBitmap.Bitmap storage attested,
        Batch memory batch
    ) private returns (uint256 paid) {
        Slot slot = _deals.at(dealId);
        uint256 word = slot.read();
        if (word & DealWord.PLAIN != batch.plain || !word.isOpen()) return 0;
        uint256 until = FixedPointMathLib.min(batch.current, word.endEpoch());
        unchecked {
            uint256 from = word.settledUntil();
            if (!_isServed(from, until, attested, batch)) return 0;
            paid = (until - from) * word.price();
            if (paid == 0) return 0;
        }
        uint256 demand = _demands[OfferHash.unwrap(developerOffer)];
        uint256 locked = _plainLock(word, until, DemandWord.prepaidEpochs(demand), paid);
        unchecked {
            // More than 64 bits is more than one settlement may move.
            if (locked + paid > type(uint64).max) return 0;
            uint256 toppedUp = locked + paid - word.locked();
            if (!_take(batch, DemandWord.developer(demand), toppedUp)) return 0;
            slot.write(word.settled(locked, until));
            bytes32 selector = DealSettled.selector;
            // `emit` would look once more whether the three fit their types.
            assembly ("memory-safe") {
                let data := mload(0x40)
                mstore(data, paid)
                mstore(add(data, 0x20), toppedUp)
                mstore(add(data, 0x40), until)
                log2(data, 0x60, selector, dealId)
            }
        }
    }

    /// @dev Whether there are epochs from `from` to `until` and all of them are attested.
    function _isServed(uint256 from, uint256 until, EpochBitmap.Bitmap storage attested, Batch memory batch)
        private
        view
        returns (bool)
    {
        if (until == batch.servedUntil && from == batch.servedFrom) return true;
        if (from >= until || !attested.isFull(from, until)) return false;
        batch.servedFrom = from;
        batch.servedUntil = until;
        return true;
    }

    /// @dev Takes from the free balance of `owner`, or nothing when there is less.
    function _take(Batch memory batch, address owner, uint256 amount) private returns (bool) {
        if (batch.owner != owner) {
            _putBack(batch);
            batch.owner = owner;
            batch.ownerSlot = _accounts.at(owner);
            batch.ownerWord = batch.ownerSlot.read();
        }
        if (uint128(batch.ownerWord) < amount) return false;
        unchecked {
            batch.ownerWord -= amount;
        }
        return true;
    }

    function _putBack(Batch memory batch) private {
        if (batch.owner == address(0)) return;
        batch.ownerSlot.write(batch.ownerWord);
        batch.owner = address(0);
    }

    /// @dev What is locked afterwards: as much as is wanted ahead, or what is left of an earlier lock when that is more.
    /// At least one epoch is wanted ahead, so that the lock reaches through the current one.
    function _plainLock(uint256 word, uint256 until, uint256 prepaidEpochs, uint256 paid)
        internal
        pure
        returns (uint256 locked)
    {
        unchecked {
            locked = FixedPointMathLib.min(prepaidEpochs, word.endEpoch() - until) * word.price();
            uint256 before = word.locked();
            if (before > locked + paid) locked = before - paid;
        }
    }

    /// @dev Settles by the whole rule.
    function _settleAny(DealId dealId, DealRef memory ref) private returns (uint256 paid) {
        Deal memory item;
        DealWord.unpack(_deals[dealId], item);
        Terms memory terms = _hostTerms(ref.provider, ref.providerOffer);
        Reason reason = _refuseClaim(item, terms);
        if (reason != Reason.None) {
            emit ClaimSkipped(dealId, reason);
            return 0;
        }
        _readTerms(dealId, item, terms, ref.developerOffer);
        paid = _settle(dealId, item, terms);
        _deals[dealId] = DealWord.pack(item);
    }

    function _refuseClaim(Deal memory item, Terms memory terms) private pure returns (Reason) {
        if (item.state == DealState.None) return Reason.DealUnknown;
        if (item.state == DealState.Ended) return Reason.DealAlreadyEnded;
        return item.offerNumber == terms.offerNumber ? Reason.None : Reason.ProviderOfferMismatch;
    }
}
