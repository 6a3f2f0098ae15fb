use common::ids::Address;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{World, atoms};

async fn ask(world: &World, path: &str, offer: &impl serde::Serialize) -> Value {
    let (status, answer) = world.post(path, &json!({ "offer": offer })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

#[tokio::test]
async fn a_draft_is_quoted_at_the_asks_and_explained_when_it_finds_no_host() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    let dear = world.provider(12, "na-us-nyc1", 90).await;

    let mut draft = world.developer_offer(1);
    // Nobody yet: money is left out of the question.
    draft.developer = Address::ZERO;
    draft.replicas = 2;
    draft.min_replicas = 2;
    let quote = ask(&world, "/v1/quote", &draft).await;
    assert_eq!(
        (&quote["matchable"], &quote["pricePerEpoch"], &quote["lock"]),
        (&json!(true), &json!("160"), &json!("640"))
    );
    assert_eq!(quote["replicas"][1]["provider"], dear.provider.to_string());
    assert_eq!(quote["replicas"][1]["region"], "na-us-nyc1");
    assert_eq!((&quote["replicas"][1]["ask"], &quote["replicas"][1]["bond"]), (&json!("90"), &json!("180")));
    assert!(quote.get("explanation").is_none(), "{quote}");

    draft.regions = vec!["eu".parse().unwrap()];
    let quote = ask(&world, "/v1/quote", &draft).await;
    assert_eq!((&quote["matchable"], &quote["replicas"]), (&json!(false), &json!([])));
    let changes: Vec<_> =
        quote["explanation"]["suggestions"].as_array().unwrap().iter().map(|s| &s["changes"][0]).collect();
    assert!(changes.contains(&&json!({ "kind": "min_replicas", "minReplicas": 1 })), "{changes:?}");
    assert!(changes.contains(&&json!({ "kind": "add_region", "region": "na-us-nyc1" })), "{changes:?}");

    draft.regions = Vec::new();
    draft.max_price_per_epoch = atoms(69);
    let report = ask(&world, "/v1/explain", &draft).await;
    assert_eq!(report["reasons"][0], json!({ "reason": "price_above_maximum", "first": 2, "failing": 2, "only": 2 }));
    let prices: Vec<_> = report["suggestions"].as_array().unwrap().iter().map(|s| &s["changes"]).collect();
    assert!(prices.contains(&&json!([{ "kind": "max_price", "maxPricePerEpoch": "90" }])), "{report}");
    assert_eq!(report["considered"], 2);
}

#[tokio::test]
async fn the_depth_of_the_market_is_shown_by_place_and_ask() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.provider(12, "na-us-nyc1", 90).await;
    let usual = world.get("/v1/depth").await;
    assert_eq!(usual["sizes"].as_array().unwrap().len(), 3);

    let all = world.get("/v1/depth?milliCpu=1000&memoryMib=1024").await;
    let depth = &all["sizes"][0];
    assert_eq!(depth["total"]["providers"], 2, "{all}");
    assert_eq!((&depth["total"]["steps"][0]["ask"], &depth["total"]["steps"][1]["ask"]), (&json!("70"), &json!("90")));
    let places: Vec<_> = depth["regions"].as_array().unwrap().iter().map(|place| &place["region"]).collect();
    assert_eq!(places, ["eu", "eu-de", "na", "na-us"]);
    let here = world.get("/v1/depth?milliCpu=1000&memoryMib=1024&region=eu&features=wasi:keyvalue").await;
    assert_eq!((&here["sizes"][0]["total"]["offers"], &here["sizes"][0]["regions"]), (&json!(0), &json!([])));

    for (query, field) in [
        ("milliCpu=1000", "milliCpu"),
        ("milliCpu=0&memoryMib=1", "milliCpu"),
        ("region=atlantis", "region"),
        ("features=teleport", "features"),
        ("epochs=some", "epochs"),
    ] {
        let problem = world.get(&format!("/v1/depth?{query}")).await;
        assert_eq!((&problem["status"], &problem["code"]), (&json!(400), &json!("invalid_parameter")), "{problem}");
        assert_eq!(problem["field"], field, "{problem}");
    }
}

#[tokio::test]
async fn a_named_developers_balance_counts() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.fund(1, 270).await;
    world.indexed().await;
    let report = ask(&world, "/v1/explain", &world.developer_offer(1)).await;
    let deposit = json!([{ "kind": "deposit", "amount": "10" }]);
    let suggestions = report["suggestions"].as_array().unwrap();
    assert!(suggestions.iter().any(|suggestion| suggestion["changes"] == deposit), "{report}");
}

#[tokio::test]
async fn typed_data_is_what_the_matcher_accepts_a_signature_of() {
    let world = World::start().await;
    let offer = world.developer_offer(1);
    let hash = world.developer_hash(&offer).to_string();
    let typed = ask(&world, "/v1/typed-data/developer-offer", &offer).await;
    assert_eq!(typed["offerHash"], hash);
    assert_eq!(typed["typedData"]["primaryType"], "DeveloperOffer");
    assert_eq!(typed["typedData"]["message"]["maxPricePerEpoch"].to_string().trim_matches('"'), "1000");
    assert_eq!(ask(&world, "/v1/validate/developer-offer", &offer).await, json!({ "valid": true, "offerHash": hash }));
    let provider = world.provider_offer(10, "eu-de-fra1", 70);
    let typed = ask(&world, "/v1/typed-data/provider-offer", &provider).await;
    assert_eq!(typed["typedData"]["primaryType"], "ProviderOffer");

    let mut wrong = offer;
    wrong.epochs = 0;
    let (status, problem) = world.post("/v1/validate/developer-offer", &json!({ "offer": wrong })).await;
    assert_eq!((status.as_u16(), &problem["field"]), (422, &json!("offer.epochs")));
    let (status, problem) = world.post("/v1/validate/developer-offer", &json!({ "chainId": 5, "offer": wrong })).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("chain_id_mismatch")));
}
