//! Demands that hosts were there for at the end of one block after the other.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    ids::{Address, OfferHash},
    state::Place,
};

use super::verdict::LeftWaiting;

/// Longest waits that are kept.
const KEPT: usize = 20;

/// A demand that could be matched, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) since: u64,
    pub(super) place: Place,
    pub(super) developer: Address,
    pub(super) matcher: Option<Address>,
}

#[derive(Debug)]
pub(super) struct Waits {
    grace: u64,
    waiting: BTreeMap<OfferHash, Waiting>,
    pub(super) count: u64,
    pub(super) longest: Vec<LeftWaiting>,
}

impl Waits {
    pub(super) const fn new(grace: u64) -> Self {
        Self { grace, waiting: BTreeMap::new(), count: 0, longest: Vec::new() }
    }

    /// What can be matched at the end of a block. Of demands behind `told_up_to` nothing is known.
    pub(super) fn follow(
        &mut self,
        block: u64,
        matchable: &BTreeSet<OfferHash>,
        told_up_to: Option<Place>,
        about: impl Fn(OfferHash) -> Option<Waiting>,
    ) {
        let is_over = |hash: &OfferHash, waiting: &Waiting| {
            !matchable.contains(hash) && told_up_to.is_none_or(|last| waiting.place <= last)
        };
        let over: Vec<_> = self.waiting.extract_if(.., |hash, waiting| is_over(hash, waiting)).collect();
        over.into_iter().for_each(|(hash, waiting)| self.note(hash, waiting, block, Some(block)));
        for hash in matchable {
            if !self.waiting.contains_key(hash) {
                self.waiting.extend(about(*hash).map(|waiting| (*hash, waiting)));
            }
        }
    }

    /// Nothing more comes: whoever can be matched still waits.
    pub(super) fn finish(&mut self, block: u64) {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|(hash, waiting)| self.note(hash, waiting, block, None));
    }

    fn note(&mut self, demand: OfferHash, waiting: Waiting, block: u64, until_block: Option<u64>) {
        let blocks = block.saturating_sub(waiting.since);
        if blocks <= self.grace {
            return;
        }
        self.count = self.count.saturating_add(1);
        let Waiting { since, developer, matcher, .. } = waiting;
        let wait = LeftWaiting { demand, developer, matcher, from_block: since, until_block, blocks };
        let at = self.longest.partition_point(|other| other.blocks >= blocks);
        self.longest.insert(at, wait);
        self.longest.truncate(KEPT);
    }
}
