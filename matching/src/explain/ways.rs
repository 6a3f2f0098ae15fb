//! Looks for the changes with which a demand is placed.

use common::event::Reason;

use super::{Suggestion, relax::Dimension, trial::Trial};
use crate::engine::Engine;

/// Most suggestions in one explanation.
const MAX_SUGGESTIONS: usize = 12;
/// Steps of the index after which no further pair of changes is tried.
const PAIR_STEPS: u64 = 20_000;

/// What would help: changes of one thing, or else of as few as will do.
pub(super) fn suggestions(
    engine: &mut Engine,
    trial: &Trial<'_>,
    goal: u16,
    blocked: Option<Reason>,
) -> Vec<Suggestion> {
    let Some(trial) = trial.unblocked(engine, blocked) else { return Vec::new() };
    if blocked.is_some()
        && let Some(placed) = trial.clone().placed(engine, goal)
    {
        return vec![placed.suggestion()];
    }
    let dimensions: Vec<Dimension> = Dimension::ALL.into_iter().filter(|kind| kind.applies_to(&trial, goal)).collect();
    let mut found: Vec<Suggestion> =
        dimensions.iter().filter_map(|dimension| changed(engine, &trial, &[*dimension], goal)).collect();
    if found.is_empty() {
        found.extend(fewest(engine, &trial, dimensions.clone(), goal));
        // Where nothing helps, pairs cannot either; only a developer that may host itself is a case of its own.
        if !found.is_empty() || engine.is_provider(trial.demand.offer.developer) {
            let others = pairs(engine, &trial, &dimensions, goal);
            let known = found.first().map(|known| known.changes.clone());
            found.extend(others.into_iter().filter(|other| Some(&other.changes) != known.as_ref()));
        }
    }
    // Few changes first, then what costs least; the order in which they were found settles the rest.
    found.sort_by_key(|suggestion| (suggestion.changes.len(), suggestion.price_per_epoch));
    found.truncate(MAX_SUGGESTIONS);
    found
}

/// The least changes of these things with which the goal is reached: the least of each when those behind it are fully
/// relaxed.
fn changed(engine: &mut Engine, trial: &Trial<'_>, dimensions: &[Dimension], goal: u16) -> Option<Suggestion> {
    let (last, others) = dimensions.split_last()?;
    let mut result = trial.clone();
    for (at, dimension) in others.iter().enumerate() {
        let behind = dimensions.iter().skip(at.saturating_add(1));
        let relaxed = behind.fold(result.clone(), |trial, other| other.relaxed(engine, &trial));
        let placed = dimension.least_change(engine, &relaxed, relaxed.goal(goal))?;
        result = result.with(engine, placed.last_change()?.clone());
    }
    let goal = result.goal(goal);
    last.least_change(engine, &result, goal).map(|placed| placed.suggestion())
}

/// Relaxes everything, then takes back what is not needed, one after the other.
fn fewest(engine: &mut Engine, trial: &Trial<'_>, mut dimensions: Vec<Dimension>, goal: u16) -> Option<Suggestion> {
    if !is_way(engine, trial, &dimensions, goal) {
        return None;
    }
    let trial = &trial.patiently();
    for dimension in dimensions.clone() {
        let others: Vec<Dimension> = dimensions.iter().copied().filter(|other| *other != dimension).collect();
        if is_way(engine, trial, &others, goal) {
            dimensions = others;
        }
    }
    changed(engine, trial, &dimensions, goal)
}

/// Whether relaxing all of these is enough.
fn is_way(engine: &mut Engine, trial: &Trial<'_>, dimensions: &[Dimension], goal: u16) -> bool {
    let relaxed = dimensions.iter().fold(trial.clone(), |trial, dimension| dimension.relaxed(engine, &trial));
    let goal = relaxed.goal(goal);
    relaxed.is_satisfied(engine, goal)
}

fn pairs(engine: &mut Engine, trial: &Trial<'_>, dimensions: &[Dimension], goal: u16) -> Vec<Suggestion> {
    let (begun, mut found) = (engine.work().steps(), Vec::new());
    for (at, first) in dimensions.iter().enumerate() {
        for second in dimensions.iter().skip(at.saturating_add(1)) {
            if engine.work().steps().saturating_sub(begun) > PAIR_STEPS {
                return found;
            }
            let pair = [*first, *second];
            if is_way(engine, trial, &pair, goal) {
                found.extend(changed(engine, trial, &pair, goal));
            }
        }
    }
    found
}
