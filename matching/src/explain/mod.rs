//! Why a demand finds no host, and the smallest changes with which it would.
//!
//! Every suggestion is found by applying it: a change is only listed after the engine, on the same snapshot, has placed
//! the changed demand. First changes of one thing; only where none is enough, changes of two.
//!
//! Layout: this file counts and reports, `trial` is a demand with changes applied, `relax` finds the least change of
//! each kind.

mod relax;
mod trial;

use std::collections::BTreeMap;

use common::{event::Reason, ids::Address, money::Atoms, region::Region};
use serde::Serialize;

pub use self::trial::Change;
use self::{relax::Dimension, trial::Trial};
use super::{
    feasible::{self, Reasons},
    ledger::Ledger,
    scan,
    snapshot::{Conditions, Demand, Snapshot, Supply},
};

/// Most suggestions in one explanation.
const MAX_SUGGESTIONS: usize = 12;

/// How often a check stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReasonCount {
    /// The check.
    pub reason: Reason,
    /// Provider offers for which it is the first that fails, in the contract's order.
    pub first: usize,
    /// Provider offers that fail it, whatever else they fail.
    pub failing: usize,
    /// Provider offers that fail nothing else.
    pub only: usize,
}

/// Changes with which the demand is placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Suggestion {
    /// What to change; all of them together.
    pub changes: Vec<Change>,
    /// The same for people.
    pub text: String,
    /// Replicas that are then hosted, those that live now included.
    pub replicas: usize,
    /// What the newly hosted ones then cost in one epoch.
    pub price_per_epoch: Atoms,
}

/// Whether, why not, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether enough hosts are there to start, or to go on.
    pub matchable: bool,
    /// Replicas wanted.
    pub replicas: u16,
    /// Fewest replicas that the offer wants to start with.
    pub min_replicas: u16,
    /// Replicas that have a host now.
    pub live_replicas: u16,
    /// Further replicas that could be placed now, the minimum apart.
    pub placeable_replicas: usize,
    /// Provider offers that were looked at.
    pub considered: usize,
    /// What is wrong with the offer as such, whoever would host it.
    pub blocked: Option<Reason>,
    /// What stands in the way, most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// Replicas that have a host after any one of the suggestions: the minimum to start with, else all of them, else
    /// one more than can be placed now.
    pub goal_replicas: u16,
    /// What would help; every one was tried on the same snapshot.
    pub suggestions: Vec<Suggestion>,
    /// All of it in a sentence.
    pub summary: String,
}

/// A host that a demand would have now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotedReplica {
    /// Who hosts.
    pub provider: Address,
    /// Under which offer.
    pub provider_offer: common::ids::OfferHash,
    /// Where.
    pub region: Region,
    /// Price of one epoch.
    pub ask: Atoms,
    /// What is taken of the developer's balance: the lock, and the matcher's fee.
    pub lock: Atoms,
    /// What is locked of the provider's balance.
    pub bond: Atoms,
}

/// The market that one demand finds when its turn comes.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// What fills are checked against.
    pub conditions: &'a Conditions,
    /// What earlier demands leave.
    pub ledger: &'a Ledger,
    /// Supplies in order of registration.
    pub supplies: &'a [Supply],
}

impl<'a> Outlook<'a> {
    /// The market as `ledger` leaves it.
    pub fn new(snapshot: &'a Snapshot, ledger: &'a Ledger) -> Self {
        Self { conditions: &snapshot.conditions, ledger, supplies: &snapshot.supplies }
    }

    /// Who would host the demand, cheapest first; empty when it cannot start.
    pub fn quote(&self, demand: &Demand) -> Vec<QuotedReplica> {
        if feasible::demand_is_blocked(self.conditions, self.ledger, demand).is_some() {
            return Vec::new();
        }
        let fills = scan::place(self.conditions, self.ledger, demand, self.supplies);
        if !scan::reaches_minimum(self.ledger, demand, fills.len()) {
            return Vec::new();
        }
        fills
            .iter()
            .map(|fill| QuotedReplica {
                provider: fill.supply.offer.provider,
                provider_offer: fill.supply.hash,
                region: fill.supply.offer.region,
                ask: fill.cost.ask,
                lock: fill.cost.lock,
                bond: fill.cost.bond,
            })
            .collect()
    }

    /// Explains the demand.
    pub fn explain(&self, demand: &Demand) -> Explanation {
        let blocked = feasible::demand_is_blocked(self.conditions, self.ledger, demand);
        let live_replicas = self.ledger.placement(demand.hash).live_replicas;
        let failing: Vec<Reasons> = self
            .supplies
            .iter()
            .map(|supply| feasible::all_failing(self.conditions, self.ledger, demand, supply))
            .collect();
        let trial = Trial::new(self, demand, &failing);
        let placeable_replicas = trial.placeable();
        let starts = scan::reaches_minimum(self.ledger, demand, placeable_replicas);
        let matchable = blocked.is_none() && placeable_replicas > 0 && starts;
        let is_full = blocked == Some(Reason::ReplicasFull);
        let is_placed = blocked.is_none() && trial.is_satisfied(demand.offer.replicas);
        let (mut goal_replicas, mut suggestions) = (demand.offer.replicas, Vec::new());
        for goal in goals(&trial, starts).filter(|_| !is_full && !is_placed) {
            if suggestions.is_empty() {
                (goal_replicas, suggestions) = (goal, suggestions_for(&trial, goal, blocked));
            }
        }
        let mut explanation = Explanation {
            matchable,
            replicas: demand.offer.replicas,
            min_replicas: demand.offer.min_replicas,
            live_replicas,
            placeable_replicas,
            considered: self.supplies.len(),
            blocked,
            reasons: count(&failing),
            goal_replicas,
            suggestions,
            summary: String::new(),
        };
        explanation.summary = explanation.in_words();
        explanation
    }
}

/// What to reach, in order of preference.
fn goals(trial: &Trial<'_>, starts: bool) -> impl Iterator<Item = u16> {
    let (live, wanted) = (trial.live_replicas(), trial.demand.offer.replicas);
    let placeable = u16::try_from(trial.placeable()).unwrap_or(u16::MAX);
    let one_more = live.saturating_add(placeable).saturating_add(1);
    let (first, second) = if starts { (wanted, Some(one_more)) } else { (trial.demand.offer.min_replicas, None) };
    std::iter::once(first).chain(second.filter(|second| *second < first))
}

fn count(failing: &[Reasons]) -> Vec<ReasonCount> {
    let mut counts: BTreeMap<Reason, ReasonCount> = BTreeMap::new();
    for reasons in failing {
        let mut is_first = true;
        for reason in Reason::ALL.into_iter().filter(|reason| reasons.has(*reason)) {
            let zero = ReasonCount { reason, first: 0, failing: 0, only: 0 };
            let entry = counts.entry(reason).or_insert(zero);
            entry.failing = entry.failing.saturating_add(1);
            entry.first = entry.first.saturating_add(usize::from(is_first));
            entry.only = entry.only.saturating_add(usize::from(reasons.len() == 1));
            is_first = false;
        }
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_by_key(|count| (std::cmp::Reverse(count.first), std::cmp::Reverse(count.failing), count.reason));
    counts
}

fn suggestions_for(trial: &Trial<'_>, goal: u16, blocked: Option<Reason>) -> Vec<Suggestion> {
    let Some(trial) = trial.unblocked(blocked) else { return Vec::new() };
    if trial.is_satisfied(goal) {
        return vec![trial.suggestion()];
    }
    let dimensions: Vec<Dimension> = Dimension::ALL.into_iter().filter(|kind| kind.applies_to(&trial, goal)).collect();
    let mut found: Vec<Suggestion> = dimensions
        .iter()
        .filter_map(|dimension| {
            let changed = trial.with(dimension.least_change(&trial, goal)?);
            changed.is_satisfied(changed.goal(goal)).then(|| changed.suggestion())
        })
        .collect();
    if found.is_empty() {
        for (at, first) in dimensions.iter().enumerate() {
            let later = dimensions.iter().skip(at.saturating_add(1));
            found.extend(later.filter_map(|second| pair(&trial, *first, *second, goal)));
        }
    }
    // Few changes first, then what costs least; the order in which they were found settles the rest.
    found.sort_by_key(|suggestion| (suggestion.changes.len(), suggestion.price_per_epoch));
    found.truncate(MAX_SUGGESTIONS);
    found
}

/// The least change of `second` when `first` is fully relaxed, then the least of `first` that goes with it.
fn pair(trial: &Trial<'_>, first: Dimension, second: Dimension, goal: u16) -> Option<Suggestion> {
    let relaxed = first.relaxed(trial);
    let second_change = second.least_change(&relaxed, relaxed.goal(goal))?;
    let with_second = trial.with(second_change);
    let first_change = first.least_change(&with_second, with_second.goal(goal))?;
    let both = with_second.with(first_change);
    both.is_satisfied(both.goal(goal)).then(|| both.suggestion())
}

impl Explanation {
    fn in_words(&self) -> String {
        let missing = self.replicas.saturating_sub(self.live_replicas);
        if missing == 0 {
            return format!("all {} replicas have a host", self.replicas);
        }
        let state = match (self.matchable, self.blocked) {
            (_, Some(reason)) => format!("the offer cannot be matched: {}", in_words(reason)),
            (true, _) => format!("{} of {missing} missing replicas can be placed now", self.placeable_replicas),
            (false, _) if self.placeable_replicas == 0 => {
                format!("none of {} provider offers can host it now", self.considered)
            }
            (false, _) => format!(
                "only {} further replicas can be placed now, but at least {} are wanted",
                self.placeable_replicas, self.min_replicas
            ),
        };
        let reasons = self.reasons.iter().filter(|count| count.first > 0).take(3);
        let why = reasons.map(|count| format!("{} ({})", in_words(count.reason), count.first)).collect::<Vec<_>>();
        let ways = self.suggestions.iter().take(3).map(|suggestion| suggestion.text.as_str()).collect::<Vec<_>>();
        let because = if why.is_empty() { String::new() } else { format!("; because: {}", why.join(", ")) };
        let instead =
            if ways.is_empty() { String::new() } else { format!("; it would match if you {}", ways.join("; or ")) };
        format!("{state}{because}{instead}")
    }
}

/// A reason as people read it.
pub fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::None => "nothing",
        Reason::DeveloperOfferMalformed => "a field of the developer offer is outside its limits",
        Reason::DeveloperSignatureInvalid => "the developer's signature is not valid",
        Reason::DeveloperOfferCancelled => "the developer cancelled the offer",
        Reason::DeveloperNonceTooLow => "its nonce is below the developer's nonce floor",
        Reason::DeveloperOfferExpired => "it has expired",
        Reason::MatcherNotNamed => "it names another matcher",
        Reason::TermOver => "its term is over",
        Reason::TooFewReplicas => "fewer replicas can be placed than wanted",
        Reason::ReplicasFull => "all replicas have a host",
        Reason::ProviderOfferMalformed => "a field of the provider offer is outside its limits",
        Reason::ProviderSignatureInvalid => "the provider's signature is not valid",
        Reason::ProviderOfferCancelled => "the provider cancelled its offer",
        Reason::ProviderNonceTooLow => "the provider offer's nonce is below the provider's nonce floor",
        Reason::ProviderOfferExpired => "the provider offer has expired",
        Reason::ProviderNotAllowed => "not on the allow list",
        Reason::ProviderDenied => "on the deny list",
        Reason::AlreadyHosting => "hosts or has hosted a replica of this offer",
        Reason::RegionMismatch => "in another region",
        Reason::FeaturesMissing => "lacks a feature",
        Reason::TermTooLong => "does not host that long",
        Reason::CpuExceedsFree => "has not enough CPU free",
        Reason::MemoryExceedsFree => "has not enough memory free",
        Reason::PriceAboveMaximum => "asks more than the maximum price",
        Reason::FundsTooLow => "the developer's free balance does not cover the lock and the matcher's fee",
        Reason::BondTooLow => "the provider's free balance does not cover the bond",
        Reason::DealUnknown => "no such deal",
        Reason::DealAlreadyEnded => "the deal has ended",
        Reason::ProviderOfferMismatch => "the deal is under another provider offer",
    }
}

#[cfg(test)]
mod tests;
