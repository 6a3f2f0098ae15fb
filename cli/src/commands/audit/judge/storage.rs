//! What the contract must have stored, if its events are the whole truth.

use std::collections::BTreeSet;

use chain::at::{AccountRecord, DeveloperOfferRecord, ProviderOfferRecord};
use common::{
    deal::Deal,
    epoch::Epoch,
    ids::{Address, Digest, OfferHash},
    money::Atoms,
    state::{KnownDeal, KnownDeveloperOffer, KnownProviderOffer},
};
use serde_json::{Value, json};

use super::Book;

/// Epochs of one word of the contract's bitmap of attestations (`EpochBitmap.SPAN`).
const WORD: u32 = 192;

/// What the contract keeps of an account, as it is compared.
pub(in super::super) fn account(record: &AccountRecord) -> Value {
    json!({
        "free": record.free.to_string(),
        "nonceFloor": record.nonce_floor,
        "receiptsHash": record.receipts,
    })
}

/// What the contract keeps of a deal, as it is compared. Its first epoch is not kept.
pub(in super::super) fn deal(deal: &Deal) -> Value {
    let mut value = serde_json::to_value(deal).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.remove("startEpoch");
    }
    value
}

/// What the contract keeps of a provider offer, as it is compared.
pub(in super::super) fn provider_offer(record: &ProviderOfferRecord) -> Value {
    json!({
        "agent": record.agent,
        "payout": record.payout,
        "used": record.used,
        "cancelled": record.cancelled,
    })
}

/// What the contract keeps of a developer offer, as it is compared.
pub(in super::super) fn developer_offer(record: &DeveloperOfferRecord, cancelled: bool) -> Value {
    json!({
        "developer": record.developer,
        "liveReplicas": record.live_replicas,
        "endEpoch": record.end_epoch,
        "prepaidEpochs": record.prepaid_epochs,
        "size": record.size,
        "version": record.version,
        "artifact": record.artifact,
        "manifest": record.manifest,
        "cancelled": cancelled,
    })
}

/// A range of epochs, and how many of them an agent must have attested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct AttestedRange {
    pub(in super::super) from: Epoch,
    pub(in super::super) to: Epoch,
    pub(in super::super) attested: u32,
}

impl Book {
    /// The account's free balance, nonce floor and receipts.
    pub(in super::super) fn account(&self, account: Address) -> AccountRecord {
        AccountRecord {
            free: self.state.free_balance(account).get().into(),
            nonce_floor: self.state.nonce_floors.get(&account).copied().unwrap_or_default(),
            receipts: self.receipts.get(&account).copied().unwrap_or_default(),
        }
    }

    /// An offer with what deals hold of it.
    pub(in super::super) fn provider_offer(&self, hash: OfferHash, known: &KnownProviderOffer) -> ProviderOfferRecord {
        let offer = &known.offer;
        let cancelled = self.is_cancelled(offer.provider, hash);
        ProviderOfferRecord { agent: offer.agent, payout: offer.payout, used: known.used, cancelled }
    }

    /// An offer with its replicas.
    pub(in super::super) fn developer_offer(&self, known: &KnownDeveloperOffer) -> DeveloperOfferRecord {
        let (offer, updated) = (&known.offer, known.updated.as_ref());
        DeveloperOfferRecord {
            developer: offer.developer,
            live_replicas: known.live_replicas,
            end_epoch: known.end_epoch.unwrap_or_default(),
            prepaid_epochs: offer.prepaid_epochs,
            size: offer.size,
            version: updated.map_or(0, |updated| updated.version),
            artifact: updated.map_or(Digest::ZERO, |updated| updated.artifact),
            manifest: updated.map_or(Digest::ZERO, |updated| updated.manifest),
        }
    }

    /// Whether the owner voided an offer by its hash.
    pub(in super::super) fn is_cancelled(&self, owner: Address, hash: OfferHash) -> bool {
        self.state.cancelled.contains(&(owner, hash))
    }

    /// Offers that were voided and are not known otherwise, or not as their owner's.
    pub(in super::super) fn cancelled_unknown(&self) -> impl Iterator<Item = (Address, OfferHash)> {
        let (supplies, demands) = (&self.state.provider_offers, &self.state.developer_offers);
        self.state.cancelled.iter().copied().filter(|(owner, hash)| {
            let supplied = supplies.get(hash).is_some_and(|known| known.offer.provider == *owner);
            let demanded = demands.get(hash).is_some_and(|known| known.offer.developer == *owner);
            !supplied && !demanded
        })
    }

    /// Ranges that together say bit by bit what the agent has attested before `now`.
    pub(in super::super) fn attested_ranges(&self, agent: Address, now: Epoch) -> Vec<AttestedRange> {
        let none = BTreeSet::new();
        attested_ranges(self.state.attested.get(&agent).unwrap_or(&none), now)
    }
}

/// All epochs before `now`; each word of the bitmap that has an attested epoch; and in it each unbroken run. A run whose
/// count is its length has no gap, and a word that counts no more than its runs has nothing between them.
fn attested_ranges(attested: &BTreeSet<Epoch>, now: Epoch) -> Vec<AttestedRange> {
    let mut runs: Vec<AttestedRange> = Vec::new();
    let mut words: Vec<AttestedRange> = Vec::new();
    for epoch in attested {
        let (index, after) = (epoch.0.div_euclid(WORD), epoch.plus(1));
        let start = Epoch(index.saturating_mul(WORD));
        match words.last_mut().filter(|word| word.from == start) {
            Some(word) => word.attested = word.attested.saturating_add(1),
            None => words.push(AttestedRange { from: start, to: start.plus(WORD), attested: 1 }),
        }
        match runs.last_mut().filter(|run| run.to == *epoch && *epoch != start) {
            Some(run) => (run.to, run.attested) = (after, run.attested.saturating_add(1)),
            None => runs.push(AttestedRange { from: *epoch, to: after, attested: 1 }),
        }
    }
    let all = u32::try_from(attested.len()).unwrap_or(u32::MAX);
    let all = AttestedRange { from: Epoch(0), to: now, attested: all };
    // A whole word is one run.
    runs.retain(|run| !words.contains(run));
    [all].into_iter().chain(words).chain(runs).collect()
}

/// What became of a deal's money, with what the contract has locked for it: as much as was ever funded.
pub(in super::super) fn spent(known: &KnownDeal, locked: Atoms) -> u128 {
    [known.paid, known.refunded, locked].into_iter().map(|amount| u128::from(amount.get())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a bitmap with these bits has the counts of the ranges.
    fn holds(bits: &BTreeSet<Epoch>, ranges: &[AttestedRange]) -> bool {
        ranges.iter().all(|range| {
            let counted = bits.iter().filter(|epoch| (range.from..range.to).contains(epoch)).count();
            counted == usize::try_from(range.attested).unwrap()
        })
    }

    fn epochs(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<Epoch> {
        numbers.into_iter().map(Epoch).collect()
    }

    #[test]
    fn the_ranges_fit_one_bitmap_only() {
        let now = Epoch(600);
        for attested in [epochs([]), epochs([0]), epochs(0..192), epochs(100..300), epochs([1, 3, 4, 5, 191, 192, 500])]
        {
            let ranges = attested_ranges(&attested, now);
            assert!(holds(&attested, &ranges));
            for flipped in 0..now.0 {
                let mut other = attested.clone();
                if !other.remove(&Epoch(flipped)) {
                    other.insert(Epoch(flipped));
                }
                assert!(!holds(&other, &ranges), "{flipped} of {attested:?}");
            }
            // A bit that moved within its word, which the total would not show.
            let moved = attested.iter().find(|epoch| !attested.contains(&epoch.plus(1)) && epoch.0 % WORD < WORD - 1);
            if let Some(epoch) = moved.copied() {
                let mut other = attested.clone();
                other.remove(&epoch);
                other.insert(epoch.plus(1));
                assert!(!holds(&other, &ranges), "{epoch} of {attested:?}");
            }
        }
    }

    #[test]
    fn an_agent_that_is_always_there_is_cheap_to_check() {
        // All, and a word for every 192 epochs; the last one is not full.
        assert_eq!(attested_ranges(&epochs(0..1_000), Epoch(1_000)).len(), 1 + 6 + 1);
    }
}
