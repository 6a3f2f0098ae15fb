//! Offers that look cheap and cannot host: they must not make every search read all of them. Steps are counted, not time.

use common::{offer::ProviderOffer, resources::Resources};

use super::*;

/// Cheap offers of the adversary, and honest ones at 70 behind them.
const CHEAP: usize = 20_000;
const HONEST: u8 = 20;
const ADVERSARY: u8 = 100;
/// Far less than there are offers.
const FEW_STEPS: u64 = 1_500;

fn cheap(change: impl Fn(usize, &mut ProviderOffer)) -> Vec<ProviderOffer> {
    let one = |at: usize| {
        let mut offer = provider_offer(ADVERSARY, 10);
        change(at, &mut offer);
        offer
    };
    (0..CHEAP).map(one).chain((10..10 + HONEST).map(|who| provider_offer(who, 70))).collect()
}

/// Plans, and says at what ask and with how many steps.
fn first_asks(engine: &mut Engine) -> (Vec<u64>, u64) {
    let before = engine.work().steps();
    let plan = engine.plan(100);
    let asks = plan.matches.iter().flat_map(|found| found.fills.iter().map(|fill| fill.cost.ask.get())).collect();
    engine.take_back();
    (asks, engine.work().steps() - before)
}

fn assert_few_steps(engine: &mut Engine, asks: &[u64]) {
    let (found, steps) = first_asks(engine);
    assert_eq!(found, asks);
    assert!(steps <= FEW_STEPS, "{steps} steps");
}

#[test]
fn offers_without_money_for_their_bonds_are_passed_over_unread() {
    let mut snapshot = market(vec![developer_offer()], cheap(|_, _| ()));
    // One atom less than the bond.
    snapshot.ledger.set_free(account(ADVERSARY), atoms(19));
    assert_few_steps(&mut Engine::of(&snapshot), &[70]);
}

#[test]
fn a_provider_that_loses_its_money_costs_one_search_and_no_more() {
    let snapshot = market(vec![developer_offer()], cheap(|_, _| ()));
    let mut engine = Engine::of(&snapshot);
    assert_few_steps(&mut engine, &[10]);
    engine.set_free(account(ADVERSARY), atoms(19));
    let (found, _) = first_asks(&mut engine);
    assert_eq!(found, [70]);
    assert_few_steps(&mut engine, &[70]);
    engine.set_free(account(ADVERSARY), atoms(20));
    assert_few_steps(&mut engine, &[10]);
}

#[test]
fn offers_with_nothing_left_are_passed_over_unread() {
    let mut snapshot = market(vec![developer_offer()], cheap(|_, _| ()));
    for at in 0..CHEAP {
        // Each has a little left of something.
        let left = if at % 2 == 0 { (3_500, 0) } else { (0, 8_000) };
        snapshot.ledger.set_used(samples::hash(2, at), Resources { milli_cpu: left.0, memory_mib: left.1 });
    }
    assert_few_steps(&mut Engine::of(&snapshot), &[70]);
}

#[test]
fn machines_with_only_cpu_or_only_memory_are_passed_over_unread() {
    let lopsided = cheap(|at, offer| {
        let (milli_cpu, memory_mib) = if at % 2 == 0 { (1 << 20, 100) } else { (100, 1 << 20) };
        offer.capacity = Resources { milli_cpu, memory_mib };
    });
    assert_few_steps(&mut Engine::of(&market(vec![developer_offer()], lopsided)), &[70]);
}

#[test]
fn features_without_a_term_and_a_term_without_features_are_passed_over_unread() {
    let mut wanted = developer_offer();
    wanted.features = common::feature::FeatureSet(3);
    let mut offers = cheap(|at, offer| {
        let (features, max_epochs) = [(3, 7), (1, 0), (2, 0)][at % 3];
        (offer.features, offer.max_epochs) = (common::feature::FeatureSet(features), max_epochs);
    });
    offers.iter_mut().skip(CHEAP).for_each(|offer| offer.features = common::feature::FeatureSet(3));
    assert_few_steps(&mut Engine::of(&market(vec![wanted], offers)), &[70]);
}

#[test]
fn expired_offers_leave_the_index() {
    let snapshot = market(vec![developer_offer()], cheap(|_, offer| offer.valid_until = samples::TIME));
    let mut engine = Engine::of(&snapshot);
    assert_few_steps(&mut engine, &[10]);
    engine.set_time(samples::TIME + 1, snapshot.conditions.epoch);
    assert_eq!(engine.supplies_open(), usize::from(HONEST));
    assert_few_steps(&mut engine, &[70]);
    engine.set_time(samples::TIME, snapshot.conditions.epoch);
    assert_few_steps(&mut engine, &[10]);
}

#[test]
fn offers_of_denied_providers_and_of_present_hosts_are_passed_over_unread() {
    let mut wanted = developer_offer();
    wanted.deny = vec![account(ADVERSARY), account(ADVERSARY + 1)];
    let three = cheap(|at, offer| offer.provider = account(ADVERSARY + u8::try_from(at % 3).unwrap()));
    let snapshot = market(vec![wanted], three);
    let mut engine = Engine::of(&snapshot);
    engine.set_hosted(samples::hash(1, 0), account(ADVERSARY + 2), true);
    assert_few_steps(&mut engine, &[70]);
}

#[test]
fn one_provider_cannot_fill_the_search_of_a_demand_for_several() {
    let mut wanted = developer_offer();
    wanted.replicas = 3;
    wanted.min_replicas = 3;
    assert_few_steps(&mut Engine::of(&market(vec![wanted], cheap(|_, _| ()))), &[10, 70, 70]);
}

#[test]
fn a_developer_that_cannot_pay_its_own_bond_passes_its_own_offers_over() {
    let mut snapshot = market(vec![developer_offer()], cheap(|_, offer| offer.provider = account(1)));
    // Enough for the bond, and for the lock of an honest one, but not for lock and bond at once.
    snapshot.ledger.set_free(account(1), atoms(49));
    snapshot.demands[0].offer.prepaid_epochs = 3;
    let mut honest = snapshot.clone();
    honest.supplies.iter_mut().skip(CHEAP).for_each(|supply| supply.offer.prices.per_vcpu_epoch = atoms(15));
    assert_few_steps(&mut Engine::of(&honest), &[15]);
}

#[test]
fn a_place_with_few_offers_is_found_among_many_elsewhere() {
    let mut wanted = developer_offer();
    wanted.regions = vec![samples::region("eu-fr-par1")];
    let elsewhere = ["eu-de-fra1", "eu-de-ber1", "eu-be-bru1", "na-us-nyc1"];
    let mut offers = cheap(|at, offer| offer.region = samples::region(elsewhere[at % 4]));
    offers.iter_mut().skip(CHEAP).for_each(|offer| offer.region = samples::region("eu-fr-par1"));
    assert_few_steps(&mut Engine::of(&market(vec![wanted], offers)), &[70]);
}

#[test]
fn equal_offers_are_not_all_read_to_find_the_earliest() {
    assert_few_steps(&mut Engine::of(&market(vec![developer_offer()], cheap(|_, _| ()))), &[10]);
}
