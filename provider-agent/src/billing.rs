//! Attests and claims, from an outbox: a transaction is recorded, then sent, then followed to its end; after a crash the outbox
//! is settled before anything new is planned. What to send follows from the chain each time, so that nothing is sent twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chain::{Call, ChainError, TxReceipt, calls};
use common::{
    clock::SharedClock,
    deal::{Deal, DealRef, DealState},
    epoch::Epoch,
    ids::{Address, DealId},
    money::Atoms,
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    domain::{
        billing::{BillingPlan, Books, epochs_of_interest},
        receipts,
    },
    follow::ChainView,
    metrics::Metrics,
    replicas::Replicas,
    store::{Purpose, Store, StoreError, TxEnd},
};

/// How long a transaction is waited for before other work goes on; it is followed all the same.
const MINED_TIMEOUT: Duration = Duration::from_secs(12);
/// Pause before an unfinished transaction is looked at again, should no block come before.
const UNFINISHED_PAUSE: Duration = Duration::from_secs(2);
/// Transactions that are looked at after a reorganisation.
const MAX_REVIVED: u32 = 16;
/// Deals in one claim: about 2 million gas.
const CLAIMS_PER_TRANSACTION: usize = 100;
/// Epochs whose attestation is asked for, at most.
const MAX_EPOCHS_ASKED: u32 = 256;
/// Seconds before the very same claim is sent again.
const SAME_CLAIM_AFTER: u64 = 60;

/// Billing could not go on; it is tried again at the next block.
#[derive(Debug, Error)]
pub(crate) enum BillingError {
    #[error("the chain did not do it")]
    Chain(#[from] ChainError),
    #[error("the database did not do it")]
    Store(#[from] StoreError),
}

/// An attestation that the chain has.
#[derive(Debug, Clone, Copy)]
struct Attested {
    /// Head when it was seen.
    seen_at: u64,
}

/// What a claim was sent for: the same is not sent twice in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClaimKey {
    settled_until: Epoch,
    last_attested: Option<Epoch>,
}

/// Bills for all deals of one key. Only one may run for a key.
pub(crate) struct Biller {
    pub(crate) agent: Address,
    pub(crate) store: Store,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    /// Blocks that may be replaced: attestations younger than this are asked for again.
    pub(crate) reorg_margin: u64,
    memory: Memory,
}

/// What was learned in this run of the program; the chain knows all of it.
#[derive(Default)]
struct Memory {
    attested: BTreeMap<Epoch, Attested>,
    renewed: BTreeMap<DealId, Epoch>,
    claimed: BTreeMap<DealId, (ClaimKey, u64)>,
    /// Epoch up to which old records were removed.
    pruned: Epoch,
    /// Block that our last transaction is in: what was read before it is out of date.
    mined_in: u64,
}

impl Biller {
    pub(crate) fn new(
        agent: Address,
        (store, replicas, metrics, clock): (Store, Arc<Replicas>, Metrics, SharedClock),
        reorg_margin: u64,
    ) -> Self {
        Self { agent, store, replicas, metrics, clock, reorg_margin, memory: Memory::default() }
    }

    /// Bills at every new block, and sooner where something is unfinished, until `stop`.
    pub(crate) async fn run(mut self, mut views: watch::Receiver<Option<ChainView>>, stop: Shutdown) {
        let mut is_finished = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = views.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(UNFINISHED_PAUSE), if !is_finished => (),
            }
            let view = views.borrow_and_update().clone();
            let Some(view) = view else { continue };
            is_finished = match self.bill(&view).await {
                Ok(is_finished) => is_finished,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "billing is tried again");
                    false
                }
            };
        }
    }

    /// True when nothing is on its way any more.
    async fn bill(&mut self, view: &ChainView) -> Result<bool, BillingError> {
        if !self.settle_outbox(view).await? {
            return Ok(false);
        }
        if view.head.number < self.memory.mined_in {
            return Ok(true);
        }
        let deals: Vec<Deal> =
            self.replicas.deals().into_iter().filter(|deal| deal.state != DealState::Ended).collect();
        if deals.is_empty() {
            return Ok(true);
        }
        let free = self.free_balances(view, &deals).await?;
        self.learn_attested(view, &deals).await?;
        let plan = self.plan(view, &deals, &free).await?;
        for epoch in &plan.attest {
            if !self.attest(view, *epoch, &plan).await? {
                return Ok(true);
            }
        }
        // What was just attested can be claimed at once.
        let plan = self.plan(view, &deals, &free).await?;
        self.claim(view, &deals, &plan).await?;
        self.prune(view, &deals).await?;
        Ok(true)
    }

    async fn plan(
        &self,
        view: &ChainView,
        deals: &[Deal],
        free: &BTreeMap<DealId, Atoms>,
    ) -> Result<BillingPlan, BillingError> {
        let window = view.terms().attestation_window;
        let served = self.store.served_since(view.epoch.minus(window)).await?;
        let attested: BTreeSet<Epoch> = self.memory.attested.keys().copied().collect();
        let books = Books {
            now: view.epoch,
            attestation_window: window,
            deals,
            served: &served,
            attested: &attested,
            free,
            renewed: &self.memory.renewed,
        };
        Ok(books.plan())
    }

    /// Follows every transaction whose end is not known; true when there is none left.
    async fn settle_outbox(&mut self, view: &ChainView) -> Result<bool, BillingError> {
        let mut is_settled = true;
        for open in self.store.open_txs().await? {
            if let Some(receipt) = view.sender.receipt(open.tx.hash).await? {
                self.ended(open.id, open.purpose, &receipt).await?;
                continue;
            }
            self.revive_before(view, open.id).await?;
            match view.sender.broadcast(&open.tx).await {
                Ok(()) => is_settled = false,
                Err(ChainError::NonceTaken { .. }) => {
                    tracing::warn!(hash = %open.tx.hash, label = open.tx.label, "a transaction was overtaken");
                    self.count(open.purpose, "dropped");
                    self.store.end_tx(open.id, TxEnd::Dropped).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(is_settled)
    }

    /// Sends those again that a reorganisation has taken back: what has a later nonce can only be mined behind them.
    async fn revive_before(&self, view: &ChainView, id: i64) -> Result<(), BillingError> {
        for mined in self.store.mined_before(id, MAX_REVIVED).await? {
            if view.sender.receipt(mined.tx.hash).await?.is_some() {
                continue;
            }
            match view.sender.broadcast(&mined.tx).await {
                Ok(()) => {
                    tracing::info!(hash = %mined.tx.hash, label = mined.tx.label, "sent again after a reorganisation");
                    self.store.record_tx(mined.purpose, &mined.tx, self.clock.unix_seconds()).await?;
                }
                // Something else has its nonce now, so that nothing waits for it.
                Err(ChainError::NonceTaken { .. }) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn ended(&mut self, id: i64, purpose: Purpose, receipt: &TxReceipt) -> Result<(), BillingError> {
        let gas = receipt.gas_used;
        let (end, outcome) = match receipt.success {
            true => (TxEnd::Mined { gas }, "mined"),
            false => (TxEnd::Reverted { gas }, "reverted"),
        };
        self.count(purpose, outcome);
        self.memory.mined_in = self.memory.mined_in.max(receipt.block);
        self.store.end_tx(id, end).await?;
        tracing::info!(hash = %receipt.tx_hash, block = receipt.block, gas, ?purpose, outcome, "transaction");
        Ok(())
    }

    /// Records, sends and follows a call; true when it was mined and did what it should. When it would fail, nothing is sent.
    async fn send(&mut self, view: &ChainView, purpose: Purpose, call: &Call) -> Result<bool, BillingError> {
        let tx = match view.sender.prepare(call).await {
            Ok(tx) => tx,
            Err(ChainError::Reverted { label, reason }) => {
                // Said by the state of the latest block: the next look at the chain shows why.
                tracing::warn!(label, reason, "a call would fail and was not sent");
                self.count(purpose, "refused");
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let id = self.store.record_tx(purpose, &tx, self.clock.unix_seconds()).await?;
        self.count(purpose, "sent");
        match view.sender.broadcast(&tx).await {
            Ok(()) => (),
            Err(ChainError::NonceTaken { .. }) => {
                self.count(purpose, "dropped");
                self.store.end_tx(id, TxEnd::Dropped).await?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        let receipt = view.sender.wait(tx.hash, MINED_TIMEOUT).await?;
        self.ended(id, purpose, &receipt).await?;
        Ok(receipt.success)
    }

    async fn attest(&mut self, view: &ChainView, epoch: Epoch, plan: &BillingPlan) -> Result<bool, BillingError> {
        let root = receipts::root(self.store.requests_between(epoch, epoch).await?);
        for (deal, _) in plan.unserved.iter().filter(|(_, unserved)| *unserved == epoch) {
            self.metrics.unserved.inc();
            tracing::warn!(%deal, %epoch, "this deal's worker was not ready in an epoch that is attested for all deals");
        }
        let is_attested =
            self.send(view, Purpose::Attest(epoch), &calls::attest(view.terms().market, epoch, root)).await?;
        if is_attested {
            self.memory.attested.insert(epoch, Attested { seen_at: view.head.number });
        }
        Ok(is_attested)
    }

    async fn claim(&mut self, view: &ChainView, deals: &[Deal], plan: &BillingPlan) -> Result<(), BillingError> {
        let now = self.clock.unix_seconds();
        // A claim that had its effect is done; should a reorganisation take it back, it is sent again at once.
        let is_without_effect = |id: &DealId, sent: &(ClaimKey, u64)| {
            deals.iter().any(|deal| deal.id == *id && deal.settled_until == sent.0.settled_until)
        };
        self.memory.claimed.retain(|id, sent| is_without_effect(id, sent));
        let last_attested = self.memory.attested.keys().next_back().copied();
        let key = |deal: &Deal| ClaimKey { settled_until: deal.settled_until, last_attested };
        let is_new = |deal: &&Deal| {
            let same = self.memory.claimed.get(&deal.id).filter(|(sent, _)| *sent == key(deal));
            same.is_none_or(|(_, at)| now >= at.saturating_add(SAME_CLAIM_AFTER))
        };
        let claims = deals.iter().filter(|deal| plan.claim.contains(&deal.id) || plan.resume.contains(&deal.id));
        let claims = claims.filter(is_new);
        let renewals = deals.iter().filter(|deal| plan.renew.contains(&deal.id));
        let due: Vec<&Deal> = claims.chain(renewals).collect();
        for chunk in due.chunks(CLAIMS_PER_TRANSACTION) {
            let claimed: Vec<DealRef> = chunk.iter().map(|deal| deal.reference()).collect();
            // Noted first: whatever comes of it, the same is not sent again at once.
            for deal in chunk {
                self.memory.claimed.insert(deal.id, (key(deal), now));
                self.memory.renewed.insert(deal.id, view.epoch);
            }
            self.send(view, Purpose::Claim, &calls::claim(view.terms().market, &claimed)).await?;
        }
        Ok(())
    }

    /// Asks which epochs are attested, as far as that is not known for good.
    async fn learn_attested(&mut self, view: &ChainView, deals: &[Deal]) -> Result<(), BillingError> {
        let window = view.terms().attestation_window;
        let epochs = epochs_of_interest(deals, view.epoch, window, MAX_EPOCHS_ASKED);
        self.memory.attested.retain(|epoch, _| epochs.contains(epoch));
        for epoch in epochs {
            let known = self.memory.attested.get(&epoch);
            if known.is_some_and(|known| view.head.number.saturating_sub(known.seen_at) > self.reorg_margin) {
                continue;
            }
            if view.reader.is_attested(self.agent, epoch).await? {
                self.memory.attested.entry(epoch).or_insert(Attested { seen_at: view.head.number });
            } else {
                self.memory.attested.remove(&epoch);
            }
        }
        Ok(())
    }

    /// Free balances of developers whose deals are unfunded: with money in them, settling lets the deal go on.
    async fn free_balances(&self, view: &ChainView, deals: &[Deal]) -> Result<BTreeMap<DealId, Atoms>, BillingError> {
        let mut free = BTreeMap::new();
        for deal in deals.iter().filter(|deal| deal.unfunded_since.is_some()) {
            free.insert(deal.id, view.reader.free_balance(deal.developer).await?);
        }
        Ok(free)
    }

    /// Once an epoch: forgets what can no longer be attested, and looks at what is left for gas.
    async fn prune(&mut self, view: &ChainView, deals: &[Deal]) -> Result<(), BillingError> {
        if self.memory.pruned == view.epoch {
            return Ok(());
        }
        self.memory.pruned = view.epoch;
        self.store.forget_served_before(view.epoch.minus(view.terms().attestation_window)).await?;
        let is_open = |id: &DealId| deals.iter().any(|deal| deal.id == *id);
        self.memory.renewed.retain(|id, _| is_open(id));
        let gwei = view.reader.rpc().gas_balance(self.agent).await?.div_euclid(1_000_000_000);
        self.metrics.gas_balance.set(i64::try_from(gwei).unwrap_or(i64::MAX));
        if gwei == 0 {
            tracing::error!(agent = %self.agent, "the agent's key has nothing left for gas: it cannot attest, send it some");
        }
        Ok(())
    }

    fn count(&self, purpose: Purpose, outcome: &str) {
        let kind = match purpose {
            Purpose::Attest(_) => "attest",
            Purpose::Claim => "claim",
        };
        self.metrics.transactions.with_label_values(&[kind, outcome]).inc();
    }
}
