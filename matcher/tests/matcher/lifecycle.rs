use chain::calls;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{World, atoms, eventually};

#[tokio::test]
async fn a_signed_offer_is_placed_at_the_cheapest_providers_and_shown() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 90).await;
    world.provider(12, "eu-fr-par1", 70).await;
    world.provider(14, "eu-de-ber1", 80).await;
    world.fund(1, 10_000).await;
    let mut offer = world.developer_offer(1);
    offer.replicas = 2;
    offer.min_replicas = 2;
    let hash = world.developer_hash(&offer);
    let (status, answer) = world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    assert_eq!((status, &answer["offerHash"]), (StatusCode::ACCEPTED, &json!(hash)));

    let shown = world.has_status(hash, "placed").await;
    assert_eq!(shown["offer"], json!(offer));
    assert!(shown.get("explanation").is_none());
    let mut hosts = Vec::new();
    for deal in shown["deals"].as_array().unwrap() {
        let deal = world.market.reader.deal(deal.as_str().unwrap().parse().unwrap()).await.unwrap().unwrap();
        hosts.push((deal.price_per_epoch, deal.provider));
    }
    hosts.sort();
    assert_eq!(hosts, [(atoms(70), world.key(12).address()), (atoms(80), world.key(14).address())]);
    assert_eq!(world.market.reader.free_balance(world.key(1).address()).await.unwrap(), atoms(10_000 - 4 * 150));

    // The same submission is answered with how far it is, and places nothing twice.
    let (status, again) = world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    assert_eq!((status, &again["status"]), (StatusCode::ACCEPTED, &json!("placed")));
    world.market.anvil.mine(3).await;
    world.indexed().await;
    let shown = world.get(&format!("/v1/developer-offers/{hash}")).await;
    assert_eq!((shown["deals"].as_array().unwrap().len(), &shown["transactions"][0]["status"]), (2, &json!("mined")));
    assert_eq!(world.get("/v1/waiting-offers").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_offer_waits_with_an_explanation_through_a_crash_until_a_provider_comes() {
    let mut world = World::start().await;
    world.fund(1, 10_000).await;
    let offer = world.developer_offer(1);
    let hash = world.developer_hash(&offer);
    world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    let shown = world.has_status(hash, "waiting").await;
    assert_eq!(shown["explanation"]["summary"], "none of 0 provider offers can host it now");

    world.kill_matcher();
    world.start_matcher(|_| ()).await;
    world.has_status(hash, "waiting").await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.has_status(hash, "placed").await;

    let deal = world.get(&format!("/v1/developer-offers/{hash}")).await["deals"][0].clone();
    let developer = world.market.sender(1).await;
    developer.send(&calls::cancel_offer(world.market.market, hash)).await.unwrap();
    world.cancel_deal(1, &deal).await;
    world.stop_matcher().await;
}

#[tokio::test]
async fn posted_offers_are_matched_like_signed_ones_and_a_cancelled_one_is_not() {
    let world = World::start().await;
    world.fund(1, 10_000).await;
    world.fund(10, 10_000).await;
    let (developer, provider) = (world.market.sender(1).await, world.market.sender(10).await);
    let market = world.market.market;

    let cancelled = world.developer_offer(1);
    world.post("/v1/developer-offers", &world.signed(&cancelled, 1)).await;
    let cancelled = world.developer_hash(&cancelled);
    developer.send(&calls::cancel_offer(market, cancelled)).await.unwrap();
    world.has_status(cancelled, "cancelled").await;

    let mut posted = world.developer_offer(1);
    posted.nonce = 2;
    developer.send(&calls::post_developer_offer(market, &posted)).await.unwrap();
    let offered = world.provider_offer(10, "eu-de-fra1", 70);
    provider.send(&calls::post_provider_offer(market, &offered)).await.unwrap();
    let posted = world.developer_hash(&posted);
    world.has_status(posted, "placed").await;
    assert_eq!(world.get(&format!("/v1/developer-offers/{cancelled}")).await["deals"], json!([]));
}

#[tokio::test]
async fn a_paused_market_is_waited_for() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.fund(1, 10_000).await;
    let market = world.market.market;
    world.market.deployer.send(&calls::set_matching_paused(market, true)).await.unwrap();
    world.indexed().await;
    let offer = world.developer_offer(1);
    let hash = world.developer_hash(&offer);
    world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    let quote = world.post("/v1/quote", &json!({ "offer": offer })).await.1;
    assert_eq!(quote["matchingPaused"], true);
    world.market.anvil.mine(2).await;
    world.indexed().await;
    world.has_status(hash, "waiting").await;
    world.market.deployer.send(&calls::set_matching_paused(market, false)).await.unwrap();
    world.has_status(hash, "placed").await;
}

#[tokio::test]
async fn metrics_exist_from_the_start_and_count() {
    let world = World::start().await;
    let text = || common::telemetry::render(&[world.matcher().metrics()]).unwrap();
    assert!(text().contains("wharfage_matcher_offers_accepted_total{kind=\"provider\"} 0"), "{}", text());
    assert!(text().contains("wharfage_matcher_transactions_total{kind=\"evict\",status=\"mined\"} 0"));
    world.provider(10, "eu-de-fra1", 70).await;
    assert!(text().contains("wharfage_matcher_offers_accepted_total{kind=\"provider\"} 1"));
}

#[tokio::test]
async fn a_match_that_a_reorganization_removed_is_made_again_once() {
    let mut world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.provider(12, "eu-fr-par1", 80).await;
    world.fund(1, 10_000).await;
    let offer = world.developer_offer(1);
    let hash = world.developer_hash(&offer);
    world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    world.has_status(hash, "placed").await;

    // While it looks away, so that it cannot be quicker than the next line.
    world.stop_matcher().await;
    world.market.anvil.reorg(1).await;
    assert_eq!(world.live_replicas(hash).await, 0);
    world.start_matcher(|_| ()).await;
    eventually("the match is on the chain again", async || {
        // What a reorganization put back into its pool, this node mines only with the next block.
        world.market.anvil.mine(1).await;
        (world.live_replicas(hash).await == 1).then_some(())
    })
    .await;
    world.indexed().await;
    let shown = world.has_status(hash, "placed").await;
    assert_eq!(shown["deals"].as_array().unwrap().len(), 1);
    assert_eq!(world.market.reader.free_balance(world.key(1).address()).await.unwrap(), atoms(10_000 - 4 * 70));
}
