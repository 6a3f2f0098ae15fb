//! A whole market on this machine, every part of it real: anvil, contracts, indexer, matcher, gateway and agents.
//!
//! Layout: [`tools`] finds anvil, [`chain`](mod@chain) runs it, [`accounts`] are its keys, [`child`] keeps processes
//! from outliving us, [`providers`] runs agents; [`LocalMarket`] is all of them together.

pub(crate) mod accounts;
pub(crate) mod chain;
pub(crate) mod child;
pub(crate) mod providers;
pub(crate) mod tools;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use ::chain::{DeployConfig, Rpc, TxReceipt, TxSender, deploy_market, deploy_test_token};
use ::common::{ids::Address, shutdown::Shutdown};
use anyhow::Context;
use gateway::{Gateway, GatewayConfig};
use indexer::Location;
use serde::{Deserialize, Serialize};

use self::{
    accounts::Role,
    chain::{LocalChain, ensure_port_is_free},
};
use crate::market::{MarketProcess, RunningMarket};

/// How often services ask for the chain's head.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Ports of the local services, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    /// JSON-RPC of the chain.
    pub(crate) chain: u16,
    /// Web API.
    pub(crate) api: u16,
    /// Gateway.
    pub(crate) gateway: u16,
    /// Agents take this one and the next two.
    pub(crate) agents: u16,
}

/// Where free ports are looked for: below those that systems hand out to outgoing connections, of which one could take a
/// port between our look and our use of it.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Chain, web API, gateway and three agents.
const PORTS_IN_A_ROW: u16 = 6;
/// Looks before it is given up.
const PORT_LOOKS: u32 = 200;

impl Ports {
    /// Ports that are free now, at a random place so that several markets can run side by side.
    pub(crate) fn free() -> anyhow::Result<Self> {
        for _ in 0..PORT_LOOKS {
            let first = fastrand::u16(FREE_PORTS);
            let mut row = first..first.saturating_add(PORTS_IN_A_ROW);
            let is_free = row.clone().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
            if is_free
                && let (Some(chain), Some(api), Some(gateway), Some(agents)) =
                    (row.next(), row.next(), row.next(), row.next())
            {
                return Ok(Self { chain, api, gateway, agents });
            }
        }
        anyhow::bail!("found no {PORTS_IN_A_ROW} free ports in a row on 127.0.0.1")
    }
}

/// How a local market is set up.
#[derive(Debug, Clone)]
pub(crate) struct LocalOptions {
    /// Chain state, databases, artifacts, logs.
    pub(crate) data_dir: PathBuf,
    /// The services' database, where it is not in the data folder.
    pub(crate) database: Option<Location>,
    /// Where anvil is fetched to when there is none.
    pub(crate) tools_dir: PathBuf,
    /// Where to listen.
    pub(crate) ports: Ports,
    /// Seconds from block to block.
    pub(crate) block_seconds: u64,
    /// Seconds of an epoch.
    pub(crate) epoch_seconds: u32,
}

/// Where the contracts of a local market are; kept in `market.json`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    /// The Market contract.
    pub(crate) market: Address,
    /// The test token.
    pub(crate) token: Address,
    /// Block of the market's deployment.
    pub(crate) deployed_at: u64,
}

/// A running local market, without its providers.
pub(crate) struct LocalMarket {
    /// How it was set up.
    pub(crate) options: LocalOptions,
    /// The chain.
    pub(crate) chain: LocalChain,
    /// The contracts.
    pub(crate) deployment: Deployment,
    /// Reads and sends for the operator.
    pub(crate) operator: TxSender,
    services: Option<(RunningMarket, Gateway)>,
    shutdown: Shutdown,
}

impl LocalMarket {
    /// Finds or fetches anvil and starts the chain; every port is tried before anything runs.
    pub(crate) async fn start_chain(options: &LocalOptions, progress: &dyn Fn(&str)) -> anyhow::Result<LocalChain> {
        ensure_port_is_free(options.ports.api, "--api-port")?;
        ensure_port_is_free(options.ports.gateway, "--gateway-port")?;
        tokio::fs::create_dir_all(&options.data_dir)
            .await
            .with_context(|| format!("cannot create {}: choose another with --data-dir", options.data_dir.display()))?;
        let anvil = tools::find_anvil(&options.tools_dir, progress).await?;
        LocalChain::start(&anvil, options.ports.chain, options.block_seconds, &options.data_dir).await
    }

    /// Deploys token and market, or finds those of the last run.
    pub(crate) async fn deploy(
        options: &LocalOptions,
        chain: &LocalChain,
    ) -> anyhow::Result<(Deployment, Vec<TxReceipt>)> {
        let file = options.data_dir.join("market.json");
        if let Some(known) = read_deployment(&file).await? {
            return Ok((known, Vec::new()));
        }
        let operator = TxSender::new(Rpc::new(&[chain.url().to_owned()])?, Role::Operator.key()?).await?;
        let (token, token_receipt) = deploy_test_token(&operator).await?;
        let config = DeployConfig {
            operator: operator.address(),
            epoch_length: options.epoch_seconds,
            attestation_window: 2,
            evict_after_missed: 2,
            bond_epochs: 3,
            min_prepaid_epochs: 3,
            grace_epochs: 4,
            notice_epochs: 1,
        };
        let (market, market_receipt) = deploy_market(&operator, token, &config).await?;
        let deployment = Deployment { market, token, deployed_at: market_receipt.block };
        let text = serde_json::to_vec_pretty(&deployment)?;
        tokio::fs::write(&file, text).await.with_context(|| format!("cannot write {}", file.display()))?;
        Ok((deployment, vec![token_receipt, market_receipt]))
    }

    /// Starts indexer, matcher, web API and gateway on a chain that has the contracts.
    pub(crate) async fn start_services(
        options: LocalOptions,
        chain: LocalChain,
        deployment: Deployment,
    ) -> anyhow::Result<Self> {
        let shutdown = Shutdown::new();
        let rpc = Rpc::new(&[chain.url().to_owned()])?;
        let market = MarketProcess {
            rpc: vec![chain.url().to_owned()],
            market: deployment.market,
            deployed_at: Some(deployment.deployed_at),
            key: Role::Operator.key()?,
            data_dir: options.data_dir.clone(),
            database: options.database.clone(),
            listen: local(options.ports.api),
            poll_interval: POLL_INTERVAL,
        }
        .start(&shutdown)
        .await?;
        let gateway = GatewayConfig {
            listen: local(options.ports.gateway),
            indexer_url: format!("http://{}", local(options.ports.api)),
            // Its agents are all on this machine.
            allow_private_endpoints: true,
            refresh_interval_ms: 500,
            probe_interval_ms: 500,
            ..GatewayConfig::default()
        };
        let gateway = Gateway::start(gateway, shutdown.clone()).await?;
        let operator = TxSender::new(rpc, Role::Operator.key()?).await?;
        Ok(Self { options, chain, deployment, operator, services: Some((market, gateway)), shutdown })
    }

    /// Reads the contract.
    pub(crate) fn reader(&self) -> anyhow::Result<&::chain::MarketReader> {
        self.services.as_ref().map(|(market, _)| &market.reader).context("the services have been stopped")
    }

    /// Address of the web API.
    pub(crate) fn api_url(&self) -> String {
        format!("http://{}", local(self.options.ports.api))
    }

    /// Address of the gateway.
    pub(crate) fn gateway_url(&self) -> String {
        format!("http://{}", local(self.options.ports.gateway))
    }

    /// Stops the services, then the chain, which writes its state.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        if let Some((market, gateway)) = self.services.take() {
            gateway.stopped().await?;
            market.stopped().await?;
        }
        self.chain.stop().await
    }
}

async fn read_deployment(file: &Path) -> anyhow::Result<Option<Deployment>> {
    match tokio::fs::read(file).await {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged: delete the data folder to begin anew", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
