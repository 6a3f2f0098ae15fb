//! What can be relaxed, and the least change of each that is enough. A higher price, a smaller size and a shorter term
//! never place fewer replicas, since the engine goes from cheap to dear, so that what the dearest or smallest of enough hosts
//! has is the least change. Every change is tried before it is suggested.
//!
//! One case breaks that order: a developer that may host its own worker pays lock and bond of one balance, so that its own
//! offer can be the cheapest and yet take the most money. Suggestions are tried then as always, but need not be the least.

use std::collections::BTreeSet;

use common::{feature::FeatureSet, money::Atoms, offer::MAX_REGIONS, region::Region};

use super::trial::{Change, PlacedTrial, Trial};
use crate::engine::{Engine, Part, highest};

/// Bytes that name a continent, a country and a site: the prefixes to try.
const PREFIXES: [usize; 3] = [8, 4, 2];

/// Most hosts beyond those needed that are looked at for other places and features.
const MORE_HOSTS: usize = 8;

/// Most places and sets of features that are tried: the cheapest and the smallest ones.
const MAX_TRIED: usize = 16;

/// A thing that can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    Price,
    Regions,
    Features,
    Term,
    Cpu,
    Memory,
    MinReplicas,
    Providers,
    Funds,
}

impl Dimension {
    pub(super) const ALL: [Self; 9] = [
        Self::Price,
        Self::Regions,
        Self::Features,
        Self::Term,
        Self::Cpu,
        Self::Memory,
        Self::MinReplicas,
        Self::Providers,
        Self::Funds,
    ];

    /// Whether there is anything to relax.
    pub(super) fn applies_to(self, trial: &Trial<'_>, goal: u16) -> bool {
        let offer = &trial.demand.offer;
        match self {
            Self::Price => offer.max_price_per_epoch < Atoms::MAX_PRICE,
            Self::Regions => !offer.regions.is_empty(),
            Self::Features => offer.features != FeatureSet::EMPTY,
            // The first match fixes the end of the term.
            Self::Term => offer.epochs > 1 && trial.situation.placement.end_epoch.is_none(),
            Self::Cpu => offer.size.milli_cpu > 1,
            Self::Memory => offer.size.memory_mib > 1,
            Self::MinReplicas => goal == offer.min_replicas && offer.min_replicas > 1,
            Self::Providers => !offer.allow.is_empty() || !offer.deny.is_empty(),
            Self::Funds => !trial.demand.unlimited_funds,
        }
    }

    /// The trial with this thing no longer in the way.
    pub(super) fn relaxed<'a>(self, engine: &Engine, trial: &Trial<'a>) -> Trial<'a> {
        let change = match self {
            Self::Price => Change::MaxPrice { max_price_per_epoch: Atoms::MAX_PRICE },
            Self::Regions => Change::AnyRegion,
            Self::Features => Change::DropFeatures { features: trial.demand.offer.features },
            Self::Term => Change::Epochs { epochs: 1 },
            Self::Cpu => Change::MilliCpu { milli_cpu: 1 },
            Self::Memory => Change::MemoryMib { memory_mib: 1 },
            Self::MinReplicas => Change::MinReplicas { min_replicas: 1 },
            Self::Providers => Change::AnyProvider,
            Self::Funds => Change::Deposit { amount: Atoms::MAX },
        };
        trial.with(engine, change)
    }

    /// The demand with the least change of this thing with which `goal` replicas have a host; `None` when none is enough.
    pub(super) fn least_change<'a>(self, engine: &mut Engine, trial: &Trial<'a>, goal: u16) -> Option<PlacedTrial<'a>> {
        match self {
            Self::Price => least_price(engine, trial, goal),
            Self::Regions => cheapest_region(engine, trial, goal),
            Self::Features => fewest_features(engine, trial, goal),
            Self::Term => largest(engine, trial, goal, Part::Term),
            Self::Cpu => largest(engine, trial, goal, Part::Cpu),
            Self::Memory => largest(engine, trial, goal, Part::Memory),
            Self::MinReplicas => least_min_replicas(engine, trial),
            Self::Providers => trial.with(engine, Change::AnyProvider).placed(engine, goal),
            Self::Funds => least_deposit(engine, trial, goal),
        }
    }
}

/// The size or term that the last of enough hosts has, or where money stands in the way, the largest that can be paid.
fn largest<'a>(engine: &mut Engine, trial: &Trial<'a>, goal: u16, part: Part) -> Option<PlacedTrial<'a>> {
    let change = |value: u32| match part {
        Part::Cpu => Change::MilliCpu { milli_cpu: value },
        Part::Memory => Change::MemoryMib { memory_mib: value },
        Part::Term => Change::Epochs { epochs: value },
    };
    let most = trial.most_of(engine, part, goal)?;
    let placed = trial.with(engine, change(most)).placed(engine, goal);
    if placed.is_some() {
        return placed;
    }
    // Each of them would do, but all of them cost too much together.
    let good = highest(0, most, |value| trial.with(engine, change(value)).is_satisfied(engine, goal));
    (good > 0).then(|| trial.with(engine, change(good))).and_then(|trial| trial.placed(engine, goal))
}

/// What the dearest of enough hosts asks, or where that is not enough for a developer that hosts itself, one of the next.
fn least_price<'a>(engine: &mut Engine, trial: &Trial<'a>, goal: u16) -> Option<PlacedTrial<'a>> {
    let now = trial.demand.offer.max_price_per_epoch;
    let relaxed = Dimension::Price.relaxed(engine, trial);
    let needed = trial.needed(goal);
    let more = if engine.is_provider(trial.demand.offer.developer) { MORE_HOSTS } else { 0 };
    let hosts = relaxed.hosts(engine, needed.saturating_add(more));
    let asks: BTreeSet<Atoms> = hosts.iter().skip(needed.saturating_sub(1)).map(|(_, cost)| cost.ask).collect();
    let changes = asks.into_iter().filter(|ask| *ask > now).map(|ask| Change::MaxPrice { max_price_per_epoch: ask });
    changes.into_iter().find_map(|change| trial.with(engine, change).placed(engine, goal))
}

/// The place that, accepted too, costs least for all replicas; among equals the narrowest.
fn cheapest_region<'a>(engine: &mut Engine, trial: &Trial<'a>, goal: u16) -> Option<PlacedTrial<'a>> {
    let needed = trial.needed(goal);
    let anywhere = Dimension::Regions.relaxed(engine, trial).placed(engine, goal)?;
    let least = anywhere.asks(needed);
    let mut best: Option<(Atoms, PlacedTrial<'a>)> = None;
    let room = trial.demand.offer.regions.len() < MAX_REGIONS;
    for region in other_places(engine, trial, goal).into_iter().filter(|_| room) {
        let changed = trial.with(engine, Change::AddRegion { region });
        let Some(placed) = changed.placed(engine, goal) else { continue };
        let cost = placed.asks(needed);
        if cost == least {
            return Some(placed);
        }
        // A dearer single place is better than any: where a worker runs may matter.
        if best.as_ref().is_none_or(|(cheapest, _)| cost < *cheapest) {
            best = Some((cost, placed));
        }
    }
    Some(best.map_or(anywhere, |(_, placed)| placed))
}

/// Places of the cheapest hosts that the demand does not accept, from narrow to wide.
fn other_places(engine: &mut Engine, trial: &Trial<'_>, goal: u16) -> Vec<Region> {
    let relaxed = Dimension::Regions.relaxed(engine, trial);
    let hosts = relaxed.hosts(engine, trial.needed(goal).saturating_add(MORE_HOSTS));
    let places = hosts.iter().filter_map(|(supply, _)| Some(engine.supply_at(*supply)?.offer.region));
    let accepted = &trial.demand.offer.regions;
    let others: Vec<Region> = places.filter(|place| !accepted.iter().any(|region| region.contains(*place))).collect();
    let mut prefixes = Vec::new();
    for length in PREFIXES {
        for place in &others {
            let prefix = place.prefix(length).filter(|prefix| !prefixes.contains(prefix));
            prefixes.extend(prefix.filter(|_| prefixes.len() < MAX_TRIED));
        }
    }
    prefixes
}

/// The smallest set found among single features, what single hosts lack, and what the best of them lack together.
fn fewest_features<'a>(engine: &mut Engine, trial: &Trial<'a>, goal: u16) -> Option<PlacedTrial<'a>> {
    let required = trial.demand.offer.features;
    let relaxed = Dimension::Features.relaxed(engine, trial);
    if !relaxed.is_satisfied(engine, goal) {
        return None;
    }
    let hosts = relaxed.hosts(engine, trial.needed(goal).saturating_add(MORE_HOSTS));
    let offered = hosts.iter().filter_map(|(supply, _)| Some(engine.supply_at(*supply)?.offer.features));
    let lacking: BTreeSet<(u32, FeatureSet)> = offered
        .map(|offered| required.without(offered))
        .filter(|missing| *missing != FeatureSet::EMPTY)
        .map(|missing| (missing.0.count_ones(), missing))
        .collect();
    let mut candidates: Vec<FeatureSet> = required.each().collect();
    let mut together = FeatureSet::EMPTY;
    for (_, missing) in lacking {
        together = together.union(missing);
        candidates.extend([missing, together]);
    }
    candidates.sort_by_key(|set| (set.0.count_ones(), *set));
    candidates.dedup();
    candidates.truncate(MAX_TRIED);
    candidates.push(required);
    let mut changes = candidates.into_iter().map(|features| Change::DropFeatures { features });
    changes.find_map(|change| trial.with(engine, change).placed(engine, goal))
}

fn least_min_replicas<'a>(engine: &mut Engine, trial: &Trial<'a>) -> Option<PlacedTrial<'a>> {
    let placeable = u16::try_from(trial.fills(engine).len()).unwrap_or(u16::MAX);
    let reached = trial.live_replicas().saturating_add(placeable);
    if placeable == 0 || reached >= trial.demand.offer.min_replicas {
        return None;
    }
    trial.with(engine, Change::MinReplicas { min_replicas: reached }).placed(engine, reached)
}

/// What the cheapest hosts lock beyond what is there.
fn least_deposit<'a>(engine: &mut Engine, trial: &Trial<'a>, goal: u16) -> Option<PlacedTrial<'a>> {
    let developer = trial.demand.offer.developer;
    let relaxed = Dimension::Funds.relaxed(engine, trial);
    let hosts = relaxed.hosts(engine, trial.needed(goal));
    let locked = hosts.iter().flat_map(|(supply, cost)| {
        let is_own = engine.supply_at(*supply).is_some_and(|supply| supply.offer.provider == developer);
        [cost.lock, if is_own { cost.bond } else { Atoms::ZERO }]
    });
    let needed: Result<Atoms, _> = locked.sum();
    let amount = needed.ok()?.checked_sub(trial.situation.free).ok().filter(|amount| *amount > Atoms::ZERO)?;
    trial.with(engine, Change::Deposit { amount }).placed(engine, goal)
}
