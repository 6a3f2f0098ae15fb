// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealRef, DealState, DealView, Epoch, OfferHash, ProviderOffer} from "../../src/types/Types.sol";
import {Campaign} from "./Campaign.sol";
import {Ledger} from "./Ledger.sol";
import {Naive} from "./Naive.sol";

/// @dev Whose money is where, after any sequence of calls.
contract MoneyInvariantsTest is Campaign {
    // --- All of it --------------------------------------------------------------------------------------------------

    function invariant_TokensAreFreeLockedBondedOrDonated() public view {
        uint256 owed = handler.donated();
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            owed += market.freeBalance(ledger.accounts(i));
        }
        for (uint256 i = 0; i < watcher.openCount(); ++i) {
            DealView memory shown = market.deal(watcher.openAt(i));
            owed += uint256(shown.locked) + shown.bond;
        }
        assertEq(token.balanceOf(address(market)), owed);
    }

    function invariant_BystandersGainNothing() public view {
        address[4] memory bystanders = [handler.STRANGER(), operator, handler.agentNo(0), handler.agentNo(1)];
        for (uint256 i = 0; i < bystanders.length; ++i) {
            assertEq(market.freeBalance(bystanders[i]) + token.balanceOf(bystanders[i]), 0);
        }
    }

    function invariant_AgentsGainNothingByTheirOwnCalls() public view {
        assertEq(handler.gainedByAgents(), 0);
    }

    function invariant_MatchersGainTheirFeesAlone() public view {
        for (uint256 i = 0; i < 2; ++i) {
            address matcher = handler.matcherNo(i);
            assertEq(market.freeBalance(matcher), handler.earnedFees(matcher));
            assertEq(token.balanceOf(matcher), 0);
        }
    }

    function invariant_ADonationChangesNothing() public every(8) {
        bytes32 before = digest();
        uint256 start = vm.snapshotState();
        token.mint(address(market), 1e6);
        assertEq(digest(), before);
        windUpButFor(handler.donated() + 1e6);
        vm.revertToState(start);
    }

    // --- Deal by deal -----------------------------------------------------------------------------------------------

    function invariant_EachDealConservesItsMoney() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            Ledger.Flow memory flow = ledger.flowAt(i);
            DealView memory shown = dealAt(i);
            assertEq(flow.paid + flow.refunded + shown.locked, flow.funded);
            if (shown.state == DealState.Ended) assertEq(shown.locked + shown.bond, 0, "nothing stays behind");
        }
    }

    /// @dev At the price that each of these epochs had: the old one before a change, the new one after it.
    function invariant_PaidIsWhatAttestedEpochsCost() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            Ledger.Flow memory flow = ledger.flowAt(i);
            assertEq(flow.paid, flow.owed);
        }
    }

    function invariant_AGapIsNeverCharged() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            assertEq(ledger.flowAt(i).chargedInGaps, 0);
        }
    }

    function invariant_RoundingNeverFavoursThePayee() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealView memory shown = ledger.dealAt(i);
            if (shown.changes != 0) continue;
            ProviderOffer memory offered = ledger.supplyOfferOf(OfferHash.unwrap(shown.providerOffer));
            uint256 exact = Naive.exactAsk(offered, shown.milliCpu, shown.memoryMib);
            Ledger.Flow memory flow = ledger.flowAt(i);
            assertLe(flow.paid * 1_024_000, flow.epochsPaid * exact);
        }
    }

    function invariant_BondsArePricesOfBondEpochs() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealView memory shown = dealAt(i);
            assertEq(shown.bond, shown.state == DealState.Ended ? 0 : BOND_EPOCHS * shown.pricePerEpoch);
        }
    }

    /// @dev The lock holds the money up to where it is shown to reach, and not an epoch further.
    function invariant_TheLockReachesJustAsFarAsShown() public view {
        for (uint256 i = 0; i < watcher.openCount(); ++i) {
            DealView memory shown = market.deal(watcher.openAt(i));
            uint256 until = Epoch.unwrap(shown.paidUntil);
            uint256 settled = Epoch.unwrap(shown.settledUntil);
            assertLe(until, Epoch.unwrap(shown.endEpoch), "not beyond the end");
            assertGe(shown.locked, Naive.cost(shown, settled, until), "locked");
            if (until == Epoch.unwrap(shown.endEpoch) || Epoch.unwrap(shown.unfundedSince) != 0) continue;
            assertLt(shown.locked, Naive.cost(shown, settled, until + 1), "one more epoch");
        }
    }

    /// @dev What could be claimed is worked out epoch by epoch, and is backed by lock and free balance.
    function invariant_AClaimPaysWhatCanBeClaimed() public every(4) {
        uint256 start = vm.snapshotState();
        DealRef[] memory refs = openDeals();
        for (uint256 i = 0; i < refs.length; ++i) {
            DealView memory shown = market.deal(refs[i]);
            (uint256 claimable, uint256 next) = claimableOf(shown);
            if (claimable + next > shown.locked + market.freeBalance(shown.developer)) continue;
            OfferHash[] memory demands = new OfferHash[](1);
            demands[0] = refs[i].developerOffer;
            uint256 paid = market.claim(refs[i].provider, refs[i].providerOffer, demands);
            assertEq(paid, claimable);
        }
        vm.revertToState(start);
    }

    /// @dev Final epochs, and on from there as long as there is no hole; and the price of the epoch after these.
    function claimableOf(DealView memory shown) internal view returns (uint256 claimable, uint256 next) {
        uint256 current = epochNow();
        uint256 limit = Epoch.unwrap(shown.endEpoch);
        uint256 gap = Epoch.unwrap(shown.unfundedSince);
        if (gap != 0 && gap < limit) limit = gap;
        uint256 epoch = Epoch.unwrap(shown.settledUntil);
        for (; epoch < current && epoch < limit; ++epoch) {
            bool isServed = handler.wasServed(shown.agent, epoch);
            if (!isServed && epoch + WINDOW >= current) break;
            if (isServed) claimable += Naive.priceAt(shown, epoch);
        }
        next = gap == 0 ? Naive.priceAt(shown, epoch) : 0;
    }

    // --- How, when and by whom --------------------------------------------------------------------------------------

    function invariant_TheOrderOfSettlingIsAllTheSame() public every(8) {
        DealRef[] memory refs = openDeals();
        uint256 start = vm.snapshotState();
        enrichDevelopers();
        for (uint256 i = 0; i < refs.length; ++i) {
            claimOne(refs[i]);
        }
        bytes32 forward = digest();
        vm.revertToState(start);
        enrichDevelopers();
        for (uint256 i = refs.length; i > 0; --i) {
            claimOne(refs[i - 1]);
        }
        bytes32 backward = digest();
        vm.revertToState(start);
        enrichDevelopers();
        for (uint256 i = 0; i < ledger.supplyCount(); ++i) {
            claimAllUnder(ledger.supplyHashes(i), refs);
        }
        bytes32 inBatches = digest();
        vm.revertToState(start);
        assertEq(forward, backward);
        assertEq(forward, inBatches);
    }

    function claimAllUnder(bytes32 supply, DealRef[] memory refs) internal {
        OfferHash[] memory demands = new OfferHash[](refs.length);
        uint256 found;
        for (uint256 i = 0; i < refs.length; ++i) {
            if (OfferHash.unwrap(refs[i].providerOffer) == supply) demands[found++] = refs[i].developerOffer;
        }
        assembly ("memory-safe") {
            mstore(demands, found)
        }
        market.claim(ledger.supplyOfferOf(supply).provider, OfferHash.wrap(supply), demands);
    }

    /// @dev Whether deals are settled after each of some epochs with holes, or once behind them. Where the money had ended
    /// before, it matters when a deal is settled that somebody has funded: those are left out.
    function invariant_HowOftenIsSettledIsAllTheSame() public every(16) {
        DealRef[] memory refs = openDeals();
        uint256 start = vm.snapshotState();
        (uint256[] memory often, uint256[] memory oftenUntil) = liveThrough(refs, true);
        vm.revertToState(start);
        (uint256[] memory once, uint256[] memory onceUntil) = liveThrough(refs, false);
        vm.revertToState(start);
        for (uint256 i = 0; i < refs.length; ++i) {
            if (Epoch.unwrap(market.deal(refs[i]).unfundedSince) != 0) continue;
            assertEq(often[i], once[i], "paid");
            assertEq(oftenUntil[i], onceUntil[i], "settledUntil");
        }
    }

    function liveThrough(DealRef[] memory refs, bool isOften)
        internal
        returns (uint256[] memory paid, uint256[] memory until)
    {
        paid = new uint256[](refs.length);
        until = new uint256[](refs.length);
        enrichDevelopers();
        uint256 holes = uint256(keccak256(abi.encode(handler.steps())));
        for (uint256 i = 0; i < 8; ++i) {
            if (isOften) addClaims(refs, paid);
            uint256 epoch = epochNow();
            nextEpochs(1);
            for (uint256 agent = 0; agent < 3; ++agent) {
                holes >>= 1;
                if (holes % 2 == 0) attest(handler.agentNo(agent), epoch);
            }
        }
        nextEpochs(WINDOW);
        addClaims(refs, paid);
        for (uint256 i = 0; i < refs.length; ++i) {
            until[i] = Epoch.unwrap(market.deal(refs[i]).settledUntil);
        }
    }

    function addClaims(DealRef[] memory refs, uint256[] memory paid) internal {
        for (uint256 i = 0; i < refs.length; ++i) {
            OfferHash[] memory demands = new OfferHash[](1);
            demands[0] = refs[i].developerOffer;
            paid[i] += market.claim(refs[i].provider, refs[i].providerOffer, demands);
        }
    }

    /// @dev Claims take a short way where they can; adding an atom to a deal never does.
    function invariant_TheShortWayOfClaimingEqualsTheWholeRule() public every(4) {
        DealRef[] memory refs = openDeals();
        for (uint256 i = 0; i < refs.length && i < 4; ++i) {
            DealView memory shown = market.deal(refs[i]);
            // Who is paid could pay more the second time.
            if (shown.payout == shown.developer) continue;
            uint256 start = vm.snapshotState();
            addAnAtom(refs[i]);
            bytes32 whole = digest();
            vm.revertToState(start);
            claimOne(refs[i]);
            addAnAtom(refs[i]);
            bytes32 short = digest();
            vm.revertToState(start);
            assertEq(short, whole);
        }
    }

    function addAnAtom(DealRef memory ref) internal {
        fund(stranger, 1);
        vm.prank(stranger);
        market.fundDeal(ref, 1);
    }

    function invariant_PausingBlocksNoExit() public every(8) {
        uint256 start = vm.snapshotState();
        vm.prank(operator);
        market.setMatchingPaused(true);
        DealRef[] memory refs = openDeals();
        for (uint256 i = 0; i < refs.length; i += 2) {
            vm.prank(refs[i].provider);
            market.giveNotice(only(refs[i]));
        }
        windUpButFor(handler.donated());
        assertTrue(market.matchingPaused());
        vm.revertToState(start);
    }

    /// @dev Everything can be wound up: all deals end and every account gets all of its balance out.
    function afterInvariant() public {
        windUpButFor(handler.donated());
    }
}
