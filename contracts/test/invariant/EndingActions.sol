// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../../src/interfaces/IMarketEvents.sol";
import {
    DealChange,
    DealId,
    DealRef,
    DealState,
    DealView,
    EndCause,
    Epoch,
    OfferHash,
    ProviderOffer,
    ProviderOfferView,
    Receipt
} from "../../src/types/Types.sol";
import {Actions} from "./Actions.sol";
import {Naive} from "./Naive.sol";

/// @dev How deals change and end. Whether a deal may be evicted or closed is worked out from the events first, and the
/// market must agree.
abstract contract EndingActions is Actions {
    uint256 private constant WINDOW = 4;
    uint256 private constant EVICT_AFTER = 3;
    uint256 private constant GRACE = 5;

    enum Kind {
        // On its way to an end that somebody has set.
        Ending,
        // At its end.
        Over,
        // Without money for as long as that is borne.
        Unfunded,
        // Going on.
        Lively
    }

    /// @dev Up to three of one developer, one of them twice.
    function cancelDeals(uint256 which, uint256 seed) external action("cancelDeals") {
        (DealRef memory picked, DealView memory shown) = seed % 8 == 0 ? _pick(which, Kind.Ending) : _pickOpen(which);
        if (shown.state == DealState.None || (seed % 4 < 2 && seed % 8 != 0)) return;
        DealRef[] memory refs = new DealRef[](3);
        refs[0] = picked;
        refs[1] = picked;
        refs[2] = picked;
        if (seed % 4 == 3) refs[2] = _anotherOf(shown.developer, picked, seed);
        VM.prank(shown.developer);
        MARKET.cancelDeals(refs);
        ++done["cancelDeals"];
        if (shown.state == DealState.Ending) ++done["cancelEndingDeal"];
    }

    function giveNotice(uint256 which, uint256 seed) external action("giveNotice") {
        (DealRef memory ref, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None || seed % 3 == 0) return;
        bool isByAgent = seed % 3 == 1;
        address caller = isByAgent ? shown.agent : shown.provider;
        uint256 before = MARKET.freeBalance(caller);
        VM.prank(caller);
        MARKET.giveNotice(_only(ref));
        if (isByAgent) _agentGains(caller, before);
        ++done[isByAgent ? "giveNoticeByAgent" : "giveNotice"];
    }

    function evict(uint256 which) external action("evict") {
        (DealRef memory ref, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None) return;
        _evict(ref, shown);
    }

    /// @dev The developer's money and the provider are gone at the same time, and nobody settles for a while.
    function abandon(uint256 which, uint256 epochs) external action("abandon") {
        (DealRef memory ref, DealView memory shown) = _pick(which, Kind.Lively);
        if (shown.state == DealState.None || epochs % 3 != 0) return;
        uint256 free = MARKET.freeBalance(shown.developer);
        if (free != 0) {
            VM.prank(shown.developer);
            MARKET.withdraw(free, shown.developer);
        }
        _skip(_bound(epochs, 6, 14));
        _claimOnce(ref);
        _evict(ref, shown);
        ++done["abandon"];
    }

    function _evict(DealRef memory ref, DealView memory shown) private {
        VM.prank(STRANGER);
        try MARKET.evict(ref) {
            _record();
            require(_isEvictable(DealId.unwrap(shown.dealId)), "evicted without reason");
            ++done["evict"];
        } catch (bytes memory refusal) {
            require(bytes4(refusal) == IMarketEvents.NotEvictable.selector, "evict failed otherwise");
            _forgetRefused();
            _claimOnce(ref);
            require(!_isEvictable(DealId.unwrap(shown.dealId)), "not evicted although it failed");
            ++done["evictRefused"];
        }
    }

    function closeDeal(uint256 which) external action("closeDeal") {
        (DealRef memory ref, DealView memory shown) =
            which % 4 == 0 ? _pickOpen(which) : _pick(which, which % 4 == 1 ? Kind.Over : Kind.Unfunded);
        if (shown.state == DealState.None) return;
        VM.prank(STRANGER);
        try MARKET.closeDeal(ref) {
            _record();
            DealView memory ended = LEDGER.dealOf(DealId.unwrap(shown.dealId));
            require(_isClosable(ended), "closed too early");
            bool isEvicted = ended.cause == EndCause.ProviderEvicted;
            require(isEvicted == _isEvictable(DealId.unwrap(shown.dealId)), "closed for another cause");
            ++done[isEvicted ? "closeAsEvicted" : ended.cause == EndCause.Unfunded ? "closeUnfunded" : "close"];
        } catch (bytes memory refusal) {
            require(bytes4(refusal) == IMarketEvents.NotYetOver.selector, "close failed otherwise");
            _forgetRefused();
            _claimOnce(ref);
            require(!_isClosable(LEDGER.dealOf(DealId.unwrap(shown.dealId))), "not closed although it is over");
            ++done["closeRefused"];
        }
    }

    function slash(uint256 which, uint256 seed) external action("slash") {
        (DealRef memory ref, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None || seed % 5 != 0) return;
        Receipt memory first = Receipt(shown.dealId, uint64(seed), keccak256("one"));
        Receipt memory second = Receipt(shown.dealId, uint64(seed), keccak256("other"));
        bytes memory firstSignature = _digestSignedBy(shown.agent, MARKET.hashReceipt(first));
        bytes memory secondSignature = _digestSignedBy(shown.agent, MARKET.hashReceipt(second));
        VM.prank(STRANGER);
        MARKET.slash(ref, first, firstSignature, second, secondSignature);
        ++done["slash"];
    }

    // --- Changes ----------------------------------------------------------------------------------------------------

    /// @param by Who calls: the developer, the provider, or somebody with both signatures.
    function changeDeal(uint256 which, uint256 seed, uint256 by) external action("changeDeal") {
        (DealRef memory ref, DealView memory shown) = seed % 8 == 0 ? _pickOpen(which) : _pick(which, Kind.Lively);
        if (shown.state != DealState.Active || _epochNow() >= Epoch.unwrap(shown.endEpoch)) return;
        _settle(ref);
        shown = MARKET.deal(ref);
        bool isPending = Epoch.unwrap(shown.settledUntil) < Epoch.unwrap(shown.priceFrom);
        if (isPending || Epoch.unwrap(shown.unfundedSince) != 0) return;
        DealChange memory change = _newTerms(shown, seed);
        _carryOut(ref, shown, change, by % 3);
        _countChange(shown, change);
        ++done[by % 3 == 0 ? "changeByDeveloper" : by % 3 == 1 ? "changeByProvider" : "changeRelayed"];
    }

    function _newTerms(DealView memory shown, uint256 seed) private view returns (DealChange memory change) {
        uint256 rest = uint256(keccak256(abi.encode(seed)));
        change.dealId = shown.dealId;
        change.sequence = shown.changes + 1;
        change.validUntil = type(uint64).max;
        uint32 next = _epochNow() + 1;
        uint32 end = Epoch.unwrap(shown.endEpoch);
        // Extended, shortened, or as it was.
        change.endEpoch = end;
        if (rest % 3 == 0) change.endEpoch = end + 1 + uint32(rest / 3 % 12);
        if (rest % 3 == 1) change.endEpoch = next + 1 + uint32(rest / 3 % 4);
        if (change.endEpoch <= next) change.endEpoch = next + 1;
        ProviderOffer memory offered = LEDGER.supplyOfferOf(OfferHash.unwrap(shown.providerOffer));
        ProviderOfferView memory used = LEDGER.supplyOf(OfferHash.unwrap(shown.providerOffer));
        uint256 cpuLimit = offered.milliCpu - used.usedMilliCpu + shown.milliCpu;
        uint256 memoryLimit = offered.memoryMib - used.usedMemoryMib + shown.memoryMib;
        change.milliCpu = rest / 64 % 2 == 0 ? shown.milliCpu : uint32(1 + rest / 256 % cpuLimit);
        change.memoryMib = rest / 128 % 2 == 0 ? shown.memoryMib : uint32(1 + rest / 512 % memoryLimit);
        change.pricePerEpoch = _newPrice(shown, rest / 1024);
    }

    /// @dev Up to twice as much, as far as the provider can bond it; or less, down to nothing.
    function _newPrice(DealView memory shown, uint256 rest) private view returns (uint64) {
        if (rest % 8 == 0) return 0;
        if (rest % 4 == 1) return shown.pricePerEpoch;
        uint64 price = uint64(rest / 8 % (2 * uint256(shown.pricePerEpoch) + 1000));
        uint256 bond = uint256(price) * MARKET.config().bondEpochs;
        return bond > shown.bond + MARKET.freeBalance(shown.provider) ? shown.pricePerEpoch : price;
    }

    function _carryOut(DealRef memory ref, DealView memory shown, DealChange memory change, uint256 by) private {
        bytes32 digest = MARKET.hashDealChange(change);
        bytes memory developers = by == 0 ? bytes("") : _digestSignedBy(shown.developer, digest);
        bytes memory providers = by == 1 ? bytes("") : _digestSignedBy(shown.provider, digest);
        ProviderOffer memory offered = LEDGER.supplyOfferOf(OfferHash.unwrap(shown.providerOffer));
        VM.prank(by == 0 ? shown.developer : by == 1 ? shown.provider : STRANGER);
        MARKET.changeDeal(ref, change, offered, developers, providers);
    }

    function _countChange(DealView memory shown, DealChange memory change) private {
        if (change.endEpoch > Epoch.unwrap(shown.endEpoch)) ++done["extend"];
        if (change.endEpoch < Epoch.unwrap(shown.endEpoch)) ++done["shorten"];
        if (change.pricePerEpoch > shown.pricePerEpoch) ++done["priceUp"];
        if (change.pricePerEpoch < shown.pricePerEpoch) ++done["priceDown"];
        if (change.milliCpu > shown.milliCpu || change.memoryMib > shown.memoryMib) ++done["grow"];
        if (change.milliCpu < shown.milliCpu || change.memoryMib < shown.memoryMib) ++done["shrink"];
    }

    // --- The rules, from events alone -------------------------------------------------------------------------------

    function _claimOnce(DealRef memory ref) private {
        MARKET.claim(ref.provider, ref.providerOffer, _onlyDemand(ref));
        _record();
    }

    /// @dev Whether the newest epochs that are final and were paid for are as many as it takes, and none was served.
    function _isEvictable(bytes32 dealId) private view returns (bool) {
        DealView memory item = LEDGER.dealOf(dealId);
        uint256 until = _epochNow() > WINDOW ? _epochNow() - WINDOW : 0;
        uint256 end = Epoch.unwrap(item.endEpoch);
        uint256 gap = Epoch.unwrap(item.unfundedSince);
        if (end < until) until = end;
        if (gap != 0 && gap < until) until = gap;
        if (until < LEDGER.flowOf(dealId).fundedSince + EVICT_AFTER) return false;
        for (uint256 epoch = until - EVICT_AFTER; epoch < until; ++epoch) {
            if (_served[item.agent][epoch]) return false;
        }
        return true;
    }

    function _isClosable(DealView memory item) private view returns (bool) {
        uint256 current = _epochNow();
        uint256 end = Epoch.unwrap(item.endEpoch);
        uint256 settled = Epoch.unwrap(item.settledUntil);
        uint256 gap = Epoch.unwrap(item.unfundedSince);
        if (current >= end + WINDOW || (current >= end && settled >= end)) return true;
        return gap != 0 && current >= gap + GRACE && settled >= gap;
    }

    /// @dev From a random one on, the first open deal of this kind; `None` when there is none.
    function _pick(uint256 seed, Kind kind) private view returns (DealRef memory ref, DealView memory shown) {
        uint256 open = WATCHER.openCount();
        for (uint256 i = 0; i < open; ++i) {
            ref = WATCHER.openAt((seed % open + i) % open);
            shown = MARKET.deal(ref);
            if (_isOf(shown, kind)) return (ref, shown);
        }
        delete shown;
    }

    function _isOf(DealView memory shown, Kind kind) private view returns (bool) {
        if (kind == Kind.Ending) return shown.state == DealState.Ending;
        uint256 gap = Epoch.unwrap(shown.unfundedSince);
        uint256 current = _epochNow();
        bool isBeyond = current >= Epoch.unwrap(shown.endEpoch);
        if (kind == Kind.Over) return isBeyond;
        if (kind == Kind.Unfunded) return gap != 0 && current >= gap + GRACE;
        return shown.state == DealState.Active && gap == 0 && !isBeyond;
    }

    function _anotherOf(address developer, DealRef memory picked, uint256 seed) private view returns (DealRef memory) {
        uint256 open = WATCHER.openCount();
        for (uint256 i = 0; i < open; ++i) {
            DealRef memory ref = WATCHER.openAt((seed % open + i) % open);
            if (MARKET.deal(ref).developer == developer) return ref;
        }
        return picked;
    }
}
