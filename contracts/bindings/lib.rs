//! Bindings of the contracts, generated from the committed artifacts in `abi/`; nothing else lives here.

#![allow(
    missing_docs,
    clippy::too_many_arguments,
    reason = "generated; documented in contracts/src/interfaces/IMarket.sol"
)]

/// The Market's artifact: ABI, its extension's functions included, and bytecode.
pub const MARKET_JSON: &str = include_str!("../abi/Market.json");

/// The test token's artifact: ABI and bytecode.
pub const TEST_USDC_JSON: &str = include_str!("../abi/TestUsdc.json");

alloy::sol! {
    #[sol(all_derives)]
    Market,
    "abi/Market.json"
}

alloy::sol! {
    #[sol(all_derives)]
    MarketExtension,
    "abi/MarketExtension.json"
}

alloy::sol! {
    #[sol(all_derives)]
    TestUsdc,
    "abi/TestUsdc.json"
}
