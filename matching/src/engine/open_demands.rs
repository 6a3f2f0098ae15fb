//! Demands that were looked at in vain, and whom a supply could serve that is new, freer or better funded than before.
//!
//! They are in the order of the highest prices that they pay: what a supply asks of them is then at the
//! beginning.

use std::cmp::Reverse;

use common::{
    ids::OfferHash,
    resources::{Prices, Resources},
    state::Place,
};

use super::{
    bitmap::{BitmapIndex, Bounds, Item, Position, Step, Visit},
    columns::{Columns, Digits, Group, Notes, Wanted, low_bits},
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
            places: places::columns_within(&demand.offer.regions),
        }
    }

    pub(super) fn fits(&self, offered: &Offered) -> bool {
        let Offered { entry, features, prices } = offered;
        self.size.milli_cpu <= entry.milli_cpu
            && self.size.memory_mib <= entry.memory_mib
            && self.term <= entry.term
            && self.features & !features == 0
            && prices.ask(self.size).is_ok_and(|ask| ask.get() <= self.max_price && ask.get() <= entry.affordable)
    }
}

impl Item for Wish {
    type Key = WishKey;
    type Bounds = Turns;
    const COLUMNS: usize = PLACE_COLUMNS + CONTINENT_COLUMNS + COUNTRY_COLUMNS;

    fn id(&self) -> u32 {
        self.demand
    }

    fn key(&self) -> WishKey {
        WishKey { below: u64::MAX.saturating_sub(self.limit), turn: self.turn }
    }

    fn columns(&self) -> Columns {
        let joint = joint(self.size.milli_cpu, self.size.memory_mib);
        let columns = CPU.step(cpu(self.size.milli_cpu)).reversed().columns(CPU_COLUMNS);
        let columns = columns.and(MEMORY.step(self.size.memory_mib).reversed().columns(MEMORY_COLUMNS));
        let columns = columns.and(CPU.step(joint).reversed().columns(JOINT_COLUMNS));
        let columns = columns.and(TERM.step(self.term).reversed().columns(TERM_COLUMNS));
        let columns = columns.and(feature_columns(!self.features));
        if self.places == 0 {
            return columns.and(Columns::one(ANYWHERE_COLUMN));
        }
        columns.and(Columns::placed(self.places, PLACE_COLUMNS))
    }

    fn changing_columns(&self) -> Columns {
        self.columns()
    }

    fn bounds(&self) -> Turns {
        Turns { first: self.turn.place, last: self.turn.place }
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
    wanted.all(feature_columns(lacking));
    let (continent, country) = places::columns_of(entry.region);
    wanted.any(ANYWHERE_COLUMN);
    wanted.any(PLACE_COLUMNS.saturating_add(continent));
    wanted.any(PLACE_COLUMNS.saturating_add(country));
    Wanted { common: wanted, ..Wanted::default() }
}

/// Those of features that have columns.
fn feature_columns(features: u64) -> Columns {
    Columns::placed(features & low_bits(FEATURES), FEATURE_COLUMNS)
}

/// First and last place in the order of service of many wishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turns {
    first: Place,
    last: Place,
}

impl Bounds for Turns {
    fn is_edge(&self, item: &Self) -> bool {
        self.first == item.first
    }

    fn join(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
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
        self.wishes.insert(wish, Notes::default());
    }

    pub(super) fn remove(&mut self, wish: &Wish) {
        self.wishes.remove(wish.demand, &wish.key());
    }

    /// The first demands behind `after` that a supply fits, their developers' money, lists and regions apart; `most` of
    /// them, the last one first.
    pub(super) fn served(&mut self, offered: &Offered, after: Option<Turn>, most: usize) -> Served {
        let entry = &offered.entry;
        let lesser = entry.per_vcpu.min(entry.per_gib.saturating_mul(8));
        let below = u64::MAX.saturating_sub(lesser);
        let mut asked = Asked { offered, below, after, until: None, most, wishes: Vec::new() };
        let wanted = wanted(entry, self.needed & !offered.features);
        let mut position = Position::default();
        while let Some(next) = self.wishes.search(position, &wanted, &mut asked) {
            position = next;
        }
        asked.cut();
        let Asked { mut wishes, until, .. } = asked;
        wishes.sort_unstable_by_key(|wish| Reverse(wish.turn));
        Served { wishes, is_all: until.is_none() }
    }
}

/// What a supply offers to waiting demands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered {
    pub(super) entry: Entry,
    pub(super) features: u64,
    pub(super) prices: Prices,
}

/// Demands that a supply fits.
#[derive(Debug)]
pub(super) struct Served {
    /// The last one first.
    pub(super) wishes: Vec<Wish>,
    /// Whether there are no others behind them.
    pub(super) is_all: bool,
}

/// A supply that looks for whom it serves.
struct Asked<'a> {
    offered: &'a Offered,
    /// Behind this the wishes pay too little.
    below: u64,
    after: Option<Turn>,
    /// From this turn on there are more than enough.
    until: Option<Turn>,
    most: usize,
    wishes: Vec<Wish>,
}

impl Asked<'_> {
    /// Drops the last ones, where there are more than enough.
    fn cut(&mut self) {
        if self.wishes.len() > self.most {
            let (_, first_too_many, _) = self.wishes.select_nth_unstable_by_key(self.most, |wish| wish.turn);
            self.until = Some(first_too_many.turn);
            self.wishes.truncate(self.most);
        }
    }
}

impl Visit<Wish> for Asked<'_> {
    fn judge(&mut self, first: &WishKey, turns: &Turns) -> Step {
        let is_behind = self.after.is_none_or(|after| turns.last >= after.place);
        if first.below > self.below {
            Step::Stop
        } else if is_behind && self.until.is_none_or(|until| turns.first <= until.place) {
            Step::Enter
        } else {
            Step::Skip
        }
    }

    fn item(&mut self, wish: &Wish) {
        let is_asked =
            self.until.is_none_or(|until| wish.turn < until) && self.after.is_none_or(|after| wish.turn > after);
        if is_asked && wish.fits(self.offered) {
            self.wishes.push(*wish);
            if self.wishes.len() >= self.most.saturating_mul(2) {
                self.cut();
            }
        }
    }

    fn looked(&mut self) {}
}
