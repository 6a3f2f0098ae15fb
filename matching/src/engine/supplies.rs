//! Supplies by price, and by what they can do.
//!
//! A price has two parts, and one order fits only one ratio of CPU to memory. So supplies are in lists by the ratio of their
//! two prices, half a doubling each, and in each list in the order of what a machine of two GiB for each vCPU would cost.
//! For a demand of another shape that order is nearly the order of asks, and how far off it can be is known from the ratios
//! in the list: [`List::weight`]. Each continent has lists of its own: who wants one reads nothing of the others.
//!
//! The order is a matter of speed alone; [`super::search`] is exact whatever it is.

use common::{region::Region, resources::Resources};

use super::{
    bitmap::{BitmapIndex, Bounds, Item},
    columns::{Columns, Digits, Group, Wanted, low_bits},
    places::{self, CONTINENT_COLUMNS, COUNTRY_COLUMNS, CPU, FEATURES, MEMORY, TERM, cpu, joint},
    shapes::{Shape, Shapes},
};
use crate::snapshot::Supply;

/// More than any ask: [`common::money::Atoms`] end at 2⁶³.
pub(super) const NO_ASK: u64 = u64::MAX;
/// Ratios are counted in parts of this.
const ONE: u64 = 1 << 20;

/// First columns of each kind.
const CPU_COLUMNS: usize = 0;
const MEMORY_COLUMNS: usize = CPU_COLUMNS + Digits::COLUMNS;
const JOINT_COLUMNS: usize = MEMORY_COLUMNS + Digits::COLUMNS;
const TERM_COLUMNS: usize = JOINT_COLUMNS + Digits::COLUMNS;
const FEATURE_COLUMNS: usize = TERM_COLUMNS + Digits::COLUMNS;
const PLACE_COLUMNS: usize = FEATURE_COLUMNS + FEATURES;

/// One supply, as much of it as a search reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) per_vcpu: u64,
    pub(super) per_gib: u64,
    /// No bond for an ask above this can be paid; at least what the provider's balance allows.
    pub(super) affordable: u64,
    pub(super) age: u64,
    /// Its region's bytes, the first one highest.
    pub(super) region: u64,
    /// Free now.
    pub(super) milli_cpu: u32,
    /// Free now.
    pub(super) memory_mib: u32,
    /// Longest term; `u32::MAX` where there is no limit.
    pub(super) term: u32,
    /// Number of its account.
    pub(super) provider: u32,
    /// Number of the supply.
    pub(super) supply: u32,
    /// The lowest of them; the others are in the terms.
    pub(super) features: u16,
}

/// Where an entry stands in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryKey {
    /// Of a machine of one vCPU and two GiB.
    pub(super) price: u64,
    age: u64,
    supply: u32,
}

impl Entry {
    pub(super) fn new(supply: &Supply, number: u32, provider: u32, free: Resources) -> Self {
        let offer = &supply.offer;
        let [low, high, ..] = offer.features.0.to_le_bytes();
        Self {
            per_vcpu: offer.prices.per_vcpu_epoch.get(),
            per_gib: offer.prices.per_gib_epoch.get(),
            affordable: NO_ASK,
            age: age(supply),
            region: places::number(offer.region),
            milli_cpu: free.milli_cpu,
            memory_mib: free.memory_mib,
            term: if offer.max_epochs == 0 { u32::MAX } else { offer.max_epochs },
            provider,
            supply: number,
            features: u16::from_le_bytes([low, high]),
        }
    }

    /// Whether it has all of these features; `all` knows those that do not stand here.
    pub(super) fn has(&self, features: u64, all: impl Fn() -> Option<u64>) -> bool {
        let own = u64::from(self.features);
        features & !own == 0 || (features > u64::from(u16::MAX) && all().is_some_and(|all| features & !all == 0))
    }

    /// The largest part of something free that costs no more than the provider affords: where so many `units` cost `price`.
    fn within_means(&self, free: u32, price: u64, units: u64) -> u32 {
        if self.affordable == NO_ASK {
            return free;
        }
        // free · price / units < affordable + 1
        let most = u128::from(self.affordable).saturating_add(1).saturating_mul(u128::from(units));
        let most =
            most.checked_add(u128::from(price)).and_then(|sum| sum.checked_sub(1)?.checked_div(u128::from(price)));
        most.and_then(|most| u32::try_from(most.saturating_sub(1)).ok()).map_or(free, |most| free.min(most))
    }
}

/// The columns of whatever can host such a size for such a term in one of these regions, of which `shape` is the common part.
fn wanted(shape: Shape, size: Resources, term: u32, regions: &[Region]) -> Wanted {
    let (mut common, mut own) = (Group::default(), Group::default());
    let (cpu, memory_mib) = (cpu(size.milli_cpu), size.memory_mib);
    // What says most comes first.
    common.at_least(JOINT_COLUMNS, CPU.step(shape.cpu.min(shape.memory_mib.div_euclid(2))));
    common.at_least(CPU_COLUMNS, CPU.step(shape.cpu));
    common.at_least(MEMORY_COLUMNS, MEMORY.step(shape.memory_mib));
    common.all(feature_columns(shape.features));
    if (shape.cpu, shape.memory_mib) != (cpu, memory_mib) {
        own.at_least(JOINT_COLUMNS, CPU.step(joint(size.milli_cpu, memory_mib)));
        own.at_least(CPU_COLUMNS, CPU.step(cpu));
        own.at_least(MEMORY_COLUMNS, MEMORY.step(memory_mib));
    }
    own.at_least(TERM_COLUMNS, TERM.step(term));
    regions.iter().for_each(|region| own.any(place_column(places::column_within(*region))));
    Wanted { common, note: None, own }
}

/// What to search the lists for once, so that nothing is to be noted of it.
pub(super) fn wanted_once(size: Resources, features: u64, term: u32, regions: &[Region]) -> Wanted {
    wanted(Shape::new(size, features), size, term, regions)
}

/// Those of features that have columns.
fn feature_columns(features: u64) -> Columns {
    Columns::placed(features & low_bits(FEATURES), FEATURE_COLUMNS)
}

/// The column of a place's column.
const fn place_column(column: usize) -> usize {
    PLACE_COLUMNS.saturating_add(column)
}

/// The order of registration in 64 bits: of two supplies the earlier never has the larger number. Far-off places share one
/// number, and [`super::search`] then compares the places themselves.
pub(super) fn age(supply: &Supply) -> u64 {
    const HALF: u64 = 1 << 23;
    let log_index = supply.place.log_index;
    let low = match log_index.checked_sub(crate::snapshot::SIGNED_LOG_INDEX) {
        None => log_index.min(HALF.saturating_sub(1)),
        Some(sequence) => HALF.saturating_add(sequence.min(HALF.saturating_sub(1))),
    };
    supply.place.block.min((1 << 40) - 1).saturating_mul(HALF.saturating_mul(2)).saturating_add(low)
}

impl Item for Entry {
    type Key = EntryKey;
    type Bounds = Floor;
    const COLUMNS: usize = PLACE_COLUMNS + CONTINENT_COLUMNS + COUNTRY_COLUMNS;

    fn id(&self) -> u32 {
        self.supply
    }

    fn key(&self) -> EntryKey {
        let price = self.per_vcpu.saturating_add(self.per_gib.saturating_mul(2));
        EntryKey { price, age: self.age, supply: self.supply }
    }

    fn columns(&self) -> Columns {
        let (continent, country) = places::columns_of(self.region);
        let places = Columns::one(place_column(continent)).and(Columns::one(place_column(country)));
        let term = TERM.step(self.term).columns(TERM_COLUMNS);
        self.changing_columns().and(term).and(places).and(feature_columns(u64::from(self.features)))
    }

    fn changing_columns(&self) -> Columns {
        let milli_cpu = self.within_means(self.milli_cpu, self.per_vcpu, 1_000);
        let memory_mib = self.within_means(self.memory_mib, self.per_gib, 1_024);
        let cpu_columns = CPU.step(cpu(milli_cpu)).columns(CPU_COLUMNS);
        let memory_columns = MEMORY.step(memory_mib).columns(MEMORY_COLUMNS);
        cpu_columns.and(memory_columns).and(CPU.step(joint(milli_cpu, memory_mib)).columns(JOINT_COLUMNS))
    }

    fn bounds(&self) -> Floor {
        Floor {
            per_vcpu: self.per_vcpu,
            per_gib: self.per_gib,
            age: self.age,
            joint: joint(self.milli_cpu, self.memory_mib),
            providers: Few::one(self.provider),
        }
    }
}

/// Up to four accounts, or too many to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Few([u32; 4]);

impl Few {
    const NOBODY: u32 = u32::MAX;
    const MANY: Self = Self([Self::NOBODY; 4]);

    const fn one(account: u32) -> Self {
        Self([account, Self::NOBODY, Self::NOBODY, Self::NOBODY])
    }

    fn is_many(self) -> bool {
        self == Self::MANY
    }

    fn with(mut self, account: u32) -> Self {
        for place in &mut self.0 {
            if *place == account {
                return self;
            }
            if *place == Self::NOBODY {
                *place = account;
                return self;
            }
        }
        Self::MANY
    }

    fn join(&mut self, other: Self) {
        if other.is_many() {
            *self = Self::MANY;
        }
        for account in other.0.into_iter().take_while(|account| *account != Self::NOBODY) {
            if self.is_many() {
                return;
            }
            *self = self.with(account);
        }
    }

    /// Whether there are few and `holds` is true for each.
    pub(super) fn all(self, holds: impl Fn(u32) -> bool) -> bool {
        !self.is_many() && self.0.into_iter().take_while(|account| *account != Self::NOBODY).all(holds)
    }
}

/// Bounds on many entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Floor {
    /// Lowest.
    pub(super) per_vcpu: u64,
    /// Lowest.
    pub(super) per_gib: u64,
    /// Lowest.
    pub(super) age: u64,
    /// Largest.
    pub(super) joint: u32,
    /// Whose they are.
    pub(super) providers: Few,
}

impl Bounds for Floor {
    fn is_edge(&self, _item: &Self) -> bool {
        false
    }

    fn join(&mut self, other: &Self) {
        self.per_vcpu = self.per_vcpu.min(other.per_vcpu);
        self.per_gib = self.per_gib.min(other.per_gib);
        self.age = self.age.min(other.age);
        self.joint = self.joint.max(other.joint);
        self.providers.join(other.providers);
    }
}

/// Supplies of a continent with nearly the same ratio of prices, in the order of price.
#[derive(Debug)]
pub(super) struct List {
    /// Of prices, and the continent.
    class: (u32, usize),
    /// Of the prices of a GiB and a vCPU, in parts of [`ONE`]: none is below the first or above the second.
    ratios: (u64, u64),
    /// What these make of a vCPU and of a GiB.
    shares: [(u64, u64); 2],
    pub(super) entries: BitmapIndex<Entry>,
}

impl List {
    /// The least that `ask · 1,024,000` of such a size can be for each atom of [`EntryKey::price`].
    ///
    /// With *v* for the price of a vCPU, *ρv* for that of a GiB, *c* milli-CPU and *m* MiB: `ask · 1,024,000` is `v (1024 c +
    /// 1000 m ρ)`, and the key's price is `v (1 + 2 ρ)`. Their quotient rises or falls with *ρ* all the way, and so is least
    /// at one end of the ratios.
    pub(super) fn weight(&self, size: Resources) -> u64 {
        let cpu = u128::from(u64::from(size.milli_cpu).saturating_mul(1_024));
        let memory = u128::from(u64::from(size.memory_mib).saturating_mul(1_000));
        let at = |(of_cpu, of_memory): (u64, u64)| {
            // Below 2⁴² · 2²¹, twice: cannot overflow.
            let parts = cpu.wrapping_mul(u128::from(of_cpu)).wrapping_add(memory.wrapping_mul(u128::from(of_memory)));
            parts.div_euclid(u128::from(ONE))
        };
        let [low, high] = self.shares;
        u64::try_from(at(low).min(at(high))).unwrap_or(u64::MAX)
    }

    fn widen(&mut self, low: u64, high: u64) {
        let (lowest, highest) = self.ratios;
        self.ratios = (lowest.min(low), highest.max(high));
        if self.ratios != (lowest, highest) {
            self.shares = [shares(self.ratios.0), shares(self.ratios.1)];
        }
    }
}

/// What a vCPU and a GiB are of [`EntryKey::price`] at a ratio, `1 / (1 + 2 ρ)` and `ρ / (1 + 2 ρ)`, in parts of [`ONE`] and
/// rounded down.
fn shares(ratio: u64) -> (u64, u64) {
    if ratio == u64::MAX {
        return (0, ONE.div_euclid(2));
    }
    let (one, ratio) = (u128::from(ONE), u128::from(ratio));
    let share = |parts: u128| {
        let share = parts.saturating_mul(one).checked_div(one.saturating_add(ratio.saturating_mul(2)));
        share.and_then(|share| u64::try_from(share).ok()).unwrap_or_default()
    };
    (share(one), share(ratio))
}

/// The highest [`EntryKey::price`] of which, by a list's weight, something may be at or below `ask`.
pub(super) fn highest_price(ask: u64, weight: u64) -> u64 {
    let parts = u128::from(ask).saturating_add(1).saturating_mul(1_024_000).saturating_sub(1);
    let price = match u64::try_from(parts) {
        // Nearly always 64 bits are enough, and dividing those is several times faster.
        Ok(parts) => parts.checked_div(weight),
        Err(_) => parts.checked_div(u128::from(weight)).and_then(|price| u64::try_from(price).ok()),
    };
    price.unwrap_or(u64::MAX)
}

/// The lists.
#[derive(Debug, Default)]
pub(super) struct Supplies {
    lists: Vec<List>,
    /// Those of which sold-out blocks are noted.
    shapes: Shapes,
}

impl Supplies {
    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(|list| list.entries.len()).sum()
    }

    pub(super) fn list(&mut self, at: usize) -> Option<&mut List> {
        self.lists.get_mut(at)
    }

    /// Those in which something can be within one of these regions, with their numbers.
    pub(super) fn lists_within(&self, regions: &[Region]) -> impl Iterator<Item = (usize, &List)> {
        let continents = regions.iter().map(|region| places::continent_of(places::number(*region)));
        let continents = continents.fold(0, |all, continent| all | places::place_bit(continent));
        let is_within = move |list: &List| continents == 0 || continents & places::place_bit(list.class.1) != 0;
        self.lists.iter().enumerate().filter(move |(_, list)| is_within(list))
    }

    /// What to search the lists for.
    pub(super) fn wanted(&mut self, size: Resources, term: u32, features: u64, regions: &[Region]) -> Wanted {
        let shape = Shape::new(size, features);
        Wanted { note: self.note_of(shape), ..wanted(shape, size, term, regions) }
    }

    /// The number of a shape, if it is noted.
    fn note_of(&mut self, shape: Shape) -> Option<usize> {
        let (note, is_new) = self.shapes.note_of(shape)?;
        if is_new {
            self.lists.iter_mut().for_each(|list| list.entries.forget(note));
        }
        Some(note)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let (class, ratio) = (class_of(&entry), ratio_of(&entry));
        let above = if entry.per_vcpu == 0 { u64::MAX } else { ratio.saturating_add(1) };
        let at = match self.lists.binary_search_by_key(&class, |list| list.class) {
            Ok(at) => at,
            Err(at) => {
                let shares = [shares(ratio), shares(above)];
                let list = List { class, ratios: (ratio, above), shares, entries: BitmapIndex::default() };
                self.lists.insert(at, list);
                at
            }
        };
        let Some(list) = self.lists.get_mut(at) else { return };
        list.widen(ratio, above);
        list.entries.insert(entry, self.shapes.within(&entry));
    }

    /// Takes out the supply that stands where `entry` does.
    pub(super) fn remove(&mut self, entry: &Entry) -> Option<Entry> {
        let at = self.lists.binary_search_by_key(&class_of(entry), |list| list.class).ok()?;
        let list = self.lists.get_mut(at)?;
        let removed = list.entries.remove(entry.supply, &entry.key());
        if list.entries.len() == 0 {
            self.lists.remove(at);
        }
        removed
    }

    /// Changes the supply that stands where `entry` does: how much of it is free, what its provider affords.
    pub(super) fn change(&mut self, entry: &Entry, change: impl FnOnce(&mut Entry)) {
        let at = self.lists.binary_search_by_key(&class_of(entry), |list| list.class);
        if let Some(list) = at.ok().and_then(|at| self.lists.get_mut(at)) {
            let shapes = &self.shapes;
            list.entries.change(entry.supply, &entry.key(), change, |entry| shapes.within(entry));
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let own = self.lists.capacity().saturating_mul(size_of::<List>());
        self.lists.iter().map(|list| list.entries.memory_bytes()).fold(own, usize::saturating_add)
    }
}

/// The price of a GiB in parts of the price of a vCPU.
fn ratio_of(entry: &Entry) -> u64 {
    let parts = u128::from(entry.per_gib).saturating_mul(u128::from(ONE));
    parts.checked_div(u128::from(entry.per_vcpu)).and_then(|ratio| u64::try_from(ratio).ok()).unwrap_or(u64::MAX)
}

/// The list of an entry: half doublings of the ratio, with all that is very low in one class and all that is very high in
/// another, and the continent.
fn class_of(entry: &Entry) -> (u32, usize) {
    /// A sixty-fourth and eight, as powers of two of [`ONE`]'s parts.
    const LOGS: (u32, u32) = (14, 23);
    let (ratio, continent) = (ratio_of(entry), places::continent_of(entry.region));
    let Some(log) = ratio.checked_ilog2().filter(|log| *log >= LOGS.0) else { return (0, continent) };
    let half = log.checked_sub(1).and_then(|bit| ratio.checked_shr(bit)).unwrap_or_default() & 1;
    (log.saturating_mul(2).saturating_add(u32::from(half == 1)).min(LOGS.1.saturating_mul(2)), continent)
}
