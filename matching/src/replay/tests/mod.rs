//! Histories of honest and of other matchers, judged by the replay and by hand.

#![expect(clippy::arithmetic_side_effects, reason = "tests")]

pub(crate) mod chain;
mod reference;

use common::money::Atoms;
use proptest::{collection::vec, prelude::*, sample::select};

use self::{
    chain::{Act, Chain, Live, Proposal, matcher},
    reference::{Reference, places, said},
};
use super::*;
use crate::{
    samples::{self, account, atoms, developer_offer, hash, provider_offer},
    scan,
};

/// One block.
#[derive(Debug, Clone)]
struct Step {
    /// What is done before the match transaction, and after it.
    acts: (Vec<Act>, Vec<Act>),
    seconds: u64,
    /// Blocks that are taken back before.
    reorganized: usize,
    restart: bool,
    budget: usize,
    trick: Trick,
}

/// What a matcher does with an honest plan.
#[derive(Debug, Clone, Copy)]
enum Trick {
    None,
    /// Forgets a demand and plans without it.
    Skip(usize),
    /// Puts one of its fills elsewhere.
    Replace(usize, usize, usize),
    /// Serves the last first.
    Reverse,
    /// Leaves out a match's first host.
    Fewer(usize),
    /// Sends nothing.
    Sleep,
    /// Sends what it planned in the step before.
    Late,
}

fn act(signed: bool, matchers: Vec<u8>) -> impl Strategy<Value = Act> {
    let who = || select(vec![1_u8, 2, 3, 10, 11, 12, 13, 14, 15, 16]);
    let off_chain = move || if signed { any::<bool>().boxed() } else { Just(false).boxed() };
    let demand = (samples::any_developer_offer(), select(matchers), 0_u64..3, off_chain());
    prop_oneof![
        6 => (samples::any_provider_offer(), off_chain()).prop_map(|(offer, signed)| Act::Supply(Box::new(offer), signed)),
        6 => demand.prop_map(|(mut offer, matcher, fee, signed)| {
            offer.matcher = account(matcher);
            offer.matcher_fee = atoms(fee);
            offer.prepaid_epochs = offer.prepaid_epochs.max(samples::terms().min_prepaid_epochs);
            Act::Demand(Box::new(offer), signed)
        }),
        2 => (who(), 1_u64..3_000).prop_map(|(who, amount)| Act::Deposit(who, amount)),
        2 => (who(), 1_u64..3_000).prop_map(|(who, amount)| Act::Withdraw(who, amount)),
        1 => (any::<bool>(), 0_usize..10).prop_map(|(demand, at)| Act::Cancel(demand, at)),
        1 => (who(), 0_u64..4).prop_map(|(who, floor)| Act::NonceFloor(who, floor)),
        2 => (0_usize..20).prop_map(Act::EndDeal),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Act::Paused),
    ]
}

fn steps(signed: bool, tricks: bool, matchers: &[u8]) -> impl Strategy<Value = Vec<Step>> {
    let trick = if tricks {
        prop_oneof![
            3 => Just(Trick::None),
            2 => (0_usize..6).prop_map(Trick::Skip),
            3 => (0_usize..6, 0_usize..3, 0_usize..8).prop_map(|(at, fill, other)| Trick::Replace(at, fill, other)),
            1 => Just(Trick::Reverse),
            1 => (0_usize..6).prop_map(Trick::Fewer),
            2 => Just(Trick::Sleep),
            1 => Just(Trick::Late),
        ]
        .boxed()
    } else {
        prop_oneof![4 => Just(Trick::None), 1 => Just(Trick::Sleep)].boxed()
    };
    let acts = vec(act(signed, matchers.to_vec()), 0..4);
    let later = vec(act(signed, matchers.to_vec()), 0..2);
    let reorganized = if tricks { Just(0_usize).boxed() } else { prop_oneof![5 => Just(0), 1 => 1_usize..4].boxed() };
    let step = ((acts, later), 0_u64..6, reorganized, any::<bool>(), select(vec![4, 7, usize::MAX]), trick);
    let step = step.prop_map(|(acts, seconds, reorganized, restart, budget, trick)| Step {
        acts,
        seconds,
        reorganized,
        restart,
        budget,
        trick,
    });
    vec(step, 1..24)
}

/// Balances at the beginning.
fn money() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![1 => 0_u64..600, 2 => 2_000_u64..20_000], 10)
}

/// Lives through a history.
fn lived(money: &[u64], steps: Vec<Step>) -> Chain {
    let mut chain = Chain::new(money);
    let mut live = Live::new(&chain);
    let mut planned_before = Vec::new();
    for step in steps {
        if step.reorganized > 0 {
            chain.reorganize(step.reorganized);
        }
        let plan = live.plan(&chain, step.restart, step.budget);
        let sent = tricked(&chain, plan.clone(), step.trick, &planned_before);
        planned_before = plan;
        chain.wait(step.seconds);
        step.acts.0.iter().for_each(|act| chain.act(act));
        chain.execute(&sent);
        step.acts.1.iter().for_each(|act| chain.act(act));
        chain.mine();
    }
    chain
}

fn tricked(chain: &Chain, mut plan: Vec<Proposal>, trick: Trick, before: &[Proposal]) -> Vec<Proposal> {
    match trick {
        Trick::None => plan,
        Trick::Sleep => Vec::new(),
        Trick::Late => before.to_vec(),
        Trick::Reverse => plan.into_iter().rev().collect(),
        Trick::Fewer(at) => {
            if let Some((_, supplies)) = plan.get_mut(at).filter(|(_, supplies)| supplies.len() > 1) {
                supplies.remove(0);
            }
            plan
        }
        Trick::Replace(at, fill, other) => {
            let market = chain.seen();
            let Some((demand, supplies)) = plan.get_mut(at) else { return plan };
            let others = places_all(&market, *demand);
            if let (Some(place), Some(other)) = (supplies.get_mut(fill), others.get(other)) {
                *place = *other;
            }
            plan
        }
        Trick::Skip(at) => {
            let Some((skipped, _)) = plan.get(at) else { return plan };
            let mut market = chain.seen();
            market.demands.iter_mut().filter(|demand| demand.hash == *skipped).for_each(|demand| demand.held = true);
            let plan = scan::plan(&market, usize::MAX);
            let supplies = |found: &scan::PlannedMatch<'_>| found.fills.iter().map(|fill| fill.supply.hash).collect();
            plan.matches.iter().map(|found| (found.demand.hash, supplies(found))).collect()
        }
    }
}

/// Everything that could host the demand.
fn places_all(market: &crate::snapshot::Snapshot, demand: OfferHash) -> Vec<OfferHash> {
    let demand = market.demand(demand).unwrap();
    let fits = |supply: &&crate::snapshot::Supply| {
        crate::feasible::feasible(&market.conditions, &market.ledger, demand, supply).is_ok()
    };
    market.supplies.iter().filter(fits).map(|supply| supply.hash).collect()
}

fn replayed(chain: &Chain, grace: u64, signed: SignedOffers) -> (Vec<JudgedMatch>, Summary) {
    let mut replay = Replay::new(samples::terms(), grace, signed);
    let senders = chain.blocks.iter().flat_map(|block| &block.events).map(|placed| (placed.tx_hash, matcher()));
    let senders = senders.collect();
    let mut judged = Vec::new();
    for block in &chain.blocks {
        judged.extend(replay.block(block, &senders).unwrap());
    }
    assert_eq!(replay.state(), chain.states.last().unwrap());
    (judged, replay.finish())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn what_the_live_engine_sends_is_what_the_replay_chooses(
        money in money(),
        steps in steps(true, false, &[0, 0, 99, 98]),
        grace in 0_u64..4,
    ) {
        let chain = lived(&money, steps);
        let (judged, summary) = replayed(&chain, grace, chain.signed());
        prop_assert_eq!(judged.len(), chain.matched.len());
        for judged in &judged {
            // Whether a plan came before or after what was signed in the same moment, nobody can tell.
            let supplies = chain.supplies.iter().map(|signed| signed.accepted_block);
            let mut accepted = supplies.chain(chain.demands.iter().map(|signed| signed.accepted_block));
            let is_unsure = accepted.any(|block| block + 1 == judged.block);
            for fill in &judged.fills {
                let is_right = fill.verdict == Verdict::AsEngine || (is_unsure && fill.verdict == Verdict::Race);
                prop_assert!(is_right, "{judged:?}");
            }
        }
        prop_assert_eq!(summary.unfair(), 0);
        // Whoever does not know when offers were accepted accuses nobody either.
        let (_, summary) = replayed(&chain, grace, SignedOffers::default());
        prop_assert_eq!(summary.unfair(), 0);
    }

    #[test]
    fn whatever_a_matcher_does_is_judged_as_by_hand(
        money in money(),
        steps in steps(true, true, &[0, 0, 99]),
        grace in 0_u64..4,
    ) {
        let chain = lived(&money, steps);
        let (judged, summary) = replayed(&chain, grace, chain.signed());
        let reference = Reference { chain: &chain, window: grace.max(1) };
        prop_assert_eq!(judged.len(), chain.matched.len());
        for (judged, matched) in judged.iter().zip(&chain.matched) {
            let expected = reference.judge(matched);
            let mut found: Vec<_> = judged.fills.iter().map(|fill| {
                let (name, named) = said(&fill.verdict);
                (fill.supply, name, named)
            }).collect();
            found.sort();
            let mut wanted = expected.0;
            wanted.sort();
            prop_assert_eq!(found, wanted, "{:?}", matched);
            prop_assert_eq!(judged.fewer_by, expected.1);
        }
        let fills = judged.iter().flat_map(|judged| &judged.fills);
        let unfair = fills.filter(|fill| fill.verdict.is_unfair()).count();
        prop_assert_eq!(summary.unfair(), unfair as u64);
    }

    #[test]
    fn a_dearer_host_is_found_with_the_cheapest_named(
        providers in vec((1_u64..60, 1_u32..5), 3..12),
        developers in vec((1_u16..4, 1_u32..3), 1..6),
        (at, fill, other) in (0_usize..6, 0_usize..3, 0_usize..8),
    ) {
        let mut chain = Chain::new(&[1_000_000; 10]);
        for (number, (price, cpus)) in providers.into_iter().enumerate() {
            let mut offer = provider_offer(10 + u8::try_from(number % 7).unwrap(), price);
            offer.capacity.milli_cpu = cpus * 1_000;
            chain.act(&Act::Supply(Box::new(offer), false));
        }
        chain.mine();
        for (replicas, cpus) in developers {
            let mut offer = developer_offer();
            (offer.replicas, offer.size.milli_cpu) = (replicas, cpus * 1_000);
            chain.act(&Act::Demand(Box::new(offer), false));
        }
        chain.mine();
        let market = chain.seen();
        let mut plan = Live::new(&chain).plan(&chain, true, usize::MAX);
        prop_assume!(!plan.is_empty());
        let at = at % plan.len();
        let mut others = places_all(&market, plan[at].0);
        others.retain(|other| !plan[at].1.contains(other));
        prop_assume!(!others.is_empty());
        let fill = fill % plan[at].1.len();
        let (left_out, dearer) = (plan[at].1[fill], others[other % others.len()]);
        plan[at].1[fill] = dearer;
        let demand = plan[at].0;
        chain.execute(&plan);
        chain.mine();
        let matched = chain.matched.iter().find(|matched| matched.demand == demand);
        let Some(matched) = matched.filter(|matched| matched.supplies.len() == plan[at].1.len()) else {
            // Not all of it could be carried out.
            return Ok(());
        };
        let engine = places(&matched.before, demand, |_| true);
        let asks = |hash: OfferHash| {
            let supply = market.supplies.iter().find(|supply| supply.hash == hash).unwrap();
            supply.offer.ask(market.demand(demand).unwrap().offer.size).unwrap()
        };
        let cheapest = engine.iter().find(|(hash, _)| !matched.supplies.contains(hash)).unwrap();
        prop_assert_eq!(*cheapest, (left_out, asks(left_out)));

        let (judged, summary) = replayed(&chain, 1, SignedOffers::default());
        let of_it = judged.iter().find(|judged| judged.demand == demand).unwrap();
        for fill in &of_it.fills {
            match &fill.verdict {
                Verdict::Dearer { better } if fill.supply == dearer => {
                    prop_assert_eq!((better.supply, better.ask), (left_out, asks(left_out)));
                    prop_assert_eq!(better.lost_per_epoch, fill.ask.checked_sub(better.ask).unwrap());
                    let term = u64::from(market.demand(demand).unwrap().offer.epochs);
                    prop_assert_eq!(better.lost_in_term, better.lost_per_epoch.checked_mul(term).unwrap());
                    prop_assert_eq!((better.since_block, better.blocks_there), (2, 2));
                }
                Verdict::TieBrokenOtherwise { better } if fill.supply == dearer => {
                    prop_assert_eq!((better.supply, better.ask), (left_out, fill.ask));
                }
                verdict => prop_assert!(fill.supply != dearer && *verdict == Verdict::AsEngine, "{verdict:?}"),
            }
        }
        prop_assert_eq!(summary.unfair(), 1);
    }
}

/// A market with providers at these prices, then developers; everybody is rich.
fn market(prices: &[u64], demands: usize) -> Chain {
    let mut chain = Chain::new(&[1_000_000; 10]);
    for (who, price) in (10..).zip(prices) {
        chain.act(&Act::Supply(Box::new(provider_offer(who, *price)), false));
    }
    chain.mine();
    for who in [1, 2, 3].into_iter().take(demands) {
        let offer = common::offer::DeveloperOffer { developer: account(who), ..developer_offer() };
        chain.act(&Act::Demand(Box::new(offer), false));
    }
    chain.mine();
    chain
}

fn only_verdict(chain: &Chain, grace: u64) -> Verdict {
    let (judged, _) = replayed(chain, grace, SignedOffers::default());
    let [judged] = judged.as_slice() else { panic!("{judged:?}") };
    judged.fills[0].verdict.clone()
}

#[test]
fn the_cheaper_offer_is_named_with_what_it_cost() {
    let mut chain = market(&[70, 50, 60], 1);
    let [dear, cheap, demand] = [hash(2, 11), hash(2, 12), hash(1, 14)];
    chain.execute(&[(demand, vec![dear])]);
    chain.mine();
    let (judged, summary) = replayed(&chain, 2, SignedOffers::default());
    let Verdict::Dearer { better } = &judged[0].fills[0].verdict else { panic!("{judged:?}") };
    assert_eq!((better.supply, better.provider, better.ask), (cheap, account(11), atoms(50)));
    assert_eq!((better.since_block, better.blocks_there), (2, 2));
    assert_eq!((better.lost_per_epoch, better.lost_in_term), (atoms(20), atoms(200)));
    let tally = summary.matchers[&matcher()];
    assert_eq!((tally.matches, tally.fills, tally.dearer, tally.lost_in_term), (1, 1, 1, atoms(200)));
    assert_eq!(summary.unfair(), 1);
    // Another one of the grace is a race, and nobody's loss.
    assert_eq!(only_verdict(&chain, 3), Verdict::Race);
}

#[test]
fn what_became_free_a_moment_ago_is_a_race() {
    let mut chain = market(&[70, 50], 2);
    let (dear, cheap) = (hash(2, 11), hash(2, 12));
    chain.act(&Act::Withdraw(11, 1_000_000));
    chain.mine();
    chain.act(&Act::Deposit(11, 1_000));
    chain.mine();
    chain.execute(&[(hash(1, 13), vec![dear])]);
    chain.mine();
    assert_eq!(only_verdict(&chain, 2), Verdict::Race);
    assert!(matches!(only_verdict(&chain, 1), Verdict::Dearer { better } if better.supply == cheap));
}

/// A demand that nobody knew of, placed at the dearer host: no plan of before tells what was right.
fn place_unknown_demand(chain: &mut Chain, dear: OfferHash) {
    let offer = common::offer::DeveloperOffer { developer: account(3), ..developer_offer() };
    chain.act(&Act::Demand(Box::new(offer), true));
    let demand = chain.demands[0].hash;
    chain.execute(&[(demand, vec![dear])]);
    chain.mine();
}

#[test]
fn a_bond_that_was_paid_in_a_moment_ago_is_a_race_for_a_demand_that_no_plan_had() {
    let mut chain = market(&[70, 50], 0);
    chain.act(&Act::Withdraw(11, 1_000_000));
    chain.mine();
    chain.act(&Act::Deposit(11, 1_000));
    chain.mine();
    place_unknown_demand(&mut chain, hash(2, 11));
    assert_eq!(only_verdict(&chain, 2), Verdict::Race);
    assert!(matches!(only_verdict(&chain, 1), Verdict::Dearer { .. }));
}

#[test]
fn capacity_that_was_free_a_moment_ago_is_a_race_for_a_demand_that_no_plan_had() {
    let mut chain = market(&[70, 50], 0);
    let mut whole = developer_offer();
    whole.size = provider_offer(10, 0).capacity;
    chain.act(&Act::Demand(Box::new(whole), false));
    chain.mine();
    let (dear, cheap, holder) = (hash(2, 11), hash(2, 12), hash(1, 13));
    chain.execute(&[(holder, vec![cheap])]);
    chain.mine();
    chain.act(&Act::EndDeal(0));
    // It is not to come back.
    chain.act(&Act::Cancel(true, 0));
    chain.mine();
    place_unknown_demand(&mut chain, dear);
    let last = |grace| replayed(&chain, grace, SignedOffers::default()).0.pop().unwrap().fills.pop().unwrap().verdict;
    assert_eq!(last(2), Verdict::Race);
    assert!(matches!(last(1), Verdict::Dearer { better } if better.supply == cheap));
}

#[test]
fn equal_asks_go_by_registration() {
    let mut chain = market(&[50, 50], 1);
    chain.execute(&[(hash(1, 13), vec![hash(2, 12)])]);
    chain.mine();
    let verdict = only_verdict(&chain, 1);
    let Verdict::TieBrokenOtherwise { better } = verdict else { panic!("{verdict:?}") };
    assert_eq!((better.supply, better.lost_per_epoch), (hash(2, 11), Atoms::ZERO));
}

#[test]
fn a_demand_that_lost_its_host_to_a_later_one_is_named() {
    // One place for one of the two.
    let mut chain = market(&[], 0);
    let capacity = developer_offer().size;
    chain.act(&Act::Supply(Box::new(common::offer::ProviderOffer { capacity, ..provider_offer(10, 50) }), false));
    for who in [1, 2] {
        let offer = common::offer::DeveloperOffer { developer: account(who), ..developer_offer() };
        chain.act(&Act::Demand(Box::new(offer), false));
    }
    chain.mine();
    chain.execute(&[(hash(1, 13), vec![hash(2, 11)])]);
    chain.mine();
    let verdict = only_verdict(&chain, 2);
    let Verdict::Overtaken { passed_over } = verdict else { panic!("{verdict:?}") };
    assert_eq!((passed_over.demand, passed_over.developer, passed_over.since_block), (hash(1, 12), account(1), 4));
}

#[test]
fn a_later_demand_that_takes_nothing_from_others_overtakes_nobody() {
    let mut chain = market(&[50], 2);
    chain.execute(&[(hash(1, 13), vec![hash(2, 11)])]);
    chain.mine();
    assert_eq!(only_verdict(&chain, 1), Verdict::AsEngine);
    // But the first one waits.
    for _ in 0..5 {
        chain.mine();
    }
    let (_, summary) = replayed(&chain, 2, SignedOffers::default());
    let [wait] = summary.longest_waits.as_slice() else { panic!("{summary:?}") };
    assert_eq!((wait.demand, wait.from_block, wait.until_block, wait.blocks), (hash(1, 12), 3, None, 6));
    assert_eq!((summary.left_waiting, summary.cut_short), (1, 0));
}

#[test]
fn waits_end_with_a_match_and_do_not_count_while_the_market_is_paused() {
    let mut chain = market(&[50], 1);
    for _ in 0..4 {
        chain.mine();
    }
    chain.execute(&[(hash(1, 12), vec![hash(2, 11)])]);
    chain.mine();
    let (_, summary) = replayed(&chain, 2, SignedOffers::default());
    assert_eq!(summary.longest_waits[0].until_block, Some(8));
    assert_eq!(summary.longest_waits[0].blocks, 5);

    let mut paused = market(&[50], 1);
    paused.act(&Act::Paused(true));
    for _ in 0..9 {
        paused.mine();
    }
    assert_eq!(replayed(&paused, 2, SignedOffers::default()).1.left_waiting, 0);
}

#[test]
fn fewer_replicas_than_there_was_room_for_are_counted() {
    let mut chain = market(&[50, 60, 70], 0);
    let offer = common::offer::DeveloperOffer { replicas: 3, ..developer_offer() };
    chain.act(&Act::Demand(Box::new(offer), false));
    chain.mine();
    chain.execute(&[(hash(1, 14), vec![hash(2, 11)])]);
    chain.mine();
    let (judged, summary) = replayed(&chain, 1, SignedOffers::default());
    assert_eq!((judged[0].fewer_by, &judged[0].fills[0].verdict), (2, &Verdict::AsEngine));
    assert_eq!((summary.matchers[&matcher()].fewer_replicas, summary.unfair()), (1, 0));
}

#[test]
fn a_signed_offer_counts_from_its_acceptance_when_somebody_tells_of_it() {
    let mut chain = market(&[70], 1);
    chain.act(&Act::Supply(Box::new(provider_offer(12, 50)), true));
    let blocks = chain.head();
    chain.mine();
    chain.mine();
    chain.execute(&[(hash(1, 12), vec![hash(2, 11)])]);
    chain.mine();
    assert_eq!(only_verdict(&chain, 2), Verdict::AsEngine);
    let (judged, _) = replayed(&chain, 2, chain.signed());
    let Verdict::Dearer { better } = &judged[0].fills[0].verdict else { panic!("{judged:?}") };
    assert_eq!((better.supply, better.since_block), (hash(2, 13), blocks));
}
