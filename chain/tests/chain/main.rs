//! Against a real chain (anvil) and real contracts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod deploy;
mod failover;
mod garbage;
mod hashes;
mod keys;
mod logs;
mod offers;
mod proxy;
mod reader;
mod sender;
