//! Wires a matcher together and stops it.

use std::{collections::BTreeMap, sync::Arc};

use chain::{MarketReader, TxSender};
use common::{
    clock::SharedClock,
    event::BlockRef,
    http::{Readiness, ReadyFacts},
    shutdown::Shutdown,
};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api::{self, Api},
    artifacts::ArtifactStore,
    config::MatcherConfig,
    error::MatcherError,
    explained::Explaining,
    health::Health,
    metrics::Metrics,
    relay::{Relay, RelayParts},
    store::{Leadership, Store},
    tick::Loop,
    turn::Turn,
    view::{REMEMBERED_BLOCKS, ViewParts, Views},
};

/// A running matcher. Dropping it stops it at once, which is safe at any time; [`Matcher::stopped`] waits for an orderly
/// end.
#[must_use = "a dropped matcher is stopped"]
pub struct Matcher {
    api: Api,
    health: Arc<Health>,
    metrics: Metrics,
    task: AbortOnDropHandle<Result<(), MatcherError>>,
}

impl Matcher {
    /// Opens the data folder, sends what a crash left unsent, and matches until `shutdown`.
    ///
    /// `store` is the indexer's database, `ticks` its last committed block, `sender` the account that pays for match
    /// transactions.
    ///
    /// # Errors
    /// When the configuration is out of range, the data folder or the database cannot be used, or another process has the
    /// database file. A chain that is away is no error: the matcher waits for it.
    pub async fn start(
        reader: MarketReader,
        store: indexer::Store,
        ticks: watch::Receiver<Option<BlockRef>>,
        sender: TxSender,
        clock: SharedClock,
        config: MatcherConfig,
        shutdown: Shutdown,
    ) -> Result<Self, MatcherError> {
        config.check()?;
        let folder = |source| MatcherError::Folder { path: config.data_dir.clone(), source };
        tokio::fs::create_dir_all(&config.data_dir).await.map_err(folder)?;
        let (location, terms) = (config.location(), *reader.terms());
        let leadership = Leadership::take(&location, (terms.chain_id, terms.market, sender.address())).await?;
        let own = Store::open(&location).await?;
        let artifacts = ArtifactStore::open(
            &config.data_dir,
            own.clone(),
            config.max_artifact_bytes,
            config.max_artifact_store_bytes,
        )
        .await?;
        let (metrics, health) = (Metrics::new()?, Arc::new(Health::default()));
        let market = (reader.domain(), terms);
        let views = Arc::new(Views::new(
            market,
            ViewParts {
                indexer: store,
                store: own.clone(),
                clock: Arc::clone(&clock),
                metrics: metrics.clone(),
                matcher: sender.address(),
                remembered: REMEMBERED_BLOCKS,
            },
        ));
        let wake = Arc::new(Notify::new());
        let relay = Relay::new(RelayParts {
            store: own.clone(),
            sender,
            reader: reader.clone(),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            fees: config.fees(),
        });
        let work = Loop {
            views: Arc::clone(&views),
            relay,
            store: own.clone(),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            clock: Arc::clone(&clock),
            max_gas: config.max_gas_per_match,
            max_in_flight: config.max_in_flight,
            leadership,
            seen: None,
            turn: Turn::default(),
            ticks,
            wake: Arc::clone(&wake),
            shutdown,
            refused_ends: BTreeMap::new(),
            explaining: Explaining::default(),
            tidied_in: None,
        };
        let at_end = Arc::clone(&health);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let ended = work.run().await;
            at_end.stopped();
            ended
        }));
        let api = Api::new(api::Parts {
            reader,
            views,
            store: own,
            artifacts,
            config,
            clock,
            metrics: metrics.clone(),
            wake,
        });
        Ok(Self { api, health, metrics, task })
    }

    /// The web API under `/v1/`.
    pub fn router(&self) -> axum::Router {
        api::router(self.api.clone())
    }

    /// False until the first round, and while rounds fail.
    pub fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    /// What [`Matcher::readiness`] leaves out: `matcherRole`, which is `alone`, `leader` or `follower`. All of them are ready.
    pub fn facts(&self) -> ReadyFacts {
        self.health.facts()
    }

    /// The matcher's metrics, all named `wharfage_matcher_…`.
    pub fn metrics(&self) -> prometheus::Registry {
        self.metrics.registry()
    }

    /// Waits for the end: after the shutdown, or by an error that trying again cannot help.
    pub async fn stopped(self) -> Result<(), MatcherError> {
        self.task.await.map_err(|_| MatcherError::Aborted)?
    }
}
