//! Several processes of one account on one PostgreSQL database.

use common::ids::OfferHash;
use indexer::Location;
use matcher::MatcherConfig;
use migrations::testing::Postgres;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Running, World, eventually};

/// The account of all of them.
const ACCOUNT: usize = 9;

fn on(url: &str) -> impl FnOnce(&mut MatcherConfig) {
    let database = Some(Location::Postgres(url.to_owned()));
    move |config| config.database = database
}

async fn leads(running: &Running) {
    eventually("it leads", async || (running.metric("leader") == 1).then_some(())).await;
}

/// An offer that this process takes in.
async fn demand(world: &World, at: &Running, nonce: u64) -> OfferHash {
    let mut offer = world.developer_offer(1);
    offer.nonce = nonce;
    let (status, answer) = at.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    world.developer_hash(&offer)
}

async fn is_placed(at: &Running, demand: OfferHash) {
    eventually("it is placed", async || {
        let shown = at.get(&format!("/v1/developer-offers/{demand}")).await;
        if shown["status"] == "placed" { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test]
async fn a_follower_takes_over_from_a_killed_leader_and_nothing_is_lost_or_doubled() {
    let url = Postgres::shared().database().await;
    let mut world = World::start_with(on(&url)).await;
    leads(world.running()).await;
    let second = world.another_matcher(ACCOUNT, &world.data_dir(), on(&url)).await;
    assert_eq!(second.metric("leader"), 0);
    assert_eq!(world.get("/readyz").await, json!({ "ready": true, "matcherRole": "leader" }));
    assert_eq!(second.get("/readyz").await, json!({ "ready": true, "matcherRole": "follower" }));
    world.fund(1, 1_000_000).await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.provider(12, "eu-fr-par1", 80).await;

    // What the follower takes in, the leader places.
    let first = demand(&world, &second, 1).await;
    is_placed(&second, first).await;
    assert_eq!((second.metric("transactions_total"), second.metric("leader")), (0, 0));

    // The leader is killed with a transaction under way and an offer that nobody has looked at.
    world.market.anvil.set_automine(false).await;
    let under_way = demand(&world, world.running(), 2).await;
    eventually("it is sent", async || (world.transactions_in_the_pool().await == 1).then_some(())).await;
    world.kill_matcher();
    let unseen = demand(&world, &second, 3).await;
    leads(&second).await;
    eventually("it says so", async || (second.get("/readyz").await["matcherRole"] == "leader").then_some(())).await;
    world.market.anvil.set_automine(true).await;
    world.block().await;
    for demand in [under_way, unseen] {
        is_placed(&second, demand).await;
    }

    // Its session is cut, as when the server is restarted; a third one stands by. Whoever leads then goes on.
    let third = world.another_matcher(ACCOUNT, &world.data_dir(), on(&url)).await;
    Postgres::shared().disconnect(&url).await;
    let fourth = eventually("the database answers again", async || {
        let mut offer = world.developer_offer(1);
        offer.nonce = 4;
        let (status, answer) = third.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
        if status == StatusCode::ACCEPTED { Ok(world.developer_hash(&offer)) } else { Err(answer) }
    })
    .await;
    is_placed(&third, fourth).await;
    eventually("one leads", async || (second.metric("leader") + third.metric("leader") == 1).then_some(())).await;

    for demand in [first, under_way, unseen, fourth] {
        assert_eq!(world.live_replicas(demand).await, 1);
    }
    for matcher in [&second, &third] {
        assert_eq!((matcher.metric("rejected_total"), matcher.metric("races_total")), (0, 0));
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    let world = World::start().await;
    assert_eq!(world.get("/readyz").await["matcherRole"], "alone");
    let config = MatcherConfig::new(world.data_dir(), "http://127.0.0.1:1");
    let error = world.start_refused(ACCOUNT, config).await;
    assert!(error.to_string().contains("another process matches with"), "{error}");
}
