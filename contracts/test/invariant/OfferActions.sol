// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {
    ArtifactUpdate,
    DealRef,
    DeveloperOffer,
    DeveloperOfferView,
    Epoch,
    Fill,
    Match,
    OfferHash,
    ProviderOffer
} from "../../src/types/Types.sol";
import {Actions} from "./Actions.sol";

/// @dev Offers come, go and are matched.
abstract contract OfferActions is Actions {
    uint256 private constant FIRST_SUPPLIES = 2 * ACTORS;
    uint256 private constant MOST_SUPPLIES = 30;
    uint256 private constant MOST_FILLS = 8;

    // --- The book ---------------------------------------------------------------------------------------------------

    function postDemand(uint256 who, uint256 seed) external action("postDemand") {
        DeveloperOffer memory demand = _demandOf(who, seed, _demands.length);
        if (demand.nonce < MARKET.account(demand.developer).nonceFloor) return;
        VM.prank(demand.developer);
        MARKET.postDeveloperOffer(demand);
        _demands.push(demand);
        ++done["postDemand"];
    }

    /// @dev Some of them are only signed, and some have numbers that a nonce floor reaches.
    function newSupply(uint256 who, uint256 seed) external action("newSupply") {
        if (_supplies.length == MOST_SUPPLIES) return;
        uint64 nonce = uint64(_supplies.length) + (seed % 3 == 0 ? 0 : 1 << 32);
        ProviderOffer memory supply = _supplyOf(who, seed / 3 % 2, nonce);
        _supplies.push(supply);
        if (seed % 8 == 0) {
            _cancel(supply.provider, MARKET.hashProviderOffer(supply));
            ++done["cancelUnseenSupply"];
        }
        if (seed % 2 == 0 || nonce < MARKET.account(supply.provider).nonceFloor) return;
        VM.prank(supply.provider);
        MARKET.postProviderOffer(supply);
        ++done["newSupply"];
    }

    function cancelDemand(uint256 which) external action("cancelDemand") {
        DeveloperOffer memory demand = _demands[which % _demands.length];
        OfferHash offerHash = MARKET.hashDeveloperOffer(demand);
        bool isKnown = MARKET.developerOffer(offerHash).developer != address(0);
        _cancel(demand.developer, offerHash);
        ++done[isKnown ? "cancelKnownDemand" : "cancelUnseenDemand"];
    }

    /// @dev The first ones stay, or nothing would be matched any more.
    function cancelSupply(uint256 which) external action("cancelSupply") {
        if (_supplies.length == FIRST_SUPPLIES || which % 3 != 0) return;
        which = FIRST_SUPPLIES + which % (_supplies.length - FIRST_SUPPLIES);
        ProviderOffer memory supply = _supplies[which];
        OfferHash offerHash = MARKET.hashProviderOffer(supply);
        bool isKnown = MARKET.providerOffer(supply.provider, offerHash).agent != address(0);
        _cancel(supply.provider, offerHash);
        ++done[isKnown ? "cancelKnownSupply" : "cancelUnseenSupply"];
    }

    /// @dev Has no effect on the offer, whose owner is somebody else.
    function cancelSupplyOfAnother(uint256 which) external action("cancelSupplyOfAnother") {
        _cancel(STRANGER, MARKET.hashProviderOffer(_supplies[which % _supplies.length]));
        ++done["cancelSupplyOfAnother"];
    }

    /// @dev By one, or above all offers with small numbers.
    function raiseNonceFloor(uint256 who, uint256 seed) external action("raiseNonceFloor") {
        address account = anyAccount(who);
        uint64 floor = MARKET.account(account).nonceFloor + 1;
        if (seed % 4 == 0 && floor < _demands.length) floor = uint64(_demands.length);
        VM.prank(account);
        MARKET.raiseNonceFloor(floor);
        ++done["raiseNonceFloor"];
    }

    /// @dev Seldom, or little else would happen.
    function setPaused(uint256 seed) external action("setPaused") {
        VM.prank(OPERATOR);
        MARKET.setMatchingPaused(seed % 8 == 0);
        ++done[seed % 8 == 0 ? "pause" : "resume"];
    }

    /// @dev By the developer, or by anyone with the developer's signature.
    function updateArtifact(uint256 which, uint256 seed) external action("updateArtifact") {
        uint256 known = LEDGER.demandCount();
        if (known == 0) return;
        bytes32 offerHash = LEDGER.demandHashes(which % known);
        DeveloperOfferView memory demand = LEDGER.demandOf(offerHash);
        ArtifactUpdate memory update = ArtifactUpdate({
            developerOffer: OfferHash.wrap(offerHash),
            version: demand.version + 1,
            artifact: keccak256(abi.encode(seed)),
            manifest: bytes32(seed % 2),
            validUntil: type(uint64).max,
            artifactUrl: ""
        });
        bool isRelayed = seed % 2 == 0;
        bytes memory signature =
            isRelayed ? _digestSignedBy(demand.developer, MARKET.hashArtifactUpdate(update)) : bytes("");
        VM.prank(isRelayed ? STRANGER : demand.developer);
        MARKET.updateArtifact(update, signature);
        ++done[isRelayed ? "updateArtifactRelayed" : "updateArtifact"];
    }

    function _cancel(address owner, OfferHash offerHash) private {
        VM.prank(owner);
        MARKET.cancelOffer(offerHash);
        WATCHER.cancelled(owner, offerHash);
    }

    // --- Matching ---------------------------------------------------------------------------------------------------

    /// @dev One of the newer offers again: posted ones, filled ones, void ones, and those with a place that fell free.
    function matchOffers(uint256 which, uint256 first, uint256 count) external action("matchOffers") {
        Match[] memory matches = new Match[](1);
        uint256 newer = _demands.length < 16 ? _demands.length : 16;
        matches[0] = _matchOf(_demands[_demands.length - 1 - which % newer], first, _bound(count, 1, MOST_FILLS));
        if (_submit(matches, first) != 0) ++done["matchOffers"];
    }

    /// @dev One that the chain knows and that has room: posted, or with a place that fell free.
    function matchKnown(uint256 which, uint256 first) external action("matchKnown") {
        uint256 known = LEDGER.demandCount();
        for (uint256 i = 0; i < known; ++i) {
            bytes32 offerHash = LEDGER.demandHashes((which % known + i) % known);
            DeveloperOfferView memory kept = LEDGER.demandOf(offerHash);
            uint256 end = Epoch.unwrap(kept.endEpoch);
            // More often than not one that was matched before.
            if (end == 0 && which % 4 != 0) continue;
            DeveloperOffer memory demand = LEDGER.demandOfferOf(offerHash);
            if (kept.liveReplicas == demand.replicas || (end != 0 && end <= _epochNow() + 1)) continue;
            if (LEDGER.isCancelled(demand.developer, offerHash)) continue;
            Match[] memory matches = new Match[](1);
            matches[0] = _matchOf(demand, first, MOST_FILLS);
            matches[0].developerSignature = "";
            if (_submit(matches, first) != 0) ++done[end == 0 ? "matchPosted" : "matchFreePlace"];
            return;
        }
    }

    function matchNewDemand(uint256 who, uint256 seed, uint256 first) external action("matchNewDemand") {
        _demands.push(_demandOf(who, seed, _demands.length));
        if (first % 12 == 0) {
            DeveloperOffer memory demand = _demands[_demands.length - 1];
            _cancel(demand.developer, MARKET.hashDeveloperOffer(demand));
            ++done["cancelUnseenDemand"];
        }
        Match[] memory matches = new Match[](1);
        matches[0] = _matchOf(_demands[_demands.length - 1], first, MOST_FILLS);
        uint256 opened = _submit(matches, first);
        if (opened != 0) ++done["matchNewDemand"];
        if (opened > 1) ++done["matchSeveralReplicas"];
    }

    /// @dev Two new ones and an old one, which compete for the same money and the same places.
    function matchSeveral(uint256 who, uint256 seed, uint256 first) external action("matchSeveral") {
        Match[] memory matches = new Match[](3);
        for (uint256 i = 0; i < 2; ++i) {
            _demands.push(_demandOf(who / 2 + i * (seed % ACTORS), seed / 3 + i, _demands.length));
            matches[i] = _matchOf(_demands[_demands.length - 1], first / 2 + i, MOST_FILLS);
        }
        matches[2] = _matchOf(_demands[seed % _demands.length], first, 3);
        if (_submit(matches, first) != 0) ++done["matchSeveral"];
    }

    function _matchOf(DeveloperOffer memory demand, uint256 first, uint256 count)
        private
        view
        returns (Match memory item)
    {
        first %= 1 << 32;
        item.developerOffer = demand;
        item.developerSignature = _demandSignature(demand, first);
        item.fills = new Fill[](count);
        for (uint256 i = 0; i < count; ++i) {
            // Every other one is one of the first. May name the same offer twice, and offers that do not fit.
            uint256 among = i % 2 == 0 ? FIRST_SUPPLIES : _supplies.length;
            ProviderOffer memory supply = _supplies[(first % 31 + i * (first % 3 + 1)) % among];
            item.fills[i].offer = supply;
            item.fills[i].signature = _supplySignature(supply, first);
        }
    }

    /// @dev None for half of the offers that the chain knows, and now and then a bad one.
    function _demandSignature(DeveloperOffer memory demand, uint256 seed) private view returns (bytes memory) {
        OfferHash offerHash = MARKET.hashDeveloperOffer(demand);
        bool isKnown = MARKET.developerOffer(offerHash).developer != address(0);
        if (isKnown && seed % 2 == 0) return "";
        address signer = seed % 23 == 0 ? developerNo(seed) : demand.developer;
        return _digestSignedBy(signer, OfferHash.unwrap(offerHash));
    }

    function _supplySignature(ProviderOffer memory supply, uint256 seed) private view returns (bytes memory) {
        OfferHash offerHash = MARKET.hashProviderOffer(supply);
        bool isKnown = MARKET.providerOffer(supply.provider, offerHash).agent != address(0);
        if (isKnown && seed % 2 == 1) return "";
        address signer = seed % 29 == 0 ? providerNo(seed) : supply.provider;
        return _digestSignedBy(signer, OfferHash.unwrap(offerHash));
    }

    function _submit(Match[] memory matches, uint256 seed) private returns (uint256 opened) {
        if (MARKET.matchingPaused()) return 0;
        address matcher = matcherNo(seed);
        uint256 known = LEDGER.dealCount();
        VM.prank(matcher);
        opened = MARKET.matchOffers(matches);
        _record();
        require(LEDGER.dealCount() == known + opened, "the count of opened deals is wrong");
        for (; known < LEDGER.dealCount(); ++known) {
            _countOpened(LEDGER.refAt(known), matcher);
        }
    }

    function _countOpened(DealRef memory ref, address matcher) private {
        DeveloperOffer memory demand = LEDGER.demandOfferOf(OfferHash.unwrap(ref.developerOffer));
        earnedFees[matcher] += demand.matcherFee;
        if (demand.matcherFee != 0) ++done["matchWithFee"];
        if (demand.matcher != address(0)) ++done["matchByNamedMatcher"];
        require(demand.matcher == address(0) || demand.matcher == matcher, "another than the named matcher matched");
        ProviderOffer memory supply = LEDGER.supplyOfferOf(OfferHash.unwrap(ref.providerOffer));
        ++done[supply.payout == supply.provider ? "matchPaidToProvider" : "matchPaidElsewhere"];
    }
}
