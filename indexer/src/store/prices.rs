//! What deals were opened at, read from the deals and the offers that they joined.

use common::{
    epoch::EpochSchedule,
    event::MarketEvent,
    money::Atoms,
    resources::{Prices, Resources},
};
use serde::Deserialize;

use super::{
    Snapshot,
    convert::{atoms, big, from_json, parse, unsigned},
    db::Statement,
    error::StoreError,
    lists::{Listed, narrow},
};
use crate::{
    prices::{Buckets, MAX_BUCKETS, Opening, PriceBucket, PriceFilter, PriceHistory},
    projection::rows::OpenedAt,
    view::{Cursor, Order, Part},
};

/// Deals that are read at once.
const DEALS_AT_ONCE: u32 = 1_000;

/// A deal that was changed says no more what it was opened with: its event and its demand do.
const OPENED: &str = "SELECT d.opened_block, d.opened_log_index, b.timestamp, s.region, s.offer AS supply, d.milli_cpu,
       d.memory_mib, d.price_per_epoch, e.payload, w.offer AS demand
     FROM deals d
     JOIN blocks b ON b.number = d.opened_block
     JOIN provider_offers s ON s.offer_hash = d.provider_offer
     LEFT JOIN events e ON d.changes > 0 AND e.block_number = d.opened_block AND e.log_index = d.opened_log_index
     LEFT JOIN developer_offers w ON d.changes > 0 AND w.offer_hash = d.developer_offer
     WHERE 1 = 1";

#[derive(sqlx::FromRow)]
struct OpeningRecord {
    opened_block: i64,
    opened_log_index: i64,
    timestamp: i64,
    region: String,
    supply: String,
    milli_cpu: i64,
    memory_mib: i64,
    price_per_epoch: i64,
    payload: Option<String>,
    demand: Option<String>,
}

/// As much of a provider offer as is needed.
#[derive(Deserialize)]
struct Supply {
    prices: Prices,
}

/// As much of a developer offer as is needed.
#[derive(Deserialize)]
struct Demand {
    size: Resources,
}

impl OpeningRecord {
    fn into_domain(self, schedule: EpochSchedule) -> Result<Opening, StoreError> {
        let (size, price_per_epoch) = match (self.payload, self.demand) {
            (Some(payload), Some(demand)) => {
                let demand: Demand = from_json("developer_offers.offer", &demand)?;
                (demand.size, opening_price(&payload)?)
            }
            _ => {
                let milli_cpu = unsigned("deals.milli_cpu", self.milli_cpu)?;
                let size = Resources { milli_cpu, memory_mib: unsigned("deals.memory_mib", self.memory_mib)? };
                (size, atoms("deals.price_per_epoch", self.price_per_epoch)?)
            }
        };
        let supply: Supply = from_json("provider_offers.offer", &self.supply)?;
        Ok(Opening {
            epoch: schedule.epoch_at(unsigned("blocks.timestamp", self.timestamp)?),
            region: parse("provider_offers.region", &self.region)?,
            size,
            asked: supply.prices,
            price_per_epoch,
        })
    }
}

fn opening_price(payload: &str) -> Result<Atoms, StoreError> {
    match from_json("events.payload", payload)? {
        MarketEvent::DealOpened(opened) => Ok(opened.price_per_epoch),
        _ => Err(StoreError::corrupt("events.payload", payload)),
    }
}

/// Heights of blocks: the first, and the first after.
#[derive(Debug, Clone, Copy)]
struct Heights {
    from: u64,
    until: u64,
}

impl Heights {
    fn narrow(self, query: &mut Statement, block: &str) -> Result<(), StoreError> {
        query.push(format_args!(" AND {block} >= ")).push_bind(big("block number", self.from)?);
        query.push(format_args!(" AND {block} < ")).push_bind(big("block number", self.until)?);
        Ok(())
    }
}

impl Snapshot {
    /// What deals were opened at, a bucket for each item.
    pub async fn prices(&mut self, filter: PriceFilter, part: Part) -> Result<Listed<PriceBucket>, StoreError> {
        let Buckets { width, first, last } = filter.buckets;
        let after = part.after.map(|Cursor(place)| place.block.checked_div(width.into()).unwrap_or_default());
        let after = after.map(|bucket| u32::try_from(bucket).unwrap_or(u32::MAX));
        let more = part.limit.clamp(1, MAX_BUCKETS).saturating_sub(1);
        let (first, last) = match (part.order, after) {
            (Order::Asc, Some(u32::MAX)) | (Order::Desc, Some(0)) => {
                return Ok(Listed { items: Vec::new(), next: None });
            }
            (Order::Asc, after) => (after.map_or(first, |after| first.max(after.saturating_add(1))), last),
            (Order::Desc, after) => (first, after.map_or(last, |after| last.min(after.saturating_sub(1)))),
        };
        if first > last {
            return Ok(Listed { items: Vec::new(), next: None });
        }
        let (from, to) = match part.order {
            Order::Asc => (first, last.min(first.saturating_add(more))),
            Order::Desc => (first.max(last.saturating_sub(more)), last),
        };
        let has_more = (from, to) != (first, last);
        let filter = PriceFilter { buckets: Buckets { width, first: from, last: to }, ..filter };
        let mut items = self.history(filter).await?.into_buckets();
        if part.order == Order::Desc {
            items.reverse();
        }
        let next = items.last().filter(|_| has_more).map(PriceBucket::place);
        Ok(Listed { items, next })
    }

    /// How many deals were opened in these buckets, but no more than `most`.
    pub async fn deals_opened(
        &mut self,
        buckets: Buckets,
        schedule: EpochSchedule,
        most: u32,
    ) -> Result<u64, StoreError> {
        let heights = self.heights(buckets, schedule).await?;
        let mut query = Statement::new("SELECT count(*) FROM (SELECT opened_block FROM deals WHERE 1 = 1");
        heights.narrow(&mut query, "opened_block")?;
        query.push(" LIMIT ").push_bind(i64::from(most)).push(") AS counted");
        let (count,): (i64,) = self.read.fetch_one(query).await?;
        unsigned("count of deals", count)
    }

    async fn history(&mut self, filter: PriceFilter) -> Result<PriceHistory, StoreError> {
        let heights = self.heights(filter.buckets, filter.schedule).await?;
        let mut history = PriceHistory::new(filter);
        let mut after = None;
        loop {
            let mut query = Statement::new(OPENED);
            heights.narrow(&mut query, "d.opened_block")?;
            let part = Part { limit: DEALS_AT_ONCE, after, order: Order::Asc };
            narrow(&mut query, ["d.opened_block", "d.opened_log_index"], part)?;
            let found: Vec<OpeningRecord> = self.read.fetch_all(query).await?;
            let is_last = found.len() <= usize::try_from(DEALS_AT_ONCE).unwrap_or(usize::MAX);
            if let Some(last) = found.last() {
                let block = unsigned("deals.opened_block", last.opened_block)?;
                let log_index = unsigned("deals.opened_log_index", last.opened_log_index)?;
                after = Some(Cursor(OpenedAt { block, log_index }));
            }
            for record in found {
                history.add(&record.into_domain(filter.schedule)?);
            }
            if is_last {
                return Ok(history);
            }
        }
    }

    /// Times of blocks never fall, so seconds are heights.
    async fn heights(&mut self, buckets: Buckets, schedule: EpochSchedule) -> Result<Heights, StoreError> {
        let (from, until) = buckets.seconds(schedule);
        let end = self.block().map_or(0, |block| block.number).saturating_add(1);
        let from = match from {
            Some(from) => self.first_block_at(from).await?.unwrap_or(end),
            None => 0,
        };
        let until = match until {
            Some(until) => self.first_block_at(until).await?.unwrap_or(end),
            None => end,
        };
        Ok(Heights { from, until })
    }

    /// The first stored block at or after a second.
    async fn first_block_at(&mut self, second: u64) -> Result<Option<u64>, StoreError> {
        let query = "SELECT number FROM blocks WHERE timestamp >= $1 ORDER BY timestamp, number LIMIT 1";
        let query = Statement::new(query).bind(i64::try_from(second).unwrap_or(i64::MAX));
        let found: Option<(i64,)> = self.read.fetch_optional(query).await?;
        found.map(|(number,)| unsigned("blocks.number", number)).transpose()
    }
}

impl PriceBucket {
    /// Where it stands in its list.
    pub(crate) fn place(&self) -> Cursor {
        Cursor(OpenedAt { block: self.from_epoch.0.into(), log_index: 0 })
    }
}
