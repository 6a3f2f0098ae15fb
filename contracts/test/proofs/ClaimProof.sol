// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Market} from "../../src/Market.sol";
import {DealWord} from "../../src/libraries/DealWord.sol";
import {Facts} from "./FactsProof.sol";
import {ProofStub, proofConfig} from "./Proof.sol";

/// @dev The market itself, with a stub for its token and its extension.
abstract contract MarketOfStub is Market {
    constructor(address stub) Market(proofConfig(stub), stub) {}
}

/// @notice What the everyday claim pays and locks.
/// @custom:halmos --panic-error-codes *
contract ClaimProof is Facts, MarketOfStub {
    using DealWord for uint256;

    constructor() MarketOfStub(address(new ProofStub())) {}

    /// @dev All deals, all epochs, all numbers of epochs locked ahead.
    function check_PlainLockConservesMoney(uint256 word, uint32 until, uint16 prepaid) public pure {
        vm.assume(word.settledUntil() < until);
        vm.assume(until <= word.endEpoch());
        uint256 before = word.locked();
        unchecked {
            uint256 paid = _product(until - word.settledUntil(), word.price());
            uint256 ahead = word.endEpoch() - until;
            uint256 wanted = _product(_min(prepaid, ahead), word.price());
            uint256 locked = _plainLock(word, until, prepaid, paid);
            // What is topped up is not negative, and what leaves the lock was paid.
            assert(locked + paid >= before);
            uint256 left = before > paid ? before - paid : 0;
            assert(locked == (wanted > left ? wanted : left));
        }
    }
}
