//! An indexer of one's own beside the market's, what the auditor says of both, and how its database is made anew.

use std::{path::Path, process::Stdio};

use serde_json::Value;

use crate::market::{PROGRAM, UpMarket, eventually, free_ports, run, sample_worker, signal, wharfage};

/// `wharfage indexer run`, running.
struct OwnIndexer {
    process: tokio::process::Child,
    api: String,
}

impl OwnIndexer {
    async fn start(market: &UpMarket, database: &Path) -> Self {
        let listen = format!("127.0.0.1:{}", free_ports()[0]);
        let (contract, deployed_at) = (market.market().to_string(), market.summary["deployedAt"].to_string());
        let mut command = tokio::process::Command::new(&*PROGRAM);
        command
            .args(["indexer", "run", "--rpc", market.url("rpcUrl"), "--market", &contract])
            .args(["--deployed-at", &deployed_at, "--listen", &listen, "--poll-interval", "100", "--database"])
            .arg(database)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let own = Self { process: command.spawn().unwrap(), api: format!("http://{listen}") };
        eventually("the own indexer to be ready", async || {
            let ready = reqwest::get(format!("{}/readyz", own.api)).await.ok()?;
            ready.status().is_success().then_some(())
        })
        .await;
        own
    }

    async fn interrupt(mut self) {
        signal(self.process.id().unwrap(), libc::SIGINT);
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "the indexer ended with {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anyone_can_index_a_market_and_audit_who_does() {
    let mut market = UpMarket::start(6).await;
    let worker = sample_worker();
    market.upload(&worker).await;
    market.deposit("50").await;
    let hash = market.submit(&market.offer(&worker, 2)).await;
    market.matched(hash, 2).await;
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("own.db");
    let own = OwnIndexer::start(&market, &database).await;

    let apis = ["--api", market.url("apiUrl"), "--api", &own.api];
    let audit = [&["audit", "--json", "--rpc", market.url("rpcUrl")], &apis[..]].concat();
    let answer: Value = serde_json::from_slice(&run(wharfage(&audit), true).stdout).unwrap();
    assert_eq!(answer["differenceCount"], 0, "{answer}");
    own.interrupt().await;

    let rebuild = |more: &[&str]| -> Value {
        let path = database.to_str().unwrap();
        let rebuild = [&["indexer", "rebuild", "--json", "--database", path], more].concat();
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
