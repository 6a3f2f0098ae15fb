//! The cheapest supplies for one demand, from the lists of [`super::supplies`].
//!
//! The lists are read block by block, always the one whose next block may hold the lowest ask, and only what has all
//! columns that the demand wants. Reading ends when nothing that comes can be among the hosts: a list's order gives the least that what
//! is behind can ask. So the result is exact whatever the order of a list, and what is read beyond the hosts themselves
//! is what lies in the same class as the demand and does not fit, and what seems cheaper than it is.
//!
//! A page or block is passed over when nothing in it has all columns, when its lowest prices make an ask that is too high,
//! and when all of its providers (if they are few) may not host or have a better place.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use common::{
    money::Atoms,
    region::Region,
    resources::{Prices, Resources},
};

use super::{
    bitmap::{Position, Step, Visit},
    columns::Wanted,
    places,
    supplies::{self, Entry, EntryKey, Floor, List, NO_ASK, Supplies},
    tables::{SupplySlot, Table},
};

/// What a demand asks for.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) size: Resources,
    pub(super) features: u64,
    /// Epochs to go.
    pub(super) term: u32,
    /// Highest ask.
    pub(super) limit: u64,
    /// Hosts wanted.
    pub(super) wanted: usize,
    /// Number of the developer's account.
    pub(super) developer: u32,
    /// Numbers of accounts that may not host.
    pub(super) excluded: Vec<u32>,
    joint: u32,
    regions: &'a [Region],
    pub(super) columns: Wanted,
}

impl<'a> Query<'a> {
    /// To search the index with, or, without one, some supplies.
    pub(super) fn new(
        index: Option<&mut Supplies>,
        size: Resources,
        features: u64,
        term: u32,
        regions: &'a [Region],
    ) -> Self {
        let columns = index.map(|index| index.wanted(size, term, features, regions));
        Self::with(columns.unwrap_or_default(), (size, features, term), regions)
    }

    /// What only one search asks for: nothing is noted of it.
    pub(super) fn once(size: Resources, features: u64, term: u32, regions: &'a [Region]) -> Self {
        Self::with(supplies::wanted_once(size, features, term, regions), (size, features, term), regions)
    }

    fn with(columns: Wanted, (size, features, term): (Resources, u64, u32), regions: &'a [Region]) -> Self {
        Self {
            size,
            features,
            term,
            limit: NO_ASK,
            wanted: 1,
            developer: u32::MAX,
            excluded: Vec::new(),
            joint: places::joint(size.milli_cpu, size.memory_mib),
            regions,
            columns,
        }
    }

    /// Asks for another size and term from now on.
    pub(super) fn ask_for(&mut self, size: Resources, term: u32) {
        (self.size, self.term, self.joint) = (size, term, places::joint(size.milli_cpu, size.memory_mib));
        self.columns = supplies::wanted_once(size, self.features, term, self.regions);
    }

    pub(super) const fn regions(&self) -> &'a [Region] {
        self.regions
    }

    pub(super) const fn joint(&self) -> u32 {
        self.joint
    }

    pub(super) fn fits(&self, entry: &Entry, market: Market<'_>) -> bool {
        self.size.milli_cpu <= entry.milli_cpu
            && self.size.memory_mib <= entry.memory_mib
            && self.term <= entry.term
            && (self.regions.is_empty() || self.regions.iter().any(|region| places::is_within(entry.region, *region)))
            && entry.has(self.features, || market.supplies.get(entry.supply).map(|slot| slot.terms.offer.features.0))
    }
}

/// The ask for a size; [`NO_ASK`] beyond what money can represent.
pub(super) fn ask(per_vcpu: u64, per_gib: u64, size: Resources) -> u64 {
    let prices = Atoms::new(per_vcpu)
        .and_then(|per_vcpu_epoch| Atoms::new(per_gib).map(|per_gib_epoch| Prices { per_vcpu_epoch, per_gib_epoch }));
    prices.and_then(|prices| prices.ask(size)).map_or(NO_ASK, Atoms::get)
}

/// What a search looks at.
#[derive(Clone, Copy)]
pub(super) struct Market<'a> {
    pub(super) supplies: &'a Table<SupplySlot>,
    /// By account: the highest ask for which its balance pays the bond.
    pub(super) affordable: &'a [u64],
}

/// A host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) ask: u64,
    age: u64,
    pub(super) supply: u32,
    pub(super) provider: u32,
}

/// How much was looked at, since the engine was made. The same changes give the same numbers on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Demands that were looked at.
    pub searches: u64,
    /// Blocks of the index that were looked at.
    pub blocks: u64,
    /// Supplies that were read.
    pub supplies: u64,
}

impl Work {
    /// All of it.
    pub const fn steps(&self) -> u64 {
        self.blocks.saturating_add(self.supplies)
    }
}

/// A search, with room that the next one uses again.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The lists that are still read.
    reading: BinaryHeap<Reverse<Reading>>,
    /// The best of each provider, best first, at most as many as are wanted.
    best: Vec<Found>,
    /// The developer's own best, which counts apart, since it may turn out too dear for one purse.
    own: Option<Found>,
    /// The least ask that the developer cannot pay itself: then neither what is above.
    own_too_dear: u64,
    /// Supplies that seem to afford more than they do.
    pub(super) overstated: Vec<u32>,
    pub(super) work: Work,
}

impl Search {
    /// Finds the hosts, best first: as many others as are wanted, and the developer itself where `own_may` agrees to
    /// its ask.
    pub(super) fn run(
        &mut self,
        index: &mut Supplies,
        market: Market<'_>,
        query: &Query<'_>,
        own_may: impl Fn(u64) -> bool,
    ) -> Vec<Found> {
        self.begin();
        let (mut reading, note) = (std::mem::take(&mut self.reading), query.columns.note);
        let begun = index
            .lists_within(query.regions)
            .filter_map(|(at, list)| Reading::at(Position::default(), at, list, list.weight(query.size), note));
        reading.extend(begun.map(Reverse));
        let mut look = Look { search: self, market, query, own_may, weight: 0, highest: (0, 0), others_least: 0 };
        while let Some(Reverse(Reading { list: at, weight, position, .. })) = reading.pop() {
            look.begin_list(weight, reading.peek().map_or(u128::MAX, |Reverse(other)| other.least));
            let Some(list) = index.list(at) else { break };
            if let Some(next) = list.entries.search(position, &query.columns, &mut look) {
                reading.extend(Reading::at(next, at, list, weight, note).map(Reverse));
            }
        }
        reading.clear();
        self.reading = reading;
        self.finish(market)
    }

    /// As [`Search::run`] among some supplies alone.
    pub(super) fn run_among(
        &mut self,
        market: Market<'_>,
        query: &Query<'_>,
        own_may: impl Fn(u64) -> bool,
        supplies: impl Iterator<Item = u32>,
    ) -> Vec<Found> {
        self.begin();
        for number in supplies {
            if let Some(slot) = market.supplies.get(number).filter(|slot| slot.active) {
                self.work.supplies = self.work.supplies.saturating_add(1);
                self.take(market, query, &slot.entry(number), &own_may);
            }
        }
        self.finish(market)
    }

    /// Counts what another kind of search has looked at.
    pub(super) const fn note_work(&mut self, blocks: u64, supplies: u64) {
        self.work.blocks = self.work.blocks.saturating_add(blocks);
        self.work.supplies = self.work.supplies.saturating_add(supplies);
    }

    fn begin(&mut self) {
        self.best.clear();
        self.overstated.clear();
        self.own = None;
        self.own_too_dear = NO_ASK;
        self.work.searches = self.work.searches.saturating_add(1);
    }

    fn finish(&mut self, market: Market<'_>) -> Vec<Found> {
        let mut found = self.best.clone();
        if let Some(own) = self.own {
            let at = found.partition_point(|other| order(market.supplies, other, &own).is_lt());
            found.insert(at, own);
        }
        found
    }

    /// The highest ask that could be among the hosts.
    fn highest_ask(&self, query: &Query<'_>) -> u64 {
        let last = self.best.last().filter(|_| self.best.len() >= query.wanted);
        last.map_or(query.limit, |last| last.ask.min(query.limit))
    }

    /// Whether something with this ask and age could be among the hosts.
    fn is_worth(&self, query: &Query<'_>, ask: u64, age: u64) -> bool {
        if ask > query.limit {
            return false;
        }
        match self.best.last().filter(|_| self.best.len() >= query.wanted) {
            Some(last) => (ask, age) <= (last.ask, last.age),
            None => query.wanted > 0,
        }
    }

    /// Whether nothing of this provider with such an ask and age can be a host.
    fn is_out(&self, query: &Query<'_>, provider: u32, ask: u64, age: u64) -> bool {
        let has_better = |found: &Found| found.provider == provider && (found.ask, found.age) < (ask, age);
        query.excluded.contains(&provider)
            || (provider == query.developer && ask >= self.own_too_dear)
            || self.best.iter().chain(&self.own).any(has_better)
    }

    /// Looks at one supply. `true` when it seemed to afford more than it does.
    fn take(&mut self, market: Market<'_>, query: &Query<'_>, entry: &Entry, own_may: &impl Fn(u64) -> bool) -> bool {
        if !query.fits(entry, market) {
            return false;
        }
        let ask = ask(entry.per_vcpu, entry.per_gib, query.size);
        if ask > entry.affordable || !self.is_worth(query, ask, entry.age) {
            return false;
        }
        if query.excluded.contains(&entry.provider) {
            return false;
        }
        if market.affordable.get(entry.provider as usize).is_none_or(|affordable| ask > *affordable) {
            return true;
        }
        let found = Found { ask, age: entry.age, supply: entry.supply, provider: entry.provider };
        if entry.provider == query.developer {
            if !own_may(ask) {
                self.own_too_dear = self.own_too_dear.min(ask);
            } else if self.own.is_none_or(|own| order(market.supplies, &found, &own).is_lt()) {
                self.own = Some(found);
            }
        } else {
            self.add(market, query, found);
        }
        false
    }

    fn add(&mut self, market: Market<'_>, query: &Query<'_>, found: Found) {
        if let Some(at) = self.best.iter().position(|other| other.provider == found.provider) {
            if self.best.get(at).is_some_and(|other| order(market.supplies, other, &found).is_le()) {
                return;
            }
            self.best.remove(at);
        }
        let at = self.best.partition_point(|other| order(market.supplies, other, &found).is_lt());
        self.best.insert(at, found);
        self.best.truncate(query.wanted);
    }
}

/// A list that is read, the next one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    /// What comes next may ask so much at the least, as [`List::weight`] counts it.
    least: u128,
    list: usize,
    weight: u64,
    position: Position,
}

impl Reading {
    /// From a position on, where there may be what is noted.
    fn at(position: Position, number: usize, list: &List, weight: u64, note: Option<usize>) -> Option<Self> {
        let position = list.entries.next(position, note)?;
        let least = weighed(list.entries.first(position)?, weight);
        Some(Self { least, list: number, weight, position })
    }
}

fn weighed(first: &EntryKey, weight: u64) -> u128 {
    u128::from(first.price).saturating_mul(u128::from(weight))
}

/// A search in the pages of one list.
struct Look<'a, F> {
    search: &'a mut Search,
    market: Market<'a>,
    query: &'a Query<'a>,
    own_may: F,
    weight: u64,
    /// An ask, and the highest price of which something may be at or below it.
    highest: (u64, u64),
    /// Where another list has something that may ask less than this one, that comes first.
    others_least: u128,
}

impl<F: Fn(u64) -> bool> Look<'_, F> {
    fn begin_list(&mut self, weight: u64, others_least: u128) {
        (self.weight, self.others_least) = (weight, others_least);
        let ask = self.search.highest_ask(self.query);
        self.highest = (ask, supplies::highest_price(ask, weight));
    }
}

impl<F: Fn(u64) -> bool> Visit<Entry> for Look<'_, F> {
    fn judge(&mut self, first: &EntryKey, floor: &Floor) -> Step {
        let highest = self.search.highest_ask(self.query);
        if highest != self.highest.0 {
            self.highest = (highest, supplies::highest_price(highest, self.weight));
        }
        if first.price > self.highest.1 {
            return Step::Stop;
        }
        if weighed(first, self.weight) > self.others_least {
            return Step::Pause;
        }
        if floor.joint < self.query.joint {
            return Step::Skip;
        }
        let least = ask(floor.per_vcpu, floor.per_gib, self.query.size);
        let is_out = |who| self.search.is_out(self.query, who, least, floor.age);
        if self.search.is_worth(self.query, least, floor.age) && !floor.providers.all(is_out) {
            Step::Enter
        } else {
            Step::Skip
        }
    }

    fn item(&mut self, entry: &Entry) {
        self.search.work.supplies = self.search.work.supplies.saturating_add(1);
        if self.search.take(self.market, self.query, entry, &self.own_may) {
            self.search.overstated.push(entry.supply);
        }
    }

    fn looked(&mut self) {
        self.search.work.blocks = self.search.work.blocks.saturating_add(1);
    }
}

/// By ask, then by order of registration.
fn order(supplies: &Table<SupplySlot>, left: &Found, right: &Found) -> Ordering {
    (left.ask, left.age).cmp(&(right.ask, right.age)).then_with(|| {
        let place = |found: &Found| supplies.get(found.supply).map(|slot| (slot.terms.place, slot.terms.hash));
        place(left).cmp(&place(right))
    })
}
