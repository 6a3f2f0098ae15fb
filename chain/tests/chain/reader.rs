//! Events and views, through a deal's life and through reorgs.

use std::time::Duration;

use chain::{
    ChainError, HeadWatcher, LogCheck, MarketReader, MatchProposal, Window, calls, deal_id,
    testing::{Anvil, TestMarket},
};
use common::{
    deal::DealRef,
    epoch::Epoch,
    event::{MarketBlock, MarketEvent, Reason},
    ids::{Address, DealId, OfferHash, ReceiptRoot},
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
    shutdown::Shutdown,
    state::MarketState,
};

use crate::offers::{atoms, developer_offer, provider_offer};

/// A provider (account 1) with an agent (account 3) and a developer (account 2), both with money, and one deal of theirs.
struct Deal {
    market: TestMarket,
    demand: DeveloperOffer,
    supply: ProviderOffer,
    demand_hash: OfferHash,
    supply_hash: OfferHash,
    id: DealId,
}

async fn open_deal() -> Deal {
    let market = TestMarket::start().await;
    let (provider, developer, agent) = (market.anvil.key(1), market.anvil.key(2), market.anvil.key(3));
    market.fund(&provider, atoms(1_000_000)).await;
    market.fund(&developer, atoms(1_000_000)).await;
    let supply = ProviderOffer { agent: agent.address(), ..provider_offer(provider.address()) };
    let demand = developer_offer(developer.address());
    let domain = market.reader.domain();
    let (supply_hash, demand_hash) = (domain.provider_offer_hash(&supply), domain.developer_offer_hash(&demand));
    let proposal = MatchProposal {
        developer: demand.clone(),
        developer_signature: developer.sign(demand_hash).unwrap(),
        providers: vec![(supply.clone(), provider.sign(supply_hash).unwrap())],
    };
    market.deployer.send(&calls::match_offers(market.market, &[proposal])).await.unwrap();
    let id = deal_id(demand_hash, provider.address());
    Deal { market, demand, supply, demand_hash, supply_hash, id }
}

/// The state that all events together make, checked against the contract's balances.
pub(crate) async fn replay(market: &TestMarket) -> MarketState {
    let head = market.reader.rpc().head().await.unwrap();
    let from = market.reader.terms().deployed_at_block;
    let mut state = MarketState::new(market.reader.terms());
    for block in market.reader.blocks(from, head.number).await.unwrap() {
        state.apply_block(&block).unwrap();
    }
    assert_eq!(state.as_of, Some(head));
    for (account, free) in &state.free {
        assert_eq!(market.reader.free_balance(*account).await.unwrap(), *free);
    }
    for (id, known) in &state.deals {
        assert_eq!(market.reader.deal(*id).await.unwrap().as_ref(), Some(&known.deal));
    }
    let held = market.reader.token_balance(market.market).await.unwrap();
    assert_eq!(state.total_held().unwrap(), held);
    state
}

#[tokio::test]
async fn constants_are_read_and_the_deployment_is_found() {
    let market = TestMarket::start().await;
    market.anvil.mine(20).await;
    let found = MarketReader::connect(market.anvil.rpc(), market.market, None).await.unwrap();
    assert_eq!(found.terms(), market.reader.terms());
    assert_eq!((found.terms().schedule.length, found.terms().attestation_window), (60, 2));
    assert_eq!(found.terms().operator, market.deployer.address());
    assert_eq!(found.current_epoch().await.unwrap(), Epoch(0));
}

#[tokio::test]
async fn an_address_without_a_market_is_refused() {
    let market = TestMarket::start().await;
    for address in [Address([5; 20]), market.token] {
        let error = MarketReader::connect(market.anvil.rpc(), address, None).await.unwrap_err();
        assert!(matches!(error, ChainError::NoMarket { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_deal_is_seen_from_every_side() {
    let Deal { market, demand, supply, demand_hash, supply_hash, id } = open_deal().await;
    let reader = &market.reader;
    let deal = reader.deal(id).await.unwrap().unwrap();
    // Half a CPU and half a GiB of (10,000, 5,000).
    assert_eq!(deal.price_per_epoch, atoms(7_500));
    assert_eq!((deal.start_epoch, deal.end_epoch, deal.paid_until), (Epoch(1), Epoch(11), Epoch(3)));
    assert_eq!((deal.locked, deal.bond), (atoms(15_000), atoms(15_000)));
    assert_eq!(reader.deal(DealId([1; 32])).await.unwrap(), None);

    assert_eq!(reader.developer_offer(demand_hash).await.unwrap(), Some(demand.clone()));
    assert_eq!(reader.provider_offer(supply_hash).await.unwrap(), Some(supply.clone()));
    assert_eq!(reader.developer_offer(supply_hash).await.unwrap(), None);
    assert_eq!(
        reader.used_capacity(supply.provider, supply_hash).await.unwrap(),
        Resources { milli_cpu: 500, memory_mib: 512 }
    );
    assert_eq!(reader.check_fill(&demand, &supply).await.unwrap(), Reason::ReplicasFull);

    let deals = reader.deals_of_agent(supply.agent, 0).await.unwrap();
    let [MarketEvent::DealOpened(opened)] = &deals.iter().map(|placed| &placed.event).collect::<Vec<_>>()[..] else {
        panic!("{deals:?}")
    };
    assert_eq!((opened.deal_id, opened.provider_offer), (id, supply_hash));
    assert_eq!(reader.deals_of_agent(supply.agent, deals[0].block_number + 1).await.unwrap(), []);
    assert_eq!(reader.deals_of_agent(supply.provider, 0).await.unwrap(), []);
}

#[tokio::test]
async fn the_events_of_a_whole_life_add_up_to_the_contract() {
    let Deal { market, supply, demand, supply_hash, demand_hash, id } = open_deal().await;
    let (agent, developer) = (market.sender(3).await, market.sender(2).await);
    let address = market.market;
    replay(&market).await;
    for epoch in 1..=3 {
        market.next_epoch().await;
        if epoch > 1 {
            let receipts = ReceiptRoot([epoch; 32]);
            agent.send(&calls::attest(address, Epoch(u32::from(epoch) - 1), receipts)).await.unwrap();
        }
    }
    assert!(market.reader.is_attested(supply.agent, Epoch(2)).await.unwrap());
    assert!(!market.reader.is_attested(supply.agent, Epoch(3)).await.unwrap());
    let reference = market.reader.deal(id).await.unwrap().unwrap().reference();
    let unknown = DealRef { developer_offer: OfferHash([9; 32]), ..reference };
    let of_another = DealRef { provider_offer: OfferHash([9; 32]), ..reference };
    // One claim of two deals, and one of an offer that the chain does not know.
    agent.send(&calls::claim(address, &[reference, unknown, of_another])).await.unwrap();
    let state = replay(&market).await;
    assert_eq!(state.deals[&id].paid, atoms(15_000));

    developer.send(&calls::fund_deal(address, &reference, atoms(7_500))).await.unwrap();
    developer.send(&calls::cancel_offer(address, demand_hash)).await.unwrap();
    developer.send(&calls::raise_nonce_floor(address, 9)).await.unwrap();
    developer.send(&calls::cancel_deals(address, &[reference])).await.unwrap();
    market.deployer.send(&calls::set_matching_paused(address, true)).await.unwrap();
    let state = replay(&market).await;
    assert!(state.matching_paused && state.cancelled.contains(&(demand.developer, demand_hash)));
    assert!(market.reader.is_cancelled(demand.developer, demand_hash).await.unwrap());
    assert_eq!(market.reader.nonce_floor(demand.developer).await.unwrap(), 9);

    for _ in 0..4 {
        market.next_epoch().await;
    }
    agent.send(&calls::close_deal(address, &reference)).await.unwrap();
    let free = market.reader.free_balance(demand.developer).await.unwrap();
    developer.send(&calls::withdraw(address, free, demand.developer)).await.unwrap();
    let state = replay(&market).await;
    assert_eq!(state.provider_offers[&supply_hash].used, Resources::default());
    assert_eq!(market.reader.token_balance(demand.developer).await.unwrap(), free);
}

#[tokio::test]
async fn blocks_without_events_are_left_out_but_the_last() {
    let market = TestMarket::start().await;
    let posted = market.sender(1).await;
    let offer = provider_offer(posted.address());
    let receipt = posted.send(&calls::post_provider_offer(market.market, &offer)).await.unwrap();
    market.anvil.mine(30).await;
    let head = market.reader.rpc().head().await.unwrap();
    let blocks = market.reader.blocks(0, head.number).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.block.number).collect::<Vec<_>>(), [receipt.block, head.number]);
    assert_eq!(blocks[0].events, receipt.events);
    assert_eq!(blocks[1], MarketBlock { block: head, events: Vec::new() });

    let linked = market.reader.linked_blocks(receipt.block - 1, head.number + 5).await.unwrap();
    assert_eq!(linked.len(), 32, "as many as there are, with and without events");
    assert_eq!((&linked[1], &linked[31]), (&blocks[0], &blocks[1]));
    for check in [LogCheck::Trust, LogCheck::EveryBlock] {
        let window = market.reader.window(receipt.block, head.number, check).await.unwrap();
        assert_eq!(window, Window { parent_hash: linked[0].block.hash, blocks: blocks.clone() });
    }
    let error = market.reader.blocks(0, head.number + 1).await.unwrap_err();
    assert!(matches!(error, ChainError::BlockGone { number } if number == head.number + 1), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_reorg_takes_events_away() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    let call = calls::post_provider_offer(market.market, &provider_offer(sender.address()));
    let receipt = sender.send(&call).await.unwrap();
    market.anvil.mine(1).await;
    let before = market.reader.rpc().head().await.unwrap();
    market.anvil.reorg(2).await;
    let after = market.reader.rpc().head().await.unwrap();
    assert_eq!(after.number, before.number);
    assert_ne!(after.hash, before.hash);
    let linked = market.reader.linked_blocks(receipt.block, after.number).await.unwrap();
    assert!(linked.iter().all(|block| block.events.is_empty()), "{linked:?}");
    let blocks = market.reader.blocks(receipt.block, after.number).await.unwrap();
    assert_eq!(blocks, [MarketBlock { block: after, events: Vec::new() }]);
}

#[tokio::test]
async fn signatures_of_accounts_are_checked() {
    let market = TestMarket::start().await;
    let (key, other) = (market.anvil.key(1), market.anvil.key(2));
    let hash = market.reader.domain().provider_offer_hash(&provider_offer(key.address()));
    let signature = key.sign(hash).unwrap();
    assert!(market.reader.is_valid_signature(key.address(), hash, &signature).await.unwrap());
    assert!(!market.reader.is_valid_signature(other.address(), hash, &signature).await.unwrap());
    // A contract without EIP-1271.
    assert!(!market.reader.is_valid_signature(market.token, hash, &signature).await.unwrap());
    assert!(!market.reader.is_valid_signature(key.address(), hash, &[]).await.unwrap());
}

#[tokio::test]
async fn contracts_sign_by_their_own_rules() {
    let market = TestMarket::start().await;
    let wallet = Address([0xaa; 20]);
    let hash = OfferHash([1; 32]);
    for (code, accepts) in [
        // Returns the magic value of EIP-1271 for whatever it is asked.
        ("0x631626ba7e60e01b60005260206000f3", true),
        // Returns another word.
        ("0x600160005260206000f3", false),
        // Reverts, stops without an answer, runs out of gas.
        ("0x60006000fd", false),
        ("0x00", false),
        ("0x5b600056", false),
    ] {
        market.anvil.call("anvil_setCode", serde_json::json!([wallet, code])).await;
        assert_eq!(market.reader.is_valid_signature(wallet, hash, b"any").await.unwrap(), accepts, "{code}");
    }
}

#[tokio::test]
async fn the_head_is_watched_until_shutdown() {
    let anvil = Anvil::start().await;
    let shutdown = Shutdown::new();
    let mut heads = HeadWatcher::spawn(anvil.rpc(), Duration::from_millis(5), shutdown.clone());
    assert_eq!(heads.wait_for(Option::is_some).await.unwrap().unwrap().number, 0);
    anvil.mine(3).await;
    let head = anvil.rpc().head().await.unwrap();
    assert_eq!(heads.wait_for(|known| known.is_some_and(|known| known.number == 3)).await.unwrap().unwrap(), head);
    anvil.reorg(1).await;
    let seen = heads.wait_for(|known| known.is_some_and(|known| known.hash != head.hash)).await.unwrap().unwrap();
    assert_eq!(seen, anvil.rpc().head().await.unwrap());
    shutdown.cancel();
    while heads.changed().await.is_ok() {}
    assert_eq!(anvil.rpc().finalized().await.unwrap(), Some(0));
}
