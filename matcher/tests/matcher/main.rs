//! The matcher with a real chain, a real indexer, real databases and a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod artifacts;
mod burst;
mod drafts;
mod explanations;
mod keeper;
mod leader;
mod lifecycle;
mod refusals;
mod rivals;
mod support;
