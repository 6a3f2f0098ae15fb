//! Demands that were looked at in vain, and whom a supply could serve that is new, freer or better funded than before.
//!
//! They are in the order of the highest prices that they pay: what a supply asks of them is then at the
//! beginning.

use common::{
    ids::OfferHash,
    region::Region,
    resources::{Prices, Resources},
    state::Place,
};

use super::{
    bitmap::{BitmapIndex, Bounds, Columns, Digits, Group, Item, Step, Visit, Wanted},
    places::{self, CONTINENT_COLUMNS, COUNTRY_COLUMNS, CPU, FEATURES, MEMORY, TERM, cpu, joint},
    supplies::Entry,
};
use crate::snapshot::Demand;

/// First columns of each kind. Numbers are reversed, so that the columns of what is at most so much can be asked for; of
/// features a demand has those that it does without, of places those that will do.
const CPU_COLUMNS: usize = 0;
const MEMORY_COLUMNS: usize = CPU_COLUMNS + Digits::COLUMNS;
const JOINT_COLUMNS: usize = MEMORY_COLUMNS + Digits::COLUMNS;
const TERM_COLUMNS: usize = JOINT_COLUMNS + Digits::COLUMNS;
const FEATURE_COLUMNS: usize = TERM_COLUMNS + Digits::COLUMNS;
const ANYWHERE_COLUMN: usize = FEATURE_COLUMNS + FEATURES;
const PLACE_COLUMNS: usize = ANYWHERE_COLUMN + 1;

/// Place of a demand in the order of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) place: Place,
    pub(super) hash: OfferHash,
}

/// A demand, as much of it as a supply asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) turn: Turn,
    pub(super) demand: u32,
    pub(super) size: Resources,
    features: u64,
    /// Epochs to go.
    term: u32,
    max_price: u64,
    limit: u64,
    places: u64,
}

/// The highest that the lesser of an offer's price of a vCPU and that of eight GiB can be where it asks no more than this.
///
/// From `ask = (milliCpu · perVcpu · 1024 + memoryMib · perGib · 1000) / 1024000 ≤ max_price`, rounded down: the price of a
/// GiB is at least an eighth of the lesser, the price of a vCPU at least all of it.
fn price_limit(size: Resources, max_price: u64) -> u64 {
    let most = u128::from(max_price).saturating_add(1).saturating_mul(1_024_000).saturating_sub(1);
    let cpu = u128::from(size.milli_cpu).saturating_mul(1_024);
    let memory = u128::from(size.memory_mib).saturating_mul(125);
    let quotient = most.checked_div(cpu.saturating_add(memory)).unwrap_or(u128::MAX);
    u64::try_from(quotient).unwrap_or(u64::MAX)
}

/// Where a wish stands: those that pay most come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WishKey {
    /// What the limit lacks to the highest there is.
    below: u64,
    turn: Turn,
}

impl Wish {
    pub(super) fn new(demand: &Demand, number: u32, term: u32) -> Self {
        let (size, max_price) = (demand.offer.size, demand.offer.max_price_per_epoch.get());
        Self {
            turn: Turn { place: demand.place, hash: demand.hash },
            demand: number,
            size,
            features: demand.offer.features.0,
            term,
            max_price,
            limit: price_limit(size, max_price),
            places: columns_within(&demand.offer.regions),
        }
    }

    pub(super) fn fits(&self, entry: &Entry, features: u64, prices: Prices) -> bool {
        self.size.milli_cpu <= entry.milli_cpu
            && self.size.memory_mib <= entry.memory_mib
            && self.term <= entry.term
            && self.features & !features == 0
            && prices.ask(self.size).is_ok_and(|ask| ask.get() <= self.max_price && ask.get() <= entry.affordable)
    }
}

/// The columns of places in these regions, as bits.
fn columns_within(regions: &[Region]) -> u64 {
    regions.iter().fold(0, |places, region| places | place_bit(places::column_within(*region)))
}

fn place_bit(column: usize) -> u64 {
    u32::try_from(column).ok().and_then(|column| 1_u64.checked_shl(column)).unwrap_or_default()
}

impl Item for Wish {
    type Key = WishKey;
    type Bounds = LastTurn;
    const COLUMNS: usize = PLACE_COLUMNS + CONTINENT_COLUMNS + COUNTRY_COLUMNS;
    const NOTES: usize = 0;

    fn id(&self) -> u32 {
        self.demand
    }

    fn key(&self) -> WishKey {
        WishKey { below: u64::MAX.saturating_sub(self.limit), turn: self.turn }
    }

    fn columns(&self) -> Columns {
        let one = |columns: Columns, column: usize| columns.with(column, column.saturating_add(1));
        let joint = joint(self.size.milli_cpu, self.size.memory_mib);
        let columns = CPU.step(cpu(self.size.milli_cpu)).reversed().columns(CPU_COLUMNS);
        let columns = columns.and(MEMORY.step(self.size.memory_mib).reversed().columns(MEMORY_COLUMNS));
        let columns = columns.and(CPU.step(joint).reversed().columns(JOINT_COLUMNS));
        let columns = columns.and(TERM.step(self.term).reversed().columns(TERM_COLUMNS));
        let free = (0..FEATURES).filter(|feature| self.features >> feature & 1 == 0);
        let columns = free.fold(columns, |columns, feature| one(columns, FEATURE_COLUMNS.saturating_add(feature)));
        if self.places == 0 {
            return one(columns, ANYWHERE_COLUMN);
        }
        let places = (0..CONTINENT_COLUMNS.saturating_add(COUNTRY_COLUMNS))
            .filter(|column| self.places & place_bit(*column) != 0);
        places.fold(columns, |columns, column| one(columns, PLACE_COLUMNS.saturating_add(column)))
    }

    fn bounds(&self) -> LastTurn {
        LastTurn(self.turn.place)
    }
}

/// What a supply with so much free asks for, which lacks these features of those that demands need.
fn wanted(entry: &Entry, lacking: u64) -> Wanted {
    let mut wanted = Group::default();
    let joint = joint(entry.milli_cpu, entry.memory_mib);
    wanted.at_least(JOINT_COLUMNS, CPU.step(joint).reversed());
    wanted.at_least(CPU_COLUMNS, CPU.step(cpu(entry.milli_cpu)).reversed());
    wanted.at_least(MEMORY_COLUMNS, MEMORY.step(entry.memory_mib).reversed());
    wanted.at_least(TERM_COLUMNS, TERM.step(entry.term).reversed());
    let lacking = (0..FEATURES).filter(|feature| lacking >> feature & 1 == 1);
    lacking.for_each(|feature| wanted.all(FEATURE_COLUMNS.saturating_add(feature)));
    let (continent, country) = places::columns_of(entry.region);
    wanted.any(ANYWHERE_COLUMN);
    wanted.any(PLACE_COLUMNS.saturating_add(continent));
    wanted.any(PLACE_COLUMNS.saturating_add(country));
    Wanted { common: wanted, ..Wanted::default() }
}

/// The last place in the order of service of many wishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastTurn(Place);

impl Bounds for LastTurn {
    fn join(&mut self, other: &Self) {
        self.0 = self.0.max(other.0);
    }
}

/// The waiting demands.
#[derive(Debug, Default)]
pub(super) struct OpenDemands {
    wishes: BitmapIndex<Wish>,
    /// Features that a demand needs or needed.
    needed: u64,
}

impl OpenDemands {
    pub(super) const fn is_empty(&self) -> bool {
        self.wishes.len() == 0
    }

    pub(super) fn insert(&mut self, wish: Wish) {
        self.needed |= wish.features;
        self.wishes.insert(wish);
    }

    pub(super) fn remove(&mut self, wish: &Wish) {
        self.wishes.remove(wish.demand, &wish.key());
    }

    /// The demands behind `after` that a supply fits, their developers' money, lists and regions apart.
    pub(super) fn served(
        &mut self,
        entry: &Entry,
        (features, prices): (u64, Prices),
        after: Option<Turn>,
    ) -> Vec<Wish> {
        let lesser = entry.per_vcpu.min(entry.per_gib.saturating_mul(8));
        let below = u64::MAX.saturating_sub(lesser);
        let mut asked = Asked { entry, features, prices, below, after, served: Vec::new() };
        let wanted = wanted(entry, self.needed & !features);
        for (first, page) in self.wishes.pages() {
            let is_over = match page.bounds().map_or(Step::Skip, |turns| asked.judge(first, turns)) {
                Step::Enter => !page.search(&wanted, &mut asked),
                Step::Skip => false,
                Step::Stop => true,
            };
            if is_over {
                break;
            }
        }
        asked.served
    }
}

/// A supply that looks for whom it serves.
struct Asked<'a> {
    entry: &'a Entry,
    features: u64,
    prices: Prices,
    /// Behind this the wishes pay too little.
    below: u64,
    after: Option<Turn>,
    served: Vec<Wish>,
}

impl Visit<Wish> for Asked<'_> {
    fn judge(&mut self, first: &WishKey, last: &LastTurn) -> Step {
        if first.below > self.below {
            Step::Stop
        } else if self.after.is_none_or(|after| last.0 >= after.place) {
            Step::Enter
        } else {
            Step::Skip
        }
    }

    fn item(&mut self, wish: &Wish) {
        let is_behind = self.after.is_none_or(|after| wish.turn > after);
        if is_behind && wish.fits(self.entry, self.features, self.prices) {
            self.served.push(*wish);
        }
    }

    fn looked(&mut self, _blocks: u32) {}
}
