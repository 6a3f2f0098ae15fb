//! Follows the chain: looks at it at an interval, takes over what it says, and keeps going when it cannot be read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chain::{ChainError, Key, MarketReader, Rpc, TxSender};
use common::{
    clock::SharedClock,
    epoch::Epoch,
    event::BlockRef,
    ids::{Address, BlockHash},
    market::MarketTerms,
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::AgentConfig,
    desired::{self, Search},
    metrics::Metrics,
    seen::Seen,
    store::{Store, StoreError},
    supervisor::Supervisor,
};

/// The market that a data folder belongs to, once its chain was reached.
const MARKET_FACT: &str = "market";

/// What was last read of the chain, and the connections for more.
#[derive(Clone)]
pub(crate) struct ChainView {
    pub(crate) head: BlockRef,
    pub(crate) epoch: Epoch,
    pub(crate) reader: MarketReader,
    pub(crate) sender: TxSender,
}

impl ChainView {
    pub(crate) fn terms(&self) -> &MarketTerms {
        self.reader.terms()
    }
}

/// The chain could not be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// A node, or what it said.
    #[error("the chain cannot be read")]
    Chain(#[from] ChainError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data folder was used with another market.
    #[error(
        "this data folder belongs to market {known} on chain {known_chain}, but {market} on chain {chain} is configured: use another data_dir"
    )]
    OtherMarket {
        /// The folder's market.
        known: Address,
        /// The folder's chain.
        known_chain: u64,
        /// The configured market.
        market: Address,
        /// The chain that the endpoint serves.
        chain: u64,
    },
}

impl FollowError {
    /// Whether the configuration is wrong, so that trying again is of no use.
    fn is_misconfiguration(&self) -> bool {
        match self {
            Self::Chain(error) => matches!(error, ChainError::NoMarket { .. } | ChainError::WrongChain { .. }),
            Self::OtherMarket { .. } => true,
            Self::Store(_) => false,
        }
    }
}

/// Reads the chain and hands on what it says.
pub(crate) struct Follower {
    rpc: Rpc,
    market: Address,
    deployed_at: Option<u64>,
    key: Key,
    store: Store,
    supervisor: Arc<Supervisor>,
    metrics: Metrics,
    clock: SharedClock,
    every: Duration,
    reorg_margin: u64,
    views: watch::Sender<Option<ChainView>>,
    seen: Arc<Seen>,
}

impl Follower {
    /// Nothing is asked of the chain yet.
    pub(crate) fn new(config: &AgentConfig, key: Key, supervisor: Arc<Supervisor>) -> Result<Self, ChainError> {
        Ok(Self {
            rpc: Rpc::new(&config.rpc)?,
            market: config.market,
            deployed_at: config.market_deployed_at,
            key,
            store: supervisor.store.clone(),
            metrics: supervisor.metrics.clone(),
            clock: supervisor.clock.clone(),
            seen: supervisor.seen.clone(),
            supervisor,
            every: config.poll_interval(),
            reorg_margin: config.reorg_margin_blocks,
            views: watch::Sender::new(None),
        })
    }

    pub(crate) fn views(&self) -> watch::Receiver<Option<ChainView>> {
        self.views.subscribe()
    }

    /// Follows until `stop`. An error means that the configuration is wrong; everything else is tried again.
    pub(crate) async fn run(self, stop: Shutdown) -> Result<(), FollowError> {
        let mut connection = None;
        let mut last_head = None;
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What ran before a restart comes up without waiting for the chain.
        self.supervisor.reconcile(self.seen.epoch());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => (),
            }
            let looked = self.look(&mut connection, &mut last_head).await;
            let outcome = if looked.is_ok() { "ok" } else { "failed" };
            self.metrics.chain_reads.with_label_values(&[outcome]).inc();
            match looked {
                Ok(()) => (),
                Err(error) if connection.is_none() && error.is_misconfiguration() => return Err(error),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "workers go on as they are");
                }
            }
            // Also when nothing was read: failed replicas are tried again.
            self.supervisor.reconcile(self.seen.epoch());
        }
    }

    async fn look(
        &self,
        connection: &mut Option<(MarketReader, TxSender)>,
        last_head: &mut Option<BlockHash>,
    ) -> Result<(), FollowError> {
        if connection.is_none() {
            *connection = Some(self.connect().await?);
        }
        let Some((reader, sender)) = connection.clone() else { return Ok(()) };
        let head = reader.rpc().head().await?;
        if *last_head == Some(head.hash) {
            self.seen.note(self.seen.epoch(), self.clock.now());
            // Requests are written down also while no block comes.
            return Ok(self.supervisor.write_served(self.seen.epoch()).await?);
        }
        let search = Search {
            agent: self.key.address(),
            searched_to: self.store.searched_to().await?,
            reorg_margin: self.reorg_margin,
        };
        let known: BTreeMap<_, _> = self
            .supervisor
            .replicas
            .all()
            .iter()
            .map(|cell| cell.snapshot().assignment)
            .map(|a| (a.deal.id, a))
            .collect();
        let reading = desired::read(&reader, head, search, &known).await?;
        self.store.keep_reading(&reading.changed, reading.epoch, reading.searched_to).await?;
        for assignment in reading.changed {
            tracing::info!(deal = %assignment.deal.id, state = ?assignment.deal.state, paid_until = %assignment.deal.paid_until, "deal");
            self.supervisor.replicas.assign(assignment);
        }
        self.seen.note(reading.epoch, self.clock.now());
        self.metrics.epoch.set(i64::from(reading.epoch.0));
        // Before billing hears of the epoch: what was served in the one that ended must be written by then.
        self.supervisor.write_served(reading.epoch).await?;
        self.views.send_replace(Some(ChainView { head: reading.head, epoch: reading.epoch, reader, sender }));
        *last_head = Some(reading.head.hash);
        Ok(())
    }

    async fn connect(&self) -> Result<(MarketReader, TxSender), FollowError> {
        let reader = MarketReader::connect(self.rpc.clone(), self.market, self.deployed_at).await?;
        let (market, chain) = (self.market, reader.terms().chain_id);
        match self.store.fact::<(u64, Address)>(MARKET_FACT).await? {
            Some((known_chain, known)) if (known_chain, known) != (chain, market) => {
                return Err(FollowError::OtherMarket { known, known_chain, market, chain });
            }
            Some(_) => (),
            None => self.store.set_fact(MARKET_FACT, &(chain, market)).await?,
        }
        let sender = TxSender::new(self.rpc.clone(), self.key.clone()).await?;
        tracing::info!(chain, %market, agent = %sender.address(), "the market is reached");
        Ok((reader, sender))
    }
}
