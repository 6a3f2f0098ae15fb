//! The read API over a real market.

use axum::{Router, body::Body, http::Request};
use chain::calls;
use common::shutdown::Shutdown;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{openapi, scene::Scene};

/// Status and JSON body of a GET, which is what the API's description says.
pub(crate) async fn get(router: &Router, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, if status < 400 { "application/json" } else { "application/problem+json" }, "{path}");
    let body = axum::body::to_bytes(response.into_body(), 10_000_000).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    openapi::fits(path, status, &kind, &body);
    (status, body)
}

/// JSON body of a GET that succeeds.
pub(crate) async fn ok(router: &Router, path: &str) -> Value {
    let (status, body) = get(router, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

#[tokio::test]
async fn every_route_answers_for_its_block() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.market.next_epoch().await;
    scene.bill().await;
    scene.developer.send(&calls::cancel_deals(scene.market.market, &[scene.deal_ref(1).await])).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let (router, head) = (indexer.router(), scene.head().await);
    let as_of = json!({ "number": head.number, "hash": head.hash, "timestamp": head.timestamp, "final": false });
    let (offer, deal) = (scene.demand_hash(), scene.deal(0));
    let provider = scene.providers[0].address();
    let paths = [
        "/v1/market".to_owned(),
        "/v1/provider-offers".to_owned(),
        "/v1/developer-offers".to_owned(),
        format!("/v1/developer-offers/{offer}/deals"),
        "/v1/deployments".to_owned(),
        format!("/v1/deployments/{offer}"),
        "/v1/deals".to_owned(),
        format!("/v1/deals/{deal}"),
        format!("/v1/deals/{deal}/timeline"),
        "/v1/providers".to_owned(),
        format!("/v1/providers/{provider}"),
        format!("/v1/balances/{provider}"),
        "/v1/payments".to_owned(),
        "/v1/attestations".to_owned(),
        "/v1/epochs/1".to_owned(),
        "/v1/events".to_owned(),
        "/v1/prices".to_owned(),
        "/v1/totals".to_owned(),
        "/v1/status".to_owned(),
    ];
    for path in &paths {
        assert_eq!(ok(&router, path).await["asOfBlock"], as_of, "{path}");
    }
    deployments_are_what_gateways_need(&scene, &router).await;
    deals_tell_their_story(&scene, &router).await;
    accounts_add_up(&scene, &router).await;
    lists_are_filtered(&scene, &router).await;
    let metrics = common::telemetry::render(&[indexer.metrics()]).unwrap();
    for line in [
        r#"wharfage_indexer_events_total{kind="deal_opened"} 2"#,
        r#"wharfage_indexer_events_total{kind="withdrawn"} 0"#,
        r#"wharfage_indexer_errors_total{source="chain"} 0"#,
        "wharfage_indexer_reorg_depth_blocks_count 0",
        &format!("wharfage_indexer_committed_block {}", head.number),
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line} is missing in:\n{metrics}");
    }
}

async fn deployments_are_what_gateways_need(scene: &Scene, router: &Router) {
    let body = ok(router, "/v1/deployments?live=true").await;
    let deals = scene.supplies.iter().enumerate().map(|(n, supply)| {
        let (state, end) = [("active", 11), ("ending", 3)][n];
        json!({
            "id": scene.deal(n), "provider": supply.provider, "region": supply.region, "endpoint": supply.endpoint,
            "state": state, "unfundedSince": null, "startEpoch": 1, "endEpoch": end, "pricePerEpoch": "1500",
        })
    });
    let wanted = json!({
        "developerOffer": scene.demand_hash(), "developer": scene.demand.developer, "artifact": scene.demand.artifact,
        "artifactVersion": 0, "openedAt": body["items"][0]["openedAt"], "replicas": 2, "liveReplicas": 2, "endEpoch": 11, "cancelled": false, "deals": deals.collect::<Vec<_>>(),
    });
    assert_eq!(body["items"], json!([wanted]));
    assert_eq!(body["nextCursor"], Value::Null);
    let one = ok(router, &format!("/v1/deployments/{}", scene.demand_hash())).await;
    assert_eq!(one["deals"], wanted["deals"]);
}

async fn deals_tell_their_story(scene: &Scene, router: &Router) {
    let deal = ok(router, &format!("/v1/deals/{}", scene.deal(0))).await;
    assert_eq!((deal["state"].as_str(), deal["paid"].as_str()), (Some("active"), Some("1500")));
    assert_eq!(deal["endpoint"], json!(scene.supplies[0].endpoint));
    let timeline = ok(router, &format!("/v1/deals/{}/timeline", scene.deal(1))).await;
    let items = timeline["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|item| item["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["deal_opened", "attested", "deal_settled", "deal_ending"]);
    assert!(items.iter().all(|item| item["txHash"].as_str().unwrap().len() == 66 && item["timestamp"].is_u64()));
    let listed = ok(router, &format!("/v1/developer-offers/{}/deals", scene.demand_hash())).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
}

async fn accounts_add_up(scene: &Scene, router: &Router) {
    let developer = ok(router, &format!("/v1/balances/{}", scene.developer.address())).await;
    let free = scene.market.reader.free_balance(scene.developer.address()).await.unwrap();
    assert_eq!(developer["free"], json!(free));
    assert_eq!((developer["bonded"].as_str(), developer["nonceFloor"].as_str()), (Some("0"), Some("0")));
    let provider = ok(router, &format!("/v1/providers/{}", scene.providers[0].address())).await;
    assert_eq!(provider["deals"], json!({ "active": 1, "ending": 0, "ended": 0 }));
    assert_eq!((provider["bonded"].as_str(), provider["earned"].as_str()), (Some("3000"), Some("1500")));
    assert_eq!(provider["offers"][0]["free"], json!({ "milliCpu": 3_000, "memoryMib": 7_168 }));
    let totals = ok(router, "/v1/totals").await;
    let held = scene.market.reader.token_balance(scene.market.market).await.unwrap();
    assert_eq!(totals["held"], json!(held));
    let market = ok(router, "/v1/market").await;
    assert_eq!((&market["market"], &market["matchingPaused"]), (&json!(scene.market.market), &json!(false)));
    // Accounts never seen hold nothing; providers never seen are none.
    let nobody = "0x00000000000000000000000000000000000000ff";
    assert_eq!(ok(router, &format!("/v1/balances/{nobody}")).await["free"], json!("0"));
    let (status, problem) = get(router, &format!("/v1/providers/{nobody}")).await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("provider_unknown")));
}

async fn lists_are_filtered(scene: &Scene, router: &Router) {
    let (first, second) = (scene.providers[0].address(), scene.providers[1].address());
    for (path, count) in [
        ("/v1/provider-offers?region=eu".to_owned(), 1),
        ("/v1/provider-offers?region=na-us-e".to_owned(), 1),
        ("/v1/provider-offers?region=ap".to_owned(), 0),
        (format!("/v1/provider-offers?provider={second}&region=na"), 1),
        ("/v1/deals?state=ending".to_owned(), 1),
        ("/v1/deals?state=ended".to_owned(), 0),
        (format!("/v1/deals?provider={first}"), 1),
        (format!("/v1/deals?agent={first}&state=active"), 1),
        (format!("/v1/deals?developer={first}"), 0),
        ("/v1/events?limit=2".to_owned(), 2),
        ("/v1/events?kind=attested".to_owned(), 2),
        (format!("/v1/events?deal={}&kind=deal_settled", scene.deal(0)), 1),
        (format!("/v1/events?deal={}&fromBlock=0&toBlock=1", scene.deal(0)), 0),
        (format!("/v1/events?account={first}"), 5),
        (format!("/v1/events?account={first}&kind=attested"), 1),
        (format!("/v1/events?account={}", scene.demand_hash().to_string().split_at(42).0), 0),
        ("/v1/prices?bucketEpochs=10&fromEpoch=0&toEpoch=29".to_owned(), 3),
        ("/v1/events?fromBlock=18446744073709551615".to_owned(), 0),
    ] {
        assert_eq!(ok(router, &path).await["items"].as_array().unwrap().len(), count, "{path}");
    }
    let newest = ok(router, "/v1/events?limit=1&order=desc").await;
    assert_eq!(newest["items"][0]["event"], json!("deal_ending"));
    let next = newest["nextCursor"].as_str().unwrap();
    let before = ok(router, &format!("/v1/events?limit=1&order=desc&cursor={next}")).await;
    assert_eq!(before["items"][0]["event"], json!("deal_settled"));
    for (path, status, code, field) in [
        ("/v1/deals?limit=0", 400, "invalid_parameter", Some("limit")),
        ("/v1/deals?limit=501", 400, "invalid_parameter", Some("limit")),
        ("/v1/deals?cursor=x", 400, "invalid_parameter", Some("cursor")),
        ("/v1/deals?provder=0x1", 400, "invalid_parameter", Some("provder")),
        ("/v1/deals?state=open", 400, "invalid_parameter", Some("state")),
        ("/v1/provider-offers?region=moon", 400, "invalid_parameter", Some("region")),
        ("/v1/events?kind=bought", 400, "invalid_parameter", Some("kind")),
        ("/v1/payments?account=0x1", 400, "invalid_parameter", Some("account")),
        ("/v1/events?account=0x1", 400, "invalid_parameter", Some("account")),
        ("/v1/prices?bucketEpochs=0", 400, "invalid_parameter", Some("bucketEpochs")),
        ("/v1/prices?fromEpoch=0&toEpoch=500", 400, "invalid_parameter", Some("bucketEpochs")),
        ("/v1/prices?fromEpoch=3&toEpoch=2", 400, "invalid_parameter", Some("fromEpoch")),
        ("/v1/prices?minMilliCpu=-1", 400, "invalid_parameter", Some("minMilliCpu")),
        ("/v1/events?format=xml", 400, "invalid_parameter", Some("format")),
        ("/v1/events?format=csv&limit=100001", 400, "invalid_parameter", Some("limit")),
        ("/v1/stream?cursor=now", 400, "invalid_parameter", Some("cursor")),
        ("/v1/epochs/-1", 400, "invalid_id", None),
        ("/v1/epochs/4000000", 404, "epoch_unknown", None),
        ("/v1/deployments?live=maybe", 400, "invalid_parameter", Some("live")),
        ("/v1/deals/0x12", 400, "invalid_id", None),
        (&format!("/v1/deals/{}", scene.demand_hash()), 404, "deal_unknown", None),
        (&format!("/v1/deployments/{}", scene.deal(0)), 404, "offer_unknown", None),
    ] {
        let (got, problem) = get(router, path).await;
        assert_eq!((got, problem["code"].as_str(), problem["field"].as_str()), (status, Some(code), field), "{path}");
    }
}
