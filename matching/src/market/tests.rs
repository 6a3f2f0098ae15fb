//! A market that follows a chain, block by block and back, against one that is made afresh after every step.

#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    ends,
    replay::tests::chain::{Act, Chain, Change, Follower},
    samples::{self, account, atoms, developer_offer, hash, provider_offer},
    scan,
    snapshot::Snapshot,
};

/// What happens before the market is looked at.
#[derive(Debug, Clone)]
struct Step {
    /// Blocks that are taken back before.
    reorganized: usize,
    /// Of each new block: what happens, and whether the plan of before is carried out in it.
    blocks: Vec<(Vec<Act>, bool)>,
    seconds: u64,
    /// Fills under way and demands that are left alone, by their places among all offers.
    pending: Vec<(usize, usize)>,
    held: Vec<usize>,
    /// Signed offers that are closed.
    closed: Vec<usize>,
    restart: bool,
}

fn act() -> impl Strategy<Value = Act> {
    use Change::{Attest, Ending, Fund, Refund, Resize, Settle, Unfund, Update};
    let who = || select(vec![1_u8, 2, 3, 10, 11, 12, 13, 14, 15, 16]);
    let change = select(vec![Fund, Settle, Unfund, Refund, Ending, Resize, Attest, Update]);
    prop_oneof![
        5 => (samples::any_provider_offer(), any::<bool>()).prop_map(|(offer, signed)| Act::Supply(Box::new(offer), signed)),
        5 => (samples::any_developer_offer(), any::<bool>()).prop_map(|(mut offer, signed)| {
            offer.prepaid_epochs = offer.prepaid_epochs.max(samples::terms().min_prepaid_epochs);
            Act::Demand(Box::new(offer), signed)
        }),
        2 => (who(), 1_u64..3_000).prop_map(|(who, amount)| Act::Deposit(who, amount)),
        2 => (who(), 1_u64..3_000).prop_map(|(who, amount)| Act::Withdraw(who, amount)),
        1 => (any::<bool>(), 0_usize..10).prop_map(|(demand, at)| Act::Cancel(demand, at)),
        1 => (who(), 0_u64..8).prop_map(|(who, floor)| Act::NonceFloor(who, floor)),
        1 => (0_usize..20).prop_map(Act::EndDeal),
        4 => (change, 0_usize..20).prop_map(|(change, at)| Act::Change(change, at)),
        1 => prop_oneof![1 => Just(true), 4 => Just(false)].prop_map(Act::Paused),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reorganized = prop_oneof![3 => Just(0_usize), 2 => 1_usize..6];
    let blocks = vec((vec(act(), 0..4), any::<bool>()), 1..4);
    let pending = vec((0_usize..20, 0_usize..20), 0..4);
    let rest = (vec(0_usize..20, 0..3), vec(0_usize..20, 0..2), prop::bool::weighted(0.1));
    let step = (reorganized, blocks, select(vec![0_u64, 1, 3, 40, 130]), pending, rest);
    let step = step.prop_map(|(reorganized, blocks, seconds, pending, (held, closed, restart))| Step {
        reorganized,
        blocks,
        seconds,
        pending,
        held,
        closed,
        restart,
    });
    vec(step, 1..16)
}

type Answer = Vec<(OfferHash, Vec<(OfferHash, crate::ledger::FillCost)>)>;

fn planned(plan: &Plan) -> Answer {
    let fills = |found: &crate::engine::Match| found.fills.iter().map(|fill| (fill.supply, fill.cost)).collect();
    plan.matches.iter().map(|found| (found.demand, fills(found))).collect()
}

fn scanned(snapshot: &Snapshot) -> Answer {
    let plan = scan::plan(snapshot, usize::MAX);
    let fills = |found: &scan::PlannedMatch<'_>| found.fills.iter().map(|fill| (fill.supply.hash, fill.cost)).collect();
    plan.matches.iter().map(|found| (found.demand.hash, fills(found))).collect()
}

/// The `at`-th of all demands and of all supplies that anybody knows.
fn named(chain: &Chain, (demand, supply): (usize, usize)) -> Option<PendingFill> {
    let state = chain.states.last().unwrap();
    let demands = state.developer_offers.keys().copied().chain(chain.demands.iter().map(|signed| signed.hash));
    let supplies = state.provider_offers.keys().copied().chain(chain.supplies.iter().map(|signed| signed.hash));
    let (demands, supplies): (Vec<_>, Vec<_>) = (demands.collect(), supplies.collect());
    let developer_offer = *demands.get(demand % demands.len().max(1))?;
    Some(PendingFill { developer_offer, provider_offer: *supplies.get(supply % supplies.len().max(1))? })
}

fn live(chain: &mut Chain, step: &Step, plan: &Answer) {
    if step.reorganized > 0 {
        chain.reorganize(step.reorganized);
    }
    for (acts, is_sent) in &step.blocks {
        chain.wait(step.seconds);
        acts.iter().for_each(|act| chain.act(act));
        if *is_sent {
            let of = |(demand, fills): &(OfferHash, Vec<(OfferHash, _)>)| {
                (*demand, fills.iter().map(|(supply, _)| *supply).collect::<Vec<_>>())
            };
            let knows = |(demand, supplies): &(OfferHash, Vec<OfferHash>)| {
                let state = chain.states.last().unwrap();
                let supply = |hash: &OfferHash| {
                    state.provider_offers.contains_key(hash) || chain.supplies.iter().any(|signed| signed.hash == *hash)
                };
                supplies.iter().all(supply)
                    && (state.developer_offers.contains_key(demand)
                        || chain.demands.iter().any(|signed| signed.hash == *demand))
            };
            let proposals: Vec<_> = plan.iter().map(of).filter(knows).collect();
            chain.execute(&proposals);
        }
        chain.mine();
    }
    for at in &step.closed {
        if *at < chain.supplies.len() {
            chain.supplies.remove(*at);
        } else if *at < chain.demands.len() {
            chain.demands.remove(*at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_market_that_follows_is_as_one_made_afresh(
        money in vec(prop_oneof![1 => 0_u64..600, 2 => 2_000_u64..20_000], 10),
        steps in steps(),
        remembered in select(vec![0_usize, 1, 3, 1_000]),
    ) {
        let mut chain = Chain::new(&money);
        let mut follower = Follower::new(remembered);
        let mut plan = Answer::new();
        for step in steps {
            let before = chain.head();
            live(&mut chain, &step, &plan);
            if step.restart {
                follower.load(&chain);
            }
            let pending: Vec<_> = step.pending.iter().filter_map(|at| named(&chain, *at)).collect();
            let held: BTreeSet<_> = step.held.iter().filter_map(|at| named(&chain, (*at, 0))).map(|fill| fill.developer_offer).collect();
            let loaded = follower.loaded;
            let remembers = follower.market.remembers();
            follower.follow(&chain, &pending, &held);
            if remembered == 1_000 && follower.loaded > loaded {
                // It was made anew a moment ago, and the chain went back behind that.
                prop_assert!(remembers < step.reorganized, "{} of {}", step.reorganized, before);
            }

            let snapshot = chain.seen_with(&pending, &held);
            let market = &mut follower.market;
            prop_assert_eq!(market.state(), chain.states.last().unwrap());
            let open = market.seen().demands_open();
            plan = planned(&market.plan(usize::MAX));
            let mut afresh = Engine::of(&snapshot);
            prop_assert_eq!(open, afresh.demands_open());
            prop_assert_eq!(&plan, &planned(&afresh.plan(usize::MAX)));
            prop_assert_eq!(&plan, &scanned(&snapshot));
            for demand in &snapshot.demands {
                prop_assert_eq!(market.seen().demand(demand.hash), Some(demand));
                let deals = market.state().deals.values().map(|known| &known.deal);
                let deals: Vec<_> = deals.filter(|deal| deal.developer_offer == demand.hash).map(|deal| deal.id).collect();
                prop_assert_eq!(market.deals_of_demand(demand.hash).collect::<Vec<_>>(), deals);
            }
            let waiting: Vec<_> = market.waiting(0).map(|offer| offer.hash).collect();
            let state = market.state();
            let demands = chain.demands.iter().filter(|signed| !state.developer_offers.contains_key(&signed.hash));
            let supplies = chain.supplies.iter().filter(|signed| !state.provider_offers.contains_key(&signed.hash));
            let demands = demands.map(|signed| (signed.sequence, signed.hash));
            let mut all: Vec<_> = demands.chain(supplies.map(|signed| (signed.sequence, signed.hash))).collect();
            all.sort_unstable();
            prop_assert_eq!(waiting, all.into_iter().map(|(_, hash)| hash).collect::<Vec<_>>());
        }
        // Taken back to where it can be, it is what it was there.
        if remembered == 1_000 {
            let oldest = follower.market.anchors().last().unwrap();
            follower.market.take_back_to(oldest);
            let height = oldest.map_or(0, |oldest| oldest.number);
            let last = chain.blocks.iter().rposition(|block| block.block.number <= height);
            let (block, state) = match last {
                Some(last) => (Some(chain.blocks[last].block), chain.states[last].clone()),
                None => (None, MarketState::new(&samples::terms())),
            };
            follower.market.stand_at(block, 0);
            prop_assert_eq!(follower.market.state(), &state);
        }
    }

    #[test]
    fn deals_that_are_due_are_found_when_their_time_comes(
        steps in vec((vec(act(), 0..5), select(vec![0_u64, 20, 60, 70, 200]), 0_usize..3), 1..24),
    ) {
        let mut chain = Chain::new(&[20_000; 10]);
        let mut follower = Follower::new(1_000);
        for (acts, seconds, reorganized) in steps {
            let epoch = |chain: &Chain| samples::terms().schedule.epoch_at(chain.blocks.last().unwrap().block.timestamp);
            let before = epoch(&chain);
            // Only within an epoch: what was due in an earlier one need not be found when time has gone back.
            let depth = reorganized.min(chain.blocks.len() - 1);
            let left = chain.blocks[chain.blocks.len() - 1 - depth].block.timestamp;
            if samples::terms().schedule.epoch_at(left) == before {
                chain.reorganize(depth);
            }
            chain.wait(seconds);
            acts.iter().for_each(|act| chain.act(act));
            let plan = planned(&Engine::of(&chain.seen()).plan(usize::MAX));
            let proposals = plan.into_iter().map(|(demand, fills)| (demand, fills.into_iter().map(|fill| fill.0).collect()));
            chain.execute(&proposals.collect::<Vec<_>>());
            chain.mine();
            follower.follow(&chain, &[], &BTreeSet::new());
            let market = &mut follower.market;
            let due = ends::due(market.state(), &samples::terms(), epoch(&chain));
            let mut found = market.due(usize::MAX, |_| true);
            found.sort_by_key(|due| due.deal());
            prop_assert_eq!(&found, &due);
            let mut few = market.due(2, |deal| due.first().is_none_or(|first| first.deal() != deal));
            few.dedup();
            prop_assert_eq!(few.len(), due.len().saturating_sub(1).min(2));
        }
    }
}

fn signed<T>(hash: OfferHash, offer: T, sequence: u64) -> Signed<T> {
    Signed { hash, offer, signature: vec![1], accepted_block: 1, sequence }
}

#[test]
fn what_is_to_be_noted_of_signed_offers_is_said_until_it_is() {
    let mut chain = Chain::new(&[10_000; 10]);
    let mut follower = Follower::new(1_000);
    let (wanted, offered) = (developer_offer(), provider_offer(10, 70));
    let mut expired = provider_offer(11, 70);
    expired.valid_until = samples::TIME;
    follower.follow(&chain, &[], &BTreeSet::new());
    let market = &mut follower.market;
    market.accept_demand(signed(hash(1, 1), wanted.clone(), 1), false);
    market.accept_supply(signed(hash(2, 1), offered, 2), false);
    market.accept_supply(signed(hash(2, 2), expired.clone(), 3), false);
    market.settle();
    assert_eq!(market.sort_signed(), SortedOffers::default());
    assert_eq!(market.sequence_of(hash(2, 2)), Some(3));

    // A match makes two of them known to the chain; time passes over the third.
    chain.demands.push(signed(hash(1, 1), wanted.clone(), 1));
    chain.supplies.push(signed(hash(2, 1), provider_offer(10, 70), 2));
    chain.wait(100);
    chain.execute(&[(hash(1, 1), vec![hash(2, 1)])]);
    chain.mine();
    let mut market = follower.market;
    market.apply(chain.blocks.last().unwrap()).unwrap();
    market.stand_at(chain.blocks.last().map(|block| block.block), 0);
    market.settle();
    let known = vec![hash(1, 1), hash(2, 1)];
    let all = SortedOffers { appeared: known, void: vec![hash(2, 2)], ..SortedOffers::default() };
    assert_eq!(market.sort_signed(), all);
    assert_eq!(market.sort_signed(), all, "nobody has noted it");
    market.accept_demand(signed(hash(1, 1), wanted, 1), true);
    market.accept_supply(signed(hash(2, 1), provider_offer(10, 70), 2), true);
    market.close_signed(hash(2, 2));
    market.settle();
    assert_eq!(market.sort_signed(), SortedOffers::default());
    assert_eq!(market.waiting(0).count(), 0);

    // A reorganization makes the chain forget them, and their owners void them: by a nonce and by name.
    let first = market.anchors().nth(1).unwrap();
    market.take_back_to(first);
    chain.reorganize(1);
    market.stand_at(chain.blocks.last().map(|block| block.block), 0);
    market.settle();
    let vanished = vec![hash(1, 1), hash(2, 1)];
    assert_eq!(market.sort_signed(), SortedOffers { vanished, ..SortedOffers::default() });
    market.accept_demand(signed(hash(1, 1), developer_offer(), 1), false);
    market.accept_supply(signed(hash(2, 1), provider_offer(10, 70), 2), false);
    market.settle();
    assert_eq!(market.sort_signed(), SortedOffers::default());
    chain.act(&Act::NonceFloor(1, 9));
    chain.mine();
    market.apply(chain.blocks.last().unwrap()).unwrap();
    market.settle();
    assert_eq!(market.sort_signed().void, [hash(1, 1)]);
    assert_eq!(market.waiting(1).map(|offer| offer.hash).collect::<Vec<_>>(), [hash(2, 1)]);
}

#[test]
fn a_block_that_contradicts_what_came_before_changes_nothing() {
    let mut chain = Chain::new(&[10_000; 10]);
    let mut follower = Follower::new(1_000);
    follower.follow(&chain, &[], &BTreeSet::new());
    let before = follower.market.state().clone();
    chain.act(&Act::Deposit(1, 5));
    chain.mine();
    let mut block = chain.blocks.last().unwrap().clone();
    let mut second = block.events[0].clone();
    second.event =
        common::event::MarketEvent::Withdrawn { account: account(1), to: account(1), amount: atoms(1_000_000) };
    block.events.push(second);
    assert!(follower.market.apply(&block).is_err());
    assert_eq!(*follower.market.state(), before);
    block.events.pop();
    follower.market.apply(&block).unwrap();
    assert_eq!(follower.market.state().free_balance(account(1)), atoms(10_005));
}

#[test]
fn final_blocks_are_forgotten() {
    let mut chain = Chain::new(&[10_000; 10]);
    for _ in 0..5 {
        chain.act(&Act::Deposit(1, 5));
        chain.mine();
    }
    let mut market = Market::new(samples::terms(), Planner::Anybody, 4);
    chain.blocks.iter().for_each(|block| market.apply(block).unwrap());
    assert_eq!(market.remembers(), 4);
    market.forget_final(4);
    let numbers: Vec<_> = market.anchors().map(|anchor| anchor.unwrap().number).collect();
    assert_eq!(numbers, [6, 5, 4]);
    let oldest = market.anchors().last().unwrap();
    assert_eq!(market.take_back_to(oldest), 2);
    market.stand_at(Some(chain.blocks[3].block), 0);
    assert_eq!(*market.state(), chain.states[3]);
}
