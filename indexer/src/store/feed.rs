//! Events with whom they concern: what happened after a place, for those who follow, and at places that were found.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    event::MarketEvent,
    ids::{Address, BlockHash, OfferHash},
    parties::{Behind, DealParties},
};
use serde::Deserialize;

use super::{
    Snapshot,
    convert::{big, from_json, parse, unsigned},
    db::Statement,
    error::StoreError,
    history::LoggedRecord,
    lists::{EVENT_PLACE, narrow},
};
use crate::{
    projection::rows::OpenedAt,
    view::{Cursor, EventView, Logged, Order, Part},
};

/// An event with whom it concerns.
#[derive(Debug)]
pub struct Happened {
    /// The event.
    pub event: EventView,
    behind: Behind,
}

impl Happened {
    /// Whether the event concerns `account`, as [`common::parties`] has it.
    pub fn concerns(&self, account: Address) -> bool {
        self.event.event.concerns(account, &self.behind)
    }
}

#[derive(sqlx::FromRow)]
struct HappenedRecord {
    #[sqlx(flatten)]
    logged: LoggedRecord,
    payload: String,
    developer: Option<String>,
    provider: Option<String>,
    agent: Option<String>,
    hosted_under: Option<String>,
}

/// As much of a provider offer as a settlement needs.
#[derive(Deserialize)]
struct Hosting {
    payout: Address,
}

impl HappenedRecord {
    fn into_domain(self) -> Result<Happened, StoreError> {
        let Logged { block_number, block_hash, timestamp, log_index, tx_hash } = self.logged.into_domain()?;
        let event: MarketEvent = from_json("events.payload", &self.payload)?;
        let deal = match (self.developer, self.provider, self.agent) {
            (Some(developer), Some(provider), Some(agent)) => Some(DealParties {
                developer: parse("deals.developer", &developer)?,
                provider: parse("deals.provider", &provider)?,
                agent: parse("deals.agent", &agent)?,
            }),
            _ => None,
        };
        let hosting = self.hosted_under.filter(|_| event.pays_out());
        let hosting = hosting.map(|offer| from_json::<Hosting>("provider_offers.offer", &offer)).transpose()?;
        Ok(Happened {
            event: EventView { block_number, block_hash, timestamp, log_index, tx_hash, event },
            behind: Behind { deal, payout: hosting.map(|hosting| hosting.payout), developer: None },
        })
    }
}

const COLUMNS: &str = "SELECT e.block_number, b.hash AS block_hash, b.timestamp, e.log_index, e.tx_hash, e.payload,
       d.developer, d.provider, d.agent, o.offer AS hosted_under
     FROM ";
/// An event may name a deal before it is open: it concerns nobody then, and does not later.
const BEHIND: &str = " JOIN blocks b ON b.number = e.block_number
     LEFT JOIN deals d ON d.deal_id = e.deal_id
       AND (d.opened_block, d.opened_log_index) <= (e.block_number, e.log_index)
     LEFT JOIN provider_offers o ON o.offer_hash = d.provider_offer
     WHERE 1 = 1";

/// The next events after a place.
pub(super) fn after(place: OpenedAt, limit: u32) -> Result<Statement, StoreError> {
    let part = Part { limit, after: Some(Cursor(place)), order: Order::Asc };
    let mut query = Statement::new(COLUMNS);
    query.push("events e").push(BEHIND);
    narrow(&mut query, EVENT_PLACE, part)?;
    Ok(query)
}

/// The events at places, in any order.
pub(super) fn at(places: &[OpenedAt]) -> Result<Statement, StoreError> {
    let mut query = Statement::new("WITH places (block_number, log_index) AS (VALUES ");
    for (n, place) in places.iter().enumerate() {
        query.push(if n == 0 { "(" } else { ", (" }).push_bind(big("place", place.block)?);
        query.push(", ").push_bind(big("place", place.log_index)?).push(")");
    }
    // Looked up one by one: SQLite takes `CROSS JOIN` as the order to follow.
    query.push(") ").push(COLUMNS).push("places CROSS JOIN events e").push(BEHIND);
    query.push(" AND e.block_number = places.block_number AND e.log_index = places.log_index");
    Ok(query)
}

impl Snapshot {
    /// The next events after a place, at most `limit`.
    pub async fn happened_after(&mut self, place: OpenedAt, limit: u32) -> Result<Vec<Happened>, StoreError> {
        let mut found = self.happened(after(place, limit)?).await?;
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Events with whom they concern.
    pub(super) async fn happened(&mut self, query: Statement) -> Result<Vec<Happened>, StoreError> {
        let found: Vec<HappenedRecord> = self.read.fetch_all(query).await?;
        let mut found = found.into_iter().map(HappenedRecord::into_domain).collect::<Result<Vec<_>, _>>()?;
        let offers: BTreeSet<OfferHash> =
            found.iter().filter_map(|happened| happened.event.event.developers_offer()).collect();
        let developers = self.developers(&offers).await?;
        for happened in &mut found {
            let offer = happened.event.event.developers_offer();
            happened.behind.developer = offer.and_then(|offer| developers.get(&offer).copied());
        }
        Ok(found)
    }

    async fn developers(&mut self, offers: &BTreeSet<OfferHash>) -> Result<BTreeMap<OfferHash, Address>, StoreError> {
        if offers.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut query = Statement::new("SELECT offer_hash, developer FROM developer_offers WHERE offer_hash IN (");
        query.push_list(offers.iter().map(ToString::to_string)).push(")");
        let found: Vec<(String, String)> = self.read.fetch_all(query).await?;
        let pair = |(offer, developer): (String, String)| {
            Ok((parse("developer_offers.offer_hash", &offer)?, parse("developer_offers.developer", &developer)?))
        };
        found.into_iter().map(pair).collect()
    }

    /// Place and block of the last event.
    pub async fn last_event(&mut self) -> Result<Option<(OpenedAt, BlockHash)>, StoreError> {
        let query = "SELECT e.block_number, e.log_index, b.hash
             FROM events e JOIN blocks b ON b.number = e.block_number
             ORDER BY e.block_number DESC, e.log_index DESC LIMIT 1";
        let found: Option<(i64, i64, String)> = self.read.fetch_optional(Statement::new(query)).await?;
        let place = |(block, log_index, hash): (i64, i64, String)| {
            let block = unsigned("events.block_number", block)?;
            let log_index = unsigned("events.log_index", log_index)?;
            Ok((OpenedAt { block, log_index }, parse("blocks.hash", &hash)?))
        };
        found.map(place).transpose()
    }

    /// Hash of the stored block at a height.
    pub async fn block_hash(&mut self, number: u64) -> Result<Option<BlockHash>, StoreError> {
        let query = Statement::new("SELECT hash FROM blocks WHERE number = $1").bind(big("block number", number)?);
        let found: Option<(String,)> = self.read.fetch_optional(query).await?;
        found.map(|(hash,)| parse("blocks.hash", &hash)).transpose()
    }
}
