//! From names to deployments, and the words for what is not there.

use common::ids::OfferHash;
use serde_json::json;

use crate::support::{deployment, eventually, offer, setup, setup_with};

#[tokio::test]
async fn hosts_and_prefixes_lead_to_the_deployment() {
    let setup = setup().await;
    let label = "11".repeat(20);
    let response = setup.client.get(setup.url("/healthz")).header("host", format!("{label}.run.test:80"));
    // Even a path that is the gateway's own elsewhere is the worker's at its host.
    assert!(response.send().await.unwrap().text().await.unwrap().ends_with("/healthz"));
    assert_eq!(setup.get(setup.url("/healthz")).await.text().await.unwrap(), "ok\n");
    for name in ["11111111", "0x1111111111", &"11".repeat(32)] {
        let response = setup.get(setup.url(&format!("/d/{name}/x"))).await;
        assert_eq!(response.status(), 200, "{name}");
    }
    assert_eq!(setup.get(setup.url("/d/11111111")).await.status(), 200);
}

#[tokio::test]
async fn an_ambiguous_prefix_is_said_to_be_one() {
    let setup = setup().await;
    let mut other = offer(0x11);
    other.0[31] = 0xee;
    setup.list(deployment(other, &[setup.agents[0].url()]), true);
    setup.refreshed("2").await;
    let (problem, _) = setup.problem(setup.client.get(setup.url("/d/11111111/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (409, "ambiguous_deployment"));
    assert!(problem.detail.contains("more digits"), "{}", problem.detail);
    assert_eq!(setup.get(setup.at(other, "/")).await.status(), 200);
    assert_eq!(setup.get(setup.at(offer(0x11), "/")).await.status(), 200);
}

#[tokio::test]
async fn what_does_not_exist_is_said_to_be_unknown() {
    let setup = setup().await;
    for (path, code) in [
        ("/d/22222222/", "unknown_deployment"),
        (&*format!("/d/{}/", offer(0x22)), "unknown_deployment"),
        ("/d/2222/", "malformed_deployment"),
        ("/d/hello-world/", "malformed_deployment"),
        ("/nothing", "not_found"),
    ] {
        let (problem, _) = setup.problem(setup.client.get(setup.url(path))).await;
        assert_eq!((problem.status, problem.code.as_str()), (404, code), "{path}");
    }
    let request = setup.client.get(setup.url("/")).header("host", "www.run.test");
    assert_eq!(setup.problem(request).await.0.code, "malformed_deployment");
}

#[tokio::test]
async fn a_deployment_that_ended_is_gone() {
    let setup = setup().await;
    // Cancelled, and no deal is left.
    let mut ended = deployment(offer(0x22), &[setup.agents[0].url()]);
    ended["cancelled"] = json!(true);
    ended["deals"][0]["state"] = json!("ended");
    setup.list(ended, false);
    // Its term is over though nobody has closed its deal yet.
    let mut over = deployment(offer(0x33), &[setup.agents[0].url()]);
    over["endEpoch"] = json!(7);
    over["deals"][0]["endEpoch"] = json!(7);
    setup.list(over, true);
    setup.indexer.data.lock().unwrap().now = 7 * 60;
    setup.refreshed("2").await;
    for byte in [0x22, 0x33] {
        eventually("it is gone", || async { setup.get(setup.at(offer(byte), "/")).await.status() == 410 }).await;
        let (problem, _) = setup.problem(setup.client.get(setup.at(offer(byte), "/"))).await;
        assert_eq!(problem.code, "deployment_ended");
    }
}

#[tokio::test]
async fn one_that_was_live_is_remembered_by_its_short_name() {
    let setup = setup().await;
    assert_eq!(setup.get(setup.url("/d/11111111/")).await.status(), 200);
    let mut ended = deployment(offer(0x11), &[setup.agents[0].url()]);
    ended["cancelled"] = json!(true);
    ended["deals"] = json!([]);
    setup.list(ended, false);
    setup.refreshed("0").await;
    let (problem, _) = setup.problem(setup.client.get(setup.url("/d/11111111/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (410, "deployment_ended"));
}

#[tokio::test]
async fn a_deployment_without_a_host_asks_for_patience() {
    let setup = setup().await;
    setup.list(deployment(offer(0x22), &[]), false);
    let (problem, headers) = setup.problem(setup.client.get(setup.at(offer(0x22), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "no_healthy_replica"));
    assert_eq!(headers["retry-after"], "1");
}

#[tokio::test]
async fn a_deployment_newer_than_the_table_is_found() {
    // The table is not read again while this test runs.
    let setup = setup_with(|config| config.refresh_interval_ms = 600_000).await;
    setup.list(deployment(offer(0x22), &[setup.agents[0].url()]), true);
    assert_eq!(setup.get(setup.at(offer(0x22), "/")).await.status(), 200);
    // That was a sign that the table is old.
    setup.refreshed("2").await;
}

#[tokio::test]
async fn more_deployments_than_a_page_holds_are_all_routed() {
    let setup = setup().await;
    for byte in 0x20..0x29 {
        setup.list(deployment(offer(byte), &[setup.agents[0].url()]), true);
    }
    setup.refreshed("10").await;
    for byte in 0x20..0x29 {
        assert_eq!(setup.get(setup.url(&format!("/d/{}/", format!("{byte:02x}").repeat(4)))).await.status(), 200);
    }
}

#[tokio::test]
async fn garbage_of_one_stranger_costs_nobody_a_route() {
    let setup = setup().await;
    setup.list(json!({ "developerOffer": "0x22", "deals": 7 }), true);
    setup.list(deployment(offer(0x33), &["gopher://example.org".to_owned(), setup.agents[0].url()]), true);
    setup.refreshed("2").await;
    assert_eq!(setup.metric("wharfage_gateway_unusable_routes").await, "2");
    assert_eq!(setup.get(setup.at(offer(0x11), "/")).await.status(), 200);
    let expected = OfferHash({
        let mut id = [0x33; 32];
        id[31] = 1;
        id
    });
    let response = setup.get(setup.at(offer(0x33), "/")).await;
    assert_eq!(response.headers()["x-wharfage-deal"], expected.to_string());
}
