//! The loop: after every committed block, and whenever an offer comes in, look at the market, send one match transaction
//! for what can be matched, and end the deals that are due.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chain::{Call, ChainError, MatchProposal, calls, eip712};
use common::{clock::SharedClock, epoch::Epoch, event::BlockRef, ids::DealId, shutdown::Shutdown};
use matching::{
    ends::{self, Due},
    snapshot::PendingFill,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    error::MatcherError,
    health::Health,
    metrics::Metrics,
    relay::Relay,
    store::{Proposed, Store, TxKind},
    view::{PlannedMatch, View, Views},
};

/// Pause after a round that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest call data of one transaction, in bytes: nodes take transactions of up to 128 KiB.
const MAX_CALL_BYTES: usize = 120_000;
/// Most deals that one round ends.
const MAX_ENDS: usize = 8;
/// How long void offers and finished transactions are remembered, in seconds and in blocks.
const REMEMBERED_SECONDS: u64 = 7 * 86_400;
const REMEMBERED_BLOCKS: u64 = 200_000;
/// Where the node names no final block: blocks after which a signed offer that the chain knows is no longer kept for the
/// case of a reorganization.
const FINALITY_BLOCKS: u64 = 256;

pub(crate) struct Loop {
    pub(crate) views: Arc<Views>,
    pub(crate) relay: Relay,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: SharedClock,
    pub(crate) max_fills: usize,
    pub(crate) ticks: watch::Receiver<Option<BlockRef>>,
    /// An offer came in.
    pub(crate) wake: Arc<Notify>,
    pub(crate) shutdown: Shutdown,
    /// Ends that the contract refused, with the epoch in which it did: not tried again in the same one.
    pub(crate) refused_ends: BTreeMap<DealId, Epoch>,
    /// Epoch in which old rows were last removed.
    pub(crate) tidied_in: Option<Epoch>,
}

impl Loop {
    /// Runs until shutdown. A round is never broken off in the middle: what is recorded is also sent.
    pub(crate) async fn run(mut self) -> Result<(), MatcherError> {
        loop {
            let began = Instant::now();
            let failed = match self.round().await {
                Ok(()) => {
                    self.metrics.tick_done(began.elapsed());
                    self.health.round_done();
                    false
                }
                Err(error) if error.is_transient() => {
                    self.metrics.tick_failed(&error);
                    self.health.round_failed(&error);
                    true
                }
                Err(error) => return Err(error),
            };
            let pause =
                async { if failed { tokio::time::sleep(RETRY_AFTER).await } else { std::future::pending().await } };
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                changed = self.ticks.changed() => changed.map_err(|_| MatcherError::IndexerStopped)?,
                () = self.wake.notified() => (),
                () = pause => (),
            }
        }
    }

    async fn round(&mut self) -> Result<(), MatcherError> {
        self.ticks.borrow_and_update();
        let Some(indexed) = self.views.indexed().await? else { return Ok(()) };
        self.relay.reconcile(indexed).await?;
        self.views.changed();
        let view = self.views.now().await?;
        self.metrics.market_seen(view.open_demands(), view.snapshot.supplies.len());
        self.housekeeping(&view).await?;
        self.send_matches(&view).await?;
        self.end_deals(&view).await
    }

    async fn send_matches(&self, view: &Arc<View>) -> Result<(), MatcherError> {
        // A demand whose hosts do not fit into what is left waits for the next transaction, and all later ones behind
        // it: nobody overtakes.
        let mut room = self.max_fills;
        let now = view.matches.iter().map_while(|planned| {
            room = room.checked_sub(planned.fills.len())?;
            Some(Planned::of(planned))
        });
        let mut planned: Vec<Planned> = now.collect();
        if planned.is_empty() {
            return Ok(());
        }
        let call = self.fit(&mut planned);
        match self.submit(&call, &planned, view.indexed()).await {
            // One of them spoils it for all: each for itself.
            Err(MatcherError::Chain(error)) if !error.is_transient() && planned.len() > 1 => {
                for one in planned {
                    let call = self.call(std::slice::from_ref(&one));
                    self.submit_or_hold(&call, &[one], view.indexed()).await?;
                }
            }
            Err(MatcherError::Chain(error)) if !error.is_transient() => {
                self.hold(&planned, &error, view.indexed()).await?;
            }
            other => other?,
        }
        self.views.changed();
        Ok(())
    }

    /// Leaves the last matches, then the dearest hosts of the only one, for the next round until the call is short
    /// enough.
    fn fit(&self, planned: &mut Vec<Planned>) -> Call {
        loop {
            let call = self.call(planned);
            if call.data.len() <= MAX_CALL_BYTES {
                return call;
            }
            match planned.as_mut_slice() {
                [only] if only.proposal.providers.len() > 1 => {
                    only.proposal.providers.pop();
                    only.fills.pop();
                }
                [] | [_] => return call,
                _ => drop(planned.pop()),
            }
        }
    }

    fn call(&self, planned: &[Planned]) -> Call {
        let proposals: Vec<MatchProposal> = planned.iter().map(|planned| planned.proposal.clone()).collect();
        calls::match_offers(self.views.terms.market, &proposals)
    }

    async fn submit(&self, call: &Call, planned: &[Planned], indexed: u64) -> Result<(), MatcherError> {
        let fills = planned.iter().flat_map(|planned| planned.fills.clone()).collect();
        self.relay.submit(call, &Proposed::Fills(fills), indexed).await
    }

    async fn submit_or_hold(&self, call: &Call, planned: &[Planned], indexed: u64) -> Result<(), MatcherError> {
        match self.submit(call, planned, indexed).await {
            Err(MatcherError::Chain(error)) if !error.is_transient() => self.hold(planned, &error, indexed).await,
            other => other,
        }
    }

    async fn hold(&self, planned: &[Planned], error: &ChainError, indexed: u64) -> Result<(), MatcherError> {
        for demand in planned.iter().filter_map(|planned| planned.fills.first()).map(|fill| fill.developer_offer) {
            self.metrics.match_refused(demand, error);
            self.store.hold(demand, indexed).await?;
        }
        Ok(())
    }

    async fn end_deals(&mut self, view: &View) -> Result<(), MatcherError> {
        let epoch = view.snapshot.conditions.epoch;
        self.refused_ends.retain(|_, refused_in| *refused_in == epoch);
        let under_way = self.store.pending_ends(view.indexed()).await?;
        let due = ends::due(&view.state, &self.views.terms, epoch);
        let now = due
            .into_iter()
            .filter(|due| !under_way.contains(&due.deal()) && !self.refused_ends.contains_key(&due.deal()))
            .take(MAX_ENDS)
            .collect::<Vec<_>>();
        let market = self.views.terms.market;
        for due in now {
            let Some(known) = view.state.deals.get(&due.deal()) else { continue };
            let deal = known.deal.reference();
            let (kind, call) = match due {
                Due::Evict(_) => (TxKind::Evict, calls::evict(market, &deal)),
                Due::Close(_) => (TxKind::Close, calls::close_deal(market, &deal)),
            };
            match self.relay.submit(&call, &Proposed::EndOf(kind, due.deal()), view.indexed()).await {
                Err(MatcherError::Chain(error)) if !error.is_transient() => {
                    self.metrics.end_refused(kind, due.deal(), &error);
                    self.refused_ends.insert(due.deal(), epoch);
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Notes what the chain knows, closes what is void, and once an epoch forgets what is old.
    async fn housekeeping(&mut self, view: &View) -> Result<(), MatcherError> {
        let (indexed, now) = (view.indexed(), self.clock.unix_seconds());
        let sorted = view.sort_signed();
        if !sorted.void.is_empty() {
            self.store.close_offers(&sorted.void, now).await?;
        }
        if !sorted.appeared.is_empty() || !sorted.vanished.is_empty() {
            self.store.note_chain(&sorted.appeared, &sorted.vanished, indexed).await?;
        }
        let epoch = view.snapshot.conditions.epoch;
        if self.tidied_in != Some(epoch) {
            self.store.close_settled(indexed.saturating_sub(FINALITY_BLOCKS), now).await?;
            self.store.prune_offers(now.saturating_sub(REMEMBERED_SECONDS)).await?;
            self.store.prune_transactions(indexed.saturating_sub(REMEMBERED_BLOCKS)).await?;
            self.tidied_in = Some(epoch);
        }
        Ok(())
    }
}

/// A planned match, ready to be encoded.
struct Planned {
    proposal: MatchProposal,
    fills: Vec<PendingFill>,
}

impl Planned {
    fn of(planned: &PlannedMatch) -> Self {
        let demand = &planned.demand;
        let supplies = planned.fills.iter().map(|(supply, _)| supply);
        Self {
            proposal: MatchProposal {
                developer: demand.offer.clone(),
                developer_signature: eip712::compact(demand.hash, demand.offer.developer, &demand.signature),
                providers: supplies
                    .clone()
                    .map(|supply| {
                        let signature = eip712::compact(supply.hash, supply.offer.provider, &supply.signature);
                        (supply.offer.clone(), signature)
                    })
                    .collect(),
            },
            fills: supplies
                .map(|supply| PendingFill { developer_offer: demand.hash, provider_offer: supply.hash })
                .collect(),
        }
    }
}
