#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use common::feature::FeatureSet;
use proptest::prelude::*;

use super::*;
use crate::{
    samples::{self, atoms, developer_offer, market, provider_offer, region},
    scan,
    snapshot::Snapshot,
};

fn explain(snapshot: &Snapshot) -> Explanation {
    Engine::of(snapshot).explain(&snapshot.demands[0])
}

fn only_changes(snapshot: &Snapshot) -> Vec<Change> {
    let explanation = explain(snapshot);
    assert!(!explanation.matchable);
    let suggestions = explanation.suggestions.iter();
    suggestions.flat_map(|suggestion| suggestion.changes.clone()).collect()
}

/// Carries a change out on the offer itself, apart from the code under test.
fn carry_out(snapshot: &mut Snapshot, change: &Change) {
    let terms = snapshot.conditions.terms;
    let demand = &mut snapshot.demands[0];
    let offer = &mut demand.offer;
    match change {
        Change::MaxPrice { max_price_per_epoch } => offer.max_price_per_epoch = *max_price_per_epoch,
        Change::AddRegion { region } => offer.regions.push(*region),
        Change::AnyRegion => offer.regions = Vec::new(),
        Change::DropFeatures { features } => offer.features = FeatureSet(offer.features.0 & !features.0),
        Change::Epochs { epochs } => offer.epochs = *epochs,
        Change::MilliCpu { milli_cpu } => offer.size.milli_cpu = *milli_cpu,
        Change::MemoryMib { memory_mib } => offer.size.memory_mib = *memory_mib,
        Change::MinReplicas { min_replicas } => offer.min_replicas = *min_replicas,
        Change::AnyProvider => (offer.allow, offer.deny) = (Vec::new(), Vec::new()),
        Change::Deposit { amount } => {
            let account = offer.developer;
            let free = snapshot.ledger.free(account).checked_add(*amount).unwrap();
            snapshot.ledger.set_free(account, free);
        }
        Change::ValidUntil { valid_until } => offer.valid_until = *valid_until,
        Change::Nonce { nonce } => {
            offer.nonce = *nonce;
            demand.hash = samples::hash(9, 9);
        }
        Change::AnyMatcher => offer.matcher = Address::ZERO,
    }
    let changed = snapshot.demands[0].clone();
    snapshot.demands[0] = Demand::new(changed.hash, changed.offer, Vec::new(), changed.place, &terms);
}

fn planned(snapshot: &Snapshot) -> usize {
    let mut alone = snapshot.clone();
    alone.demands.truncate(1);
    scan::plan(&alone, usize::MAX).fills()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_suggestion_matches_when_it_is_carried_out(market in samples::any_market()) {
        let explanation = explain(&market);
        let before = planned(&market);
        prop_assert_eq!(explanation.matchable, before > 0);
        for suggestion in &explanation.suggestions {
            let mut changed = market.clone();
            for change in &suggestion.changes {
                carry_out(&mut changed, change);
            }
            let placed = planned(&changed);
            prop_assert!(placed > before, "{suggestion:?} places {placed}");
            let live = usize::from(changed.ledger.placement(changed.demands[0].hash).live_replicas);
            prop_assert_eq!(placed + live, suggestion.replicas, "{:?}", suggestion);
        }
    }

    #[test]
    fn a_suggested_number_is_the_least_that_is_enough(market in samples::any_market()) {
        // Promised only where nobody hosts itself.
        let (mut market, developer) = (market.clone(), market.demands[0].offer.developer);
        market.supplies.retain(|supply| supply.offer.provider != developer);
        let explanation = explain(&market);
        let before = planned(&market);
        let goal = explanation.goal_replicas;
        for suggestion in explanation.suggestions.iter().filter(|suggestion| suggestion.changes.len() == 1) {
            let lesser = match suggestion.changes[0].clone() {
                Change::MaxPrice { max_price_per_epoch } => {
                    Change::MaxPrice { max_price_per_epoch: atoms(max_price_per_epoch.get() - 1) }
                }
                Change::MilliCpu { milli_cpu } => Change::MilliCpu { milli_cpu: milli_cpu + 1 },
                Change::MemoryMib { memory_mib } => Change::MemoryMib { memory_mib: memory_mib + 1 },
                Change::Epochs { epochs } => Change::Epochs { epochs: epochs + 1 },
                Change::Deposit { amount } => Change::Deposit { amount: atoms(amount.get() - 1) },
                Change::MinReplicas { min_replicas } => Change::MinReplicas { min_replicas: min_replicas + 1 },
                _ => continue,
            };
            let mut changed = market.clone();
            carry_out(&mut changed, &lesser);
            let live = usize::from(changed.ledger.placement(changed.demands[0].hash).live_replicas);
            let placed = planned(&changed);
            let enough = placed > before && live + placed >= usize::from(goal);
            prop_assert!(!enough, "{lesser:?} is enough already, {suggestion:?}");
        }
    }

    #[test]
    fn where_nothing_is_suggested_nothing_would_help(market in samples::any_market()) {
        let developer = market.demands[0].offer.developer;
        prop_assume!(market.supplies.iter().all(|supply| supply.offer.provider != developer));
        let explanation = explain(&market);
        let demand = &market.demands[0];
        let term_over = [Some(Reason::TermOver), Some(Reason::DeveloperOfferMalformed)].contains(&explanation.blocked);
        let live = usize::from(explanation.live_replicas);
        let wanted = usize::from(demand.offer.replicas);
        if live + explanation.placeable_replicas >= wanted && explanation.blocked.is_none() || term_over {
            return Ok(());
        }
        let mut changed = market.clone();
        let now = market.ledger.placement(demand.hash);
        let mut changes = vec![
            Change::MaxPrice { max_price_per_epoch: Atoms::MAX_PRICE },
            Change::AnyRegion,
            Change::DropFeatures { features: demand.offer.features },
            Change::MilliCpu { milli_cpu: 1 },
            Change::MemoryMib { memory_mib: 1 },
            Change::MinReplicas { min_replicas: 1 },
            Change::AnyProvider,
            Change::Deposit { amount: atoms(1 << 50) },
            Change::ValidUntil { valid_until: samples::TIME + 1 },
            Change::AnyMatcher,
        ];
        let void = [Some(Reason::DeveloperOfferCancelled), Some(Reason::DeveloperNonceTooLow)];
        let is_void = void.contains(&explanation.blocked);
        changes.extend((is_void || now.end_epoch.is_none()).then_some(Change::Epochs { epochs: 1 }));
        changes.extend(is_void.then_some(Change::Nonce { nonce: 100 }));
        changes.iter().for_each(|change| carry_out(&mut changed, change));
        let is_full = live >= wanted;
        let helps = planned(&changed) > planned(&market) && !is_full;
        prop_assert_eq!(!explanation.suggestions.is_empty(), helps, "{:?}", explanation);
    }

    #[test]
    fn the_engine_stays_as_it_is(market in samples::any_market()) {
        let mut engine = Engine::of(&market);
        let before = engine.plan(usize::MAX);
        let explained: Vec<_> = market.demands.iter().map(|demand| engine.explain(demand)).collect();
        let again: Vec<_> = market.demands.iter().map(|demand| engine.explain(demand)).collect();
        prop_assert_eq!(explained, again);
        engine.take_back();
        prop_assert_eq!(engine.plan(usize::MAX), before);
    }

    #[test]
    fn a_demand_is_explained_as_its_turn_finds_the_market(market in samples::any_market()) {
        let mut engine = Engine::of(&market);
        let plan = engine.plan(usize::MAX);
        for planned in &plan.matches {
            let demand = market.demands.iter().find(|demand| demand.hash == planned.demand).unwrap();
            let quoted: Vec<_> = engine.quote(demand).iter().map(|replica| replica.provider_offer).collect();
            let planned: Vec<_> = planned.fills.iter().map(|fill| fill.supply).collect();
            prop_assert_eq!(&quoted, &planned);
            let explanation = engine.explain(demand);
            prop_assert!(explanation.matchable);
            prop_assert_eq!(explanation.placeable_replicas, planned.len());
        }
    }

    #[test]
    fn every_refused_supply_is_counted_once(market in samples::any_market()) {
        let explanation = explain(&market);
        let demand = &market.demands[0];
        let refused = market.supplies.iter().filter(|supply| {
            crate::feasible::pair_is_refused(&market.conditions, &market.ledger, demand, supply).is_err()
        });
        prop_assert_eq!(explanation.reasons.iter().map(|count| count.first).sum::<usize>(), refused.count());
    }
}

#[test]
fn each_obstacle_alone_has_its_own_way_out() {
    let offer = developer_offer;
    let provider = |price| provider_offer(10, price);

    let mut dear = offer();
    dear.max_price_per_epoch = atoms(69);
    let changes = only_changes(&market(vec![dear], vec![provider(70), provider_offer(11, 90)]));
    assert!(changes.contains(&Change::MaxPrice { max_price_per_epoch: atoms(70) }), "{changes:?}");

    let mut elsewhere = offer();
    elsewhere.regions = vec![region("na")];
    let changes = only_changes(&market(vec![elsewhere], vec![provider(70)]));
    assert_eq!(changes, [Change::AddRegion { region: region("eu-de-fra1") }]);

    let mut special = offer();
    special.features = FeatureSet(0b111);
    let mut almost = provider(70);
    almost.features = FeatureSet(0b011);
    let changes = only_changes(&market(vec![special], vec![provider(50), almost]));
    assert_eq!(changes, [Change::DropFeatures { features: FeatureSet(0b100) }]);

    let mut short = provider(70);
    short.max_epochs = 6;
    assert_eq!(only_changes(&market(vec![offer()], vec![short])), [Change::Epochs { epochs: 6 }]);

    let mut large = offer();
    large.size.milli_cpu = 5_000;
    assert_eq!(only_changes(&market(vec![large], vec![provider(70)])), [Change::MilliCpu { milli_cpu: 4_000 }]);

    let mut many = offer();
    (many.min_replicas, many.replicas) = (3, 3);
    assert_eq!(only_changes(&market(vec![many], vec![provider(70)])), [Change::MinReplicas { min_replicas: 1 }]);

    let mut picky = offer();
    picky.deny = vec![samples::account(10)];
    assert_eq!(only_changes(&market(vec![picky], vec![provider(70)])), [Change::AnyProvider]);
}

#[test]
fn the_missing_deposit_is_exact() {
    let mut snapshot = market(vec![developer_offer()], vec![provider_offer(10, 70)]);
    snapshot.ledger.set_free(samples::account(1), atoms(200));
    let changes = only_changes(&snapshot);
    assert!(changes.contains(&Change::Deposit { amount: atoms(10) }), "{changes:?}");
}

#[test]
fn two_obstacles_take_two_changes() {
    let mut wanted = developer_offer();
    wanted.regions = vec![region("na")];
    wanted.max_price_per_epoch = atoms(50);
    let mut small = provider_offer(10, 70);
    small.max_epochs = 12;
    let explanation = explain(&market(vec![wanted], vec![small]));
    let expected =
        [Change::MaxPrice { max_price_per_epoch: atoms(70) }, Change::AddRegion { region: region("eu-de-fra1") }];
    let changes: Vec<_> = explanation.suggestions.iter().map(|suggestion| suggestion.changes.clone()).collect();
    assert!(
        changes.iter().any(|pair| pair.len() == 2 && expected.iter().all(|change| pair.contains(change))),
        "{changes:?}"
    );
    assert!(explanation.summary.contains("region"), "{}", explanation.summary);
}

#[test]
fn an_expired_offer_is_to_be_renewed() {
    let mut wanted = developer_offer();
    wanted.valid_until = samples::TIME - 1;
    let explanation = explain(&market(vec![wanted], vec![provider_offer(10, 70)]));
    assert_eq!(explanation.blocked, Some(Reason::DeveloperOfferExpired));
    assert_eq!(explanation.suggestions[0].changes, [Change::ValidUntil { valid_until: samples::TIME + 86_400 }]);
}

#[test]
fn a_placed_offer_needs_no_suggestion() {
    let explanation = explain(&market(vec![developer_offer()], vec![provider_offer(10, 70)]));
    assert!(explanation.matchable && explanation.suggestions.is_empty());
    assert_eq!(explanation.summary, "1 of 1 missing replicas can be placed now");
}

#[test]
fn a_developer_that_hosts_itself_needs_lock_and_bond() {
    let mut snapshot = market(vec![developer_offer()], vec![provider_offer(10, 90), provider_offer(1, 70)]);
    // Three epochs locked and two bonded.
    snapshot.ledger.set_free(samples::account(1), atoms(300 - 61));
    let changes = only_changes(&snapshot);
    assert!(changes.contains(&Change::Deposit { amount: atoms(5 * 70 - 239) }), "{changes:?}");
    snapshot.ledger.set_free(samples::account(1), atoms(5 * 70));
    assert_eq!(planned(&snapshot), 1);
}
