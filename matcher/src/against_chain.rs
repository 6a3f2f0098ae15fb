//! The matcher's rules held against the real contract on a real chain.

#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use std::{collections::BTreeSet, time::Duration};

use chain::{Key, MatchProposal, TxSender, calls, testing::TestMarket};
use common::{
    clock::SystemClock,
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
    snapshot::{Demand, Inputs, PendingFill, Signed, Snapshot, Supply},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use crate::{
    metrics::Metrics,
    relay::Relay,
    store::{Proposed, Store, TxStatus},
};

/// Accounts of the samples by their number, as accounts that can sign here.
fn key(market: &TestMarket, account: Address) -> Key {
    let number = usize::from(account.0[0]);
    market.anvil.key(if number < 20 { number } else { 19 })
}

fn real_developer_offer(market: &TestMarket, mut offer: DeveloperOffer, now: u64) -> DeveloperOffer {
    offer.developer = key(market, offer.developer).address();
    for provider in offer.allow.iter_mut().chain(&mut offer.deny) {
        *provider = key(market, *provider).address();
    }
    offer.valid_until = now + offer.valid_until - TIME;
    offer
}

fn real_provider_offer(market: &TestMarket, mut offer: ProviderOffer, now: u64) -> ProviderOffer {
    offer.provider = key(market, offer.provider).address();
    offer.payout = offer.provider;
    offer.valid_until = now + offer.valid_until - TIME;
    offer
}

fn sampled<S: Strategy>(runner: &mut TestRunner, strategy: S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

async fn fold(market: &TestMarket) -> MarketState {
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
    for account in (0..20).map(|number| market.anvil.key(number).address()) {
        assert_eq!(plan.ledger.free(account), chain_ledger.free(account), "{account}");
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

/// One developer offer and one provider offer that fit, signed, and a relay with its database.
struct Outbox {
    market: TestMarket,
    folder: tempfile::TempDir,
    call: chain::Call,
    fill: PendingFill,
}

impl Outbox {
    async fn new() -> Self {
        let market = TestMarket::start().await;
        let (developer, provider) = (market.anvil.key(1), market.anvil.key(10));
        market.fund(&developer, atoms(10_000)).await;
        market.fund(&provider, atoms(10_000)).await;
        let now = market.reader.rpc().head().await.unwrap().timestamp;
        let wanted = real_developer_offer(&market, samples::developer_offer(), now + 10_000);
        let offered = real_provider_offer(&market, samples::provider_offer(10, 70), now + 10_000);
        let domain = market.reader.domain();
        let (wanted_hash, offered_hash) = (domain.developer_offer_hash(&wanted), domain.provider_offer_hash(&offered));
        let proposal = MatchProposal {
            developer_signature: developer.sign(wanted_hash).unwrap(),
            providers: vec![(offered, provider.sign(offered_hash).unwrap())],
            developer: wanted,
        };
        let call = calls::match_offers(market.market, &[proposal]);
        let fill = PendingFill { developer_offer: wanted_hash, provider_offer: offered_hash };
        Self { market, folder: tempfile::tempdir().unwrap(), call, fill }
    }

    /// A relay as after a start of the process.
    async fn relay(&self) -> (Relay, Store) {
        let store = Store::open(&self.folder.path().join("matcher.db")).await.unwrap();
        let sender = self.market.sender(18).await;
        let relay = Relay::new(store.clone(), sender, std::sync::Arc::new(SystemClock), Metrics::new().unwrap());
        (relay, store)
    }

    fn proposed(&self) -> Proposed {
        Proposed::Fills(vec![self.fill])
    }

    async fn transactions_sent(&self) -> u64 {
        let account = self.market.anvil.key(18).address().to_string();
        let answer = self.market.anvil.call("eth_getTransactionCount", serde_json::json!([account, "latest"])).await;
        u64::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Reconciles until this is how far the transactions are, latest first; gives the block of the latest.
    async fn reach(&self, relay: &Relay, store: &Store, expected: &[TxStatus]) -> Option<u64> {
        let begin = std::time::Instant::now();
        loop {
            relay.reconcile(1).await.unwrap();
            let records = store.matches_of(self.fill.developer_offer, 10).await.unwrap();
            let found: Vec<_> = records.iter().map(|record| record.status).collect();
            if found == expected {
                return records[0].mined_block;
            }
            assert!(begin.elapsed() < Duration::from_secs(120), "expected {expected:?}, found {found:?}");
            // What a reorganization put back into its pool, this node mines only with the next block.
            self.market.anvil.mine(1).await;
        }
    }
}

#[tokio::test]
async fn a_crash_between_record_and_send_loses_nothing_and_sends_once() {
    let outbox = Outbox::new().await;
    let (relay, store) = outbox.relay().await;
    relay.record(&outbox.call, &outbox.proposed(), 1).await.unwrap();
    assert_eq!(outbox.transactions_sent().await, 0);
    assert_eq!(store.pending_fills(1).await.unwrap(), [outbox.fill]);
    drop((relay, store));

    for _ in 0..3 {
        let (relay, _) = outbox.relay().await;
        relay.reconcile(1).await.unwrap();
        relay.reconcile(1).await.unwrap();
    }
    let (relay, store) = outbox.relay().await;
    let mined_in = outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
    assert_eq!(outbox.transactions_sent().await, 1);
    assert_eq!(fold(&outbox.market).await.deals.len(), 1);
    // Held back until the indexer has seen the block.
    assert_eq!(store.pending_fills(mined_in - 1).await.unwrap(), [outbox.fill]);
    assert_eq!(store.pending_fills(mined_in).await.unwrap(), []);
}

#[tokio::test]
async fn a_transaction_that_a_reorganization_removed_is_sent_again() {
    let outbox = Outbox::new().await;
    let (relay, store) = outbox.relay().await;
    relay.submit(&outbox.call, &outbox.proposed(), 1).await.unwrap();
    let first = outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
    let head = outbox.market.reader.rpc().head().await.unwrap().number;

    outbox.market.anvil.reorg(head - first + 1).await;
    assert_eq!(fold(&outbox.market).await.deals.len(), 0);
    relay.reconcile(1).await.unwrap();
    let second = outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
    assert!(second > first, "{second} is not after {first}");
    assert_eq!(fold(&outbox.market).await.deals.len(), 1);
}

#[tokio::test]
async fn a_transaction_whose_nonce_is_taken_is_abandoned_and_its_offers_are_free_again() {
    let outbox = Outbox::new().await;
    let (relay, store) = outbox.relay().await;
    relay.record(&outbox.call, &outbox.proposed(), 1).await.unwrap();
    let same_account = outbox.market.sender(18).await;
    same_account.send(&calls::approve(outbox.market.token, outbox.market.market, Atoms::ZERO)).await.unwrap();

    outbox.reach(&relay, &store, &[TxStatus::Abandoned]).await;
    assert_eq!(store.pending_fills(1).await.unwrap(), []);
    relay.submit(&outbox.call, &outbox.proposed(), 1).await.unwrap();
    outbox.reach(&relay, &store, &[TxStatus::Mined, TxStatus::Abandoned]).await;
    assert_eq!(fold(&outbox.market).await.deals.len(), 1);
}

#[tokio::test]
async fn a_demand_that_the_contract_passes_over_is_held_for_longer_every_time() {
    let outbox = Outbox::new().await;
    let (relay, store) = outbox.relay().await;
    // Cancelled behind the matcher's back.
    let developer = outbox.market.sender(1).await;
    developer.send(&calls::cancel_offer(outbox.market.market, outbox.fill.developer_offer)).await.unwrap();
    let (mut sent, mut holds) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        relay.submit(&outbox.call, &outbox.proposed(), 1).await.unwrap();
        sent.push(TxStatus::Mined);
        let block = outbox.reach(&relay, &store, &sent).await.unwrap();
        let mut until = block;
        while !store.held(until).await.unwrap().is_empty() {
            until += 1;
        }
        holds.push(until - block);
    }
    assert_eq!(holds, [2, 4, 8]);
}
