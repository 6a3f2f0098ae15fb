//! Why a demand finds no host, and the smallest changes with which it would.
//!
//! Every suggestion is found by applying it: a change is only listed after the engine, on the same market, has placed the
//! changed demand. First changes of one thing; where none is enough, as few things as will do together. Where even the
//! demand with everything relaxed finds no host, nothing is suggested: there is no such change.
//!
//! Reasons are counted among all supplies of a small market and among a sample of a large one.
//!
//! Layout: this file counts and reports, `ways` looks for changes, `trial` is a demand with changes applied, `relax` finds
//! the least change of each kind.

mod relax;
mod trial;
mod ways;

use std::collections::BTreeMap;

use common::{event::Reason, ids::Address, money::Atoms, region::Region};
use serde::Serialize;

pub use self::trial::Change;
use self::trial::Trial;
use super::{engine::Engine, feasible::Reasons, ledger::FillCost, snapshot::Demand};

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
    /// Provider offers that are open.
    pub considered: usize,
    /// Those of them among which the reasons are counted: all, or in a large market a sample.
    pub counted: usize,
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

impl Engine {
    /// Who would host the demand, cheapest first; empty when it cannot start. Where it has a standing match, as the matches
    /// before that one leave the market.
    pub fn quote(&mut self, demand: &Demand) -> Vec<QuotedReplica> {
        self.at_turn_of(demand.hash, |engine| {
            let trial = Trial::new(engine, demand);
            if trial.blocked(engine).is_some() {
                return Vec::new();
            }
            let fills = trial.fills(engine);
            if fills.is_empty() || !trial.reaches_minimum(fills.len()) {
                return Vec::new();
            }
            fills.into_iter().filter_map(|(supply, cost)| engine.quoted(supply, cost)).collect()
        })
    }

    fn quoted(&self, supply: u32, cost: FillCost) -> Option<QuotedReplica> {
        let supply = self.supply_at(supply)?;
        let (provider, provider_offer, region) = (supply.offer.provider, supply.hash, supply.offer.region);
        Some(QuotedReplica { provider, provider_offer, region, ask: cost.ask, lock: cost.lock, bond: cost.bond })
    }

    /// Explains the demand, known to the market or only thought about. Where it has a standing match, as the matches
    /// before that one leave the market.
    pub fn explain(&mut self, demand: &Demand) -> Explanation {
        self.at_turn_of(demand.hash, |engine| engine.explain_now(demand))
    }

    fn explain_now(&mut self, demand: &Demand) -> Explanation {
        let trial = Trial::new(self, demand);
        let blocked = trial.blocked(self);
        let placeable_replicas = trial.fills(self).len();
        let starts = trial.reaches_minimum(placeable_replicas);
        let is_full = trial.live_replicas() >= demand.offer.replicas;
        let is_placed = blocked.is_none() && placeable_replicas >= trial.missing(demand.offer.replicas) && starts;
        let (mut goal_replicas, mut suggestions) = (demand.offer.replicas, Vec::new());
        let startable = starts && blocked.is_none();
        for goal in goals(&trial, placeable_replicas, startable).filter(|_| !is_full && !is_placed) {
            if suggestions.is_empty() {
                (goal_replicas, suggestions) = (goal, ways::suggestions(self, &trial, goal, blocked));
            }
        }
        let sample = self.sampled();
        let failing: Vec<Reasons> =
            sample.iter().filter_map(|supply| self.failing(demand, &trial.situation, *supply)).collect();
        let mut explanation = Explanation {
            matchable: blocked.is_none() && placeable_replicas > 0 && starts,
            replicas: demand.offer.replicas,
            min_replicas: demand.offer.min_replicas,
            live_replicas: trial.live_replicas(),
            placeable_replicas,
            considered: self.supplies_open(),
            counted: failing.len(),
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

/// What to reach, in order of preference: all replicas, or else one more than can be placed; where the offer cannot start as
/// it is, as many as it wants to start with.
fn goals(trial: &Trial<'_>, placeable: usize, startable: bool) -> impl Iterator<Item = u16> {
    let (live, offer) = (trial.live_replicas(), &trial.demand.offer);
    let placeable = u16::try_from(placeable).unwrap_or(u16::MAX);
    let one_more = live.saturating_add(placeable).saturating_add(1);
    let (first, second) = if startable { (offer.replicas, Some(one_more)) } else { (offer.min_replicas, None) };
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
        let of = if self.counted < self.considered { format!(" of {} looked at", self.counted) } else { String::new() };
        let why = reasons.map(|count| format!("{} ({}{of})", in_words(count.reason), count.first)).collect::<Vec<_>>();
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
