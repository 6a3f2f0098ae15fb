//! The whole system from outside: the program is started as people start it, everything behind it is real.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

mod agent_crash;
mod contracts;
mod demo;
mod docs;
mod indexer;
mod market;
mod refusals;
mod reorg;
mod restart;
