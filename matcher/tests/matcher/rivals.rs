//! Several matchers on one market, each with an account and a database of its own.

use std::collections::{BTreeMap, BTreeSet};

use chain::calls;
use common::{event::MarketEvent, ids::OfferHash};
use reqwest::StatusCode;

use crate::support::{Running, World, eventually};

/// Demands of one wave.
const DEMANDS: u64 = 20;
/// Hosts for so many of them.
const PLACES: u64 = 15;

/// Demands that both matchers know and nobody can host yet.
async fn demand(world: &World, rival: &Running, wave: u64) -> Vec<OfferHash> {
    let mut demands = Vec::new();
    for number in 0..DEMANDS {
        let mut offer = world.developer_offer(1);
        offer.nonce = wave * DEMANDS + number;
        let body = world.signed(&offer, 1);
        for (status, answer) in
            [world.running().post("/v1/developer-offers", &body).await, rival.post("/v1/developer-offers", &body).await]
        {
            assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        }
        demands.push(world.developer_hash(&offer));
    }
    demands
}

/// A provider comes to the chain with room for most of the wave.
async fn supply(world: &World, wave: u64) {
    let mut offer = world.provider_offer(10, "eu-de-fra1", 70);
    offer.nonce = wave;
    offer.capacity.milli_cpu = u32::try_from(PLACES * 1_000).unwrap();
    offer.capacity.memory_mib = u32::try_from(PLACES * 1_024).unwrap();
    let sender = world.market.sender(10).await;
    let call = calls::post_provider_offer(world.market.market, &offer);
    sender.broadcast(&sender.prepare(&call).await.unwrap()).await.unwrap();
    world.block().await;
}

async fn opened(world: &World) -> BTreeMap<OfferHash, usize> {
    let mut opened = BTreeMap::new();
    for placed in world.events().await {
        if let MarketEvent::DealOpened(deal) = placed.event {
            *opened.entry(deal.developer_offer).or_insert(0) += 1;
        }
    }
    opened
}

fn races(world: &World, rival: &Running) -> u64 {
    world.running().metric("races_total") + rival.metric("races_total")
}

#[tokio::test]
async fn two_matchers_lose_one_race_and_then_keep_out_of_each_others_way() {
    let mut world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let rival = world.another_matcher(8, folder.path(), |_| ()).await;
    world.fund(1, 10_000_000).await;
    world.fund(10, 10_000_000).await;
    world.indexed().await;
    world.market.anvil.set_automine(false).await;

    // Both see the same in the same block, and neither sees the other's transaction.
    let mut placed = BTreeSet::new();
    let first = demand(&world, &rival, 0).await;
    supply(&world, 0).await;
    eventually("both have sent", async || (world.transactions_in_the_pool().await == 2).then_some(())).await;
    world.block().await;
    eventually("the loser has counted", async || (races(&world, &rival) > 0).then_some(())).await;
    let places = usize::try_from(PLACES).unwrap();
    placed.extend(first.into_iter().take(places));
    let lost = races(&world, &rival);
    assert!(lost >= PLACES, "{lost}");

    // From now on one is served by the winner alone, which gets the last five of the wave before as well.
    let mut waiting: BTreeSet<OfferHash> = BTreeSet::new();
    for wave in 1..4 {
        waiting.extend(demand(&world, &rival, wave).await);
        supply(&world, wave).await;
        eventually("the winner has sent", async || (world.transactions_in_the_pool().await > 0).then_some(())).await;
        world.block().await;
        let mine = opened(&world).await;
        assert_eq!(mine.values().sum::<usize>(), places * usize::try_from(wave + 1).unwrap());
    }
    world.block().await;
    eventually("nothing is under way", async || (world.transactions_in_the_pool().await == 0).then_some(())).await;
    assert_eq!(races(&world, &rival), lost, "no race after the first");
    let replicas = opened(&world).await;
    assert!(replicas.values().all(|replicas| *replicas == 1), "{replicas:?}");
    assert!(placed.iter().all(|demand| replicas.contains_key(demand)));
    for matcher in [world.running(), &rival] {
        assert_eq!(matcher.metric("rejected_total"), 0);
    }
    println!("races: {lost} of {} fills", replicas.len());

    // The winner is gone: the other steps in when it has waited as long as it does.
    let survivor = if world.running().metric("races_total") > 0 {
        drop(rival);
        None
    } else {
        world.kill_matcher();
        Some(rival)
    };
    let before = replicas.len();
    supply(&world, 4).await;
    eventually("the survivor has served the rest", async || {
        world.block().await;
        (opened(&world).await.len() >= before + places).then_some(())
    })
    .await;
    let survivor = survivor.as_ref().unwrap_or_else(|| world.running());
    assert_eq!((survivor.metric("rejected_total"), survivor.metric("races_total")), (0, lost));
    assert!(opened(&world).await.values().all(|replicas| *replicas == 1));
}
