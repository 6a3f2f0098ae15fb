// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {
    DealChange,
    DealId,
    DealState,
    DeveloperOffer,
    EndCause,
    Epoch,
    OfferHash,
    ProviderOffer,
    Reason
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";

/// @dev Where payments go: to the offer's payout account, whoever settles and by whatever, and never where the hot key
/// would have them.
contract PayoutTest is Actions {
    /// @dev Where the market keeps payout accounts.
    uint256 internal constant PAYOUTS_SLOT = 2;

    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        nextEpochs(1);
        watch(provider);
        accounts.push(developer);
        accounts.push(stranger);
        deals.push(dealId);
    }

    function assertPaid(uint256 epochs) internal view {
        assertEq(free(provider.payout), epochs * PRICE, "payout");
        assertEq(free(provider.agent), 0, "agent");
        assertConserved();
    }

    // --- By every operation that settles ------------------------------------------------------------------------------

    function test_ByAClaim() public {
        serve(provider.agent, 2);
        claim(dealId);
        assertPaid(2);
        assertEq(free(provider.account), START_FREE - BOND);
    }

    function test_ByACancel() public {
        serve(provider.agent, 2);
        cancel(dealId);
        assertPaid(2);
    }

    function test_ByANotice() public {
        serve(provider.agent, 2);
        giveNotice(provider, dealId);
        assertPaid(2);
    }

    function test_ByAFunding() public {
        serve(provider.agent, 2);
        fund(stranger, PRICE);
        vm.prank(stranger);
        market.fundDeal(refOf(dealId), PRICE);
        assertPaid(2);
    }

    function test_ByAChange() public {
        serve(provider.agent, 2);
        reprice(provider, dealId, PRICE + 1);
        assertPaid(2);
    }

    function test_BySlashing() public {
        serve(provider.agent, 2);
        slashWith(agentKeyNo(1), dealId);
        assertPaid(2);
        assertEq(free(provider.account), START_FREE - BOND, "the bond is the provider's own");
    }

    function test_ByAnEviction() public {
        serve(provider.agent, 2);
        nextEpochs(EVICT_AFTER + WINDOW);
        market.evict(refOf(dealId));
        assertPaid(2);
    }

    function test_ByClosingWhileTheBondReturnsToTheProvider() public {
        serve(provider.agent, TERM);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.TermOver);
        assertPaid(TERM);
        assertEq(free(provider.account), START_FREE);
    }

    // --- Which account ------------------------------------------------------------------------------------------------

    function openWithPayout(address payout, uint64 nonce) internal returns (DealId opened) {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = nonce;
        ProviderOffer memory supply = supplyOf(provider);
        (supply.payout, supply.nonce) = (payout, nonce);
        assertEq(submit(signedMatch(demand, provider, supply)), 1);
        opened = refTo(demand, supply);
        deals.push(opened);
    }

    function stored(DealId opened) internal view returns (bytes32) {
        return vm.load(address(market), keccak256(abi.encode(refOf(opened).providerOffer, PAYOUTS_SLOT)));
    }

    function test_TheProvidersOwnAccountCostsNoSlot() public {
        DealId own = openWithPayout(provider.account, 1);
        assertEq(stored(own), 0);
        assertEq(stored(dealId), bytes32(uint256(uint160(provider.payout))), "another one is stored");
        assertEq(deal(own).payout, provider.account);
        serve(provider.agent, 2);
        assertEq(claim(own), PRICE);
        assertEq(free(provider.account), START_FREE - 2 * BOND + PRICE);
        assertPaid(0);
        assertEq(market.providerOffer(provider.account, refOf(own).providerOffer).payout, provider.account);
    }

    function test_PostedOffersKeepTheirPayoutAsWell() public {
        ProviderOffer memory supply = supplyOf(provider);
        (supply.payout, supply.nonce) = (stranger, 1);
        vm.prank(provider.account);
        OfferHash posted = market.postProviderOffer(supply);
        assertEq(market.providerOffer(provider.account, posted).payout, stranger);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        submit(signedMatch(demand, provider, supply));
        DealId opened = refTo(demand, supply);
        serve(provider.agent, 2);
        claim(opened);
        assertEq(free(stranger), PRICE);
    }

    function test_EachOfferPaysItsOwnAccount() public {
        DealId other = openWithPayout(stranger, 1);
        serve(provider.agent, 2);
        claim(dealId);
        claim(other);
        assertEq(free(stranger), PRICE);
        assertPaid(2);
    }

    /// @dev A batch names one offer: deals of another one are passed over, not paid to this one's account.
    function test_ABatchDoesNotMixOffers() public {
        DealId other = openWithPayout(stranger, 1);
        serve(provider.agent, 2);
        DealId[] memory dealIds = new DealId[](2);
        (dealIds[0], dealIds[1]) = (dealId, other);
        vm.expectEmit(address(market));
        emit IMarketEvents.ClaimSkipped(other, Reason.ProviderOfferMismatch);
        assertEq(claim(dealIds), 2 * PRICE);
        assertPaid(2);
        assertEq(free(stranger), 0);
    }

    function test_TheDeveloperMayBeThePayee() public {
        DealId own = openWithPayout(developer, 1);
        uint256 before = free(developer);
        serve(provider.agent, 2);
        assertEq(claim(own), PRICE);
        assertEq(free(developer), before, "pays itself for the served epoch, and the lock is topped up by one");
        assertConserved();
    }

    // --- What the hot key can't do ------------------------------------------------------------------------------------

    function test_TheAgentCannotWithdraw() public {
        serve(provider.agent, 2);
        claim(dealId);
        vm.startPrank(provider.agent);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, 0, 1));
        market.withdraw(1, provider.agent);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, 0, 1));
        market.fundDeal(refOf(dealId), 1);
        vm.stopPrank();
        assertPaid(2);
    }

    function test_TheAgentCannotChangeThePayout() public {
        ProviderOffer memory supply = supplyOf(provider);
        (supply.payout, supply.nonce) = (provider.agent, 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotOfferOwner.selector, provider.account, provider.agent));
        vm.prank(provider.agent);
        market.postProviderOffer(supply);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        Provider memory asAgent = provider;
        asAgent.key = agentKeyNo(1);
        assertEq(submit(signedMatch(demand, asAgent, supply)), 0, "nor sign an offer with another one");
        assertEq(deal(dealId).payout, provider.payout);
    }

    function test_TheAgentCannotActForTheProvider() public {
        vm.startPrank(provider.agent);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotDeveloper.selector, dealId, provider.agent));
        market.cancelDeals(refsOf(dealId));
        // Voids an offer of the agent's own, of which there is none, and nonces of its own.
        market.cancelOffer(refOf(dealId).providerOffer);
        market.raiseNonceFloor(9);
        vm.stopPrank();
        assertFalse(market.isCancelled(provider.account, refOf(dealId).providerOffer));
        assertEq(market.account(provider.account).nonceFloor, 0);
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = 0;
        bytes memory byDeveloper = signChange(developerKey, change);
        ProviderOffer memory supply = supplyOf(provider);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SignatureInvalid.selector, provider.account));
        vm.prank(provider.agent);
        market.changeDeal(refOf(dealId), change, supply, byDeveloper, "");
    }

    /// @dev Attesting changes no balance at all, and what it makes due goes to the payout account alone.
    function testFuzz_AttestationsMoveNoMoneyElsewhere(uint32 epochs, address caller) public {
        vm.assume(caller != address(0) && caller != provider.payout && caller != developer);
        vm.assume(caller != provider.account && caller != address(market));
        uint256 due;
        for (uint256 epoch = 1; epoch <= TERM; ++epoch) {
            toEpoch(epoch + 1);
            if ((epochs >> epoch) & 1 == 0) continue;
            uint256 ofDeveloper = free(developer);
            attest(provider.agent, epoch);
            assertEq(free(developer), ofDeveloper);
            ++due;
        }
        nextEpochs(WINDOW);
        vm.prank(caller);
        assertEq(claim(dealId), due * PRICE);
        assertEq(free(caller), 0);
        assertPaid(due);
    }

    function test_AttestationsOfSomebodyElseCountForNothing() public {
        nextEpochs(2);
        attest(stranger, 1);
        attest(provider.account, 1);
        attest(provider.payout, 2);
        nextEpochs(WINDOW);
        assertEq(claim(dealId), 0);
        assertEq(market.attestedEpochs(provider.agent, Epoch.wrap(0), Epoch.wrap(9)), 0);
    }
}
