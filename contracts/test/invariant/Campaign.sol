// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealRef, DealState, DealView, OfferHash} from "../../src/types/Types.sol";
import {Base} from "../Base.t.sol";
import {Handler} from "./Handler.sol";
import {Ledger} from "./Ledger.sol";
import {Watcher} from "./Watcher.sol";

/// @dev A market with money and actors, the calls that a campaign makes at random, and words for looking at all of it.
abstract contract Campaign is Base {
    Handler internal handler;
    Ledger internal ledger;
    Watcher internal watcher;

    function setUp() public virtual override {
        super.setUp();
        drain(developer);
        handler = new Handler(market, token, operator);
        ledger = handler.LEDGER();
        watcher = handler.WATCHER();
        for (uint256 i = 0; i < 9; ++i) {
            handler.deposit(i, 50e6);
        }
        targetContract(address(handler));
        targetSelector(FuzzSelector({addr: address(handler), selectors: handler.actions()}));
    }

    /// @dev What is too slow to be looked at after each call.
    modifier every(uint256 steps) {
        if (handler.steps() % steps == 0) _;
    }

    function dealAt(uint256 index) internal view returns (DealView memory) {
        return market.deal(ledger.refAt(index));
    }

    /// @dev Deals that have not ended.
    function openDeals() internal view returns (DealRef[] memory refs) {
        refs = new DealRef[](watcher.openCount());
        for (uint256 i = 0; i < refs.length; ++i) {
            refs[i] = watcher.openAt(i);
        }
    }

    function claimOne(DealRef memory ref) internal {
        OfferHash[] memory demands = new OfferHash[](1);
        demands[0] = ref.developerOffer;
        market.claim(ref.provider, ref.providerOffer, demands);
    }

    /// @dev All that the market shows of money, deals and offers.
    function digest() internal view returns (bytes32 all) {
        for (uint256 i = 0; i < ledger.dealCount(); ++i) {
            all = keccak256(abi.encode(all, dealAt(i)));
        }
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            all = keccak256(abi.encode(all, market.account(ledger.accounts(i))));
        }
        for (uint256 i = 0; i < ledger.demandCount(); ++i) {
            all = keccak256(abi.encode(all, market.developerOffer(OfferHash.wrap(ledger.demandHashes(i)))));
        }
    }

    function only(DealRef memory ref) internal pure returns (DealRef[] memory refs) {
        refs = new DealRef[](1);
        refs[0] = ref;
    }

    /// @dev All deals end and every account gets all of its balance out.
    /// @param rest What belongs to nobody.
    function windUpButFor(uint256 rest) internal {
        DealRef[] memory refs = openDeals();
        for (uint256 i = 0; i < refs.length; ++i) {
            vm.prank(market.deal(refs[i]).developer);
            market.cancelDeals(only(refs[i]));
        }
        nextEpochs(2 + WINDOW);
        for (uint256 i = 0; i < refs.length; ++i) {
            claimOne(refs[i]);
            market.closeDeal(refs[i]);
            DealView memory ended = market.deal(refs[i]);
            assertEq(uint8(ended.state), uint8(DealState.Ended), "state");
            // Perhaps paid for the first time just now, so that no event has named it before.
            drain(ended.payout);
        }
        for (uint256 i = 0; i < ledger.accountCount(); ++i) {
            drain(ledger.accounts(i));
        }
        assertEq(token.balanceOf(address(market)), rest, "everything was paid out");
    }

    /// @dev So much for every developer that no deal runs out of money.
    function enrichDevelopers() internal {
        for (uint256 i = 0; i < 3; ++i) {
            fund(handler.developerNo(i), 1_000_000e6);
        }
    }
}
