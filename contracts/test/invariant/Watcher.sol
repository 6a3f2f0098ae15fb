// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarket} from "../../src/interfaces/IMarket.sol";
import {AccountView, DealId, DealRef, DealState, DealView, Epoch, OfferHash} from "../../src/types/Types.sol";
import {Ledger} from "./Ledger.sol";

/// @dev Compares what the market shows after each action with what it showed after the one before, and counts what moved
/// backward. The invariants themselves can't: what they write is forgotten.
contract Watcher {
    IMarket internal immutable MARKET;
    Ledger internal immutable LEDGER;

    // Each of these stays 0.
    uint256 public statesBackward;
    uint256 public settledBackward;
    uint256 public sequencesBackward;
    uint256 public endsMovedWithoutCause;
    uint256 public termsChangedWithoutChange;
    uint256 public versionsBackward;
    uint256 public floorsBackward;
    uint256 public offersRevived;
    uint256 public bitsLost;

    DealRef[] internal _open;
    uint256 internal _seenDeals;
    mapping(bytes32 dealId => DealView) internal _before;
    mapping(bytes32 dealId => bytes32) public lastOfEnded;
    mapping(bytes32 demand => uint32) internal _versions;
    mapping(address account => uint64) internal _floors;

    struct Bit {
        address agent;
        Epoch epoch;
    }

    Bit[] internal _bits;

    struct Cancelled {
        address owner;
        OfferHash offerHash;
    }

    Cancelled[] internal _cancelled;

    constructor(IMarket market, Ledger ledger) {
        MARKET = market;
        LEDGER = ledger;
    }

    function attested(address agent, uint32 epoch) external {
        _bits.push(Bit(agent, Epoch.wrap(epoch)));
    }

    function cancelled(address owner, OfferHash offerHash) external {
        _cancelled.push(Cancelled(owner, offerHash));
    }

    function openCount() external view returns (uint256) {
        return _open.length;
    }

    function openAt(uint256 index) external view returns (DealRef memory) {
        return _open[index];
    }

    /// @dev To be called after each action.
    /// @param seed Picks what is too much to be looked at each time.
    function watch(uint256 seed) external {
        for (; _seenDeals < LEDGER.dealCount(); ++_seenDeals) {
            _open.push(LEDGER.refAt(_seenDeals));
        }
        for (uint256 i = _open.length; i > 0; --i) {
            _watchDeal(i - 1);
        }
        _watchOffers(seed);
        _watchAccounts();
        _watchBits(seed);
    }

    function _watchDeal(uint256 index) private {
        DealView memory shown = MARKET.deal(_open[index]);
        bytes32 dealId = DealId.unwrap(shown.dealId);
        DealView memory before = _before[dealId];
        if (shown.state < before.state) ++statesBackward;
        if (Epoch.unwrap(shown.settledUntil) < Epoch.unwrap(before.settledUntil)) ++settledBackward;
        if (shown.changes < before.changes) ++sequencesBackward;
        if (before.state != DealState.None && shown.changes == before.changes) _watchTerms(before, shown);
        _before[dealId] = shown;
        if (shown.state != DealState.Ended) return;
        lastOfEnded[dealId] = keccak256(abi.encode(shown));
        _open[index] = _open[_open.length - 1];
        _open.pop();
    }

    /// @dev Nothing of the terms moves unless both sides have agreed, but that the end of a deal that ends comes nearer.
    function _watchTerms(DealView memory before, DealView memory shown) private {
        uint32 end = Epoch.unwrap(shown.endEpoch);
        uint32 endBefore = Epoch.unwrap(before.endEpoch);
        if (end > endBefore || (end < endBefore && shown.state == DealState.Active)) ++endsMovedWithoutCause;
        bool isSame = shown.pricePerEpoch == before.pricePerEpoch && shown.oldPricePerEpoch == before.oldPricePerEpoch
            && shown.milliCpu == before.milliCpu && shown.memoryMib == before.memoryMib
            && Epoch.unwrap(shown.priceFrom) == Epoch.unwrap(before.priceFrom);
        if (!isSame) ++termsChangedWithoutChange;
    }

    function _watchOffers(uint256 seed) private {
        uint256 known = LEDGER.demandCount();
        for (uint256 i = 0; i < known && i < 4; ++i) {
            bytes32 offerHash = LEDGER.demandHashes((seed % known + i) % known);
            uint32 version = MARKET.developerOffer(OfferHash.wrap(offerHash)).version;
            if (version < _versions[offerHash]) ++versionsBackward;
            _versions[offerHash] = version;
        }
        uint256 voided = _cancelled.length;
        for (uint256 i = 0; i < voided && i < 4; ++i) {
            Cancelled memory item = _cancelled[(seed % voided + i) % voided];
            if (!MARKET.isCancelled(item.owner, item.offerHash)) ++offersRevived;
        }
    }

    function _watchAccounts() private {
        for (uint256 i = 0; i < LEDGER.accountCount(); ++i) {
            address owner = LEDGER.accounts(i);
            AccountView memory shown = MARKET.account(owner);
            if (shown.nonceFloor < _floors[owner]) ++floorsBackward;
            _floors[owner] = shown.nonceFloor;
        }
    }

    /// @dev The newest ones, whose word is written to by late ones, and some others.
    function _watchBits(uint256 seed) private {
        uint256 count = _bits.length;
        for (uint256 i = 0; i < count && i < 8; ++i) {
            Bit memory newest = _bits[count - 1 - i];
            Bit memory other = _bits[(seed % count + i * 7) % count];
            if (!MARKET.isAttested(newest.agent, newest.epoch)) ++bitsLost;
            if (!MARKET.isAttested(other.agent, other.epoch)) ++bitsLost;
        }
    }
}
