//! Wrong input is refused with what to do, and changes nothing.

use std::net::TcpListener;

use chain::Key;
use serde_json::{Value, json};

use crate::market::{UpMarket, free_ports, run, sample_worker, sha256, wharfage};

/// The smallest core module: valid Wasm, but no component.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

async fn put_artifact(market: &UpMarket, digest_of: &[u8], bytes: &[u8]) -> (u16, Value) {
    let url = format!("{}/v1/artifacts/{}", market.url("apiUrl"), sha256(digest_of));
    let response = reqwest::Client::new().put(url).body(bytes.to_vec()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn assert_problem(answer: &(u16, Value), status: u16, code: &str, says: &[&str]) {
    let (got, problem) = answer;
    assert_eq!((*got, problem["code"].as_str()), (status, Some(code)), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    for word in says {
        assert!(detail.contains(word), "{detail:?} does not say {word:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_api_refuses_what_is_wrong_and_keeps_nothing_of_it() {
    let market = UpMarket::start(60).await;
    let worker = sample_worker();
    market.upload(&worker).await;
    let good = market.offer(&worker, 1);
    let developer = market.developer();

    // Without money: says what is there and what is needed.
    let poor = market.post("/v1/developer-offers", &market.signed(&good, &developer)).await;
    assert_problem(&poor, 402, "insufficient_balance", &["deposit"]);
    market.deposit("50").await;

    let module = put_artifact(&market, CORE_MODULE, CORE_MODULE).await;
    assert_problem(&module, 422, "not_a_component", &["component", "wasm32-wasip2"]);
    let text = put_artifact(&market, b"hello", b"hello").await;
    assert_problem(&text, 422, "not_a_component", &["component"]);
    let other = put_artifact(&market, b"something else", &worker).await;
    assert_problem(&other, 422, "digest_mismatch", &[&sha256(&worker).to_string()]);
    for bytes in [CORE_MODULE, b"hello", b"something else"] {
        let (status, _) = market.get(&format!("/v1/artifacts/{}", sha256(bytes))).await;
        assert_eq!(status, 404, "nothing is kept of a refused artifact");
    }

    let mut unknown_region = market.signed(&good, &developer);
    unknown_region["offer"]["regions"] = json!(["atlantis"]);
    let refused = market.post("/v1/developer-offers", &unknown_region).await;
    assert_problem(&refused, 422, "unknown_region", &["atlantis", "continent"]);

    let stranger = Key::random();
    let refused = market.post("/v1/developer-offers", &market.signed(&good, &stranger)).await;
    let named = good.developer.to_string();
    assert_problem(&refused, 403, "wrong_signer", &[&stranger.address().to_string(), &named]);

    let mut other_chain = market.signed(&good, &developer);
    other_chain["chainId"] = json!(1);
    let refused = market.post("/v1/developer-offers", &other_chain).await;
    assert_problem(&refused, 409, "chain_id_mismatch", &["31337"]);

    let hash = market.reader.domain().developer_offer_hash(&good);
    let (status, _) = market.get(&format!("/v1/developer-offers/{hash}")).await;
    assert_eq!(status, 404, "nothing is kept of a refused offer");
    assert_eq!(market.live_deals(hash).await, []);

    // The same offer, signed and paid for as it should be, is accepted and matched.
    market.submit(&good).await;
    market.matched(hash, 1).await;
}

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    let [chain, api, gateway, agents] = free_ports();
    let _taken = TcpListener::bind(("127.0.0.1", api)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let ports = [chain, api, gateway, agents].map(|port| port.to_string());
    let mut command =
        wharfage(&["up", "--chain-port", &ports[0], "--api-port", &ports[1], "--gateway-port", &ports[2]]);
    command.args(["--agent-port", &ports[3], "--data-dir"]).arg(scratch.path());
    let stderr = String::from_utf8(run(command, false).stderr).unwrap();
    assert!(stderr.contains(&format!("port {api} is taken")) && stderr.contains("--api-port"), "{stderr}");
    assert!(!scratch.path().join("market.json").exists(), "nothing was begun");
}

#[test]
fn without_anvil_and_npm_it_says_what_to_install() {
    let [chain, api, gateway, agents] = free_ports();
    let scratch = tempfile::tempdir().unwrap();
    let ports = [chain, api, gateway, agents].map(|port| port.to_string());
    let mut command =
        wharfage(&["up", "--chain-port", &ports[0], "--api-port", &ports[1], "--gateway-port", &ports[2]]);
    command.args(["--agent-port", &ports[3], "--data-dir"]).arg(scratch.path().join("data"));
    command.arg("--tools-dir").arg(scratch.path().join("tools"));
    command.env("PATH", scratch.path()).env_remove("WHARFAGE_ANVIL");
    let stderr = String::from_utf8(run(command, false).stderr).unwrap();
    assert!(stderr.contains("Node.js") && stderr.contains("getfoundry.sh"), "{stderr}");
}

#[test]
fn a_missing_worker_is_named() {
    let output = run(wharfage(&["demo", "--worker", "no-such-worker.wasm"]), false);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("no-such-worker.wasm"), "{stderr}");
}
