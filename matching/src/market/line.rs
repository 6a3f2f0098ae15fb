//! Signed offers that are open, in the order of their acceptance.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    ids::{Address, OfferHash},
    offer::{DeveloperOffer, ProviderOffer},
};

use crate::snapshot::{Conditions, Signed};

/// What is to be noted of signed offers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SortedOffers {
    /// The chain knows them now.
    pub appeared: Vec<OfferHash>,
    /// A reorganization made the chain forget them.
    pub vanished: Vec<OfferHash>,
    /// Nobody can match them any more.
    pub void: Vec<OfferHash>,
}

/// A signed offer that the chain does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingOffer {
    /// Number of its acceptance, over both kinds.
    pub sequence: u64,
    /// Whether it is a developer's.
    pub is_demand: bool,
    /// Its hash.
    pub hash: OfferHash,
    /// Who signed it.
    pub owner: Address,
    /// Block that was indexed last when it was accepted.
    pub accepted_block: u64,
}

/// What is the same of both kinds.
struct Entry {
    sequence: u64,
    owner: Address,
    nonce: u64,
    valid_until: u64,
    accepted_block: u64,
    is_demand: bool,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) supplies: BTreeMap<OfferHash, Signed<ProviderOffer>>,
    pub(super) demands: BTreeMap<OfferHash, Signed<DeveloperOffer>>,
    of_owner: BTreeSet<(Address, OfferHash)>,
    /// Last seconds of those that have not been seen to be over.
    ends: BTreeSet<(u64, OfferHash)>,
    /// Those that the chain does not know, by the numbers of their acceptance.
    waiting: BTreeMap<u64, OfferHash>,
    /// Those of which it is noted that the chain knows them.
    noted: BTreeSet<OfferHash>,
    /// Those of which something may be to be noted.
    review: BTreeSet<OfferHash>,
}

impl Line {
    pub(super) fn add_supply(&mut self, signed: Signed<ProviderOffer>, is_noted: bool) {
        let hash = signed.hash;
        self.remove(hash);
        self.supplies.insert(hash, signed);
        self.added(hash, is_noted);
    }

    pub(super) fn add_demand(&mut self, signed: Signed<DeveloperOffer>, is_noted: bool) {
        let hash = signed.hash;
        self.remove(hash);
        self.demands.insert(hash, signed);
        self.added(hash, is_noted);
    }

    fn added(&mut self, hash: OfferHash, is_noted: bool) {
        let Some(entry) = self.entry(hash) else { return };
        self.of_owner.insert((entry.owner, hash));
        self.ends.insert((entry.valid_until, hash));
        if is_noted {
            self.noted.insert(hash);
        }
        self.review.insert(hash);
    }

    pub(super) fn remove(&mut self, hash: OfferHash) {
        let Some(entry) = self.entry(hash) else { return };
        self.supplies.remove(&hash);
        self.demands.remove(&hash);
        self.of_owner.remove(&(entry.owner, hash));
        self.ends.remove(&(entry.valid_until, hash));
        self.waiting.remove(&entry.sequence);
        self.noted.remove(&hash);
        self.review.remove(&hash);
    }

    fn entry(&self, hash: OfferHash) -> Option<Entry> {
        if let Some(Signed { offer, sequence, accepted_block, .. }) = self.demands.get(&hash) {
            return Some(Entry {
                sequence: *sequence,
                owner: offer.developer,
                nonce: offer.nonce,
                valid_until: offer.valid_until,
                accepted_block: *accepted_block,
                is_demand: true,
            });
        }
        self.supplies.get(&hash).map(|Signed { offer, sequence, accepted_block, .. }| Entry {
            sequence: *sequence,
            owner: offer.provider,
            nonce: offer.nonce,
            valid_until: offer.valid_until,
            accepted_block: *accepted_block,
            is_demand: false,
        })
    }

    /// Number of an offer's acceptance.
    pub(super) fn sequence(&self, hash: OfferHash) -> Option<u64> {
        self.entry(hash).map(|entry| entry.sequence)
    }

    /// The chain knows this offer, or does not.
    pub(super) fn on_chain(&mut self, hash: OfferHash, is_known: bool) {
        let Some(entry) = self.entry(hash) else { return };
        if is_known {
            self.waiting.remove(&entry.sequence);
        } else {
            self.waiting.insert(entry.sequence, hash);
        }
        self.review.insert(hash);
    }

    /// The owner voided this offer, or has not.
    pub(super) fn cancelled(&mut self, hash: OfferHash) {
        if self.entry(hash).is_some() {
            self.review.insert(hash);
        }
    }

    /// The owner voided offers by their nonces, or has not.
    pub(super) fn floored(&mut self, owner: Address) {
        let of_owner = self.of_owner.range((owner, OfferHash::ZERO)..).take_while(|(other, _)| *other == owner);
        self.review.extend(of_owner.map(|(_, hash)| *hash));
    }

    pub(super) fn waiting(&self, after: u64) -> impl Iterator<Item = WaitingOffer> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.waiting.range(behind).filter_map(|(sequence, hash)| {
            let Entry { owner, accepted_block, is_demand, .. } = self.entry(*hash)?;
            Some(WaitingOffer { sequence: *sequence, is_demand, hash: *hash, owner, accepted_block })
        })
    }

    /// What is to be noted. Said again until it is.
    pub(super) fn sort(&mut self, conditions: &Conditions) -> SortedOffers {
        while let Some((_, hash)) = self.ends.first().filter(|(end, _)| *end < conditions.time).copied() {
            self.ends.pop_first();
            self.review.insert(hash);
        }
        let mut sorted = SortedOffers::default();
        let review = std::mem::take(&mut self.review);
        self.review = review.into_iter().filter(|hash| self.sort_one(*hash, conditions, &mut sorted)).collect();
        sorted
    }

    /// False where nothing is to be noted.
    fn sort_one(&self, hash: OfferHash, conditions: &Conditions, sorted: &mut SortedOffers) -> bool {
        let Some(entry) = self.entry(hash) else { return false };
        let is_known = !self.waiting.contains_key(&entry.sequence);
        let list = match (is_known, self.noted.contains(&hash)) {
            (true, false) => &mut sorted.appeared,
            (false, true) => &mut sorted.vanished,
            (false, false) if is_void(&entry, hash, conditions) => &mut sorted.void,
            _ => return false,
        };
        list.push(hash);
        true
    }
}

fn is_void(entry: &Entry, hash: OfferHash, conditions: &Conditions) -> bool {
    entry.valid_until < conditions.time
        || entry.nonce < conditions.nonce_floor(entry.owner)
        || conditions.cancelled.contains(&(entry.owner, hash))
}
