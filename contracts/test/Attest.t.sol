// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {Epoch} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract AttestTest is Base {
    address internal agent = makeAddr("agent");

    function expectNotAttestable(uint32 epoch) internal {
        vm.expectRevert(
            abi.encodeWithSelector(IMarketEvents.EpochNotAttestable.selector, Epoch.wrap(epoch), market.currentEpoch())
        );
        attestRoot(epoch, 0);
    }

    function attestRoot(uint32 epoch, bytes32 root) internal {
        vm.prank(agent);
        market.attest(Epoch.wrap(epoch), root);
    }

    function test_AttestRollsTheReceiptsHash() public {
        nextEpochs(3);
        bytes32 first = keccak256(abi.encode(bytes32(0), uint32(1), bytes32("one")));
        vm.expectEmit(address(market));
        emit IMarketEvents.Attested(agent, Epoch.wrap(1), "one", first);
        attestRoot(1, "one");
        assertEq(market.account(agent).receiptsHash, first);
        bytes32 second = keccak256(abi.encode(first, uint32(2), bytes32("two")));
        vm.expectEmit(address(market));
        emit IMarketEvents.Attested(agent, Epoch.wrap(2), "two", second);
        attestRoot(2, "two");
        assertEq(market.account(agent).receiptsHash, second);
        assertTrue(market.isAttested(agent, Epoch.wrap(1)));
        assertFalse(market.isAttested(agent, Epoch.wrap(0)));
        assertFalse(market.isAttested(stranger, Epoch.wrap(1)));
    }

    function test_OnlyPastEpochsWithinTheWindow() public {
        expectNotAttestable(0);
        toEpoch(10);
        expectNotAttestable(10);
        expectNotAttestable(11);
        expectNotAttestable(10 - WINDOW - 1);
        attestRoot(10 - WINDOW, 0);
        attestRoot(9, 0);
    }

    function test_TheWindowClosesWithTheLastSecond() public {
        vm.warp(market.genesis() + (3 + WINDOW + 1) * EPOCH_LENGTH - 1);
        attestRoot(3, 0);
        vm.warp(block.timestamp + 1);
        expectNotAttestable(3);
    }

    function test_OncePerEpoch() public {
        nextEpochs(1);
        attestRoot(0, "one");
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.AlreadyAttested.selector, Epoch.wrap(0)));
        attestRoot(0, "two");
    }

    function testFuzz_SetsExactlyOneBit(uint32 epoch, uint32 other) public {
        epoch = uint32(bound(epoch, 0, 1 << 31));
        vm.assume(other != epoch);
        toEpoch(uint256(epoch) + 1);
        attestRoot(epoch, 0);
        assertTrue(market.isAttested(agent, Epoch.wrap(epoch)));
        assertFalse(market.isAttested(agent, Epoch.wrap(other)));
    }
}
