// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {ArtifactUpdate, DealId, DeveloperOffer, DeveloperOfferView, OfferHash} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";
import {Wallet} from "./support/Wallets.sol";

/// @dev Another artifact for the replicas of an offer.
contract UpdateTest is Actions {
    DealId internal dealId;
    OfferHash internal offerHash;

    function setUp() public override {
        super.setUp();
        dealId = openDeal(fundedProvider(1));
        offerHash = market.hashDeveloperOffer(demandOf(1));
    }

    function relay(ArtifactUpdate memory update) internal {
        bytes memory signature = signUpdate(developerKey, update);
        vm.prank(stranger);
        market.updateArtifact(update, signature);
    }

    function expectRefused(ArtifactUpdate memory update, bytes memory why) internal {
        bytes memory signature = signUpdate(developerKey, update);
        vm.expectRevert(why);
        vm.prank(stranger);
        market.updateArtifact(update, signature);
    }

    function assertVersion(uint32 version) internal view {
        DeveloperOfferView memory shown = market.developerOffer(offerHash);
        assertEq(shown.version, version, "version");
        if (version == 0) return;
        assertEq(shown.artifact, keccak256(abi.encode("artifact", version)), "artifact");
        assertEq(shown.manifest, keccak256(abi.encode("manifest", version)), "manifest");
    }

    // --- What it does -----------------------------------------------------------------------------------------------

    function test_AnyoneRelaysWhatTheDeveloperSigned() public {
        assertVersion(0);
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        bytes memory signature = signUpdate(developerKey, update);
        vm.expectEmit(address(market));
        emit IMarketEvents.ArtifactUpdated(offerHash, 1, update.artifact, update.manifest, update.artifactUrl);
        vm.prank(stranger);
        market.updateArtifact(update, signature);
        assertVersion(1);
    }

    function test_TheDeveloperNeedsNoSignature() public {
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        vm.prank(developer);
        market.updateArtifact(update, "");
        assertVersion(1);
    }

    function test_NothingElseOfTheOfferOrItsDealsChanges() public {
        bytes32 before = keccak256(abi.encode(deal(dealId)));
        DeveloperOfferView memory shown = market.developerOffer(offerHash);
        relay(updateOf(demandOf(1), 1));
        assertEq(keccak256(abi.encode(deal(dealId))), before);
        DeveloperOfferView memory after_ = market.developerOffer(offerHash);
        (after_.version, after_.artifact, after_.manifest) = (0, 0, 0);
        assertEq(keccak256(abi.encode(after_)), keccak256(abi.encode(shown)));
    }

    function test_AnOfferThatWaitsForItsMatchIsUpdatedAsWell() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        vm.prank(developer);
        offerHash = market.postDeveloperOffer(demand);
        relay(updateOf(demand, 1));
        assertVersion(1);
        // The offer is matched by its own hash still.
        Provider memory other = fundedProvider(2);
        assertEq(submit(signedMatch(demand, other, supplyOf(other))), 1);
        assertVersion(1);
    }

    function test_AManifestMayBeDropped() public {
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        update.manifest = 0;
        relay(update);
        assertEq(market.developerOffer(offerHash).manifest, 0);
    }

    function test_ACancelledOfferIsStillUpdatedForItsDeals() public {
        vm.prank(developer);
        market.cancelOffer(offerHash);
        relay(updateOf(demandOf(1), 1));
        assertVersion(1);
    }

    function test_AWalletSigns() public {
        Wallet wallet = new Wallet(developer);
        DeveloperOffer memory demand = demandOf(1);
        demand.developer = address(wallet);
        wallet.execute(address(market), abi.encodeCall(market.postDeveloperOffer, (demand)));
        ArtifactUpdate memory update = updateOf(demand, 1);
        bytes memory byStranger = signUpdate(1, update);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, address(wallet)));
        market.updateArtifact(update, byStranger);
        // The key behind the wallet is not the wallet itself.
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, address(wallet)));
        vm.prank(developer);
        market.updateArtifact(update, "");
        offerHash = update.developerOffer;
        relay(update);
        assertVersion(1);
        wallet.execute(address(market), abi.encodeCall(market.updateArtifact, (updateOf(demand, 2), "")));
        assertVersion(2);
    }

    // --- What is refused --------------------------------------------------------------------------------------------

    function test_AnOldUpdateCannotBeBroughtBack() public {
        ArtifactUpdate memory old = updateOf(demandOf(1), 1);
        relay(old);
        expectRefused(old, abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 2, 1));
        relay(updateOf(demandOf(1), 2));
        expectRefused(old, abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 3, 1));
        vm.prank(developer);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 3, 1));
        market.updateArtifact(old, "");
        assertVersion(2);
    }

    function test_NoVersionIsLeftOut() public {
        expectRefused(updateOf(demandOf(1), 0), abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 1, 0));
        expectRefused(updateOf(demandOf(1), 2), abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 1, 2));
        uint32 last = type(uint32).max;
        expectRefused(
            updateOf(demandOf(1), last), abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 1, last)
        );
    }

    function test_EachOfferCountsByItself() public {
        relay(updateOf(demandOf(1), 1));
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        vm.prank(developer);
        market.postDeveloperOffer(demand);
        expectRefused(updateOf(demand, 2), abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 1, 2));
        relay(updateOf(demand, 1));
        assertVersion(1);
    }

    function test_ExpiresWithTheLastSecond() public {
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        update.validUntil = uint64(block.timestamp) - 1;
        expectRefused(update, abi.encodeWithSelector(IMarketEvents.Expired.selector, uint64(block.timestamp) - 1));
        update.validUntil += 1;
        relay(update);
        assertVersion(1);
    }

    function test_UnknownOffersAreNotUpdated() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        ArtifactUpdate memory update = updateOf(demand, 1);
        expectRefused(update, abi.encodeWithSelector(IMarketEvents.OfferUnknown.selector, update.developerOffer));
        // Nor is a provider offer one.
        update.developerOffer = market.hashProviderOffer(supplyOf(providerNo(1)));
        expectRefused(update, abi.encodeWithSelector(IMarketEvents.OfferUnknown.selector, update.developerOffer));
    }

    function test_MalformedUpdates() public {
        bytes memory malformed = abi.encodePacked(IMarketEvents.UpdateMalformed.selector);
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        update.artifact = 0;
        expectRefused(update, malformed);
        update = updateOf(demandOf(1), 1);
        update.artifactUrl = string(new bytes(513));
        expectRefused(update, malformed);
        update.artifactUrl = string(new bytes(512));
        relay(update);
        update = updateOf(demandOf(1), 2);
        update.artifactUrl = "";
        relay(update);
        assertVersion(2);
    }

    function test_NobodyElseUpdates() public {
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        Provider memory provider = providerNo(1);
        bytes memory notSigned = abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, developer);
        bytes memory byProvider = signUpdate(provider.key, update);
        vm.expectRevert(notSigned);
        market.updateArtifact(update, byProvider);
        vm.expectRevert(notSigned);
        vm.prank(provider.account);
        market.updateArtifact(update, "");
        vm.expectRevert(notSigned);
        vm.prank(operator);
        market.updateArtifact(update, "");
    }

    function test_WhatWasSignedCannotBeAltered() public {
        bytes memory notSigned = abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, developer);
        bytes memory signature = signUpdate(developerKey, updateOf(demandOf(1), 1));
        for (uint256 field = 0; field < 4; ++field) {
            ArtifactUpdate memory update = updateOf(demandOf(1), 1);
            if (field == 0) update.artifact = "another";
            if (field == 1) update.manifest = "another";
            if (field == 2) update.artifactUrl = "https://elsewhere.example";
            if (field == 3) update.validUntil += 1;
            vm.expectRevert(notSigned);
            market.updateArtifact(update, signature);
        }
    }

    function test_AnUpdateForAnotherMarketIsNone() public {
        IMarket here = market;
        market = deployMarket(defaultConfig());
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        update.developerOffer = offerHash;
        bytes memory signature = signUpdate(developerKey, update);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, developer));
        here.updateArtifact(update, signature);
    }
}
