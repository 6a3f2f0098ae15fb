//! Why the indexer stopped.

use chain::ChainError;
use thiserror::Error;

use crate::{source::SourceError, store::StoreError};

/// Errors that end the indexer; everything that may pass is tried again instead.
#[derive(Debug, Error)]
pub enum IndexerError {
    /// There is no next step, and there will be none.
    #[error("the indexer cannot follow the chain")]
    Source(#[from] SourceError),
    /// The database cannot be used as it is.
    #[error("the indexer cannot use its database")]
    Store(#[from] StoreError),
    /// A metric is defined twice.
    #[error("the indexer's metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
    /// The loop was aborted.
    #[error("the indexer was aborted")]
    Aborted,
}

impl IndexerError {
    /// Whether the same thing may succeed later. A node that answers nonsense may be replaced behind its address at any
    /// time, so that it is asked again; what is written on the chain or in the configuration stays as it is.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(SourceError::Chain(error)) => !matches!(
                error,
                ChainError::WrongChain { .. }
                    | ChainError::NoMarket { .. }
                    | ChainError::InvalidEndpoint { .. }
                    | ChainError::InvalidEvent { .. }
            ),
            Self::Source(SourceError::Store(error)) | Self::Store(error) => error.is_transient(),
            Self::Source(SourceError::Diverged { .. }) | Self::Metrics(_) | Self::Aborted => false,
        }
    }

    /// The error with its causes, on one line.
    pub(crate) fn in_full(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        std::iter::once(self.to_string()).chain(causes.map(|cause| cause.to_string())).collect::<Vec<_>>().join(": ")
    }
}
