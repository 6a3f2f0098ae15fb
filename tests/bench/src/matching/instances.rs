//! Ready instances with proven upper bounds.

use ::matching::{
    batch::{self, Fairness},
    engine::Engine,
    ledger::Ledger,
    snapshot::{Demand, Snapshot, Supply},
};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Deserialize)]
struct InstanceOffer {
    offer_id: u64,
    provider: String,
    geo: String,
    country: String,
    cpu_milli: u32,
    mem_mib: u32,
    price_nanousd_per_vcpu_hour: u64,
    price_nanousd_per_gib_hour: u64,
    features: u64,
    max_epochs: u32,
}

#[derive(Deserialize)]
struct InstanceDemand {
    demand_id: u64,
    cpu_milli: u32,
    mem_mib: u32,
    replicas: u16,
    region_kind: String,
    region: String,
    features: u64,
    epochs: u32,
    max_price_nanousd_per_replica_hour: u64,
}

#[derive(Deserialize)]
struct Anchor {
    instance: String,
    upper_bound_usd_per_hour: f64,
    methods: BTreeMap<String, Method>,
}

#[derive(Deserialize)]
struct Method {
    welfare_usd_per_hour: f64,
}

/// What a way of matching came to.
struct Outcome {
    matched: usize,
    replicas: usize,
    welfare: u64,
    cost: u64,
    /// Proven by the method itself.
    bound: Option<i128>,
    steps: u64,
    cpu_seconds: f64,
}

/// Matches each instance of the folder. An atom is a nano-dollar here, so that next to nothing is rounded.
pub(super) fn run(folder: &Path, batch_steps: u64, figures: &mut Map<String, Value>) -> anyhow::Result<()> {
    let anchors: Vec<Anchor> = match std::fs::read(folder.join("anchors.json")) {
        Ok(text) => serde_json::from_slice(&text).context("anchors.json is not what the README says")?,
        Err(_) => Vec::new(),
    };
    println!(
        "{:<15} {:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9}",
        "instance", "method", "welfare", "/bound", "own bound", "cheapest", "matched", "cost", "steps", "CPU ms"
    );
    for name in names(folder)? {
        let offers: Vec<InstanceOffer> = read(&folder.join(format!("{name}.offers.csv.zst")))?;
        let demands: Vec<InstanceDemand> = read(&folder.join(format!("{name}.demands.csv.zst")))?;
        let count = demands.len();
        let market = market(&offers, demands)?;
        let anchor = anchors.iter().find(|anchor| anchor.instance == name);
        report(&name, "continuous", count, anchor, &continuous(&market), figures);
        for (method, fairness) in [
            ("batch_unfiltered", Fairness::Off),
            ("batch", Fairness::Surcharge { percent: 0 }),
            ("batch_10_percent", Fairness::Surcharge { percent: 10 }),
        ] {
            let outcome = in_a_batch(&market, batch::Options { fairness, steps: batch_steps, ..Default::default() });
            report(&name, method, count, anchor, &outcome, figures);
        }
    }
    Ok(())
}

/// Names of the instances in a folder, in order.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let files = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<anyhow::Result<_>>()?;
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".offers.csv.zst")?.to_owned());
    let mut names: Vec<String> = paths.iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

fn continuous(market: &Snapshot) -> Outcome {
    let mut engine = Engine::of(market);
    let began = cpu_nanos();
    let plan = engine.plan(usize::MAX);
    let cpu_seconds = (cpu_nanos() - began) as f64 / 1e9;
    let (mut welfare, mut cost) = (0_u64, 0_u64);
    for found in &plan.matches {
        let most = engine.demand(found.demand).unwrap().offer.max_price_per_epoch.get();
        for fill in &found.fills {
            cost += fill.cost.ask.get();
            welfare += most - fill.cost.ask.get();
        }
    }
    let (matched, replicas) = (plan.matches.len(), plan.fills());
    Outcome { matched, replicas, welfare, cost, bound: None, steps: engine.work().steps(), cpu_seconds }
}

fn in_a_batch(market: &Snapshot, options: batch::Options) -> Outcome {
    let began = cpu_nanos();
    let answer = batch::solve(market, &options);
    let cpu_seconds = (cpu_nanos() - began) as f64 / 1e9;
    let fills = answer.plan.matches.iter().flat_map(|planned| &planned.fills);
    Outcome {
        matched: answer.plan.matches.len(),
        replicas: answer.plan.fills(),
        welfare: u64::try_from(answer.welfare).unwrap(),
        cost: fills.map(|fill| fill.cost.ask.get()).sum(),
        bound: Some(answer.bound),
        steps: answer.steps,
        cpu_seconds,
    }
}

fn report(
    name: &str,
    method: &str,
    demands: usize,
    anchor: Option<&Anchor>,
    outcome: &Outcome,
    figures: &mut Map<String, Value>,
) {
    let (welfare, cost) = (outcome.welfare as f64 / 1e9, outcome.cost as f64 / 1e9);
    let bound = anchor.map(|anchor| anchor.upper_bound_usd_per_hour);
    let cheapest =
        anchor.and_then(|anchor| anchor.methods.get("fcfs_cheapest")).map(|cheapest| cheapest.welfare_usd_per_hour);
    let over_bound = |welfare: Option<f64>| welfare.zip(bound).map(|(welfare, bound)| welfare / bound);
    let own_bound = outcome.bound.map(|atoms| atoms as f64 / 1e9);
    let shown = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.5}"));
    println!(
        "{name:<15} {method:<16} {welfare:>9.4} {:>9} {:>9} {:>9} {:>9} {cost:>10.5} {:>9} {:>9.3}",
        shown(over_bound(Some(welfare))),
        shown(over_bound(own_bound)),
        shown(over_bound(cheapest)),
        format!("{}/{}", outcome.matched, outcome.replicas),
        outcome.steps,
        outcome.cpu_seconds * 1e3,
    );
    let mut figure = |what: &str, value: Value| figures.insert(format!("{what}.{name}.{method}"), value);
    figure("welfare_usd_per_hour", json!(welfare));
    figure("own_bound_over_bound_ratio", json!(over_bound(own_bound)));
    figure("matched_demands_ratio", json!(outcome.matched as f64 / demands as f64));
    figure("replicas_count", json!(outcome.replicas));
    figure("cost_usd_per_hour", json!(cost));
    figure("steps_count", json!(outcome.steps));
    figure("cpu_seconds", json!(outcome.cpu_seconds));
    figures.insert(format!("welfare_over_bound.{name}.{method}"), json!(over_bound(Some(welfare))));
}

/// The market of an instance.
fn market(offers: &[InstanceOffer], demands: Vec<InstanceDemand>) -> anyhow::Result<Snapshot> {
    let conditions = conditions();
    let terms = conditions.terms;
    let mut ledger = Ledger::default();
    let mut providers: BTreeMap<&str, u64> = BTreeMap::new();
    let mut countries: BTreeMap<&str, BTreeSet<Region>> = BTreeMap::new();
    let (mut supplies, mut wanted) = (Vec::new(), Vec::new());
    for offer in offers {
        let next = providers.len() as u64;
        let provider = account(2, *providers.entry(&offer.provider).or_insert(next));
        let region: Region = format!("{}-{}", offer.geo, offer.country.to_lowercase()).parse()?;
        countries.entry(&offer.country).or_default().insert(region);
        let capacity = Resources { milli_cpu: offer.cpu_milli, memory_mib: offer.mem_mib };
        let prices = Prices {
            per_vcpu_epoch: Atoms::new(offer.price_nanousd_per_vcpu_hour)?,
            per_gib_epoch: Atoms::new(offer.price_nanousd_per_gib_hour)?,
        };
        let mut terms = provider_offer(provider, region, capacity, prices);
        (terms.features, terms.max_epochs) = (FeatureSet(offer.features), offer.max_epochs);
        ledger.deposit(provider, Atoms::new(RICH)?);
        supplies.push(Supply::new(hash(2, offer.offer_id), terms, Vec::new(), place(offer.offer_id)));
    }
    for demand in demands {
        let number = demand.demand_id;
        let size = Resources { milli_cpu: demand.cpu_milli, memory_mib: demand.mem_mib };
        let mut offer = developer_offer(number, size, Atoms::new(demand.max_price_nanousd_per_replica_hour)?);
        (offer.replicas, offer.min_replicas) = (demand.replicas, demand.replicas);
        (offer.features, offer.epochs) = (FeatureSet(demand.features), demand.epochs);
        match demand.region_kind.as_str() {
            "geo" => offer.regions.push(demand.region.parse()?),
            "cc" => offer.regions.extend(countries.get(demand.region.as_str()).context("unknown country")?),
            _ => (),
        }
        ledger.deposit(offer.developer, Atoms::new(RICH)?);
        wanted.push(Demand::new(hash(1, number), offer, Vec::new(), place(number), &terms));
    }
    Ok(Snapshot { as_of: None, conditions, ledger, demands: wanted, supplies, matching_paused: false })
}
