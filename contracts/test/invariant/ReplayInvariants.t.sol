// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealId, Epoch, OfferHash} from "../../src/types/Types.sol";
import {Campaign} from "./Campaign.sol";

/// @dev The events alone, folded by `Ledger`, give all of the market's state: what an indexer relies on.
contract ReplayInvariantsTest is Campaign {
    function invariant_EventsRebuildEveryFreeBalance() public view {
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            address owner = ledger.accounts(i);
            assertEq(market.freeBalance(owner), ledger.accountOf(owner).free);
        }
    }

    /// @dev Nonce floors and rolling hashes as well.
    function invariant_EventsRebuildEveryAccount() public view {
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            address owner = ledger.accounts(i);
            assertEq(abi.encode(market.account(owner)), abi.encode(ledger.accountOf(owner)));
        }
    }

    function invariant_EventsRebuildEveryDeal() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            assertEq(abi.encode(dealAt(i)), abi.encode(ledger.dealAt(i)));
        }
    }

    function invariant_EventsRebuildEveryDeveloperOffer() public view {
        for (uint256 i = 0; i < ledger.demandCount(); ++i) {
            bytes32 offerHash = ledger.demandHashes(i);
            OfferHash named = OfferHash.wrap(offerHash);
            assertEq(abi.encode(market.developerOffer(named)), abi.encode(ledger.demandOf(offerHash)));
            address owner = ledger.demandOf(offerHash).developer;
            assertEq(market.isCancelled(owner, named), ledger.isCancelled(owner, offerHash));
        }
    }

    function invariant_EventsRebuildEveryProviderOffer() public view {
        for (uint256 i = 0; i < ledger.supplyCount(); ++i) {
            bytes32 offerHash = ledger.supplyHashes(i);
            OfferHash named = OfferHash.wrap(offerHash);
            address owner = ledger.supplyOfferOf(offerHash).provider;
            assertEq(abi.encode(market.providerOffer(owner, named)), abi.encode(ledger.supplyOf(offerHash)));
            assertEq(market.isCancelled(owner, named), ledger.isCancelled(owner, offerHash));
            // What a stranger cancelled is void for the stranger alone.
            address nobody = handler.STRANGER();
            assertEq(market.isCancelled(nobody, named), ledger.isCancelled(nobody, offerHash));
        }
    }

    /// @dev An offer in an event is whole: its hash is the one that the event names.
    function invariant_LoggedOffersHaveTheirHashes() public view every(8) {
        for (uint256 i = 0; i < ledger.demandCount(); ++i) {
            bytes32 offerHash = ledger.demandHashes(i);
            OfferHash hashed = market.hashDeveloperOffer(ledger.demandOfferOf(offerHash));
            assertEq(OfferHash.unwrap(hashed), offerHash);
        }
        for (uint256 i = 0; i < ledger.supplyCount(); ++i) {
            bytes32 offerHash = ledger.supplyHashes(i);
            OfferHash hashed = market.hashProviderOffer(ledger.supplyOfferOf(offerHash));
            assertEq(OfferHash.unwrap(hashed), offerHash);
        }
    }

    function invariant_EventsRebuildAttestations() public view {
        uint256 current = epochNow();
        uint256 from = current > 40 ? current - 40 : 0;
        for (uint256 i = 0; i < 3; ++i) {
            address agent = handler.agentNo(i);
            for (uint256 epoch = from; epoch <= current; ++epoch) {
                assertEq(market.isAttested(agent, Epoch.wrap(uint32(epoch))), ledger.isAttested(agent, epoch));
            }
        }
    }

    function invariant_EventsSayWhetherMatchingIsPaused() public view {
        assertEq(market.matchingPaused(), ledger.matchingPaused());
    }

    function invariant_DealIdsFollowFromTheOffers() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            bytes32 dealId = ledger.dealIdAt(i);
            assertEq(DealId.unwrap(dealAt(i).dealId), dealId);
        }
    }
}
