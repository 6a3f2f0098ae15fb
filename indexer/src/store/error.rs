//! Why the database could not do it.

use common::event::BlockRef;
use thiserror::Error;

use crate::projection::ProjectionError;

/// Errors of the [`Store`](super::Store).
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database failed; the transaction was rolled back and may be tried again.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database {database} could not be migrated")]
    Migrate {
        /// Where it is.
        database: String,
        /// Why.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// The folder of the database cannot be created.
    #[error("cannot create the folder of the database {path}")]
    Folder {
        /// File of the database.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database is about another market.
    #[error("the database holds {found}, not {expected}: choose another database file, or delete it to index anew")]
    OtherMarket {
        /// What is indexed now.
        expected: String,
        /// What the database was made for.
        found: String,
    },
    /// A stored value is not what this program writes.
    #[error("{what} in the database is not readable: {value:?}; rebuild the database or delete it to index anew")]
    Corrupt {
        /// Table and column.
        what: &'static str,
        /// What stands there, cut to a readable length.
        value: String,
    },
    /// A number from the chain that no column can hold.
    #[error("{what} {value} is too large for the database")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Somebody else writes to the same database.
    #[error("expected to follow {expected}, but the database is at {found}: is a second indexer writing to it?")]
    Conflict {
        /// The last block as this writer knows it.
        expected: String,
        /// The last block in the database.
        found: String,
    },
    /// Nobody has said yet which market the database is about.
    #[error("the database is not about any market yet: start an indexer on it")]
    Unbound,
    /// The database was opened for reading.
    #[error("the database was opened for reading only")]
    ReadOnly,
    /// A final block was to be taken back; there is no undo information for it.
    #[error("block {number} is final (up to {finalized}) and cannot be taken back")]
    BelowFinal {
        /// The lowest block to be taken back.
        number: u64,
        /// The last final block.
        finalized: u64,
    },
    /// Events contradict each other.
    #[error("the events contradict each other: logs are missing, doubled or out of order")]
    Projection(#[from] ProjectionError),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database(_))
    }

    pub(super) fn conflict(expected: Option<BlockRef>, found: Option<BlockRef>) -> Self {
        let name = |block: Option<BlockRef>| {
            block.map_or_else(|| "no block".to_owned(), |block| format!("block {} {}", block.number, block.hash))
        };
        Self::Conflict { expected: name(expected), found: name(found) }
    }

    pub(super) fn corrupt(what: &'static str, value: impl ToString) -> Self {
        Self::Corrupt { what, value: value.to_string().chars().take(80).collect() }
    }
}
