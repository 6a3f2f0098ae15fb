// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketCore} from "../src/interfaces/IMarketCore.sol";
import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {TestUsdc} from "../src/TestUsdc.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {MarketConfig} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";
import {FalseToken, FeeToken, ReentrantToken, SilentToken} from "./support/Tokens.sol";

contract EscrowTest is Base {
    address internal alice;
    uint256 internal aliceKey;

    function setUp() public override {
        super.setUp();
        (alice, aliceKey) = makeAddrAndKey("alice");
        token.mint(alice, 100e6);
    }

    function marketOf(address otherToken) internal returns (IMarket) {
        MarketConfig memory constants = defaultConfig();
        constants.token = otherToken;
        return deployMarket(constants);
    }

    function permitBy(uint256 key, uint256 amount) internal view returns (uint8 v, bytes32 r, bytes32 s) {
        address owner = vm.addr(key);
        bytes32 typehash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 structHash =
            keccak256(abi.encode(typehash, owner, address(market), amount, token.nonces(owner), type(uint256).max));
        return vm.sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }

    // --- Deposits ---------------------------------------------------------------------------------------------------

    function test_DepositCreditsTheCaller() public {
        vm.startPrank(alice);
        token.approve(address(market), 70e6);
        vm.expectEmit(address(market));
        emit IMarketEvents.Deposited(alice, alice, 70e6);
        market.deposit(70e6);
        assertEq(free(alice), 70e6);
        assertEq(token.balanceOf(alice), 30e6);
    }

    function test_DepositForCreditsAnother() public {
        vm.startPrank(alice);
        token.approve(address(market), 70e6);
        vm.expectEmit(address(market));
        emit IMarketEvents.Deposited(stranger, alice, 70e6);
        market.depositFor(stranger, 70e6);
        assertEq(free(stranger), 70e6);
        assertEq(free(alice), 0);
        vm.expectRevert(IMarketEvents.ZeroAddress.selector);
        market.depositFor(address(0), 1);
    }

    function test_DepositRefusesNothing() public {
        vm.startPrank(alice);
        vm.expectRevert(IMarketEvents.ZeroAmount.selector);
        market.deposit(0);
    }

    function test_DepositWithoutAllowanceIsRefused() public {
        vm.startPrank(alice);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        market.deposit(1);
    }

    function test_DepositRefusesWhatDoesNotFit() public {
        SilentToken silent = new SilentToken();
        IMarket other = marketOf(address(silent));
        silent.mint(alice, type(uint64).max);
        vm.startPrank(alice);
        silent.approve(address(other), type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLarge.selector, uint256(1) << 63));
        other.deposit(1 << 63);
        other.deposit((1 << 63) - 1);
        assertEq(other.freeBalance(alice), (1 << 63) - 1);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLarge.selector, uint256(1) << 63));
        other.deposit(1);
    }

    // --- Permit -----------------------------------------------------------------------------------------------------

    function test_PermitDepositIsRelayedByAnyone() public {
        (uint8 v, bytes32 r, bytes32 s) = permitBy(aliceKey, 60e6);
        vm.prank(stranger);
        market.depositWithPermit(alice, 60e6, type(uint256).max, v, r, s);
        assertEq(free(alice), 60e6);
        assertEq(free(stranger), 0);
    }

    function test_PermitThatSomebodyUsedBeforeStillDeposits() public {
        (uint8 v, bytes32 r, bytes32 s) = permitBy(aliceKey, 60e6);
        vm.startPrank(stranger);
        token.permit(alice, address(market), 60e6, type(uint256).max, v, r, s);
        market.depositWithPermit(alice, 60e6, type(uint256).max, v, r, s);
        assertEq(free(alice), 60e6);
    }

    function test_BadPermitDoesNotReachAnotherAllowance() public {
        vm.prank(alice);
        token.approve(address(market), 100e6);
        vm.prank(stranger);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        market.depositWithPermit(alice, 60e6, type(uint256).max, 27, bytes32(0), bytes32(0));
        // The owner may: it is its own allowance.
        vm.prank(alice);
        market.depositWithPermit(alice, 60e6, type(uint256).max, 27, bytes32(0), bytes32(0));
        assertEq(free(alice), 60e6);
    }

    function test_PermitOfAnotherAmountIsRefused() public {
        (uint8 v, bytes32 r, bytes32 s) = permitBy(aliceKey, 60e6);
        vm.prank(stranger);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        market.depositWithPermit(alice, 61e6, type(uint256).max, v, r, s);
    }

    // --- Authorization ----------------------------------------------------------------------------------------------

    function test_AuthorizationDepositIsRelayedByAnyoneOnce() public {
        bytes32 nonce = keccak256("nonce");
        bytes32 structHash = keccak256(
            abi.encode(
                token.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(),
                alice,
                address(market),
                uint256(50e6),
                uint256(0),
                type(uint256).max,
                nonce
            )
        );
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(aliceKey, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
        vm.startPrank(stranger);
        vm.expectEmit(address(market));
        emit IMarketEvents.Deposited(alice, alice, 50e6);
        market.depositWithAuthorization(alice, 50e6, 0, type(uint256).max, nonce, v, r, s);
        assertEq(free(alice), 50e6);
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.AuthorizationAlreadyUsed.selector, nonce));
        market.depositWithAuthorization(alice, 50e6, 0, type(uint256).max, nonce, v, r, s);
    }

    // --- Withdrawals ------------------------------------------------------------------------------------------------

    function test_WithdrawPaysOut() public {
        vm.startPrank(developer);
        vm.expectEmit(address(market));
        emit IMarketEvents.Withdrawn(developer, stranger, 40e6);
        market.withdraw(40e6, stranger);
        assertEq(token.balanceOf(stranger), 40e6);
        assertEq(free(developer), START_FREE - 40e6);
    }

    function test_WithdrawRefusals() public {
        vm.startPrank(developer);
        vm.expectRevert(IMarketEvents.ZeroAmount.selector);
        market.withdraw(0, developer);
        vm.expectRevert(IMarketEvents.ZeroAddress.selector);
        market.withdraw(1, address(0));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.InvalidRecipient.selector, address(market)));
        market.withdraw(1, address(market));
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.BalanceTooLow.selector, START_FREE, START_FREE + 1));
        market.withdraw(START_FREE + 1, developer);
    }

    function testFuzz_DepositThenWithdrawIsNeutral(uint256 amount, uint256 part) public {
        amount = bound(amount, 1, 100e6);
        part = bound(part, 1, amount);
        vm.startPrank(alice);
        token.approve(address(market), amount);
        market.deposit(amount);
        market.withdraw(part, alice);
        assertEq(free(alice), amount - part);
        assertEq(token.balanceOf(alice), 100e6 - amount + part);
        assertEq(token.balanceOf(address(market)), START_FREE + amount - part);
    }

    // --- Donations and odd tokens -----------------------------------------------------------------------------------

    function test_DonationCreditsNobody() public {
        vm.startPrank(alice);
        assertTrue(token.transfer(address(market), 10e6));
        token.approve(address(market), 1e6);
        market.deposit(1e6);
        assertEq(free(alice), 1e6);
    }

    function test_FeeTokenCreditsWhatArrived() public {
        FeeToken fee = new FeeToken();
        IMarket other = marketOf(address(fee));
        fee.mint(alice, 100e6);
        vm.startPrank(alice);
        fee.approve(address(other), 100e6);
        other.deposit(100e6);
        assertEq(other.freeBalance(alice), 99e6);
    }

    function test_TokenWithoutReturnValueWorks() public {
        SilentToken silent = new SilentToken();
        IMarket other = marketOf(address(silent));
        silent.mint(alice, 5e6);
        vm.startPrank(alice);
        silent.approve(address(other), 5e6);
        other.deposit(5e6);
        other.withdraw(2e6, stranger);
        assertEq(other.freeBalance(alice), 3e6);
        assertEq(silent.balanceOf(stranger), 2e6);
    }

    function test_TokenThatSaysNoIsAFailure() public {
        FalseToken no = new FalseToken();
        IMarket other = marketOf(address(no));
        no.mint(alice, 5e6);
        vm.startPrank(alice);
        no.approve(address(other), 5e6);
        other.deposit(3e6);
        no.setRefuses(true);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        other.deposit(1e6);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        other.withdraw(1e6, alice);
        assertEq(other.freeBalance(alice), 3e6);
    }

    function test_ReentrantTokenCannotCountATransferTwice() public {
        ReentrantToken odd = new ReentrantToken();
        IMarket other = marketOf(address(odd));
        odd.mint(alice, 5e6);
        odd.arm(other, abi.encodeCall(IMarketCore.depositFor, (stranger, 1e6)));
        vm.startPrank(alice);
        odd.approve(address(other), 5e6);
        vm.expectRevert(IMarketEvents.TokenTransferFailed.selector);
        other.deposit(5e6);
    }

    // --- Constants --------------------------------------------------------------------------------------------------

    function test_ConfigIsReadable() public view {
        MarketConfig memory shown = market.config();
        assertEq(keccak256(abi.encode(shown)), keccak256(abi.encode(defaultConfig())));
        assertEq(market.genesis(), GENESIS);
        assertEq(epochNow(), 0);
    }

    function test_ConfigOutOfRangeIsRefused() public {
        MarketConfig memory constants = defaultConfig();
        constants.token = alice;
        expectRefused(constants, "token");
        constants = defaultConfig();
        constants.epochLength = 0;
        expectRefused(constants, "epochLength");
        constants = defaultConfig();
        constants.attestationWindow = 17;
        expectRefused(constants, "attestationWindow");
        constants.attestationWindow = 0;
        expectRefused(constants, "attestationWindow");
        constants = defaultConfig();
        constants.evictAfterMissed = 0;
        expectRefused(constants, "evictAfterMissed");
        constants = defaultConfig();
        constants.minPrepaidEpochs = 0;
        expectRefused(constants, "minPrepaidEpochs");
    }

    function expectRefused(MarketConfig memory constants, bytes32 field) internal {
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.ConfigInvalid.selector, field));
        this.deployExternally(constants);
    }

    function deployExternally(MarketConfig memory constants) external {
        deployMarket(constants);
    }
}
