//! What is compared with what, without I/O.
//!
//! Layout: `book` is what the chain's events add up to, [`diff`] finds the fields in which two things differ, [`storage`]
//! says what the contract must have stored, [`answers`] what an indexer must answer, [`history`] what it must list of all that
//! happened, [`report`] counts and shows it.

pub(super) mod answers;
mod book;
mod diff;
pub(super) mod history;
pub(super) mod report;
pub(super) mod storage;

pub(super) use self::{
    book::Book,
    report::{Findings, Subject},
};
