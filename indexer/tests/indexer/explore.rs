//! What explorers and auditors ask, over a real market.

use std::path::Path;

use chain::calls;
use common::shutdown::Shutdown;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::{api::ok, scene::Scene};

fn names<'v>(body: &'v Value, field: &str) -> Vec<&'v str> {
    body["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

#[tokio::test]
async fn money_is_followed_from_wallet_to_wallet() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.market.next_epoch().await;
    scene.bill().await;
    let market = scene.market.market;
    scene.developer.send(&calls::cancel_deals(market, &[scene.deal_ref(0).await])).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let (developer, provider) = (scene.developer.address(), scene.providers[0].address());

    let of_deal = ok(&router, &format!("/v1/payments?deal={}", scene.deal(0))).await;
    assert_eq!(names(&of_deal, "kind"), ["lock", "bond", "hosting", "lock", "refund"]);
    let hosting = &of_deal["items"][2];
    assert_eq!(hosting["amount"], json!("1500"));
    assert_eq!((&hosting["from"], &hosting["to"]), (&json!(developer), &json!(provider)));
    let settled = ok(&router, &format!("/v1/events?deal={}&kind=deal_settled", scene.deal(0))).await;
    for field in ["txHash", "blockNumber", "blockHash", "logIndex", "timestamp"] {
        assert_eq!(hosting[field], settled["items"][0][field], "{field}");
    }
    // What a provider got and gave, newest first and in pages of one.
    let mut kinds = Vec::new();
    let mut path = format!("/v1/payments?account={provider}&order=desc&limit=1");
    loop {
        let page = ok(&router, &path).await;
        kinds.extend(names(&page, "kind").into_iter().map(ToOwned::to_owned));
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = format!("/v1/payments?account={provider}&order=desc&limit=1&cursor={next}");
    }
    assert_eq!(kinds, ["hosting", "bond", "deposit"]);
    let paid = ok(&router, "/v1/payments?kind=hosting").await;
    assert_eq!(paid["items"].as_array().unwrap().len(), 2);
    views_say_the_same(&folder.path().join("indexer.db"), &scene).await;
    let deposits = ok(&router, &format!("/v1/payments?kind=deposit&account={developer}")).await;
    assert_eq!(deposits["items"][0]["amount"], json!("10000000"));
}

/// What a person with a SQL prompt is told.
async fn views_say_the_same(database: &Path, scene: &Scene) {
    let mut db = SqliteConnectOptions::new().filename(database).read_only(true).connect().await.unwrap();
    let deal: (String, i64, i64, i64) =
        sqlx::query_as("SELECT state, paid, missing, attested_epochs FROM deal_overview WHERE deal_id = $1")
            .bind(scene.deal(0).to_string())
            .fetch_one(&mut db)
            .await
            .unwrap();
    assert_eq!(deal, ("ending".to_owned(), 1_500, 0, 1));
    let providers: Vec<(i64, i64, i64)> =
        sqlx::query_as("SELECT earned, active_deals, ending_deals FROM provider_overview ORDER BY first_block")
            .fetch_all(&mut db)
            .await
            .unwrap();
    assert_eq!(providers, [(1_500, 0, 1), (1_500, 1, 0)]);
    let accounts =
        "SELECT deposited, received_for_hosting, deals_hosted FROM account_overview ORDER BY deals_hosted, account";
    let accounts: Vec<(i64, i64, i64)> = sqlx::query_as(accounts).fetch_all(&mut db).await.unwrap();
    assert_eq!(accounts, [(10_000_000, 0, 0), (10_000_000, 1_500, 1), (10_000_000, 1_500, 1)]);
    let hosting =
        "SELECT count(*), min(developer) FROM payment_overview WHERE kind = 'hosting' AND tx_hash IS NOT NULL";
    let hosting: (i64, String) = sqlx::query_as(hosting).fetch_one(&mut db).await.unwrap();
    assert_eq!(hosting, (2, scene.developer.address().to_string()));
}

#[tokio::test]
async fn epochs_attestations_and_providers_are_listed() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.market.next_epoch().await;
    scene.bill().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let agents = [scene.providers[0].address(), scene.providers[1].address()];

    let attestations = ok(&router, "/v1/attestations").await;
    let items = attestations["items"].as_array().unwrap();
    assert_eq!(names(&attestations, "agent"), agents.map(|agent| agent.to_string()));
    let epoch = items[0]["epoch"].as_u64().unwrap();
    let logged = ok(&router, "/v1/events?kind=attested&limit=1").await;
    for field in ["txHash", "blockNumber", "receiptRoot", "rollingHash"] {
        assert_eq!(items[0][field], logged["items"][0][field], "{field}");
    }
    for (query, count) in [
        (format!("agent={}", agents[1]), 1),
        (format!("fromEpoch={epoch}&toEpoch={epoch}"), 2),
        (format!("fromEpoch={}", epoch + 1), 0),
        (format!("toEpoch={}", epoch - 1), 0),
    ] {
        let found = ok(&router, &format!("/v1/attestations?{query}")).await;
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{query}");
    }

    let schedule = scene.market.reader.terms().schedule;
    let served = ok(&router, &format!("/v1/epochs/{epoch}")).await;
    let start = schedule.genesis + epoch * u64::from(schedule.length);
    assert_eq!(
        (served["start"].as_u64(), served["end"].as_u64()),
        (Some(start), Some(start + u64::from(schedule.length)))
    );
    assert_eq!((&served["over"], &served["attestations"]), (&json!(true), &json!(2)));
    assert_eq!(served["attestedBy"], json!(agents));
    assert_eq!((&served["hostingPayments"], &served["hostingPaid"]), (&json!(0), &json!("0")));
    let now = ok(&router, &format!("/v1/epochs/{}", epoch + 1)).await;
    assert_eq!((&now["over"], &now["attestations"]), (&json!(false), &json!(0)));
    assert_eq!((&now["hostingPayments"], &now["hostingPaid"]), (&json!(2), &json!("3000")));

    let first = ok(&router, "/v1/providers?limit=1").await;
    assert_eq!(first["items"][0]["provider"], json!(agents[0]));
    assert_eq!(first["items"][0]["deals"], json!({ "active": 1, "ending": 0, "ended": 0 }));
    assert_eq!((&first["items"][0]["earned"], &first["items"][0]["offerCount"]), (&json!("1500"), &json!(1)));
    let next = first["nextCursor"].as_str().unwrap();
    let second = ok(&router, &format!("/v1/providers?limit=1&cursor={next}")).await;
    assert_eq!((&second["items"][0]["provider"], &second["nextCursor"]), (&json!(agents[1]), &Value::Null));
}
