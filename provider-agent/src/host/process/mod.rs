//! Workers in processes of their own.
//!
//! Layout: `protocol` is what both sides say · on the agent's side `spawn` starts processes, `compiler` has artifacts
//! compiled, `remote` is a worker · `child` is the other side: what those processes do.

pub(super) mod child;
pub(super) mod compiler;
mod protocol;
pub(super) mod remote;
pub(super) mod spawn;
