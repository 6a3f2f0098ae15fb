//! The outbox: a transaction is written down, then sent, then followed until it is mined and the block has settled.
//!
//! A crash between writing and sending leaves a recorded transaction, which the next round sends. It has its nonce in it,
//! so that sending it again can never carry it out twice. Offers of transactions under way are held back from planning
//! until the indexer has seen what became of them.
//!
//! One that is not mined in time is signed again with the same nonce and a higher fee, up to a ceiling. That is another
//! attempt of the same transaction, written down before it is sent as well; whichever attempt is mined counts. Until then
//! the latest one is sent in every round, so that a node that has dropped it gets it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chain::{Call, ChainError, GasPrice, MarketReader, PreparedTx, TxReceipt, TxSender, TxTerms, calls};
use common::{
    clock::SharedClock,
    event::{MarketBlock, MarketEvent, PlacedEvent, Reason},
    ids::{OfferHash, TxHash},
};
use matching::snapshot::PendingFill;

use crate::{
    error::MatcherError,
    metrics::Metrics,
    races::Meanwhile,
    store::{FillOutcome, Outcome, Proposed, Store, TxRecord, TxStatus},
    turn::Tally,
};

/// Blocks after which a mined transaction is no longer looked after: deeper reorganizations are put right by planning
/// anew, since the contract never opens a deal twice.
const SETTLED_AFTER_BLOCKS: u64 = 16;
/// Most blocks that are searched for what others did before a transaction was mined.
const MAX_BLOCKS_SEARCHED: u64 = 4_096;

/// What gas may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeePolicy {
    /// Most wei for a unit.
    pub(crate) max_fee_per_gas: u128,
    /// Blocks after which a transaction that is not mined gets a higher fee.
    pub(crate) reprice_after_blocks: u64,
}

/// Gas of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GasBounds {
    /// Its limit is not lower.
    pub(crate) least: u64,
    /// Neither its limit nor its estimate is higher.
    pub(crate) most: u64,
}

impl GasBounds {
    /// Whatever it needs.
    pub(crate) const NONE: Self = Self { least: 0, most: u64::MAX };
}

/// What a relay works with.
#[derive(Clone)]
pub(crate) struct RelayParts {
    pub(crate) store: Store,
    pub(crate) sender: TxSender,
    pub(crate) reader: MarketReader,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) fees: FeePolicy,
}

/// Sends transactions of the matcher's account, each once.
#[derive(Clone)]
pub(crate) struct Relay {
    parts: RelayParts,
    /// Whether fees were above the ceiling since it was last asked.
    was_too_dear: Arc<AtomicBool>,
}

impl Relay {
    pub(crate) fn new(parts: RelayParts) -> Self {
        Self { parts, was_too_dear: Arc::default() }
    }

    /// Simulates and signs `call`, and writes it down. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] when the chain would refuse it now, [`ChainError::GasAboveBudget`],
    /// [`ChainError::FeeAboveCeiling`]: then nothing is written down.
    pub(crate) async fn record(
        &self,
        call: &Call,
        proposed: &Proposed,
        gas: GasBounds,
        indexed: u64,
    ) -> Result<PreparedTx, MatcherError> {
        let parts = &self.parts;
        let open = parts.store.open_transactions().await?;
        let terms = TxTerms {
            taken: open.iter().map(|record| record.prepared.nonce).collect(),
            least_gas: gas.least,
            most_gas: gas.most,
            max_fee_per_gas: parts.fees.max_fee_per_gas,
        };
        let tx = parts.sender.prepare_within(call, &terms).await.inspect_err(|error| self.note_ceiling(error))?;
        parts.store.record(&tx, proposed, indexed).await?;
        let fills = if let Proposed::Fills(fills) = proposed { fills.len() } else { 0 };
        parts.metrics.transaction_recorded(proposed.kind(), tx.hash, fills);
        Ok(tx)
    }

    /// Writes `call` down and sends it.
    pub(crate) async fn submit(
        &self,
        call: &Call,
        proposed: &Proposed,
        gas: GasBounds,
        indexed: u64,
    ) -> Result<(), MatcherError> {
        let prepared = self.record(call, proposed, gas, indexed).await?;
        self.send(TxRecord::new(proposed.kind(), prepared, indexed), indexed).await?;
        Ok(())
    }

    /// Transactions that are not mined.
    pub(crate) async fn in_flight(&self) -> Result<usize, MatcherError> {
        Ok(self.parts.store.open_transactions().await?.len())
    }

    /// Most gas of a block.
    pub(crate) async fn block_gas_limit(&self) -> Result<u64, MatcherError> {
        Ok(self.parts.sender.gas_price().await?.block_gas_limit)
    }

    /// Whether the ceiling kept something from being sent since this was last asked.
    pub(crate) fn was_too_dear(&self) -> bool {
        self.was_too_dear.swap(false, Ordering::Relaxed)
    }

    /// Brings every transaction that may still change up to date, and sends those that no node has. Called before
    /// anything new is planned: at the start, and in every round. Says how those fared that were found mined.
    ///
    /// # Errors
    /// Transient ones, after which nothing new must be prepared: a recorded transaction may still need its nonce.
    pub(crate) async fn reconcile(&self, indexed: u64) -> Result<Vec<Tally>, MatcherError> {
        let mut tallies = Vec::new();
        let mut price = None;
        let mut is_first = true;
        for mut record in self.parts.store.unsettled(indexed.saturating_sub(SETTLED_AFTER_BLOCKS)).await? {
            if let Some(receipt) = self.receipt(&record).await? {
                tallies.extend(self.mined(&record, &receipt).await?);
                continue;
            }
            if matches!(record.status, TxStatus::Mined | TxStatus::Failed) {
                self.parts.metrics.transaction_lost(record.kind, record.prepared.hash);
                self.parts.store.set_status(record.id, TxStatus::Recorded).await?;
                record.status = TxStatus::Recorded;
            }
            if self.is_overdue(&record, is_first, indexed, &mut price).await? {
                record = self.reprice(record, indexed).await?.0;
            }
            is_first = false;
            tallies.extend(self.send(record, indexed).await?);
        }
        Ok(tallies)
    }

    /// Whether a higher fee may help: of the transactions that have waited long enough the first, behind which all others
    /// wait, and those that offer less than the base fee.
    async fn is_overdue(
        &self,
        record: &TxRecord,
        is_first: bool,
        indexed: u64,
        price: &mut Option<GasPrice>,
    ) -> Result<bool, MatcherError> {
        if indexed.saturating_sub(record.priced_block) < self.parts.fees.reprice_after_blocks {
            return Ok(false);
        }
        let known = match *price {
            Some(known) => known,
            None => *price.insert(self.parts.sender.gas_price().await?),
        };
        Ok(is_first || record.prepared.max_fee_per_gas()? < known.base)
    }

    /// The next attempt, written down; or the same as it was and false, where the ceiling is reached.
    async fn reprice(&self, mut record: TxRecord, indexed: u64) -> Result<(TxRecord, bool), MatcherError> {
        let parts = &self.parts;
        let attempt = match parts.sender.reprice(&record.prepared, parts.fees.max_fee_per_gas).await {
            Ok(attempt) => attempt,
            Err(error @ ChainError::FeeAboveCeiling { .. }) => {
                self.note_ceiling(&error);
                return Ok((record, false));
            }
            Err(error) => return Err(error.into()),
        };
        parts.store.record_attempt(record.id, &attempt, indexed).await?;
        parts.metrics.transaction_repriced(record.kind, record.prepared.hash, attempt.hash, attempt.nonce);
        record.replaced.push(std::mem::replace(&mut record.prepared, attempt));
        record.status = TxStatus::Recorded;
        record.priced_block = indexed;
        Ok((record, true))
    }

    fn note_ceiling(&self, error: &ChainError) {
        if matches!(error, ChainError::FeeAboveCeiling { .. }) {
            self.was_too_dear.store(true, Ordering::Relaxed);
            self.parts.metrics.fees_too_high(error);
        }
    }

    /// Hands the latest attempt to the node. Where the node does not keep it because fees rose, so does this one's.
    async fn send(&self, mut record: TxRecord, indexed: u64) -> Result<Option<Tally>, MatcherError> {
        let mut sent = self.parts.sender.broadcast(&record.prepared).await;
        if let Err(ChainError::Underpriced { .. }) = sent {
            let is_dearer;
            (record, is_dearer) = self.reprice(record, indexed).await?;
            if !is_dearer {
                // It is cheaper to wait than the operator would have it: not a failure.
                return Ok(None);
            }
            sent = self.parts.sender.broadcast(&record.prepared).await;
        }
        match sent {
            Ok(()) => {
                if record.status != TxStatus::Sent {
                    self.parts.store.set_status(record.id, TxStatus::Sent).await?;
                    self.parts.metrics.transaction_sent(record.kind, record.prepared.hash);
                }
                Ok(None)
            }
            // Another attempt may have been mined since it was looked for.
            Err(ChainError::NonceTaken { .. }) => match self.receipt(&record).await? {
                Some(receipt) => self.mined(&record, &receipt).await,
                None => self.finish(&record, None, Outcome::Abandoned).await.map(|()| None),
            },
            Err(error) => {
                // What a node will never take is planned anew. Should another node mine it after all, then the contract
                // passes over whatever is proposed a second time.
                if !error.is_transient() {
                    self.finish(&record, None, Outcome::Abandoned).await?;
                }
                Err(error.into())
            }
        }
    }

    /// The receipt of whichever attempt is in a block.
    async fn receipt(&self, record: &TxRecord) -> Result<Option<TxReceipt>, MatcherError> {
        for attempt in record.attempts() {
            if let Some(receipt) = self.parts.sender.receipt(attempt.hash).await? {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    async fn mined(&self, record: &TxRecord, receipt: &TxReceipt) -> Result<Option<Tally>, MatcherError> {
        let is_noted = matches!(record.status, TxStatus::Mined | TxStatus::Failed);
        if is_noted && record.mined_block == Some(receipt.block) && record.prepared.hash == receipt.tx_hash {
            return Ok(None);
        }
        let block = receipt.block;
        if !receipt.success {
            self.finish(record, Some(receipt.tx_hash), Outcome::Failed { block }).await?;
            return Ok(None);
        }
        let fills = self.outcomes(record, receipt).await?;
        let count = |is_counted: fn(&FillOutcome) -> bool| fills.iter().filter(|(_, what)| is_counted(what)).count();
        let tally = Tally {
            won: count(|what| *what == FillOutcome::Opened),
            lost: count(|what| matches!(what, FillOutcome::Raced(_))),
        };
        self.finish(record, Some(receipt.tx_hash), Outcome::Mined { block, fills }).await?;
        Ok(Some(tally))
    }

    async fn finish(&self, record: &TxRecord, mined: Option<TxHash>, outcome: Outcome) -> Result<(), MatcherError> {
        self.parts.store.finish(record.id, mined, &outcome).await?;
        self.parts.metrics.transaction_finished(record.kind, mined.unwrap_or(record.prepared.hash), &outcome);
        let Outcome::Mined { fills, .. } = outcome else { return Ok(()) };
        // A signature that a contract account no longer stands by will not be accepted next time either.
        let invalid: Vec<OfferHash> = fills
            .iter()
            .filter_map(|(fill, outcome)| match outcome {
                FillOutcome::Raced(Reason::DeveloperSignatureInvalid)
                | FillOutcome::Refused(Reason::DeveloperSignatureInvalid) => Some(fill.developer_offer),
                FillOutcome::Raced(Reason::ProviderSignatureInvalid)
                | FillOutcome::Refused(Reason::ProviderSignatureInvalid) => Some(fill.provider_offer),
                _ => None,
            })
            .collect();
        if !invalid.is_empty() {
            self.parts.store.close_offers(&invalid, self.parts.clock.unix_seconds()).await?;
        }
        Ok(())
    }

    /// What became of each fill, and of those that were passed over, why.
    async fn outcomes(
        &self,
        record: &TxRecord,
        receipt: &TxReceipt,
    ) -> Result<Vec<(PendingFill, FillOutcome)>, MatcherError> {
        let mut outcomes = outcomes(receipt);
        if outcomes.values().any(|outcome| *outcome != FillOutcome::Opened) {
            let blocks = self.blocks_between(record, receipt).await?;
            let events = match &blocks {
                Some(blocks) => Some(self.others(blocks, receipt).await?),
                None => None,
            };
            let owners = calls::proposed_owners(&self.parts.reader.domain(), &record.prepared)?;
            Meanwhile { events, owners }.judge(&mut outcomes);
        }
        Ok(outcomes.into_iter().collect())
    }

    /// Blocks after the one that was planned on, up to the transaction's own; none where those are not the same chain or
    /// too many.
    async fn blocks_between(
        &self,
        record: &TxRecord,
        receipt: &TxReceipt,
    ) -> Result<Option<Vec<MarketBlock>>, MatcherError> {
        let passed = receipt.block.checked_sub(record.recorded_block);
        match passed {
            Some(1..=MAX_BLOCKS_SEARCHED) => {
                let from = record.recorded_block.saturating_add(1);
                Ok(Some(self.parts.reader.blocks(from, receipt.block).await?))
            }
            _ => Ok(None),
        }
    }

    /// Events before the transaction that none of this account's caused.
    async fn others<'a>(
        &self,
        blocks: &'a [MarketBlock],
        receipt: &TxReceipt,
    ) -> Result<Vec<&'a MarketEvent>, MatcherError> {
        let place = |placed: &PlacedEvent| (placed.block_number, placed.log_index);
        let own = receipt.events.iter().map(place).min().unwrap_or((receipt.block, 0));
        let before: Vec<&PlacedEvent> =
            blocks.iter().flat_map(|block| &block.events).filter(|placed| place(placed) < own).collect();
        let mut others = BTreeMap::new();
        for hash in before.iter().map(|placed| placed.tx_hash).collect::<BTreeSet<_>>() {
            others.insert(hash, !self.parts.store.is_own(hash).await?);
        }
        let is_others = |placed: &&&PlacedEvent| others.get(&placed.tx_hash).copied().unwrap_or_default();
        Ok(before.iter().filter(is_others).map(|placed| &placed.event).collect())
    }
}

/// What became of each fill: a match that was passed over as a whole counts for every fill that was not named.
fn outcomes(receipt: &TxReceipt) -> BTreeMap<PendingFill, FillOutcome> {
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
    outcomes
}
