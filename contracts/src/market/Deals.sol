// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {Deal, DealWord} from "../libraries/DealWord.sol";
import {DemandWord} from "../libraries/DemandWord.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {SupplyWord} from "../libraries/SupplyWord.sol";
import {DealId, DealRef, DealState, EndCause, Epoch, OfferHash} from "../types/Types.sol";
import {MarketBase} from "./MarketBase.sol";

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
///
/// `p` is the old price for epochs before the last change of the deal took effect, and the new one from there on.
abstract contract Deals is MarketBase {
    using DemandWord for uint256;
    using EpochBitmap for EpochBitmap.Bitmap;

    /// @dev What a deal was made of, as far as the chain keeps it.
    struct Terms {
        OfferHash developerOffer;
        OfferHash providerOffer;
        address provider;
        address developer;
        address agent;
        address payout;
        uint256 offerNumber;
        uint256 prepaidEpochs;
        uint256 milliCpu;
        uint256 memoryMib;
        // Epochs before `priceFrom` cost `oldPrice`.
        uint256 priceFrom;
        uint256 oldPrice;
    }

    /// @dev The deal, which must not have ended, and its terms.
    function _openDeal(DealRef calldata ref)
        internal
        view
        returns (DealId dealId, Deal memory item, Terms memory terms)
    {
        dealId = _dealIdOf(ref.developerOffer, ref.provider);
        DealWord.unpack(_deals[dealId], item);
        if (item.state == DealState.None || item.state == DealState.Ended) revert DealNotOpen(dealId);
        terms = _hostTerms(ref.provider, ref.providerOffer);
        if (terms.offerNumber != item.offerNumber) revert ProviderOfferMismatch(dealId);
        _readTerms(dealId, item, terms, ref.developerOffer);
    }

    /// @dev The provider's part, the same for all deals of a provider offer.
    function _hostTerms(address provider, OfferHash providerOffer) internal view returns (Terms memory terms) {
        uint256 supply = _supplies[provider][OfferHash.unwrap(providerOffer)];
        terms.providerOffer = providerOffer;
        terms.provider = provider;
        terms.agent = SupplyWord.agent(supply);
        terms.offerNumber = SupplyWord.number(supply);
        terms.payout = _payoutOf(provider, providerOffer, supply);
    }

    /// @dev The account that is paid for deals of a provider offer, of which `supply` is kept.
    function _payoutOf(address provider, OfferHash providerOffer, uint256 supply) internal view returns (address) {
        return supply & SupplyWord.PAYOUT == 0 ? provider : _payouts[OfferHash.unwrap(providerOffer)];
    }

    /// @dev The rest of the terms of one deal.
    function _readTerms(DealId dealId, Deal memory item, Terms memory terms, OfferHash developerOffer) internal view {
        uint256 demand = _demands[OfferHash.unwrap(developerOffer)];
        terms.developerOffer = developerOffer;
        terms.developer = demand.developer();
        terms.prepaidEpochs = demand.prepaidEpochs();
        terms.milliCpu = demand.milliCpu();
        terms.memoryMib = demand.memoryMib();
        terms.priceFrom = 0;
        if (!item.isChanged) return;
        Change storage change = _changes[dealId];
        terms.priceFrom = change.from;
        terms.oldPrice = change.oldPrice;
        terms.milliCpu = change.milliCpu;
        terms.memoryMib = change.memoryMib;
    }

    /// @dev Settles by the rule above and says what was paid, which is left for the caller to credit, as `item` is to
    /// store.
    ///
    /// Arithmetic is unchecked here and below: `funds` has 64 bits, everything that is paid or locked comes out of it,
    /// and an epoch has 32 bits as a price has 48, so that no product reaches 81.
    function _settle(DealId dealId, Deal memory item, Terms memory terms) internal returns (uint256 paid) {
        unchecked {
            uint256 current = _currentEpoch();
            uint256 gapBefore = item.unfundedSince;
            uint256 settledBefore = item.settledUntil;
            uint256 free = _freeOf(terms.developer);
            // All that may be spent; what exceeds 64 bits could not be locked.
            uint256 funds = FixedPointMathLib.min(item.locked + free, type(uint64).max);
            paid = _payServed(item, terms, current, funds);
            if (gapBefore != 0) _resumeIfFunded(item, current, funds - paid);
            uint256 toppedUp = _renewLock(item, terms, current, funds, paid);
            if (toppedUp != 0) _debit(terms.developer, toppedUp);
            bool isChanged = item.settledUntil != settledBefore;
            // All of this was before a gap that opens now, but none of it is behind one that ends now.
            if (isChanged && gapBefore <= item.unfundedSince) {
                uint256 fundedFor = item.fundedFor + item.settledUntil - settledBefore;
                item.fundedFor = FixedPointMathLib.min(fundedFor, DealWord.MAX_FUNDED_FOR);
            }
            isChanged = isChanged || paid != 0 || toppedUp != 0;
            if (isChanged) {
                Epoch settledUntil = Epoch.wrap(uint32(item.settledUntil));
                emit DealSettled(dealId, uint64(paid), uint64(toppedUp), settledUntil);
            }
            // Said again after each settlement during which it stays so.
            if (item.unfundedSince != 0 && (isChanged || gapBefore == 0)) {
                emit DealUnfunded(dealId, Epoch.wrap(uint32(item.unfundedSince)));
            }
        }
    }

    /// @dev Settles one deal, credits the payout account, and leaves `item` for the caller to store.
    function _settleAndCredit(DealId dealId, Deal memory item, Terms memory terms) internal {
        uint256 paid = _settle(dealId, item, terms);
        if (paid != 0) _credit(terms.payout, paid);
    }

    /// @dev Moves the end forward to `end`; money for later epochs returns. No effect on a deal that ends by then.
    function _endBy(DealId dealId, Deal memory item, Terms memory terms, uint256 end, EndCause cause) internal {
        if (end >= item.endEpoch) return;
        // Before settling, so that nothing is locked for epochs that will not be.
        item.endEpoch = end;
        item.state = DealState.Ending;
        item.cause = cause;
        _settleAndCredit(dealId, item, terms);
        uint256 refund = _takeExcess(item, terms);
        _deals[dealId] = DealWord.pack(item);
        _credit(terms.developer, refund);
        emit DealEnding(dealId, cause, Epoch.wrap(uint32(end)), uint64(refund));
    }

    /// @dev Takes out of the lock what no billed epoch can need. The deal is settled.
    function _takeExcess(Deal memory item, Terms memory terms) internal pure returns (uint256 excess) {
        uint256 needed = _cost(item, terms, item.settledUntil, _billedUntil(item));
        excess = FixedPointMathLib.zeroFloorSub(item.locked, needed);
        unchecked {
            item.locked -= excess;
        }
    }

    /// @dev First epoch from which on the lock pays nothing.
    function _paidUntil(Deal memory item, Terms memory terms) internal pure returns (Epoch) {
        uint256 until = item.unfundedSince;
        if (until == 0) until = _reach(item, terms, item.settledUntil, item.locked);
        return Epoch.wrap(uint32(FixedPointMathLib.min(until, item.endEpoch)));
    }

    /// @dev First epoch that is not billed as things stand: the end, or the gap that has opened before.
    function _billedUntil(Deal memory item) internal pure returns (uint256) {
        if (item.unfundedSince == 0) return item.endEpoch;
        return FixedPointMathLib.min(item.unfundedSince, item.endEpoch);
    }

    /// @dev A price is below 2^48 and the constant below 2^14.
    function _bondOf(Deal memory item) internal view returns (uint256) {
        unchecked {
            return item.price * BOND_EPOCHS;
        }
    }

    /// @dev Price of the epochs in `[from, to)`.
    function _cost(Deal memory item, Terms memory terms, uint256 from, uint256 to) internal pure returns (uint256) {
        unchecked {
            if (from >= to) return 0;
            if (from >= terms.priceFrom) return (to - from) * item.price;
            uint256 oldUntil = FixedPointMathLib.min(to, terms.priceFrom);
            return (oldUntil - from) * terms.oldPrice + (to - oldUntil) * item.price;
        }
    }

    /// @dev How far `funds` pay all epochs from `from` on.
    function _reach(Deal memory item, Terms memory terms, uint256 from, uint256 funds) internal pure returns (uint256) {
        unchecked {
            if (from < terms.priceFrom) {
                uint256 old = (terms.priceFrom - from) * terms.oldPrice;
                if (funds < old) return from + funds / terms.oldPrice;
                funds -= old;
                from = terms.priceFrom;
            }
            return item.price == 0 ? type(uint64).max : from + funds / item.price;
        }
    }

    /// @dev Rules 1 and 2: how far is settled, and what that pays.
    function _payServed(Deal memory item, Terms memory terms, uint256 current, uint256 funds)
        private
        view
        returns (uint256 paid)
    {
        uint256 limit = _billedUntil(item);
        if (item.settledUntil < terms.priceFrom) {
            uint256 oldLimit = FixedPointMathLib.min(limit, terms.priceFrom);
            paid = _payServedAt(item, terms.agent, current, oldLimit, terms.oldPrice, funds);
            if (item.settledUntil != terms.priceFrom) return paid;
            funds -= paid;
        }
        return paid + _payServedAt(item, terms.agent, current, limit, item.price, funds);
    }

    /// @dev The same for epochs of one price, before `limit`.
    function _payServedAt(Deal memory item, address agent, uint256 current, uint256 limit, uint256 price, uint256 funds)
        internal
        view
        returns (uint256 paid)
    {
        EpochBitmap.Bitmap storage attested = _attested[agent];
        uint256 from = item.settledUntil;
        uint256 to = FixedPointMathLib.max(from, FixedPointMathLib.min(_closedBefore(current), limit));
        to = attested.runEnd(to, FixedPointMathLib.min(current, limit));
        uint256 served = attested.count(from, to);
        unchecked {
            // Before a gap everything is locked, so only a funded deal can run out here.
            if (item.unfundedSince == 0 && price != 0 && funds < (served + 1) * price) {
                served = funds / price;
                to = attested.endOfNth(from, to, served);
            }
            item.settledUntil = to;
            return served * price;
        }
    }

    /// @dev Rule 5.
    function _resumeIfFunded(Deal memory item, uint256 current, uint256 funds) private pure {
        unchecked {
            uint256 next = current + 1;
            if (item.settledUntil < item.unfundedSince || funds < item.price || next >= item.endEpoch) return;
            item.unfundedSince = 0;
            item.settledUntil = next;
            item.fundedFor = 0;
        }
    }

    /// @dev Rules 3 and 4.
    /// @return toppedUp What the developer's free balance gives.
    function _renewLock(Deal memory item, Terms memory terms, uint256 current, uint256 funds, uint256 paid)
        internal
        pure
        returns (uint256 toppedUp)
    {
        uint256 left = FixedPointMathLib.zeroFloorSub(item.locked, paid);
        if (item.unfundedSince != 0) {
            item.locked = left;
            return 0;
        }
        unchecked {
            uint256 settled = item.settledUntil;
            uint256 throughCurrent = FixedPointMathLib.min(current + 1, item.endEpoch);
            uint256 wanted = FixedPointMathLib.min(settled + terms.prepaidEpochs, item.endEpoch);
            wanted = FixedPointMathLib.max(wanted, throughCurrent);
            uint256 affordable = _reach(item, terms, settled, funds - paid);
            uint256 until = FixedPointMathLib.min(wanted, affordable);
            uint256 locked = FixedPointMathLib.max(left, _cost(item, terms, settled, until));
            toppedUp = locked + paid - item.locked;
            item.locked = locked;
            // All that was wanted is locked, which reaches through the current epoch.
            if (wanted <= affordable) return toppedUp;
            uint256 covered = _reach(item, terms, settled, locked);
            if (covered < throughCurrent) item.unfundedSince = covered;
        }
    }
}
