//! What the agent decides, free of I/O: no socket, file, database, chain or wasmtime type in a signature.
//!
//! Layout: [`replica`] is the life of one replica, [`reconcile`] compares what should be with what is, [`billing`] says what to
//! attest and claim, [`receipts`] condenses served requests into the root that an attestation commits to.

pub mod billing;
pub mod receipts;
pub mod reconcile;
pub mod replica;
