//! An indexer of one's own beside the market's, what the auditor says of both, and how its database is made anew.

use std::{process::Stdio, time::Duration};

use migrations::testing::Postgres;
use serde_json::{Value, json};

use crate::market::{PROGRAM, UpMarket, eventually, free_ports, run, sample_worker, signal, wharfage};

/// `wharfage indexer run`, running.
struct OwnIndexer {
    process: tokio::process::Child,
    api: String,
}

impl OwnIndexer {
    /// Starts it behind `wrapper`, a command that runs what follows it.
    fn spawn(market: &UpMarket, wrapper: &[&str], database: &str) -> Self {
        let listen = format!("127.0.0.1:{}", free_ports()[0]);
        let (contract, deployed_at) = (market.market().to_string(), market.summary["deployedAt"].to_string());
        let program = PROGRAM.to_str().unwrap();
        let mut words = wrapper.iter().copied().chain([program]);
        let mut command = tokio::process::Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["indexer", "run", "--rpc", market.url("rpcUrl"), "--market", &contract])
            .args(["--deployed-at", &deployed_at, "--listen", &listen, "--poll-interval", "100"])
            .args(["--database", database])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Self { process: command.spawn().unwrap(), api: format!("http://{listen}") }
    }

    async fn start(market: &UpMarket, database: &str) -> Self {
        let own = Self::spawn(market, &[], database);
        own.is_ready().await;
        own
    }

    async fn ready_status(&self) -> Option<u16> {
        Some(reqwest::get(format!("{}/readyz", self.api)).await.ok()?.status().as_u16())
    }

    async fn is_ready(&self) {
        eventually("the own indexer to be ready", async || (self.ready_status().await? == 200).then_some(())).await;
    }

    async fn interrupt(mut self) {
        signal(self.process.id().unwrap(), libc::SIGINT);
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "the indexer ended with {status}");
    }

    /// As a power cut does.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// A market with a few deals.
async fn busy_market() -> UpMarket {
    let market = UpMarket::start(6).await;
    let worker = sample_worker();
    market.upload(&worker).await;
    market.deposit("50").await;
    let hash = market.submit(&market.offer(&worker, 2)).await;
    market.matched(hash, 2).await;
    market
}

/// What the auditor finds wrong at these indexers.
fn differences(market: &UpMarket, apis: &[&str]) -> Value {
    let apis = apis.iter().flat_map(|api| ["--api", api]);
    let audit: Vec<_> = ["audit", "--json", "--rpc", market.url("rpcUrl")].into_iter().chain(apis).collect();
    let answer: Value = serde_json::from_slice(&run(wharfage(&audit), true).stdout).unwrap();
    assert_eq!(answer["differences"], json!([]), "{answer}");
    answer["differenceCount"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_can_index_a_market_and_audit_who_does() {
    let mut market = busy_market().await;
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("own.db").to_str().unwrap().to_owned();
    let own = OwnIndexer::start(&market, &database).await;
    assert_eq!(differences(&market, &[market.url("apiUrl"), &own.api]), 0);
    own.interrupt().await;

    let rebuild = |more: &[&str]| -> Value {
        let rebuild = [&["indexer", "rebuild", "--json", "--database", &database], more].concat();
        serde_json::from_slice(&run(wharfage(&rebuild), true).stdout).unwrap()
    };
    assert!(rebuild(&[])["block"]["number"].as_u64() > market.summary["deployedAt"].as_u64());
    assert_eq!(rebuild(&["--from-chain"])["block"], Value::Null);
    let own = OwnIndexer::start(&market, &database).await;
    let deals: Value = reqwest::get(format!("{}/v1/deals", own.api)).await.unwrap().json().await.unwrap();
    assert_eq!(deals["items"].as_array().unwrap().len(), 2, "{deals}");
    own.interrupt().await;
    market.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_fifty_times_on_either_database_it_says_what_the_chain_says() {
    let mut market = busy_market().await;
    // Something to catch up with each time, below the final block and above it.
    market.node("anvil_mine", json!(["0x400"])).await;
    let folder = tempfile::tempdir().unwrap();
    let databases = [folder.path().join("own.db").to_str().unwrap().to_owned(), Postgres::shared().database().await];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..50 {
        let running = databases.each_ref().map(|database| OwnIndexer::spawn(&market, &[], database));
        // From before the database is opened to after the head is reached.
        tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
        for own in running {
            own.kill().await;
        }
        if round % 10 == 9 {
            market.node("anvil_mine", json!(["0x80"])).await;
        }
    }
    let [sqlite, postgres] = databases.each_ref().map(|database| OwnIndexer::start(&market, database));
    let (sqlite, postgres) = (sqlite.await, postgres.await);
    assert_eq!(differences(&market, &[&sqlite.api, &postgres.api]), 0);
    sqlite.interrupt().await;
    postgres.interrupt().await;
    market.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let mut market = busy_market().await;
    let folder = tempfile::tempdir().unwrap();
    let (disk, full, room) = (folder.path().join("disk"), folder.path().join("full"), folder.path().join("room"));
    std::fs::create_dir(&disk).unwrap();
    // A disk of its own, which another file fills once there is a file called `full`, until there is one called `room`.
    let script = r#"mount -t tmpfs -o size=8m tmpfs "$1" || exit 1
        wait_for() { while [ ! -e "$1" ]; do sleep 0.05; done; }
        (wait_for "$2"; dd if=/dev/zero of="$1/other" bs=4k; touch "$2.done"; wait_for "$3"; rm "$1/other") 2>/dev/null &
        shift 3; exec "$@""#;
    let [on_disk, when_full, when_room] = [&disk, &full, &room].map(|path| path.to_str().unwrap());
    let wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", on_disk, when_full, when_room];
    let own = OwnIndexer::spawn(&market, &wrapper, &format!("{on_disk}/own.db"));
    own.is_ready().await;
    std::fs::write(&full, "").unwrap();
    eventually("the disk to be full", async || folder.path().join("full.done").exists().then_some(())).await;
    market.node("anvil_mine", json!(["0x40"])).await;
    eventually("the indexer to say that it is behind", async || (own.ready_status().await? == 503).then_some(())).await;
    std::fs::write(&room, "").unwrap();
    own.is_ready().await;
    assert_eq!(differences(&market, &[&own.api]), 0);
    own.interrupt().await;
    market.interrupt().await;
}
