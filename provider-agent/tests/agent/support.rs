//! Guests, a content store that counts, and a market with one provider and one developer.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, routing::get};
use chain::{Key, MatchProposal, TxSender, calls, testing::TestMarket};
use common::{
    clock::SystemClock,
    deal::Deal,
    epoch::Epoch,
    feature::FeatureSet,
    ids::{Address, DealId, Digest},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
    shutdown::Shutdown,
};
use provider_agent::{Agent, AgentConfig, AgentError, Isolation, IsolationMode};
use sha2::Digest as _;
use tempfile::TempDir;

/// A component built by `tests/guests/build.sh`.
pub fn guest(name: &str) -> Vec<u8> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/out");
    let folder = std::env::var_os("WHARFAGE_GUESTS").map_or(built, PathBuf::from);
    let file = folder.join(format!("{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|_| panic!("{} is missing: run tests/guests/build.sh", file.display()))
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

/// Workers in processes of the little program that comes with the agent, or in the test's own.
pub fn isolation(mode: IsolationMode) -> Isolation {
    let program = (mode == IsolationMode::Process).then(|| SANDBOXED.into());
    Isolation { mode, program, ..Isolation::default() }
}

pub const SANDBOXED: &str = env!("CARGO_BIN_EXE_wharfage-sandboxed");

/// Longest that anything is waited for: no test passes or fails by how fast the machine is below this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is `Some`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}

/// Serves one artifact at every path, and counts how often.
pub struct ContentStore {
    pub url: String,
    served: Arc<AtomicUsize>,
}

impl ContentStore {
    pub async fn serve(bytes: Vec<u8>) -> Self {
        let served = Arc::new(AtomicUsize::new(0));
        let (bytes, count) = (Bytes::from(bytes), served.clone());
        let answer = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let bytes = bytes.clone();
            async move { bytes }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/{*path}", get(answer))).await });
        Self { url, served }
    }

    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

pub const PRICE: u64 = 1_500;
const SIZE: Resources = Resources { milli_cpu: 1_000, memory_mib: 64 };

/// A market with a funded developer, and a provider whose agent is yet to be started.
pub struct World {
    pub market: TestMarket,
    pub data_dir: TempDir,
    pub store: ContentStore,
    pub agent_key: Key,
    pub developer: Key,
    pub provider: Key,
    pub payout: Address,
    artifact: Digest,
    matcher: TxSender,
}

impl World {
    /// Whatever the store serves, the developer names `artifact`.
    pub async fn new(served: Vec<u8>, artifact: Digest) -> Self {
        // Silent unless RUST_LOG says otherwise.
        common::telemetry::init_logs("off", common::telemetry::LogFormat::Text);
        let market = TestMarket::start().await;
        let [agent_key, developer, provider] = [2, 3, 4].map(|n| market.anvil.key(n));
        let payout = market.anvil.key(5).address();
        let plenty = Atoms::new(10_000_000).unwrap();
        market.fund(&developer, plenty).await;
        market.fund(&provider, plenty).await;
        let matcher = market.sender(1).await;
        let data_dir = tempfile::tempdir().unwrap();
        let store = ContentStore::serve(served).await;
        Self { market, data_dir, store, agent_key, developer, provider, payout, artifact, matcher }
    }

    pub async fn with_hello() -> Self {
        let hello = guest("hello");
        let digest = digest(&hello);
        Self::new(hello, digest).await
    }

    pub fn config(&self) -> AgentConfig {
        let text = format!(
            "data_dir = {:?}\nlisten = \"127.0.0.1:0\"\nrpc = [{:?}]\nmarket = \"{}\"\ncontent_stores = [{:?}]\n\
             poll_interval_ms = 50\nregion = \"eu-de-fra1\"\n[limits]\nmax_live_instances = 32\n",
            self.data_dir.path(),
            self.market.anvil.url(),
            self.market.market,
            self.store.url,
        );
        let mut config = AgentConfig::from_toml(&text).unwrap();
        config.isolation = isolation(config.isolation.mode);
        config
    }

    pub async fn start(&self) -> Running {
        Running::start(self.config(), self.agent_key.clone()).await.unwrap()
    }

    pub fn provider_offer(&self) -> ProviderOffer {
        ProviderOffer {
            provider: self.provider.address(),
            agent: self.agent_key.address(),
            payout: self.payout,
            region: "eu-de-fra1".parse().unwrap(),
            capacity: Resources { milli_cpu: 8_000, memory_mib: 8_192 },
            features: FeatureSet::EMPTY,
            prices: Prices {
                per_vcpu_epoch: Atoms::new(PRICE - 100).unwrap(),
                per_gib_epoch: Atoms::new(1_600).unwrap(),
            },
            max_epochs: 0,
            valid_until: 4_000_000_000,
            nonce: 1,
            endpoint: "http://127.0.0.1:1".to_owned(),
        }
    }

    /// Opens a deal with the provider by a match transaction.
    pub async fn open_deal(&self, nonce: u64, epochs: u32, prepaid_epochs: u32) -> DealId {
        let domain = self.market.reader.domain();
        let provider = self.provider_offer();
        let developer = DeveloperOffer {
            developer: self.developer.address(),
            artifact: self.artifact,
            manifest: Digest::ZERO,
            size: SIZE,
            features: FeatureSet::EMPTY,
            regions: vec![],
            min_replicas: 1,
            replicas: 1,
            max_price_per_epoch: Atoms::new(PRICE * 2).unwrap(),
            epochs,
            prepaid_epochs,
            valid_until: 4_000_000_000,
            nonce,
            matcher: Address::ZERO,
            matcher_fee: Atoms::ZERO,
            allow: vec![],
            deny: vec![],
            artifact_url: format!("{}/hint", self.store.url),
        };
        let hash = domain.developer_offer_hash(&developer);
        let proposal = MatchProposal {
            developer_signature: self.developer.sign(hash).unwrap(),
            providers: vec![(provider.clone(), self.provider.sign(domain.provider_offer_hash(&provider)).unwrap())],
            developer,
        };
        let receipt = self.matcher.send(&calls::match_offers(self.market.market, &[proposal])).await.unwrap();
        let deal = chain::deal_id(hash, self.provider.address());
        assert!(self.market.reader.deal(deal).await.unwrap().is_some(), "no deal was opened: {:?}", receipt.events);
        deal
    }

    pub async fn deal(&self, id: DealId) -> Deal {
        self.market.reader.deal(id).await.unwrap().unwrap()
    }

    pub async fn paid(&self) -> u64 {
        self.market.reader.free_balance(self.payout).await.unwrap().get()
    }

    /// Waits until the provider was paid this much, and no more.
    pub async fn until_paid(&self, atoms: u64) {
        eventually(&format!("{atoms} atoms paid"), || async {
            let paid = self.paid().await;
            assert!(paid <= atoms, "{paid} atoms were paid, which is more than {atoms}");
            (paid == atoms).then_some(())
        })
        .await;
    }

    /// How often `agent` has attested each epoch, from the chain's events.
    pub async fn attestations(&self) -> Vec<Epoch> {
        let head = self.market.reader.rpc().head().await.unwrap().number;
        let from = self.market.reader.terms().deployed_at_block;
        let blocks = self.market.reader.blocks(from, head).await.unwrap();
        let events = blocks.into_iter().flat_map(|block| block.events);
        events
            .filter_map(|placed| match placed.event {
                common::event::MarketEvent::Attested { agent, epoch, .. } if agent == self.agent_key.address() => {
                    Some(epoch)
                }
                _ => None,
            })
            .collect()
    }
}

/// An agent in a task of its own.
pub struct Running {
    pub url: String,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), AgentError>>,
    client: reqwest::Client,
}

impl Running {
    pub async fn start(config: AgentConfig, key: Key) -> Result<Self, AgentError> {
        let shutdown = Shutdown::new();
        let agent = Agent::start(config, key, Arc::new(SystemClock), shutdown.clone()).await?;
        let url = format!("http://{}", agent.local_addr());
        let task = tokio::spawn(agent.stopped());
        Ok(Self { url, shutdown, task, client: reqwest::Client::new() })
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn text(&self, path: &str) -> String {
        self.get(path).await.text().await.unwrap()
    }

    /// Status and problem code.
    pub async fn problem(&self, path: &str) -> (u16, String) {
        let response = self.get(path).await;
        let status = response.status().as_u16();
        let body: serde_json::Value = response.json().await.unwrap();
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn state(&self, deal: DealId) -> serde_json::Value {
        self.get(&format!("/status/{deal}")).await.json().await.unwrap()
    }

    pub async fn until_state(&self, deal: DealId, state: &str) -> serde_json::Value {
        eventually(&format!("{deal} is {state}"), || async {
            let status = self.state(deal).await;
            (status["state"] == state).then_some(status)
        })
        .await
    }

    /// A counter or gauge, by its name with labels as in the Prometheus text.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.text("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().unwrap()
    }

    /// As by SIGKILL: nothing is finished.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn stop(self) -> Result<(), AgentError> {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }

    /// Ends by itself.
    pub async fn ended(self) -> Result<(), AgentError> {
        self.task.await.unwrap()
    }

    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }
}
