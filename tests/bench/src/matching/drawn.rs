//! Markets drawn from price lists and traces.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use common::{
    feature::FeatureSet,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    region::Region,
    resources::{Prices, Resources},
};
use fastrand::Rng;
use serde::Deserialize;

use super::{HOUR, account, developer_offer, provider_offer, read};

/// One GiB costs this much of a vCPU, by the rule of the data.
const GIB_PER_VCPU: f64 = 0.134_03;

#[derive(Deserialize)]
struct SupplyRow {
    region: String,
    geo: String,
    country: String,
    vcpu: f64,
    mem_mib: u32,
    usd_per_vcpu_hour: f64,
    usd_per_gib_hour: f64,
}

#[derive(Deserialize)]
struct AzureRow {
    batch_id: u64,
    vcpu: f64,
    mem_mib: u32,
    arrival_s: f64,
    duration_s: f64,
}

#[derive(Deserialize)]
struct AlibabaRow {
    vcpu: f64,
    mem_mib: u32,
    duration_s: f64,
}

/// One thing that somebody wanted.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) size: Resources,
    pub(super) replicas: u16,
    pub(super) epochs: u32,
}

/// Something that somebody wanted at a time.
pub(super) struct Arrival {
    /// Seconds since the trace began.
    pub(super) at: u64,
    pub(super) seconds: u64,
    pub(super) shape: Shape,
}

impl Shape {
    fn new(vcpu: f64, memory_mib: u32, seconds: f64, replicas: usize) -> Self {
        let size = Resources { milli_cpu: (vcpu * 1_000.0) as u32, memory_mib: memory_mib.max(1) };
        let epochs = (seconds / f64::from(HOUR)).ceil().max(1.0) as u32;
        Self { size, replicas: replicas.min(5) as u16, epochs }
    }
}

/// What markets are drawn from.
pub(super) struct Workload {
    supply: Vec<(SupplyRow, Region)>,
    azure: Vec<Shape>,
    alibaba: Vec<Shape>,
    /// The batches of the first, as they came.
    pub(super) arrivals: Vec<Arrival>,
}

impl Workload {
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let rows: Vec<SupplyRow> = read(&folder.join("supply-cloud-2026.csv.zst"))?;
        let rows = rows.into_iter().filter(|row| (1.0..=16.0).contains(&row.vcpu) && row.mem_mib > 0);
        let supply = rows.map(|row| Ok((site(&row)?, row))).map(|row| row.map(|(site, row)| (row, site)));
        let azure: Vec<AzureRow> = read(&folder.join("demand-azure2017-dev.csv.zst"))?;
        let mut equal: BTreeMap<(u64, u64, u32), usize> = BTreeMap::new();
        let key = |row: &AzureRow| (row.batch_id, row.vcpu.to_bits(), row.mem_mib);
        for row in &azure {
            *equal.entry(key(row)).or_default() += 1;
        }
        // One of each batch: its first machine, with those like it.
        let mut batches = BTreeSet::new();
        let azure = azure.iter().filter(|row| batches.insert(row.batch_id));
        let arrivals: Vec<Arrival> = azure
            .map(|row| Arrival {
                at: row.arrival_s.max(0.0) as u64,
                seconds: row.duration_s.max(1.0) as u64,
                shape: Shape::new(row.vcpu, row.mem_mib, row.duration_s, equal[&key(row)]),
            })
            .collect();
        let azure = arrivals.iter().map(|arrival| arrival.shape).collect();
        let alibaba: Vec<AlibabaRow> = read(&folder.join("demand-alibaba2023-first60.csv.zst"))?;
        let alibaba = alibaba.iter().map(|row| Shape::new(row.vcpu, row.mem_mib, row.duration_s, 1)).collect();
        Ok(Self { supply: supply.collect::<anyhow::Result<_>>()?, azure, alibaba, arrivals })
    }

    pub(super) fn offer(&self, number: u64, rng: &mut Rng) -> ProviderOffer {
        let (row, region) = &self.supply[rng.usize(..self.supply.len())];
        let factor = 0.9 + 0.2 * rng.f64();
        let atoms = |usd: f64| Atoms::new((usd * factor * 1e6).round() as u64).unwrap();
        let capacity = Resources { milli_cpu: (row.vcpu * 1_000.0) as u32, memory_mib: row.mem_mib };
        let prices =
            Prices { per_vcpu_epoch: atoms(row.usd_per_vcpu_hour), per_gib_epoch: atoms(row.usd_per_gib_hour) };
        let mut offer = provider_offer(account(2, number / 50), *region, capacity, prices);
        offer.features = features(rng, [0.8, 0.4, 0.1]);
        offer.max_epochs = [24, 168, 720, 0][rng.usize(..4)];
        offer
    }

    pub(super) fn demand(&self, number: u64, unit_price: f64, rng: &mut Rng) -> DeveloperOffer {
        let shapes = if rng.bool() { &self.azure } else { &self.alibaba };
        self.wanting(number, shapes[rng.usize(..shapes.len())], unit_price, rng)
    }

    /// A demand of this shape, with the rest drawn.
    pub(super) fn wanting(&self, number: u64, shape: Shape, unit_price: f64, rng: &mut Rng) -> DeveloperOffer {
        let units = f64::from(shape.size.milli_cpu) / 1e3 + f64::from(shape.size.memory_mib) / 1_024.0 * GIB_PER_VCPU;
        let limit = unit_price * units * (0.10 + 0.35 * normal(rng)).exp();
        let mut offer = developer_offer(number, shape.size, Atoms::new(limit as u64).unwrap());
        let more = if shape.replicas > 1 { 0 } else { [0, 0, 0, 0, 0, 0, 0, 1, 1, 2][rng.usize(..10)] };
        offer.replicas = shape.replicas + more;
        (offer.min_replicas, offer.epochs) = (offer.replicas, shape.epochs);
        offer.features = features(rng, [0.5, 0.2, 0.05]);
        let (row, _) = &self.supply[rng.usize(..self.supply.len())];
        match rng.f64() {
            ..0.40 => (),
            0.40..0.75 => offer.regions.push(row.geo.parse().unwrap()),
            _ => offer.regions.push(format!("{}-{}", row.geo, row.country.to_lowercase()).parse().unwrap()),
        }
        offer
    }
}

/// A site of four letters for the cloud's own name of the region.
fn site(row: &SupplyRow) -> anyhow::Result<Region> {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let seed = row.region.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut rng = Rng::with_seed(seed);
    let letters: String = (0..4).map(|_| char::from(LETTERS[rng.usize(..36)])).collect();
    Ok(format!("{}-{}-{letters}", row.geo, row.country.to_lowercase()).parse()?)
}

fn features(rng: &mut Rng, chances: [f64; 3]) -> FeatureSet {
    FeatureSet(chances.iter().enumerate().map(|(bit, chance)| u64::from(rng.f64() < *chance) << bit).sum())
}

/// By Box and Muller.
fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}
