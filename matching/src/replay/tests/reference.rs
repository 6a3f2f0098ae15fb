//! The same verdicts by scanning whole markets of the past: nothing is followed, nothing is remembered.

use common::{event::MarketEvent, ids::OfferHash, money::Atoms, state::Place};

use super::chain::{Chain, Matched};
use crate::{
    replay::verdict::Verdict,
    scan,
    snapshot::{Demand, Snapshot, Supply},
};

/// What is to be said of a fill: its verdict's name, and the offer that is named.
pub(super) type Said = (OfferHash, &'static str, Option<OfferHash>);

pub(super) fn said(verdict: &Verdict) -> (&'static str, Option<OfferHash>) {
    let named = match verdict {
        Verdict::Dearer { better } | Verdict::TieBrokenOtherwise { better } => Some(better.supply),
        Verdict::Overtaken { passed_over } => Some(passed_over.demand),
        _ => None,
    };
    (verdict.name(), named)
}

pub(super) struct Reference<'a> {
    pub(super) chain: &'a Chain,
    pub(super) window: u64,
}

impl Reference<'_> {
    /// What is to be said of all fills of a match, and by how many replicas it has fewer.
    pub(super) fn judge(&self, matched: &Matched) -> (Vec<Said>, usize) {
        let matched = &self.with_signed(matched);
        let now = places(&matched.before, matched.demand, |_| true);
        let count = matched.supplies.len();
        let (known, saw_young) = self.long_known(matched);
        let is_taken = |hash: &OfferHash| matched.supplies.contains(hash);
        let mut passed = known.iter().take(count).filter(|(hash, _)| !is_taken(hash));
        let mut fills: Vec<_> = matched.supplies.iter().map(|hash| (self.ask(matched, *hash), *hash)).collect();
        fills.sort_by_key(|(ask, hash)| (*ask, self.place(matched, *hash), *hash));
        let mut all = Vec::new();
        for (ask, hash) in fills {
            let mut verdict = ("as_engine", None);
            if !now.iter().take(count).any(|(other, _)| *other == hash) {
                let better = passed.next().filter(|(better, other)| {
                    (*other, self.place(matched, *better)) <= (ask, self.place(matched, hash))
                });
                let chosen = self.chosen(matched, hash, better.map(|(better, _)| *better));
                verdict = match (chosen, better) {
                    (Some(1), _) => ("as_engine", None),
                    (Some(_), _) => ("race", None),
                    (None, Some((better, other))) if *other < ask => ("dearer", Some(*better)),
                    (None, Some((better, _))) => ("tie_broken_otherwise", Some(*better)),
                    (None, None) => (if saw_young { "race" } else { "not_judged" }, None),
                };
            }
            if matches!(verdict.0, "as_engine" | "race" | "not_judged")
                && let Some(first) = self.overtaken(matched, hash)
            {
                verdict = ("overtaken", Some(first));
            }
            all.push((hash, verdict.0, verdict.1));
        }
        (all, known.len().saturating_sub(count))
    }

    /// With all that was signed when the block before was the last one.
    fn with_signed(&self, matched: &Matched) -> Matched {
        let [before, after] = [&matched.states.0, &matched.states.1];
        let seen = |state| self.chain.snapshot_at(matched.block - 1, state, matched.before.conditions.time);
        Matched { before: seen(before), after: seen(after), ..matched.clone() }
    }

    fn overtaken(&self, matched: &Matched, taken: OfferHash) -> Option<OfferHash> {
        let (before, after) = (&matched.before, &matched.after);
        if self.chosen(matched, taken, None).is_some() {
            return None;
        }
        let demand = before.demand(matched.demand).unwrap();
        let earlier = before.demands.iter().filter(|other| (other.place, other.hash) < (demand.place, demand.hash));
        let may = |supply: &Supply| supply.hash == taken || known_after(supply.place) < matched.block;
        let wants = |other: &&Demand| {
            let hosts = places(before, other.hash, may);
            let lock = |hash: OfferHash| {
                let supply = before.supplies.iter().find(|supply| supply.hash == hash).unwrap();
                crate::feasible::cost(&before.conditions, &before.ledger, other, supply).unwrap().lock
            };
            known_after(other.place) < matched.block
                && !matched.tried.contains(&other.hash)
                && scan::reaches_minimum(&before.ledger, other, hosts.len())
                && hosts.iter().any(|(host, _)| *host == taken)
                && self.window_of(matched).all(|past| past.ledger.free(other.offer.developer) >= lock(taken))
                && before.ledger.free(other.offer.developer) >= lock(taken)
        };
        let sum = |hosts: &[(OfferHash, Atoms)]| hosts.iter().map(|(_, ask)| ask.get()).sum::<u64>();
        let is_harmed = |other: &&Demand| {
            let had = places(before, other.hash, may);
            let has = places(after, other.hash, |_| true);
            has.len() < had.len() || sum(&has[..had.len()]) > sum(&had)
        };
        let mut earlier = earlier.filter(wants).filter(is_harmed);
        earlier.next().map(|demand| demand.hash)
    }

    /// Hosts among what was there all the time, and what was taken.
    fn long_known(&self, matched: &Matched) -> (Vec<(OfferHash, Atoms)>, bool) {
        let (mut out, mut saw_young): (Vec<OfferHash>, bool) = (Vec::new(), false);
        loop {
            let hosts = places(&matched.before, matched.demand, |supply| !out.contains(&supply.hash));
            let found: Vec<_> = hosts
                .iter()
                .map(|(hash, _)| *hash)
                .filter(|hash| !matched.supplies.contains(hash))
                .filter(|hash| {
                    let young = !matched.refused.contains(hash)
                        && (!self.was_there(matched, *hash) || self.is_spoken_for(matched, *hash));
                    saw_young |= young;
                    young || matched.refused.contains(hash)
                })
                .collect();
            if found.is_empty() {
                return (hosts, saw_young);
            }
            out.extend(found);
        }
    }

    /// Ends of the blocks of the window.
    fn window_of(&self, matched: &Matched) -> impl Iterator<Item = Snapshot> {
        let first = matched.block.saturating_sub(self.window).max(1);
        (first..matched.block).filter_map(|block| self.chain.seen_at(block))
    }

    fn was_there(&self, matched: &Matched, hash: OfferHash) -> bool {
        let before = &matched.before;
        let supply = before.supplies.iter().find(|supply| supply.hash == hash).unwrap();
        let demand = before.demand(matched.demand).unwrap();
        let cost = crate::feasible::cost(&before.conditions, &before.ledger, demand, supply).unwrap();
        let own = supply.offer.provider == demand.offer.developer;
        let needed = if own { cost.bond.checked_add(cost.lock).unwrap() } else { cost.bond };
        let fits = |past: Snapshot| {
            let used = past.ledger.used(hash);
            let term = demand
                .offer
                .remaining_epochs(past.conditions.start_epoch(), before.ledger.placement(demand.hash).end_epoch);
            used.milli_cpu + demand.offer.size.milli_cpu <= supply.offer.capacity.milli_cpu
                && used.memory_mib + demand.offer.size.memory_mib <= supply.offer.capacity.memory_mib
                && past.ledger.free(supply.offer.provider) >= needed
                && (supply.offer.max_epochs == 0 || supply.offer.max_epochs >= term)
        };
        known_after(supply.place) + self.window <= matched.block && self.window_of(matched).all(fits)
    }

    /// How many blocks ago a plan had this supply and not the other.
    fn chosen(&self, matched: &Matched, supply: OfferHash, other: Option<OfferHash>) -> Option<u64> {
        (1..=self.window.min(matched.block - 1)).find(|back| {
            let Some(past) = self.chain.seen_at(matched.block - back) else { return false };
            let plan = scan::plan(&past, usize::MAX);
            plan.matches.iter().filter(|planned| planned.demand.hash == matched.demand).any(|planned| {
                let has = |hash| planned.fills.iter().any(|fill| fill.supply.hash == hash);
                has(supply) && other.is_none_or(|other| !has(other))
            })
        })
    }

    fn is_spoken_for(&self, matched: &Matched, supply: OfferHash) -> bool {
        let past = self.chain.seen_at(matched.block - 1).unwrap();
        let plan = scan::plan(&past, usize::MAX);
        let mut whose =
            plan.matches.iter().filter(|planned| planned.fills.iter().any(|fill| fill.supply.hash == supply));
        let all: Vec<_> = whose.by_ref().map(|planned| planned.demand.hash).collect();
        !all.is_empty() && !all.contains(&matched.demand)
    }

    fn ask(&self, matched: &Matched, supply: OfferHash) -> Atoms {
        let deals = self.chain.blocks[matched.block as usize - 1].events.iter();
        let prices = deals.filter_map(|placed| match &placed.event {
            MarketEvent::DealOpened(deal) => Some(&**deal),
            _ => None,
        });
        let mut prices = prices.filter(|deal| deal.developer_offer == matched.demand && deal.provider_offer == supply);
        prices.next().unwrap().price_per_epoch
    }

    fn place(&self, matched: &Matched, supply: OfferHash) -> Place {
        matched.before.supplies.iter().find(|known| known.hash == supply).unwrap().place
    }
}

fn known_after(place: Place) -> u64 {
    place.block + u64::from(place.log_index >= crate::snapshot::SIGNED_LOG_INDEX)
}

/// The hosts that the scan finds for one demand, and what they ask.
pub(super) fn places(market: &Snapshot, demand: OfferHash, may: impl Fn(&Supply) -> bool) -> Vec<(OfferHash, Atoms)> {
    let demand = market.demand(demand).unwrap();
    if crate::feasible::demand_is_blocked(&market.conditions, &market.ledger, demand).is_some() {
        return Vec::new();
    }
    let supplies = market.supplies.iter().filter(|supply| may(supply));
    let fills = scan::place(&market.conditions, &market.ledger, demand, supplies);
    fills.into_iter().map(|fill| (fill.supply.hash, fill.cost.ask)).collect()
}
