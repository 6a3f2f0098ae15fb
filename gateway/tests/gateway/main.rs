//! The gateway in front of agents and an indexer on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub,
    reason = "tests"
)]

mod failures;
mod limits;
mod names;
mod passing;
mod running;
mod support;
