//! The market as the matcher sees it, without any I/O: the same snapshot gives the same answer on every machine, so
//! that anyone can replay a match.
//!
//! Layout: [`snapshot`] is what is known at a block, [`ledger`] what fills change of it, [`feasible`] the one predicate,
//! [`scan`] the rule of continuous matching in its plainest form, [`engine`] the same answers from an index that follows
//! every change, [`batch`] what goes beyond them where demand is unmet, [`explain`] the reasons and ways out for a demand
//! that finds no host, [`depth`] how much of a size can be had, where and at which asks, [`ends`] the deals that anybody
//! may end now, [`market`] what goes on from block to block, forth and back, with the engine standing at it, [`replay`] what
//! the engine says to the matches that were made.

pub mod batch;
pub mod depth;
pub mod ends;
pub mod engine;
pub mod explain;
pub mod feasible;
pub mod ledger;
pub mod market;
pub mod replay;
pub mod scan;
pub mod snapshot;

#[cfg(any(test, feature = "testing"))]
pub mod samples;
