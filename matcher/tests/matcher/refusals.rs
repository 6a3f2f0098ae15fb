use chain::calls;
use common::{ids::Address, money::Atoms, offer::DeveloperOffer};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{World, atoms};

/// Submits what must be refused.
async fn refused(world: &World, body: &Value, status: u16, code: &str, says: &[&str]) -> Value {
    let (answered, problem) = world.post("/v1/developer-offers", body).await;
    assert_eq!((answered.as_u16(), problem["code"].as_str().unwrap()), (status, code), "{problem}");
    for words in says {
        assert!(problem["detail"].as_str().unwrap().contains(words), "{words:?} is not in {problem}");
    }
    assert_eq!(problem["type"], format!("https://wharfage.dev/errors#{code}"));
    problem
}

fn with(world: &World, change: impl FnOnce(&mut DeveloperOffer)) -> Value {
    let mut offer = world.developer_offer(1);
    change(&mut offer);
    world.signed(&offer, 1)
}

#[tokio::test]
async fn every_wrong_submission_says_what_to_do_and_stores_nothing() {
    let world = World::start().await;
    world.fund(1, 4_000).await;
    let good = world.signed(&world.developer_offer(1), 1);

    let mut other_chain = good.clone();
    other_chain["chainId"] = json!(1);
    refused(&world, &other_chain, 409, "chain_id_mismatch", &["is 1", "31337"]).await;

    let mut nowhere = good.clone();
    nowhere["offer"]["regions"] = json!(["eu-de", "moon"]);
    let problem = refused(&world, &nowhere, 422, "unknown_region", &["moon", "continent"]).await;
    assert_eq!(problem["field"], "offer.regions[1]");

    let mut odd = good.clone();
    odd["offer"]["replicas"] = json!("two");
    let problem = refused(&world, &odd, 422, "invalid_offer", &["replicas"]).await;
    assert_eq!(problem["field"], "offer.replicas");

    let many = with(&world, |offer| offer.replicas = 101);
    let problem = refused(&world, &many, 422, "invalid_offer", &["1 to 100", "101"]).await;
    assert_eq!(problem["field"], "offer.replicas");

    let mut bare = good.clone();
    bare["signature"] = json!("0x1234zz");
    refused(&world, &bare, 422, "invalid_offer", &["hex digits"]).await;
    bare["signature"] = json!("0x1234");
    refused(&world, &bare, 403, "wrong_signer", &["65-byte"]).await;

    let foreign = world.signed(&world.developer_offer(1), 2);
    let (signer, owner) = (world.key(2).address().to_string(), world.key(1).address().to_string());
    refused(&world, &foreign, 403, "wrong_signer", &[&signer, &owner]).await;

    let poor = with(&world, |offer| offer.max_price_per_epoch = atoms(1_001));
    let says = ["0.004000 USDC", "0.004004 USDC", "deposit 0.000004 USDC", "maximum price"];
    refused(&world, &poor, 402, "insufficient_balance", &says).await;

    let expired = with(&world, |offer| offer.valid_until = 1);
    refused(&world, &expired, 422, "offer_expired", &["validUntil is 1"]).await;

    let ours = world.url("/v1/artifacts/");
    let missing = with(&world, |offer| offer.artifact_url = format!("{ours}{}", offer.artifact));
    refused(&world, &missing, 422, "artifact_unknown", &["PUT"]).await;
    let crossed = with(&world, |offer| offer.artifact_url = format!("{ours}0x12"));
    refused(&world, &crossed, 422, "artifact_unknown", &["another artifact"]).await;

    refused(&world, &json!({ "offer": {} }), 422, "invalid_offer", &["developer"]).await;
    let answer = world.client().post(world.url("/v1/developer-offers")).body("{").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let answer = world.client().post(world.url("/v1/developer-offers")).body(vec![b' '; 40_000]).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "body_too_large");

    assert_eq!(world.get("/v1/waiting-offers").await["items"], json!([]));
    let unknown = world.get(&format!("/v1/developer-offers/{}", world.developer_hash(&world.developer_offer(1)))).await;
    assert_eq!(unknown["code"], "offer_unknown");
}

#[tokio::test]
async fn what_its_owner_voided_on_the_chain_is_refused() {
    let world = World::start().await;
    world.fund(1, 4_000).await;
    let sender = world.market.sender(1).await;
    let cancelled = world.developer_offer(1);
    sender.send(&calls::cancel_offer(world.market.market, world.developer_hash(&cancelled))).await.unwrap();
    refused(&world, &world.signed(&cancelled, 1), 409, "offer_cancelled", &["another nonce"]).await;

    sender.send(&calls::raise_nonce_floor(world.market.market, 5)).await.unwrap();
    let low = with(&world, |offer| offer.nonce = 4);
    refused(&world, &low, 409, "nonce_too_low", &["nonce is 4", "5 or higher"]).await;
}

#[tokio::test]
async fn an_accounts_share_of_the_line_is_limited() {
    let world = World::start_with(|config| {
        config.max_open_offers_per_account = 2;
        config.max_open_offers = 3;
    })
    .await;
    world.fund(1, 4_000).await;
    world.fund(2, 4_000).await;
    let mut accepted = Vec::new();
    for nonce in 1..=2 {
        let body = with(&world, |offer| offer.nonce = nonce);
        let (status, answer) = world.post("/v1/developer-offers", &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        accepted.push((body, answer));
    }
    let third = with(&world, |offer| offer.nonce = 3);
    refused(&world, &third, 429, "too_many_offers", &["2 open developer offers of one account"]).await;
    // The same once more takes no place.
    let (status, answer) = world.post("/v1/developer-offers", &accepted[0].0).await;
    assert_eq!((status, &answer["sequence"]), (StatusCode::ACCEPTED, &accepted[0].1["sequence"]));

    let other = |nonce| {
        let mut offer = world.developer_offer(2);
        offer.nonce = nonce;
        world.signed(&offer, 2)
    };
    assert_eq!(world.post("/v1/developer-offers", &other(1)).await.0, StatusCode::ACCEPTED);
    refused(&world, &other(2), 429, "too_many_offers", &["3 open developer offers in all"]).await;

    let waiting = world.get("/v1/waiting-offers?limit=2").await;
    let sequences: Vec<_> = waiting["items"].as_array().unwrap().iter().map(|item| &item["sequence"]).collect();
    assert_eq!(sequences, [1, 2]);
    let rest = world.get(&format!("/v1/waiting-offers?after={}", waiting["nextAfter"])).await;
    assert_eq!((&rest["items"][0]["sequence"], &rest["nextAfter"]), (&json!(3), &Value::Null));
    assert_eq!(world.get("/v1/waiting-offers?limit=501").await["code"], "invalid_parameter");
}

#[tokio::test]
async fn providers_are_checked_the_same_way() {
    let world = World::start().await;
    let offer = world.provider_offer(10, "eu-de-fra1", 70);
    let submit = async |body: Value| {
        let (status, problem) = world.post("/v1/provider-offers", &body).await;
        (status.as_u16(), problem["code"].as_str().unwrap().to_owned())
    };
    let expect = |status: u16, code: &str| (status, code.to_owned());
    let mut continent_only = world.signed_provider(&offer, 10);
    continent_only["offer"]["region"] = json!("eu");
    assert_eq!(submit(continent_only).await, expect(422, "invalid_offer"));
    assert_eq!(submit(world.signed_provider(&offer, 11)).await, expect(403, "wrong_signer"));
    assert_eq!(submit(world.signed_provider(&offer, 10)).await, expect(402, "insufficient_balance"));

    let mut for_nothing = offer;
    for_nothing.prices.per_vcpu_epoch = Atoms::ZERO;
    for_nothing.payout = Address([5; 20]);
    let (status, answer) = world.post("/v1/provider-offers", &world.signed_provider(&for_nothing, 10)).await;
    assert_eq!((status, &answer["status"]), (StatusCode::ACCEPTED, &json!("open")));
    let shown = world.get(&format!("/v1/provider-offers/{}", answer["offerHash"].as_str().unwrap())).await;
    assert_eq!((&shown["status"], &shown["offer"]), (&json!("open"), &json!(for_nothing)));
}
