//! Where the market is and whose key signs: options that many commands share.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use chain::{ChainError, EndpointLimits, Key, MarketReader, OfferDomain, Rpc, TxReceipt, TxSender};
use clap::Args;
use common::{
    clock::SystemClock,
    deal::DealRef,
    ids::{DealId, OfferHash},
    market::MarketTerms,
};
use serde_json::Value;

use crate::{
    client::ApiClient,
    output::{Output, UsageError},
};

/// Longest wait for the index to have seen a block that the chain has.
const INDEX_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two questions of one wait.
pub(crate) const PAUSE: Duration = Duration::from_millis(250);

/// Where `wharfage up` serves its web API.
pub(crate) const DEFAULT_API: &str = "http://127.0.0.1:8080";

/// Which market.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiArgs {
    /// Web API of the market
    #[arg(long, value_name = "URL", env = "WHARFAGE_API", default_value = DEFAULT_API)]
    pub(crate) api: String,
}

/// Which gateway.
#[derive(Debug, Clone, Args)]
pub(crate) struct GatewayArgs {
    /// Gateway that requests go through
    #[arg(long, value_name = "URL", env = "WHARFAGE_GATEWAY", default_value = "http://127.0.0.1:8081")]
    pub(crate) gateway: String,
}

/// Which node.
#[derive(Debug, Clone, Args)]
pub(crate) struct RpcArgs {
    /// JSON-RPC endpoint of the chain; further ones, separated by commas, stand in for it
    #[arg(
        long,
        value_name = "URL",
        env = "WHARFAGE_RPC",
        default_value = "http://127.0.0.1:8545",
        value_delimiter = ','
    )]
    pub(crate) rpc: Vec<String>,
}

/// What the nodes are trusted with, for those who ask much of them.
#[derive(Debug, Clone, Args)]
pub(crate) struct EndpointArgs {
    /// Requests a second to one endpoint, as its provider allows; 0 for no limit
    #[arg(long, value_name = "REQUESTS", default_value_t = 0)]
    rpc_rate: u32,
    /// Seconds that one request to an endpoint may take before the next endpoint is asked
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    rpc_timeout: u64,
    /// Blocks that an endpoint may be behind another one before it is left
    #[arg(long, value_name = "BLOCKS", default_value_t = 8)]
    rpc_max_lag: u64,
    /// Seconds that an endpoint's head may stand still while another's moves before it is left
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    rpc_max_still: u64,
}

impl EndpointArgs {
    /// A client that keeps to these limits.
    pub(crate) fn client(&self, rpc: &RpcArgs) -> Result<Rpc, ChainError> {
        let limits = EndpointLimits {
            timeout: Duration::from_secs(self.rpc_timeout),
            requests_per_second: self.rpc_rate,
            max_lag_blocks: self.rpc_max_lag,
            max_still: Duration::from_secs(self.rpc_max_still),
            ..EndpointLimits::default()
        };
        Rpc::with_limits(&rpc.rpc, limits, Arc::new(SystemClock))
    }
}

/// Whose account.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArgs {
    /// Keystore (JSON V3) of the account that signs; without it the secret in WHARFAGE_KEY is taken
    #[arg(long, value_name = "FILE", env = "WHARFAGE_KEYSTORE")]
    pub(crate) keystore: Option<PathBuf>,
    /// File that holds the keystore's password; without it the password is in WHARFAGE_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// A market that answers.
pub(crate) struct Market {
    pub(crate) api: ApiClient,
    pub(crate) terms: MarketTerms,
}

/// An account that can send transactions to the market.
pub(crate) struct Wallet {
    pub(crate) key: Key,
    pub(crate) reader: MarketReader,
    pub(crate) sender: TxSender,
}

impl Wallet {
    /// What calls of the contract name these deals by.
    pub(crate) async fn references(&self, deals: &[DealId]) -> anyhow::Result<Vec<DealRef>> {
        let mut references = Vec::with_capacity(deals.len());
        for id in deals {
            let deal = self.reader.deal(*id).await?.with_context(|| format!("the chain knows no deal {id}"))?;
            references.push(deal.reference());
        }
        Ok(references)
    }
}

impl ApiArgs {
    /// Asks the market for its terms.
    pub(crate) async fn connect(&self) -> anyhow::Result<Market> {
        let api = ApiClient::new(&self.api)?;
        let terms = api.market().await?;
        Ok(Market { api, terms })
    }
}

impl GatewayArgs {
    /// URL of a deployment.
    pub(crate) fn url_of(&self, offer: OfferHash, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}/d/{offer}{slash}{path}", self.gateway.trim_end_matches('/'))
    }
}

impl RpcArgs {
    /// Reads the contract, which must be the one that the web API speaks of.
    pub(crate) async fn reader(&self, terms: &MarketTerms) -> anyhow::Result<MarketReader> {
        let rpc = Rpc::new(&self.rpc)?;
        rpc.require_chain(terms.chain_id).await.with_context(|| format!("the chain at {}", self.rpc.join(", ")))?;
        Ok(MarketReader::connect(rpc, terms.market, Some(terms.deployed_at_block)).await?)
    }

    /// An account that sends transactions.
    pub(crate) async fn wallet(&self, terms: &MarketTerms, key: Key) -> anyhow::Result<Wallet> {
        let reader = self.reader(terms).await?;
        let sender = TxSender::new(reader.rpc().clone(), key.clone()).await?;
        Ok(Wallet { key, reader, sender })
    }
}

impl KeyArgs {
    /// Whether there is a key to load.
    pub(crate) fn is_given(&self) -> bool {
        self.keystore.is_some() || secret_from_environment().is_some()
    }

    /// The key of the keystore, or else of the environment.
    pub(crate) fn load(&self, output: &Output) -> anyhow::Result<Key> {
        if let Some(path) = &self.keystore {
            return Key::from_keystore(path, &self.password()?).context("is it the right password?");
        }
        let Some(secret) = secret_from_environment() else {
            let detail = "no key: name a keystore with --keystore (`wharfage keys new` makes one), or put the secret of \
                          a test account into WHARFAGE_KEY";
            return Err(UsageError(detail.to_owned()).into());
        };
        output.progress("note: using the secret in WHARFAGE_KEY; keep that to test networks");
        Key::from_hex(&secret).context("WHARFAGE_KEY")
    }

    /// The keystore's password.
    pub(crate) fn password(&self) -> anyhow::Result<String> {
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        std::env::var("WHARFAGE_PASSWORD").map_err(|_| {
            UsageError("no password: name a file with --password-file, or put it into WHARFAGE_PASSWORD".to_owned())
                .into()
        })
    }
}

fn secret_from_environment() -> Option<String> {
    std::env::var("WHARFAGE_KEY").ok().filter(|secret| !secret.is_empty())
}

impl Market {
    /// What offers are signed for.
    pub(crate) fn domain(&self) -> OfferDomain {
        OfferDomain { chain_id: self.terms.chain_id, market: self.terms.market }
    }

    /// Waits until the web API has seen the block of `receipt`, so that the next command finds what this one did. An
    /// index that lags is no failure: the transaction stands.
    pub(crate) async fn catch_up(&self, receipt: &TxReceipt, output: &Output) {
        let catching_up = async {
            while !self.has_indexed(receipt.block).await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        if tokio::time::timeout(INDEX_PATIENCE, catching_up).await.is_err() {
            output.progress(&format!("note: {} has not seen block {} yet", self.api.base(), receipt.block));
        }
    }

    async fn has_indexed(&self, block: u64) -> bool {
        let status: Result<Value, _> = self.api.get("/v1/status").await;
        let indexed = status.ok().and_then(|status| status.get("asOfBlock")?.get("number")?.as_u64());
        indexed.is_some_and(|indexed| indexed >= block)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn urls_have_one_slash_in_each_place() {
        let gateway = GatewayArgs { gateway: "http://gateway.test/".to_owned() };
        let offer = OfferHash([0x11; 32]);
        for path in ["a?b", "/a?b"] {
            assert_eq!(gateway.url_of(offer, path), format!("http://gateway.test/d/{offer}/a?b"));
        }
    }

    #[test]
    fn a_keystore_opens_with_the_password_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (keystore, password) = (folder.path().join("key.json"), folder.path().join("password"));
        let key = Key::random();
        key.save_keystore(&keystore, "secret").unwrap();
        std::fs::write(&password, "secret\n").unwrap();
        let args = KeyArgs { keystore: Some(keystore), password_file: Some(password) };
        assert!(args.is_given());
        assert_eq!(args.load(&Output::new(false)).unwrap().address(), key.address());
    }
}
