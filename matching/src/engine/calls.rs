//! Supplies that have become better, and the waiting demands that they call.
//!
//! Most calls would be in vain, since who comes first takes what there is. So a supply names only the first few demands
//! that it fits, in order of service, and when their turn is over the next ones that what is left of it fits, each
//! time twice as many.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    Engine,
    open_demands::{Offered, Served, Turn, Wish},
    supplies::Entry,
    tables::{DemandSlot, SupplySlot},
};
use crate::feasible;

/// Demands that a supply names at first.
const FIRST_CALLS: usize = 4;

/// A supply that has become better.
#[derive(Debug)]
struct Caller {
    supply: u32,
    /// Whom it calls; the next one is the last.
    wishes: Vec<Wish>,
    /// How many to name at a time; `None` where nobody is behind these.
    most: Option<usize>,
}

/// Where to look for hosts.
#[derive(Debug)]
pub(super) enum Among {
    All,
    These(Vec<u32>),
}

/// Those that call, by the turn of whom they call next.
#[derive(Debug, Default)]
pub(super) struct Callers {
    callers: Vec<Caller>,
    queue: BinaryHeap<Reverse<(Turn, usize)>>,
    /// Those that call the demand whose turn it is.
    calling: Vec<usize>,
}

impl Callers {
    /// The next demand that is called.
    pub(super) fn next(&self) -> Option<(Turn, u32)> {
        let Reverse((turn, at)) = self.queue.peek()?;
        let wish = self.callers.get(*at)?.wishes.last()?;
        Some((*turn, wish.demand))
    }

    /// It is this demand's turn.
    pub(super) fn begin(&mut self, turn: Turn) {
        while let Some(Reverse((_, at))) = self.queue.peek().filter(|Reverse((next, _))| *next == turn) {
            self.calling.push(*at);
            self.queue.pop();
        }
    }

    /// The supplies that call the demand whose turn it is.
    fn calling(&self) -> impl Iterator<Item = (u32, &Wish)> {
        let callers = self.calling.iter().filter_map(|at| self.callers.get(*at));
        callers.filter_map(|caller| Some((caller.supply, caller.wishes.last()?)))
    }

    /// Those whose calls are not all answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u32> {
        let waiting = self.queue.iter().map(|Reverse((_, at))| at);
        self.calling.iter().chain(waiting).filter_map(|at| Some(self.callers.get(*at)?.supply))
    }
}

impl Engine {
    /// The supplies that have become better since the last plan, with the first of the demands that each could serve.
    pub(super) fn callers(&mut self) -> Callers {
        let mut callers = Callers::default();
        for (supply, after) in std::mem::take(&mut self.better) {
            let mut caller = Caller { supply, wishes: Vec::new(), most: Some(FIRST_CALLS) };
            self.name_more(&mut caller, after);
            if let Some(wish) = caller.wishes.last() {
                callers.queue.push(Reverse((wish.turn, callers.callers.len())));
                callers.callers.push(caller);
            }
        }
        callers
    }

    /// The turn is over: who called goes on to the next demand.
    pub(super) fn call_next(&mut self, callers: &mut Callers, turn: Turn) {
        while let Some(at) = callers.calling.pop() {
            let Some(caller) = callers.callers.get_mut(at) else { continue };
            caller.wishes.pop();
            if caller.wishes.is_empty() {
                self.name_more(caller, Some(turn));
            }
            if let Some(wish) = caller.wishes.last() {
                callers.queue.push(Reverse((wish.turn, at)));
            }
        }
    }

    /// The next demands behind `after` that the caller could serve as it is now.
    fn name_more(&mut self, caller: &mut Caller, after: Option<Turn>) {
        let Some(most) = caller.most.take() else { return };
        let Some(slot) = self.supplies.get(caller.supply).filter(|slot| slot.active) else { return };
        let offered = self.offered(caller.supply, slot);
        let Served { wishes, is_all } = self.waiting.served(&offered, after, most);
        caller.wishes = wishes;
        caller.most = (!is_all).then(|| most.saturating_mul(2));
    }

    /// Where to look for hosts of a demand that is called; `None` when so few providers have become better since it was
    /// looked at that they cannot be the hosts that it lacked: a provider adds one host at the most, and none where it
    /// was found already, unless its lower price leaves money for others.
    pub(super) fn among_callers(&mut self, demand: u32, callers: &Callers) -> Option<Among> {
        // Who was taken by somebody before calls again when it is better.
        let has_room = |(supply, wish): (u32, &Wish)| {
            let slot = self.supplies.get(supply).filter(|slot| slot.has_room_for(wish.size))?;
            Some((slot.provider, supply))
        };
        let mut callers = callers.calling().filter_map(has_room).peekable();
        callers.peek()?;
        let slot = self.demands.get_mut(demand)?;
        if slot.lacks_funds {
            return Some(Among::All);
        }
        let new = callers.filter(|(provider, _)| !slot.found.contains(provider));
        slot.helpers.extend(new);
        if slot.helpers.len() < slot.missing {
            return None;
        }
        // Some that called have been taken since; they will call again when they are better.
        let (mut helpers, missing, found) = (std::mem::take(&mut slot.helpers), slot.missing, slot.found.len());
        helpers.sort_unstable();
        helpers.dedup();
        helpers.retain(|(_, supply)| self.serves(*supply, demand));
        if helpers.chunk_by(|(left, _), (right, _)| left == right).count() < missing {
            self.demands.get_mut(demand)?.helpers = helpers;
            return None;
        }
        // Where nobody was found nobody else can host: who has become able to has called.
        Some(if found == 0 {
            Among::These(helpers.into_iter().map(|(_, supply)| supply).collect())
        } else {
            Among::All
        })
    }

    /// Whether the supply could host the demand, its developer's money apart.
    pub(super) fn serves(&self, supply: u32, demand: u32) -> bool {
        let Some(slot) = self.supplies.get(supply).filter(|slot| slot.active) else { return false };
        let Some(wanted) = self.demands.get(demand) else { return false };
        let Some(terms) = wanted.terms.as_deref() else { return false };
        let term = feasible::remaining_under(&self.conditions, wanted.placement, terms);
        Wish::new(terms, demand, term).fits(&self.offered(supply, slot)) && may_host(slot, wanted)
    }

    /// What a supply offers, with what its provider affords now.
    pub(super) fn offered(&self, number: u32, slot: &SupplySlot) -> Offered {
        let entry = Entry { affordable: self.affordable_by(slot.provider), ..slot.entry(number) };
        Offered { entry, features: slot.terms.offer.features.0, prices: slot.terms.offer.prices }
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
