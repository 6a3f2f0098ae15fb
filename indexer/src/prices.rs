//! Price history: what deals were opened at, in buckets of epochs.
//!
//! A deal counts in the epoch of the block that opened it, at the terms that it was opened with: later changes of its price
//! or size are another agreement. Its prices are the two of the provider offer, and what both make of its size.

use common::{
    epoch::{Epoch, EpochSchedule},
    money::Atoms,
    region::Region,
    resources::{Prices, Resources},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most buckets of an answer.
pub const MAX_BUCKETS: u32 = 500;
/// Most deals that are looked at for an answer, whether they are of the right place and size or not.
pub const MAX_DEALS: u32 = 50_000;

/// Buckets that lie side by side; the first of all begins with epoch 0, so that whoever asks gets the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Epochs of a bucket; at least 1.
    pub width: u32,
    /// Number of the first, counted from 0.
    pub first: u32,
    /// Number of the last.
    pub last: u32,
}

impl Buckets {
    /// The buckets of this width that have epochs from `from` to `to`; none where there is no such epoch.
    pub fn over(width: u32, from: Epoch, to: Epoch) -> Option<Self> {
        let (first, last) = (from.0.checked_div(width)?, to.0.checked_div(width)?);
        (from <= to).then_some(Self { width, first, last })
    }

    /// How many.
    pub const fn count(self) -> u64 {
        (self.last as u64).saturating_sub(self.first as u64).saturating_add(1)
    }

    /// The bucket of an epoch.
    pub fn of(self, epoch: Epoch) -> u32 {
        epoch.0.checked_div(self.width).unwrap_or_default()
    }

    /// First and last epoch of a bucket.
    pub fn epochs(self, bucket: u32) -> (Epoch, Epoch) {
        let first = Epoch(bucket.saturating_mul(self.width));
        (first, first.plus(self.width.saturating_sub(1)))
    }

    /// Seconds of blocks that lie in them: the first, and the first after; none where there is no such limit.
    pub fn seconds(self, schedule: EpochSchedule) -> (Option<u64>, Option<u64>) {
        // What is older than epoch 0 counts in it.
        let from = (self.first > 0).then(|| schedule.start_of(self.epochs(self.first).0));
        let (_, last) = self.epochs(self.last);
        (from, last.0.checked_add(1).map(|next| schedule.start_of(Epoch(next))))
    }
}

/// Which deals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceFilter {
    /// When they were opened.
    pub buckets: Buckets,
    /// The market's clock.
    pub schedule: EpochSchedule,
    /// Where they are hosted.
    pub region: Option<Region>,
    /// Smallest size.
    pub least: Resources,
    /// Largest size.
    pub greatest: Resources,
}

/// A deal as it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Epoch of the block.
    pub epoch: Epoch,
    /// Where the host is.
    pub region: Region,
    /// Of a replica.
    pub size: Resources,
    /// The ask of the provider offer.
    pub asked: Prices,
    /// Of a replica.
    pub price_per_epoch: Atoms,
}

/// Least, median and greatest of some prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceSpread {
    /// The lowest.
    pub least: Atoms,
    /// The one in the middle of all in their order; of an even number the lower of the two, so that it is a price that
    /// somebody asked.
    pub median: Atoms,
    /// The highest.
    pub greatest: Atoms,
}

impl PriceSpread {
    /// None of no prices.
    fn of(mut prices: Vec<Atoms>) -> Option<Self> {
        prices.sort_unstable();
        let median = prices.len().checked_sub(1)?.div_euclid(2);
        Some(Self { least: *prices.first()?, median: *prices.get(median)?, greatest: *prices.last()? })
    }
}

/// What deals were opened at in some epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceBucket {
    /// First epoch.
    pub from_epoch: Epoch,
    /// Last epoch. It may not be over yet.
    pub to_epoch: Epoch,
    /// First second of the first epoch, since 1970.
    pub start: u64,
    /// How many deals were opened.
    pub deals: u64,
    /// Ask of their provider offers for 1,000 milli-CPU and an epoch; none without deals, as the other two.
    pub per_vcpu_epoch: Option<PriceSpread>,
    /// Ask of their provider offers for 1,024 MiB and an epoch.
    pub per_gib_epoch: Option<PriceSpread>,
    /// Price of a replica for an epoch.
    pub per_replica_epoch: Option<PriceSpread>,
}

/// Prices of the deals of one bucket.
#[derive(Debug, Clone, Default)]
struct Collected {
    per_vcpu: Vec<Atoms>,
    per_gib: Vec<Atoms>,
    per_replica: Vec<Atoms>,
}

/// Prices of deals, by buckets.
#[derive(Debug)]
pub struct PriceHistory {
    filter: PriceFilter,
    collected: Vec<Collected>,
}

impl PriceHistory {
    /// Before the first deal. The filter has at most [`MAX_BUCKETS`] buckets.
    pub fn new(filter: PriceFilter) -> Self {
        let count = usize::try_from(filter.buckets.count().min(MAX_BUCKETS.into())).unwrap_or_default();
        Self { filter, collected: vec![Collected::default(); count] }
    }

    /// Adds a deal, if it is one that was asked for.
    pub fn add(&mut self, opening: &Opening) {
        let PriceFilter { buckets, region, least, greatest, .. } = self.filter;
        let fits = greatest.contains(opening.size) && opening.size.contains(least);
        if !fits || region.is_some_and(|region| !region.contains(opening.region)) {
            return;
        }
        let place = buckets.of(opening.epoch).checked_sub(buckets.first).and_then(|place| usize::try_from(place).ok());
        if let Some(bucket) = place.and_then(|place| self.collected.get_mut(place)) {
            bucket.per_vcpu.push(opening.asked.per_vcpu_epoch);
            bucket.per_gib.push(opening.asked.per_gib_epoch);
            bucket.per_replica.push(opening.price_per_epoch);
        }
    }

    /// All buckets, oldest first.
    pub fn into_buckets(self) -> Vec<PriceBucket> {
        let Buckets { first, last, .. } = self.filter.buckets;
        let bucket = |(number, collected): (u32, Collected)| {
            let (from_epoch, to_epoch) = self.filter.buckets.epochs(number);
            PriceBucket {
                from_epoch,
                to_epoch,
                start: self.filter.schedule.start_of(from_epoch),
                deals: u64::try_from(collected.per_replica.len()).unwrap_or(u64::MAX),
                per_vcpu_epoch: PriceSpread::of(collected.per_vcpu),
                per_gib_epoch: PriceSpread::of(collected.per_gib),
                per_replica_epoch: PriceSpread::of(collected.per_replica),
            }
        };
        (first..=last).zip(self.collected).map(bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(prices: &[u64]) -> Option<[u64; 3]> {
        let spread = PriceSpread::of(prices.iter().map(|price| Atoms::new(*price).unwrap()).collect())?;
        Some([spread.least, spread.median, spread.greatest].map(Atoms::get))
    }

    #[test]
    fn the_median_is_a_price_that_was_asked() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7]), Some([7, 7, 7]));
        assert_eq!(spread(&[9, 1]), Some([1, 1, 9]));
        assert_eq!(spread(&[5, 9, 1]), Some([1, 5, 9]));
        assert_eq!(spread(&[4, 3, 2, 1]), Some([1, 2, 4]));
    }

    #[test]
    fn buckets_are_the_same_whoever_asks() {
        let buckets = Buckets::over(24, Epoch(30), Epoch(100)).unwrap();
        assert_eq!((buckets.first, buckets.last, buckets.count()), (1, 4, 4));
        assert_eq!(buckets.epochs(1), (Epoch(24), Epoch(47)));
        let schedule = EpochSchedule { genesis: 1_000, length: 60 };
        assert_eq!(buckets.seconds(schedule), (Some(1_000 + 24 * 60), Some(1_000 + 120 * 60)));
        assert_eq!((Buckets::over(0, Epoch(0), Epoch(1)), Buckets::over(1, Epoch(2), Epoch(1))), (None, None));
        // The ends of time.
        let all = Buckets::over(1, Epoch(0), Epoch(u32::MAX)).unwrap();
        assert_eq!((all.count(), all.seconds(schedule)), (1 << 32, (None, None)));
        let last = Buckets::over(1_000, Epoch(u32::MAX), Epoch(u32::MAX)).unwrap();
        assert_eq!(last.epochs(last.last).1, Epoch(u32::MAX));
    }
}
