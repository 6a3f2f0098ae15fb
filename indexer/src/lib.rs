//! Chain → database, safe to reorganizations and restarts, with a read API.
//!
//! Layout: [`source`] turns the chain into [`input`]s, final blocks through `backfill`; [`projection`] says what each
//! event changes, without I/O; [`prices`] what deals were opened at; [`store`] commits rows, undo information and
//! checkpoint in one transaction, and reads; [`sync`](Indexer) is the loop between them; [`view`] and `api` are the read
//! API; `status`, `progress` and `metrics` say how it is doing.
//!
//! The database is a projection: it may be deleted at any time and is then filled anew from the chain, or rebuilt from the
//! stored events by [`store::Store::rebuild`].

mod api;
mod backfill;
mod error;
pub mod input;
mod kind;
mod metrics;
pub mod prices;
mod progress;
pub mod projection;
pub mod source;
mod status;
pub mod store;
mod sync;
pub mod view;

use std::{sync::Arc, time::Duration};

use chain::{LogCheck, MarketReader};
use common::{clock::SystemClock, event::BlockRef, http::Readiness, market::MarketTerms, shutdown::Shutdown};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    api::openapi,
    error::IndexerError,
    store::{Location, Store, StoreError},
};
use self::{
    metrics::Metrics,
    source::ChainSource,
    status::{Status, StatusLimits},
    sync::SyncLoop,
};

/// How an indexer is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexerConfig {
    /// The database; a SQLite file is made when it is missing.
    pub database: Location,
    /// Time between two looks at a chain that has nothing new.
    pub poll_interval: Duration,
    /// Blocks below the head that count as final, where the node knows no final block.
    pub finality_depth: u64,
    /// Whether final blocks are checked for logs that a node left out, at the price of all their headers; blocks above
    /// the final ones always are.
    pub log_check: LogCheck,
    /// Longest time that the chain's head may stand still, where it moved regularly before.
    pub max_still: Duration,
}

impl IndexerConfig {
    /// The usual values: a look each second, 64 blocks to finality, every block checked, 2 minutes to a stall.
    pub const fn new(database: Location) -> Self {
        Self {
            database,
            poll_interval: Duration::from_secs(1),
            finality_depth: 64,
            log_check: LogCheck::EveryBlock,
            max_still: Duration::from_secs(120),
        }
    }
}

/// A running indexer. Dropping it stops it at once, which is safe at any time; [`Indexer::stopped`] waits for an orderly
/// end.
#[must_use = "a dropped indexer is stopped"]
pub struct Indexer {
    store: Store,
    terms: MarketTerms,
    status: Arc<Status>,
    metrics: Metrics,
    committed: watch::Receiver<Option<BlockRef>>,
    task: AbortOnDropHandle<Result<(), IndexerError>>,
}

impl Indexer {
    /// Opens the database and begins to follow the chain until `shutdown`. Fails when the database cannot be used or
    /// holds another market.
    pub async fn start(reader: MarketReader, config: IndexerConfig, shutdown: Shutdown) -> Result<Self, IndexerError> {
        let terms = *reader.terms();
        let store = Store::open(&config.database).await?;
        store.bind(&terms).await?;
        let checkpoint = store.checkpoint().await?;
        let limits = StatusLimits { first_block: terms.deployed_at_block, max_still: config.max_still };
        let status = Arc::new(Status::new(Arc::new(SystemClock), checkpoint, limits));
        let metrics = Metrics::new()?;
        metrics.position(checkpoint);
        let (sender, committed) = watch::channel(checkpoint.block);
        let sync = SyncLoop {
            source: ChainSource::new(reader, config.finality_depth, config.log_check),
            store: store.clone(),
            status: Arc::clone(&status),
            metrics: metrics.clone(),
            committed: sender,
            poll_interval: config.poll_interval,
            shutdown,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(sync.run()));
        Ok(Self { store, terms, status, metrics, committed, task })
    }

    /// The database, for readers in the same process.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The read API under `/v1/`.
    pub fn router(&self) -> axum::Router {
        api::router(self.store.clone(), self.terms, Arc::clone(&self.status), self.committed.clone())
    }

    /// The last committed block, and every later one. It may go back to a lower one when the chain reorganizes. The
    /// sender is gone once the indexer has stopped.
    pub fn subscribe(&self) -> watch::Receiver<Option<BlockRef>> {
        self.committed.clone()
    }

    /// False until the database has caught up with the chain, and again when it lags, stalls or has stopped.
    pub fn readiness(&self) -> Readiness {
        let status = Arc::clone(&self.status);
        Arc::new(move || status.ready())
    }

    /// The indexer's metrics, all named `wharfage_indexer_…`.
    pub fn metrics(&self) -> prometheus::Registry {
        self.metrics.registry()
    }

    /// Waits for the end: after the shutdown, or by an error that trying again cannot help.
    pub async fn stopped(self) -> Result<(), IndexerError> {
        self.task.await.map_err(|_| IndexerError::Aborted)?
    }
}
