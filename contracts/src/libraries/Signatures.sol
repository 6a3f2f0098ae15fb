// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IERC1271} from "openzeppelin/interfaces/IERC1271.sol";
import {ECDSA} from "solady/utils/ECDSA.sol";
import {LibCall} from "solady/utils/LibCall.sol";

/// @title Signatures
/// @notice Signatures of plain accounts and of contracts (ERC-1271).
library Signatures {
    /// @dev Enough for a large multi-signature wallet; a bound on what one signer can burn of a batch.
    uint256 internal constant ERC1271_GAS = 500_000;

    /// @notice Whether `signature` of `digest` is `signer`'s. Never reverts because of the signer.
    /// @dev The key is tried first: an account that took on code (EIP-7702) after it had signed keeps its signature.
    function isValid(address signer, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        if (ECDSA.tryRecoverCalldata(digest, signature) == signer) return true;
        if (signer.code.length == 0) return false;
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        (bool success,, bytes memory answer) = LibCall.tryStaticCall(signer, ERC1271_GAS, 32, question);
        return success && answer.length == 32 && bytes32(answer) == bytes32(IERC1271.isValidSignature.selector);
    }
}
