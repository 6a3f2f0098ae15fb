// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Market} from "../src/Market.sol";
import {TestUsdc} from "../src/TestUsdc.sol";
import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {
    ArtifactUpdate,
    DealChange,
    DealId,
    DealState,
    DeveloperOffer,
    EndCause,
    Epoch,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
    Receipt as DealReceipt
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";
import {BlockingToken, EagerToken, LyingToken, PausableToken, TaxToken} from "./support/OddTokens.sol";
import {FalseToken, SilentToken} from "./support/Tokens.sol";

/// @dev A market over tokens that are not what they should be.
contract TokenKindsTest is Actions {
    Provider internal provider;
    DealId internal dealId;

    /// @dev From here on all of `Base` uses a market over this token.
    function useToken(address odd) internal {
        token = TestUsdc(odd);
        MarketConfig memory constants = defaultConfig();
        market = deployMarket(constants);
    }

    /// @dev One deal, in its third epoch, two of which were served.
    function openOver(address odd) internal {
        useToken(odd);
        fund(developer, START_FREE);
        provider = fundedProvider(1);
        openHere();
    }

    function openHere() internal {
        dealId = openDeal(provider);
        nextEpochs(1);
        serve(provider.agent, 2);
        watch(provider);
        accounts.push(developer);
        accounts.push(stranger);
        deals.push(dealId);
    }

    function expectTransferFailed(address account, uint256 amount, address to) internal {
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        vm.prank(account);
        market.withdraw(amount, to);
    }

    // --- No return value, or false ------------------------------------------------------------------------------------

    function test_AWholeLifeOverATokenThatReturnsNothing() public {
        SilentToken silent = new SilentToken();
        useToken(address(silent));
        provider = providerNo(1);
        depositSilently(silent, developer);
        depositSilently(silent, provider.account);
        openHere();
        claim(dealId);
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        assertConserved();
        drain(developer);
        drain(provider.account);
        drain(provider.payout);
        assertEq(silent.balanceOf(address(market)), 0);
        assertEq(silent.balanceOf(provider.payout), 3 * PRICE);
    }

    function depositSilently(SilentToken silent, address account) internal {
        silent.mint(account, START_FREE);
        vm.startPrank(account);
        silent.approve(address(market), START_FREE);
        market.deposit(START_FREE);
        vm.stopPrank();
    }

    function test_AWithdrawalThatTheTokenDeniesTakesNothing() public {
        FalseToken no = new FalseToken();
        openOver(address(no));
        claim(dealId);
        no.setRefuses(true);
        expectTransferFailed(provider.payout, 2 * PRICE, provider.payout);
        assertEq(free(provider.payout), 2 * PRICE);
        // The deal does not need the token.
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        no.setRefuses(false);
        drain(provider.payout);
        assertEq(no.balanceOf(provider.payout), 3 * PRICE);
        assertConserved();
    }

    function test_ATransferThatOnlySaysYesCreditsNothing() public {
        LyingToken liar = new LyingToken();
        useToken(address(liar));
        fund(developer, 5e6);
        liar.mint(stranger, 5e6);
        liar.setLies(true);
        vm.startPrank(stranger);
        liar.approve(address(market), 5e6);
        vm.expectRevert(IMarketEvents.ZeroAmount.selector);
        market.deposit(5e6);
        vm.expectRevert(IMarketEvents.ZeroAmount.selector);
        market.depositFor(developer, 5e6);
        assertEq(free(stranger), 0);
        assertEq(free(developer), 5e6);
    }

    // --- Fees -----------------------------------------------------------------------------------------------------------

    /// @dev The market never owes more than it has: deposits credit what arrived, withdrawals debit what was sent.
    function testFuzz_AFeeIsPaidByWhoMovesTheMoney(uint8 percent, uint64 amount, uint64 part) public {
        percent = uint8(bound(percent, 0, 99));
        amount = uint64(bound(amount, 1, START_FREE));
        useToken(address(new TaxToken(percent)));
        uint256 arrives = amount - uint256(amount) * percent / 100;
        token.mint(stranger, amount);
        vm.startPrank(stranger);
        token.approve(address(market), amount);
        market.deposit(amount);
        assertEq(free(stranger), arrives);
        part = uint64(bound(part, 1, arrives));
        market.withdraw(part, operator);
        vm.stopPrank();
        assertEq(token.balanceOf(operator), part - uint256(part) * percent / 100);
        assertEq(free(stranger), arrives - part);
        assertEq(token.balanceOf(address(market)), arrives - part);
    }

    function test_AFeeOfEverythingCreditsNothing() public {
        useToken(address(new TaxToken(100)));
        token.mint(stranger, 5e6);
        vm.startPrank(stranger);
        token.approve(address(market), 5e6);
        vm.expectRevert(IMarketEvents.ZeroAmount.selector);
        market.deposit(5e6);
    }

    function test_AWholeLifeOverATokenWithAFee() public {
        openOver(address(new TaxToken(3)));
        reprice(provider, dealId, 2 * PRICE);
        serve(provider.agent, 2);
        claim(dealId);
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), (3 + 2 * 2) * PRICE);
        assertConserved();
        drain(developer);
        drain(provider.account);
        drain(provider.payout);
        assertEq(token.balanceOf(address(market)), 0);
    }

    // --- Reentrancy -----------------------------------------------------------------------------------------------------

    /// @dev The calls that move tokens: none of them runs within another one.
    function guardedCalls() internal view returns (bytes[] memory calls) {
        calls = new bytes[](6);
        calls[0] = abi.encodeCall(market.deposit, (1));
        calls[1] = abi.encodeCall(market.depositFor, (stranger, 1));
        calls[2] = abi.encodeCall(market.depositWithPermit, (address(token), 1, type(uint256).max, 27, "r", "s"));
        calls[3] = abi.encodeCall(
            market.depositWithAuthorization, (address(token), 1, 0, type(uint256).max, "n", 27, "r", "s")
        );
        calls[4] = abi.encodeCall(market.withdraw, (1, stranger));
        bytes[] memory inner = new bytes[](1);
        inner[0] = calls[4];
        calls[5] = abi.encodeCall(Market(address(market)).multicall, (inner));
    }

    /// @dev All that can be done without moving tokens: by anyone, by the token as a party, and with signatures.
    function openCalls() internal returns (bytes[] memory calls) {
        calls = new bytes[](16);
        DealReceipt memory first = receiptOf(dealId, 7, "one");
        DealReceipt memory second = receiptOf(dealId, 7, "other");
        uint256 agentKey = agentKeyNo(1);
        calls[0] = abi.encodeCall(
            market.slash, (refOf(dealId), first, signReceipt(agentKey, first), second, signReceipt(agentKey, second))
        );
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = 2 * PRICE;
        calls[1] = abi.encodeCall(
            market.changeDeal,
            (
                refOf(dealId),
                change,
                supplyOf(provider),
                signChange(developerKey, change),
                signChange(provider.key, change)
            )
        );
        ArtifactUpdate memory update = updateOf(demandOf(1), 1);
        calls[2] = abi.encodeCall(market.updateArtifact, (update, signUpdate(developerKey, update)));
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        Match[] memory matches = new Match[](1);
        matches[0] = signedMatch(demand, provider, supplyOf(provider));
        calls[3] = abi.encodeCall(market.matchOffers, (matches));
        OfferHash[] memory demands = new OfferHash[](1);
        demands[0] = refOf(dealId).developerOffer;
        calls[4] = abi.encodeCall(market.claim, (provider.account, refOf(dealId).providerOffer, demands));
        calls[5] = abi.encodeCall(market.fundDeal, (refOf(dealId), PRICE));
        calls[6] = abi.encodeCall(market.evict, (refOf(dealId)));
        calls[7] = abi.encodeCall(market.closeDeal, (refOf(dealId)));
        calls[8] = abi.encodeCall(market.cancelDeals, (refsOf(dealId)));
        calls[9] = abi.encodeCall(market.giveNotice, (refsOf(dealId)));
        calls[10] = abi.encodeCall(market.attest, (Epoch.wrap(epochNow() - 1), "root"));
        calls[11] = abi.encodeCall(market.cancelOffer, (refOf(dealId).providerOffer));
        calls[12] = abi.encodeCall(market.raiseNonceFloor, (5));
        calls[13] = abi.encodeCall(market.setMatchingPaused, (true));
        demand.developer = address(token);
        calls[14] = abi.encodeCall(market.postDeveloperOffer, (demand));
        ProviderOffer memory supply = supplyOf(provider);
        supply.provider = address(token);
        calls[15] = abi.encodeCall(market.postProviderOffer, (supply));
    }

    /// @dev The token has a balance of its own, so that nothing fails for want of one.
    function openOverEager() internal returns (EagerToken eager) {
        eager = new EagerToken();
        openOver(address(eager));
        eager.mint(address(eager), 10e6);
        eager.execute(address(eager), abi.encodeCall(eager.approve, (address(market), 10e6)));
        eager.execute(address(market), abi.encodeCall(market.deposit, (5e6)));
        eager.mint(stranger, 10e6);
        vm.startPrank(stranger);
        eager.approve(address(market), 10e6);
        market.deposit(5e6);
        vm.stopPrank();
        accounts.push(address(eager));
    }

    function test_NothingThatMovesTokensRunsWithinATransfer() public {
        EagerToken eager = openOverEager();
        bytes[] memory calls = guardedCalls();
        for (uint256 i = 0; i < calls.length; ++i) {
            for (uint256 k = 0; k < 2; ++k) {
                eager.arm(address(market), calls[i]);
                uint256 before = free(stranger);
                vm.prank(stranger);
                if (k == 0) market.deposit(1e4);
                else market.withdraw(1e4, stranger);
                assertEq(free(stranger), k == 0 ? before + 1e4 : before - 1e4);
                assertFalse(eager.succeeded(), vm.toString(i));
                assertEq(bytes4(eager.answer()), bytes4(keccak256("ReentrancyGuardReentrantCall()")));
                eager.arm(address(0), "");
                assertConserved();
            }
        }
        assertEq(eager.calls(), 2 * calls.length);
    }

    function test_EverythingElseWithinATransferIsAsBeforeIt() public {
        EagerToken eager = openOverEager();
        bytes[] memory calls = openCalls();
        uint256 succeeded;
        for (uint256 i = 0; i < calls.length; ++i) {
            for (uint256 k = 0; k < 2; ++k) {
                (bool success, bytes32 within) = stateAfter(eager, calls[i], k == 0, true);
                (bool successBefore, bytes32 before) = stateAfter(eager, calls[i], k == 0, false);
                assertEq(success, successBefore, vm.toString(i));
                assertEq(within, before, vm.toString(i));
                if (success) ++succeeded;
            }
        }
        // All but those that are somebody else's to do, and the endings whose time has not come.
        assertEq(succeeded, 2 * 11);
    }

    /// @dev The call either within a deposit or a withdrawal, or right before it.
    function stateAfter(EagerToken eager, bytes memory call, bool isDeposit, bool isWithin)
        internal
        returns (bool success, bytes32 state)
    {
        uint256 before = vm.snapshotState();
        if (isWithin) eager.arm(address(market), call);
        else (success,) = address(eager).call(abi.encodeCall(eager.execute, (address(market), call)));
        vm.prank(stranger);
        if (isDeposit) market.deposit(1e4);
        else market.withdraw(1e4, stranger);
        if (isWithin) success = eager.succeeded();
        state = keccak256(abi.encode(deal(dealId), market.developerOffer(refOf(dealId).developerOffer)));
        for (uint256 i = 0; i < accounts.length; ++i) {
            state = keccak256(abi.encode(state, market.account(accounts[i])));
        }
        state = keccak256(abi.encode(state, token.balanceOf(address(market))));
        vm.revertToState(before);
    }

    // --- Blocked accounts -------------------------------------------------------------------------------------------------

    function test_ABlockedPayeeHoldsUpNobody() public {
        BlockingToken blocking = new BlockingToken();
        openOver(address(blocking));
        blocking.setBlocked(provider.payout, true);
        assertEq(claim(dealId), 2 * PRICE, "credited all the same");
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        drain(developer);
        drain(provider.account);
        expectTransferFailed(provider.payout, 3 * PRICE, provider.payout);
        assertEq(free(provider.payout), 3 * PRICE, "nothing was lost by trying");
        vm.prank(provider.payout);
        market.withdraw(3 * PRICE, stranger);
        assertEq(blocking.balanceOf(stranger), 3 * PRICE, "to another address");
        assertEq(blocking.balanceOf(address(market)), 0);
    }

    function test_ABlockedDeveloperPaysAndIsRefundedWithinTheMarket() public {
        BlockingToken blocking = new BlockingToken();
        openOver(address(blocking));
        blocking.setBlocked(developer, true);
        claim(dealId);
        cancel(dealId);
        assertEq(free(developer), START_FREE - 3 * PRICE);
        assertConserved();
        expectTransferFailed(developer, PRICE, developer);
        vm.prank(developer);
        market.withdraw(PRICE, stranger);
        assertEq(blocking.balanceOf(stranger), PRICE);
    }

    function test_WhileTheMarketIsBlockedDealsGoOn() public {
        BlockingToken blocking = new BlockingToken();
        openOver(address(blocking));
        blocking.setBlocked(address(market), true);
        assertEq(claim(dealId), 2 * PRICE);
        expectTransferFailed(developer, 1, developer);
        blocking.mint(stranger, 1);
        vm.startPrank(stranger);
        blocking.approve(address(market), 1);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        market.deposit(1);
        vm.stopPrank();
        serve(provider.agent, 1);
        assertEq(claim(dealId), PRICE);
        blocking.setBlocked(address(market), false);
        drain(provider.payout);
        assertEq(blocking.balanceOf(provider.payout), 3 * PRICE);
        assertConserved();
    }

    // --- A paused token ---------------------------------------------------------------------------------------------------

    function test_OverAPausedTokenDealsGoOnAndExitsWorkAfterwards() public {
        PausableToken pausable = new PausableToken();
        openOver(address(pausable));
        pausable.setPaused(true);
        expectTransferFailed(developer, 1, developer);
        Provider memory other = providerNo(2);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId second = openDeal(demand, provider);
        deals.push(second);
        assertEq(claim(dealId), 2 * PRICE);
        assertEq(submit(signedMatch(demandOf(1), other, supplyOf(other))), 0, "without a bond");
        serve(provider.agent, 1);
        cancel(dealId);
        cancel(second);
        serve(provider.agent, 1);
        claim(dealId);
        claim(second);
        market.closeDeal(refOf(dealId));
        market.closeDeal(refOf(second));
        assertState(dealId, DealState.Ended, EndCause.DeveloperCancelled);
        assertConserved();
        expectTransferFailed(provider.account, START_FREE, provider.account);
        pausable.setPaused(false);
        drain(developer);
        drain(provider.account);
        drain(provider.payout);
        assertEq(pausable.balanceOf(address(market)), 0);
        assertEq(pausable.balanceOf(provider.payout), (4 + 1) * PRICE);
        assertEq(pausable.balanceOf(provider.account), START_FREE);
    }
}
