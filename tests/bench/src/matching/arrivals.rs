//! A trace of arrivals, as it came: each demand is matched when it comes or waits, leaves when its time is over, and gives up
//! after a day without a host.

use std::collections::BTreeMap;

use ::matching::{
    engine::{Engine, Match},
    snapshot::{Demand, Supply},
};
use common::{ids::OfferHash, money::Atoms};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{NOW, Options, RICH, account, conditions, cpu_nanos, drawn::Workload, hash, place};

const DAY: u64 = 86_400;

/// What was matched; welfare and money in atom-hours.
#[derive(Default)]
struct Tally {
    asked: usize,
    matched: usize,
    at_once: usize,
    paid: u128,
    welfare: u128,
    cpu_nanos: u64,
}

/// A demand that is in the market: how long it runs once it has hosts, and what it runs on.
struct Present {
    seconds: u64,
    hosted: Option<Match>,
}

pub(super) fn run(workload: &Workload, options: &Options, figures: &mut Map<String, Value>) -> anyhow::Result<()> {
    let mut rng = Rng::with_seed(options.seed);
    let offers: Vec<_> = (0..options.trace_offers as u64).map(|number| workload.offer(number, &mut rng)).collect();
    let median_price = super::median(offers.iter().map(|offer| offer.prices.per_vcpu_epoch.get()));
    let mut engine = Engine::new(conditions());
    let schedule = engine.conditions().terms.schedule;
    for (offer, number) in offers.into_iter().zip(0..) {
        engine.set_free(account(2, number / 50), Atoms::new(RICH)?);
        engine.set_supply(Supply::new(hash(2, number), offer, Vec::new(), place(number)));
    }
    let mut present: BTreeMap<OfferHash, Present> = BTreeMap::new();
    // By the second in which they happen: a demand leaves or gives up.
    let mut leaving: BTreeMap<(u64, OfferHash), bool> = BTreeMap::new();
    let mut tally = Tally::default();
    let first = workload.arrivals.iter().map(|arrival| arrival.at).min().unwrap_or_default();
    for (arrival, number) in workload.arrivals.iter().zip(0_u64..) {
        let now = NOW + arrival.at - first;
        let mut offer = workload.wanting(number, arrival.shape, median_price, &mut rng);
        offer.valid_until = now + DAY;
        let demand = Demand::new(hash(1, number), offer, Vec::new(), place(number), &engine.conditions().terms);
        let began = cpu_nanos();
        while let Some(((second, gone), after_service)) = leaving.first_key_value().map(|(key, value)| (*key, *value)) {
            if second > now {
                break;
            }
            leaving.pop_first();
            leave(&mut engine, &mut present, gone, after_service);
        }
        engine.set_time(now, schedule.epoch_at(now));
        engine.set_free(demand.offer.developer, Atoms::new(RICH)?);
        let comes = demand.hash;
        engine.set_demand(demand);
        present.insert(comes, Present { seconds: arrival.seconds, hosted: None });
        leaving.insert((now + DAY, comes), false);
        let plan = engine.plan(usize::MAX);
        engine.keep();
        tally.cpu_nanos += cpu_nanos() - began;
        tally.asked += 1;
        for found in plan.matches {
            let demand = found.demand;
            tally.matched += 1;
            tally.at_once += usize::from(demand == comes);
            let most = engine.demand(demand).unwrap().offer.max_price_per_epoch.get();
            let stays = present.get_mut(&demand).unwrap();
            for fill in &found.fills {
                let ask = fill.cost.ask.get();
                tally.paid += u128::from(ask) * u128::from(stays.seconds) / 3_600;
                tally.welfare += u128::from(most - ask) * u128::from(stays.seconds) / 3_600;
            }
            leaving.insert((now + stays.seconds, demand), true);
            stays.hosted = Some(found);
        }
    }
    report(&tally, options, figures);
    Ok(())
}

/// A demand leaves after its service, or gives up if it has none.
fn leave(engine: &mut Engine, present: &mut BTreeMap<OfferHash, Present>, demand: OfferHash, after_service: bool) {
    let is_hosted = present.get(&demand).is_some_and(|present| present.hosted.is_some());
    if after_service == is_hosted
        && let Some(gone) = present.remove(&demand)
    {
        gone.hosted.iter().for_each(|found| engine.undo(found));
        engine.remove_demand(demand);
    }
}

fn report(tally: &Tally, options: &Options, figures: &mut Map<String, Value>) {
    let (paid, welfare) = (tally.paid as f64 / 1e6, tally.welfare as f64 / 1e6);
    let seconds = tally.cpu_nanos as f64 / 1e9;
    let share = |count: usize| count as f64 / tally.asked as f64;
    println!(
        "\ntrace of {} demands at {} offers: {:.1} % matched, {:.1} % at once; {paid:.2} USD paid, {welfare:.2} USD welfare; \
         {seconds:.2} CPU-s",
        tally.asked,
        options.trace_offers,
        share(tally.matched) * 100.0,
        share(tally.at_once) * 100.0,
    );
    let mut figure = |what: &str, value: Value| figures.insert(format!("trace_{what}"), value);
    figure("demands_count", json!(tally.asked));
    figure("offers_count", json!(options.trace_offers));
    figure("matched_demands_ratio", json!(share(tally.matched)));
    figure("matched_at_once_ratio", json!(share(tally.at_once)));
    figure("paid_usd", json!(paid));
    figure("welfare_usd", json!(welfare));
    figure("cpu_seconds", json!(seconds));
}
