//! The matching engine on public workloads: the `README.md` of the data folder says where they are from and how they are
//! drawn. Every file may be replaced by another one of the same columns.
//!
//! Layout: [`instances`] matches the ready instances and compares welfare with their bounds; [`scale`] times each operation
//! in markets of growing size, [`explained`] asks there why demands found no host; [`arrivals`] follows a trace of arrivals and departures; [`drawn`] draws markets from catalogues
//! and traces, by a generator with a fixed seed, so that every run matches the same.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "overflow and wrong places end a measurement"
)]

mod arrivals;
mod drawn;
mod explained;
mod instances;
mod scale;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use ::matching::snapshot::Conditions;
use anyhow::Context;
use clap::Args;
use common::{
    epoch::EpochSchedule,
    feature::FeatureSet,
    ids::{Address, Digest, OfferHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    region::Region,
    resources::{Prices, Resources},
    state::Place,
};
use fastrand::Rng;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Epochs are hours, as the prices are.
const HOUR: u32 = 3_600;
const NOW: u64 = 1_000_000;
/// More than anything here costs.
const RICH: u64 = 1 << 55;

#[derive(Args)]
pub(crate) struct Options {
    /// Folder with the workloads
    #[arg(long)]
    data: PathBuf,
    /// Sizes of the drawn markets, in offers
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    offers: Vec<usize>,
    /// Demands that come to each of them
    #[arg(long, default_value_t = 300_000)]
    demands: usize,
    /// Unmatched demands that stay; beyond, the oldest leaves
    #[arg(long, default_value_t = 10_000)]
    waiting: usize,
    /// Unmatched demands that are explained in each of them
    #[arg(long, default_value_t = 2_000)]
    explain: usize,
    /// Budget of each batch, in looks at pairs
    #[arg(long, default_value_t = 50_000_000)]
    batch_steps: u64,
    /// Provider offers of the market to which the trace comes
    #[arg(long, default_value_t = 3_000)]
    trace_offers: usize,
    /// Of the draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/matching.json")]
    out: PathBuf,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut figures = Map::new();
    instances::run(&options.data.join("instances"), options.batch_steps, &mut figures)?;
    let workload = drawn::Workload::read(&options.data)?;
    for offers in &options.offers {
        scale::run(&workload, *offers, options, &mut figures)?;
    }
    arrivals::run(&workload, options, &mut figures)?;
    write(&options.out, &figures)
}

fn write(path: &Path, figures: &Map<String, Value>) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(figures)?))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut rows = csv::Reader::from_reader(zstd::Decoder::new(file)?);
    rows.deserialize().collect::<Result<_, _>>().with_context(|| format!("cannot read {}", path.display()))
}

/// The one in the middle.
fn median(values: impl Iterator<Item = u64>) -> f64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).map_or(0.0, |value| *value as f64)
}

/// Processor time of this thread.
fn cpu_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn conditions() -> Conditions {
    let account = Address([0xee; 20]);
    let terms = MarketTerms {
        chain_id: 1,
        market: account,
        deployed_at_block: 1,
        token: account,
        operator: account,
        schedule: EpochSchedule { genesis: 0, length: HOUR },
        attestation_window: 2,
        evict_after_missed: 3,
        bond_epochs: 2,
        min_prepaid_epochs: 1,
        grace_epochs: 3,
        notice_epochs: 2,
    };
    Conditions {
        terms,
        time: NOW,
        epoch: terms.schedule.epoch_at(NOW),
        matcher: account,
        cancelled: BTreeSet::new(),
        nonce_floors: BTreeMap::new(),
    }
}

fn account(kind: u8, number: u64) -> Address {
    let mut bytes = [kind; 20];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    Address(bytes)
}

/// Spread like the hashes that offers have.
fn hash(kind: u8, number: u64) -> OfferHash {
    let mut rng = Rng::with_seed(number.wrapping_mul(2).wrapping_add(u64::from(kind)));
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    OfferHash(bytes)
}

fn place(number: u64) -> Place {
    Place { block: number / 100, log_index: number % 100 }
}

fn provider_offer(provider: Address, region: Region, capacity: Resources, prices: Prices) -> ProviderOffer {
    ProviderOffer {
        provider,
        agent: provider,
        payout: provider,
        region,
        capacity,
        features: FeatureSet::EMPTY,
        prices,
        max_epochs: 0,
        valid_until: NOW + 86_400 * 30,
        nonce: 0,
        endpoint: String::new(),
    }
}

fn developer_offer(number: u64, size: Resources, max_price: Atoms) -> DeveloperOffer {
    DeveloperOffer {
        developer: account(1, number),
        artifact: Digest([7; 32]),
        manifest: Digest::ZERO,
        size,
        features: FeatureSet::EMPTY,
        regions: Vec::new(),
        min_replicas: 1,
        replicas: 1,
        max_price_per_epoch: max_price,
        epochs: 1,
        prepaid_epochs: 1,
        valid_until: NOW + 86_400,
        nonce: 0,
        matcher: Address::ZERO,
        matcher_fee: Atoms::ZERO,
        allow: Vec::new(),
        deny: Vec::new(),
        artifact_url: String::new(),
    }
}
