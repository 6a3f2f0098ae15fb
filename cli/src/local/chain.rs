//! A chain of our own: anvil with its state in a file, whose time goes on where it stopped.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use super::child::ChildProcess;

/// Chain id of local chains, as anvil and hardhat use it.
pub(crate) const CHAIN_ID: u64 = 31_337;

/// How long anvil may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running anvil.
pub(crate) struct LocalChain {
    process: ChildProcess,
    node: NodeRpc,
    log: PathBuf,
}

impl LocalChain {
    /// Starts `anvil` on `port` with one block every `block_seconds`; its state lives in `data_dir`.
    pub(crate) async fn start(anvil: &Path, port: u16, block_seconds: u64, data_dir: &Path) -> anyhow::Result<Self> {
        ensure_port_is_free(port, "--chain-port")?;
        let state = data_dir.join("chain.json");
        let restarted = state.is_file();
        let log = data_dir.join("chain.log");
        let mut command = Command::new(anvil);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--chain-id", &CHAIN_ID.to_string()]);
        // Blocks begin only when the clock is set, below.
        command.args(["--no-mining", "--state-interval", "5", "--state"]).arg(&state);
        let process = ChildProcess::start("anvil", command, &log)?;
        let node = NodeRpc::new(&format!("http://127.0.0.1:{port}"))?;
        let mut chain = Self { process, node, log };
        chain.wait_until_it_answers().await?;
        if restarted {
            // Hours that the market was down must not count as missed epochs.
            let last = chain.node.latest_timestamp().await?;
            chain.node.call("evm_setTime", json!([last.saturating_add(1)])).await?;
        }
        chain.node.call("evm_setIntervalMining", json!([block_seconds])).await?;
        Ok(chain)
    }

    /// JSON-RPC address.
    pub(crate) fn url(&self) -> &str {
        &self.node.url
    }

    /// Calls that only a local node knows.
    pub(crate) fn node(&self) -> &NodeRpc {
        &self.node
    }

    /// An error if anvil has ended by itself.
    pub(crate) fn ensure_running(&mut self) -> anyhow::Result<()> {
        self.process.ensure_running(&self.log)
    }

    /// Writes the state and ends.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop().await
    }

    async fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now().checked_add(START_TIMEOUT).context("time is out of range")?;
        loop {
            self.ensure_running()?;
            match self.node.call("eth_chainId", json!([])).await {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > deadline => {
                    return Err(error.context(format!("anvil does not answer: see {}", self.log.display())));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// Fails with what to do when somebody else listens on `port`.
pub(crate) fn ensure_port_is_free(port: u16, option: &str) -> anyhow::Result<()> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port} is taken ({error}): stop what listens there (perhaps another `wharfage up`), or choose \
             another with {option}"
        ),
    }
}

/// JSON-RPC as spoken by local nodes, for what the product itself never asks.
#[derive(Debug, Clone)]
pub(crate) struct NodeRpc {
    url: String,
    http: reqwest::Client,
}

impl NodeRpc {
    /// A client of the node at `url`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { url: url.to_owned(), http })
    }

    /// One call; a JSON-RPC error is an error.
    pub(crate) async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let response = self.http.post(&self.url).json(&body).send().await?.error_for_status()?;
        let mut answer: Value = response.json().await?;
        if let Some(error) = answer.get("error") {
            bail!("{method} failed: {error}");
        }
        Ok(answer.get_mut("result").map(Value::take).unwrap_or_default())
    }

    /// Gives `account` test ether, so that it can pay for gas.
    pub(crate) async fn give_gas(&self, account: &str) -> anyhow::Result<()> {
        self.call("anvil_setBalance", json!([account, "0xde0b6b3a7640000"])).await.map(drop)
    }

    async fn latest_timestamp(&self) -> anyhow::Result<u64> {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        let timestamp = block.get("timestamp").and_then(Value::as_str).context("block without a timestamp")?;
        quantity(timestamp)
    }
}

/// Reads a JSON-RPC quantity such as `0x1a`.
pub(crate) fn quantity(text: &str) -> anyhow::Result<u64> {
    let digits = text.strip_prefix("0x").with_context(|| format!("{text:?} is no JSON-RPC quantity"))?;
    u64::from_str_radix(digits, 16).with_context(|| format!("{text:?} is no JSON-RPC quantity"))
}
