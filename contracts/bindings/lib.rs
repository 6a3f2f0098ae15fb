//! Bindings of the contracts, generated from the committed artifacts in `abi/`; nothing else lives here.

#![allow(missing_docs, reason = "generated; documented in contracts/src/interfaces/IMarket.sol")]

alloy::sol! {
    #[sol(rpc, all_derives)]
    Market,
    "abi/Market.json"
}

alloy::sol! {
    #[sol(rpc, all_derives)]
    TestUsdc,
    "abi/TestUsdc.json"
}
