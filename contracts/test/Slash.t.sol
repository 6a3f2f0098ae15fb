// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {
    DealId,
    DealRef,
    DealState,
    DeveloperOffer,
    EndCause,
    OfferHash,
    ProviderOffer,
    Receipt as DealReceipt
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";
import {Wallet} from "./support/Wallets.sol";

/// @dev Two different receipts of one number are proof of fraud.
contract SlashTest is Actions {
    Provider internal provider;
    uint256 internal agentKey;
    DealId internal dealId;
    DealReceipt internal first;
    DealReceipt internal second;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        agentKey = agentKeyNo(1);
        dealId = openDeal(provider);
        first = receiptOf(dealId, 7, "one");
        second = receiptOf(dealId, 7, "other");
        nextEpochs(1);
        watch(provider);
        accounts.push(developer);
        deals.push(dealId);
    }

    function expectNotProven(uint256 firstKey, uint256 secondKey, bytes memory why) internal {
        expectNotProven(refOf(dealId), firstKey, secondKey, why);
    }

    function expectNotProven(DealRef memory ref, uint256 firstKey, uint256 secondKey, bytes memory why) internal {
        bytes memory firstSigned = signReceipt(firstKey, first);
        bytes memory secondSigned = signReceipt(secondKey, second);
        vm.expectRevert(why);
        market.slash(ref, first, firstSigned, second, secondSigned);
    }

    function agrees() internal pure returns (bytes memory) {
        return abi.encodePacked(IMarketEvents.ReceiptsAgree.selector);
    }

    function notSigned(address signer) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, signer);
    }

    // --- What it does -----------------------------------------------------------------------------------------------

    function test_EndsTheDealAndForfeitsTheBond() public {
        serve(provider.agent, 2);
        bytes memory firstSigned = signReceipt(agentKey, first);
        bytes memory secondSigned = signReceipt(agentKey, second);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealEnded(dealId, EndCause.ProviderSlashed, PREPAID * PRICE, developer, BOND);
        vm.prank(stranger);
        market.slash(refOf(dealId), first, firstSigned, second, secondSigned);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
        assertEq(free(provider.payout), 2 * PRICE, "served epochs are paid first");
        assertEq(free(developer), START_FREE - 2 * PRICE + BOND);
        assertEq(free(provider.account), START_FREE - BOND);
        assertEq(free(stranger), 0);
        (uint256 milliCpu, uint256 memoryMib) = usedOf(supplyOf(provider));
        assertEq(milliCpu + memoryMib, 0);
        assertConserved();
    }

    function test_ThePlaceIsFilledElsewhere() public {
        slashWith(agentKey, dealId);
        (uint16 live,) = placementOf(market.hashDeveloperOffer(demandOf(1)));
        assertEq(live, 0);
        assertEq(submit(signedMatch(demandOf(1), provider, supplyOf(provider))), 0, "never at the same provider");
        Provider memory other = fundedProvider(2);
        assertEq(submit(signedMatch(demandOf(1), other, supplyOf(other))), 1);
    }

    function test_OnlyThisDealEnds() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId other = openDeal(demand, provider);
        slashWith(agentKey, dealId);
        assertState(other, DealState.Active, EndCause.None);
        assertEq(deal(other).bond, BOND);
    }

    function test_TheOrderOfTheTwoDoesNotMatter() public {
        bytes memory firstSigned = signReceipt(agentKey, first);
        bytes memory secondSigned = signReceipt(agentKey, second);
        market.slash(refOf(dealId), second, secondSigned, first, firstSigned);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
    }

    function testFuzz_AnyNumberAndAnyContent(uint64 sequence, bytes32 one, bytes32 other) public {
        vm.assume(one != other);
        first = receiptOf(dealId, sequence, one);
        second = receiptOf(dealId, sequence, other);
        bytes memory firstSigned = signReceipt(agentKey, first);
        bytes memory secondSigned = signReceipt(agentKey, second);
        market.slash(refOf(dealId), first, firstSigned, second, secondSigned);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
        assertConserved();
    }

    // --- When ---------------------------------------------------------------------------------------------------------

    function test_NeitherCancelNorNoticeSavesTheBond() public {
        uint256 before = vm.snapshotState();
        cancel(dealId);
        slashWith(agentKey, dealId);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
        assertEq(free(developer), START_FREE + BOND);
        vm.revertToState(before);
        giveNotice(provider, dealId);
        slashWith(agentKey, dealId);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
        assertEq(free(developer), START_FREE + BOND);
    }

    function test_AnUnfundedDealIsSlashed() public {
        drain(developer);
        serve(provider.agent, PREPAID + 1);
        claim(dealId);
        slashWith(agentKey, dealId);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
        assertEq(free(developer), BOND);
        assertConserved();
    }

    function test_AfterTheTermAsLongAsTheDealIsNotClosed() public {
        serve(provider.agent, TERM);
        uint256 before = vm.snapshotState();
        slashWith(agentKey, dealId);
        assertEq(free(developer), START_FREE - TERM * PRICE + BOND);
        vm.revertToState(before);
        market.closeDeal(refOf(dealId));
        bytes memory notOpen = abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId);
        expectNotProven(agentKey, agentKey, notOpen);
    }

    function test_NotTwice() public {
        slashWith(agentKey, dealId);
        bytes memory notOpen = abi.encodeWithSelector(IMarketEvents.DealNotOpen.selector, dealId);
        expectNotProven(agentKey, agentKey, notOpen);
    }

    // --- What proves nothing ------------------------------------------------------------------------------------------

    function test_EqualReceiptsAgreeHoweverTheyAreSigned() public {
        second.content = first.content;
        expectNotProven(agentKey, agentKey, agrees());
        // The same signature in its long and in its short form.
        bytes32 digest = market.hashReceipt(first);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(agentKey, digest);
        bytes memory short = signReceipt(agentKey, first);
        vm.expectRevert(agrees());
        market.slash(refOf(dealId), first, abi.encodePacked(r, s, v), second, short);
    }

    function test_ReceiptsOfTwoNumbersAgree() public {
        second.sequence = 8;
        expectNotProven(agentKey, agentKey, agrees());
    }

    function test_ReceiptsOfOtherDealsAgree() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId other = openDeal(demand, provider);
        second.dealId = other;
        expectNotProven(agentKey, agentKey, agrees());
        first.dealId = other;
        expectNotProven(agentKey, agentKey, agrees());
        second.dealId = dealId;
        expectNotProven(agentKey, agentKey, agrees());
    }

    function test_OnlyTheAgentsReceiptsProve() public {
        expectNotProven(provider.key, provider.key, notSigned(provider.agent));
        expectNotProven(agentKey, provider.key, notSigned(provider.agent));
        expectNotProven(developerKey, agentKey, notSigned(provider.agent));
        expectNotProven(developerKey, developerKey, notSigned(provider.agent));
    }

    function test_AnotherReceiptThanTheSignedOneProvesNothing() public {
        bytes memory signed = signReceipt(agentKey, first);
        vm.expectRevert(notSigned(provider.agent));
        market.slash(refOf(dealId), first, signed, second, signed);
    }

    function test_ReceiptsForAnotherMarketProveNothing() public {
        IMarket here = market;
        market = deployMarket(defaultConfig());
        bytes memory firstSigned = signReceipt(agentKey, first);
        bytes memory secondSigned = signReceipt(agentKey, second);
        vm.expectRevert(notSigned(provider.agent));
        here.slash(refOf(dealId), first, firstSigned, second, secondSigned);
    }

    function test_TheProviderOfferMustBeTheDealsOwn() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.nonce = 1;
        supply.agent = stranger;
        vm.prank(provider.account);
        OfferHash posted = market.postProviderOffer(supply);
        DealRef memory ref = refOf(dealId);
        ref.providerOffer = posted;
        // Otherwise the provider could name another agent for its deals.
        bytes memory mismatch = abi.encodeWithSelector(IMarketEvents.ProviderOfferMismatch.selector, dealId);
        expectNotProven(ref, agentKey, agentKey, mismatch);
    }

    function test_AnAgentMayBeAContract() public {
        Wallet wallet = new Wallet(provider.agent);
        ProviderOffer memory supply = supplyOf(provider);
        supply.agent = address(wallet);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        submit(signedMatch(demand, provider, supply));
        DealId ofWallet = refTo(demand, supply);
        first.dealId = ofWallet;
        second.dealId = ofWallet;
        expectNotProven(refOf(ofWallet), provider.key, agentKey, notSigned(address(wallet)));
        slashWith(agentKey, ofWallet);
        assertState(ofWallet, DealState.Ended, EndCause.ProviderSlashed);
    }
}
