//! The HTTP front door: a deployment's name leads to one of its live replicas.
//!
//! Layout: [`domain`] decides without I/O (which deployment, which replica, whether to try another one); `refresh` keeps
//! the routes in step with the indexer; `health` knows which replicas answer; `egress` decides what may be dialled;
//! `proxy` carries requests; `api` words the problems; `service` puts them together; `run` binds, serves and shuts down.
//!
//! A deployment is reached in two ways:
//! - by path, `/d/{deployment}/{path}`: the developer offer's hash, or at least the first 8 of its hex digits as long as
//!   no other deployment begins with them;
//! - by host, `{label}.{domain}`: the first 40 hex digits of the hash, since a DNS label holds no more than 63
//!   characters. 160 bits of a hash cannot be imitated on purpose, so no stranger can make a label ambiguous.

mod api;
mod body;
mod config;
pub mod domain;
mod egress;
mod headers;
mod health;
mod indexer;
mod lookup;
mod metrics;
mod proxy;
mod refresh;
mod run;
mod service;

pub use config::{ConfigError, GatewayConfig, Limits};
pub use run::{Gateway, GatewayError, run};
