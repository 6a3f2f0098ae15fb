//! `wharfage indexer`: follow a market's chain into a database and serve it, or make the database anew.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use chain::{LogCheck, MarketReader};
use clap::{Args, Subcommand};
use common::{http::operator_routes, ids::Address, shutdown};
use indexer::{Indexer, IndexerConfig, Location, Store};
use serde_json::json;
use tokio::net::TcpListener;

use super::connection::{EndpointArgs, RpcArgs};
use crate::output::Output;

/// What an indexer's operator can do.
#[derive(Debug, Subcommand)]
pub(crate) enum IndexerCommand {
    /// Follow the chain and serve the read API until Ctrl-C
    Run(RunArgs),
    /// Make the tables anew: from the stored events, or from the chain. Stop the indexer before
    Rebuild(RebuildArgs),
}

/// Which database.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// Path of a SQLite file, or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(
        long,
        value_name = "PATH|URL",
        env = "WHARFAGE_DATABASE",
        default_value = "indexer.db",
        hide_env_values = true
    )]
    database: Location,
}

/// Options of `wharfage indexer run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage indexer run --rpc http://127.0.0.1:8545 --market 0x5FbDB2315678afecb367f032d93F642f64180aa3
  wharfage indexer run --rpc https://one.example,https://two.example --rpc-rate 25 --market 0x5FbD… \\
    --database postgres://wharfage:secret@db.example/wharfage --listen 0.0.0.0:8080")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    endpoints: EndpointArgs,
    /// The Market contract
    #[arg(long, value_name = "ADDRESS", env = "WHARFAGE_MARKET")]
    market: Address,
    /// Its first block; without it the block is searched, for which the node must have old states
    #[arg(long, value_name = "BLOCK")]
    deployed_at: Option<u64>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Where to serve the read API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Blocks below the head that count as final, where the node knows no final block
    #[arg(long, value_name = "BLOCKS", default_value_t = 64)]
    finality_depth: u64,
    /// Milliseconds between two looks at a chain that has nothing new
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    poll_interval: u64,
    /// Fetch only the headers of blocks with events: faster on a long chain with few events, but a node that leaves out
    /// logs is not found out
    #[arg(long)]
    trust_logs: bool,
}

/// Options of `wharfage indexer rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage indexer rebuild --database indexer.db
  wharfage indexer rebuild --database indexer.db --from-chain")]
pub(crate) struct RebuildArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Forget the stored events as well: the next start reads the whole chain again. The way out after the chain broke its
    /// finality, or when the endpoint served another chain
    #[arg(long)]
    from_chain: bool,
}

pub(crate) async fn run(command: IndexerCommand, output: &Output) -> anyhow::Result<()> {
    match command {
        IndexerCommand::Run(args) => args.run(output).await,
        IndexerCommand::Rebuild(args) => args.run(output).await,
    }
}

impl RunArgs {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let reader = MarketReader::connect(self.endpoints.client(&self.rpc)?, self.market, self.deployed_at).await?;
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!("cannot listen on {}: stop what listens there, or choose another port", self.listen)
        })?;
        let shutdown = shutdown::on_signals()?;
        let mut config = IndexerConfig::new(self.database.database);
        config.poll_interval = Duration::from_millis(self.poll_interval);
        config.finality_depth = self.finality_depth;
        if self.trust_logs {
            config.log_check = LogCheck::Trust;
        }
        let indexer = Indexer::start(reader, config, shutdown.clone()).await?;
        let router = indexer.router().merge(operator_routes(indexer.metrics(), indexer.readiness()));
        let address = listener.local_addr()?;
        output.progress(&format!("the read API is at http://{address}/v1/, readiness at http://{address}/readyz"));
        axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
        Ok(indexer.stopped().await?)
    }
}

impl RebuildArgs {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let location = &self.database.database;
        let store = Store::open(location).await?;
        if self.from_chain {
            store.forget().await?;
        } else {
            store.rebuild(|done, all| output.progress(&format!("{done} of {all} events"))).await?;
        }
        let block = store.as_of().await?;
        let done = match block {
            Some(block) => format!("{location} holds what its events up to block {} add up to", block.number),
            None => format!("{location} is empty: `wharfage indexer run` fills it from the chain"),
        };
        output.answer(&json!({ "database": location.to_string(), "block": block }), &[done]);
        Ok(())
    }
}
