// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealId, DealState, DealView, DeveloperOffer, Epoch, OfferHash, ProviderOffer} from "../../src/types/Types.sol";
import {Base} from "../Base.t.sol";
import {Handler} from "./Handler.sol";
import {Ledger} from "./Ledger.sol";

/// @dev What holds after any sequence of calls.
contract SolvencyTest is Base {
    struct Seen {
        DealState state;
        uint32 settledUntil;
        uint32 endEpoch;
    }

    Handler internal handler;
    Ledger internal ledger;
    mapping(bytes32 dealId => Seen) internal seen;

    function setUp() public override {
        vm.warp(GENESIS);
        super.setUp();
        drain(developer);
        handler = new Handler(market, token, operator);
        ledger = handler.LEDGER();
        for (uint256 i = 0; i < 9; ++i) {
            handler.deposit(i, 50e6);
        }
        targetContract(address(handler));
    }

    function invariant_TokensCoverFreeLockedAndBonds() public view {
        uint256 owed = handler.donated();
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            owed += market.freeBalance(ledger.accounts(i));
        }
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealView memory shown = market.deal(DealId.wrap(ledger.dealIds(i)));
            owed += uint256(shown.locked) + shown.bond;
        }
        assertEq(token.balanceOf(address(market)), owed);
    }

    function invariant_EventsAloneRebuildEveryBalance() public view {
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            address account = ledger.accounts(i);
            assertEq(int256(market.freeBalance(account)), ledger.free(account));
        }
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            bytes32 dealId = ledger.dealIds(i);
            Ledger.Flow memory flow = ledger.flowOf(dealId);
            DealView memory shown = market.deal(DealId.wrap(dealId));
            assertEq(shown.bond, flow.bond, "bond");
            if (shown.state != DealState.Ended) assertEpoch(shown.unfundedSince, flow.unfundedSince, "unfundedSince");
        }
    }

    function invariant_DealsConserveTheirMoney() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            bytes32 dealId = ledger.dealIds(i);
            Ledger.Flow memory flow = ledger.flowOf(dealId);
            DealView memory shown = market.deal(DealId.wrap(dealId));
            assertEq(flow.paid + flow.refunded + shown.locked, flow.funded);
            if (shown.state == DealState.Ended) assertEq(shown.locked + shown.bond, 0);
        }
    }

    function invariant_NothingIsPaidBeyondTheRate() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            bytes32 dealId = ledger.dealIds(i);
            Ledger.Flow memory flow = ledger.flowOf(dealId);
            DealView memory shown = market.deal(DealId.wrap(dealId));
            uint256 attested;
            for (uint32 epoch = Epoch.unwrap(shown.startEpoch); epoch < Epoch.unwrap(shown.endEpoch); ++epoch) {
                if (market.isAttested(shown.agent, Epoch.wrap(epoch))) ++attested;
            }
            assertEq(flow.paid, flow.epochsPaid * flow.price);
            assertLe(flow.epochsPaid, attested);
        }
    }

    function invariant_TheLockCoversWhatIsShownAsPaid() public view {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealView memory shown = market.deal(DealId.wrap(ledger.dealIds(i)));
            if (shown.state == DealState.Ended) continue;
            uint256 until = Epoch.unwrap(shown.paidUntil);
            uint256 settled = Epoch.unwrap(shown.settledUntil);
            assertLe(until, Epoch.unwrap(shown.endEpoch));
            if (until > settled) assertGe(shown.locked, (until - settled) * shown.pricePerEpoch);
        }
    }

    function invariant_CapacityIsWhatOpenDealsHold() public view {
        ProviderOffer[] memory supplies = handler.supplies();
        for (uint256 i = 0; i < supplies.length; ++i) {
            OfferHash offerHash = market.hashProviderOffer(supplies[i]);
            (uint256 milliCpu, uint256 memoryMib) = held(offerHash);
            (uint64 usedMilliCpu, uint64 usedMemoryMib) = market.usedCapacity(offerHash);
            assertEq(usedMilliCpu, milliCpu);
            assertEq(usedMemoryMib, memoryMib);
            assertLe(usedMilliCpu, supplies[i].milliCpu);
            assertLe(usedMemoryMib, supplies[i].memoryMib);
        }
    }

    function held(OfferHash offerHash) internal view returns (uint256 milliCpu, uint256 memoryMib) {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealView memory shown = market.deal(DealId.wrap(ledger.dealIds(i)));
            if (OfferHash.unwrap(shown.providerOffer) != OfferHash.unwrap(offerHash)) continue;
            if (shown.state == DealState.Ended) continue;
            milliCpu += shown.milliCpu;
            memoryMib += shown.memoryMib;
        }
    }

    function invariant_PlacesAreWhatOpenDealsTake() public view {
        DeveloperOffer[] memory demands = handler.demands();
        for (uint256 i = 0; i < demands.length; ++i) {
            OfferHash offerHash = market.hashDeveloperOffer(demands[i]);
            uint256 open;
            for (uint256 j = 0; j < ledger.dealCount(); ++j) {
                DealView memory shown = market.deal(DealId.wrap(ledger.dealIds(j)));
                if (OfferHash.unwrap(shown.developerOffer) != OfferHash.unwrap(offerHash)) continue;
                if (shown.state != DealState.Ended) ++open;
            }
            (uint16 live,) = market.placement(offerHash);
            assertEq(live, open);
            assertLe(live, demands[i].replicas);
        }
    }

    function invariant_DealsOnlyMoveForward() public {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            bytes32 dealId = ledger.dealIds(i);
            DealView memory shown = market.deal(DealId.wrap(dealId));
            Seen memory before = seen[dealId];
            uint32 settledUntil = Epoch.unwrap(shown.settledUntil);
            uint32 endEpoch = Epoch.unwrap(shown.endEpoch);
            assertGe(uint8(shown.state), uint8(before.state), "state");
            assertGe(settledUntil, before.settledUntil, "settledUntil");
            if (before.endEpoch != 0) assertLe(endEpoch, before.endEpoch, "endEpoch");
            seen[dealId] = Seen({state: shown.state, settledUntil: settledUntil, endEpoch: endEpoch});
        }
    }

    /// @dev Everything can be wound up: all deals end and every account gets all of its balance out.
    function afterInvariant() public {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealId dealId = DealId.wrap(ledger.dealIds(i));
            DealView memory shown = market.deal(dealId);
            if (shown.state == DealState.Ended) continue;
            vm.prank(shown.developer);
            market.cancelDeals(only(dealId));
        }
        nextEpochs(2 + WINDOW);
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            DealId dealId = DealId.wrap(ledger.dealIds(i));
            if (market.deal(dealId).state != DealState.Ended) market.closeDeal(dealId);
        }
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            drain(ledger.accounts(i));
        }
        assertEq(token.balanceOf(address(market)), handler.donated());
    }
}
