//! A whole market under test: the program itself, started as a person starts it, and clients of it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use chain::{Key, MarketReader, Rpc, TxSender, calls};
use common::{
    clock::{Clock, SystemClock},
    deal::{Deal, DealState},
    feature::FeatureSet,
    ids::{Address, Digest, OfferHash},
    money::Atoms,
    offer::DeveloperOffer,
    resources::Resources,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Longest wait for a condition; tests fail by facts, this only ends a hang.
const PATIENCE: Duration = Duration::from_secs(180);

/// The program under test. `cargo test --workspace` builds it beside the tests; building it from in here would resolve
/// features for one package alone and compile every dependency a second time.
pub(crate) static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let here = std::env::current_exe().expect("a test has a path");
    let program = here.parent().and_then(Path::parent).expect("a target folder").join("wharfage");
    assert!(program.is_file(), "{} is missing: run `cargo test --release --workspace`", program.display());
    program
});

/// The program, to be run once with its output captured.
pub(crate) fn wharfage(args: &[&str]) -> Command {
    let mut command = Command::new(&*PROGRAM);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a command and gives its output; `expect_success` says which outcome is right.
pub(crate) fn run(mut command: Command, expect_success: bool) -> Output {
    let output = command.output().expect("the program starts");
    assert_eq!(
        output.status.success(),
        expect_success,
        "{command:?} ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Ports for chain, web API, gateway and the first of three agents, free now. They are below the range of outgoing
/// connections, of which one could take a port before it is used.
pub(crate) fn free_ports() -> [u16; 4] {
    loop {
        let first = fastrand::u16(20_000..32_000);
        if (first..first + 6).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return [first, first + 1, first + 2, first + 3];
        }
    }
}

/// `wharfage up`, running.
pub(crate) struct UpMarket {
    pub(crate) summary: Value,
    pub(crate) reader: MarketReader,
    process: tokio::process::Child,
    args: Vec<String>,
    _scratch: Option<tempfile::TempDir>,
}

impl UpMarket {
    /// A fresh market whose epochs last `epoch_seconds`.
    pub(crate) async fn start(epoch_seconds: u32) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let [chain, api, gateway, agents] = free_ports().map(|port| port.to_string());
        let args = ["up", "--json", "--data-dir", scratch.path().to_str().unwrap(), "--chain-port", &chain]
            .into_iter()
            .chain(["--api-port", &api, "--gateway-port", &gateway, "--agent-port", &agents])
            .chain(["--epoch-seconds", &epoch_seconds.to_string()])
            .map(str::to_owned)
            .collect();
        Self::launch(args, Some(scratch)).await
    }

    async fn launch(args: Vec<String>, scratch: Option<tempfile::TempDir>) -> Self {
        let mut command = tokio::process::Command::new(&*PROGRAM);
        command.args(&args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("up comes up").unwrap();
        let summary: Value = serde_json::from_str(&line.expect("up prints a summary")).unwrap();
        let rpc = Rpc::new(&[summary["rpcUrl"].as_str().unwrap().to_owned()]).unwrap();
        let market = summary["market"].as_str().unwrap().parse().unwrap();
        // Told, not searched for: after a restart anvil knows no old states to search in.
        let deployed_at = summary["deployedAt"].as_u64();
        let reader = MarketReader::connect(rpc, market, deployed_at).await.unwrap();
        Self { summary, reader, process, args, _scratch: scratch }
    }

    /// Stops it as Ctrl-C does, and starts it again on the same data.
    pub(crate) async fn restart(mut self) -> Self {
        self.interrupt().await;
        let scratch = self._scratch.take();
        Self::launch(self.args.clone(), scratch).await
    }

    /// Sends Ctrl-C and waits for the end.
    pub(crate) async fn interrupt(&mut self) {
        signal(self.process.id().unwrap(), libc::SIGINT);
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.expect("up ends").unwrap();
        assert!(status.success(), "up ended with {status}");
    }

    pub(crate) fn url(&self, name: &str) -> &str {
        self.summary[name].as_str().unwrap()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        Path::new(self.url("dataDir"))
    }

    pub(crate) fn token(&self) -> Address {
        self.url("token").parse().unwrap()
    }

    pub(crate) fn market(&self) -> Address {
        self.url("market").parse().unwrap()
    }

    /// The developer that `up` provides for.
    pub(crate) fn developer(&self) -> Key {
        Key::from_hex(self.url("developerKey")).unwrap()
    }

    pub(crate) async fn sender(&self, key: &Key) -> TxSender {
        TxSender::new(self.reader.rpc().clone(), key.clone()).await.unwrap()
    }

    /// Moves tokens of the developer into the market.
    pub(crate) async fn deposit(&self, tokens: &str) {
        let (sender, amount) = (self.sender(&self.developer()).await, Atoms::parse_tokens(tokens).unwrap());
        sender.send(&calls::approve(self.token(), self.market(), amount)).await.unwrap();
        sender.send(&calls::deposit(self.market(), amount)).await.unwrap();
    }

    /// Uploads a component; what the API says of it.
    pub(crate) async fn upload(&self, worker: &[u8]) -> Value {
        let digest = sha256(worker);
        let url = format!("{}/v1/artifacts/{digest}", self.url("apiUrl"));
        let response = reqwest::Client::new().put(url).body(worker.to_vec()).send().await.unwrap();
        assert!(response.status().is_success(), "upload: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// A valid offer of the developer's for an uploaded worker.
    pub(crate) fn offer(&self, worker: &[u8], replicas: u16) -> DeveloperOffer {
        let digest = sha256(worker);
        DeveloperOffer {
            developer: self.developer().address(),
            artifact: digest,
            manifest: Digest::ZERO,
            size: Resources { milli_cpu: 250, memory_mib: 128 },
            features: FeatureSet::EMPTY,
            regions: Vec::new(),
            min_replicas: 1,
            replicas,
            max_price_per_epoch: Atoms::parse_tokens("0.01").unwrap(),
            epochs: 1_000,
            prepaid_epochs: 10,
            valid_until: SystemClock.unix_seconds() + 3_600,
            nonce: 0,
            matcher: Address::ZERO,
            matcher_fee: Atoms::ZERO,
            allow: Vec::new(),
            deny: Vec::new(),
            artifact_url: format!("{}/v1/artifacts/{digest}", self.url("apiUrl")),
        }
    }

    /// The body of a submission, signed by `key`.
    pub(crate) fn signed(&self, offer: &DeveloperOffer, key: &Key) -> Value {
        let domain = self.reader.domain();
        let signature = key.sign(domain.developer_offer_hash(offer)).unwrap();
        json!({ "chainId": domain.chain_id, "offer": offer, "signature": hex::encode_prefixed(signature) })
    }

    /// Posts a body to the web API: status and answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url("apiUrl"));
        let response = reqwest::Client::new().post(url).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Asks the web API: status and answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(format!("{}{path}", self.url("apiUrl"))).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// Submits a valid signed offer.
    pub(crate) async fn submit(&self, offer: &DeveloperOffer) -> OfferHash {
        let (status, answer) = self.post("/v1/developer-offers", &self.signed(offer, &self.developer())).await;
        assert_eq!(status, 202, "{answer}");
        self.reader.domain().developer_offer_hash(offer)
    }

    /// Deals of an offer that have not ended, by the contract.
    pub(crate) async fn live_deals(&self, hash: OfferHash) -> Vec<Deal> {
        let mut live = Vec::new();
        for provider in self.summary["providers"].as_array().unwrap() {
            let id = chain::deal_id(hash, provider["provider"].as_str().unwrap().parse().unwrap());
            live.extend(self.reader.deal(id).await.unwrap().filter(|deal| deal.state != DealState::Ended));
        }
        live
    }

    /// Waits until `count` replicas have a host.
    pub(crate) async fn matched(&self, hash: OfferHash, count: usize) -> Vec<Deal> {
        eventually("the match", async || {
            let deals = self.live_deals(hash).await;
            (deals.len() == count).then_some(deals)
        })
        .await
    }

    /// Waits until a request through the gateway is answered well, and gives the deal that answered.
    pub(crate) async fn answered(&self, hash: OfferHash) -> String {
        let url = format!("{}/d/{hash}/", self.url("gatewayUrl"));
        eventually("an answer through the gateway", async || {
            let response = reqwest::get(&url).await.ok()?;
            let deal = response.headers().get("x-wharfage-deal")?.to_str().unwrap().to_owned();
            response.status().is_success().then_some(deal)
        })
        .await
    }

    /// One JSON-RPC call that only test nodes know.
    pub(crate) async fn node(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let response = reqwest::Client::new().post(self.url("rpcUrl")).json(&body).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

/// The built-in sample worker.
pub(crate) fn sample_worker() -> Vec<u8> {
    std::fs::read(repository().join("cli/assets/hello.wasm")).unwrap()
}

/// A worker that was built from source for this test run.
pub(crate) fn built_worker(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("WHARFAGE_GUESTS").map_or_else(|| repository().join("tests/guests/out"), PathBuf::from);
    let file = folder.join(name);
    assert!(file.is_file(), "{} is missing: run tests/guests/build.sh", file.display());
    file
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Asks until there is something; a condition, never a sleep, decides.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends a signal to a process of ours.
#[expect(unsafe_code, reason = "kill(2) has no safe form in std")]
pub(crate) fn signal(pid: u32, number: i32) {
    // SAFETY: a plain system call without memory arguments.
    let sent = unsafe { libc::kill(i32::try_from(pid).unwrap(), number) };
    assert_eq!(sent, 0, "no process {pid}");
}

/// Whether a process exists.
#[expect(unsafe_code, reason = "kill(2) has no safe form in std")]
pub(crate) fn is_alive(pid: u32) -> bool {
    // SAFETY: signal 0 only asks; a plain system call without memory arguments.
    unsafe { libc::kill(i32::try_from(pid).unwrap(), 0) == 0 }
}
