// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Multicallable} from "solady/utils/Multicallable.sol";
import {Endings} from "./market/Endings.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Matching} from "./market/Matching.sol";
import {MarketConfig} from "./types/Types.sol";

/// @title Market
/// @notice The Wharfage market: immutable, without owner. The operator can pause new matches and nothing else.
contract Market is Matching, Endings, Multicallable {
    constructor(MarketConfig memory constants) MarketBase(constants) {}
}
