//! Why a matcher cannot start, or stopped.

use std::path::PathBuf;

use chain::ChainError;
use thiserror::Error;

use crate::store::StoreError;

/// A matcher that cannot go on, or could not do one round. [`MatcherError::is_transient`] says whether to try again.
#[derive(Debug, Error)]
pub enum MatcherError {
    /// A value of the configuration is out of its range.
    #[error("{field} must be at least {least}, got {value}: raise it")]
    Config {
        /// Which one.
        field: &'static str,
        /// Smallest value that will do.
        least: u64,
        /// What it is.
        value: u64,
    },
    /// The data folder cannot be used.
    #[error("cannot use {path}: check that it is a folder that this user may write to")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The matcher's own database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The indexer's database.
    #[error("the indexer's database cannot be read")]
    Indexer(#[from] indexer::StoreError),
    /// The chain.
    #[error("the chain did not take part")]
    Chain(#[from] ChainError),
    /// The indexer has stopped: nothing new would be seen.
    #[error("the indexer has stopped, so the matcher stopped too")]
    IndexerStopped,
    /// A metric was registered twice.
    #[error("metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
    /// Another process leads now.
    #[error("another process that shares the database leads now")]
    LeadLost,
    /// A task panicked or was cancelled.
    #[error("the matcher's loop was aborted")]
    Aborted,
}

impl MatcherError {
    /// Whether the same thing may succeed when it is tried again later.
    pub const fn is_transient(&self) -> bool {
        match self {
            // Databases are locked or full for a while; the chain is away for a while.
            Self::Store(_) | Self::Indexer(_) | Self::Chain(_) | Self::LeadLost => true,
            Self::Config { .. } | Self::Folder { .. } | Self::IndexerStopped | Self::Metrics(_) | Self::Aborted => {
                false
            }
        }
    }

    /// The error with all its causes, in one line.
    pub fn in_full(&self) -> String {
        let first: &dyn std::error::Error = self;
        let causes = std::iter::successors(first.source(), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}
