// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Changes} from "./market/Changes.sol";
import {Endings} from "./market/Endings.sol";
import {MarketBase} from "./market/MarketBase.sol";
import {Reads} from "./market/Reads.sol";
import {MarketConfig} from "./types/Types.sol";

/// @title MarketExtension
/// @notice The part of the market's code that did not fit into one contract. `Market` runs it on its own storage; by
/// itself it is an empty market that nothing can enter.
contract MarketExtension is Endings, Changes, Reads {
    constructor(MarketConfig memory constants) MarketBase(constants) {}
}
