//! The agent with real parts: components built from `tests/guests`, wasmtime, SQLite, anvil with the market on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[cfg(target_os = "linux")]
mod hostile;
mod hosting;
#[cfg(target_os = "linux")]
mod isolation;
mod market;
mod support;
