//! Matches on a real chain: those of a real matcher, and one that somebody made by hand for a friend.

use std::time::Duration;

use chain::{MatchProposal, calls, deal_id, testing::TestMarket};
use clap::Parser;
use common::{
    feature::FeatureSet,
    ids::{Address, Digest},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
    shutdown::Shutdown,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    client::ApiClient,
    commands::audit::AuditArgs,
    market::{MarketProcess, RunningMarket},
};

/// Longest wait for a condition: far beyond what it takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Accounts.
const DEVELOPER: usize = 1;
const DEAR: usize = 2;
const CHEAP: usize = 3;
const SIGNS: usize = 4;
const MATCHER: usize = 9;

fn atoms(amount: u64) -> Atoms {
    Atoms::new(amount).unwrap()
}

struct Scene {
    market: TestMarket,
    folder: tempfile::TempDir,
}

impl Scene {
    /// A provider at 1,000 atoms and one at 700; nobody wants anything.
    async fn new() -> Self {
        let market = TestMarket::start().await;
        for account in [DEVELOPER, DEAR, CHEAP, SIGNS] {
            market.fund(&market.anvil.key(account), atoms(10_000_000)).await;
        }
        let scene = Self { market, folder: tempfile::tempdir().unwrap() };
        for (account, price) in [(DEAR, 1_000), (CHEAP, 700)] {
            let call = calls::post_provider_offer(scene.market.market, &scene.supply(account, price));
            scene.market.sender(account).await.send(&call).await.unwrap();
        }
        scene
    }

    fn address(&self, account: usize) -> Address {
        self.market.anvil.key(account).address()
    }

    fn supply(&self, account: usize, price: u64) -> ProviderOffer {
        let provider = self.address(account);
        ProviderOffer {
            provider,
            agent: provider,
            payout: provider,
            region: "eu-de-fra1".parse().unwrap(),
            capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
            features: FeatureSet::EMPTY,
            prices: Prices { per_vcpu_epoch: atoms(price), per_gib_epoch: Atoms::ZERO },
            max_epochs: 0,
            valid_until: u64::MAX,
            nonce: 1,
            endpoint: "http://127.0.0.1:9001".to_owned(),
        }
    }

    fn demand(&self, nonce: u64, max_price: u64) -> DeveloperOffer {
        DeveloperOffer {
            developer: self.address(DEVELOPER),
            artifact: Digest([0xa1; 32]),
            manifest: Digest::ZERO,
            size: Resources { milli_cpu: 1_000, memory_mib: 1_024 },
            features: FeatureSet::EMPTY,
            regions: Vec::new(),
            min_replicas: 1,
            replicas: 1,
            max_price_per_epoch: atoms(max_price),
            epochs: 20,
            prepaid_epochs: 3,
            valid_until: u64::MAX,
            nonce,
            matcher: Address::ZERO,
            matcher_fee: Atoms::ZERO,
            allow: Vec::new(),
            deny: Vec::new(),
            artifact_url: "http://127.0.0.1:9000/worker.wasm".to_owned(),
        }
    }

    async fn post(&self, demand: &DeveloperOffer) {
        let call = calls::post_developer_offer(self.market.market, demand);
        self.market.sender(DEVELOPER).await.send(&call).await.unwrap();
    }

    /// Somebody matches the demand with this provider offer.
    async fn match_by_hand(&self, demand: &DeveloperOffer, supply: ProviderOffer) {
        let proposal = MatchProposal {
            developer: demand.clone(),
            developer_signature: Vec::new(),
            providers: vec![(supply, Vec::new())],
        };
        let call = calls::match_offers(self.market.market, &[proposal]);
        let receipt = self.market.sender(MATCHER).await.send(&call).await.unwrap();
        assert_eq!(receipt.events.len(), 1, "{:?}", receipt.events);
    }

    /// Runs indexer and matcher; gives their address too.
    async fn run_market(&self, shutdown: &Shutdown) -> (RunningMarket, String) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = MarketProcess {
            database: None,
            rpc: vec![self.market.anvil.url()],
            market: self.market.market,
            deployed_at: Some(self.market.reader.terms().deployed_at_block),
            key: self.market.anvil.key(MATCHER),
            data_dir: self.folder.path().to_owned(),
            listen: port,
            poll_interval: Duration::from_millis(20),
        };
        (process.start(shutdown).await.unwrap(), format!("http://{port}"))
    }

    async fn is_hosted(&self, demand: &DeveloperOffer, host: usize) {
        let deal = deal_id(self.market.reader.domain().developer_offer_hash(demand), self.address(host));
        let opened = async {
            while self.market.reader.deal(deal).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.expect("the demand was never matched");
    }

    async fn report(&self, offers: Option<String>) -> Report {
        let settings = Settings { block: Some(BlockChoice::Latest), grace_blocks: 2, all: true, limit: 10, offers };
        examine(&self.market.reader, settings, &Output::new(true)).await.unwrap()
    }

    /// The command's exit code, as options are typed.
    async fn exit_code(&self, more: &[&str]) -> String {
        let (market, rpc) = (self.market.market.to_string(), self.market.anvil.url());
        let options = ["audit", "matching", "--market", &market, "--rpc", &rpc, "--block", "latest"];
        let line = Line::parse_from(options.iter().chain(more));
        format!("{:?}", crate::commands::audit::run(line.audit, &Output::new(true)).await.unwrap())
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    audit: AuditArgs,
}

fn shown(report: &Report) -> Value {
    serde_json::to_value(report).unwrap()
}

fn code(code: ExitCode) -> String {
    format!("{code:?}")
}

#[tokio::test]
async fn a_real_matcher_is_fair_and_a_friend_of_a_provider_is_not() {
    let scene = Scene::new().await;
    let shutdown = Shutdown::new();
    let (running, _) = scene.run_market(&shutdown).await;
    for nonce in 1..4 {
        let demand = scene.demand(nonce, 2_000);
        scene.post(&demand).await;
        scene.is_hosted(&demand, CHEAP).await;
    }
    shutdown.cancel();
    running.stopped().await.unwrap();
    let report = scene.report(None).await;
    let honest = shown(&report);
    assert!(report.is_fair(), "{honest}");
    assert_eq!((&honest["fair"], &honest["findingCount"]), (&json!(true), &json!(0)));
    let matcher = &honest["matchers"][0];
    assert_eq!(matcher["matcher"], json!(scene.address(MATCHER)));
    assert_eq!((&matcher["fills"], &matcher["asEngine"]), (&json!(3), &json!(3)));
    assert_eq!(honest["matches"].as_array().unwrap().len(), 3);
    assert_eq!(honest["matches"][0]["fills"][0]["verdict"], "as_engine");
    assert!(report.lines().last().unwrap().starts_with("fair"));
    assert_eq!(scene.exit_code(&[]).await, code(ExitCode::SUCCESS));

    let demand = scene.demand(4, 2_000);
    scene.post(&demand).await;
    scene.market.anvil.mine(5).await;
    scene.match_by_hand(&demand, scene.supply(DEAR, 1_000)).await;
    let report = scene.report(None).await;
    let found = shown(&report);
    let cheaper = scene.market.reader.domain().provider_offer_hash(&scene.supply(CHEAP, 700));
    let fill = &found["findings"][0]["fills"][0];
    assert_eq!((&found["fair"], &fill["verdict"], &fill["ask"]), (&json!(false), &json!("dearer"), &json!("1000")));
    let better = &fill["better"];
    assert_eq!((&better["supply"], &better["provider"]), (&json!(cheaper), &json!(scene.address(CHEAP))));
    assert_eq!((&better["ask"], &better["lostPerEpoch"]), (&json!("700"), &json!("300")));
    assert_eq!(better["lostInTerm"], "6000");
    assert_eq!((&found["matchers"][0]["dearer"], &found["matchers"][0]["lostInTerm"]), (&json!(1), &json!("6000")));
    assert_eq!((&found["leftWaiting"], &found["longestWaits"][0]["blocks"]), (&json!(1), &json!(6)));
    let lines = report.lines();
    let line = lines.iter().find(|line| line.starts_with("DEARER")).unwrap();
    assert!(line.contains(&cheaper.to_string()) && line.contains("asked 700") && line.contains("6000 in the term"));
    assert!(lines.last().unwrap().starts_with("NOT fair: 1 "), "{lines:?}");
    assert_eq!(scene.exit_code(&["--grace-blocks", "0"]).await, code(ExitCode::from(DIFFERENT)));
    // Nothing was there for so long.
    assert_eq!(scene.exit_code(&["--grace-blocks", "1000"]).await, code(ExitCode::SUCCESS));
}

#[tokio::test]
async fn signed_offers_count_from_their_acceptance_when_a_matcher_tells_of_them() {
    let scene = Scene::new().await;
    let accepted_block = scene.market.reader.rpc().head().await.unwrap().number;
    let demand = scene.demand(1, 2_000);
    scene.post(&demand).await;
    scene.market.anvil.mine(5).await;
    scene.match_by_hand(&demand, scene.supply(CHEAP, 700)).await;
    assert!(scene.report(None).await.is_fair());

    let signed = scene.supply(SIGNS, 500);
    let hash = scene.market.reader.domain().provider_offer_hash(&signed);
    let mut listed = json!({ "kind": "provider", "offerHash": hash, "sequence": 1, "acceptedBlock": accepted_block });
    let file = scene.folder.path().join("accepted.json");
    let source = file.to_str().unwrap().to_owned();
    let read = async |listed: &Value| {
        std::fs::write(&file, json!({ "items": [listed] }).to_string()).unwrap();
        offers::read(&source, scene.market.reader.domain()).await
    };
    assert!(format!("{:#}", read(&listed).await.unwrap_err()).contains("has no terms"));
    listed["offer"] = json!(scene.supply(SIGNS, 501));
    assert!(format!("{:#}", read(&listed).await.unwrap_err()).contains("in this market"));
    listed["offer"] = json!(signed);
    assert_eq!(read(&listed).await.unwrap().provider.len(), 1);
    let found = shown(&scene.report(Some(source)).await);
    assert_eq!((&found["fair"], &found["signedOffers"]), (&json!(false), &json!(1)));
    let better = &found["findings"][0]["fills"][0]["better"];
    assert_eq!((&better["supply"], &better["sinceBlock"]), (&json!(hash), &json!(accepted_block)));
}

#[tokio::test]
async fn waiting_offers_are_read_of_a_matcher() {
    let scene = Scene::new().await;
    let shutdown = Shutdown::new();
    let (running, url) = scene.run_market(&shutdown).await;
    let reader = &scene.market.reader;
    let demand = scene.demand(1, 1);
    let hash = reader.domain().developer_offer_hash(&demand);
    let signature = scene.market.anvil.key(DEVELOPER).sign(hash).unwrap();
    let api = ApiClient::new(&url).unwrap();
    let submitted = async {
        while api.submit(reader.terms().chain_id, &demand, &signature).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, submitted).await.expect("the offer was never accepted");
    let signed = offers::read(&url, reader.domain()).await.unwrap();
    assert_eq!((signed.developer[0].hash, &signed.developer[0].offer), (hash, &demand));
    assert!(scene.report(Some(url)).await.is_fair());
    shutdown.cancel();
    running.stopped().await.unwrap();
}

#[test]
fn commands_of_the_documentation_are_understood() {
    let docs = include_str!("../../../../../docs/audit.md");
    let lines = docs.lines().filter(|line| line.starts_with("wharfage audit") && !line.contains('…'));
    let parsed = lines.map(|line| Line::try_parse_from(line.split(' ').skip(1).filter(|word| *word != "--json")));
    assert!(parsed.map(|line| line.unwrap()).filter(|line| line.audit.what.is_some()).count() >= 4);
}
