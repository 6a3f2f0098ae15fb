//! What happened after a place, for those who follow.

use common::ids::{Address, BlockHash};

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
    payload: String,
    /// Developer, provider and agent of its deal, if it has one.
    parties: [Option<String>; 3],
}

impl Happened {
    /// Whether the event names `account`, or belongs to a deal of it.
    pub fn concerns(&self, account: Address) -> bool {
        let name = account.to_string();
        self.parties.iter().flatten().any(|party| *party == name) || self.payload.contains(&format!("\"{name}\""))
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
}

impl HappenedRecord {
    fn into_domain(self) -> Result<Happened, StoreError> {
        let Logged { block_number, block_hash, timestamp, log_index, tx_hash } = self.logged.into_domain()?;
        let event = from_json("events.payload", &self.payload)?;
        Ok(Happened {
            event: EventView { block_number, block_hash, timestamp, log_index, tx_hash, event },
            payload: self.payload,
            parties: [self.developer, self.provider, self.agent],
        })
    }
}

const HAPPENED: &str = "SELECT e.block_number, b.hash AS block_hash, b.timestamp, e.log_index, e.tx_hash, e.payload,
       d.developer, d.provider, d.agent
     FROM events e JOIN blocks b ON b.number = e.block_number LEFT JOIN deals d ON d.deal_id = e.deal_id
     WHERE 1 = 1";

impl Snapshot {
    /// The next events after a place, at most `limit`.
    pub async fn happened_after(&mut self, after: OpenedAt, limit: u32) -> Result<Vec<Happened>, StoreError> {
        let part = Part { limit, after: Some(Cursor(after)), order: Order::Asc };
        let mut query = Statement::new(HAPPENED);
        narrow(&mut query, EVENT_PLACE, part)?;
        let found: Vec<HappenedRecord> = self.read.fetch_all(query).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        found.into_iter().take(wanted).map(HappenedRecord::into_domain).collect()
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
