//! Price history: what is answered is what the deals' own events and offers add up to, through reorganizations.

use std::collections::BTreeMap;

use common::{
    epoch::Epoch,
    event::MarketEvent,
    money::Atoms,
    region::Region,
    resources::{Prices, Resources},
    state::MarketState,
};
use indexer::{
    prices::{Buckets, MAX_DEALS, PriceBucket, PriceFilter, PriceSpread},
    store::Snapshot,
    view::Order,
};
use proptest::prelude::*;

use crate::{
    history::{Chain, actions, terms},
    pages::all_pages,
    projection::{Database, ENGINES, act, block_on},
};

/// A deal as its event and the offers say: epoch, region, size, asks, price.
type Opened = (Epoch, Region, Resources, Prices, Atoms);

fn opened(chain: &Chain) -> Vec<Opened> {
    let mut state = MarketState::new(&terms());
    let mut found = Vec::new();
    for block in &chain.blocks {
        state.apply_block(block).unwrap();
        let epoch = terms().schedule.epoch_at(block.block.timestamp);
        for placed in &block.events {
            if let MarketEvent::DealOpened(opened) = &placed.event {
                let supply = &state.provider_offers[&opened.provider_offer].offer;
                let size = state.developer_offers[&opened.developer_offer].offer.size;
                found.push((epoch, supply.region, size, supply.prices, opened.price_per_epoch));
            }
        }
    }
    found
}

/// Least, the lower middle, greatest.
fn spread(prices: impl Iterator<Item = Atoms>) -> Option<PriceSpread> {
    let mut prices: Vec<Atoms> = prices.collect();
    prices.sort();
    let middle = prices.len().div_ceil(2).checked_sub(1)?;
    Some(PriceSpread { least: prices[0], median: prices[middle], greatest: prices[prices.len() - 1] })
}

fn expected(opened: &[Opened], filter: &PriceFilter) -> Vec<PriceBucket> {
    let PriceFilter { buckets, region, least, greatest, schedule } = *filter;
    let mut by_bucket: BTreeMap<u32, Vec<&Opened>> = (buckets.first..=buckets.last).map(|n| (n, Vec::new())).collect();
    for deal in opened {
        let (epoch, place, size, ..) = deal;
        let fits = (least.milli_cpu..=greatest.milli_cpu).contains(&size.milli_cpu)
            && (least.memory_mib..=greatest.memory_mib).contains(&size.memory_mib);
        if fits && region.is_none_or(|region| place.to_string().starts_with(&region.to_string())) {
            by_bucket.entry(epoch.0 / buckets.width).and_modify(|deals| deals.push(deal));
        }
    }
    let bucket = |(n, deals): (u32, Vec<&Opened>)| PriceBucket {
        from_epoch: Epoch(n * buckets.width),
        to_epoch: Epoch((n + 1) * buckets.width - 1),
        start: schedule.start_of(Epoch(n * buckets.width)),
        deals: deals.len() as u64,
        per_vcpu_epoch: spread(deals.iter().map(|deal| deal.3.per_vcpu_epoch)),
        per_gib_epoch: spread(deals.iter().map(|deal| deal.3.per_gib_epoch)),
        per_replica_epoch: spread(deals.iter().map(|deal| deal.4)),
    };
    by_bucket.into_iter().map(bucket).collect()
}

async fn listed(snapshot: &mut Snapshot, filter: PriceFilter, limit: u32, order: Order) -> Vec<PriceBucket> {
    all_pages(limit, order, async |part| snapshot.prices(filter, part).await).await
}

fn filter(width: u32, (from, to): (u32, u32)) -> PriceFilter {
    let most = Resources { milli_cpu: u32::MAX, memory_mib: u32::MAX };
    let buckets = Buckets::over(width, Epoch(from), Epoch(to)).unwrap();
    let (schedule, least) = (terms().schedule, Resources::default());
    PriceFilter { buckets, schedule, region: None, least, greatest: most }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn prices_are_those_of_the_deals_that_were_opened(actions in actions(), limit in 1..7_u32, width in 1..4_u32) {
        block_on(async {
            let engine = ENGINES[limit as usize % 2];
            let database = Database::new(engine).await;
            let mut chain = Chain::default();
            for action in &actions {
                act(&database.store, &mut chain, action).await;
            }
            let opened = opened(&chain);
            let mut snapshot = database.store.snapshot().await.unwrap();
            // The first block is in epoch 16, and five blocks are an epoch.
            let now = chain.last().map_or(Epoch(16), |last| terms().schedule.epoch_at(last.timestamp));
            let size = Resources { milli_cpu: 200, memory_mib: 128 };
            for (from, to) in [(0, now.0 + 2), (17, now.0.max(17)), (now.0, now.0)] {
                let all = filter(width, (from, to));
                for filter in [
                    all,
                    PriceFilter { region: Some("eu".parse().unwrap()), ..all },
                    PriceFilter { region: Some("eu-fr-par1".parse().unwrap()), ..all },
                    PriceFilter { least: size, ..all },
                    PriceFilter { greatest: size, region: Some("na".parse().unwrap()), ..all },
                ] {
                    let wanted = expected(&opened, &filter);
                    for order in [Order::Asc, Order::Desc] {
                        prop_assert_eq!(&listed(&mut snapshot, filter, limit, order).await, &wanted, "{:?}", engine);
                    }
                }
                let deals = snapshot.deals_opened(all.buckets, all.schedule, MAX_DEALS).await.unwrap();
                let wanted: u64 = expected(&opened, &all).iter().map(|bucket| bucket.deals).sum();
                prop_assert_eq!(deals, wanted);
                prop_assert_eq!(snapshot.deals_opened(all.buckets, all.schedule, 1).await.unwrap(), wanted.min(1));
            }
            Ok(())
        })?;
    }
}
