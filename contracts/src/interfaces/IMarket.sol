// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketCore} from "./IMarketCore.sol";
import {IMarketExtension} from "./IMarketExtension.sol";

/// @title Market
/// @notice Escrow, offer book, deals, attestations and bonds of the Wharfage market: everything that can be called at
/// its one address.
/// Every amount is in atoms of the market's token. Free balances stay below 2^63 atoms.
interface IMarket is IMarketCore, IMarketExtension {}
