//! The matcher's rules held against the real contract on a real chain.

#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::BTreeSet;

use chain::{Key, MatchProposal, TxSender, calls, testing::TestMarket};
use common::{
    event::{MarketEvent, Reason},
    feature::FeatureSet,
    ids::Address,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    state::MarketState,
};
use futures::{StreamExt, stream};
use matching::{
    feasible,
    ledger::Ledger,
    samples::{self, TIME, atoms},
    scan,
    snapshot::{Demand, Inputs, Signed, Snapshot, Supply},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

/// Accounts of the samples by their number, as accounts that can sign here.
fn key(market: &TestMarket, account: Address) -> Key {
    let number = usize::from(account.0[0]);
    market.anvil.key(if number < 20 { number } else { 19 })
}

pub(crate) fn real_developer_offer(market: &TestMarket, mut offer: DeveloperOffer, now: u64) -> DeveloperOffer {
    offer.developer = key(market, offer.developer).address();
    for provider in offer.allow.iter_mut().chain(&mut offer.deny) {
        *provider = key(market, *provider).address();
    }
    offer.valid_until = now + offer.valid_until - TIME;
    offer
}

pub(crate) fn real_provider_offer(market: &TestMarket, mut offer: ProviderOffer, now: u64) -> ProviderOffer {
    offer.provider = key(market, offer.provider).address();
    offer.payout = offer.provider;
    offer.valid_until = now + offer.valid_until - TIME;
    offer
}

fn sampled<S: Strategy>(runner: &mut TestRunner, strategy: S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

pub(crate) async fn fold(market: &TestMarket) -> MarketState {
    let head = market.reader.rpc().head().await.unwrap();
    let blocks = market.reader.blocks(market.reader.terms().deployed_at_block, head.number).await.unwrap();
    let mut state = MarketState::new(market.reader.terms());
    blocks.iter().try_for_each(|block| state.apply_block(block)).unwrap();
    state
}

fn snapshot(
    market: &TestMarket,
    state: &MarketState,
    matcher: Address,
    developer_offers: Vec<Signed<DeveloperOffer>>,
    provider_offers: Vec<Signed<ProviderOffer>>,
) -> Snapshot {
    Snapshot::build(Inputs {
        terms: *market.reader.terms(),
        state,
        matcher,
        time: state.as_of.unwrap().timestamp,
        developer_offers,
        provider_offers,
        pending: &[],
        held: &BTreeSet::new(),
    })
}

/// Providers and developers with money, some offers posted, some signed, one cancelled, one nonce floor raised.
struct Crowd {
    developers: Vec<Signed<DeveloperOffer>>,
    providers: Vec<Signed<ProviderOffer>>,
}

impl Crowd {
    async fn gather(market: &TestMarket, runner: &mut TestRunner) -> Self {
        for number in [1, 2, 3, 10, 11, 12, 13, 14, 15, 16] {
            let amount = if number % 4 == 0 { 400 } else { 5_000 };
            market.fund(&market.anvil.key(number), atoms(amount)).await;
        }
        // Everything is valid until shortly before or after this moment, which comes when everybody is there.
        let epoch = market.reader.current_epoch().await.unwrap().plus(5);
        let now = market.reader.terms().schedule.start_of(epoch);
        let mut crowd = Self { developers: Vec::new(), providers: Vec::new() };
        for sequence in 0_u64..40 {
            let offer = sampled(runner, samples::any_provider_offer());
            crowd.add_provider(market, real_provider_offer(market, offer, now), sequence).await;
        }
        for sequence in 0_u64..40 {
            let mut offer = sampled(runner, samples::any_developer_offer());
            offer.matcher_fee = atoms(if sequence.is_multiple_of(4) { sequence } else { 0 });
            if sequence.is_multiple_of(2) {
                // One that is easily placed, or the chain would have little to say.
                (offer.allow, offer.regions, offer.features) = (Vec::new(), Vec::new(), FeatureSet::EMPTY);
                (offer.epochs, offer.prepaid_epochs, offer.max_price_per_epoch) = (2, 2, atoms(1_000));
            }
            crowd.add_developer(market, real_developer_offer(market, offer, now), 100 + sequence).await;
        }
        let void = crowd.providers[0].clone();
        let owner = sender_of(market, void.offer.provider).await;
        owner.send(&calls::cancel_offer(market.market, void.hash)).await.unwrap();
        let floored = market.sender(2).await;
        floored.send(&calls::raise_nonce_floor(market.market, 3)).await.unwrap();
        market.anvil.mine_at(now).await;
        crowd
    }

    async fn add_provider(&mut self, market: &TestMarket, offer: ProviderOffer, sequence: u64) {
        let hash = market.reader.domain().provider_offer_hash(&offer);
        let is_open = offer.region.names_country() && offer.valid_until > 0;
        if sequence.is_multiple_of(2) && is_open {
            let call = calls::post_provider_offer(market.market, &offer);
            // Expired and doubled ones are refused by the chain; they stay signed.
            let _refused = sender_of(market, offer.provider).await.send(&call).await;
        }
        let signature = key_of(market, offer.provider).sign(hash).unwrap();
        self.providers.push(Signed { hash, offer, signature, accepted_block: 1, sequence });
    }

    async fn add_developer(&mut self, market: &TestMarket, offer: DeveloperOffer, sequence: u64) {
        let hash = market.reader.domain().developer_offer_hash(&offer);
        if sequence.is_multiple_of(3) {
            let call = calls::post_developer_offer(market.market, &offer);
            let _refused = sender_of(market, offer.developer).await.send(&call).await;
        }
        let signature = key_of(market, offer.developer).sign(hash).unwrap();
        self.developers.push(Signed { hash, offer, signature, accepted_block: 1, sequence });
    }
}

fn key_of(market: &TestMarket, account: Address) -> Key {
    (0..20).map(|number| market.anvil.key(number)).find(|key| key.address() == account).unwrap()
}

async fn sender_of(market: &TestMarket, account: Address) -> TxSender {
    market.sender_of(&key_of(market, account)).await
}

fn proposals(plan: &scan::Plan<'_>) -> Vec<MatchProposal> {
    let proposal = |planned: &scan::PlannedMatch<'_>| MatchProposal {
        developer: planned.demand.offer.clone(),
        developer_signature: planned.demand.signature.clone(),
        providers: planned
            .fills
            .iter()
            .map(|fill| (fill.supply.offer.clone(), fill.supply.signature.clone()))
            .collect(),
    };
    plan.matches.iter().map(proposal).collect()
}

#[tokio::test]
async fn the_contract_opens_every_planned_deal_and_agrees_on_every_pair() {
    let market = TestMarket::start().await;
    let mut runner = TestRunner::deterministic();
    let crowd = Crowd::gather(&market, &mut runner).await;

    let matcher = market.sender(18).await;
    let before = fold(&market).await;
    let planned_on = snapshot(&market, &before, matcher.address(), crowd.developers.clone(), crowd.providers.clone());
    let plan = scan::plan(&planned_on, 100);
    assert!(plan.matches.len() >= 5 && plan.fills() > plan.matches.len(), "a dull market: {} fills", plan.fills());
    let receipt = matcher.send(&calls::match_offers(market.market, &proposals(&plan))).await.unwrap();
    let skipped: Vec<_> = receipt
        .events
        .iter()
        .filter(|placed| matches!(placed.event, MarketEvent::FillSkipped { .. } | MarketEvent::MatchSkipped { .. }))
        .collect();
    assert!(skipped.is_empty(), "{skipped:?}");
    let opened = receipt.events.iter().filter(|placed| matches!(placed.event, MarketEvent::DealOpened(_)));
    assert_eq!(opened.count(), plan.fills());

    // The ledger that the plan foresaw is the one that the chain has.
    let after = fold(&market).await;
    let chain_ledger = Ledger::of(&after);
    let of_match = |planned: &scan::PlannedMatch<'_>| {
        planned.demand.offer.matcher_fee.checked_mul(planned.fills.len().try_into().unwrap()).unwrap()
    };
    let fees = plan.matches.iter().map(of_match).sum::<Result<Atoms, _>>().unwrap();
    assert!(fees > Atoms::ZERO, "nobody paid the matcher");
    for account in (0..20).map(|number| market.anvil.key(number).address()) {
        let earned = if account == matcher.address() { fees } else { Atoms::ZERO };
        let foreseen = plan.ledger.free(account).checked_add(earned).unwrap();
        assert_eq!(foreseen, chain_ledger.free(account), "{account}");
    }
    for planned in &plan.matches {
        assert_eq!(plan.ledger.placement(planned.demand.hash), chain_ledger.placement(planned.demand.hash));
        for fill in &planned.fills {
            assert_eq!(plan.ledger.used(fill.supply.hash), chain_ledger.used(fill.supply.hash));
        }
    }
    agrees_on_every_pair(&market, &after, &crowd, &mut runner).await;
}

/// Known offers and new ones, each with each: the reason of the predicate is the contract's.
async fn agrees_on_every_pair(market: &TestMarket, state: &MarketState, crowd: &Crowd, runner: &mut TestRunner) {
    let now = state.as_of.unwrap().timestamp;
    let domain = market.reader.domain();
    // Calls have no sender.
    let snapshot = snapshot(market, state, Address::ZERO, Vec::new(), Vec::new());
    let terms = market.reader.terms();
    let mut developers: Vec<DeveloperOffer> = crowd.developers.iter().map(|signed| signed.offer.clone()).collect();
    let mut providers: Vec<ProviderOffer> = crowd.providers.iter().map(|signed| signed.offer.clone()).collect();
    for _ in 0..8 {
        developers.push(real_developer_offer(market, sampled(runner, samples::any_developer_offer()), now));
        providers.push(real_provider_offer(market, sampled(runner, samples::any_provider_offer()), now));
    }
    let pairs = developers.iter().flat_map(|developer| providers.iter().map(move |provider| (developer, provider)));
    let checked = stream::iter(pairs).map(|(developer, provider)| {
        let place = Default::default();
        let demand = Demand::new(domain.developer_offer_hash(developer), developer.clone(), Vec::new(), place, terms);
        let supply = Supply::new(domain.provider_offer_hash(provider), provider.clone(), Vec::new(), place);
        let ours = feasible::feasible(&snapshot.conditions, &snapshot.ledger, &demand, &supply);
        async move {
            let theirs = market.reader.check_fill(developer, provider).await.unwrap();
            assert_eq!(ours.err().unwrap_or(Reason::None), theirs, "{developer:?} {provider:?}");
            theirs
        }
    });
    let reasons: Vec<Reason> = checked.buffer_unordered(8).collect().await;
    let kinds: BTreeSet<Reason> = reasons.iter().copied().collect();
    assert!(reasons.len() > 500 && kinds.len() >= 12, "{} pairs, only {kinds:?}", reasons.len());
}
