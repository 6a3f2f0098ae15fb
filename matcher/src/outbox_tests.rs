//! The outbox held against a real chain, with each kind of database.

#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chain::{MatchProposal, PreparedTx, calls, testing::TestMarket};
use common::{clock::SystemClock, money::Atoms};
use matching::{
    samples::{self, atoms},
    snapshot::PendingFill,
};

use crate::{
    against_chain::{fold, real_developer_offer, real_provider_offer},
    error::MatcherError,
    metrics::Metrics,
    relay::{FeePolicy, GasBounds, Relay, RelayParts},
    store::{
        Outcome, Proposed, Store, TxRecord, TxStatus,
        testing::{Database, databases},
    },
    turn::Tally,
};

/// Blocks after which the relay here raises a fee.
const REPRICE_AFTER: u64 = 3;
const GWEI: u128 = 1_000_000_000;

/// One developer offer and one provider offer that fit, signed, and a relay with its database.
struct Outbox {
    market: TestMarket,
    database: Database,
    call: chain::Call,
    fill: PendingFill,
    max_fee_per_gas: u128,
}

/// One with each kind of database.
async fn outboxes() -> Vec<Outbox> {
    let mut outboxes = Vec::new();
    for database in databases().await {
        outboxes.push(Outbox::new(database, 1_000).await);
    }
    outboxes
}

impl Outbox {
    /// `limit` is the most that the developer pays for an epoch; the provider asks for 70.
    async fn new(database: Database, limit: u64) -> Self {
        let market = TestMarket::start().await;
        let (developer, provider) = (market.anvil.key(1), market.anvil.key(10));
        market.fund(&developer, atoms(10_000)).await;
        market.fund(&provider, atoms(10_000)).await;
        let now = market.reader.rpc().head().await.unwrap().timestamp;
        let mut wanted = real_developer_offer(&market, samples::developer_offer(), now + 10_000);
        wanted.max_price_per_epoch = atoms(limit);
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
        Self { market, database, call, fill, max_fee_per_gas: 1_000 * GWEI }
    }

    /// A relay as after a start of the process.
    async fn relay(&self) -> (Relay, Store) {
        let store = self.database.open().await;
        let relay = Relay::new(RelayParts {
            store: store.clone(),
            sender: self.market.sender(18).await,
            reader: self.market.reader.clone(),
            clock: Arc::new(SystemClock),
            metrics: Metrics::new().unwrap(),
            fees: FeePolicy { max_fee_per_gas: self.max_fee_per_gas, reprice_after_blocks: REPRICE_AFTER },
        });
        (relay, store)
    }

    async fn submit(&self, relay: &Relay) {
        let indexed = self.head().await;
        relay.submit(&self.call, &self.proposed(), GasBounds::NONE, indexed).await.unwrap();
    }

    async fn record(&self, relay: &Relay) -> PreparedTx {
        let indexed = self.head().await;
        relay.record(&self.call, &self.proposed(), GasBounds::NONE, indexed).await.unwrap()
    }

    async fn head(&self) -> u64 {
        self.market.reader.rpc().head().await.unwrap().number
    }

    async fn only_record(&self, store: &Store) -> TxRecord {
        let records = store.matches_of(self.fill.developer_offer, 10).await.unwrap();
        <[TxRecord; 1]>::try_from(records).unwrap().into_iter().next().unwrap()
    }

    async fn set_next_base_fee(&self, wei: u128) {
        let wei = format!("{wei:#x}");
        self.market.anvil.call("anvil_setNextBlockBaseFeePerGas", serde_json::json!([wei])).await;
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
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.record(&relay).await;
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
}

#[tokio::test]
async fn a_transaction_that_a_reorganization_removed_is_sent_again() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.submit(&relay).await;
        let first = outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
        let head = outbox.market.reader.rpc().head().await.unwrap().number;

        outbox.market.anvil.reorg(head - first + 1).await;
        assert_eq!(fold(&outbox.market).await.deals.len(), 0);
        relay.reconcile(1).await.unwrap();
        let second = outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
        assert!(second > first, "{second} is not after {first}");
        assert_eq!(fold(&outbox.market).await.deals.len(), 1);
    }
}

#[tokio::test]
async fn a_transaction_whose_nonce_is_taken_is_abandoned_and_its_offers_are_free_again() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.record(&relay).await;
        let same_account = outbox.market.sender(18).await;
        same_account.send(&calls::approve(outbox.market.token, outbox.market.market, Atoms::ZERO)).await.unwrap();

        outbox.reach(&relay, &store, &[TxStatus::Abandoned]).await;
        assert_eq!(store.pending_fills(1).await.unwrap(), []);
        outbox.submit(&relay).await;
        outbox.reach(&relay, &store, &[TxStatus::Mined, TxStatus::Abandoned]).await;
        assert_eq!(fold(&outbox.market).await.deals.len(), 1);
    }
}

#[tokio::test]
async fn a_demand_that_the_contract_forbids_is_held_for_longer_every_time() {
    for database in databases().await {
        // Less than the provider asks for, which never changes: nobody would plan it.
        let outbox = Outbox::new(database, 69).await;
        let (relay, store) = outbox.relay().await;
        let (mut sent, mut holds) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            outbox.submit(&relay).await;
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
}

#[tokio::test]
async fn a_lost_race_is_told_from_a_mistake_and_holds_nobody() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.market.anvil.set_automine(false).await;
        let other = outbox.market.sender(17).await;
        let theirs = other.prepare(&outbox.call).await.unwrap();
        other.broadcast(&theirs).await.unwrap();
        outbox.submit(&relay).await;
        outbox.market.anvil.mine(1).await;
        let tallies = relay.reconcile(1).await.unwrap();
        assert_eq!(tallies, [Tally { won: 0, lost: 1 }]);
        assert_eq!(store.held(1).await.unwrap(), BTreeSet::new());
        assert_eq!(fold(&outbox.market).await.deals.len(), 1);
    }
}

#[tokio::test]
async fn a_stuck_transaction_gets_a_higher_fee_and_is_carried_out_once() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.market.anvil.set_automine(false).await;
        outbox.submit(&relay).await;
        let first = outbox.only_record(&store).await.prepared;
        let recorded = outbox.head().await;
        relay.reconcile(recorded + REPRICE_AFTER - 1).await.unwrap();
        assert_eq!(outbox.only_record(&store).await.replaced, []);
        relay.reconcile(recorded + REPRICE_AFTER).await.unwrap();
        let record = outbox.only_record(&store).await;
        assert_eq!((record.id, &record.replaced, record.status), (first.hash, &vec![first.clone()], TxStatus::Sent));
        assert_eq!(record.prepared.nonce, first.nonce);
        assert!(record.prepared.max_fee_per_gas().unwrap() > first.max_fee_per_gas().unwrap());

        // The crash: what is written down is not sent yet. Whoever starts next sends it.
        let dearer = outbox.market.sender(18).await.reprice(&record.prepared, u128::MAX).await.unwrap();
        store.record_attempt(record.id, &dearer, recorded).await.unwrap();
        drop((relay, store));
        let (relay, store) = outbox.relay().await;
        relay.reconcile(recorded).await.unwrap();
        outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
        let record = outbox.only_record(&store).await;
        assert_eq!((record.prepared.hash, record.replaced.len()), (dearer.hash, 2));
        assert_eq!(outbox.transactions_sent().await, 1);
        assert_eq!(fold(&outbox.market).await.deals.len(), 1);
    }
}

#[tokio::test]
async fn an_earlier_attempt_that_is_mined_after_all_counts() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.market.anvil.set_automine(false).await;
        outbox.submit(&relay).await;
        let record = outbox.only_record(&store).await;
        let dearer = outbox.market.sender(18).await.reprice(&record.prepared, u128::MAX).await.unwrap();
        store.record_attempt(record.id, &dearer, 1).await.unwrap();
        // Before the dearer one is sent, a block takes the first.
        outbox.market.anvil.mine(1).await;
        relay.reconcile(1).await.unwrap();
        let mined = outbox.only_record(&store).await;
        assert_eq!((mined.status, mined.prepared.hash), (TxStatus::Mined, record.prepared.hash));
        assert_eq!(mined.replaced, [dearer]);
        // A reorganization takes it back: it is followed as before, and carried out once.
        outbox.market.anvil.reorg(1).await;
        relay.reconcile(1).await.unwrap();
        outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
        assert_eq!(fold(&outbox.market).await.deals.len(), 1);
        assert_eq!(outbox.transactions_sent().await, 1);
    }
}

#[tokio::test]
async fn a_transaction_that_the_node_has_dropped_is_sent_again() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        outbox.market.anvil.set_automine(false).await;
        outbox.submit(&relay).await;
        let hash = outbox.only_record(&store).await.prepared.hash;
        outbox.market.anvil.call("anvil_dropTransaction", serde_json::json!([hash])).await;
        outbox.market.anvil.mine(1).await;
        assert_eq!(outbox.transactions_sent().await, 0);
        outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
        assert_eq!(outbox.only_record(&store).await.prepared.hash, hash);
    }
}

#[tokio::test]
async fn fees_follow_the_base_fee_up_to_the_ceiling_and_wait_below_it() {
    for mut outbox in outboxes().await {
        outbox.max_fee_per_gas = 50 * GWEI;
        let (relay, store) = outbox.relay().await;
        outbox.market.anvil.set_automine(false).await;
        outbox.submit(&relay).await;
        let first = outbox.only_record(&store).await.prepared;
        assert!(first.max_fee_per_gas().unwrap() < 20 * GWEI);

        // Above what it offers, but not above the ceiling.
        outbox.set_next_base_fee(20 * GWEI).await;
        outbox.market.anvil.mine(1).await;
        relay.reconcile(outbox.head().await + REPRICE_AFTER).await.unwrap();
        let record = outbox.only_record(&store).await;
        assert_eq!((record.status, record.prepared.nonce), (TxStatus::Sent, first.nonce));
        let offered = record.prepared.max_fee_per_gas().unwrap();
        assert!((40 * GWEI..=50 * GWEI).contains(&offered), "{offered}");
        assert!(!relay.was_too_dear());

        // Above the ceiling: it waits, and nothing new is written down.
        outbox.set_next_base_fee(90 * GWEI).await;
        outbox.market.anvil.mine(1).await;
        let head = outbox.head().await;
        relay.reconcile(head + 10 * REPRICE_AFTER).await.unwrap();
        assert!(relay.was_too_dear());
        let error = relay.record(&outbox.call, &outbox.proposed(), GasBounds::NONE, head).await.unwrap_err();
        assert!(error.is_transient() && error.in_full().contains("ceiling of 50000000000 wei"), "{}", error.in_full());
        assert!(relay.was_too_dear());
        assert_eq!(outbox.only_record(&store).await, record);

        // Empty blocks make gas cheaper, and it is mined as it was.
        outbox.reach(&relay, &store, &[TxStatus::Mined]).await.unwrap();
        assert_eq!(outbox.only_record(&store).await.prepared, record.prepared);
        assert_eq!(outbox.transactions_sent().await, 1);
    }
}

#[tokio::test]
async fn a_gap_in_the_nonces_is_filled_before_anything_is_put_behind_it() {
    for outbox in outboxes().await {
        let (relay, store) = outbox.relay().await;
        let first = outbox.record(&relay).await;
        let second = outbox.record(&relay).await;
        assert_eq!(second.nonce, first.nonce + 1, "what is written down is taken, sent or not");
        store.finish(first.hash, None, &Outcome::Abandoned).await.unwrap();
        let third = outbox.record(&relay).await;
        assert_eq!(third, first, "the same call, nonce and fees: what was given up comes back");
        outbox.reach(&relay, &store, &[TxStatus::Mined, TxStatus::Mined]).await;
        assert_eq!(outbox.transactions_sent().await, 2);
        assert_eq!(fold(&outbox.market).await.deals.len(), 1);
    }
}

#[tokio::test]
async fn a_call_above_its_gas_budget_is_not_written_down() {
    let [database, _] = databases().await;
    let outbox = Outbox::new(database, 1_000).await;
    let (relay, store) = outbox.relay().await;
    let record = async |gas| relay.record(&outbox.call, &outbox.proposed(), gas, 1).await;
    let error = record(GasBounds { least: 0, most: 50_000 }).await.unwrap_err();
    assert!(!matches!(&error, MatcherError::Chain(error) if error.is_transient()), "{error}");
    assert!(error.in_full().contains("above its budget of 50000"), "{}", error.in_full());
    assert_eq!(store.matches_of(outbox.fill.developer_offer, 1).await.unwrap(), []);
    let tx = record(GasBounds { least: 1_234_567, most: 2_000_000 }).await.unwrap();
    assert_eq!(tx.gas_limit().unwrap(), 1_234_567);
}
