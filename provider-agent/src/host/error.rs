//! What can go wrong with one request, and where each limit gets its name.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a request was not answered by the worker. The text names limit and value.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServeError {
    /// Too many requests run and wait.
    #[error(
        "{running} requests of this deal run and {waiting} wait, which is the limit (max_concurrent_requests, max_queued_requests)"
    )]
    Overloaded {
        /// Limit of running ones.
        running: usize,
        /// Limit of waiting ones.
        waiting: usize,
    },
    /// Other requests of the deal hold its memory.
    #[error("other requests of this deal hold {held} of its {limit} bytes of memory")]
    MemoryBusy {
        /// Bytes that others hold.
        held: u64,
        /// Bytes bought.
        limit: u64,
    },
    /// The machine has no room for another instance.
    #[error("this host runs as many instances as it can (max_live_instances): {0}")]
    HostFull(String),
    /// The request's body is too large.
    #[error("the request body exceeds max_request_body_bytes of {limit} bytes")]
    BodyTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The worker used more CPU time than one request may.
    #[error("the worker used {used_ms} ms of CPU time, cpu_ms_per_request is {limit_ms}")]
    CpuLimit {
        /// Milliseconds used.
        used_ms: u64,
        /// Milliseconds allowed.
        limit_ms: u64,
    },
    /// The worker had not begun to answer in time.
    #[error("the worker did not finish within request_timeout_ms of {limit_ms} ms")]
    Deadline {
        /// Milliseconds allowed.
        limit_ms: u64,
    },
    /// The worker wanted more memory than was bought, and failed without.
    #[error("the worker wanted {wanted} bytes of memory, the deal has {limit}")]
    MemoryLimit {
        /// Bytes in use and wanted.
        wanted: u64,
        /// Bytes bought.
        limit: u64,
    },
    /// The worker trapped.
    #[error("the worker trapped: {0}")]
    Trapped(String),
    /// The worker returned without an answer, or with an error code in its place.
    #[error("the worker gave no answer: {0}")]
    NoAnswer(String),
    /// The process that runs the worker ended.
    #[error("the worker's process ended: {0}")]
    Died(String),
    /// The deal is over.
    #[error("the worker is stopping")]
    Closed,
}

/// An answer that ended before it was complete.
#[derive(Debug, Error)]
pub enum BodyCut {
    /// The worker hit a limit or trapped.
    #[error("the worker's answer was cut off")]
    Worker(#[source] ServeError),
    /// The worker ended its answer with an error.
    #[error("the worker gave its answer up: {0}")]
    GivenUp(String),
}
