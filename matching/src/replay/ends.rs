//! The ends of the last blocks: what the engine would have sent next, as a matcher that had seen so far would.

use std::collections::{BTreeMap, VecDeque};

use common::{
    epoch::Epoch,
    ids::{Address, OfferHash},
};

use crate::engine::{Match, Plan};

/// By demand: its hosts, cheapest first.
pub(super) type Planned = BTreeMap<OfferHash, Vec<OfferHash>>;

/// A plan as it is remembered.
pub(super) fn planned(plan: &Plan) -> Planned {
    let hosts = |found: &Match| found.fills.iter().map(|fill| fill.supply).collect();
    plan.matches.iter().map(|found| (found.demand, hosts(found))).collect()
}

/// The end of one block; blocks without events are not told of, so that it lasts until the next one.
#[derive(Debug)]
struct End {
    block: u64,
    epoch: Epoch,
    planned: Planned,
    /// What a matcher would have sent that may not match everything in `planned`.
    planned_by: BTreeMap<Address, Planned>,
}

#[derive(Debug)]
pub(super) struct Ends {
    window: u64,
    ends: VecDeque<End>,
}

impl Ends {
    pub(super) const fn new(window: u64) -> Self {
        Self { window, ends: VecDeque::new() }
    }

    pub(super) fn push(&mut self, block: u64, epoch: Epoch, planned: Planned) {
        // Blocks that come later look back by the window, not further than this.
        let oldest = block.saturating_add(1).saturating_sub(self.window);
        while self.ends.get(1).is_some_and(|second| second.block <= oldest) {
            self.ends.pop_front();
        }
        self.ends.push_back(End { block, epoch, planned, planned_by: BTreeMap::new() });
    }

    /// What was planned at the last end.
    pub(super) fn planned(&self) -> Option<&Planned> {
        self.ends.back().map(|end| &end.planned)
    }

    /// Notes what this matcher would have sent at the last end.
    pub(super) fn set_planned_by(&mut self, matcher: Address, planned: Planned) {
        self.ends.back_mut().map(|end| end.planned_by.insert(matcher, planned));
    }

    /// The end of a block.
    fn of(&self, block: u64) -> Option<&End> {
        self.ends.iter().rev().find(|end| end.block <= block)
    }

    /// The epoch in which the window of a block begins.
    pub(super) fn epoch_before(&self, block: u64) -> Option<Epoch> {
        self.of(block.saturating_sub(self.window)).map(|end| end.epoch)
    }

    /// What a matcher would have sent at the end of a block.
    fn planned_at(&self, block: u64, matcher: Address) -> Option<&Planned> {
        self.of(block).map(|end| end.planned_by.get(&matcher).unwrap_or(&end.planned))
    }

    /// Whether at the end of the block before, this supply was meant for other demands and not for this one.
    pub(super) fn is_spoken_for(
        &self,
        (block, matcher): (u64, Address),
        (demand, supply): (OfferHash, OfferHash),
    ) -> bool {
        let Some(planned) = self.planned_at(block.saturating_sub(1), matcher) else { return false };
        let has = |hosts: &Vec<OfferHash>| hosts.contains(&supply);
        !planned.get(&demand).is_some_and(has) && planned.values().any(has)
    }

    /// The least number of blocks back, within the window, at which the matcher by the engine's rule would have placed the
    /// demand with this supply, and not with that one.
    pub(super) fn chosen(
        &self,
        (block, matcher): (u64, Address),
        (demand, supply): (OfferHash, OfferHash),
        other: Option<OfferHash>,
    ) -> Option<u64> {
        (1..=self.window.min(block)).find(|back| {
            let planned = self.planned_at(block.saturating_sub(*back), matcher);
            planned
                .and_then(|planned| planned.get(&demand))
                .is_some_and(|hosts| hosts.contains(&supply) && other.is_none_or(|other| !hosts.contains(&other)))
        })
    }
}
