//! Lists as CSV, over a real market.

use std::collections::HashMap;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request},
};
use chain::calls;
use common::{deal::DealRef, ids::OfferHash, shutdown::Shutdown};
use serde_json::Value;
use tower::ServiceExt;

use crate::{api::ok, scene::Scene};

type Rows = Vec<HashMap<String, String>>;

async fn csv(router: &Router, path: &str, accept: Option<&str>) -> (HeaderMap, Rows) {
    let mut request = Request::get(path);
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "text/csv; charset=utf-8; header=present", "{path}");
    let body = axum::body::to_bytes(response.into_body(), 10_000_000).await.unwrap();
    let rows = csv::Reader::from_reader(&body[..]).deserialize().collect::<Result<Rows, _>>().unwrap();
    (headers, rows)
}

/// Paths of everything in `value` that is neither an object nor null.
fn leaves(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Null => (),
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, found);
            }
        }
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        other => found.push((path.to_owned(), other.to_string())),
    }
}

#[tokio::test]
async fn rows_say_all_that_pages_say() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.market.next_epoch().await;
    scene.bill().await;
    // More rows than a page has, by one transaction.
    let nothing = DealRef {
        developer_offer: OfferHash([9; 32]),
        provider: scene.providers[0].address(),
        provider_offer: OfferHash([8; 32]),
    };
    scene.market.deployer.send(&calls::claim(scene.market.market, &vec![nothing; 600])).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let (router, head) = (indexer.router(), scene.head().await);

    for path in [
        "/v1/provider-offers".to_owned(),
        "/v1/developer-offers".to_owned(),
        format!("/v1/developer-offers/{}/deals", scene.demand_hash()),
        "/v1/deployments".to_owned(),
        "/v1/deals".to_owned(),
        format!("/v1/deals/{}/timeline", scene.deal(0)),
        "/v1/providers".to_owned(),
        "/v1/payments".to_owned(),
        "/v1/attestations".to_owned(),
        "/v1/prices".to_owned(),
        format!("/v1/events?account={}", scene.developer.address()),
    ] {
        let and = if path.contains('?') { '&' } else { '?' };
        let (headers, rows) = csv(&router, &format!("{path}{and}format=csv"), None).await;
        assert_eq!(headers["x-as-of-block"], head.number.to_string());
        assert_eq!(headers["x-as-of-block-hash"], head.hash.to_string());
        assert_eq!(
            (&headers["x-final"], &headers["x-row-limit"]),
            (&"false".parse().unwrap(), &"100000".parse().unwrap())
        );
        let page = ok(&router, &path).await;
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty(), "{path}");
        assert_eq!(rows.len(), items.len(), "{path}");
        for (row, item) in rows.iter().zip(items) {
            let mut said = Vec::new();
            leaves(item, "", &mut said);
            for (at, text) in said {
                match row.get(&at) {
                    Some(cell) => assert_eq!(cell, &text, "{path} {at}"),
                    None => assert_eq!(row.get("json"), Some(&item.to_string()), "{path} has no column {at}"),
                }
            }
        }
    }

    let (headers, all) = csv(&router, "/v1/events?order=desc", Some("text/csv, application/json;q=0.5")).await;
    let file = format!("attachment; filename=\"wharfage-events-{}.csv\"", head.number);
    assert_eq!(headers["content-disposition"], file);
    assert!(all.len() > 600, "{}", all.len());
    // Where a limit cut it, the last row says how to go on.
    let (_, first) = csv(&router, "/v1/events?order=desc&format=csv&limit=501", None).await;
    assert_eq!(first.len(), 501);
    let rest = format!("/v1/events?order=desc&format=csv&cursor={}", first[500]["cursor"]);
    let (_, rest) = csv(&router, &rest, None).await;
    assert_eq!([first, rest].concat(), all);
    // Whoever prefers JSON gets it, and only CSV has long lists.
    let request = Request::get("/v1/events").header("accept", "application/json, text/csv").body(Body::empty());
    let response = router.clone().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn exports_are_limited_in_number() {
    let scene = Scene::new().await;
    let nothing = DealRef {
        developer_offer: OfferHash([9; 32]),
        provider: scene.providers[0].address(),
        provider_offer: OfferHash([8; 32]),
    };
    // More pages than wait for a reader: an export that nobody reads stays open.
    for _ in 0..4 {
        scene.market.deployer.send(&calls::claim(scene.market.market, &vec![nothing; 600])).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let request = || Request::get("/v1/events?format=csv").body(Body::empty()).unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        let response = router.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    let refused = router.clone().oneshot(request()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "10"));
    let body = axum::body::to_bytes(refused.into_body(), 10_000).await.unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["code"], "too_many_exports");
    crate::openapi::fits("/v1/events", 503, "application/problem+json", &problem);
    // Other questions are answered all the same, and whoever leaves makes room.
    ok(&router, "/v1/totals").await;
    open.pop();
    while router.clone().oneshot(request()).await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
}
