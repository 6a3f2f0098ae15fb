//! The database: the projection's tables, written by one writer in one transaction a step, read in consistent snapshots.
//!
//! Layout: [`Store`] opens and hands out; `write` applies steps, takes blocks back and rebuilds; `rows` moves single rows;
//! `records` and `convert` are the border between columns and domain; `snapshot`, `lists` and `views` answer the
//! API; `state` loads the whole market.

mod convert;
mod error;
mod lists;
mod records;
mod rows;
mod snapshot;
mod state;
mod views;
mod write;

use std::{path::Path, time::Duration};

use common::{event::BlockRef, market::MarketTerms, state::MarketState};
use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::{
    convert::{big, from_json, json, unsigned},
    records::BlockRecord,
};
pub use self::{
    error::StoreError,
    lists::{DealFilter, Listed},
    snapshot::Snapshot,
};
use crate::input::Step;

/// How long a statement waits for another process's lock, and a reader for a free connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Readers at a time; further ones wait.
const MAX_READERS: u32 = 8;

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
    readers: SqlitePool,
    /// One connection; none when the database was opened for reading.
    writer: Option<SqlitePool>,
}

impl Store {
    /// Opens the database at `path`, creates it and its folder where they are missing, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            let failed = |source| StoreError::Folder { path: path.display().to_string(), source };
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        }
        // In write-ahead mode readers never wait for the writer. A commit that is lost to a power cut is fetched again
        // from the chain, so it need not be forced to the disk.
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        migrations::INDEXER
            .run(&writer)
            .await
            .map_err(|source| StoreError::Migrate { path: path.display().to_string(), source: Box::new(source) })?;
        Ok(Self { readers: readers(path).await?, writer: Some(writer) })
    }

    /// Opens the database of an indexer, which may be running, for reading only.
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { readers: readers(path).await?, writer: None })
    }

    /// The whole market after the last committed block, in one consistent read.
    pub async fn market_state(&self) -> Result<MarketState, StoreError> {
        let mut read = self.readers.begin().await?;
        state::load(&mut read).await
    }

    /// The last committed block.
    pub async fn as_of(&self) -> Result<Option<BlockRef>, StoreError> {
        Ok(self.checkpoint().await?.block)
    }

    /// How far the projection is.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let mut read = self.readers.begin().await?;
        checkpoint(&mut read).await
    }

    /// A consistent view for several questions.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut read = self.readers.begin().await?;
        let checkpoint = checkpoint(&mut read).await?;
        Ok(Snapshot::new(read, checkpoint))
    }

    /// Binds the database to `terms`' market; [`StoreError::OtherMarket`] when it was bound to another one before.
    pub async fn bind(&self, terms: &MarketTerms) -> Result<(), StoreError> {
        let mut write = self.writer()?.begin_with("BEGIN IMMEDIATE").await?;
        let found: Option<(String,)> =
            sqlx::query_as("SELECT terms FROM market WHERE id = 1").fetch_optional(&mut *write).await?;
        if let Some((found,)) = found {
            let found: MarketTerms = from_json("market.terms", &found)?;
            if (found.chain_id, found.market) != (terms.chain_id, terms.market) {
                return Err(StoreError::OtherMarket { expected: market_name(terms), found: market_name(&found) });
            }
            return Ok(());
        }
        sqlx::query("INSERT INTO market (id, chain_id, address, terms) VALUES (1, ?, ?, ?)")
            .bind(big("chain id", terms.chain_id)?)
            .bind(terms.market.to_string())
            .bind(json("market.terms", terms)?)
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(())
    }

    /// Applies a step: all of it or, on any error, nothing.
    pub async fn apply(&self, step: &Step) -> Result<Checkpoint, StoreError> {
        let mut write = self.writer()?.begin_with("BEGIN IMMEDIATE").await?;
        let checkpoint = write::apply(&mut write, step).await?;
        write.commit().await?;
        Ok(checkpoint)
    }

    /// Empties all tables that follow from events, and fills them again from the stored events.
    pub async fn rebuild(&self) -> Result<(), StoreError> {
        let mut write = self.writer()?.begin_with("BEGIN IMMEDIATE").await?;
        write::rebuild(&mut write).await?;
        write.commit().await?;
        Ok(())
    }

    /// Stored blocks below height `below`, newest first, at most `limit`.
    pub async fn blocks_below(&self, below: u64, limit: u32) -> Result<Vec<BlockRef>, StoreError> {
        let sql = "SELECT * FROM blocks WHERE number < ? ORDER BY number DESC LIMIT ?";
        let query = sqlx::query_as(sql).bind(big("block number", below)?).bind(limit);
        let records: Vec<BlockRecord> = query.fetch_all(&self.readers).await?;
        records.into_iter().map(BlockRecord::into_domain).collect()
    }

    /// Stored blocks above height `above`, oldest first.
    pub async fn blocks_above(&self, above: Option<u64>) -> Result<Vec<BlockRef>, StoreError> {
        let above = above.map_or(Ok(-1), |number| big("block number", number))?;
        let query = sqlx::query_as("SELECT * FROM blocks WHERE number > ? ORDER BY number").bind(above);
        let records: Vec<BlockRecord> = query.fetch_all(&self.readers).await?;
        records.into_iter().map(BlockRecord::into_domain).collect()
    }

    /// The stored block at a height.
    pub async fn block_at(&self, number: u64) -> Result<Option<BlockRef>, StoreError> {
        let mut read = self.readers.acquire().await?;
        block_at(&mut read, big("block number", number)?).await
    }

    fn writer(&self) -> Result<&SqlitePool, StoreError> {
        self.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT)
}

async fn readers(path: &Path) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new().max_connections(MAX_READERS).acquire_timeout(BUSY_TIMEOUT);
    Ok(pool.connect_with(options(path).read_only(true)).await?)
}

fn market_name(terms: &MarketTerms) -> String {
    format!("the market {} on chain {}", terms.market, terms.chain_id)
}

async fn checkpoint(db: &mut SqliteConnection) -> Result<Checkpoint, StoreError> {
    let sql = "SELECT block_number, finalized_number FROM checkpoint WHERE id = 1";
    let (number, finalized): (Option<i64>, Option<i64>) = sqlx::query_as(sql).fetch_one(&mut *db).await?;
    let finalized = finalized.map(|number| unsigned("checkpoint.finalized_number", number)).transpose()?;
    let Some(number) = number else { return Ok(Checkpoint { block: None, finalized }) };
    let block = block_at(db, number).await?.ok_or_else(|| StoreError::corrupt("checkpoint.block_number", number))?;
    Ok(Checkpoint { block: Some(block), finalized })
}

/// The market that the database is bound to.
async fn bound_terms(db: &mut SqliteConnection) -> Result<MarketTerms, StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT terms FROM market WHERE id = 1").fetch_optional(db).await?;
    from_json("market.terms", &found.ok_or(StoreError::Unbound)?)
}

async fn block_at(db: &mut SqliteConnection, number: i64) -> Result<Option<BlockRef>, StoreError> {
    let query = sqlx::query_as("SELECT * FROM blocks WHERE number = ?").bind(number);
    let record: Option<BlockRecord> = query.fetch_optional(db).await?;
    record.map(BlockRecord::into_domain).transpose()
}
