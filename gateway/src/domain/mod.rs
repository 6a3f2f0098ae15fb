//! The gateway's decisions, without sockets or clocks.
//!
//! Layout: [`table`] holds deployments and finds them by name, [`name`] reads the name out of a request, [`pick`] chooses
//! a replica, [`retry`] says when another one may be tried, [`backoff`] how long a replica that failed is left alone.

pub mod backoff;
pub mod name;
pub mod pick;
pub mod retry;
pub mod table;
