// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealState, DealView, OfferHash, ProviderOffer, ProviderOfferView} from "../../src/types/Types.sol";
import {Campaign} from "./Campaign.sol";

/// @dev How deals live, and what they hold of their offers, after any sequence of calls.
contract DealInvariantsTest is Campaign {
    function invariant_StatesOnlyMoveForward() public view {
        assertEq(watcher.statesBackward(), 0);
    }

    function invariant_SettlingOnlyMovesForward() public view {
        assertEq(watcher.settledBackward(), 0);
    }

    function invariant_SequencesOfChangesOnlyRise() public view {
        assertEq(watcher.sequencesBackward(), 0);
    }

    function invariant_EndsMoveOnlyWhereADealEnds() public view {
        assertEq(watcher.endsMovedWithoutCause(), 0);
    }

    function invariant_TermsChangeOnlyByAgreement() public view {
        assertEq(watcher.termsChangedWithoutChange(), 0);
    }

    function invariant_EndedDealsNeverChange() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealView memory shown = dealAt(i);
            bytes32 last = watcher.lastOfEnded(ledger.dealIdAt(i));
            assertEq(shown.state == DealState.Ended, last != 0);
            if (last != 0) assertEq(keccak256(abi.encode(shown)), last);
        }
    }

    function invariant_UsedCapacityIsWhatOpenDealsHold() public view {
        for (uint256 i = 0; i < ledger.supplyCount(); ++i) {
            bytes32 offerHash = ledger.supplyHashes(i);
            address provider = ledger.supplyOfferOf(offerHash).provider;
            ProviderOfferView memory used = market.providerOffer(provider, OfferHash.wrap(offerHash));
            (uint256 milliCpu, uint256 memoryMib) = heldUnder(offerHash);
            assertEq(used.usedMilliCpu, milliCpu);
            assertEq(used.usedMemoryMib, memoryMib);
        }
    }

    function heldUnder(bytes32 offerHash) internal view returns (uint256 milliCpu, uint256 memoryMib) {
        for (uint256 i = 0; i < watcher.openCount(); ++i) {
            DealView memory shown = market.deal(watcher.openAt(i));
            if (OfferHash.unwrap(shown.providerOffer) != offerHash) continue;
            milliCpu += shown.milliCpu;
            memoryMib += shown.memoryMib;
        }
    }

    function invariant_UsedCapacityNeverExceedsTheOffer() public view {
        for (uint256 i = 0; i < ledger.supplyCount(); ++i) {
            bytes32 offerHash = ledger.supplyHashes(i);
            ProviderOffer memory offered = ledger.supplyOfferOf(offerHash);
            ProviderOfferView memory used = market.providerOffer(offered.provider, OfferHash.wrap(offerHash));
            assertLe(used.usedMilliCpu, offered.milliCpu);
            assertLe(used.usedMemoryMib, offered.memoryMib);
        }
    }

    function invariant_LiveReplicasAreOpenDeals() public view {
        for (uint256 i = 0; i < ledger.demandCount(); ++i) {
            bytes32 offerHash = ledger.demandHashes(i);
            uint256 open;
            for (uint256 j = 0; j < watcher.openCount(); ++j) {
                if (OfferHash.unwrap(watcher.openAt(j).developerOffer) == offerHash) ++open;
            }
            uint256 live = market.developerOffer(OfferHash.wrap(offerHash)).liveReplicas;
            assertEq(live, open);
            assertLe(live, ledger.demandOfferOf(offerHash).replicas);
        }
    }
}
