//! `wharfage up`: a local market that keeps running and survives restarts with its data.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use chain::calls;
use clap::Args;
use common::{
    ids::{Address, OfferHash},
    money::Atoms,
    shutdown::{self, Shutdown},
};
use indexer::Location;
use serde::Serialize;

use crate::local::{
    LocalMarket, LocalOptions, Ports,
    accounts::Role,
    providers::{LocalProvider, PROFILES},
};

/// What each local provider, and the developer to play with, begins with.
const START_MONEY: &str = "1000";
/// First and longest pause before an agent that died is started again.
const FIRST_RESTART_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(30);

/// Options of `wharfage up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfage up\n  wharfage up --data-dir my-market --api-port 9090\n  \
                  wharfage up --database postgres://me@localhost/market\n  wharfage up --json")]
pub(crate) struct UpArgs {
    /// Folder for chain state, databases, artifacts and logs; a later run goes on from it
    #[arg(long, value_name = "DIR", default_value = ".wharfage/market")]
    data_dir: PathBuf,
    /// PostgreSQL database of indexer and matcher, postgres://USER:PASSWORD@HOST/DATABASE; without it they have SQLite
    /// files in the data folder
    #[arg(long, value_name = "URL")]
    database: Option<Location>,
    /// Folder that anvil is fetched to when none is on the PATH
    #[arg(long, value_name = "DIR", default_value = ".wharfage/tools")]
    tools_dir: PathBuf,
    /// Port of the chain's JSON-RPC
    #[arg(long, value_name = "PORT", default_value_t = 8545)]
    chain_port: u16,
    /// Port of the web API
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    api_port: u16,
    /// Port of the gateway
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    gateway_port: u16,
    /// First port of the agents
    #[arg(long, value_name = "PORT", default_value_t = 9001)]
    agent_port: u16,
    /// Number of providers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    providers: u8,
    /// Length of an epoch in seconds; fixed when the data folder is new
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=86_400))]
    epoch_seconds: u32,
    /// Seconds from block to block
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    block_seconds: u64,
}

/// What runs and where; printed as one line with `--json` once everything is up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    rpc_url: String,
    api_url: String,
    gateway_url: String,
    market: Address,
    token: Address,
    /// Block of the market's deployment, where indexing begins.
    deployed_at: u64,
    chain_id: u64,
    data_dir: PathBuf,
    /// A developer's account with tokens and gas. The key is anvil's well-known one: never use it anywhere else.
    developer: Address,
    developer_key: &'static str,
    providers: Vec<ProviderSummary>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderSummary {
    name: &'static str,
    provider: Address,
    offer: OfferHash,
    region: String,
    endpoint: String,
    process_id: Option<u32>,
    log: PathBuf,
}

/// Runs until a signal comes.
pub(crate) async fn run(args: UpArgs, json: bool) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signals()?;
    let options = LocalOptions {
        data_dir: std::path::absolute(&args.data_dir)?,
        database: args.database,
        tools_dir: std::path::absolute(&args.tools_dir)?,
        ports: Ports {
            chain: args.chain_port,
            api: args.api_port,
            gateway: args.gateway_port,
            agents: args.agent_port,
        },
        block_seconds: args.block_seconds,
        epoch_seconds: args.epoch_seconds,
    };
    let mut up = Up { market: None, providers: Vec::new() };
    let ran = tokio::select! {
        ran = up.run(options, usize::from(args.providers), json) => ran,
        () = shutdown.cancelled() => Ok(()),
    };
    let stopped = up.stop(&shutdown).await;
    ran.and(stopped)
}

struct Up {
    market: Option<LocalMarket>,
    providers: Vec<LocalProvider>,
}

impl Up {
    async fn run(&mut self, options: LocalOptions, providers: usize, json: bool) -> anyhow::Result<()> {
        let progress = |text: &str| eprintln!("{text}");
        progress("starting the chain …");
        let chain = LocalMarket::start_chain(&options, &progress).await?;
        let (deployment, receipts) = LocalMarket::deploy(&options, &chain).await?;
        let found = if receipts.is_empty() { "found the contracts of the last run" } else { "contracts deployed" };
        progress(found);
        let market = self.market.insert(LocalMarket::start_services(options, chain, deployment).await?);
        progress("indexer, matcher and gateway are up");
        let money = Atoms::parse_tokens(START_MONEY)?;
        give_developer_tokens(market, money).await?;
        for profile in PROFILES.iter().take(providers) {
            self.providers.push(LocalProvider::start(market, *profile, money).await?);
            progress(&format!("agent of {} started", profile.name));
        }
        print_summary(&summary(market, &self.providers)?, json)?;
        self.supervise().await
    }

    /// Starts agents again that have died; ends only when the chain has.
    async fn supervise(&mut self) -> anyhow::Result<()> {
        let mut pause = FIRST_RESTART_PAUSE;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.market.as_mut().context("no market")?.chain.ensure_running()?;
            let Some(dead) = self.providers.iter_mut().position(|provider| provider.ensure_running().is_err()) else {
                continue;
            };
            let market = self.market.as_ref().context("no market")?;
            let provider = self.providers.get_mut(dead).context("no such provider")?;
            tracing::warn!(agent = provider.profile.name, log = %provider.log().display(), "died and is started again");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_RESTART_PAUSE);
            *provider = LocalProvider::start(market, provider.profile, Atoms::ZERO).await?;
        }
    }

    async fn stop(mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        if shutdown.is_cancelled() {
            eprintln!("\nstopping …");
        }
        for provider in &mut self.providers {
            provider.stop().await?;
        }
        match self.market.take() {
            Some(market) => market.stop().await,
            None => Ok(()),
        }
    }
}

async fn give_developer_tokens(market: &LocalMarket, money: Atoms) -> anyhow::Result<()> {
    let developer = Role::Developer.key()?.address();
    let reader = market.reader()?;
    let has = reader.token_balance(developer).await?.checked_add(reader.free_balance(developer).await?)?;
    if has == Atoms::ZERO {
        market.operator.send(&calls::mint(market.deployment.token, developer, money)).await?;
    }
    Ok(())
}

fn summary(market: &LocalMarket, providers: &[LocalProvider]) -> anyhow::Result<Summary> {
    let providers = providers.iter().map(|provider| ProviderSummary {
        name: provider.profile.name,
        provider: provider.offer.provider,
        offer: provider.offer_hash,
        region: provider.offer.region.to_string(),
        endpoint: provider.endpoint().to_owned(),
        process_id: provider.process_id(),
        log: provider.log(),
    });
    Ok(Summary {
        rpc_url: market.chain.url().to_owned(),
        api_url: market.api_url(),
        gateway_url: market.gateway_url(),
        market: market.deployment.market,
        token: market.deployment.token,
        deployed_at: market.deployment.deployed_at,
        chain_id: market.reader()?.terms().chain_id,
        data_dir: market.options.data_dir.clone(),
        developer: Role::Developer.key()?.address(),
        developer_key: Role::Developer.secret(),
        providers: providers.collect(),
    })
}

#[expect(clippy::print_stdout, reason = "the summary is this command's answer")]
fn print_summary(summary: &Summary, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
        return Ok(());
    }
    let Summary { rpc_url, api_url, gateway_url, market, token, developer, developer_key, .. } = summary;
    println!("\nThe market is open.\n");
    println!("  chain      {rpc_url} (id {})", summary.chain_id);
    println!("  market     {market}");
    println!("  token      {token} (test USDC)");
    println!("  web API    {api_url}");
    println!("  gateway    {gateway_url}");
    for provider in &summary.providers {
        println!("  provider   {} in {}, agent at {}", provider.name, provider.region, provider.endpoint);
    }
    println!("  data       {}", summary.data_dir.display());
    println!("\nDeploy a worker of yours as {developer}, whose key is anvil's well-known one:\n");
    println!("  export WHARFAGE_API={api_url} WHARFAGE_GATEWAY={gateway_url} WHARFAGE_RPC={rpc_url}");
    println!("  export WHARFAGE_KEY={developer_key}");
    println!("  wharfage deposit 100");
    println!("  wharfage deploy worker.wasm --replicas {}", summary.providers.len());
    println!("\nCtrl-C stops everything; the next `wharfage up` goes on from here.");
    Ok(())
}
