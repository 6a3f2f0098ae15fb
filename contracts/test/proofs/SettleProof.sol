// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Deal} from "../../src/libraries/DealWord.sol";
import {Deals} from "../../src/market/Deals.sol";
import {MarketBase} from "../../src/market/MarketBase.sol";
import {Facts} from "./FactsProof.sol";
import {ProofStub, proofConfig} from "./Proof.sol";

/// @notice What epochs cost, how far money reaches, what a settlement pays and what it locks.
/// @dev Each part of a settlement is proved under what the parts before it guarantee. One price, unless two are named.
/// @custom:halmos --panic-error-codes *
contract SettleProof is Facts, Deals {
    struct Prices {
        uint48 price;
        uint48 oldPrice;
        uint32 priceFrom;
    }

    struct Served {
        uint8 pattern;
        uint8 settled;
        uint8 limit;
        uint8 isUnfunded;
        uint48 price;
        uint64 funds;
    }

    struct Renewal {
        uint48 price;
        uint64 locked;
        uint64 funds;
        uint64 paid;
        uint32 settled;
        uint32 end;
        uint32 current;
        uint16 prepaid;
    }

    uint256 internal constant NOW = 5;

    /// @dev The compiler must not know keys of mappings.
    address internal immutable AGENT;
    uint256 internal immutable FIRST_WORD;

    constructor() MarketBase(proofConfig(address(new ProofStub()))) {
        AGENT = address(0xa6e47);
        FIRST_WORD = 0;
    }

    // --- Cost and reach -------------------------------------------------------------------------------------------------

    /// @dev Parts of a term cost as much as the whole, across a change of price too; epochs up to 2^65, as far as any money
    /// reaches.
    function check_CostIsAdditive(Prices memory prices, uint72 from, uint72 middle, uint72 to) public pure {
        vm.assume(from <= middle && middle <= to && to >> 65 == 0);
        (Deal memory item, Terms memory terms) = _priced(prices);
        unchecked {
            uint256 oldMiddle = _min(middle, terms.priceFrom);
            uint256 oldTo = _min(to, terms.priceFrom);
            _knowParts(oldMiddle - from, oldTo - oldMiddle, terms.oldPrice);
            _knowParts(middle - oldMiddle, to - oldTo - (middle - oldMiddle), item.price);
            _knowParts(middle - from, to - middle, item.price);
            uint256 parts = _cost(item, terms, from, middle) + _cost(item, terms, middle, to);
            assert(parts == _cost(item, terms, from, to));
            assert(parts >> 114 == 0);
        }
    }

    /// @dev Money pays all epochs up to where it reaches and not one more; across a change of price too.
    function check_ReachIsInverseToCost(Prices memory prices, uint64 funds, uint32 from) public pure {
        vm.assume(prices.price != 0);
        (Deal memory item, Terms memory terms) = _priced(prices);
        _knowReach(item, terms, from, funds);
        unchecked {
            uint256 reach = _reach(item, terms, from, funds);
            _product(reach - _min(reach, terms.priceFrom), item.price);
            _product(reach + 1 - _min(reach + 1, terms.priceFrom), item.price);
            assert(reach >= from && reach >> 65 == 0);
            assert(_cost(item, terms, from, reach) <= funds);
            assert(_cost(item, terms, from, reach + 1) > funds);
        }
    }

    // --- Paying ---------------------------------------------------------------------------------------------------------

    /// @dev Rules 1 and 2. Epochs 1 to 4 in epoch 5, of which 3 and 4 can still be attested; any price and any money.
    /// @custom:halmos --loop 17 --solver-timeout-branching 100
    function check_EachAttestedEpochIsPaidOnce(Served memory s) public {
        vm.assume(s.price != 0);
        uint256 pattern = _caseOf(s.pattern, 16) << 1;
        uint256 settled = 1 + _caseOf(s.settled, 2);
        uint256 limit = settled + _caseOf(s.limit, 4);
        Deal memory item;
        item.settledUntil = settled;
        item.unfundedSince = _caseOf(s.isUnfunded, 2) * limit;
        _attested[AGENT].words[FIRST_WORD] = pattern;
        _knowQuotientUpTo(5, s.funds, s.price);
        uint256 paid = _payServedAt(item, AGENT, NOW, limit, s.price, s.funds);
        uint256 served;
        for (uint256 epoch = settled; epoch < item.settledUntil; ++epoch) {
            bool isServed = (pattern >> epoch) & 1 == 1;
            // Only what is final is settled without being served.
            assert(isServed || epoch < NOW - ATTESTATION_WINDOW);
            if (isServed) ++served;
        }
        unchecked {
            assert(paid == served * s.price);
            if (item.unfundedSince == 0) assert(paid <= s.funds);
            assert(item.settledUntil >= settled);
            assert(item.settledUntil == settled || item.settledUntil <= limit);
            // Either all is settled that can be, or no money is left for one more epoch.
            bool isShort = item.unfundedSince == 0 && s.funds - paid < s.price;
            bool isNextOpen = item.settledUntil >= NOW - ATTESTATION_WINDOW && (pattern >> item.settledUntil) & 1 == 0;
            assert(isShort || isNextOpen || item.settledUntil >= limit);
            // Then it ends right behind the last that was paid.
            assert(!isShort || item.settledUntil == settled || (pattern >> (item.settledUntil - 1)) & 1 == 1);
        }
    }

    // --- Locking --------------------------------------------------------------------------------------------------------

    /// @dev Rules 3 and 4 for a deal at one price, which is not 0; all values of the types.
    /// @custom:halmos --solver-timeout-branching 100
    function check_RenewedLockIsWhatIsWanted(Renewal memory r) public pure {
        vm.assume(r.price != 0);
        vm.assume(r.settled != 0);
        vm.assume(r.settled <= r.end);
        vm.assume(r.locked <= r.funds);
        vm.assume(r.paid <= r.funds);
        (Deal memory item, Terms memory terms) = _priced(Prices(r.price, 0, 0));
        item.locked = r.locked;
        item.settledUntil = r.settled;
        item.endEpoch = r.end;
        terms.prepaidEpochs = r.prepaid;
        (uint256 wanted, uint256 through) = _wanted(r);
        uint256 left = _zeroFloorSub(r.locked, r.paid);
        uint256 affordable = _affordable(r, wanted, left);
        unchecked {
            uint256 toppedUp = _renewLock(item, terms, r.current, r.funds, r.paid);
            uint256 cost = _cost(item, terms, r.settled, wanted < affordable ? wanted : affordable);
            assert(cost <= uint256(r.funds) - r.paid);
            assert(item.locked == (left < cost ? cost : left));
            assert(item.locked + r.paid == r.locked + toppedUp);
            // What is topped up is free.
            assert(toppedUp <= uint256(r.funds) - r.locked);
        }
        _assertCovered(item, terms, wanted, through);
    }

    function _wanted(Renewal memory r) private pure returns (uint256 wanted, uint256 through) {
        unchecked {
            through = _min(uint256(r.current) + 1, r.end);
            wanted = _max(_min(uint256(r.settled) + r.prepaid, r.end), through);
        }
    }

    function _affordable(Renewal memory r, uint256 wanted, uint256 left) private pure returns (uint256 affordable) {
        unchecked {
            uint256 most = _quotient(uint256(r.funds) - r.paid, r.price);
            affordable = r.settled + most;
            uint256 until = _min(wanted, affordable);
            _knowParts(until - r.settled, most - (until - r.settled), r.price);
            _max(left, until > r.settled ? (until - r.settled) * r.price : 0);
        }
    }

    function _assertCovered(Deal memory item, Terms memory terms, uint256 wanted, uint256 through) private pure {
        unchecked {
            uint256 settled = item.settledUntil;
            uint256 covered = _quotient(item.locked, item.price);
            _knowParts(through - settled, wanted - through, item.price);
            _knowParts(through - settled, covered - (through - settled), item.price);
            _knowParts(covered, 1, item.price);
            if (item.unfundedSince == 0) {
                assert(_cost(item, terms, settled, through) <= item.locked);
            } else {
                assert(item.unfundedSince == settled + covered);
                assert(item.unfundedSince < through);
                assert(_cost(item, terms, settled, item.unfundedSince) <= item.locked);
                assert(_cost(item, terms, settled, item.unfundedSince + 1) > item.locked);
            }
        }
    }

    // --- Facts ----------------------------------------------------------------------------------------------------------

    /// @dev What `_reach` divides and `_cost` multiplies.
    function _knowReach(Deal memory item, Terms memory terms, uint256 from, uint256 funds) private pure {
        unchecked {
            if (from < terms.priceFrom) {
                uint256 epochs = terms.priceFrom - from;
                uint256 old = _product(epochs, terms.oldPrice);
                if (funds < old) {
                    uint256 few = _quotient(funds, terms.oldPrice);
                    _knowParts(epochs, few - epochs, terms.oldPrice);
                    _knowParts(few, 1, terms.oldPrice);
                    return;
                }
                funds -= old;
            }
            _knowParts(_quotient(funds, item.price), 1, item.price);
        }
    }

    /// @dev What follows of a quotient as far as it is no more than `most`: it is at least `n` if `n` times `y` fit into `x`.
    function _knowQuotientUpTo(uint256 most, uint256 x, uint256 y) private pure {
        unchecked {
            uint256 quotient = _quotient(x, y);
            for (uint256 n = 1; n <= most; ++n) {
                _assumeIf(n * y <= x, quotient >= n);
                _assumeIf(n * y > x, quotient < n);
                _assumeIf(quotient == n, _product(quotient, y) == n * y);
            }
        }
    }

    function _priced(Prices memory prices) private pure returns (Deal memory item, Terms memory terms) {
        item.price = prices.price;
        terms.oldPrice = prices.oldPrice;
        terms.priceFrom = prices.priceFrom;
    }
}
