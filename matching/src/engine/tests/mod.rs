#![expect(clippy::arithmetic_side_effects, reason = "tests")]

mod adversaries;
mod bitmaps;
mod follow;
mod histories;
mod shapes;

use common::ids::OfferHash;
use proptest::prelude::*;

use super::*;
use crate::{
    feasible,
    samples::{self, account, atoms, developer_offer, market, provider_offer},
    scan,
    snapshot::Snapshot,
};

/// Who is hosted where and for what, and whether the budget was used up.
type Answer = (Vec<(OfferHash, OfferHash, FillCost)>, bool);

fn scanned(snapshot: &Snapshot, budget: usize) -> Answer {
    let plan = scan::plan(snapshot, budget);
    let fills = plan.matches.iter().flat_map(|planned| {
        planned.fills.iter().map(|fill| (planned.demand.hash, fill.supply.hash, fill.cost)).collect::<Vec<_>>()
    });
    (fills.collect(), plan.budget_exhausted)
}

fn answer(plan: &Plan) -> Answer {
    let fills =
        plan.matches.iter().flat_map(|found| found.fills.iter().map(|fill| (found.demand, fill.supply, fill.cost)));
    (fills.collect(), plan.budget_exhausted)
}

/// The plan, taken back.
fn planned(engine: &mut Engine, budget: usize) -> Answer {
    let plan = engine.plan(budget);
    engine.take_back();
    answer(&plan)
}

/// Many offers of many providers, so that the trees have several levels.
fn large_market() -> impl Strategy<Value = Snapshot> {
    let developers = proptest::collection::vec(samples::any_developer_offer(), 1..40);
    let providers = proptest::collection::vec(samples::any_provider_offer(), 200..1_200);
    let balances = proptest::collection::vec(prop_oneof![1 => 0_u64..400, 3 => 1_000_u64..20_000], 80);
    (developers, providers, balances, 1_usize..60).prop_map(|(developers, mut providers, balances, accounts)| {
        for (at, offer) in providers.iter_mut().enumerate().filter(|(_, offer)| offer.provider != account(1)) {
            offer.provider = account(10 + u8::try_from(at % accounts).unwrap());
        }
        let mut market = market(developers, providers);
        for (number, amount) in balances.into_iter().enumerate() {
            market.ledger.set_free(account(u8::try_from(number).unwrap()), atoms(amount));
        }
        let conditions = market.conditions.clone();
        market.supplies.retain(|supply| feasible::supply_is_void(&conditions, supply).is_none());
        market
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn small_markets_are_planned_as_the_scan_plans_them(market in samples::any_market(), budget in 1_usize..12) {
        let mut engine = Engine::of(&market);
        for budget in [usize::MAX, budget, usize::MAX] {
            prop_assert_eq!(planned(&mut engine, budget), scanned(&market, budget));
        }
    }

    #[test]
    fn kept_pieces_are_the_plan(market in samples::any_market(), budget in 5_usize..9) {
        let whole = scanned(&market, usize::MAX).0;
        let (mut engine, mut pieces) = (Engine::of(&market), Vec::new());
        loop {
            let plan = engine.plan(budget);
            engine.keep();
            prop_assert!(plan.fills() <= budget);
            if plan.fills() == 0 {
                break;
            }
            pieces.extend(answer(&plan).0);
        }
        prop_assert_eq!(whole, pieces);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn large_markets_are_planned_as_the_scan_plans_them(market in large_market(), budget in 1_usize..60) {
        let mut engine = Engine::of(&market);
        for budget in [budget, usize::MAX] {
            prop_assert_eq!(planned(&mut engine, budget), scanned(&market, budget));
        }
    }
}

#[test]
fn a_second_plan_looks_at_nothing() {
    let mut wanted = developer_offer();
    wanted.max_price_per_epoch = atoms(10);
    let snapshot = market(vec![wanted; 50], (10..60).map(|who| provider_offer(who, 70)).collect());
    let mut engine = Engine::of(&snapshot);
    assert_eq!(engine.plan(100).fills(), 0);
    let before = engine.work();
    assert_eq!(before.searches, 50);
    assert_eq!(engine.plan(100).fills(), 0);
    assert_eq!(engine.work(), before);
}

#[test]
fn what_becomes_free_is_offered_to_the_first_that_it_fits_and_to_nobody_behind() {
    let (mut poor, good) = (developer_offer(), developer_offer());
    poor.max_price_per_epoch = atoms(10);
    let demands = [vec![poor; 20], vec![good; 20]].concat();
    let mut full = provider_offer(10, 70);
    full.capacity = full.capacity.saturating_sub(Resources { milli_cpu: 3_000, memory_mib: 0 });
    let mut snapshot = market(demands, vec![full]);
    snapshot.ledger.set_used(samples::hash(2, 0), Resources { milli_cpu: 1_000, memory_mib: 1_024 });
    let mut engine = Engine::of(&snapshot);
    assert_eq!(engine.plan(100).fills(), 0);
    let before = engine.work().searches;
    engine.set_used(samples::hash(2, 0), Resources::default());
    let plan = engine.plan(100);
    assert_eq!(plan.matches.iter().map(|found| found.demand).collect::<Vec<_>>(), [samples::hash(1, 20)]);
    assert_eq!(engine.work().searches, before + 1);
}

#[test]
fn a_deposit_wakes_those_who_lacked_money() {
    let snapshot = {
        let mut snapshot = market(vec![developer_offer()], vec![provider_offer(10, 70)]);
        snapshot.ledger.set_free(account(1), atoms(209));
        snapshot
    };
    let mut engine = Engine::of(&snapshot);
    assert_eq!(engine.plan(100).fills(), 0);
    engine.set_free(account(1), atoms(210));
    assert_eq!(engine.plan(100).fills(), 1);
    engine.take_back();
    engine.set_free(account(1), atoms(209));
    assert_eq!(engine.plan(100).fills(), 0);
}

#[test]
fn of_equal_offers_in_one_place_the_smaller_hash_is_first_however_they_come() {
    for numbers in [[3, 9], [9, 3]] {
        let mut snapshot = market(vec![developer_offer()], [10, 11].map(|who| provider_offer(who, 70)).to_vec());
        for (supply, number) in snapshot.supplies.iter_mut().zip(numbers) {
            (supply.hash, supply.place) = (samples::hash(2, number), common::state::Place::default());
        }
        let plan = Engine::of(&snapshot).plan(100);
        assert_eq!(plan.matches[0].fills[0].supply, samples::hash(2, 3));
    }
}

#[test]
fn a_large_supply_calls_as_many_as_it_has_room_for() {
    let demands = vec![developer_offer(); 40];
    let mut large = provider_offer(10, 70);
    large.capacity = Resources { milli_cpu: developer_offer().size.milli_cpu * 30, memory_mib: 1 << 20 };
    let mut snapshot = market(demands, Vec::new());
    snapshot.ledger.set_free(account(1), atoms(1_000_000));
    let mut engine = Engine::of(&snapshot);
    assert_eq!(engine.plan(100).fills(), 0);
    snapshot.supplies = market(Vec::new(), vec![large]).supplies;
    snapshot.ledger.set_free(account(10), atoms(1_000_000));
    engine.set_free(account(10), atoms(1_000_000));
    engine.set_supply(snapshot.supplies[0].clone());
    for budget in [7, 30, 100] {
        assert_eq!(planned(&mut engine, budget), scanned(&snapshot, budget));
    }
    assert_eq!(engine.plan(100).fills(), 30);
}
