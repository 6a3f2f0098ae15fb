//! Many offers at once.

use std::collections::{BTreeMap, BTreeSet};

use common::event::MarketEvent;
use reqwest::StatusCode;

use crate::support::{World, eventually};

const DEVELOPERS: usize = 5;
const OFFERS: u64 = 300;

#[tokio::test]
async fn a_burst_clears_in_few_blocks_within_the_gas_budget() {
    let world = World::start().await;
    let mut demands = Vec::new();
    for account in 1..=DEVELOPERS {
        world.fund(account, 1_000_000).await;
    }
    for number in 0..OFFERS {
        let account = 1 + usize::try_from(number).unwrap() % DEVELOPERS;
        let mut offer = world.developer_offer(account);
        offer.nonce = number;
        let (status, answer) = world.post("/v1/developer-offers", &world.signed(&offer, account)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        demands.push(world.developer_hash(&offer));
    }
    world.fund(10, 1_000_000).await;
    world.indexed().await;

    // All of them wait for this one. From here on blocks come when the test says so.
    world.market.anvil.set_automine(false).await;
    let mut supply = world.provider_offer(10, "eu-de-fra1", 70);
    supply.capacity.milli_cpu = 400_000;
    supply.capacity.memory_mib = 400_000;
    let (status, answer) = world.post("/v1/provider-offers", &world.signed_provider(&supply, 10)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    world.has_status(demands[demands.len() - 1], "matching").await;
    let transactions = world.transactions_in_the_pool().await;
    let first = world.market.reader.rpc().head().await.unwrap().number + 1;
    eventually("the pool is empty", async || {
        world.market.anvil.mine(1).await;
        (world.transactions_in_the_pool().await == 0).then_some(())
    })
    .await;

    let events = world.events().await;
    let skipped =
        |event: &&MarketEvent| matches!(event, MarketEvent::FillSkipped { .. } | MarketEvent::MatchSkipped { .. });
    assert_eq!(events.iter().map(|placed| &placed.event).find(skipped), None);
    let opened = events.iter().filter(|placed| matches!(placed.event, MarketEvent::DealOpened(_)));
    let opened: Vec<_> = opened.collect();
    assert_eq!(opened.len(), demands.len());
    let blocks: BTreeSet<u64> = opened.iter().map(|placed| placed.block_number).collect();
    let hashes: BTreeSet<_> = opened.iter().map(|placed| placed.tx_hash).collect();
    assert_eq!(hashes.len(), usize::try_from(transactions).unwrap());
    let sender = world.market.sender(9).await;
    let mut gas = BTreeMap::new();
    for hash in hashes {
        let receipt = sender.receipt(hash).await.unwrap().unwrap();
        assert!(receipt.gas_used <= 10_000_000, "{}", receipt.gas_used);
        *gas.entry(receipt.block).or_insert(0) += receipt.gas_used;
    }
    println!("{OFFERS} demands: {transactions} transactions, gas in each of {} blocks: {gas:?}", blocks.len());
    // What fits into 30 million gas: the blocks follow each other, and all but the last hold two transactions at least.
    assert_eq!(blocks.first().copied(), Some(first));
    assert_eq!(blocks.last().copied(), Some(first + u64::try_from(blocks.len()).unwrap() - 1));
    assert!(blocks.len() <= 3 && transactions <= 6, "{blocks:?}, {transactions} transactions");

    // In the order of acceptance.
    let served: Vec<_> = opened
        .iter()
        .filter_map(|placed| match &placed.event {
            MarketEvent::DealOpened(opened) => Some(opened.developer_offer),
            _ => None,
        })
        .collect();
    assert_eq!(served, demands);
    world.indexed().await;
    world.has_status(demands[demands.len() - 1], "placed").await;
    assert_eq!(world.running().metric("rejected_total"), 0);
}
