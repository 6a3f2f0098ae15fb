//! Each operation's time in markets of growing size.

use std::{
    collections::{BTreeSet, VecDeque},
    hint::black_box,
    sync::LazyLock,
};

use ::matching::{
    engine::{Engine, Match},
    snapshot::{Demand, Supply},
};
use common::{ids::OfferHash, money::Atoms, offer::ProviderOffer};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{Options, RICH, account, conditions, cpu_nanos, drawn::Workload, explained, hash, place};

/// Processor time of one thread that one kind of operation took, each time.
#[derive(Default)]
pub(super) struct Times(Vec<u32>);

/// What asking for the time twice takes, which on some machines is as long as a small operation.
static CLOCK_NANOS: LazyLock<u32> = LazyLock::new(|| {
    let mut taken: Vec<u64> = (0..10_001)
        .map(|_| {
            let began = cpu_nanos();
            cpu_nanos() - began
        })
        .collect();
    taken.sort_unstable();
    taken[taken.len() / 2] as u32
});

impl Times {
    pub(super) fn take<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = cpu_nanos();
        let result = black_box(work());
        self.0.push(((cpu_nanos() - began) as u32).saturating_sub(*CLOCK_NANOS));
        result
    }

    fn total_seconds(&self) -> f64 {
        self.0.iter().map(|nanos| u64::from(*nanos)).sum::<u64>() as f64 / 1e9
    }

    pub(super) fn mean_us(&self) -> f64 {
        self.total_seconds() * 1e6 / self.0.len().max(1) as f64
    }

    pub(super) fn quantile_us(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        self.0.get((self.0.len() as f64 * share) as usize).map_or(0.0, |nanos| f64::from(*nanos) / 1e3)
    }
}

#[derive(Default)]
struct Tally {
    asked: usize,
    matched: usize,
    replicas: u64,
    paid: u64,
    welfare: u64,
}

/// Everything that is timed.
#[derive(Default)]
struct Operations {
    find: Times,
    release: Times,
    cancel: Times,
    insert: Times,
    remove: Times,
}

/// A market to which demands come one by one.
struct Market<'a> {
    workload: &'a Workload,
    options: &'a Options,
    engine: Engine,
    rng: Rng,
    /// Of a vCPU.
    median_price: f64,
    live: VecDeque<Match>,
    waiting: VecDeque<OfferHash>,
    hosted: BTreeSet<OfferHash>,
    /// Numbers of the oldest supply and of the next one.
    supplies: (u64, u64),
    times: Operations,
    tally: Tally,
}

/// A tenth as many demands as there are offers live at a time; then the oldest goes for each that comes. With every tenth a
/// supply goes and another comes.
pub(super) fn run(
    workload: &Workload,
    offers: usize,
    options: &Options,
    figures: &mut Map<String, Value>,
) -> anyhow::Result<()> {
    let label = if offers.is_multiple_of(1_000_000) {
        format!("{}m", offers / 1_000_000)
    } else {
        format!("{}k", offers / 1_000)
    };
    let (mut market, build_seconds) = Market::build(workload, offers, options)?;
    let bytes = market.engine.supply_bytes() as f64 / offers as f64;
    let warm = offers / 10;
    let before = market.engine.work();
    for number in 0..(options.demands + warm) as u64 {
        if number == warm as u64 {
            (market.times, market.tally) = Default::default();
        }
        market.arrive(number)?;
        market.depart(warm);
        if number.is_multiple_of(10) {
            market.turn_over()?;
        }
    }
    let Market { mut engine, mut times, tally, waiting, hosted, .. } = market;
    let matching_seconds = times.find.total_seconds();
    let per_second = tally.asked as f64 / matching_seconds;
    let with_releases = tally.asked as f64 / (matching_seconds + times.release.total_seconds());
    println!(
        "\n{offers} offers: built in {build_seconds:.2} CPU-s ({:.2} us each), {bytes:.0} bytes each; \
         {per_second:.0} demands matched per CPU-second, {with_releases:.0} matched and released",
        build_seconds * 1e6 / offers as f64
    );
    let mut figure = |what: &str, value: Value| figures.insert(format!("offers_{label}_{what}"), value);
    figure("clock_taken_off_us", json!(f64::from(*CLOCK_NANOS) / 1e3));
    figure("build_cpu_seconds", json!(build_seconds));
    figure("bytes_per_offer", json!(bytes));
    figure("demands_per_second", json!(per_second));
    figure("demands_matched_and_released_per_second", json!(with_releases));
    let names = ["match", "release", "cancel", "insert", "remove"];
    let Operations { find, release, cancel, insert, remove } = &mut times;
    for (name, times) in names.into_iter().zip([find, release, cancel, insert, remove]) {
        let (mean, p50, p99) = (times.mean_us(), times.quantile_us(0.5), times.quantile_us(0.99));
        println!("  {name:<8} mean {mean:>8.2} us  p50 {p50:>8.2} us  p99 {p99:>8.2} us");
        figure(&format!("{name}_us"), json!(mean));
        figure(&format!("{name}_p50_us"), json!(p50));
        figure(&format!("{name}_p99_us"), json!(p99));
    }
    let work = engine.work();
    let per_demand = |count: u64| count as f64 / (options.demands + warm) as f64;
    let (blocks, read) = (per_demand(work.blocks - before.blocks), per_demand(work.supplies - before.supplies));
    println!(
        "  {blocks:.0} blocks and {read:.0} supplies read per demand; {:.1} % matched, {} replicas, {:.2} USD/h paid, \
         {:.2} USD/h welfare",
        tally.matched as f64 * 100.0 / tally.asked as f64,
        tally.replicas,
        tally.paid as f64 / 1e6,
        tally.welfare as f64 / 1e6,
    );
    figure("blocks_read_per_demand_count", json!(blocks));
    figure("supplies_read_per_demand_count", json!(read));
    figure("matched_demands_ratio", json!(tally.matched as f64 / tally.asked as f64));
    figure("paid_usd_per_hour", json!(tally.paid as f64 / 1e6));
    figure("welfare_usd_per_hour", json!(tally.welfare as f64 / 1e6));
    let unmatched = waiting.into_iter().filter(|demand| !hosted.contains(demand)).take(options.explain);
    explained::run(&mut engine, unmatched, &label, figures)
}

impl<'a> Market<'a> {
    fn build(workload: &'a Workload, offers: usize, options: &'a Options) -> anyhow::Result<(Self, f64)> {
        let mut rng = Rng::with_seed(options.seed);
        let drawn: Vec<ProviderOffer> = (0..offers as u64).map(|number| workload.offer(number, &mut rng)).collect();
        let median_price = super::median(drawn.iter().map(|offer| offer.prices.per_vcpu_epoch.get()));
        let supplies: Vec<Supply> = drawn
            .into_iter()
            .zip(0..)
            .map(|(offer, number)| Supply::new(hash(2, number), offer, Vec::new(), place(number)))
            .collect();
        let mut engine = Engine::new(conditions());
        for provider in 0..=offers as u64 / 50 {
            engine.set_free(account(2, provider), Atoms::new(RICH)?);
        }
        let began = cpu_nanos();
        supplies.into_iter().for_each(|supply| engine.set_supply(supply));
        let seconds = (cpu_nanos() - began) as f64 / 1e9;
        let market = Self {
            workload,
            options,
            engine,
            rng,
            median_price,
            live: VecDeque::new(),
            waiting: VecDeque::new(),
            hosted: BTreeSet::new(),
            supplies: (0, offers as u64),
            times: Operations::default(),
            tally: Tally::default(),
        };
        Ok((market, seconds))
    }

    /// A demand comes, and whatever can be matched is.
    fn arrive(&mut self, number: u64) -> anyhow::Result<()> {
        let offer = self.workload.demand(number, self.median_price, &mut self.rng);
        self.engine.set_free(offer.developer, Atoms::new(RICH)?);
        let demand = Demand::new(hash(1, number), offer, Vec::new(), place(number), &self.engine.conditions().terms);
        let comes = demand.hash;
        self.tally.asked += 1;
        let engine = &mut self.engine;
        let plan = self.times.find.take(|| {
            engine.set_demand(demand);
            let plan = engine.plan(usize::MAX);
            engine.keep();
            plan
        });
        if !plan.matches.iter().any(|found| found.demand == comes) {
            self.waiting.push_back(comes);
        }
        for found in plan.matches {
            let most = self.engine.demand(found.demand).unwrap().offer.max_price_per_epoch.get();
            self.tally.matched += 1;
            self.tally.replicas += found.fills.len() as u64;
            self.tally.paid += found.fills.iter().map(|fill| fill.cost.ask.get()).sum::<u64>();
            self.tally.welfare += found.fills.iter().map(|fill| most - fill.cost.ask.get()).sum::<u64>();
            self.hosted.insert(found.demand);
            self.live.push_back(found);
        }
        Ok(())
    }

    /// The oldest match ends, and the oldest demand that waits gives up, where there are too many.
    fn depart(&mut self, most_live: usize) {
        let engine = &mut self.engine;
        if self.live.len() > most_live {
            let oldest = self.live.pop_front().unwrap();
            self.times.release.take(|| {
                engine.undo(&oldest);
                engine.remove_demand(oldest.demand);
            });
            self.hosted.remove(&oldest.demand);
        }
        if self.waiting.len() > self.options.waiting {
            let oldest = self.waiting.pop_front().unwrap();
            if engine.demand(oldest).is_some() && !self.hosted.contains(&oldest) {
                self.times.cancel.take(|| engine.remove_demand(oldest));
            }
        }
    }

    /// The oldest supply goes and another comes.
    fn turn_over(&mut self) -> anyhow::Result<()> {
        let (oldest, next) = self.supplies;
        self.supplies = (oldest + 1, next + 1);
        let engine = &mut self.engine;
        self.times.remove.take(|| engine.remove_supply(hash(2, oldest)));
        let fresh = self.workload.offer(next, &mut self.rng);
        engine.set_free(fresh.provider, Atoms::new(RICH)?);
        let fresh = Supply::new(hash(2, next), fresh, Vec::new(), place(next));
        self.times.insert.take(|| engine.set_supply(fresh));
        Ok(())
    }
}
