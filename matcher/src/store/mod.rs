//! The matcher's database: signed offers in order of acceptance, the outbox of transactions, the index of artifacts.
//!
//! Layout: `offers`, `outbox` and `artifacts` hold one subject each; `convert` is the border between columns and domain;
//! `db` opens it, SQLite or PostgreSQL, and `leader` says who may send.

mod artifacts;
mod convert;
mod db;
mod explanations;
mod leader;
mod offers;
mod outbox;

use indexer::store::{
    Location,
    db::{Pool, Record, Statement, Tx},
};
use thiserror::Error;

pub use self::{
    artifacts::StoredArtifact,
    explanations::{KeptExplanation, says_the_same},
    leader::{Leadership, Standing},
    offers::{Accepted, Kind, NewOffer, OfferLimits, OfferNews, StoredOffer},
    outbox::{FillOutcome, Outcome, Proposed, TxKind, TxRecord, TxStatus},
};

/// The database does not do what it should.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be reached.
    #[error("the matcher's database failed")]
    Database(#[from] sqlx::Error),
    /// A statement failed.
    #[error("the matcher's database did not carry out a statement")]
    Statement(#[from] indexer::StoreError),
    /// The schema could not be brought up to date.
    #[error("the matcher's database {database} could not be migrated")]
    Migrate {
        /// Where it is.
        database: String,
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
    /// Another process matches with the same database file.
    #[error("another process matches with {path}: stop it, or give this one a data folder of its own")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file that keeps a second process away cannot be locked.
    #[error("cannot lock {path}: check that this user may write to it")]
    Lock {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
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
    pool: Pool,
}

impl Store {
    /// Opens the database, creates a file where it is missing, and brings its schema up to date.
    pub async fn open(location: &Location) -> Result<Self, StoreError> {
        Ok(Self { pool: db::open(location).await? })
    }

    async fn write(&self) -> Result<Tx, StoreError> {
        db::write(&self.pool).await
    }

    async fn rows<T: Record>(&self, statement: Statement) -> Result<Vec<T>, StoreError> {
        Ok(self.pool.read().await?.fetch_all(statement).await?)
    }

    async fn row<T: Record>(&self, statement: Statement) -> Result<Option<T>, StoreError> {
        Ok(self.pool.read().await?.fetch_optional(statement).await?)
    }

    /// Carries out one statement.
    async fn change(&self, statement: Statement) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        tx.execute(statement).await?;
        Ok(tx.commit().await?)
    }
}

/// Databases of both kinds for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) struct Database {
        location: Location,
        _folder: tempfile::TempDir,
    }

    impl Database {
        /// As after a start of the process.
        pub(crate) async fn open(&self) -> Store {
            Store::open(&self.location).await.unwrap()
        }
    }

    /// An empty one of each kind.
    pub(crate) async fn databases() -> [Database; 2] {
        let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let file = Location::Sqlite(first.path().join("matcher.db"));
        let server = Location::Postgres(migrations::testing::Postgres::shared().database().await);
        [Database { location: file, _folder: first }, Database { location: server, _folder: second }]
    }
}
