//! The provider's program: hosts the workers of the deals that name its key, and bills for them.
//!
//! It believes the chain and nobody else, and nothing but what the chain has said stops a worker: while the chain, the
//! database or the matcher cannot be reached, workers go on.
//!
//! Layout: [`domain`] decides, without I/O · `follow` and `desired` read the chain · `supervisor` carries out, with
//! `artifacts` and [`host`] · `ingress` and `server` take requests, `book` counts them · `billing` attests and claims ·
//! `register` puts the provider's offer on the market · `store` is the database · [`run`] wires it all.

mod artifacts;
mod billing;
mod book;
pub mod config;
mod desired;
pub mod domain;
mod follow;
pub mod host;
mod ingress;
mod metrics;
mod register;
mod replicas;
mod run;
mod seen;
mod server;
mod store;
mod supervisor;

pub use config::{AgentConfig, HostLimits, Isolation, IsolationMode, SignedProviderOffer};
pub use follow::FollowError;
pub use host::run_if_sandboxed;
pub use ingress::{DEAL_HEADER, REGION_HEADER};
pub use run::{Agent, AgentError, run};
pub use store::StoreError;
