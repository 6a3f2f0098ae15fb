//! Replicas and indexers that fail.

use std::sync::Arc;

use axum::http::Method;
use serde_json::json;

use crate::support::{Mood, Setup, deployment, eventually, offer, setup, setup_with};

/// Settings under which nothing but the requests themselves shows that a replica is down.
async fn setup_without_probes() -> Setup {
    setup_with(|config| config.probe_interval_ms = 600_000).await
}

/// Sends requests until `agent` has one of them under way, and returns all their answers.
fn send_until_in_flight(
    setup: &Arc<Setup>,
    method: &Method,
    count: usize,
) -> Vec<tokio::task::JoinHandle<reqwest::Response>> {
    (0..count)
        .map(|_| {
            let (setup, method) = (Arc::clone(setup), method.clone());
            tokio::spawn(async move {
                setup.client.request(method, setup.at(offer(0x11), "/work")).body("work").send().await.unwrap()
            })
        })
        .collect()
}

#[tokio::test]
async fn no_idempotent_request_is_lost_when_a_replica_dies() {
    let mut setup = setup_without_probes().await;
    setup.agents[1].set(Mood::Hangs);
    let dying = setup.agents.pop().unwrap();
    let setup = Arc::new(setup);
    let requests = send_until_in_flight(&setup, &Method::PUT, 40);
    eventually("the dying replica has work", || async { dying.in_flight() >= 5 }).await;
    drop(dying);
    for request in requests {
        assert_eq!(request.await.unwrap().status(), 200);
    }
    // And afterwards: nobody is there any more, not even to refuse.
    for _ in 0..50 {
        assert_eq!(setup.get(setup.at(offer(0x11), "/")).await.status(), 200);
    }
    assert_ne!(setup.metric("wharfage_gateway_retries_total").await, "0");
    assert_ne!(setup.metric("wharfage_gateway_ejections_total").await, "0");
}

#[tokio::test]
async fn a_post_is_not_repeated_after_it_was_sent() {
    let mut setup = setup_without_probes().await;
    setup.agents[1].set(Mood::Hangs);
    let dying = setup.agents.pop().unwrap();
    let setup = Arc::new(setup);
    let requests = send_until_in_flight(&setup, &Method::POST, 20);
    let total = || setup.agents[0].count(Method::POST) + dying.count(Method::POST);
    eventually("all requests have reached a worker", || async { total() == 20 }).await;
    let lost = dying.count(Method::POST);
    assert!(lost > 0);
    drop(dying);
    let mut broken = 0;
    for request in requests {
        let response = request.await.unwrap();
        if response.status() != 200 {
            assert_eq!(response.status(), 502);
            let problem: common::http::Problem = response.json().await.unwrap();
            assert_eq!(problem.code, "replica_broke_off");
            broken += 1;
        }
    }
    assert_eq!(broken, lost);
    assert_eq!(setup.agents[0].count(Method::POST), 20 - lost);
}

#[tokio::test]
async fn a_post_goes_elsewhere_when_no_connection_was_made() {
    let mut setup = setup_without_probes().await;
    drop(setup.agents.pop().unwrap());
    for body in ["small".to_owned(), "x".repeat(100_000)] {
        for _ in 0..20 {
            let response = setup.client.post(setup.at(offer(0x11), "/echo")).body(body.clone()).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.text().await.unwrap(), body);
        }
    }
}

#[tokio::test]
async fn an_agent_that_refuses_is_passed_over_where_that_is_safe() {
    for status in [402, 404, 410, 503] {
        let setup = setup_without_probes().await;
        setup.agents[1].set(Mood::Refuses(status));
        for _ in 0..20 {
            assert_eq!(setup.get(setup.at(offer(0x11), "/")).await.status(), 200, "{status}");
        }
        // If nobody will, the agent's own words reach the client.
        setup.agents[0].set(Mood::Refuses(status));
        let answers: Vec<_> = [setup.problem(setup.client.get(setup.at(offer(0x11), "/"))).await].into();
        assert!(["agent_says_no", "no_healthy_replica"].contains(&answers[0].0.code.as_str()), "{status}");
    }
}

#[tokio::test]
async fn a_post_that_an_agent_refused_is_left_to_the_client() {
    let setup = setup_without_probes().await;
    setup.agents.iter().for_each(|agent| agent.set(Mood::Refuses(410)));
    let (problem, headers) = setup.problem(setup.client.post(setup.at(offer(0x11), "/")).body("work")).await;
    assert_eq!((problem.status, problem.code.as_str()), (410, "agent_says_no"));
    assert_eq!(headers["retry-after"], "7");
    assert_eq!(setup.agents.iter().map(|agent| agent.count(Method::POST)).sum::<usize>(), 1);
}

#[tokio::test]
async fn probes_find_out_who_is_ready() {
    let setup = setup_with(|config| config.probe_interval_ms = 100).await;
    *setup.agents[1].state.status.lock().unwrap() = "starting";
    eventually("the replica is left alone", || async {
        let before = setup.agents[1].count(Method::GET);
        for _ in 0..20 {
            assert_eq!(setup.get(setup.at(offer(0x11), "/")).await.status(), 200);
        }
        before == setup.agents[1].count(Method::GET)
    })
    .await;
    *setup.agents[1].state.status.lock().unwrap() = "ready";
    let before = setup.agents[1].count(Method::GET);
    eventually("it takes part again", || async {
        setup.get(setup.at(offer(0x11), "/")).await;
        setup.agents[1].count(Method::GET) > before
    })
    .await;
}

#[tokio::test]
async fn without_any_replica_the_answer_is_503_with_a_time_to_come_back() {
    let mut setup = setup().await;
    setup.agents.clear();
    let (problem, headers) = setup.problem(setup.client.get(setup.at(offer(0x11), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "no_healthy_replica"));
    assert_eq!(headers["retry-after"], "1");
}

#[tokio::test]
async fn without_money_the_agents_have_the_last_word() {
    let mut setup = setup_without_probes().await;
    let endpoints: Vec<_> = setup.agents.iter().map(crate::support::Agent::url).collect();
    let mut unfunded = deployment(offer(0x22), &endpoints);
    for at in 0..2 {
        unfunded["deals"][at]["unfundedSince"] = json!(0);
    }
    setup.list(unfunded.clone(), true);
    setup.refreshed("2").await;
    // What is on record may be older than the money.
    assert_eq!(setup.get(setup.at(offer(0x22), "/")).await.status(), 200);
    setup.agents.iter().for_each(|agent| agent.set(Mood::Refuses(402)));
    let (problem, _) = setup.problem(setup.client.get(setup.at(offer(0x22), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (402, "agent_says_no"));
    // A funded replica is preferred to the others.
    setup.agents[1].set(Mood::Works);
    unfunded["deals"][1]["unfundedSince"] = json!(1_000);
    setup.list(unfunded, true);
    eventually("the funded replica is known", || async {
        let asked_in_vain = setup.agents[0].count(Method::GET);
        for _ in 0..10 {
            assert_eq!(setup.get(setup.at(offer(0x22), "/")).await.status(), 200);
        }
        asked_in_vain == setup.agents[0].count(Method::GET)
    })
    .await;
    // With nobody there at all, the record is what can be said.
    let mut unfunded = deployment(offer(0x33), &endpoints);
    unfunded["deals"][0]["unfundedSince"] = json!(0);
    unfunded["deals"][1]["unfundedSince"] = json!(0);
    setup.list(unfunded, true);
    setup.refreshed("3").await;
    setup.agents.clear();
    setup.get(setup.at(offer(0x33), "/")).await;
    let (problem, _) = setup.problem(setup.client.get(setup.at(offer(0x33), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (402, "deployment_unfunded"));
}

#[tokio::test]
async fn routes_survive_the_loss_of_the_indexer() {
    let mut setup = setup().await;
    let other = crate::support::Indexer::start(Vec::new()).await;
    drop(std::mem::replace(&mut setup.indexer, other));
    eventually("the loss is noticed", || async {
        setup.metric("wharfage_gateway_refresh_failures_total").await != "0"
    })
    .await;
    for _ in 0..20 {
        assert_eq!(setup.get(setup.at(offer(0x11), "/")).await.status(), 200);
    }
    assert_eq!(setup.status("/readyz").await, 200);
    // What is not known cannot be called unknown now.
    let (problem, _) = setup.problem(setup.client.get(setup.at(offer(0x22), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "indexer_unreachable"));
}

#[tokio::test]
async fn addresses_inside_are_not_dialled_unless_allowed() {
    let setup = setup_with(|config| config.allow_private_endpoints = false).await;
    let (problem, _) = setup.problem(setup.client.get(setup.at(offer(0x11), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "no_healthy_replica"));
    assert_eq!(setup.metric("wharfage_gateway_unusable_routes").await, "2");
    // A name that leads inside is found out when it is resolved.
    let port = setup.agents[0].server.addr.port();
    setup.list(deployment(offer(0x22), &[format!("http://localhost:{port}")]), true);
    setup.refreshed("2").await;
    let (problem, _) = setup.problem(setup.client.get(setup.at(offer(0x22), "/"))).await;
    assert_eq!(problem.code, "no_healthy_replica");
    assert_eq!(setup.agents[0].count(Method::GET), 0);
}
