// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Epoch} from "../../src/types/Types.sol";
import {Campaign} from "./Campaign.sol";

/// @dev What holds of offers and attestations after any sequence of calls.
contract OfferInvariantsTest is Campaign {
    function invariant_NonceFloorsOnlyRise() public view {
        assertEq(watcher.floorsBackward(), 0);
    }

    function invariant_CancelledOffersStayCancelled() public view {
        assertEq(watcher.offersRevived(), 0);
    }

    /// @dev Cancelled, below the nonce floor or expired; nor any while matching is paused.
    function invariant_VoidOffersGetNoDeals() public view {
        assertEq(ledger.openedUnderVoidOffers(), 0);
    }

    function invariant_DealsFitBothOffers() public view {
        assertEq(ledger.misfits(), 0);
    }

    function invariant_ArtifactVersionsOnlyRise() public view {
        assertEq(watcher.versionsBackward(), 0);
    }

    function invariant_AttestedBitsNeverVanish() public view {
        assertEq(watcher.bitsLost(), 0);
    }

    function invariant_AttestedEpochsAreThoseThatAgentsSent() public view {
        uint256 current = epochNow();
        for (uint256 i = 0; i < 3; ++i) {
            address agent = handler.agentNo(i);
            assertEq(attestedIn(agent, 0, current), handler.servedEpochs(agent), "all");
            // Some span, counted one by one.
            uint256 seed = uint256(keccak256(abi.encode(handler.steps(), i)));
            uint256 from = seed % (current + 1);
            uint256 to = from + (seed >> 32) % 80;
            uint256 count;
            for (uint256 epoch = from; epoch < to; ++epoch) {
                if (handler.wasServed(agent, epoch)) ++count;
            }
            assertEq(attestedIn(agent, from, to), count, "a span");
            // The whole is the sum of its parts.
            assertEq(
                attestedIn(agent, 0, from) + attestedIn(agent, from, current), handler.servedEpochs(agent), "parts"
            );
        }
    }

    function attestedIn(address agent, uint256 from, uint256 to) internal view returns (uint256) {
        return market.attestedEpochs(agent, Epoch.wrap(uint32(from)), Epoch.wrap(uint32(to)));
    }
}
