//! Pairs developer offers with provider offers, explains what finds no pair, and relays matches to the chain. It is trusted
//! with nothing: the contract checks every term of every match again, and anybody may run another matcher.
//!
//! Layout: the crate [`matching`] decides, without I/O; `tick` is the loop that asks it after every block, `batch` what
//! goes into one transaction and `relay` the outbox of what it sends; `races` says why the contract passed over a fill,
//! and `turn` how matchers on one market keep out of each other's way; `store` is the database; `api` is the developers'
//! web API with [`artifacts`] behind it, whose files [`component`] judges; `view` is the market as all of them see it;
//! `run` wires it all together.

#[cfg(test)]
mod against_chain;
mod api;
pub mod artifacts;
mod batch;
pub mod component;
mod config;
mod error;
mod explained;
mod health;
mod metrics;
#[cfg(test)]
mod outbox_tests;
mod races;
mod relay;
mod run;
pub mod store;
mod tick;
mod turn;
mod view;
#[cfg(test)]
mod view_tests;

pub use self::{
    component::{NotHostable, required_features},
    config::MatcherConfig,
    error::MatcherError,
    run::Matcher,
};
