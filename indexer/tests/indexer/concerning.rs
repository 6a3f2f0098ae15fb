//! The events of an account: what the list finds by indexes, what the stream sends and what the domain defines are one.

use std::collections::BTreeMap;

use common::{
    event::PlacedEvent,
    ids::{Address, DealId},
    parties::{Behind, DealParties},
    state::MarketState,
};
use indexer::{
    projection::rows::OpenedAt,
    store::{EventFilter, Snapshot},
    view::{EventView, Order},
};
use proptest::prelude::*;

use crate::{
    history::{Chain, account, actions, terms},
    pages::all_pages,
    projection::{Database, ENGINES, act, block_on},
};

type Place = (u64, u64);

/// What stands behind an event, by the state right after it.
fn behind(placed: &PlacedEvent, state: &MarketState) -> Behind {
    let known = placed.event.deal_id().and_then(|id| state.deals.get(&id)).map(|known| &known.deal);
    Behind {
        deal: known.map(|deal| DealParties { developer: deal.developer, provider: deal.provider, agent: deal.agent }),
        payout: known.map(|deal| state.provider_offers[&deal.provider_offer].offer.payout),
        developer: placed.event.developers_offer().map(|offer| state.developer_offers[&offer].offer.developer),
    }
}

/// The events of each account, in order, with the deals that they belong to.
fn defined(chain: &Chain, accounts: &[Address]) -> BTreeMap<Address, Vec<(Place, Option<DealId>)>> {
    let mut state = MarketState::new(&terms());
    let mut found: BTreeMap<_, Vec<_>> = accounts.iter().map(|account| (*account, Vec::new())).collect();
    for placed in chain.blocks.iter().flat_map(|block| &block.events) {
        state.apply(placed).unwrap();
        let behind = behind(placed, &state);
        for (account, events) in &mut found {
            if placed.event.concerns(*account, &behind) {
                events.push(((placed.block_number, placed.log_index), placed.event.deal_id()));
            }
        }
    }
    found
}

async fn listed(snapshot: &mut Snapshot, filter: EventFilter, limit: u32, order: Order) -> Vec<EventView> {
    all_pages(limit, order, async |part| snapshot.events(filter, part).await).await
}

fn places(events: &[EventView]) -> Vec<Place> {
    events.iter().map(|event| (event.block_number, event.log_index)).collect()
}

/// Everything that the stream looks at, and what of it it would send to a reader who asked for `account`.
async fn streamed(snapshot: &mut Snapshot, account: Address) -> Vec<Place> {
    let (mut sent, mut after) = (Vec::new(), OpenedAt { block: 0, log_index: 0 });
    loop {
        let happened = snapshot.happened_after(after, 5).await.unwrap();
        let Some(last) = happened.last() else { return sent };
        after = OpenedAt { block: last.event.block_number, log_index: last.event.log_index };
        let concerning = happened.iter().filter(|happened| happened.concerns(account));
        sent.extend(concerning.map(|happened| (happened.event.block_number, happened.event.log_index)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_events_of_an_account_are_those_that_the_domain_defines(actions in actions(), limit in 1..7_u32) {
        block_on(async {
            let engine = ENGINES[limit as usize % 2];
            let database = Database::new(engine).await;
            let mut chain = Chain::default();
            for action in &actions {
                act(&database.store, &mut chain, action).await;
            }
            let mut snapshot = database.store.snapshot().await.unwrap();
            let accounts: Vec<_> = (0..5).map(account).chain([Address([0xee; 20]), Address::ZERO]).collect();
            for (account, events) in defined(&chain, &accounts) {
                let all = EventFilter { account: Some(account), ..EventFilter::default() };
                let wanted: Vec<Place> = events.iter().map(|(place, _)| *place).collect();
                for order in [Order::Asc, Order::Desc] {
                    let found = listed(&mut snapshot, all, limit, order).await;
                    prop_assert_eq!(&places(&found), &wanted, "{:?} {:?}", engine, order);
                    // With another filter it is what both let through.
                    for kind in ["deal_settled", "attested", "claim_skipped"] {
                        let of_kind = EventFilter { kind: Some(kind), ..all };
                        let others = EventFilter { account: None, ..of_kind };
                        let others = places(&listed(&mut snapshot, others, 500, order).await);
                        let wanted: Vec<_> = wanted.iter().filter(|place| others.contains(place)).copied().collect();
                        prop_assert_eq!(places(&listed(&mut snapshot, of_kind, limit, order).await), wanted);
                    }
                    if let Some((_, deal)) = events.iter().rev().find(|(_, deal)| deal.is_some()) {
                        let of_deal = events.iter().filter(|(_, of)| of == deal).map(|(place, _)| *place);
                        let filter = EventFilter { deal: *deal, ..all };
                        let found = listed(&mut snapshot, filter, limit, order).await;
                        prop_assert_eq!(places(&found), of_deal.collect::<Vec<_>>());
                    }
                    let (from, to) = (2, u64::from(limit) + 3);
                    let filter = EventFilter { from_block: Some(from), to_block: Some(to), ..all };
                    let between = wanted.iter().filter(|(block, _)| (from..=to).contains(block)).copied();
                    let found = listed(&mut snapshot, filter, limit, order).await;
                    prop_assert_eq!(places(&found), between.collect::<Vec<_>>());
                }
                prop_assert_eq!(streamed(&mut snapshot, account).await, wanted);
            }
            Ok(())
        })?;
    }
}

/// Deals that are long over and deals far apart are found through windows of blocks of any width.
#[tokio::test]
async fn events_that_lie_far_apart_are_found() {
    for engine in ENGINES {
        let mut chain = Chain::default();
        chain.busy_at(&[1, 5_000, 200_000, 90_000_000]);
        let database = Database::of(&chain, engine).await;
        let mut snapshot = database.store.snapshot().await.unwrap();
        let accounts: Vec<_> = (0..5).map(account).collect();
        let defined = defined(&chain, &accounts);
        assert!(defined.values().any(|events| events.len() > 6), "{defined:?}");
        for (account, events) in defined {
            let filter = EventFilter { account: Some(account), ..EventFilter::default() };
            let wanted: Vec<Place> = events.iter().map(|(place, _)| *place).collect();
            for (limit, order) in [(1, Order::Asc), (2, Order::Desc), (100, Order::Asc), (100, Order::Desc)] {
                assert_eq!(places(&listed(&mut snapshot, filter, limit, order).await), wanted, "{engine:?} {order:?}");
            }
        }
    }
}
