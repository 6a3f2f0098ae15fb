//! The largest size or the longest term that so many hosts have, with everything else as a demand wants it: one pass over
//! the index, in which what is wanted grows with what was found.

use common::resources::Resources;

use super::{
    bitmap::{Position, Step, Visit},
    hosts::{Finder, Seeker},
    search::{Market, Query, ask},
    supplies::{self, Entry, EntryKey, Floor, List},
};
use crate::feasible;

/// Blocks and supplies after which the best so far will do: in a market of many thousand supplies what is found need not
/// be the most that there is, but it is there.
const STEPS: u64 = 1_000;

/// What is to be large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Thousandths of a CPU.
    Cpu,
    /// MiB.
    Memory,
    /// Epochs.
    Term,
}

impl Part {
    /// The size and term with this one set.
    const fn set(self, (size, term): (Resources, u32), value: u32) -> (Resources, u32) {
        match self {
            Self::Cpu => (Resources { milli_cpu: value, memory_mib: size.memory_mib }, term),
            Self::Memory => (Resources { milli_cpu: size.milli_cpu, memory_mib: value }, term),
            Self::Term => (size, value),
        }
    }

    const fn of(self, (size, term): (Resources, u32)) -> u32 {
        match self {
            Self::Cpu => size.milli_cpu,
            Self::Memory => size.memory_mib,
            Self::Term => term,
        }
    }

    const fn of_entry(self, entry: &Entry) -> u32 {
        match self {
            Self::Cpu => entry.milli_cpu,
            Self::Memory => entry.memory_mib,
            Self::Term => entry.term,
        }
    }
}

/// The highest number that is enough, of one that is and a higher one that is not, where all below are enough too.
pub(crate) fn highest(mut good: u32, mut bad: u32, mut is_enough: impl FnMut(u32) -> bool) -> u32 {
    while bad.saturating_sub(good) > 1 {
        let middle = good.midpoint(bad);
        if is_enough(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

/// The hosts with the most so far.
struct Largest<'a> {
    market: Market<'a>,
    part: Part,
    /// What the demand asks for.
    asked: (Resources, u32),
    /// Whether to go on after [`STEPS`] until there are enough hosts.
    patient: bool,
    /// What a host must have to count: one more than the last of the best has.
    query: Query<'a>,
    /// Providers with what they have, the largest first, at most as many as are wanted.
    best: Vec<(u32, u32)>,
    /// Weight of the list that is read, and the highest price in it of which something may be below the limit.
    weight: u64,
    highest: u64,
    looked: u64,
    read: u64,
}

impl Finder<'_> {
    /// The most that `seeker.wanted` providers have each, below what the demand asks for, or nearly that in a market where
    /// it takes more than [`STEPS`]; `None` where fewer than those would host it at all, or where so many steps have not shown
    /// enough of them and one is not `patient`. What they cost together is not looked at.
    pub(super) fn largest(&mut self, part: Part, seeker: &Seeker<'_>, patient: bool) -> Option<u32> {
        let (offer, demand) = (&seeker.demand.offer, seeker.demand);
        let term = feasible::remaining_under(self.conditions, seeker.placement, demand);
        let asked = (offer.size, term);
        // The shorter the term, the less has to be locked.
        let (_, most) = seeker.means(if part == Part::Term { 1 } else { term })?;
        let (least_size, least_term) = part.set(asked, 1);
        let mut query = Query::once(least_size, offer.features.0, least_term, &offer.regions);
        query.limit = most.min(offer.max_price_per_epoch.get());
        query.wanted = seeker.wanted;
        query.excluded = self.excluded(seeker);
        let (market, best) = (self.market(), Vec::new());
        let (weight, highest, looked, read) = (0, 0, 0, 0);
        let mut look = Largest { market, part, asked, patient, query, best, weight, highest, looked, read };
        if offer.allow.is_empty() {
            look.read_lists(self.index);
        } else {
            let slots = self.allowed(demand).filter_map(|number| Some((number, self.supplies.get(number)?)));
            slots.filter(|(_, slot)| slot.active).for_each(|(number, slot)| look.item(&slot.entry(number)));
        }
        self.search.note_work(look.looked, look.read);
        let last = look.best.len().checked_sub(1).filter(|_| look.best.len() >= seeker.wanted)?;
        look.best.get(last).map(|(value, _)| *value)
    }
}

impl Largest<'_> {
    fn read_lists(&mut self, index: &mut supplies::Supplies) {
        let numbers: Vec<usize> = index.lists_within(self.query.regions()).map(|(at, _)| at).collect();
        for list in numbers {
            if let Some(list) = index.list(list) {
                self.read_list(list);
            }
        }
    }

    /// Pauses whenever more is wanted than before.
    fn read_list(&mut self, list: &mut List) {
        let mut position = Some(Position::default());
        while let Some(at) = position.filter(|_| !self.is_over()) {
            self.want_more();
            self.weight = list.weight(self.query.size);
            self.highest = supplies::highest_price(self.query.limit, self.weight);
            let columns = std::mem::take(&mut self.query.columns);
            position = list.entries.search(at, &columns, self);
            self.query.columns = columns;
        }
    }

    /// Whether enough hosts have what they can have, or much was looked at.
    fn is_over(&self) -> bool {
        let steps = self.looked.saturating_add(self.read);
        let is_full = self.best.len() >= self.query.wanted;
        (steps > STEPS && (is_full || !self.patient)) || (is_full && self.least() >= self.part.of(self.asked))
    }

    /// The least that counts.
    fn least(&self) -> u32 {
        let last = self.best.last().filter(|_| self.best.len() >= self.query.wanted);
        last.map_or(1, |(value, _)| value.saturating_add(1))
    }

    /// Asks for more than the last of the best has.
    fn want_more(&mut self) {
        let least = self.least();
        if least == self.part.of((self.query.size, self.query.term)) {
            return;
        }
        let (size, term) = self.part.set((self.query.size, self.query.term), least);
        self.query.ask_for(size, term);
    }

    /// The most of it that the provider has and the developer can pay.
    fn value(&self, entry: &Entry) -> Option<u32> {
        let limit = self.market.affordable.get(entry.provider as usize).copied().unwrap_or_default();
        let limit = limit.min(entry.affordable).min(self.query.limit);
        let pays = |value: u32| ask(entry.per_vcpu, entry.per_gib, self.part.set(self.asked, value).0) <= limit;
        let most = self.part.of_entry(entry).min(self.part.of(self.asked).saturating_sub(1));
        let least = self.least();
        if most < least || !pays(least) {
            return None;
        }
        if pays(most) {
            return Some(most);
        }
        Some(highest(least, most, pays))
    }
}

impl Visit<Entry> for Largest<'_> {
    fn judge(&mut self, first: &EntryKey, floor: &Floor) -> Step {
        if first.price > self.highest || self.is_over() {
            return Step::Stop;
        }
        if self.least() != self.part.of((self.query.size, self.query.term)) {
            return Step::Pause;
        }
        let least = ask(floor.per_vcpu, floor.per_gib, self.query.size);
        let is_out = |provider| self.query.excluded.contains(&provider);
        if least > self.query.limit || floor.joint < self.query.joint() || floor.providers.all(is_out) {
            return Step::Skip;
        }
        Step::Enter
    }

    fn item(&mut self, entry: &Entry) {
        self.read = self.read.saturating_add(1);
        if !self.query.fits(entry, self.market) || self.query.excluded.contains(&entry.provider) {
            return;
        }
        let Some(value) = self.value(entry) else { return };
        if let Some(at) = self.best.iter().position(|(_, provider)| *provider == entry.provider) {
            if self.best.get(at).is_some_and(|(known, _)| *known >= value) {
                return;
            }
            self.best.remove(at);
        }
        let at = self.best.partition_point(|(known, _)| *known >= value);
        self.best.insert(at, (value, entry.provider));
        self.best.truncate(self.query.wanted);
    }

    fn looked(&mut self) {
        self.looked = self.looked.saturating_add(1);
    }
}
