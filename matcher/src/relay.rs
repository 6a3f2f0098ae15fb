//! The outbox: a transaction is written down, then sent, then followed until it is mined and the block has settled.
//!
//! A crash between writing and sending leaves a recorded transaction, which the next round sends. It has its nonce in it,
//! so that sending it again can never carry it out twice. Offers of transactions under way are held back from planning
//! until the indexer has seen what became of them.

use std::collections::BTreeMap;

use chain::{Call, ChainError, PreparedTx, TxReceipt, TxSender};
use common::{
    clock::SharedClock,
    event::{MarketEvent, Reason},
    ids::OfferHash,
};
use matching::snapshot::PendingFill;

use crate::{
    error::MatcherError,
    metrics::Metrics,
    store::{FillOutcome, Outcome, Proposed, Store, TxRecord, TxStatus},
};

/// Blocks after which a mined transaction is no longer looked after: deeper reorganizations are put right by planning
/// anew, since the contract never opens a deal twice.
const SETTLED_AFTER_BLOCKS: u64 = 16;

/// Sends transactions of the matcher's account, each once.
#[derive(Clone)]
pub(crate) struct Relay {
    store: Store,
    sender: TxSender,
    clock: SharedClock,
    metrics: Metrics,
}

impl Relay {
    pub(crate) const fn new(store: Store, sender: TxSender, clock: SharedClock, metrics: Metrics) -> Self {
        Self { store, sender, clock, metrics }
    }

    /// Simulates and signs `call`, and writes it down. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] when the chain would refuse it now: then nothing is written down.
    pub(crate) async fn record(
        &self,
        call: &Call,
        proposed: &Proposed,
        indexed: u64,
    ) -> Result<PreparedTx, MatcherError> {
        let tx = self.sender.prepare(call).await?;
        self.store.record(&tx, proposed, indexed).await?;
        let fills = if let Proposed::Fills(fills) = proposed { fills.len() } else { 0 };
        self.metrics.transaction_recorded(proposed.kind(), tx.hash, fills);
        Ok(tx)
    }

    /// Writes `call` down and sends it.
    pub(crate) async fn submit(&self, call: &Call, proposed: &Proposed, indexed: u64) -> Result<(), MatcherError> {
        let prepared = self.record(call, proposed, indexed).await?;
        let status = TxStatus::Recorded;
        let record = TxRecord { kind: proposed.kind(), prepared, status, recorded_block: indexed, mined_block: None };
        self.send(&record).await
    }

    /// Brings every transaction that may still change up to date, and sends those that no node has. Called before
    /// anything new is planned: at the start, and in every round.
    ///
    /// # Errors
    /// Transient ones, after which nothing new must be prepared: a recorded transaction may still need its nonce.
    pub(crate) async fn reconcile(&self, indexed: u64) -> Result<(), MatcherError> {
        for record in self.store.unsettled(indexed.saturating_sub(SETTLED_AFTER_BLOCKS)).await? {
            let receipt = self.sender.receipt(record.prepared.hash).await?;
            match receipt {
                Some(receipt) => self.mined(&record, &receipt).await?,
                None => {
                    if matches!(record.status, TxStatus::Mined | TxStatus::Failed) {
                        self.metrics.transaction_lost(record.kind, record.prepared.hash);
                        self.store.set_status(record.prepared.hash, TxStatus::Recorded).await?;
                    }
                    self.send(&record).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, record: &TxRecord) -> Result<(), MatcherError> {
        let hash = record.prepared.hash;
        match self.sender.broadcast(&record.prepared).await {
            Ok(()) => {
                if record.status != TxStatus::Sent {
                    self.store.set_status(hash, TxStatus::Sent).await?;
                    self.metrics.transaction_sent(record.kind, hash);
                }
                Ok(())
            }
            Err(ChainError::NonceTaken { .. }) => self.finish(record, Outcome::Abandoned).await,
            Err(error) => {
                // What a node will never take is planned anew. Should another node mine it after all, then the contract
                // passes over whatever is proposed a second time.
                if !error.is_transient() {
                    self.finish(record, Outcome::Abandoned).await?;
                }
                Err(error.into())
            }
        }
    }

    async fn mined(&self, record: &TxRecord, receipt: &TxReceipt) -> Result<(), MatcherError> {
        let is_noted = matches!(record.status, TxStatus::Mined | TxStatus::Failed);
        if is_noted && record.mined_block == Some(receipt.block) {
            return Ok(());
        }
        let block = receipt.block;
        let outcome = if receipt.success {
            Outcome::Mined { block, fills: outcomes(receipt) }
        } else {
            Outcome::Failed { block }
        };
        self.finish(record, outcome).await
    }

    async fn finish(&self, record: &TxRecord, outcome: Outcome) -> Result<(), MatcherError> {
        self.store.finish(record.prepared.hash, &outcome).await?;
        self.metrics.transaction_finished(record.kind, record.prepared.hash, &outcome);
        let Outcome::Mined { fills, .. } = outcome else { return Ok(()) };
        // A signature that a contract account no longer stands by will not be accepted next time either.
        let invalid: Vec<OfferHash> = fills
            .iter()
            .filter_map(|(fill, outcome)| match outcome {
                FillOutcome::Refused(Reason::DeveloperSignatureInvalid) => Some(fill.developer_offer),
                FillOutcome::Refused(Reason::ProviderSignatureInvalid) => Some(fill.provider_offer),
                _ => None,
            })
            .collect();
        if !invalid.is_empty() {
            self.store.close_offers(&invalid, self.clock.unix_seconds()).await?;
        }
        Ok(())
    }
}

/// What became of each fill: a match that was passed over as a whole counts for every fill that was not named.
fn outcomes(receipt: &TxReceipt) -> Vec<(PendingFill, FillOutcome)> {
    let mut outcomes: BTreeMap<PendingFill, FillOutcome> = BTreeMap::new();
    for placed in &receipt.events {
        match &placed.event {
            MarketEvent::DealOpened(opened) => {
                let (developer_offer, provider_offer) = (opened.developer_offer, opened.provider_offer);
                outcomes.insert(PendingFill { developer_offer, provider_offer }, FillOutcome::Opened);
            }
            MarketEvent::FillSkipped { developer_offer, provider_offer, reason } => {
                let fill = PendingFill { developer_offer: *developer_offer, provider_offer: *provider_offer };
                outcomes.insert(fill, FillOutcome::Refused(*reason));
            }
            MarketEvent::MatchSkipped { developer_offer, reason } => {
                // The zero hash stands for "whoever was proposed".
                let fill = PendingFill { developer_offer: *developer_offer, provider_offer: OfferHash::ZERO };
                outcomes.insert(fill, FillOutcome::Refused(*reason));
            }
            _ => (),
        }
    }
    outcomes.into_iter().collect()
}
