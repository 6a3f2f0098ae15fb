// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Multicallable} from "solady/utils/Multicallable.sol";
import {IMarketCore} from "./interfaces/IMarketCore.sol";
import {IMarketExtension} from "./interfaces/IMarketExtension.sol";
import {Attestations} from "./market/Attestations.sol";
import {Claims} from "./market/Claims.sol";
import {Escrow} from "./market/Escrow.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Matching} from "./market/Matching.sol";
import {OfferBook} from "./market/OfferBook.sol";
import {MarketConfig} from "./types/Types.sol";

/// @title Market
/// @notice The Wharfage market: immutable, without owner. The operator can pause new matches and nothing else.
/// @dev Calls of functions that are not here run the code of the extension, which is fixed at deployment, was built
/// with the same constants and declares the same storage.
contract Market is Escrow, OfferBook, Matching, Claims, Attestations, Multicallable {
    address private immutable EXTENSION;

    constructor(MarketConfig memory constants, address extension_) MarketBase(constants) {
        if (extension_.code.length == 0) revert ConfigInvalid("extension");
        MarketConfig memory theirs = IMarketExtension(extension_).config();
        if (keccak256(abi.encode(theirs)) != keccak256(abi.encode(constants))) revert ConfigInvalid("extension");
        EXTENSION = extension_;
    }

    /// @dev Everything of `IMarketExtension`.
    fallback() external {
        address code = EXTENSION;
        assembly {
            calldatacopy(0, 0, calldatasize())
            let success := delegatecall(gas(), code, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(success) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }

    /// @inheritdoc IMarketCore
    function extension() external view returns (address) {
        return EXTENSION;
    }
}
