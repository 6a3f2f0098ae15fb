//! The indexer against random histories and against a real chain.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on shall panic"
)]

mod api;
mod concerning;
mod dump;
mod explore;
mod export;
mod faults;
mod follow;
mod history;
mod migrate;
mod openapi;
mod pages;
mod prices;
mod projection;
mod proxy;
mod scene;
mod stream;
