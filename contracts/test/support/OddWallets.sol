// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @dev Counts how often it is called, with money or without.
contract CallCountingWallet {
    uint256 public calls;

    fallback() external payable {
        ++calls;
    }

    receive() external payable {
        ++calls;
    }
}

/// @dev Takes nothing, answers nothing, and says no to every signature.
contract RefusingWallet {
    error No();

    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return 0xffffffff;
    }

    function refuses() external pure returns (bool) {
        return true;
    }

    fallback() external payable {
        revert No();
    }

    receive() external payable {
        revert No();
    }
}
