//! Why demands found no host, in the market that was left, and whether what is suggested helps.

use ::matching::{
    engine::Engine,
    explain::{Change, Explanation},
    snapshot::Demand,
};
use common::{ids::OfferHash, money::Atoms};
use serde_json::{Map, Value, json};

use super::scale::Times;

/// What explanations came to.
#[derive(Default)]
struct Tally {
    asked: usize,
    one_change: usize,
    more_changes: usize,
    /// Nothing helps, and the demand finds nobody even with all of it relaxed.
    none_exists: usize,
    /// What was suggested did not match, or something was overlooked.
    wrong: usize,
}

/// Explains unmatched demands, one after the other. The figures of the market that comes last stand for all.
pub(super) fn run(
    engine: &mut Engine,
    unmatched: impl Iterator<Item = OfferHash>,
    label: &str,
    figures: &mut Map<String, Value>,
) -> anyhow::Result<()> {
    let (mut times, mut tally) = (Times::default(), Tally::default());
    let demands: Vec<Demand> = unmatched.filter_map(|hash| engine.demand(hash).cloned()).collect();
    for demand in &demands {
        let explanation = times.take(|| engine.explain(demand));
        tally.asked += 1;
        if explanation.suggestions.is_empty() {
            let relaxed = engine.quote(&relaxed(demand));
            *(if relaxed.is_empty() { &mut tally.none_exists } else { &mut tally.wrong }) += 1;
        } else if !helps(engine, demand, &explanation) {
            tally.wrong += 1;
        } else if explanation.suggestions[0].changes.len() == 1 {
            tally.one_change += 1;
        } else {
            tally.more_changes += 1;
        }
    }
    let share = |count: usize| count as f64 / tally.asked.max(1) as f64;
    let explained = share(tally.asked - tally.wrong);
    let (mean, p50, p99) = (times.mean_us(), times.quantile_us(0.5), times.quantile_us(0.99));
    println!(
        "  explain  mean {mean:>8.2} us  p50 {p50:>8.2} us  p99 {p99:>8.2} us; of {} unmatched {:.1} % match with one \
         change, {:.1} % with more, {:.1} % with none, {} answers are wrong",
        tally.asked,
        100.0 * share(tally.one_change),
        100.0 * share(tally.more_changes),
        100.0 * share(tally.none_exists),
        tally.wrong,
    );
    for (name, value) in [("explain_mean_us", mean), ("explain_p50_us", p50), ("explain_p99_us", p99)] {
        figures.insert(format!("offers_{label}_{name}"), json!(value));
    }
    let shares = [
        ("explained_fraction", explained),
        ("explained_by_one_change_fraction", share(tally.one_change)),
        ("explained_by_more_changes_fraction", share(tally.more_changes)),
        ("explained_as_hopeless_fraction", share(tally.none_exists)),
    ];
    for (name, value) in shares {
        figures.insert(format!("offers_{label}_{name}"), json!(value));
    }
    figures.insert("explain_p99_us".into(), json!(p99));
    figures.insert("explained_fraction".into(), json!(explained));
    Ok(())
}

/// Whether each suggestion, carried out on the offer, finds the hosts that it says.
fn helps(engine: &mut Engine, demand: &Demand, explanation: &Explanation) -> bool {
    explanation.suggestions.iter().all(|suggestion| {
        let mut changed = demand.clone();
        suggestion.changes.iter().for_each(|change| change.apply(&mut changed.offer));
        let quote = engine.quote(&renamed(changed));
        let price: u64 = quote.iter().map(|replica| replica.ask.get()).sum();
        quote.len() == suggestion.replicas && price == suggestion.price_per_epoch.get()
    })
}

/// Nobody here is short of money, so that all but that is relaxed.
fn relaxed(demand: &Demand) -> Demand {
    let mut relaxed = demand.clone();
    let changes = [
        Change::MaxPrice { max_price_per_epoch: Atoms::MAX_PRICE },
        Change::AnyRegion,
        Change::DropFeatures { features: demand.offer.features },
        Change::Epochs { epochs: 1 },
        Change::MilliCpu { milli_cpu: 1 },
        Change::MemoryMib { memory_mib: 1 },
        Change::MinReplicas { min_replicas: 1 },
    ];
    changes.iter().for_each(|change| change.apply(&mut relaxed.offer));
    renamed(relaxed)
}

/// An offer that the market does not know.
fn renamed(demand: Demand) -> Demand {
    Demand { hash: OfferHash([0xff; 32]), ..demand }
}
