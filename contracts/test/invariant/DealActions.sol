// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealRef, DealState, DealView, Epoch, OfferHash} from "../../src/types/Types.sol";
import {EpochBitmap} from "../../src/libraries/EpochBitmap.sol";
import {Actions} from "./Actions.sol";

/// @dev Everyday life of deals: time goes on, agents attest, somebody claims.
abstract contract DealActions is Actions {
    uint256 private constant WINDOW = 4;

    // --- Time and attestations --------------------------------------------------------------------------------------

    /// @dev Early and late ones, in any order.
    function attest(uint256 who, uint256 back) external action("attest") {
        address agent = agentNo(who);
        uint32 current = _epochNow();
        if (current == 0) return;
        uint32 behind = uint32(_bound(back, 1, current < WINDOW ? current : WINDOW));
        if (_served[agent][current - behind]) return;
        _attest(agent, current - behind, bytes32(back));
        ++done[behind == 1 ? "attestAtOnce" : "attestLate"];
    }

    /// @dev The everyday course: time goes on, and all agents attest.
    function serve(uint256 epochs) external action("serve") {
        _serve(_bound(epochs, 1, 4), ACTORS);
        ++done["serve"];
    }

    function serveAndClaim(uint256 epochs, uint256 which) external action("serveAndClaim") {
        _serve(_bound(epochs, 1, 4), ACTORS);
        _claimAll(which);
        ++done["serveAndClaim"];
    }

    /// @dev The last agent has failed.
    function serveWithoutOne(uint256 epochs) external action("serveWithoutOne") {
        _serve(_bound(epochs, 1, 4), ACTORS - 1);
        ++done["serveWithoutOne"];
    }

    function pass(uint256 epochs) external action("pass") {
        _skip(_bound(epochs, 1, 6));
        ++done["pass"];
    }

    /// @dev Past the end of a word of attested epochs, seldom.
    function passLong(uint256 epochs) external action("passLong") {
        if (epochs % 10 != 0) return;
        _skip(_bound(epochs, 60, 200));
        ++done["passLong"];
    }

    /// @dev Attests the last epochs of one word of the bitmap and the first ones of the next in no order.
    function attestOverTheEdge(uint256 seed) external action("attestOverTheEdge") {
        if (seed % 3 != 0) return;
        uint256 edge = (_epochNow() / EpochBitmap.SPAN + 1) * EpochBitmap.SPAN;
        _skip(edge + 2 - _epochNow());
        for (uint256 i = 0; i < WINDOW; ++i) {
            // The same four epochs, from a random one on, up or down.
            uint256 offset = (seed / 3 + (seed % 2 == 0 ? i : WINDOW - i)) % WINDOW;
            _attest(agentNo(seed / 16), uint32(edge + 1 - offset), bytes32(seed));
        }
        ++done["attestOverTheEdge"];
    }

    function _serve(uint256 epochs, uint256 agents) private {
        for (uint256 i = 0; i < epochs; ++i) {
            uint32 epoch = _epochNow();
            _skip(1);
            for (uint256 agent = 0; agent < agents; ++agent) {
                _attest(agentNo(agent), epoch, bytes32(i));
            }
        }
    }

    // --- Claims -----------------------------------------------------------------------------------------------------

    /// @dev Open and ended deals, deals of other provider offers, and offers that never became deals, some of them twice.
    function claimAnything(uint256 which, uint256 first, uint256 count) external action("claimAnything") {
        uint256 demands = LEDGER.demandCount();
        uint256 supplies = LEDGER.supplyCount();
        if (demands == 0 || supplies == 0) return;
        bytes32 supply = LEDGER.supplyHashes(which % supplies);
        OfferHash[] memory wanted = new OfferHash[](_bound(count, 1, 8));
        for (uint256 i = 0; i < wanted.length; ++i) {
            wanted[i] = OfferHash.wrap(LEDGER.demandHashes((first % demands + i) % demands));
        }
        VM.prank(STRANGER);
        MARKET.claim(LEDGER.supplyOfferOf(supply).provider, OfferHash.wrap(supply), wanted);
        ++done["claimAnything"];
    }

    /// @dev As agents do it: all open deals of one provider offer.
    function claimAll(uint256 which) external action("claimAll") {
        _claimAll(which);
    }

    function _claimAll(uint256 which) private {
        (DealRef memory picked, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None) return;
        uint256 open = WATCHER.openCount();
        OfferHash[] memory wanted = new OfferHash[](open);
        uint256 found;
        for (uint256 i = 0; i < open; ++i) {
            DealRef memory ref = WATCHER.openAt(i);
            if (OfferHash.unwrap(ref.providerOffer) != OfferHash.unwrap(picked.providerOffer)) continue;
            wanted[found++] = ref.developerOffer;
            _countClaim(MARKET.deal(ref));
        }
        assembly ("memory-safe") {
            mstore(wanted, found)
        }
        VM.prank(shown.payout);
        uint256 paid = MARKET.claim(picked.provider, picked.providerOffer, wanted);
        if (paid != 0) ++done["claimPaid"];
        if (found > 1) ++done["claimBatch"];
    }

    /// @dev Which way the claim will take.
    function _countClaim(DealView memory item) private {
        uint256 end = Epoch.unwrap(item.endEpoch);
        uint256 until = _epochNow() < end ? _epochNow() : end;
        uint256 from = Epoch.unwrap(item.settledUntil);
        if (from + 10 < until) ++done["claimManyEpochs"];
        if (Epoch.unwrap(item.unfundedSince) != 0) ++done["claimUnfunded"];
        if (from >= until || Epoch.unwrap(item.unfundedSince) != 0) return;
        if (item.changes != 0) {
            ++done["claimChanged"];
            return;
        }
        for (uint256 epoch = from; epoch < until; ++epoch) {
            if (!_served[item.agent][epoch]) {
                ++done["claimWithHoles"];
                return;
            }
        }
        ++done["claimPlain"];
    }
}
