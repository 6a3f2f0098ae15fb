//! The database: the projection's tables, written by one writer in one transaction a step, read in consistent snapshots.
//!
//! Layout: [`Store`] opens and hands out; [`db`] hides which database it is, `bulk` how each takes many rows at a time;
//! `accounts` gives accounts their numbers; `write` applies steps, takes blocks back and rebuilds, `pipeline` writes a
//! step while it is worked out; `rows` moves
//! single rows; `indexes` is what makes reading fast; `records` and `convert` are the border between columns and
//! domain; `snapshot`, `lists`, `providers`, `payments`, `mentions`, `history`, `prices`, `feed`, `concerning` and `views`
//! answer the API; `state` loads the whole market, and `follow` what it has become since.

mod accounts;
mod bulk;
mod concerning;
mod convert;
pub mod db;
mod error;
mod feed;
mod follow;
mod history;
mod indexes;
mod lists;
mod mentions;
mod payments;
mod pipeline;
#[cfg(test)]
mod plans;
mod prices;
mod providers;
mod records;
mod rows;
mod snapshot;
mod state;
mod views;
mod write;

pub(crate) use self::payments::place_of as payment_cursor;
use self::{
    convert::{big, from_json, json, unsigned},
    db::{Pool, Statement, Tx},
    pipeline::Known,
    records::BlockRecord,
};
pub use self::{
    db::Location,
    error::StoreError,
    feed::Happened,
    follow::{Loaded, News},
    history::AttestationFilter,
    lists::{DealFilter, EventFilter, Listed},
    payments::PaymentFilter,
    snapshot::Snapshot,
};
use crate::input::Step;
use common::{event::BlockRef, market::MarketTerms, state::MarketState};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// How far the projection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The last committed block.
    pub block: Option<BlockRef>,
    /// Blocks up to this height can no longer change.
    pub finalized: Option<u64>,
}

/// The indexer's database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    readers: Pool,
    /// One connection; none when the database was opened for reading.
    writer: Option<Pool>,
    /// Whether this process knows that readers have their indexes.
    indexed: Arc<AtomicBool>,
    /// While final blocks are fetched.
    known: Arc<Mutex<Option<KnownAt>>>,
}

/// What the last step left, so that the next one need not read it again.
#[derive(Debug)]
struct KnownAt {
    block: BlockRef,
    known: Known,
}

impl Store {
    /// Opens the database, creates a SQLite file and its folder where they are missing, and brings the schema up to date.
    pub async fn open(location: &Location) -> Result<Self, StoreError> {
        let writer = Pool::writer(location).await?;
        let failed = |source| StoreError::Migrate { database: location.to_string(), source: Box::new(source) };
        writer.migrate().await.map_err(failed)?;
        Ok(Self::new(Pool::readers(location).await?, Some(writer)))
    }

    /// Opens the database of an indexer, which may be running, for reading only.
    pub async fn open_read_only(location: &Location) -> Result<Self, StoreError> {
        Ok(Self::new(Pool::readers(location).await?, None))
    }

    fn new(readers: Pool, writer: Option<Pool>) -> Self {
        Self { readers, writer, indexed: Arc::default(), known: Arc::default() }
    }

    /// The whole market after the last committed block, in one consistent read.
    pub async fn market_state(&self) -> Result<MarketState, StoreError> {
        let mut read = self.readers.read().await?;
        state::load(&mut read).await
    }

    /// The last committed block.
    pub async fn as_of(&self) -> Result<Option<BlockRef>, StoreError> {
        Ok(self.checkpoint().await?.block)
    }

    /// How far the projection is.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let mut read = self.readers.read().await?;
        checkpoint(&mut read).await
    }

    /// A consistent view for several questions.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut read = self.readers.read().await?;
        let checkpoint = checkpoint(&mut read).await?;
        Ok(Snapshot::new(read, checkpoint))
    }

    /// Binds the database to `terms`' market; [`StoreError::OtherMarket`] when it was bound to another one before.
    pub async fn bind(&self, terms: &MarketTerms) -> Result<(), StoreError> {
        let mut write = self.writer()?.write().await?;
        let found: Option<(String,)> =
            write.fetch_optional(Statement::new("SELECT terms FROM market WHERE id = 1")).await?;
        if let Some((found,)) = found {
            let found: MarketTerms = from_json("market.terms", &found)?;
            if (found.chain_id, found.market) != (terms.chain_id, terms.market) {
                return Err(StoreError::OtherMarket { expected: market_name(terms), found: market_name(&found) });
            }
            return Ok(());
        }
        let insert = Statement::new("INSERT INTO market (id, chain_id, address, terms) VALUES (1, $1, $2, $3)")
            .bind(big("chain id", terms.chain_id)?)
            .bind(terms.market.to_string())
            .bind(json("market.terms", terms)?);
        write.execute(insert).await?;
        write.commit().await?;
        Ok(())
    }

    /// Applies a step: all of it or, on any error, nothing.
    pub async fn apply(&self, step: &Step) -> Result<Checkpoint, StoreError> {
        let mut write = self.writer()?.write().await?;
        if step.follows.is_none() {
            indexes::drop(&mut write).await?;
            self.indexed.store(false, Ordering::Relaxed);
        }
        // Whatever fails from here on, they are not used again.
        let known = self.known().take().filter(|known| Some(known.block) == step.follows);
        let known = known.map(|known| known.known).unwrap_or_default();
        let (checkpoint, known) = write::apply(&mut write, step, known).await?;
        // No final blocks are left to fetch: from here on it is a block at a time.
        let caught_up = checkpoint.block.map(|block| block.number) >= step.finalized;
        let indexes = caught_up && !self.indexed.load(Ordering::Relaxed);
        if indexes {
            indexes::create(&mut write).await?;
        }
        write.commit().await?;
        if indexes {
            self.indexed.store(true, Ordering::Relaxed);
        }
        if !caught_up {
            *self.known() = checkpoint.block.map(|block| KnownAt { block, known });
        }
        Ok(checkpoint)
    }

    /// Empties all tables that follow from events, and fills them again from the stored events. `progress` is told how many
    /// of how many are done. On PostgreSQL readers wait until it is.
    pub async fn rebuild(&self, progress: impl FnMut(u64, u64) + Send) -> Result<(), StoreError> {
        let mut write = self.writer()?.write().await?;
        self.known().take();
        indexes::drop_of_projection(&mut write).await?;
        write::rebuild(&mut write, progress).await?;
        indexes::create(&mut write).await?;
        write.commit().await
    }

    /// Empties all tables: the next indexer starts from nothing, with whatever market it is given.
    pub async fn forget(&self) -> Result<(), StoreError> {
        let mut write = self.writer()?.write().await?;
        self.known().take();
        write::forget(&mut write).await?;
        write.commit().await
    }

    /// Stored blocks below height `below`, newest first, at most `limit`.
    pub async fn blocks_below(&self, below: u64, limit: u32) -> Result<Vec<BlockRef>, StoreError> {
        let query = Statement::new("SELECT * FROM blocks WHERE number < $1 ORDER BY number DESC LIMIT $2");
        let query = query.bind(big("block number", below)?).bind(limit);
        let records: Vec<BlockRecord> = self.readers.read().await?.fetch_all(query).await?;
        records.into_iter().map(BlockRecord::into_domain).collect()
    }

    /// Stored blocks above height `above`, oldest first.
    pub async fn blocks_above(&self, above: Option<u64>) -> Result<Vec<BlockRef>, StoreError> {
        let above = above.map_or(Ok(-1), |number| big("block number", number))?;
        let query = Statement::new("SELECT * FROM blocks WHERE number > $1 ORDER BY number").bind(above);
        let records: Vec<BlockRecord> = self.readers.read().await?.fetch_all(query).await?;
        records.into_iter().map(BlockRecord::into_domain).collect()
    }

    /// The stored block at a height.
    pub async fn block_at(&self, number: u64) -> Result<Option<BlockRef>, StoreError> {
        let mut read = self.readers.read().await?;
        block_at(&mut read, big("block number", number)?).await
    }

    fn known(&self) -> MutexGuard<'_, Option<KnownAt>> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> Result<&Pool, StoreError> {
        self.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}

fn market_name(terms: &MarketTerms) -> String {
    format!("the market {} on chain {}", terms.market, terms.chain_id)
}

async fn checkpoint(db: &mut Tx) -> Result<Checkpoint, StoreError> {
    let query = Statement::new("SELECT block_number, finalized_number FROM checkpoint WHERE id = 1");
    let (number, finalized): (Option<i64>, Option<i64>) = db.fetch_one(query).await?;
    let finalized = finalized.map(|number| unsigned("checkpoint.finalized_number", number)).transpose()?;
    let Some(number) = number else { return Ok(Checkpoint { block: None, finalized }) };
    let block = block_at(db, number).await?.ok_or_else(|| StoreError::corrupt("checkpoint.block_number", number))?;
    Ok(Checkpoint { block: Some(block), finalized })
}

/// The market that the database is bound to.
async fn bound_terms(db: &mut Tx) -> Result<MarketTerms, StoreError> {
    let found: Option<(String,)> = db.fetch_optional(Statement::new("SELECT terms FROM market WHERE id = 1")).await?;
    let (found,) = found.ok_or(StoreError::Unbound)?;
    from_json("market.terms", &found)
}

async fn block_at(db: &mut Tx, number: i64) -> Result<Option<BlockRef>, StoreError> {
    let query = Statement::new("SELECT * FROM blocks WHERE number = $1").bind(number);
    let record: Option<BlockRecord> = db.fetch_optional(query).await?;
    record.map(BlockRecord::into_domain).transpose()
}
