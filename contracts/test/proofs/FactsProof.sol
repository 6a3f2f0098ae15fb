// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {FixedPointMathLib} from "solady/utils/FixedPointMathLib.sol";
import {Proof} from "./Proof.sol";

/// @dev Arithmetic that proofs may rely on. Halmos first takes a product or a quotient of two unknowns for the value of a
/// function of which nothing is known, and solvers don't come to an end with what it really is. So a proof says what it
/// needs to know of which numbers: each fact here is proved below for all numbers, but for the quotient, whose fact
/// defines it.
abstract contract Facts is Proof {
    /// @dev `x * y`. Halmos does not know that `y * x` is the same, and the compiler chooses.
    function _product(uint256 x, uint256 y) internal pure returns (uint256 product) {
        unchecked {
            for (uint256 i = 0; i < 2; ++i) {
                uint256 either = i == 0 ? x * y : y * x;
                if (i == 0) product = either;
                vm.assume(either == product);
            }
            _assumeIf(x == 0, product == 0);
            _assumeIf(y == 0, product == 0);
            _assumeIf((x >> 65) | (y >> 48) == 0, product >> 113 == 0);
        }
    }

    /// @dev How often `y` goes into `x`.
    function _quotient(uint256 x, uint256 y) internal pure returns (uint256 quotient) {
        unchecked {
            quotient = x / y;
            uint256 product = _product(quotient, y);
            vm.assume(quotient <= x);
            vm.assume(product <= x);
            vm.assume(x - product < y);
        }
    }

    /// @dev Parts of a number of epochs cost as much as the whole.
    function _knowParts(uint256 x, uint256 y, uint256 price) internal pure {
        unchecked {
            vm.assume(_product(x, price) + _product(y, price) == _product(x + y, price));
        }
    }

    /// @dev Minima, maxima and differences are products of a number with a truth value in Solady.
    function _min(uint256 x, uint256 y) internal pure returns (uint256) {
        _knowChoice(x ^ y, y < x);
        return FixedPointMathLib.min(x, y);
    }

    function _max(uint256 x, uint256 y) internal pure returns (uint256) {
        _knowChoice(x ^ y, y > x);
        return FixedPointMathLib.max(x, y);
    }

    function _zeroFloorSub(uint256 x, uint256 y) internal pure returns (uint256) {
        unchecked {
            _knowChoice(x - y, x > y);
        }
        return FixedPointMathLib.zeroFloorSub(x, y);
    }

    function _knowChoice(uint256 number, bool isTaken) private pure {
        uint256 one;
        assembly {
            one := isTaken
        }
        uint256 product = _product(number, one);
        _assumeIf(isTaken, product == number);
        _assumeIf(!isTaken, product == 0);
    }

    /// @dev Without a branch, each of which would double the paths to look at.
    function _assumeIf(bool condition, bool conclusion) internal pure {
        bool holds;
        assembly {
            holds := or(iszero(condition), conclusion)
        }
        vm.assume(holds);
    }
}

/// @notice What `Facts` says, for all numbers, with the exception of quotients.
/// @custom:halmos --panic-error-codes *
contract FactsProof is Proof {
    function check_ProductsAreSymmetricAndSmall(uint256 x, uint256 y) public pure {
        unchecked {
            assert(x * y == y * x && 0 * y == 0);
            vm.assume(x >> 65 == 0 && y >> 48 == 0);
            assert((x * y) >> 113 == 0);
        }
    }

    function check_PartsMakeTheWhole(uint256 x, uint256 y, uint256 price) public pure {
        unchecked {
            assert(x * price + y * price == (x + y) * price);
        }
    }

    function check_ChoicesAreMade(uint256 x, uint256 y) public pure {
        unchecked {
            assert(FixedPointMathLib.min(x, y) == (x < y ? x : y));
            assert(FixedPointMathLib.max(x, y) == (x < y ? y : x));
            assert(FixedPointMathLib.zeroFloorSub(x, y) == (x < y ? 0 : x - y));
        }
    }
}
