// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {TestUsdc} from "../../src/TestUsdc.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {
    DealId,
    DealRef,
    DealState,
    DealView,
    DeveloperOffer,
    Epoch,
    OfferHash,
    ProviderOffer
} from "../../src/types/Types.sol";
import {Actors} from "./Actors.sol";
import {Ledger} from "./Ledger.sol";
import {Watcher} from "./Watcher.sol";

/// @dev What all actions have in common: each is counted, recorded from its events and looked at afterwards.
abstract contract Actions is Actors {
    IMarket public immutable MARKET;
    TestUsdc public immutable TOKEN;
    address public immutable OPERATOR;
    Ledger public immutable LEDGER;
    Watcher public immutable WATCHER;

    uint256 public steps;
    uint256 public donated;
    /// @dev What agents had more than before after calls of their own, where they are nobody's payout account.
    uint256 public gainedByAgents;
    mapping(string action => uint256) public tried;
    mapping(string action => uint256) public done;

    DeveloperOffer[] internal _demands;
    ProviderOffer[] internal _supplies;

    /// @dev Naive record of attestations, by agent.
    mapping(address agent => mapping(uint256 epoch => bool)) internal _served;
    mapping(address agent => uint256) public servedEpochs;
    /// @dev Placed replicas times their fee, by matcher.
    mapping(address matcher => uint256) public earnedFees;

    constructor(IMarket market, TestUsdc token, address operator) {
        MARKET = market;
        TOKEN = token;
        OPERATOR = operator;
        LEDGER = new Ledger(market.config().bondEpochs);
        WATCHER = new Watcher(market, LEDGER);
        for (uint256 i = 0; i < ACTORS; ++i) {
            _supplies.push(_supplyOf(i, 0, type(uint64).max));
            _supplies.push(_supplyOf(i, 1, type(uint64).max));
            _demands.push(_demandOf(i, i, i));
        }
    }

    modifier action(string memory name) {
        VM.recordLogs();
        _;
        ++tried[name];
        ++steps;
        _record();
        WATCHER.watch(uint256(keccak256(abi.encode(steps))));
    }

    function supplyCount() external view returns (uint256) {
        return _supplies.length;
    }

    function demandCount() external view returns (uint256) {
        return _demands.length;
    }

    function wasServed(address agent, uint256 epoch) external view returns (bool) {
        return _served[agent][epoch];
    }

    // --- Helpers ----------------------------------------------------------------------------------------------------

    function _record() internal {
        LEDGER.record(VM.getRecordedLogs(), address(MARKET));
    }

    /// @dev Forge records the logs of a reverted call as well.
    function _forgetRefused() internal {
        VM.getRecordedLogs();
    }

    function _epochNow() internal view returns (uint32) {
        return Epoch.unwrap(MARKET.currentEpoch());
    }

    function _skip(uint256 epochs) internal {
        VM.warp(VM.getBlockTimestamp() + epochs * MARKET.config().epochLength);
    }

    /// @dev A random open deal; state `None` when there is none.
    function _pickOpen(uint256 seed) internal view returns (DealRef memory ref, DealView memory shown) {
        uint256 open = WATCHER.openCount();
        if (open == 0) return (ref, shown);
        ref = WATCHER.openAt(seed % open);
        shown = MARKET.deal(ref);
    }

    function _only(DealRef memory ref) internal pure returns (DealRef[] memory refs) {
        refs = new DealRef[](1);
        refs[0] = ref;
    }

    function _onlyDemand(DealRef memory ref) internal pure returns (OfferHash[] memory demands) {
        demands = new OfferHash[](1);
        demands[0] = ref.developerOffer;
    }

    /// @dev Claims until nothing more moves: who is paid may be the one who pays.
    function _settle(DealRef memory ref) internal {
        OfferHash[] memory demands = _onlyDemand(ref);
        VM.startPrank(STRANGER);
        MARKET.claim(ref.provider, ref.providerOffer, demands);
        MARKET.claim(ref.provider, ref.providerOffer, demands);
        VM.stopPrank();
        _record();
    }

    function _attest(address agent, uint32 epoch, bytes32 root) internal {
        uint256 before = MARKET.freeBalance(agent);
        VM.prank(agent);
        MARKET.attest(Epoch.wrap(epoch), root);
        _agentGains(agent, before);
        _served[agent][epoch] = true;
        ++servedEpochs[agent];
        WATCHER.attested(agent, epoch);
    }

    function _agentGains(address agent, uint256 before) internal {
        uint256 free = MARKET.freeBalance(agent);
        if (free > before && agent != agentNo(2)) gainedByAgents += free - before;
    }
}
