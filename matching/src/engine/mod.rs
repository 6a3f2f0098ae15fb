//! The incremental engine: the answers of [`crate::scan`], from structures that follow every change of the market.
//!
//! It is told facts, each of them whole ("this much of that offer is used") and as often as one likes, so that taking a
//! block back is nothing but telling the facts of before. A plan touches only demands whose situation may have changed:
//!
//! - A demand is *due* when it is new, when something of its own changed, or when its developer has more money and it
//!   lacked some. After a look in vain it *waits*.
//! - A supply that is new, has more room or can pay a larger bond *calls* the waiting demands that it fits. In order of
//!   service, each of them is looked at when as many providers have called as it lacked hosts, and still fit.
//! - Anything else only takes away, and what takes away never makes a match: fewer hosts and less money place no more
//!   replicas. One case breaks that: a developer that hosts itself pays lock and bond of one balance, so that its own offer,
//!   when it is gone, may leave room for two others. Such a demand is due after every change of its account and offers.
//! - The end of a term comes nearer with each epoch, which shortens what has to be hosted and paid ahead: demands with a
//!   part of their replicas placed are due in every epoch.
//!
//! Layout: `supplies` holds the supplies and `open_demands` the waiting demands, both in a `bitmap` index by the columns of
//! `places`; `search` finds hosts, `hosts` those that a developer can pay, `largest` how much of something could be had;
//! `sample` is a small image of all supplies; `tables` gives numbers to everything; `changes` takes the facts, `books`
//! enters matches and takes them back, `diff` reads snapshots, `ask` answers questions; this file plans.

mod ask;
mod bitmap;
mod books;
mod changes;
mod diff;
mod hosts;
mod largest;
mod open_demands;
mod places;
mod sample;
mod search;
mod supplies;
mod tables;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use common::{
    epoch::Epoch,
    ids::{Address, OfferHash},
    money::Atoms,
    resources::Resources,
};

pub use self::search::Work;
pub(crate) use self::{hosts::Situation, largest::Part};
use self::{
    hosts::{Finder, Placed, Seeker},
    open_demands::{OpenDemands, Turn, Wish},
    sample::Sample,
    search::Search,
    supplies::{Entry, Supplies},
    tables::{Account, DemandSlot, SupplySlot, Table},
};
use crate::{
    feasible,
    ledger::FillCost,
    snapshot::{Conditions, Demand, Supply},
};

/// One replica at one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Under which offer.
    pub supply: OfferHash,
    /// Who hosts.
    pub provider: Address,
    /// What moves.
    pub cost: FillCost,
}

/// The hosts of one demand, cheapest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Who is hosted.
    pub demand: OfferHash,
    /// Where.
    pub fills: Vec<Fill>,
    /// Whether this match begins the term.
    begins: bool,
}

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In order of service.
    pub matches: Vec<Match>,
    /// Whether demands were left for the next transaction because the budget was used up.
    pub budget_exhausted: bool,
}

impl Plan {
    /// Fills in all matches.
    pub fn fills(&self) -> usize {
        self.matches.iter().map(|found| found.fills.len()).sum()
    }
}

/// The market, ready to be planned on.
#[derive(Debug)]
pub struct Engine {
    conditions: Conditions,
    paused: bool,
    supplies: Table<SupplySlot>,
    demands: Table<DemandSlot>,
    accounts: Table<Account>,
    /// By account: the highest ask for which its balance pays the bond.
    affordable: Vec<u64>,
    index: Supplies,
    /// What deals hold of offers whose terms are not known.
    unclaimed: BTreeMap<OfferHash, Resources>,
    /// Last seconds of supplies and of demands.
    supply_ends: BTreeSet<(u64, u32)>,
    demand_ends: BTreeSet<(u64, u32)>,
    /// Ends of terms that have begun.
    terms: BTreeSet<(Epoch, u32)>,
    due: BTreeMap<Turn, u32>,
    waiting: OpenDemands,
    /// Supplies that have become better, and the demand up to which they have called.
    better: BTreeMap<u32, Option<Turn>>,
    /// Matches of plans that are neither kept nor taken back.
    standing: Vec<Match>,
    search: Search,
    sample: Sample,
}

/// A supply that could serve a waiting demand.
#[derive(Debug, Clone, Copy)]
struct Call {
    turn: Turn,
    supply: u32,
    demand: u32,
    /// Number of the supply's account.
    provider: u32,
    /// Of a replica.
    size: Resources,
}

impl Engine {
    /// An empty market under these conditions.
    pub fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            paused: false,
            supplies: Table::default(),
            demands: Table::default(),
            accounts: Table::default(),
            affordable: Vec::new(),
            index: Supplies::default(),
            unclaimed: BTreeMap::new(),
            supply_ends: BTreeSet::new(),
            demand_ends: BTreeSet::new(),
            terms: BTreeSet::new(),
            due: BTreeMap::new(),
            waiting: OpenDemands::default(),
            better: BTreeMap::new(),
            standing: Vec::new(),
            search: Search::default(),
            sample: Sample::default(),
        }
    }

    /// What fills are checked against.
    pub const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// The terms of a supply.
    pub fn supply(&self, hash: OfferHash) -> Option<&Supply> {
        self.supplies.find(hash).and_then(|number| self.supplies.get(number)).map(|slot| &*slot.terms)
    }

    /// The terms of a demand.
    pub fn demand(&self, hash: OfferHash) -> Option<&Demand> {
        self.demands.find(hash).and_then(|number| self.demands.get(number)).and_then(|slot| slot.terms.as_deref())
    }

    /// How much has been looked at so far.
    pub const fn work(&self) -> Work {
        self.search.work
    }

    /// Supplies that can be matched.
    pub fn supplies_open(&self) -> usize {
        self.index.len()
    }

    /// Bytes of the index and of the tables of supplies, the terms of the offers apart.
    pub fn supply_bytes(&self) -> usize {
        // The ordered sets do not say what they hold; their nodes are two thirds full at the least on the average.
        let ends = self.supply_ends.len().saturating_mul(size_of::<(u64, u32)>()).saturating_mul(3).div_euclid(2);
        let lists: usize = self.accounts.iter().map(|(_, account)| account.supplies.capacity().saturating_mul(4)).sum();
        [self.index.memory_bytes(), self.supplies.memory_bytes(), self.accounts.memory_bytes(), ends, lists]
            .into_iter()
            .fold(self.affordable.capacity().saturating_mul(8), usize::saturating_add)
    }

    /// Plans at most `max_fills` fills, as [`crate::scan::plan`] does, and enters them. They stand until they are kept or
    /// taken back.
    pub fn plan(&mut self, max_fills: usize) -> Plan {
        let mut plan = Plan::default();
        if self.paused {
            return plan;
        }
        let mut room = max_fills;
        let calls = self.calls();
        let (mut calls, mut last) = (calls.as_slice(), None);
        while let Some((turn, number, is_due)) = self.next_due(last, calls) {
            last = Some(turn);
            let (callers, others) = calls.split_at(calls.partition_point(|call| call.turn <= turn));
            calls = others;
            if !is_due && !self.is_worth_a_look(number, callers) {
                continue;
            }
            let placed = self.place(number);
            if !self.is_enough(number, placed.fills.len()) {
                self.wait(number, placed);
            } else if let Some(left) = room.checked_sub(placed.fills.len()) {
                room = left;
                plan.matches.extend(self.enter(number, &placed.fills));
            } else {
                plan.budget_exhausted = true;
                self.wake(number);
                let unanswered = callers.iter().chain(calls);
                self.better = unanswered.map(|call| (call.supply, Some(turn))).collect();
                break;
            }
        }
        self.standing.extend(plan.matches.iter().cloned());
        plan
    }

    /// The demand that comes next in order of service, of those due and those called, and whether it is due.
    fn next_due(&self, last: Option<Turn>, calls: &[Call]) -> Option<(Turn, u32, bool)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let due = self.due.range((last.map_or(Unbounded, Excluded), Unbounded)).next();
        match (due, calls.first()) {
            (Some((turn, _)), Some(call)) if call.turn < *turn => Some((call.turn, call.demand, false)),
            (Some((turn, number)), _) => Some((*turn, *number, true)),
            (None, call) => call.map(|call| (call.turn, call.demand, false)),
        }
    }

    /// Whether so many providers have become better since the demand was looked at that they may be the hosts that it
    /// lacked: a provider adds one host at the most, and none where it was found already, unless its lower price leaves
    /// money for others.
    fn is_worth_a_look(&mut self, demand: u32, callers: &[Call]) -> bool {
        // Most calls end here: who was taken by somebody before calls again when it is better.
        let has_room = |call: &&Call| self.supplies.get(call.supply).is_some_and(|slot| slot.has_room_for(call.size));
        let mut callers = callers.iter().filter(has_room).peekable();
        if callers.peek().is_none() {
            return false;
        }
        let Some(slot) = self.demands.get_mut(demand) else { return false };
        if slot.lacks_funds {
            return true;
        }
        let new = callers.filter(|call| !slot.found.contains(&call.provider));
        slot.helpers.extend(new.map(|call| (call.provider, call.supply)));
        if slot.helpers.len() < slot.missing {
            return false;
        }
        // Some that called have been taken since; they will call again when they are better.
        let mut helpers = std::mem::take(&mut slot.helpers);
        helpers.sort_unstable();
        helpers.dedup();
        helpers.retain(|(_, supply)| self.serves(*supply, demand));
        let providers = helpers.chunk_by(|(left, _), (right, _)| left == right).count();
        self.demands.get_mut(demand).is_none_or(|slot| {
            slot.helpers = helpers;
            providers >= slot.missing
        })
    }

    /// Whether the supply could host the demand, its developer's money apart.
    fn serves(&self, supply: u32, demand: u32) -> bool {
        let Some(slot) = self.supplies.get(supply).filter(|slot| slot.active) else { return false };
        let Some(wanted) = self.demands.get(demand) else { return false };
        let Some(terms) = wanted.terms.as_deref() else { return false };
        let term = feasible::remaining_under(&self.conditions, wanted.placement, terms);
        let offer = &slot.terms.offer;
        Wish::new(terms, demand, term).fits(&self.entry(supply, slot), offer.features.0, offer.prices)
            && may_host(slot, wanted)
    }

    /// The entry of a supply, with what its provider affords now.
    fn entry(&self, number: u32, slot: &SupplySlot) -> Entry {
        Entry { affordable: self.affordable_by(slot.provider), ..slot.entry(number) }
    }

    /// The waiting demands that supplies which have become better could serve, in order of service.
    fn calls(&mut self) -> Vec<Call> {
        let better = std::mem::take(&mut self.better);
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut calls = Vec::new();
        for (supply, after) in better {
            let Some(slot) = self.supplies.get(supply).filter(|slot| slot.active) else { continue };
            let (offer, provider) = (&slot.terms.offer, slot.provider);
            let served = waiting.served(&self.entry(supply, slot), (offer.features.0, offer.prices), after);
            let call = |wish: Wish| Call { turn: wish.turn, supply, demand: wish.demand, provider, size: wish.size };
            calls.extend(served.into_iter().map(call));
        }
        self.waiting = waiting;
        calls.sort_unstable_by_key(|call| (call.turn, call.supply));
        calls
    }

    /// Whether so many new hosts are something, and enough to start with.
    fn is_enough(&self, demand: u32, new: usize) -> bool {
        let Some(slot) = self.demands.get(demand) else { return false };
        let least = slot.terms.as_ref().map_or(usize::MAX, |terms| usize::from(terms.offer.min_replicas));
        new > 0 && usize::from(slot.placement.live_replicas).saturating_add(new) >= least
    }

    /// The cheapest hosts for all missing replicas, or as many as there are, as [`crate::scan::place`] finds them.
    fn place(&mut self, number: u32) -> Placed {
        let Some(slot) = self.demands.get(number) else { return Placed::default() };
        let Some(demand) = slot.terms.as_deref() else { return Placed::default() };
        let seeker = Seeker {
            demand,
            placement: slot.placement,
            hosts: &slot.hosts,
            developer: slot.developer,
            free: self.accounts.get(slot.developer).map_or(Atoms::ZERO, |account| account.free),
            wanted: usize::from(demand.offer.replicas.saturating_sub(slot.placement.live_replicas)),
        };
        let mut finder = Finder {
            conditions: &self.conditions,
            accounts: &self.accounts,
            supplies: &self.supplies,
            affordable: &self.affordable,
            index: &mut self.index,
            search: &mut self.search,
        };
        let placed = finder.hosts(&seeker);
        self.restate();
        placed
    }

    fn affordable_by(&self, account: u32) -> u64 {
        self.affordable.get(account as usize).copied().unwrap_or_default()
    }
}

/// Whether the demand's regions and lists let the supply host it, and its provider has not hosted it before.
fn may_host(supply: &SupplySlot, demand: &DemandSlot) -> bool {
    let Some(terms) = &demand.terms else { return false };
    let (wanted, offered) = (&terms.offer, &supply.terms.offer);
    (wanted.regions.is_empty() || wanted.regions.iter().any(|region| region.contains(offered.region)))
        && (wanted.allow.is_empty() || wanted.allow.contains(&offered.provider))
        && !wanted.deny.contains(&offered.provider)
        && demand.hosts.binary_search(&supply.provider).is_err()
}
