//! The whole agent on a real chain.

use std::time::Duration;

use chain::calls;
use common::{epoch::Epoch, ids::Digest, money::Atoms, offer::ProviderOffer};
use provider_agent::{AgentError, SignedProviderOffer};

use crate::support::{PRICE, Running, World, digest, eventually, guest};

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_is_hosted_attested_and_claimed_to_its_last_epoch() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    assert_eq!(agent.problem(&format!("/d/{}/", Digest::ZERO)).await, (404, "unknown_deal".to_owned()));
    let id = world.open_deal(1, 3, 2).await;
    agent.until_state(id, "ready").await;

    let response = agent.get(&format!("/d/{id}/a/b?c=d")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-wharfage-deal"], id.to_string());
    assert_eq!(response.headers()["x-wharfage-region"], "eu-de-fra1");
    assert!(response.text().await.unwrap().contains("/a/b?c=d"));
    assert_eq!(agent.problem(&format!("/d/{id}/trap")).await, (502, "worker_trapped".to_owned()));

    let deal = world.deal(id).await;
    let price = deal.price_per_epoch.get();
    assert_eq!(price, PRICE);
    let (start, end) = (deal.start_epoch, deal.end_epoch);
    for served in 0..3 {
        world.market.next_epoch().await;
        world.until_paid(price * served).await;
    }
    world.market.next_epoch().await;
    world.until_paid(price * 3).await;
    assert_eq!(world.attestations().await, [start, start.plus(1), start.plus(2)]);
    assert_eq!(world.deal(id).await.settled_until, end);

    agent.until_state(id, "stopped").await;
    assert_eq!(agent.problem(&format!("/d/{id}/")).await, (410, "deal_ended".to_owned()));
    assert_eq!(agent.get("/readyz").await.status(), 200);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_it_goes_on_without_a_second_download_or_attestation() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    let price = world.deal(id).await.price_per_epoch.get();
    world.market.next_epoch().await;
    agent.text(&format!("/d/{id}/")).await;
    world.market.next_epoch().await;
    world.until_paid(price).await;
    assert_eq!(world.store.served(), 1);
    agent.kill().await;

    let agent = world.start().await;
    agent.until_state(id, "ready").await;
    assert!(agent.text(&format!("/d/{id}/")).await.contains("Hello"));
    assert_eq!(world.store.served(), 1, "the artifact was kept");
    world.market.next_epoch().await;
    world.until_paid(price * 2).await;
    let start = world.deal(id).await.start_epoch;
    assert_eq!(world.attestations().await, [start, start.plus(1)]);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_recording_and_mining_loses_and_doubles_nothing() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    world.market.next_epoch().await;
    // Nothing is mined from here on, so that the attestation stays on its way.
    eventually("the agent sees the epoch", || async {
        let epoch = world.market.reader.current_epoch().await.unwrap();
        (agent.metric("agent_epoch").await == f64::from(epoch.0)).then_some(())
    })
    .await;
    world.market.anvil.set_automine(false).await;
    world.market.next_epoch().await;
    eventually("the attestation is sent", || async {
        (agent.metric("agent_transactions_total{kind=\"attest\",outcome=\"sent\"}").await == 1.0).then_some(())
    })
    .await;
    agent.kill().await;

    let agent = world.start().await;
    agent.until_state(id, "ready").await;
    world.market.anvil.mine(1).await;
    world.market.anvil.set_automine(true).await;
    let start = world.deal(id).await.start_epoch;
    // A new block makes the agent look again.
    eventually("paid", || async {
        world.market.anvil.mine(1).await;
        (world.paid().await == PRICE).then_some(())
    })
    .await;
    assert_eq!(world.attestations().await, [start]);
    assert_eq!(agent.metric("agent_transactions_total{kind=\"attest\",outcome=\"sent\"}").await, 0.0);
    assert_eq!(agent.metric("agent_transactions_total{kind=\"attest\",outcome=\"mined\"}").await, 1.0);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_answer_while_the_chain_is_gone_also_after_a_restart() {
    let mut world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    let config = world.config();
    let key = world.agent_key.clone();
    // Ends the chain's process.
    let other = chain::testing::Anvil::start().await;
    drop(std::mem::replace(&mut world.market.anvil, other));

    eventually("the agent notices", || async {
        (agent.metric("agent_chain_reads_total{outcome=\"failed\"}").await >= 2.0).then_some(())
    })
    .await;
    assert!(agent.text(&format!("/d/{id}/")).await.contains("Hello"));
    agent.kill().await;

    let agent = Running::start(config, key).await.unwrap();
    agent.until_state(id, "ready").await;
    assert!(agent.text(&format!("/d/{id}/")).await.contains("Hello"));
    assert_eq!(agent.get("/healthz").await.status(), 200);
    assert_eq!(agent.problem("/readyz").await, (503, "not_ready".to_owned()));
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_money_the_worker_pauses_and_with_money_it_goes_on() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    // Everything but the lock is taken out, which pays two epochs.
    let free = world.market.reader.free_balance(world.developer.address()).await.unwrap();
    let developer = world.market.sender_of(&world.developer).await;
    let market = world.market.market;
    developer.send(&calls::withdraw(market, free, world.developer.address())).await.unwrap();
    for paid in [0, 1, 2] {
        world.market.next_epoch().await;
        world.until_paid(PRICE * paid).await;
    }
    agent.until_state(id, "paused").await;
    assert_eq!(agent.problem(&format!("/d/{id}/")).await, (402, "deal_unfunded".to_owned()));

    let money = Atoms::new(PRICE * 5).unwrap();
    developer.send(&calls::approve(world.market.token, market, money)).await.unwrap();
    developer.send(&calls::deposit(market, money)).await.unwrap();
    // The agent settles the deal by itself, and the deal goes on with the next epoch.
    eventually("funded again", || async { world.deal(id).await.unfunded_since.is_none().then_some(()) }).await;
    agent.until_state(id, "ready").await;
    world.market.next_epoch().await;
    assert!(agent.text(&format!("/d/{id}/")).await.contains("Hello"));
    assert_eq!(world.store.served(), 1, "the module was kept");
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_deal_is_served_to_the_end_of_its_epoch() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    world.market.next_epoch().await;
    let developer = world.market.sender_of(&world.developer).await;
    developer.send(&calls::cancel_deals(world.market.market, &[world.deal(id).await.reference()])).await.unwrap();
    eventually("the agent knows the end", || async {
        let end = world.deal(id).await.end_epoch;
        (agent.state(id).await["endEpoch"] == serde_json::json!(end)).then_some(())
    })
    .await;
    assert!(agent.text(&format!("/d/{id}/")).await.contains("Hello"));
    world.market.next_epoch().await;
    agent.until_state(id, "stopped").await;
    world.until_paid(PRICE).await;
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_another_digest_or_is_no_component_never_runs() {
    let world = World::new(guest("hello"), digest(b"something else")).await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    let status = agent.until_state(id, "backoff").await;
    assert_eq!(status["failure"]["cause"], "digest_mismatch", "{status}");
    assert_eq!(agent.problem(&format!("/d/{id}/")).await, (503, "worker_starting".to_owned()));
    let kept = std::fs::read_dir(world.data_dir.path().join("artifacts")).unwrap().count();
    assert_eq!(kept, 0, "nothing of it is left");
    agent.stop().await.unwrap();

    let text = b"<html>not found</html>".to_vec();
    let named = digest(&text);
    let world = World::new(text, named).await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    let status = agent.until_state(id, "failed").await;
    assert_eq!(status["failure"]["cause"], "not_a_component", "{status}");
    assert_eq!(agent.problem(&format!("/d/{id}/")).await, (503, "worker_failed".to_owned()));
    // Nothing was served, so nothing is attested.
    world.market.next_epoch().await;
    world.market.next_epoch().await;
    eventually("two epochs are seen", || async {
        let epoch = world.market.reader.current_epoch().await.unwrap();
        (agent.metric("agent_epoch").await == f64::from(epoch.0)).then_some(())
    })
    .await;
    assert_eq!(world.attestations().await, [] as [Epoch; 0]);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestation_that_a_reorganisation_took_back_is_sent_again() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    world.market.next_epoch().await;
    world.market.next_epoch().await;
    world.until_paid(PRICE).await;
    eventually("the agent sees that it was paid", || async {
        let settled = agent.state(id).await["settledUntil"].clone();
        (settled == serde_json::json!(world.deal(id).await.settled_until)).then_some(())
    })
    .await;
    // Attestation and claim are in the last two blocks.
    world.market.anvil.reorg(2).await;
    eventually("taken back, then paid again", || async {
        let attested = agent.metric("agent_transactions_total{kind=\"attest\",outcome=\"mined\"}").await;
        (attested == 2.0 && world.paid().await == PRICE).then_some(())
    })
    .await;
    assert_eq!(world.attestations().await, [world.deal(id).await.start_epoch]);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_a_limit_are_told_which() {
    let world = World::with_hello().await;
    let mut config = world.config();
    config.limits.max_header_bytes = 1_024;
    config.limits.max_request_body_bytes = 1_024;
    config.limits.cpu_ms_per_request = 100;
    let agent = Running::start(config, world.agent_key.clone()).await.unwrap();
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("{}/d/{id}{path}", agent.url);
    let large_header = client.get(url("/")).header("x-large", "x".repeat(2_000));
    for (request, status, code, limit) in [
        (large_header, 431, "headers_too_large", "max_header_bytes is 1024"),
        (client.post(url("/echo")).body(vec![0; 2_000]), 413, "body_too_large", "max_request_body_bytes of 1024"),
        (client.get(url("/spin")), 504, "cpu_limit", "cpu_ms_per_request is 100"),
        (client.get(url("/alloc?mib=100")), 502, "memory_limit", "the deal has 67108864"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(!response.headers().contains_key("x-wharfage-deal"));
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["code"], code);
        assert!(problem["detail"].as_str().unwrap().contains(limit), "{problem}");
    }
    // Larger than the server reads at all.
    let response = client.get(url("/")).header("x-huge", "x".repeat(100_000)).send().await;
    assert!(response.map_or(true, |response| response.status() == 431));
    assert_eq!(agent.metric("agent_requests_total{outcome=\"cpu_limit\"}").await, 1.0);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_offer_is_registered_until_the_matcher_has_it() {
    let world = World::with_hello().await;
    let offer = world.provider_offer();
    let hash = world.market.reader.domain().provider_offer_hash(&offer);
    let signature = format!("0x{}", hex::encode(world.provider.sign(hash).unwrap()));
    let (sender, mut received) = tokio::sync::mpsc::channel(8);
    let matcher = axum::Router::new().route(
        "/v1/provider-offers",
        axum::routing::post(move |axum::Json(body): axum::Json<serde_json::Value>| async move {
            sender.send(body).await.unwrap();
            axum::http::StatusCode::ACCEPTED
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = world.config();
    config.matcher_url = Some(format!("http://{}", listener.local_addr().unwrap()));
    config.offer = Some(SignedProviderOffer { offer: offer.clone(), signature: signature.clone() });
    tokio::spawn(async move { axum::serve(listener, matcher).await });

    let wrong_key = Running::start(config.clone(), world.developer.clone()).await.err().unwrap();
    assert!(matches!(wrong_key, AgentError::OtherKey { .. }));
    let agent = Running::start(config, world.agent_key.clone()).await.unwrap();
    let body = received.recv().await.unwrap();
    assert_eq!(body["signature"], signature);
    assert_eq!(body["chainId"], world.market.reader.terms().chain_id);
    assert_eq!(serde_json::from_value::<ProviderOffer>(body["offer"].clone()).unwrap(), offer);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_running_requests_end_and_takes_no_new_ones() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let id = world.open_deal(1, 20, 2).await;
    agent.until_state(id, "ready").await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let stream =
        futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|next| (next, receiver)) });
    let url = format!("{}/d/{id}/echo", agent.url);
    let running = reqwest::Client::new().post(url).body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
    agent.begin_stop();
    eventually("new requests are refused", || async {
        let response = agent.get(&format!("/d/{id}/")).await;
        (response.status() == 503 && response.headers().contains_key("retry-after")).then_some(())
    })
    .await;
    sender.send(Ok(bytes::Bytes::from("to the end"))).await.unwrap();
    drop(sender);
    assert_eq!(running.text().await.unwrap(), "to the end");
    agent.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_at_the_start() {
    let world = World::with_hello().await;
    let agent = world.start().await;
    let start = |config| Running::start(config, world.agent_key.clone());
    assert!(matches!(start(world.config()).await.err().unwrap(), AgentError::InUse { .. }));

    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = world.config();
    config.data_dir = elsewhere.path().to_owned();
    config.listen = agent.url.strip_prefix("http://").unwrap().parse().unwrap();
    let error = start(config.clone()).await.err().unwrap();
    assert!(matches!(error, AgentError::Listen { .. }) && error.to_string().contains("another program"), "{error}");

    config.listen.set_port(0);
    config.market = world.developer.address();
    let ended = tokio::time::timeout(Duration::from_secs(60), start(config).await.unwrap().ended()).await.unwrap();
    let error = ended.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("no Market contract"), "{error:?}");
    agent.stop().await.unwrap();

    // A data folder belongs to one market.
    let other = World::with_hello().await;
    let mut config = other.config();
    config.data_dir = world.data_dir.path().to_owned();
    // The same transactions of the same account make the same address: another contract is needed.
    let (market, _) =
        chain::deploy_market(&other.market.deployer, other.market.token, &deploy_config(&other)).await.unwrap();
    config.market = market;
    let ended = Running::start(config, other.agent_key.clone()).await.unwrap().ended().await;
    assert!(ended.unwrap_err().to_string().contains("use another data_dir"));
}

fn deploy_config(world: &World) -> chain::DeployConfig {
    let terms = world.market.reader.terms();
    chain::DeployConfig {
        epoch_length: terms.schedule.length,
        attestation_window: terms.attestation_window,
        evict_after_missed: terms.evict_after_missed,
        bond_epochs: terms.bond_epochs,
        min_prepaid_epochs: terms.min_prepaid_epochs,
        grace_epochs: terms.grace_epochs,
        notice_epochs: terms.notice_epochs,
        operator: terms.operator,
    }
}
