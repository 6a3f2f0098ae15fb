// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";

/// @dev The market's money rebuilt from its events alone.
contract Ledger {
    struct Flow {
        address developer;
        address provider;
        uint256 price;
        uint256 funded;
        uint256 paid;
        uint256 refunded;
        uint256 epochsPaid;
        uint256 bond;
        uint256 unfundedSince;
    }

    mapping(address account => int256) public free;
    mapping(bytes32 dealId => Flow) internal _flows;
    bytes32[] public dealIds;
    address[] public accounts;
    mapping(address account => bool) internal _isKnown;

    function dealCount() external view returns (uint256) {
        return dealIds.length;
    }

    function accountCount() external view returns (uint256) {
        return accounts.length;
    }

    function flowOf(bytes32 dealId) external view returns (Flow memory) {
        return _flows[dealId];
    }

    function record(Vm.Log[] calldata logs, address market) external {
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == market) _record(logs[i]);
        }
    }

    function _record(Vm.Log calldata log) private {
        bytes32 kind = log.topics[0];
        if (kind == IMarket.Deposited.selector) {
            _move(_address(log.topics[1]), int256(abi.decode(log.data, (uint256))));
        } else if (kind == IMarket.Withdrawn.selector) {
            _move(_address(log.topics[1]), -int256(abi.decode(log.data, (uint256))));
        } else if (kind == IMarket.DealOpened.selector) {
            _opened(log);
        } else if (kind == IMarket.DealFunded.selector) {
            (uint64 amount,) = abi.decode(log.data, (uint64, uint32));
            _flows[log.topics[1]].funded += amount;
            _flows[log.topics[1]].unfundedSince = 0;
            _move(_address(log.topics[2]), -int256(uint256(amount)));
        } else if (kind == IMarket.DealSettled.selector) {
            _settled(log);
        } else if (kind == IMarket.DealUnfunded.selector) {
            _flows[log.topics[1]].unfundedSince = abi.decode(log.data, (uint32));
        } else if (kind == IMarket.DealEnding.selector) {
            (,, uint64 refunded) = abi.decode(log.data, (uint8, uint32, uint64));
            _refund(log.topics[1], refunded);
        } else if (kind == IMarket.DealEnded.selector) {
            (, uint64 refunded, address bondTo, uint64 bond) = abi.decode(log.data, (uint8, uint64, address, uint64));
            _refund(log.topics[1], refunded);
            _flows[log.topics[1]].bond -= bond;
            _move(bondTo, int256(uint256(bond)));
        }
    }

    function _opened(Vm.Log calldata log) private {
        (, address developer, address provider, uint64 price,,, uint64 locked, uint64 bond) =
            abi.decode(log.data, (bytes32, address, address, uint64, uint32, uint32, uint64, uint64));
        require(_flows[log.topics[1]].developer == address(0), "a deal was opened twice");
        dealIds.push(log.topics[1]);
        _flows[log.topics[1]] = Flow({
            developer: developer,
            provider: provider,
            price: price,
            funded: locked,
            paid: 0,
            refunded: 0,
            epochsPaid: 0,
            bond: bond,
            unfundedSince: 0
        });
        _move(developer, -int256(uint256(locked)));
        _move(provider, -int256(uint256(bond)));
    }

    function _settled(Vm.Log calldata log) private {
        (uint32 epochsPaid, uint64 paid, uint64 toppedUp,,) =
            abi.decode(log.data, (uint32, uint64, uint64, uint32, uint32));
        Flow storage flow = _flows[log.topics[1]];
        flow.funded += toppedUp;
        flow.paid += paid;
        flow.epochsPaid += epochsPaid;
        flow.unfundedSince = 0;
        _move(flow.developer, -int256(uint256(toppedUp)));
        _move(_address(log.topics[2]), int256(uint256(paid)));
    }

    function _refund(bytes32 dealId, uint64 refunded) private {
        _flows[dealId].refunded += refunded;
        _move(_flows[dealId].developer, int256(uint256(refunded)));
    }

    function _move(address account, int256 amount) private {
        if (!_isKnown[account]) {
            _isKnown[account] = true;
            accounts.push(account);
        }
        free[account] += amount;
    }

    function _address(bytes32 topic) private pure returns (address) {
        return address(uint160(uint256(topic)));
    }
}
