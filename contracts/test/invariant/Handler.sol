// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {TestUsdc} from "../../src/TestUsdc.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {Actions} from "./Actions.sol";
import {DealActions} from "./DealActions.sol";
import {EndingActions} from "./EndingActions.sol";
import {MoneyActions} from "./MoneyActions.sol";
import {OfferActions} from "./OfferActions.sol";

/// @dev Does what the market's users do, at random. Every call that it makes is one that must not revert, but for
/// evicting and closing too early: then the market must agree with the rule as worked out from events.
contract Handler is MoneyActions, OfferActions, DealActions, EndingActions {
    constructor(IMarket market, TestUsdc token, address operator) Actions(market, token, operator) {}

    /// @dev What a campaign calls. Actions that keep the market busy stand here more than once.
    function actions() external pure returns (bytes4[] memory list) {
        list = new bytes4[](48);
        uint256 count;
        list[count++] = this.deposit.selector;
        list[count++] = this.depositFor.selector;
        list[count++] = this.depositWithPermit.selector;
        list[count++] = this.depositWithAuthorization.selector;
        list[count++] = this.withdraw.selector;
        list[count++] = this.drainDeveloper.selector;
        list[count++] = this.donate.selector;
        list[count++] = this.fundDeal.selector;
        list[count++] = this.multicallClaimAndWithdraw.selector;
        list[count++] = this.multicallClaimAndLeave.selector;
        list[count++] = this.postDemand.selector;
        list[count++] = this.newSupply.selector;
        list[count++] = this.cancelDemand.selector;
        list[count++] = this.cancelSupply.selector;
        list[count++] = this.cancelSupplyOfAnother.selector;
        list[count++] = this.raiseNonceFloor.selector;
        list[count++] = this.setPaused.selector;
        list[count++] = this.updateArtifact.selector;
        list[count++] = this.matchOffers.selector;
        list[count++] = this.matchNewDemand.selector;
        list[count++] = this.matchNewDemand.selector;
        list[count++] = this.matchKnown.selector;
        list[count++] = this.matchKnown.selector;
        list[count++] = this.matchSeveral.selector;
        list[count++] = this.attest.selector;
        list[count++] = this.attest.selector;
        list[count++] = this.serve.selector;
        list[count++] = this.serve.selector;
        list[count++] = this.serveAndClaim.selector;
        list[count++] = this.serveAndClaim.selector;
        list[count++] = this.serveAndClaim.selector;
        list[count++] = this.serveWithoutOne.selector;
        list[count++] = this.pass.selector;
        list[count++] = this.passLong.selector;
        list[count++] = this.attestOverTheEdge.selector;
        list[count++] = this.claimAnything.selector;
        list[count++] = this.claimAll.selector;
        list[count++] = this.claimAll.selector;
        list[count++] = this.cancelDeals.selector;
        list[count++] = this.giveNotice.selector;
        list[count++] = this.evict.selector;
        list[count++] = this.abandon.selector;
        list[count++] = this.closeDeal.selector;
        list[count++] = this.closeDeal.selector;
        list[count++] = this.closeDeal.selector;
        list[count++] = this.slash.selector;
        list[count++] = this.changeDeal.selector;
        list[count++] = this.changeDeal.selector;
        assert(count == list.length);
    }
}
