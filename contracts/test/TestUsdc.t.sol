// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";
import {TestUsdc} from "../src/TestUsdc.sol";

contract TestUsdcTest is Test {
    TestUsdc internal token;
    address internal alice;
    uint256 internal aliceKey;
    address internal bob = makeAddr("bob");

    function setUp() public {
        vm.warp(1_700_000_000);
        token = new TestUsdc();
        (alice, aliceKey) = makeAddrAndKey("alice");
        token.mint(alice, 100e6);
    }

    function signed(bytes32 structHash) internal view returns (uint8, bytes32, bytes32) {
        return vm.sign(aliceKey, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash)));
    }

    function authorization(bytes32 typehash, uint256 validAfter, uint256 validBefore, bytes32 nonce)
        internal
        view
        returns (uint8, bytes32, bytes32)
    {
        return signed(keccak256(abi.encode(typehash, alice, bob, uint256(40e6), validAfter, validBefore, nonce)));
    }

    function test_LooksLikeUsdc() public view {
        assertEq(token.name(), "Test USDC");
        assertEq(token.symbol(), "USDC");
        assertEq(token.decimals(), 6);
        bytes32 domainType =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 domain = keccak256(
            abi.encode(
                domainType, keccak256("Test USDC"), keccak256(bytes(token.version())), block.chainid, address(token)
            )
        );
        assertEq(token.DOMAIN_SEPARATOR(), domain);
    }

    function test_FaucetHasALimitPerCall() public {
        uint256 limit = token.MINT_LIMIT();
        token.mint(bob, limit);
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.MintAboveLimit.selector, limit + 1, limit));
        token.mint(bob, limit + 1);
    }

    function test_AnyoneCarriesOutASignedTransferOnce() public {
        (uint8 v, bytes32 r, bytes32 s) =
            authorization(token.TRANSFER_WITH_AUTHORIZATION_TYPEHASH(), 0, type(uint256).max, "n");
        token.transferWithAuthorization(alice, bob, 40e6, 0, type(uint256).max, "n", v, r, s);
        assertEq(token.balanceOf(bob), 40e6);
        assertTrue(token.authorizationState(alice, "n"));
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.AuthorizationAlreadyUsed.selector, bytes32("n")));
        token.transferWithAuthorization(alice, bob, 40e6, 0, type(uint256).max, "n", v, r, s);
    }

    function test_OnlyThePayeeReceives() public {
        (uint8 v, bytes32 r, bytes32 s) =
            authorization(token.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(), 0, type(uint256).max, "n");
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.CallerNotPayee.selector, bob));
        token.receiveWithAuthorization(alice, bob, 40e6, 0, type(uint256).max, "n", v, r, s);
        // The one kind of signature is not good for the other.
        vm.expectRevert(TestUsdc.AuthorizationSignatureInvalid.selector);
        token.transferWithAuthorization(alice, bob, 40e6, 0, type(uint256).max, "n", v, r, s);
        vm.prank(bob);
        token.receiveWithAuthorization(alice, bob, 40e6, 0, type(uint256).max, "n", v, r, s);
        assertEq(token.balanceOf(bob), 40e6);
    }

    function test_AuthorizationsHaveTheirTime() public {
        bytes32 typehash = token.TRANSFER_WITH_AUTHORIZATION_TYPEHASH();
        (uint8 v, bytes32 r, bytes32 s) = authorization(typehash, block.timestamp, type(uint256).max, "n");
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.AuthorizationNotYetValid.selector, block.timestamp));
        token.transferWithAuthorization(alice, bob, 40e6, block.timestamp, type(uint256).max, "n", v, r, s);
        (v, r, s) = authorization(typehash, 0, block.timestamp, "n");
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.AuthorizationExpired.selector, block.timestamp));
        token.transferWithAuthorization(alice, bob, 40e6, 0, block.timestamp, "n", v, r, s);
    }

    function test_CancelledAuthorizationsAreVoid() public {
        (uint8 v, bytes32 r, bytes32 s) =
            signed(keccak256(abi.encode(token.CANCEL_AUTHORIZATION_TYPEHASH(), alice, bytes32("n"))));
        token.cancelAuthorization(alice, "n", v, r, s);
        (v, r, s) = authorization(token.TRANSFER_WITH_AUTHORIZATION_TYPEHASH(), 0, type(uint256).max, "n");
        vm.expectRevert(abi.encodeWithSelector(TestUsdc.AuthorizationAlreadyUsed.selector, bytes32("n")));
        token.transferWithAuthorization(alice, bob, 40e6, 0, type(uint256).max, "n", v, r, s);
    }
}
