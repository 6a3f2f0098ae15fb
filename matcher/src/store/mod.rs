//! The matcher's database: signed offers in order of acceptance, the outbox of transactions, the index of artifacts.
//!
//! Layout: `offers`, `outbox` and `artifacts` hold one subject each; `convert` is the border between columns and domain.

mod artifacts;
mod convert;
mod offers;
mod outbox;

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use thiserror::Error;

pub use self::{
    artifacts::StoredArtifact,
    offers::{Accepted, Kind, NewOffer, OfferLimits, SignedOffers, StoredOffer},
    outbox::{FillOutcome, Outcome, Proposed, TxKind, TxRecord, TxStatus},
};

/// How long a statement waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time; further questions wait.
const MAX_CONNECTIONS: u32 = 4;

/// The database does not do what it should.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A statement failed.
    #[error("the matcher's database failed")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the matcher's database {path} could not be migrated")]
    Migrate {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// A column holds what was never written there.
    #[error("column {column} holds {text:?}, which it cannot")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// Its text, cut to a readable length.
        text: String,
    },
    /// A number that the database cannot hold.
    #[error("{column} cannot hold {value}: the limit is 2^63 - 1")]
    TooLarge {
        /// Table and column.
        column: &'static str,
        /// The value.
        value: u64,
    },
    /// Too many offers wait.
    #[error("{limit} open {kind} offers {scope} are the limit")]
    TooManyOffers {
        /// The limit that is reached.
        limit: usize,
        /// `developer` or `provider`.
        kind: &'static str,
        /// Of whom.
        scope: &'static str,
    },
}

/// The matcher's database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database at `path`, creates it where it is missing, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        // What is committed here is promised to others or about to be sent: it has to survive a power cut.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = migrations::sqlite_pool(MAX_CONNECTIONS).connect_with(options).await?;
        migrations::MATCHER
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate { path: path.display().to_string(), source: Box::new(source) })?;
        Ok(Self { pool })
    }

    /// A transaction that takes the write lock at once, so that what it reads stays true until it writes.
    async fn write(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}
