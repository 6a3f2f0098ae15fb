//! A market with an indexer and a matcher that answers over HTTP.

use std::{path::Path, sync::Arc, time::Duration};

use chain::{Key, calls, testing::TestMarket};
use common::{
    clock::{Clock, ManualClock, SharedClock},
    deal::DealState,
    event::PlacedEvent,
    feature::FeatureSet,
    http::joint_operator_routes,
    ids::{Address, Digest, OfferHash},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
    shutdown::Shutdown,
};
use indexer::{Indexer, IndexerConfig};
use matcher::{Matcher, MatcherConfig, MatcherError};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// The account that pays for matches.
const MATCHER_ACCOUNT: usize = 9;
/// Longest wait for a condition: far beyond what it takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) market: TestMarket,
    pub(crate) clock: ManualClock,
    folder: tempfile::TempDir,
    client: reqwest::Client,
    indexer: Indexer,
    running: Option<Running>,
}

/// A matcher that runs beside the world's own. Dropped, it is gone as if its process were killed.
pub(crate) struct Running {
    matcher: Matcher,
    base: String,
    _server: AbortOnDropHandle<()>,
    shutdown: Shutdown,
}

impl Running {
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(reqwest::Client::new().post(format!("{}{path}", self.base)).json(body).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        reqwest::get(format!("{}{path}", self.base)).await.unwrap().json().await.unwrap()
    }

    /// The sum of a counter or gauge over all its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let whole = |value: f64| format!("{value:.0}").parse::<u64>().unwrap();
        let families = self.matcher.metrics().gather();
        let family = families.iter().find(|family| family.name() == format!("wharfage_matcher_{name}")).unwrap();
        let metrics = family.get_metric().iter();
        let values = metrics.flat_map(|metric| [metric.get_counter().get_value(), metric.get_gauge().get_value()]);
        values.map(whole).sum()
    }
}

pub(crate) fn atoms(amount: u64) -> Atoms {
    Atoms::new(amount).unwrap()
}

/// A component as small as can be: imports and one export, no code.
pub(crate) fn component(import: &str) -> Vec<u8> {
    let name = |text: &str| [&[0, text.len() as u8], text.as_bytes()].concat();
    let section = |id: u8, body: Vec<u8>| [vec![id, body.len() as u8], body].concat();
    [
        b"\0asm\x0d\0\x01\0".to_vec(),
        section(7, vec![1, 0x42, 0]),
        section(10, [vec![1], name(import), vec![5, 0]].concat()),
        section(11, [vec![1], name("wasi:http/incoming-handler@0.2.0"), vec![5, 0, 0]].concat()),
    ]
    .concat()
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut MatcherConfig)) -> Self {
        let market = TestMarket::start().await;
        let clock = ManualClock::at(market.reader.rpc().head().await.unwrap().timestamp);
        let folder = tempfile::tempdir().unwrap();
        let config = IndexerConfig {
            poll_interval: Duration::from_millis(20),
            ..IndexerConfig::new(folder.path().join("indexer.db").into())
        };
        let indexer = Indexer::start(market.reader.clone(), config, Shutdown::new()).await.unwrap();
        let client = reqwest::Client::new();
        let mut world = Self { market, clock, folder, client, indexer, running: None };
        world.start_matcher(adjust).await;
        world
    }

    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("matcher")
    }

    pub(crate) async fn start_matcher(&mut self, adjust: impl FnOnce(&mut MatcherConfig)) {
        self.running = Some(self.another_matcher(MATCHER_ACCOUNT, &self.data_dir(), adjust).await);
    }

    /// One more matcher on the market, beside the world's own.
    pub(crate) async fn another_matcher(
        &self,
        account: usize,
        data_dir: &Path,
        adjust: impl FnOnce(&mut MatcherConfig),
    ) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut config = MatcherConfig::new(data_dir, base.clone());
        adjust(&mut config);
        let shutdown = Shutdown::new();
        let matcher = self.start_at(account, config, shutdown.clone()).await.unwrap();
        // As the services do: one listener for both.
        let operator = joint_operator_routes(vec![matcher.metrics()], matcher.readiness(), matcher.facts());
        let router = self.indexer.router().merge(matcher.router()).merge(operator);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let running = Running { matcher, base, _server: AbortOnDropHandle::new(server), shutdown };
        let ready = running.matcher.readiness();
        eventually("the matcher is ready", async || ready().is_ok().then_some(())).await;
        running
    }

    async fn start_at(
        &self,
        account: usize,
        config: MatcherConfig,
        shutdown: Shutdown,
    ) -> Result<Matcher, MatcherError> {
        let clock: SharedClock = Arc::new(self.clock.clone());
        let (reader, sender) = (self.market.reader.clone(), self.market.sender(account).await);
        let (store, ticks) = (self.indexer.store().clone(), self.indexer.subscribe());
        Matcher::start(reader, store, ticks, sender, clock, config, shutdown).await
    }

    /// Why a matcher does not start.
    pub(crate) async fn start_refused(&self, account: usize, config: MatcherConfig) -> MatcherError {
        self.start_at(account, config, Shutdown::new()).await.err().unwrap()
    }

    /// The world's own matcher.
    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// As if the process were killed.
    pub(crate) fn kill_matcher(&mut self) {
        self.running = None;
    }

    pub(crate) async fn stop_matcher(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        running.matcher.stopped().await.unwrap();
    }

    pub(crate) fn matcher(&self) -> &Matcher {
        &self.running().matcher
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.as_ref().unwrap().base)
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.client.post(self.url(path)).json(body).send().await.unwrap()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Vec<u8>) -> (StatusCode, Value) {
        answer(self.client.put(self.url(path)).body(body).send().await.unwrap()).await
    }

    pub(crate) fn key(&self, account: usize) -> Key {
        self.market.anvil.key(account)
    }

    /// Gives an account money in the market.
    pub(crate) async fn fund(&self, account: usize, amount: u64) {
        self.market.fund(&self.key(account), atoms(amount)).await;
    }

    /// An offer for one small worker at up to 1,000 atoms an epoch.
    pub(crate) fn developer_offer(&self, account: usize) -> DeveloperOffer {
        DeveloperOffer {
            developer: self.key(account).address(),
            artifact: Digest([7; 32]),
            manifest: Digest::ZERO,
            size: Resources { milli_cpu: 1_000, memory_mib: 1_024 },
            features: FeatureSet::EMPTY,
            regions: Vec::new(),
            min_replicas: 1,
            replicas: 1,
            max_price_per_epoch: atoms(1_000),
            epochs: 100,
            prepaid_epochs: 4,
            valid_until: self.clock.unix_seconds() + 86_400,
            nonce: 1,
            matcher: Address::ZERO,
            matcher_fee: Atoms::ZERO,
            allow: Vec::new(),
            deny: Vec::new(),
            artifact_url: String::new(),
        }
    }

    pub(crate) fn provider_offer(&self, account: usize, region: &str, price: u64) -> ProviderOffer {
        ProviderOffer {
            provider: self.key(account).address(),
            agent: self.key(account + 1).address(),
            payout: self.key(account).address(),
            region: region.parse().unwrap(),
            capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
            features: FeatureSet::EMPTY,
            prices: Prices { per_vcpu_epoch: atoms(price), per_gib_epoch: Atoms::ZERO },
            max_epochs: 0,
            valid_until: self.clock.unix_seconds() + 86_400,
            nonce: 1,
            endpoint: format!("http://127.0.0.1:{}", 9_000 + account),
        }
    }

    pub(crate) fn developer_hash(&self, offer: &DeveloperOffer) -> OfferHash {
        self.market.reader.domain().developer_offer_hash(offer)
    }

    /// A submission, signed by `signer`.
    pub(crate) fn signed(&self, offer: &DeveloperOffer, signer: usize) -> Value {
        self.submission(json!(offer), self.developer_hash(offer), signer)
    }

    pub(crate) fn signed_provider(&self, offer: &ProviderOffer, signer: usize) -> Value {
        self.submission(json!(offer), self.market.reader.domain().provider_offer_hash(offer), signer)
    }

    fn submission(&self, offer: Value, hash: OfferHash, signer: usize) -> Value {
        let signature = format!("0x{}", hex::encode(self.key(signer).sign(hash).unwrap()));
        json!({ "chainId": self.market.reader.terms().chain_id, "offer": offer, "signature": signature })
    }

    /// A funded provider with a signed offer that the matcher has accepted.
    pub(crate) async fn provider(&self, account: usize, region: &str, price: u64) -> ProviderOffer {
        self.fund(account, 1_000_000).await;
        let offer = self.provider_offer(account, region, price);
        let (status, answer) = self.post("/v1/provider-offers", &self.signed_provider(&offer, account)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        self.indexed().await;
        offer
    }

    /// Waits until the index has the chain's head.
    pub(crate) async fn indexed(&self) {
        let head = self.market.reader.rpc().head().await.unwrap();
        eventually("the head is indexed", async || {
            let as_of = self.indexer.store().as_of().await.unwrap()?;
            (as_of.number >= head.number).then_some(())
        })
        .await;
    }

    /// Waits until a developer offer has this status, and gives what is shown of it.
    pub(crate) async fn has_status(&self, offer: OfferHash, status: &str) -> Value {
        let path = format!("/v1/developer-offers/{offer}");
        eventually(&format!("{offer} is {status}"), async || {
            let shown = self.get(&path).await;
            if shown["status"] == status { Ok(shown) } else { Err(shown) }
        })
        .await
    }

    pub(crate) async fn cancel_deal(&self, developer: usize, deal: &Value) {
        let deal = self.market.reader.deal(deal.as_str().unwrap().parse().unwrap()).await.unwrap().unwrap().reference();
        let sender = self.market.sender(developer).await;
        sender.send(&calls::cancel_deals(self.market.market, &[deal])).await.unwrap();
    }

    /// Deals of a developer offer that the chain itself shows and that have not ended.
    pub(crate) async fn live_replicas(&self, offer: OfferHash) -> usize {
        let mut live = 0;
        for account in 0..20 {
            let id = chain::deal_id(offer, self.key(account).address());
            let deal = self.market.reader.deal(id).await.unwrap();
            live += usize::from(deal.is_some_and(|deal| deal.state != DealState::Ended));
        }
        live
    }

    /// Transactions that wait for a block.
    pub(crate) async fn transactions_in_the_pool(&self) -> u64 {
        let status = self.market.anvil.call("txpool_status", json!([])).await;
        u64::from_str_radix(status["pending"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Mines a block and waits until the index has it.
    pub(crate) async fn block(&self) {
        self.market.anvil.mine(1).await;
        self.indexed().await;
    }

    /// All events of the market.
    pub(crate) async fn events(&self) -> Vec<PlacedEvent> {
        let reader = &self.market.reader;
        let head = reader.rpc().head().await.unwrap().number;
        let blocks = reader.blocks(0, head).await.unwrap();
        blocks.into_iter().flat_map(|block| block.events).collect()
    }

    /// Files in the content store.
    pub(crate) fn stored_files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| if path.is_dir() { count(&path) } else { 1 })
                .sum()
        }
        count(&self.data_dir().join("artifacts"))
    }
}

async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let is_problem = response.headers()["content-type"] == "application/problem+json";
    assert_eq!(is_problem, !status.is_success(), "{response:?}");
    (status, response.json().await.unwrap())
}

/// What a condition that is waited for comes to.
pub(crate) trait Outcome<T> {
    fn outcome(self) -> Result<T, String>;
}

impl<T> Outcome<T> for Option<T> {
    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T> Outcome<T> for Result<T, Value> {
    fn outcome(self) -> Result<T, String> {
        self.map_err(|value| value.to_string())
    }
}

/// Asks until the condition holds.
pub(crate) async fn eventually<T, O: Outcome<T>>(what: &str, mut ask: impl AsyncFnMut() -> O) -> T {
    let begin = std::time::Instant::now();
    loop {
        match ask().await.outcome() {
            Ok(value) => return value,
            Err(last) => assert!(begin.elapsed() < PATIENCE, "{what} did not come true: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
