//! What can be relaxed, and the least change of each that is enough. Numbers are found by bisection: a higher price, a
//! smaller size and a shorter term never place fewer replicas, since the engine goes from cheap to dear.
//!
//! One case breaks that order: a developer that may host its own worker pays lock and bond of one balance, so that its own
//! offer can be the cheapest and yet take the most money. Suggestions are tried then as always, but need not be the least.

use std::collections::BTreeSet;

use common::{event::Reason, feature::FeatureSet, money::Atoms, offer::MAX_REGIONS, region::Region};

use super::trial::{Change, Trial};
use crate::feasible::Reasons;

/// Bytes that name a continent, a country and a site: the prefixes to try.
const PREFIXES: [usize; 3] = [8, 4, 2];

/// Most different places that are tried: the cheapest ones.
const MAX_PLACES: usize = 64;

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
            Self::Term => offer.epochs > 1 && trial.ledger().placement(trial.demand.hash).end_epoch.is_none(),
            Self::Cpu => offer.size.milli_cpu > 1,
            Self::Memory => offer.size.memory_mib > 1,
            Self::MinReplicas => goal == offer.min_replicas && offer.min_replicas > 1,
            Self::Providers => !offer.allow.is_empty() || !offer.deny.is_empty(),
            Self::Funds => !trial.demand.unlimited_funds,
        }
    }

    /// The trial with this thing no longer in the way.
    pub(super) fn relaxed<'a>(self, trial: &Trial<'a>) -> Trial<'a> {
        trial.with(match self {
            Self::Price => Change::MaxPrice { max_price_per_epoch: Atoms::MAX_PRICE },
            Self::Regions => Change::AnyRegion,
            Self::Features => Change::DropFeatures { features: trial.demand.offer.features },
            Self::Term => Change::Epochs { epochs: 1 },
            Self::Cpu => Change::MilliCpu { milli_cpu: 1 },
            Self::Memory => Change::MemoryMib { memory_mib: 1 },
            Self::MinReplicas => Change::MinReplicas { min_replicas: 1 },
            Self::Providers => Change::AnyProvider,
            Self::Funds => Change::Deposit { amount: Atoms::MAX },
        })
    }

    /// The least change of this thing with which `goal` replicas have a host; `None` when none is enough.
    pub(super) fn least_change(self, trial: &Trial<'_>, goal: u16) -> Option<Change> {
        if self == Self::MinReplicas {
            return least_min_replicas(trial);
        }
        let relaxed = self.relaxed(trial);
        if !relaxed.is_satisfied(goal) {
            return None;
        }
        let enough = |change: &Change| trial.with(change.clone()).is_satisfied(goal);
        match self {
            Self::Price => least_price(trial, goal),
            Self::Regions => cheapest_region(trial, goal),
            Self::Features => fewest_features(trial, goal),
            Self::Term => largest(trial.demand.offer.epochs, |epochs| enough(&Change::Epochs { epochs }))
                .map(|epochs| Change::Epochs { epochs }),
            Self::Cpu => {
                largest(trial.demand.offer.size.milli_cpu, |milli_cpu| enough(&Change::MilliCpu { milli_cpu }))
                    .map(|milli_cpu| Change::MilliCpu { milli_cpu })
            }
            Self::Memory => {
                largest(trial.demand.offer.size.memory_mib, |memory_mib| enough(&Change::MemoryMib { memory_mib }))
                    .map(|memory_mib| Change::MemoryMib { memory_mib })
            }
            Self::Providers => Some(Change::AnyProvider),
            Self::Funds => least_deposit(trial, &relaxed, goal),
            Self::MinReplicas => None,
        }
    }
}

/// Largest value in `1..below` that is enough, when every smaller one is enough too.
fn largest(below: u32, enough: impl Fn(u32) -> bool) -> Option<u32> {
    let (mut good, mut bad) = (0_u32, below);
    while bad.saturating_sub(good) > 1 {
        let middle = good.midpoint(bad);
        if enough(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    (good > 0).then_some(good)
}

fn least_price(trial: &Trial<'_>, goal: u16) -> Option<Change> {
    let now = trial.demand.offer.max_price_per_epoch;
    let asks: BTreeSet<Atoms> = trial
        .relevant(Reasons::of(&[Reason::PriceAboveMaximum]))
        .filter_map(|supply| supply.offer.ask(trial.demand.offer.size))
        .filter(|ask| *ask > now)
        .collect();
    let asks: Vec<Atoms> = asks.into_iter().collect();
    let change = |ask: &Atoms| Change::MaxPrice { max_price_per_epoch: *ask };
    let at = asks.partition_point(|ask| !trial.with(change(ask)).is_satisfied(goal));
    asks.get(at).map(change)
}

/// The place that, accepted too, costs least for all replicas; among equals the narrowest.
fn cheapest_region(trial: &Trial<'_>, goal: u16) -> Option<Change> {
    let mut supplies: Vec<_> = trial
        .relevant(Reasons::of(&[Reason::RegionMismatch]))
        .filter(|supply| !trial.demand.offer.regions.iter().any(|region| region.contains(supply.offer.region)))
        .filter_map(|supply| Some((supply.offer.ask(trial.demand.offer.size)?, supply.offer.region)))
        .collect();
    supplies.sort_unstable();
    let mut places: Vec<Region> = Vec::new();
    for length in PREFIXES {
        for (_, region) in &supplies {
            if let Some(prefix) = prefix(*region, length).filter(|prefix| !places.contains(prefix)) {
                places.push(prefix);
            }
            if places.len() >= MAX_PLACES {
                break;
            }
        }
    }
    let room = trial.demand.offer.regions.len() < MAX_REGIONS;
    let narrow = places.into_iter().filter(|_| room).map(|region| Change::AddRegion { region });
    // Stable, and from narrow to wide.
    narrow
        .chain([Change::AnyRegion])
        .map(|change| (trial.with(change.clone()), change))
        .filter(|(changed, _)| changed.is_satisfied(goal))
        .min_by_key(|(changed, _)| cost_of(changed, goal))
        .map(|(_, change)| change)
}

/// What the first `goal` replicas cost: a change that happens to place more is not dearer for it.
fn cost_of(trial: &Trial<'_>, goal: u16) -> Atoms {
    let missing = usize::from(goal.saturating_sub(trial.live_replicas()));
    let total: Result<Atoms, _> = trial.fills().iter().take(missing).map(|fill| fill.cost.ask).sum();
    total.unwrap_or(Atoms::MAX)
}

fn prefix(region: Region, length: usize) -> Option<Region> {
    let mut bytes = region.to_bytes();
    bytes.iter_mut().skip(length).for_each(|byte| *byte = 0);
    Region::from_bytes(bytes).ok()
}

/// The smallest set found among what single supplies lack, and what the best of them lack together.
fn fewest_features(trial: &Trial<'_>, goal: u16) -> Option<Change> {
    let required = trial.demand.offer.features;
    let lacking: BTreeSet<(u32, FeatureSet)> = trial
        .relevant(Reasons::of(&[Reason::FeaturesMissing]))
        .map(|supply| required.without(supply.offer.features))
        .filter(|missing| *missing != FeatureSet::EMPTY)
        .map(|missing| (missing.0.count_ones(), missing))
        .collect();
    let mut together = FeatureSet::EMPTY;
    let mut candidates: Vec<FeatureSet> = Vec::new();
    for (_, missing) in lacking {
        together = together.union(missing);
        candidates.extend([missing, together]);
    }
    candidates.sort_by_key(|set| (set.0.count_ones(), *set));
    candidates.dedup();
    let mut changes = candidates.into_iter().map(|features| Change::DropFeatures { features });
    changes.find(|change| trial.with(change.clone()).is_satisfied(goal))
}

fn least_min_replicas(trial: &Trial<'_>) -> Option<Change> {
    let placeable = u16::try_from(trial.placeable()).unwrap_or(u16::MAX);
    let reached = trial.live_replicas().saturating_add(placeable);
    (placeable > 0 && reached < trial.demand.offer.min_replicas)
        .then_some(Change::MinReplicas { min_replicas: reached })
}

/// What the cheapest hosts lock beyond what is there.
fn least_deposit(trial: &Trial<'_>, relaxed: &Trial<'_>, goal: u16) -> Option<Change> {
    let missing = usize::from(goal.saturating_sub(trial.live_replicas()));
    let developer = trial.demand.offer.developer;
    let fills = relaxed.fills();
    let needed: Result<Atoms, _> = fills
        .iter()
        .take(missing)
        .flat_map(|fill| {
            let bond = if fill.supply.offer.provider == developer { fill.cost.bond } else { Atoms::ZERO };
            [fill.cost.lock, bond]
        })
        .sum();
    let amount = needed.ok()?.checked_sub(trial.ledger().free(developer)).ok()?;
    Some(Change::Deposit { amount })
}
