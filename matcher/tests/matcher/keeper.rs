use common::{
    deal::{DealState, EndCause},
    ids::DealId,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{World, atoms, eventually};

async fn ended(world: &World, deal: &Value) -> EndCause {
    let id: DealId = deal.as_str().unwrap().parse().unwrap();
    eventually("the deal has ended", async || {
        let deal = world.market.reader.deal(id).await.unwrap().unwrap();
        if deal.state == DealState::Ended { deal.cause } else { None }
    })
    .await
}

#[tokio::test]
async fn a_silent_provider_is_evicted_and_its_replica_placed_elsewhere() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.provider(12, "eu-fr-par1", 80).await;
    world.fund(1, 100_000).await;
    let mut offer = world.developer_offer(1);
    offer.prepaid_epochs = 20;
    let hash = world.developer_hash(&offer);
    let (status, answer) = world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let first = world.has_status(hash, "placed").await["deals"][0].clone();

    // Three missed epochs, and the window in which the last of them could be attested.
    for _ in 0..6 {
        world.market.next_epoch().await;
        world.indexed().await;
    }
    assert_eq!(ended(&world, &first).await, EndCause::ProviderEvicted);
    let shown = eventually("there is a second deal", async || {
        let shown = world.get(&format!("/v1/developer-offers/{hash}")).await;
        if shown["deals"].as_array().unwrap().len() == 2 && shown["status"] == "placed" {
            Ok(shown)
        } else {
            Err(shown)
        }
    })
    .await;
    let deals = shown["deals"].as_array().unwrap();
    let second = deals.iter().find(|deal| **deal != first).unwrap();
    let second = world.market.reader.deal(second.as_str().unwrap().parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((second.provider, second.price_per_epoch), (world.key(12).address(), atoms(80)));
}

#[tokio::test]
async fn a_cancelled_deal_is_closed_when_nothing_can_be_attested_any_more() {
    let world = World::start().await;
    world.provider(10, "eu-de-fra1", 70).await;
    world.fund(1, 100_000).await;
    let mut offer = world.developer_offer(1);
    offer.epochs = 2;
    offer.prepaid_epochs = 2;
    let hash = world.developer_hash(&offer);
    world.post("/v1/developer-offers", &world.signed(&offer, 1)).await;
    let deal = world.has_status(hash, "placed").await["deals"][0].clone();
    world.cancel_deal(1, &deal).await;
    for _ in 0..4 {
        world.market.next_epoch().await;
        world.indexed().await;
    }
    assert_eq!(ended(&world, &deal).await, EndCause::DeveloperCancelled);
    assert_eq!(world.get(&format!("/v1/developer-offers/{hash}")).await["deals"], json!([deal]));
    assert_eq!(world.market.reader.free_balance(world.key(1).address()).await.unwrap(), atoms(100_000));
}
