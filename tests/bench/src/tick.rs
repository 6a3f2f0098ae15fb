//! What a block costs the market that a matcher keeps, whatever the market holds: its events are applied, the engine is
//! told and plans. Beside it, what the same blocks cost taken back and applied again, and how long it takes to read from
//! the index what happened, and to read everything.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "overflow and wrong places end a measurement"
)]

use std::{collections::VecDeque, hint::black_box, path::PathBuf};

use ::matching::{
    engine::Plan,
    market::{Market, Planner},
};
use anyhow::Context;
use clap::Args;
use common::{
    deal::EndCause,
    epoch::EpochSchedule,
    event::{BlockRef, DealOpened, MarketBlock, MarketEvent, PlacedEvent},
    feature::FeatureSet,
    ids::{Address, BlockHash, DealId, Digest, OfferHash, TxHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
};
use fastrand::Rng;
use indexer::{
    Location, Store,
    input::{ChainInput, Step},
    store::News,
};
use serde_json::{Map, Value, json};

/// Offers of each provider.
const OFFERS_EACH: u64 = 50;
/// Events of a block while the market is filled.
const FILLING: usize = 1_000;
/// Deals that live at a time.
const LIVE_DEALS: usize = 2_000;
/// Blocks that a reorganization takes back.
const REORGANIZED: usize = 10;
const RICH: u64 = 1 << 50;
const PLACES: [&str; 6] = ["eu-de-fra1", "eu-fr-par1", "na-us-nyc1", "na-us-sfo1", "ap-jp-tyo1", "sa-br-sao1"];

#[derive(Args)]
pub(crate) struct Options {
    /// Sizes of the markets, in provider offers
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
    offers: Vec<u64>,
    /// Blocks that are measured in each of them
    #[arg(long, default_value_t = 200)]
    blocks: usize,
    /// Events of each of these blocks
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Demands that wait all the time, since nobody hosts them at their price
    #[arg(long, default_value_t = 10_000)]
    waiting: u64,
    /// Also keep an index in SQLite, and measure reading from it
    #[arg(long)]
    index: bool,
    /// Of the draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/tick.json")]
    out: PathBuf,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut figures = Map::new();
    for offers in &options.offers {
        measure(*offers, options, &mut figures).await?;
    }
    if let Some(folder) = options.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.out, format!("{}\n", serde_json::to_string_pretty(&figures)?))?;
    println!("wrote {}", options.out.display());
    Ok(())
}

/// Processor time of all threads.
fn cpu_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn resident_bytes() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1_024.0)
}

/// Nanoseconds of one kind of work, each time.
#[derive(Default)]
struct Times(Vec<u64>);

impl Times {
    fn take<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = cpu_nanos();
        let result = black_box(work());
        self.0.push(cpu_nanos() - began);
        result
    }

    fn say(&mut self, what: &str, figure: &mut impl FnMut(String, Value)) -> f64 {
        self.0.sort_unstable();
        let mean = self.0.iter().sum::<u64>() as f64 / self.0.len().max(1) as f64 / 1e3;
        let quantile = |share: f64| self.0.get((self.0.len() as f64 * share) as usize).map_or(0.0, |t| *t as f64 / 1e3);
        println!("  {what:<28} mean {mean:>10.1} us  p50 {:>10.1} us  p99 {:>10.1} us", quantile(0.5), quantile(0.99));
        figure(format!("{what}_mean_cpu_us"), json!(mean));
        figure(format!("{what}_p50_cpu_us"), json!(quantile(0.5)));
        figure(format!("{what}_p99_cpu_us"), json!(quantile(0.99)));
        mean
    }
}

async fn measure(offers: u64, options: &Options, figures: &mut Map<String, Value>) -> anyhow::Result<()> {
    let mut history = History::new(options.seed);
    let mut market = Market::new(terms(), Planner::Account(account(9, 0)), 1_000);
    let mut index = if options.index { Some(Index::new().await?) } else { None };
    let before = resident_bytes()?;
    let mut filling = Times::default();
    for block in history.filling(offers, options.waiting) {
        filling.take(|| market.apply(&block))?;
        filling.take(|| market.stand_at(Some(block.block), 0));
        filling.take(|| market.settle());
        market.forget_final(block.block.number);
        if let Some(index) = &mut index {
            index.add(&block).await?;
        }
    }
    let plan = market.plan(usize::MAX);
    let bytes = (resident_bytes()? - before) / offers as f64;
    let filled = filling.0.iter().sum::<u64>() as f64 / 1e9;
    println!(
        "\n{offers} offers, {} demands waiting: filled in {filled:.1} CPU-s, {bytes:.0} bytes an offer",
        options.waiting
    );
    let mut figure = |what: String, value: Value| drop(figures.insert(format!("offers_{offers}_{what}"), value));
    figure("fill_cpu_seconds".to_owned(), json!(filled));
    figure("bytes_per_offer".to_owned(), json!(bytes));
    live(&mut history, market, plan, index, options, &mut figure).await
}

/// Blocks come, each of which carries out what was planned at the one before.
async fn live(
    history: &mut History,
    mut market: Market,
    mut plan: Plan,
    mut index: Option<Index>,
    options: &Options,
    figure: &mut impl FnMut(String, Value),
) -> anyhow::Result<()> {
    let (mut times, mut again, mut blocks) = (Times::default(), Times::default(), Vec::new());
    let (mut read, mut matched) = (Times::default(), 0);
    for _ in 0..options.blocks {
        let block = history.block(&plan, &market, options.events);
        let stands: Vec<_> = market.anchors().collect();
        plan = times.take(|| step(&mut market, &block))?;
        matched += plan.matches.len();
        if let Some(index) = &mut index {
            index.add(&block).await?;
            let began = cpu_nanos();
            let (_, news) = index.store.news_since(&stands).await?;
            read.0.push(cpu_nanos() - began);
            anyhow::ensure!(
                matches!(news, News::Since { blocks, .. } if blocks.len() == 1),
                "the index has other news"
            );
        }
        blocks.push(block);
    }
    for last in blocks.rchunks_exact(REORGANIZED).take(20) {
        let fork = market.anchors().nth(REORGANIZED).context("too little is remembered")?;
        again.take(|| {
            market.take_back_to(fork);
            last.iter().try_for_each(|block| market.apply(block))?;
            market.settle();
            market.plan(usize::MAX);
            anyhow::Ok(())
        })?;
        market.take_back_to(fork);
    }
    let mean = times.say("block", figure);
    println!(
        "  {:.2} us an event, {:.1} matches planned a block",
        mean / options.events as f64,
        matched as f64 / options.blocks as f64
    );
    figure("event_mean_cpu_us".to_owned(), json!(mean / options.events as f64));
    figure("planned_matches_per_block_count".to_owned(), json!(matched as f64 / options.blocks as f64));
    again.say(&format!("reorganization_of_{REORGANIZED}_blocks"), figure);
    if let Some(index) = &index {
        read.say("index_read_of_a_block", figure);
        let mut whole = Times::default();
        let began = cpu_nanos();
        black_box(index.store.load_market().await?);
        whole.0.push(cpu_nanos() - began);
        whole.say("index_read_of_everything", figure);
    }
    Ok(())
}

/// What a round does with the market.
fn step(market: &mut Market, block: &MarketBlock) -> anyhow::Result<Plan> {
    market.apply(block)?;
    market.stand_at(Some(block.block), 0);
    market.settle();
    Ok(market.plan(usize::MAX))
}

/// An index of its own.
struct Index {
    store: Store,
    last: Option<BlockRef>,
    _folder: tempfile::TempDir,
}

impl Index {
    async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(&Location::Sqlite(folder.path().join("indexer.db"))).await?;
        store.bind(&terms()).await?;
        Ok(Self { store, last: None, _folder: folder })
    }

    async fn add(&mut self, block: &MarketBlock) -> anyhow::Result<()> {
        let input = ChainInput::Committed { blocks: vec![block.clone()] };
        self.store.apply(&Step { follows: self.last, input, finalized: None }).await?;
        self.last = Some(block.block);
        Ok(())
    }
}

/// Makes events that follow from each other.
struct History {
    rng: Rng,
    events: Vec<PlacedEvent>,
    last: BlockRef,
    supplies: u64,
    demands: u64,
    deals: VecDeque<DealId>,
}

impl History {
    fn new(seed: u64) -> Self {
        let last = BlockRef { number: 0, hash: BlockHash::ZERO, parent_hash: BlockHash::ZERO, timestamp: 1_000_000 };
        Self { rng: Rng::with_seed(seed), events: Vec::new(), last, supplies: 0, demands: 0, deals: VecDeque::new() }
    }

    fn emit(&mut self, event: MarketEvent) {
        let (block_number, log_index) = (self.last.number + 1, self.events.len() as u64);
        let (block_hash, tx_hash) = (BlockHash::ZERO, TxHash::ZERO);
        self.events.push(PlacedEvent { block_number, block_hash, log_index, tx_hash, event });
    }

    fn mine(&mut self) -> MarketBlock {
        let mut hash = BlockHash([1; 32]);
        hash.0[..8].copy_from_slice(&(self.last.number + 1).to_be_bytes());
        self.last = BlockRef {
            number: self.last.number + 1,
            hash,
            parent_hash: self.last.hash,
            timestamp: self.last.timestamp + 12,
        };
        let mut events = std::mem::take(&mut self.events);
        events.iter_mut().for_each(|placed| placed.block_hash = hash);
        MarketBlock { block: self.last, events }
    }

    /// Everybody comes.
    fn filling(&mut self, offers: u64, waiting: u64) -> impl Iterator<Item = MarketBlock> {
        let mut left = (offers, waiting);
        std::iter::from_fn(move || {
            while self.events.len() < FILLING && left != (0, 0) {
                if left.0 > 0 {
                    left.0 -= 1;
                    self.supply();
                } else {
                    left.1 -= 1;
                    self.demand(1);
                }
            }
            (!self.events.is_empty()).then(|| self.mine())
        })
    }

    fn deposit(&mut self, account: Address) {
        let amount = Atoms::new(RICH / 1_000_000).unwrap();
        self.emit(MarketEvent::Deposited { account, from: account, amount });
    }

    fn supply(&mut self) {
        let number = self.supplies;
        self.supplies += 1;
        let provider = account(2, number / OFFERS_EACH);
        if number.is_multiple_of(OFFERS_EACH) {
            self.deposit(provider);
        }
        let cpus = self.rng.u32(1..=16);
        let price = self.rng.u64(20_000..60_000);
        let offer = ProviderOffer {
            provider,
            agent: provider,
            payout: provider,
            region: PLACES[self.rng.usize(..PLACES.len())].parse().unwrap(),
            capacity: Resources { milli_cpu: cpus * 1_000, memory_mib: cpus * 4_096 },
            features: FeatureSet(self.rng.u64(0..8)),
            prices: Prices {
                per_vcpu_epoch: Atoms::new(price).unwrap(),
                per_gib_epoch: Atoms::new(price / 8).unwrap(),
            },
            max_epochs: 0,
            valid_until: 1 << 40,
            nonce: number,
            endpoint: "https://provider.example:9000".to_owned(),
        };
        self.emit(MarketEvent::ProviderOfferOpened { offer_hash: hash(2, number), offer: Box::new(offer) });
    }

    /// At a limit of so many atoms for an epoch.
    fn demand(&mut self, limit: u64) {
        let number = self.demands;
        self.demands += 1;
        let developer = account(1, number);
        self.deposit(developer);
        let cpus = self.rng.u32(1..=4);
        let offer = DeveloperOffer {
            developer,
            artifact: Digest([7; 32]),
            manifest: Digest::ZERO,
            size: Resources { milli_cpu: cpus * 1_000, memory_mib: cpus * 1_024 },
            features: FeatureSet(self.rng.u64(0..4)),
            regions: vec![PLACES[self.rng.usize(..PLACES.len())][..2].parse().unwrap()],
            min_replicas: 1,
            replicas: 1,
            max_price_per_epoch: Atoms::new(limit).unwrap(),
            epochs: 24,
            prepaid_epochs: 2,
            valid_until: 1 << 40,
            nonce: number,
            matcher: Address::ZERO,
            matcher_fee: Atoms::ZERO,
            allow: Vec::new(),
            deny: Vec::new(),
            artifact_url: String::new(),
        };
        self.emit(MarketEvent::DeveloperOfferOpened { offer_hash: hash(1, number), offer: Box::new(offer) });
    }

    /// The plan is carried out, as many deals end as are too many, offers are voided and new ones come on both sides.
    fn block(&mut self, plan: &Plan, market: &Market, events: usize) -> MarketBlock {
        let epoch = terms().schedule.epoch_at(self.last.timestamp + 12);
        for found in &plan.matches {
            let demand = &market.state().developer_offers[&found.demand].offer;
            for fill in &found.fills {
                let mut deal_id = DealId(found.demand.0);
                deal_id.0[..8].copy_from_slice(&fill.provider.0[12..]);
                self.deals.push_back(deal_id);
                self.emit(MarketEvent::DealOpened(Box::new(DealOpened {
                    deal_id,
                    developer_offer: found.demand,
                    provider_offer: fill.supply,
                    price_per_epoch: fill.cost.ask,
                    start_epoch: epoch.plus(1),
                    end_epoch: epoch.plus(1 + demand.epochs),
                    locked: fill.cost.lock,
                })));
            }
        }
        while self.deals.len() > LIVE_DEALS {
            let Some(known) = self.deals.pop_front().and_then(|id| market.state().deals.get(&id)) else { continue };
            let deal = &known.deal;
            self.emit(MarketEvent::DealEnded {
                deal_id: deal.id,
                cause: EndCause::TermOver,
                refunded: deal.locked,
                bond_to: deal.provider,
                bond: deal.bond,
            });
        }
        while self.events.len() < events {
            match self.rng.u8(..10) {
                0..3 => self.demand(1 << 40),
                3..6 => self.supply(),
                6..8 => {
                    let provider = account(2, self.rng.u64(..self.supplies / OFFERS_EACH));
                    self.deposit(provider);
                }
                _ => {
                    let number = self.rng.u64(..self.supplies);
                    let (owner, offer_hash) = (account(2, number / OFFERS_EACH), hash(2, number));
                    self.emit(MarketEvent::OfferCancelled { owner, offer_hash });
                }
            }
        }
        self.mine()
    }
}

fn terms() -> MarketTerms {
    let account = account(8, 0);
    MarketTerms {
        chain_id: 1,
        market: account,
        deployed_at_block: 1,
        token: account,
        operator: account,
        schedule: EpochSchedule { genesis: 0, length: 3_600 },
        attestation_window: 2,
        evict_after_missed: 3,
        bond_epochs: 2,
        min_prepaid_epochs: 1,
        grace_epochs: 3,
        notice_epochs: 2,
    }
}

fn account(kind: u8, number: u64) -> Address {
    let mut bytes = [kind; 20];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    Address(bytes)
}

/// Spread like the hashes that offers have.
fn hash(kind: u8, number: u64) -> OfferHash {
    let mut bytes = [0; 32];
    Rng::with_seed(number.wrapping_mul(4).wrapping_add(u64::from(kind))).fill(&mut bytes);
    OfferHash(bytes)
}
