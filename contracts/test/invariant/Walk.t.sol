// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {console} from "forge-std/console.sol";
import {Epoch, Reason} from "../../src/types/Types.sol";
import {Campaign} from "./Campaign.sol";

/// @dev One long seeded walk, to see that no action of the handler is an empty one: each must have been carried out.
contract WalkTest is Campaign {
    uint256 internal constant STEPS = 3000;

    function test_ALongWalkReachesEveryAction() public {
        bytes4[] memory actions = handler.actions();
        for (uint256 i = 0; i < STEPS; ++i) {
            vm.resetGasMetering();
            uint256 seed = uint256(keccak256(abi.encode("walk", i)));
            // Each action takes as many of the words as it wants.
            bytes memory call = abi.encodePacked(
                actions[seed % actions.length],
                abi.encode(
                    keccak256(abi.encode(seed, 1)), keccak256(abi.encode(seed, 2)), keccak256(abi.encode(seed, 3))
                )
            );
            (bool success, bytes memory answer) = address(handler).call(call);
            if (!success) {
                assembly ("memory-safe") {
                    revert(add(answer, 0x20), mload(answer))
                }
            }
        }
        string[70] memory outcomes = outcomeNames();
        for (uint256 i = 0; i < outcomes.length; ++i) {
            console.log(outcomes[i], handler.done(outcomes[i]));
        }
        for (uint8 i = 1; i <= uint8(type(Reason).max); ++i) {
            console.log("skipped for reason", i, ledger.skipped(Reason(i)));
        }
        console.log("deals", ledger.dealCount(), "open", watcher.openCount());
        vm.resetGasMetering();
        assertNothingIsAmiss();
        for (uint256 i = 0; i < outcomes.length; ++i) {
            assertGt(handler.done(outcomes[i]), 0, outcomes[i]);
        }
    }

    /// @dev So many steps see what short campaigns seldom do.
    function assertNothingIsAmiss() internal view {
        assertEq(watcher.statesBackward() + watcher.settledBackward() + watcher.sequencesBackward(), 0);
        assertEq(watcher.endsMovedWithoutCause() + watcher.termsChangedWithoutChange(), 0);
        assertEq(watcher.versionsBackward() + watcher.floorsBackward() + watcher.offersRevived(), 0);
        assertEq(watcher.bitsLost() + handler.gainedByAgents(), 0);
        assertEq(ledger.openedUnderVoidOffers() + ledger.misfits(), 0);
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            assertEq(abi.encode(dealAt(i)), abi.encode(ledger.dealAt(i)), "deal");
            assertEq(ledger.flowAt(i).paid, ledger.flowAt(i).owed, "paid");
        }
        for (uint256 i = 0; i < 3; ++i) {
            address agent = handler.agentNo(i);
            uint256 attested = market.attestedEpochs(agent, Epoch.wrap(0), Epoch.wrap(epochNow()));
            assertEq(attested, handler.servedEpochs(agent), "attested");
        }
    }

    function outcomeNames() internal pure returns (string[70] memory) {
        return [
            "deposit",
            "depositFor",
            "depositWithPermit",
            "depositWithAuthorization",
            "withdraw",
            "drainDeveloper",
            "donate",
            "fundDeal",
            "fundUnfundedDeal",
            "multicallClaimAndWithdraw",
            "multicallClaimAndLeave",
            "postDemand",
            "newSupply",
            "cancelKnownDemand",
            "cancelUnseenDemand",
            "cancelKnownSupply",
            "cancelUnseenSupply",
            "cancelSupplyOfAnother",
            "raiseNonceFloor",
            "pause",
            "resume",
            "updateArtifactRelayed",
            "updateArtifact",
            "matchOffers",
            "matchNewDemand",
            "matchSeveralReplicas",
            "matchSeveral",
            "matchFreePlace",
            "matchPosted",
            "matchWithFee",
            "matchByNamedMatcher",
            "matchPaidToProvider",
            "matchPaidElsewhere",
            "attestAtOnce",
            "attestLate",
            "serve",
            "serveAndClaim",
            "serveWithoutOne",
            "pass",
            "passLong",
            "attestOverTheEdge",
            "claimAnything",
            "claimPaid",
            "claimBatch",
            "claimManyEpochs",
            "claimUnfunded",
            "claimChanged",
            "claimWithHoles",
            "claimPlain",
            "cancelDeals",
            "cancelEndingDeal",
            "giveNoticeByAgent",
            "giveNotice",
            "abandon",
            "evict",
            "evictRefused",
            "closeAsEvicted",
            "closeUnfunded",
            "close",
            "closeRefused",
            "slash",
            "changeByDeveloper",
            "changeByProvider",
            "changeRelayed",
            "extend",
            "shorten",
            "priceUp",
            "priceDown",
            "grow",
            "shrink"
        ];
    }
}
