// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Deal} from "../../src/libraries/DealWord.sol";
import {Deals} from "../../src/market/Deals.sol";
import {MarketBase} from "../../src/market/MarketBase.sol";
import {Proof, ProofStub, proofConfig} from "./Proof.sol";

/// @notice What epochs cost, and what a deal that ends early gives back.
/// @dev Products and quotients of two unknowns are what solvers are worst at: epochs are few here, and taken one by one.
/// @custom:halmos --panic-error-codes *
contract DealsProof is Proof, Deals {
    constructor() MarketBase(proofConfig(address(new ProofStub()))) {}

    /// @dev Prices of 48 bits, five epochs, a change of price anywhere.
    /// @custom:halmos --loop 6
    function check_EachEpochHasOnePrice(uint48[2] memory prices, uint8[2] memory epochs) public pure {
        uint256 epoch = _caseOf(epochs[0], 5);
        uint256 priceFrom = _caseOf(epochs[1], 5);
        (Deal memory item, Terms memory terms) = _priced(prices, priceFrom);
        assert(_cost(item, terms, epoch, epoch + 1) == (epoch < priceFrom ? prices[1] : prices[0]));
        assert(_cost(item, terms, epoch, epoch) == 0);
    }

    /// @dev Prices of 48 bits, a lock of 64, four epochs.
    /// @custom:halmos --loop 5
    function check_RefundAndNeedMakeTheLock(uint48[2] memory prices, uint64 locked, uint8[4] memory epochs)
        public
        pure
    {
        (Deal memory item, Terms memory terms) = _priced(prices, _caseOf(epochs[0], 4));
        item.locked = locked;
        item.settledUntil = _caseOf(epochs[1], 4);
        item.endEpoch = _caseOf(epochs[2], 4);
        item.unfundedSince = _caseOf(epochs[3], 4);
        uint256 needed = _cost(item, terms, item.settledUntil, _billedUntil(item));
        uint256 refund = _takeExcess(item, terms);
        // Checked arithmetic: neither is negative.
        assert(refund + item.locked == locked);
        assert(item.locked <= needed);
        assert(refund == 0 || item.locked == needed);
        // A second time there is nothing to take.
        assert(_takeExcess(item, terms) == 0);
    }

    function _priced(uint48[2] memory prices, uint256 priceFrom)
        private
        pure
        returns (Deal memory item, Terms memory terms)
    {
        item.price = prices[0];
        terms.oldPrice = prices[1];
        terms.priceFrom = priceFrom;
    }
}
