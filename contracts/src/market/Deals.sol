// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {IMarket} from "../interfaces/IMarket.sol";
import {DealTerms, Terms} from "../libraries/DealTerms.sol";
import {Deal, DealWord} from "../libraries/DealWord.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {DealId, DealState, DealView, EndCause, Epoch, OfferHash, Reason} from "../types/Types.sol";
import {Attestations} from "./Attestations.sol";
import {OfferBook} from "./OfferBook.sol";

/// @title Deals
/// @notice Paying for deals: what is settled, what stays locked, and when the money ends.
///
/// The rule, for a deal at price `p` that is settled in epoch `c`:
/// 1. Epochs whose attestation window is closed are final. Later ones are settled as far as they are attested without
///    a hole, so that settling early forfeits nothing.
/// 2. Each attested epoch costs `p`, from the lock and then from the developer's free balance. When the two together
///    can't pay one more epoch, settling stops right behind the last paid one.
/// 3. The lock is topped up from the free balance, in whole epochs, to `prepaidEpochs` ahead and at least through
///    epoch `c`, never beyond the end.
/// 4. When the lock then does not reach through epoch `c`, the deal is unfunded from the first epoch that it does not
///    cover. Nothing from there on is charged, attested or not; what lies before is fully locked and still paid.
/// 5. An unfunded deal goes on with epoch `c + 1` at the first settlement at which everything before the gap is
///    settled and lock and free balance hold at least one epoch's price. The gap itself is never charged.
abstract contract Deals is OfferBook, Attestations {
    using EpochBitmap for EpochBitmap.Bitmap;

    /// @dev What one settlement does.
    struct Settlement {
        uint256 current;
        uint256 funds;
        uint256 served;
        uint256 paid;
        uint256 toppedUp;
    }

    mapping(DealId => uint256 word) private _deals;

    /// @inheritdoc IMarket
    function claim(DealId[] calldata dealIds) external returns (uint256 paid) {
        for (uint256 i = 0; i < dealIds.length; ++i) {
            Deal memory item = DealWord.unpack(_deals[dealIds[i]]);
            if (item.state == DealState.None) {
                emit ClaimSkipped(dealIds[i], Reason.DealUnknown);
            } else if (item.state == DealState.Ended) {
                emit ClaimSkipped(dealIds[i], Reason.DealAlreadyEnded);
            } else {
                paid += _settle(dealIds[i], item, DealTerms.read(item.termsNumber, item.termsIndex));
                _store(dealIds[i], item);
            }
        }
    }

    /// @inheritdoc IMarket
    function fundDeal(DealId dealId, uint64 amount) external {
        if (amount == 0) revert ZeroAmount();
        Deal memory item = _openDeal(dealId);
        Terms memory terms = DealTerms.read(item.termsNumber, item.termsIndex);
        _settle(dealId, item, terms);
        _debit(msg.sender, amount);
        uint256 locked = uint256(item.locked) + amount;
        if (locked > type(uint64).max) revert BalanceTooLarge(locked);
        item.locked = uint64(locked);
        emit DealFunded(dealId, msg.sender, amount, _paidUntil(item, terms.pricePerEpoch));
        if (item.unfundedSince != 0) {
            _settle(dealId, item, terms);
            if (item.unfundedSince != 0) emit DealUnfunded(dealId, Epoch.wrap(item.unfundedSince));
        }
        _store(dealId, item);
    }

    /// @inheritdoc IMarket
    function dealIdOf(OfferHash developerOffer, address provider) public pure returns (DealId) {
        return DealId.wrap(keccak256(abi.encode(developerOffer, provider)));
    }

    /// @inheritdoc IMarket
    function deal(DealId dealId) external view returns (DealView memory) {
        DealView memory shown;
        Deal memory item = DealWord.unpack(_deals[dealId]);
        if (item.state == DealState.None) return shown;
        Terms memory terms = DealTerms.read(item.termsNumber, item.termsIndex);
        shown.developerOffer = OfferHash.wrap(terms.developerOffer);
        shown.providerOffer = OfferHash.wrap(terms.providerOffer);
        shown.developer = terms.developer;
        shown.provider = terms.provider;
        shown.agent = terms.agent;
        shown.payout = terms.payout;
        shown.milliCpu = terms.milliCpu;
        shown.memoryMib = terms.memoryMib;
        shown.pricePerEpoch = terms.pricePerEpoch;
        shown.startEpoch = Epoch.wrap(terms.startEpoch);
        shown.endEpoch = Epoch.wrap(item.endEpoch);
        shown.settledUntil = Epoch.wrap(item.settledUntil);
        shown.paidUntil = _paidUntil(item, terms.pricePerEpoch);
        shown.locked = item.locked;
        shown.bond = item.state == DealState.Ended ? 0 : _bondOf(terms);
        shown.unfundedSince = Epoch.wrap(item.unfundedSince);
        shown.state = item.state;
        shown.cause = item.cause;
        return shown;
    }

    function _store(DealId dealId, Deal memory item) internal {
        _deals[dealId] = DealWord.pack(item);
    }

    /// @dev Whether a deal of this id was ever opened.
    function _exists(DealId dealId) internal view returns (bool) {
        return _deals[dealId] != 0;
    }

    /// @dev The deal, which must not have ended.
    function _openDeal(DealId dealId) internal view returns (Deal memory item) {
        item = DealWord.unpack(_deals[dealId]);
        if (item.state == DealState.None || item.state == DealState.Ended) revert DealNotOpen(dealId);
    }

    /// @dev Follows from constants, so it needs no place of its own. A match makes sure that it fits.
    function _bondOf(Terms memory terms) internal view returns (uint64) {
        return uint64(terms.pricePerEpoch * BOND_EPOCHS);
    }

    /// @dev Settles by the rule above. Balances are stored here; `item` is left for the caller to store.
    ///
    /// Arithmetic is unchecked here and below: `funds` has 64 bits, everything that is paid or locked comes out of it,
    /// and an epoch has 32 bits as a price has 64, so that no product reaches 97.
    function _settle(DealId dealId, Deal memory item, Terms memory terms) internal returns (uint256) {
        Settlement memory s;
        s.current = _currentEpoch();
        bool wasUnfunded = item.unfundedSince != 0;
        uint256 settledBefore = item.settledUntil;
        unchecked {
            // All that may be spent; what exceeds 64 bits could not be locked.
            uint256 funds = uint256(item.locked) + _accounts[terms.developer].free;
            s.funds = FixedPointMathLib.min(funds, type(uint64).max);
        }
        _countServed(s, item, terms);
        if (wasUnfunded) _resumeIfFunded(s, item, terms);
        _renewLock(s, item, terms);
        if (s.toppedUp != 0) _debit(terms.developer, s.toppedUp);
        if (s.paid != 0) _credit(terms.payout, s.paid);
        bool changed = s.paid != 0 || s.toppedUp != 0 || item.settledUntil != settledBefore;
        if (changed) _emitSettled(dealId, s, item, terms);
        // Said again after each settlement during which it stays so.
        if (item.unfundedSince != 0 && (changed || !wasUnfunded)) {
            emit DealUnfunded(dealId, Epoch.wrap(item.unfundedSince));
        }
        return s.paid;
    }

    /// @dev First epoch from which on the lock pays nothing.
    function _paidUntil(Deal memory item, uint256 price) internal pure returns (Epoch) {
        uint256 until = item.unfundedSince;
        if (until == 0) until = _coveredUntil(item, price);
        return Epoch.wrap(uint32(FixedPointMathLib.min(until, item.endEpoch)));
    }

    /// @dev First epoch that is not billed as things stand: the end, or the gap that has opened before.
    function _billedUntil(Deal memory item) internal pure returns (uint256) {
        if (item.unfundedSince == 0) return item.endEpoch;
        return FixedPointMathLib.min(item.unfundedSince, item.endEpoch);
    }

    /// @dev Rules 1 and 2: how far is settled, how many epochs that pays.
    function _countServed(Settlement memory s, Deal memory item, Terms memory terms) private view {
        EpochBitmap.Bitmap storage attested = _attested[terms.agent];
        uint256 from = item.settledUntil;
        uint256 limit = _billedUntil(item);
        uint256 to = FixedPointMathLib.max(from, FixedPointMathLib.min(_closedBefore(s.current), limit));
        to = attested.runEnd(to, FixedPointMathLib.min(s.current, limit));
        uint256 price = terms.pricePerEpoch;
        uint256 served = attested.count(from, to);
        unchecked {
            // Before a gap everything is locked, so only a funded deal can run out here.
            if (item.unfundedSince == 0 && price != 0 && s.funds < (served + 1) * price) {
                served = s.funds / price;
                to = attested.endOfNth(from, to, served);
            }
            s.paid = served * price;
        }
        s.served = served;
        item.settledUntil = uint32(to);
    }

    /// @dev Rule 5.
    function _resumeIfFunded(Settlement memory s, Deal memory item, Terms memory terms) private pure {
        if (item.settledUntil < item.unfundedSince) return;
        unchecked {
            uint256 next = s.current + 1;
            if (s.funds - s.paid < terms.pricePerEpoch || next >= item.endEpoch) return;
            item.unfundedSince = 0;
            item.settledUntil = uint32(next);
            item.fundedSince = uint32(next);
        }
    }

    /// @dev Rules 3 and 4.
    function _renewLock(Settlement memory s, Deal memory item, Terms memory terms) private pure {
        uint256 left = FixedPointMathLib.zeroFloorSub(item.locked, s.paid);
        if (item.unfundedSince != 0) {
            item.locked = uint64(left);
            return;
        }
        uint256 price = terms.pricePerEpoch;
        uint256 settled = item.settledUntil;
        uint256 end = item.endEpoch;
        unchecked {
            uint256 next = s.current + 1;
            uint256 ahead = FixedPointMathLib.max(FixedPointMathLib.zeroFloorSub(next, settled), terms.prepaidEpochs);
            ahead = FixedPointMathLib.min(ahead, FixedPointMathLib.zeroFloorSub(end, settled));
            uint256 affordable = price == 0 ? ahead : (s.funds - s.paid) / price;
            uint256 locked = FixedPointMathLib.max(left, FixedPointMathLib.min(ahead, affordable) * price);
            s.toppedUp = locked + s.paid - item.locked;
            item.locked = uint64(locked);
            // All that was wanted is locked, which reaches through the current epoch.
            if (ahead <= affordable) return;
            uint256 covered = settled + locked / price;
            if (covered < FixedPointMathLib.min(next, end)) item.unfundedSince = uint32(covered);
        }
    }

    function _coveredUntil(Deal memory item, uint256 price) private pure returns (uint256) {
        unchecked {
            return price == 0 ? type(uint32).max : item.settledUntil + item.locked / price;
        }
    }

    function _emitSettled(DealId dealId, Settlement memory s, Deal memory item, Terms memory terms) private {
        emit DealSettled(
            dealId,
            terms.payout,
            uint32(s.served),
            uint64(s.paid),
            uint64(s.toppedUp),
            Epoch.wrap(item.settledUntil),
            _paidUntil(item, terms.pricePerEpoch)
        );
    }
}
