//! One process that runs a market's services on one listener: indexer, matcher and their web API.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use chain::{Key, MarketReader, Rpc, TxSender};
use common::{
    clock::{SharedClock, SystemClock},
    http::{Readiness, joint_operator_routes},
    ids::Address,
    shutdown::Shutdown,
};
use indexer::{Indexer, IndexerConfig, Location};
use matcher::{Matcher, MatcherConfig};
use tokio::{net::TcpListener, task::JoinHandle};

/// Blocks below the head that count as final on chains without a finalized block.
const FINALITY_DEPTH: u64 = 64;

/// What a market process needs to know.
pub(crate) struct MarketProcess {
    /// JSON-RPC endpoints, in order of preference.
    pub(crate) rpc: Vec<String>,
    /// The Market contract.
    pub(crate) market: Address,
    /// Its first block, where known.
    pub(crate) deployed_at: Option<u64>,
    /// Sends match transactions and pays their gas.
    pub(crate) key: Key,
    /// Where the artifacts live and, where no other is named, the databases.
    pub(crate) data_dir: PathBuf,
    /// The database of both services.
    pub(crate) database: Option<Location>,
    /// Where the web API listens.
    pub(crate) listen: SocketAddr,
    /// How often the chain's head is asked for.
    pub(crate) poll_interval: Duration,
}

/// Running services.
pub(crate) struct RunningMarket {
    /// Reads the contract.
    pub(crate) reader: MarketReader,
    indexer: Indexer,
    matcher: Matcher,
    server: JoinHandle<std::io::Result<()>>,
}

impl MarketProcess {
    /// Starts the services; they end with `shutdown`.
    pub(crate) async fn start(self, shutdown: &Shutdown) -> anyhow::Result<RunningMarket> {
        let rpc = Rpc::new(&self.rpc)?;
        let reader = MarketReader::connect(rpc.clone(), self.market, self.deployed_at).await?;
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!("cannot listen on {}: stop what listens there, or choose another port", self.listen)
        })?;
        tokio::fs::create_dir_all(&self.data_dir)
            .await
            .with_context(|| format!("cannot create {}", self.data_dir.display()))?;
        let indexer = Indexer::start(reader.clone(), self.indexer_config(), shutdown.clone()).await?;
        let sender = TxSender::new(rpc, self.key.clone()).await?;
        let clock: SharedClock = Arc::new(SystemClock);
        let matcher = Matcher::start(
            reader.clone(),
            indexer.store().clone(),
            indexer.subscribe(),
            sender,
            clock,
            self.matcher_config(),
            shutdown.clone(),
        )
        .await?;
        let server = tokio::spawn(serve(listener, router(&indexer, &matcher), shutdown.clone()));
        Ok(RunningMarket { reader, indexer, matcher, server })
    }

    fn indexer_config(&self) -> IndexerConfig {
        IndexerConfig {
            poll_interval: self.poll_interval,
            finality_depth: FINALITY_DEPTH,
            ..IndexerConfig::new(self.database.clone().unwrap_or_else(|| self.data_dir.join("indexer.db").into()))
        }
    }

    fn matcher_config(&self) -> MatcherConfig {
        MatcherConfig {
            database: self.database.clone(),
            ..MatcherConfig::new(self.data_dir.join("matcher"), format!("http://{}", self.listen))
        }
    }
}

impl RunningMarket {
    /// Waits for everything to end after the shutdown.
    pub(crate) async fn stopped(self) -> anyhow::Result<()> {
        self.server.await.context("the web API panicked")??;
        self.matcher.stopped().await?;
        self.indexer.stopped().await?;
        Ok(())
    }
}

fn router(indexer: &Indexer, matcher: &Matcher) -> axum::Router {
    let (indexer_ready, matcher_ready) = (indexer.readiness(), matcher.readiness());
    let ready: Readiness = Arc::new(move || indexer_ready().and_then(|()| matcher_ready()));
    indexer.router().merge(matcher.router()).merge(joint_operator_routes(
        vec![indexer.metrics(), matcher.metrics()],
        ready,
        matcher.facts(),
    ))
}

async fn serve(listener: TcpListener, router: axum::Router, shutdown: Shutdown) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
