//! The incremental engine: the answers of [`crate::scan`], from structures that follow every change of the market.
//!
//! It is told facts, each of them whole ("this much of that offer is used") and as often as one likes, so that taking a
//! block back is nothing but telling the facts of before. A plan touches only demands whose situation may have changed:
//!
//! - A demand is *due* when it is new, when something of its own changed, or when its developer has more money and it
//!   lacked some. After a look in vain it *waits*.
//! - A supply that is new, has more room or can pay a larger bond *calls* the waiting demands that it fits. In order of
//!   service, each of them is looked at when as many providers have called as it lacked hosts, and still fit. A few are
//!   named at a time, for who comes first takes what there is. A demand that had found nobody looks for hosts among those
//!   that called alone.
//! - Anything else only takes away, and what takes away never makes a match: fewer hosts and less money place no more
//!   replicas. One case breaks that: a developer that hosts itself pays lock and bond of one balance, so that its own offer,
//!   when it is gone, may leave room for two others. Such a demand is due after every change of its account and offers.
//! - The end of a term comes nearer with each epoch, which shortens what has to be hosted and paid ahead: demands with a
//!   part of their replicas placed are due in every epoch.
//!
//! Layout: `supplies` holds the supplies and `open_demands` the waiting demands, both in a `bitmap` index by `columns`, of
//! which `places` makes those of both sides; `shapes` knows what is asked for most, so that what is sold out is noted;
//! `search` finds hosts, `hosts` those that a developer can pay, `largest` how much of something could be had; `calls` are
//! those that a supply calls; `sample` is a small image of all supplies; `tables` gives numbers to everything; `changes`
//! takes the facts, `books` enters matches and takes them back, `whole` reads snapshots, `ask` answers questions; this
//! file plans.

mod ask;
mod bitmap;
mod books;
mod calls;
mod changes;
mod columns;
mod hosts;
mod largest;
mod open_demands;
mod places;
mod sample;
mod search;
mod shapes;
mod supplies;
mod tables;
mod whole;

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
use self::{
    calls::{Among, Callers},
    hosts::{Finder, Placed, Seeker},
    open_demands::{OpenDemands, Turn},
    sample::Sample,
    search::Search,
    supplies::Supplies,
    tables::{Account, DemandSlot, SupplySlot, Table},
};
pub(crate) use self::{
    hosts::Situation,
    largest::{Part, highest},
};
use crate::{
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
    /// Demands that are due or wait.
    open: usize,
    /// Supplies that have become better, and the demand up to which they have called.
    better: BTreeMap<u32, Option<Turn>>,
    /// Matches of plans that are neither kept nor taken back.
    standing: Vec<Match>,
    search: Search,
    sample: Sample,
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
            open: 0,
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

    /// Demands that want hosts, those that are held and those that have them in a plan apart.
    pub const fn demands_open(&self) -> usize {
        self.open
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
        let (mut room, mut last) = (max_fills, None);
        let mut callers = self.callers();
        while let Some((turn, number, is_due)) = self.next_due(last, &callers) {
            last = Some(turn);
            callers.begin(turn);
            let among = if is_due { Some(Among::All) } else { self.among_callers(number, &callers) };
            if let Some(among) = among {
                let placed = self.place(number, &among);
                if !self.is_enough(number, placed.fills.len()) {
                    self.wait(number, placed);
                } else if let Some(left) = room.checked_sub(placed.fills.len()) {
                    room = left;
                    plan.matches.extend(self.enter(number, &placed.fills));
                } else {
                    plan.budget_exhausted = true;
                    self.wake(number);
                    self.better = callers.unanswered().map(|supply| (supply, Some(turn))).collect();
                    break;
                }
            }
            self.call_next(&mut callers, turn);
        }
        self.standing.extend(plan.matches.iter().cloned());
        plan
    }

    /// The demand that comes next in order of service, of those due and those called, and whether it is due.
    fn next_due(&self, last: Option<Turn>, callers: &Callers) -> Option<(Turn, u32, bool)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let due = self.due.range((last.map_or(Unbounded, Excluded), Unbounded)).next();
        match (due, callers.next()) {
            (Some((turn, _)), Some((called, demand))) if called < *turn => Some((called, demand, false)),
            (Some((turn, number)), _) => Some((*turn, *number, true)),
            (None, called) => called.map(|(turn, demand)| (turn, demand, false)),
        }
    }

    /// Whether so many new hosts are something, and enough to start with.
    fn is_enough(&self, demand: u32, new: usize) -> bool {
        let Some(slot) = self.demands.get(demand) else { return false };
        let least = slot.terms.as_ref().map_or(usize::MAX, |terms| usize::from(terms.offer.min_replicas));
        new > 0 && usize::from(slot.placement.live_replicas).saturating_add(new) >= least
    }

    /// The cheapest hosts for all missing replicas, or as many as there are, as [`crate::scan::place`] finds them.
    fn place(&mut self, number: u32, among: &Among) -> Placed {
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
        let placed = finder.hosts(&seeker, among);
        self.restate();
        placed
    }

    fn affordable_by(&self, account: u32) -> u64 {
        self.affordable.get(account as usize).copied().unwrap_or_default()
    }
}
