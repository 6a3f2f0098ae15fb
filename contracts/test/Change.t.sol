// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {
    DealChange,
    DealId,
    DealRef,
    DealState,
    DealView,
    DeveloperOffer,
    EndCause,
    Epoch,
    OfferHash,
    ProviderOffer
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";
import {Wallet} from "./support/Wallets.sol";

/// @dev What a change of a deal needs, and what it does at once. A default deal bills epochs 1 to 20.
contract ChangeTest is Actions {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, 2);
    }

    function expectChanged(DealChange memory change, uint64 bond, uint32 paidUntil) internal {
        vm.expectEmit(address(market));
        emit IMarketEvents.DealChanged(
            change.dealId,
            change.sequence,
            epochNow() + 1,
            change.endEpoch,
            change.pricePerEpoch,
            change.milliCpu,
            change.memoryMib,
            bond,
            Epoch.wrap(paidUntil)
        );
    }

    function malformed() internal pure returns (bytes memory) {
        return abi.encodePacked(IMarketEvents.ChangeMalformed.selector);
    }

    // --- What changes -----------------------------------------------------------------------------------------------

    function test_ExtendsTheTerm() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch += 10;
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        // What was served is settled first.
        vm.expectEmit(address(market));
        emit IMarketEvents.DealSettled(dealId, 2 * PRICE, 2 * PRICE, Epoch.wrap(3));
        expectChanged(change, BOND, 7);
        vm.prank(stranger);
        market.changeDeal(refOf(dealId), change, supplyOf(provider), byDeveloper, byProvider);
        assertEq(free(provider.payout), 2 * PRICE);
        serve(provider.agent, TERM + 10);
        assertEq(claim(dealId), (TERM + 10 - 2) * PRICE);
        assertEpoch(deal(dealId).settledUntil, TERM + 11, "settledUntil");
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
        assertEq(free(developer), START_FREE - (TERM + 10) * PRICE);
        assertEq(free(provider.account), START_FREE);
    }

    function test_ShortensTheTermAndRefundsWhatIsLockedBeyondIt() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch = 5;
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        expectChanged(change, BOND, 5);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealRefunded(dealId, 2 * PRICE, Epoch.wrap(5));
        market.changeDeal(refOf(dealId), change, supplyOf(provider), byDeveloper, byProvider);
        assertEq(free(developer), START_FREE - 4 * PRICE);
        serve(provider.agent, 3);
        assertEq(claim(dealId), 2 * PRICE);
        assertEq(deal(dealId).locked, 0);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
        assertEq(free(developer), START_FREE - 4 * PRICE);
    }

    function test_AHigherPriceHoldsFromTheNextEpoch() public {
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = 2 * PRICE;
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        // Locked for four epochs: one at the old price, one at the new, and half of another.
        expectChanged(change, 2 * BOND, 5);
        market.changeDeal(refOf(dealId), change, supplyOf(provider), byDeveloper, byProvider);
        DealView memory shown = deal(dealId);
        assertEq(shown.locked, 7 * PRICE, "one old epoch and three new ones");
        assertEpoch(shown.paidUntil, 7, "paidUntil");
        assertEpoch(shown.priceFrom, 4, "priceFrom");
        assertEq(shown.oldPricePerEpoch, PRICE);
        assertEq(shown.pricePerEpoch, 2 * PRICE);
        assertEq(shown.changes, 1);
        assertEq(shown.bond, 2 * BOND);
        assertEq(free(provider.account), START_FREE - 2 * BOND);
        serve(provider.agent, 3);
        assertEq(claim(dealId), (1 + 2 * 2) * PRICE);
        assertEq(deal(dealId).locked, PREPAID * 2 * PRICE);
    }

    function test_ALowerPriceHoldsFromTheNextEpochAndFreesBond() public {
        uint64 half = PRICE / 2;
        reprice(provider, dealId, half);
        DealView memory shown = deal(dealId);
        assertEq(shown.locked, 4 * PRICE, "what is locked ahead stays");
        assertEpoch(shown.paidUntil, 10, "one old epoch and six new ones");
        assertEq(shown.bond, BOND / 2);
        assertEq(free(provider.account), START_FREE - BOND / 2);
        serve(provider.agent, 3);
        assertEq(claim(dealId), PRICE + 2 * half);
    }

    function test_ALowerPriceRefundsWhatTheWholeTermCannotNeed() public {
        reprice(provider, dealId, 0);
        assertEq(free(developer), START_FREE - 3 * PRICE, "two epochs paid, the current one locked");
        assertEq(deal(dealId).locked, PRICE);
        assertEpoch(deal(dealId).paidUntil, TERM + 1, "paidUntil");
        assertEq(free(provider.account), START_FREE, "a free deal has no bond");
        serve(provider.agent, TERM);
        assertEq(claim(dealId), PRICE);
        assertEpoch(deal(dealId).settledUntil, TERM + 1, "settledUntil");
    }

    function test_AFreeDealMayGetAPrice() public {
        reprice(provider, dealId, 0);
        serve(provider.agent, 2);
        reprice(provider, dealId, PRICE);
        assertEq(deal(dealId).oldPricePerEpoch, 0);
        assertEq(deal(dealId).bond, BOND);
        serve(provider.agent, 2);
        // Epochs 1 to 3 at the first price, 4 and 5 free, 6 at the last one.
        assertEq(claim(dealId), PRICE);
        assertEq(free(provider.payout), 4 * PRICE);
    }

    function test_ResizesUpAndDown() public {
        DealChange memory change = changeOf(dealId);
        change.milliCpu = 2000;
        change.memoryMib = 4096;
        agree(provider, change);
        assertUsed(2000, 4096);
        assertEq(deal(dealId).milliCpu, 2000);
        assertEq(deal(dealId).memoryMib, 4096);
        // The last change is settled with the next epoch.
        serve(provider.agent, 1);
        change.sequence = 2;
        change.milliCpu = 1;
        change.memoryMib = 1;
        agree(provider, change);
        assertUsed(1, 1);
        cancel(dealId);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        assertUsed(0, 0);
    }

    function assertUsed(uint256 milliCpu, uint256 memoryMib) internal view {
        (uint256 usedMilliCpu, uint256 usedMemoryMib) = usedOf(supplyOf(provider));
        assertEq(usedMilliCpu, milliCpu, "milliCpu");
        assertEq(usedMemoryMib, memoryMib, "memoryMib");
    }

    function test_OtherReplicasOfTheOfferKeepTheirTerms() public {
        Provider memory other = fundedProvider(2);
        DeveloperOffer memory demand = demandOf(2);
        demand.nonce = 1;
        Provider[] memory providers = new Provider[](2);
        ProviderOffer[] memory supplies = new ProviderOffer[](2);
        (providers[0], providers[1]) = (provider, other);
        (supplies[0], supplies[1]) = (supplyOf(provider), supplyOf(other));
        submit(signedMatch(demand, providers, supplies));
        DealId changed = refTo(demand, supplies[0]);
        DealId kept = refTo(demand, supplies[1]);
        DealChange memory change = changeOf(changed);
        (change.endEpoch, change.pricePerEpoch, change.milliCpu) = (10, 5, 7);
        agree(provider, change);
        assertEq(deal(kept).pricePerEpoch, PRICE);
        assertEq(deal(kept).milliCpu, demand.milliCpu);
        assertEpoch(deal(kept).endEpoch, 3 + 1 + TERM, "end");
        (, Epoch end) = placementOf(market.hashDeveloperOffer(demand));
        assertEpoch(end, 3 + 1 + TERM, "a refill runs to the offer's own end");
    }

    // --- Who agrees -------------------------------------------------------------------------------------------------

    function test_TheDeveloperCallsWithoutItsSignature() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch += 1;
        bytes memory byProvider = signChange(provider.key, change);
        vm.prank(developer);
        market.changeDeal(refOf(dealId), change, supplyOf(provider), "", byProvider);
        assertEq(deal(dealId).changes, 1);
    }

    function test_TheProviderCallsWithoutItsSignature() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch += 1;
        bytes memory byDeveloper = signChange(developerKey, change);
        vm.prank(provider.account);
        market.changeDeal(refOf(dealId), change, supplyOf(provider), byDeveloper, "");
        assertEq(deal(dealId).changes, 1);
    }

    function test_NeitherSideChangesADealAlone() public {
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = 1;
        expectSigner(change, developer, developerKey, developerKey, provider.account);
        expectSigner(change, provider.account, provider.key, provider.key, developer);
        // The hot key and the payout account are not the provider.
        expectSigner(change, provider.agent, developerKey, agentKeyNo(1), provider.account);
        expectSigner(change, stranger, developerKey, developerKey, provider.account);
        expectSigner(change, stranger, provider.key, provider.key, developer);
        assertEq(deal(dealId).changes, 0);
    }

    function expectSigner(DealChange memory change, address caller, uint256 first, uint256 second, address missing)
        internal
    {
        bytes memory firstSignature = signChange(first, change);
        bytes memory secondSignature = signChange(second, change);
        ProviderOffer memory supply = supplyOf(provider);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, missing));
        vm.prank(caller);
        market.changeDeal(refOf(dealId), change, supply, firstSignature, secondSignature);
    }

    function test_WhatWasSignedCannotBeAltered() public {
        DealChange memory change = changeOf(dealId);
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        change.pricePerEpoch += 1;
        ProviderOffer memory supply = supplyOf(provider);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, developer));
        market.changeDeal(refOf(dealId), change, supply, byDeveloper, byProvider);
    }

    function test_ContractAccountsAgree() public {
        Wallet ofDeveloper = new Wallet(developer);
        Wallet ofProvider = new Wallet(provider.account);
        fund(address(ofDeveloper), START_FREE);
        fund(address(ofProvider), START_FREE);
        DeveloperOffer memory demand = demandOf(1);
        demand.developer = address(ofDeveloper);
        ProviderOffer memory supply = supplyOf(provider);
        supply.provider = address(ofProvider);
        assertEq(submit(signedMatch(demand, provider, supply)), 1);
        DealId ofWallets = refTo(demand, supply);
        DealChange memory change = changeOf(ofWallets);
        change.pricePerEpoch = 2 * PRICE;
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, address(ofDeveloper)));
        market.changeDeal(refOf(ofWallets), change, supply, byProvider, byProvider);
        market.changeDeal(refOf(ofWallets), change, supply, byDeveloper, byProvider);
        assertEq(deal(ofWallets).pricePerEpoch, 2 * PRICE);
    }

    function test_OneAccountOnBothSidesAgreesWithItself() public {
        Provider memory both = Provider(developer, developerKey, provider.agent, developer);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId own = openDeal(demand, both);
        DealChange memory change = changeOf(own);
        change.pricePerEpoch = 2 * PRICE;
        vm.prank(developer);
        market.changeDeal(refOf(own), change, supplyOf(both), "", "");
        assertEq(deal(own).bond, 2 * BOND);
    }

    // --- When it is refused -----------------------------------------------------------------------------------------

    function test_ExpiresWithTheLastSecond() public {
        DealChange memory change = changeOf(dealId);
        change.validUntil = uint64(block.timestamp) - 1;
        expectRefused(
            provider, change, abi.encodeWithSelector(IMarketEvents.Expired.selector, uint64(block.timestamp) - 1)
        );
        change.validUntil += 1;
        agree(provider, change);
        assertEq(deal(dealId).changes, 1);
    }

    function test_ChangesComeInOrderAndOnce() public {
        DealChange memory change = changeOf(dealId);
        change.sequence = 2;
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 1, 2));
        change.sequence = 0;
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 1, 0));
        change.sequence = 1;
        agree(provider, change);
        serve(provider.agent, 1);
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 2, 1));
        change.sequence = 3;
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 2, 3));
        change.sequence = 2;
        agree(provider, change);
        assertEq(deal(dealId).changes, 2);
    }

    function test_SizesOutsideOfTheirLimits() public {
        for (uint256 i = 0; i < 4; ++i) {
            DealChange memory change = changeOf(dealId);
            if (i == 0) change.milliCpu = 0;
            if (i == 1) change.memoryMib = 0;
            if (i == 2) change.milliCpu = 1 << 20;
            if (i == 3) change.memoryMib = 1 << 20;
            expectRefused(provider, change, malformed());
        }
    }

    function test_PricesOutsideOfTheirLimits() public {
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = 1 << 48;
        expectRefused(provider, change, malformed());
        change.pricePerEpoch = type(uint64).max;
        expectRefused(provider, change, malformed());
        change.pricePerEpoch = (1 << 48) - 1;
        uint256 bond = uint256(change.pricePerEpoch) * BOND_EPOCHS;
        fundWithMuch(provider.account, bond);
        agree(provider, change);
        assertEq(deal(dealId).pricePerEpoch, change.pricePerEpoch);
        assertEq(deal(dealId).bond, bond);
        assertEq(free(provider.account), START_FREE);
    }

    function test_TheEndLiesBehindTheNextEpoch() public {
        DealChange memory change = changeOf(dealId);
        // Epoch 3 is running, new terms hold from 4 on: there must be one such epoch.
        change.endEpoch = 4;
        expectRefused(provider, change, malformed());
        change.endEpoch = 0;
        expectRefused(provider, change, malformed());
        change.endEpoch = 5;
        agree(provider, change);
        assertEpoch(deal(dealId).endEpoch, 5, "end");
    }

    function test_TheLongestTermEndsWithTheClock() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch = type(uint32).max;
        agree(provider, change);
        assertEpoch(deal(dealId).endEpoch, type(uint32).max, "end");
        serve(provider.agent, 3);
        assertEq(claim(dealId), 3 * PRICE);
    }

    function test_NothingChangesInTheLastEpoch() public {
        serve(provider.agent, TERM - 3);
        DealChange memory change = changeOf(dealId);
        change.endEpoch = TERM + 1;
        // Epoch 20 runs, the last one: only an extension makes sense.
        expectRefused(provider, change, malformed());
        change.endEpoch = TERM + 2;
        agree(provider, change);
        serve(provider.agent, 2);
        claim(dealId);
        assertEq(free(provider.payout), (TERM + 1) * PRICE);
    }

    function test_BehindItsTermADealChangesNoMore() public {
        DealChange memory change = changeOf(dealId);
        change.endEpoch = TERM + 4;
        // The last second of the last epoch, and the one after it.
        vm.warp(GENESIS + (TERM + 1) * EPOCH_LENGTH - 1);
        uint256 before = vm.snapshotState();
        agree(provider, change);
        assertEpoch(deal(dealId).endEpoch, TERM + 4, "end");
        vm.revertToState(before);
        toEpoch(TERM + 1);
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.DealNotActive.selector, dealId));
    }

    function test_TheChangeOfAnotherDealIsRefused() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId other = openDeal(demand, provider);
        expectRefused(provider, changeOf(other), dealId, malformed());
    }

    function test_OnlyActiveDealsChange() public {
        bytes memory notActive = abi.encodeWithSelector(IMarketEvents.DealNotActive.selector, dealId);
        uint256 before = vm.snapshotState();
        cancel(dealId);
        expectRefused(provider, changeOf(dealId), notActive);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(dealId));
        bytes memory notOpen = abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId);
        expectRefused(provider, changeOf(dealId), notOpen);
        vm.revertToState(before);
        giveNotice(provider, dealId);
        expectRefused(provider, changeOf(dealId), notActive);
    }

    function test_UnfundedDealsDoNotChange() public {
        drain(developer);
        serve(provider.agent, 2);
        // Recorded by the change itself, which is then refused as a whole.
        DealChange memory change = changeOf(dealId);
        change.endEpoch = TERM + 5;
        expectRefused(provider, change, malformed());
        claim(dealId);
        assertEpoch(deal(dealId).unfundedSince, 5, "unfundedSince");
        expectRefused(provider, change, malformed());
        fund(developer, START_FREE);
        // The change settles first, which finds the new money.
        agree(provider, change);
        assertEpoch(deal(dealId).unfundedSince, 0, "funded again");
    }

    function test_AChangeWaitsUntilTheLastOneIsSettled() public {
        reprice(provider, dealId, 2 * PRICE);
        DealChange memory change = changeOf(dealId);
        bytes memory pending = abi.encodeWithSelector(IMarketEvents.ChangePending.selector, Epoch.wrap(4));
        expectRefused(provider, change, pending);
        // Epoch 3 may be attested through epoch 3 + WINDOW.
        nextEpochs(WINDOW);
        expectRefused(provider, change, pending);
        nextEpochs(1);
        agree(provider, change);
        assertEq(deal(dealId).changes, 2);
    }

    function test_AnAttestedEpochSettlesTheLastChangeAtOnce() public {
        reprice(provider, dealId, 2 * PRICE);
        serve(provider.agent, 1);
        reprice(provider, dealId, 3 * PRICE);
        serve(provider.agent, 2);
        claim(dealId);
        assertEq(free(provider.payout), (3 + 2 + 3) * PRICE);
        assertEq(deal(dealId).oldPricePerEpoch, 2 * PRICE);
    }

    function test_TheProviderOfferIsTheDealsOwn() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.milliCpu *= 2;
        DealChange memory change = changeOf(dealId);
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        bytes memory mismatch = abi.encodeWithSelector(IMarketEvents.ProviderOfferMismatch.selector, dealId);
        vm.expectRevert(mismatch);
        market.changeDeal(refOf(dealId), change, supply, byDeveloper, byProvider);
        // Nor does another one hold, that the chain knows as well.
        vm.prank(provider.account);
        OfferHash posted = market.postProviderOffer(supply);
        DealRef memory ref = refOf(dealId);
        ref.providerOffer = posted;
        vm.expectRevert(mismatch);
        market.changeDeal(ref, change, supply, byDeveloper, byProvider);
    }

    function test_CapacityIsNeverExceeded() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        openDeal(demand, provider);
        DealChange memory change = changeOf(dealId);
        change.milliCpu = 3501;
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.CapacityExceeded.selector, 3500, 3501));
        change.milliCpu = 3500;
        change.memoryMib = 7681;
        expectRefused(provider, change, abi.encodeWithSelector(IMarketEvents.CapacityExceeded.selector, 7680, 7681));
        change.memoryMib = 7680;
        agree(provider, change);
        assertUsed(4000, 8192);
    }

    function test_AHigherBondMustBeThere() public {
        vm.startPrank(provider.account);
        market.withdraw(free(provider.account) - (BOND - 1), provider.account);
        vm.stopPrank();
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = 2 * PRICE;
        expectRefused(
            provider, change, abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, BOND - 1, uint256(BOND))
        );
        fund(provider.account, 1);
        agree(provider, change);
        assertEq(free(provider.account), 0);
    }

    function test_ADeveloperWithoutMoneyRunsDryAtTheNewPrice() public {
        drain(developer);
        reprice(provider, dealId, 2 * PRICE);
        // Two epochs were served and two are locked: the current one and half of the next.
        assertEpoch(deal(dealId).paidUntil, 4, "not even one epoch at the new price");
        assertEpoch(deal(dealId).unfundedSince, 0, "but the current one is paid");
        serve(provider.agent, 2);
        claim(dealId);
        assertEpoch(deal(dealId).unfundedSince, 4, "unfundedSince");
        assertEq(free(provider.payout), 3 * PRICE);
        assertEq(deal(dealId).locked, PRICE);
    }
}
