// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {MarketConfig} from "../../src/types/Types.sol";

/// @dev What the proofs have in common. A proof is a function `check_…` that Halmos runs with every argument symbolic;
/// forge compiles it and does not run it. `AUDIT.md` says how, and lists what is bounded.
abstract contract Proof {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    /// @dev `x`, which is below `limit`, as one of so many cases that are proved one by one. In each of them it is a constant:
    /// what is shifted, multiplied or divided by it is easy then.
    function _caseOf(uint256 x, uint256 limit) internal pure returns (uint256 i) {
        vm.assume(x < limit);
        while (i != x) {
            ++i;
        }
    }
}

/// @dev Stands for the token and for the extension of a market under proof: has code, and answers `config()`.
contract ProofStub {
    function config() external view returns (MarketConfig memory) {
        return proofConfig(address(this));
    }
}

/// @dev One second is one epoch, so that `vm.warp` sets the epoch.
function proofConfig(address token) pure returns (MarketConfig memory) {
    return MarketConfig({
        token: token,
        operator: address(0),
        genesis: 0,
        epochLength: 1,
        attestationWindow: 2,
        evictAfterMissed: 2,
        bondEpochs: 2,
        minPrepaidEpochs: 1,
        graceEpochs: 2,
        noticeEpochs: 2
    });
}
