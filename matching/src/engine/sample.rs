//! A small image of all supplies that can be matched: those whose hashes come first in an order that has nothing to do
//! with anything else. The same supplies give the same sample, whatever came and went before.

use std::collections::BTreeSet;

use common::ids::OfferHash;

use super::Engine;

/// Supplies in the sample, or all where there are fewer.
const SIZE: usize = 256;
/// What is kept at hand is between one and eight times that, so that it is seldom gathered anew.
const LEAST: usize = SIZE;
const MOST: usize = SIZE * 8;

/// The supplies with the lowest ranks.
#[derive(Debug)]
pub(super) struct Sample {
    /// Ranks up to this are kept.
    highest: u64,
    kept: BTreeSet<(u64, u32)>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { highest: u64::MAX, kept: BTreeSet::new() }
    }
}

/// Where a hash stands: its words mixed, so that neither owner nor content decide.
fn rank(hash: OfferHash) -> u64 {
    let words = hash.0.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_be_bytes));
    // The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    words.fold(0, |mixed, word| {
        let mixed = (mixed ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

impl Sample {
    pub(super) fn insert(&mut self, hash: OfferHash, number: u32) {
        let rank = rank(hash);
        if rank > self.highest {
            return;
        }
        self.kept.insert((rank, number));
        if self.kept.len() > MOST {
            self.keep_lowest();
        }
    }

    pub(super) fn remove(&mut self, hash: OfferHash, number: u32) {
        self.kept.remove(&(rank(hash), number));
    }

    fn keep_lowest(&mut self) {
        let half = MOST.div_euclid(2);
        if let Some(first_out) = self.kept.iter().nth(half).copied() {
            self.highest = first_out.0.saturating_sub(1);
            self.kept.split_off(&(first_out.0, 0));
        }
    }
}

impl Engine {
    /// Numbers of the sample's supplies.
    pub(crate) fn sampled(&mut self) -> Vec<u32> {
        if self.sample.kept.len() < LEAST.min(self.index.len()) {
            // Most have gone since: gather anew. It takes as many to come or go until the next time.
            self.sample = Sample::default();
            for (number, slot) in self.supplies.iter().filter(|(_, slot)| slot.active) {
                self.sample.insert(slot.terms.hash, number);
            }
        }
        self.sample.kept.iter().take(SIZE).map(|(_, number)| *number).collect()
    }
}
