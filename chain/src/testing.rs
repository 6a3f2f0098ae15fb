//! A real chain for tests: anvil, and a market on it. For the tests of this crate and of those that use it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "part of tests: a failure here is the test's failure"
)]

mod anvil;
mod market;

pub use anvil::Anvil;
pub use market::TestMarket;
