//! The loop: after every committed block, and whenever an offer comes in, look at the market, send match transactions
//! for what can be matched, and end the deals that are due.
//!
//! Where several processes share a database, all of this is the leader's; the others look every second whether it is
//! theirs to lead.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chain::{ChainError, calls, sender::TRANSACTION_GAS_CAP};
use common::{
    clock::SharedClock,
    epoch::Epoch,
    event::BlockRef,
    ids::{DealId, OfferHash},
    shutdown::Shutdown,
};
use matching::{ends::Due, market::SortedOffers};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    batch::{self, Batch, Planned},
    error::MatcherError,
    explained::Explaining,
    health::{Health, Role},
    metrics::Metrics,
    relay::{GasBounds, Relay},
    store::{Leadership, Proposed, Standing, Store, TxKind},
    turn::Turn,
    view::{Present, Views},
};

/// Pause after a round that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Time between two looks at a database that other processes write to.
const SHARED_INTERVAL: Duration = Duration::from_secs(1);
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
    /// Most gas of one match transaction.
    pub(crate) max_gas: u64,
    /// Most transactions that are not mined.
    pub(crate) max_in_flight: usize,
    pub(crate) leadership: Leadership,
    /// Leadership and the last change of an offer, as of the last look at a shared database.
    pub(crate) seen: Option<(Standing, u64)>,
    pub(crate) turn: Turn,
    pub(crate) ticks: watch::Receiver<Option<BlockRef>>,
    /// An offer came in.
    pub(crate) wake: Arc<Notify>,
    pub(crate) shutdown: Shutdown,
    /// Ends that the contract refused, with the epoch in which it did: not tried again in the same one.
    pub(crate) refused_ends: BTreeMap<DealId, Epoch>,
    pub(crate) explaining: Explaining,
    /// Epoch in which old rows were last removed.
    pub(crate) tidied_in: Option<Epoch>,
}

/// What a round begins with.
struct Seen {
    /// Height of the last indexed block.
    indexed: u64,
    /// That of the block's time.
    epoch: Epoch,
    open_demands: usize,
    open_supplies: usize,
    /// Demands that can be matched, in order of service.
    matchable: Vec<OfferHash>,
    /// What is to be noted of signed offers.
    sorted: SortedOffers,
}

impl Loop {
    /// Runs until shutdown. A round is never broken off in the middle: what is recorded is also sent.
    pub(crate) async fn run(mut self) -> Result<(), MatcherError> {
        let mut has_news = true;
        loop {
            let is_well = !has_news || self.timed_round().await?;
            let pause = match (is_well, self.leadership.is_shared()) {
                (false, _) => Some(RETRY_AFTER),
                (true, true) => Some(SHARED_INTERVAL),
                (true, false) => None,
            };
            let pause = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            has_news = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                changed = self.ticks.changed() => changed.map(|()| true).map_err(|_| MatcherError::IndexerStopped)?,
                () = self.wake.notified() => true,
                () = pause => !is_well || self.has_changed_elsewhere().await,
            };
        }
    }

    /// One round, counted; false when it failed and is to be tried again.
    async fn timed_round(&mut self) -> Result<bool, MatcherError> {
        let began = Instant::now();
        let done = self.round().await;
        self.metrics.fee_ceiling(self.relay.was_too_dear());
        match done {
            Ok(()) => {
                self.metrics.tick_done(began.elapsed());
                self.health.round_done();
                Ok(true)
            }
            // Somebody else goes on with what was begun.
            Err(MatcherError::LeadLost) => Ok(false),
            Err(error) if error.is_transient() => {
                self.metrics.tick_failed(&error);
                self.health.round_failed(&error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn round(&mut self) -> Result<(), MatcherError> {
        self.ticks.borrow_and_update();
        if self.standing().await == Standing::Follower {
            // So that whoever asks finds the leader's changes, and not much to catch up with.
            self.views.changed();
            drop(self.views.follow().await?);
            return Ok(());
        }
        let Some(indexed) = self.views.indexed().await? else { return Ok(()) };
        for tally in self.relay.reconcile(indexed).await? {
            self.turn.fared(tally);
        }
        self.metrics.turn_wait(self.turn.wait());
        self.views.changed();
        let seen = self.views.ask(Seen::of).await?;
        self.metrics.market_seen(seen.open_demands, seen.open_supplies);
        self.housekeeping(&seen).await?;
        self.send_matches(&seen).await?;
        self.end_deals(&seen).await?;
        self.explaining.go_on(&self.views, &self.store, &self.metrics).await
    }

    async fn standing(&mut self) -> Standing {
        let standing = self.leadership.standing().await;
        self.metrics.standing(standing);
        self.health.stands(match standing {
            Standing::Leader if !self.leadership.is_shared() => Role::Alone,
            Standing::Leader => Role::Leader,
            Standing::Follower => Role::Follower,
        });
        standing
    }

    /// To be asked before everything that is sent.
    ///
    /// # Errors
    /// [`MatcherError::LeadLost`] where this process does not lead any more.
    async fn lead(&mut self) -> Result<(), MatcherError> {
        match self.standing().await {
            Standing::Leader => Ok(()),
            Standing::Follower => Err(MatcherError::LeadLost),
        }
    }

    /// Whether the lead has changed hands, or another process has taken an offer in or closed one.
    async fn has_changed_elsewhere(&mut self) -> bool {
        let standing = self.standing().await;
        let Ok(last) = self.store.last_change().await else { return true };
        self.seen.replace((standing, last)) != Some((standing, last))
    }

    async fn send_matches(&mut self, seen: &Seen) -> Result<(), MatcherError> {
        let ripe = self.turn.ripe(&seen.matchable, seen.indexed);
        let room = self.max_in_flight.saturating_sub(self.relay.in_flight().await?);
        if room == 0 || !ripe.contains(&true) {
            return Ok(());
        }
        let budget = self.max_gas.min(TRANSACTION_GAS_CAP).min(self.relay.block_gas_limit().await?);
        let market = self.views.terms.market;
        let most = batch::MAX_MATCHES.saturating_mul(room);
        let ripe = seen.matchable.iter().zip(ripe).filter(|(_, is_ripe)| *is_ripe).map(|(demand, _)| *demand);
        let ripe: BTreeSet<OfferHash> = ripe.collect();
        let (planned, indexed) = self
            .views
            .ask(move |present| {
                // Where the market has moved on, what is ripe and can still be matched.
                (present.matches(most, |demand| ripe.contains(&demand)), present.indexed())
            })
            .await?;
        let encode = move || planned.iter().map(|planned| Planned::of(planned, market)).collect::<Vec<_>>();
        let line = tokio::task::spawn_blocking(encode).await.map_err(|_| MatcherError::Aborted)?;
        let mut line = line.into_iter().peekable();
        for _ in 0..room {
            self.lead().await?;
            match Batch::take(&mut line, market, budget) {
                Ok(Some(batch)) => {
                    if !self.send_batch(batch, budget, indexed).await? {
                        break;
                    }
                }
                Ok(None) => break,
                Err(too_large) => {
                    self.metrics.match_too_large(&too_large, budget);
                    self.store.hold(too_large.demand, indexed).await?;
                }
            }
        }
        self.views.changed();
        Ok(())
    }

    /// Sends a batch, or as much of its beginning as the chain takes. False where that was not all: what is behind it is
    /// planned anew at once.
    async fn send_batch(&self, batch: Batch, budget: u64, indexed: u64) -> Result<bool, MatcherError> {
        let (mut batch, mut is_whole) = (batch, true);
        loop {
            let gas = GasBounds { least: batch.gas.min(budget), most: budget };
            let proposed = Proposed::Fills(batch.fills());
            let error = match self.relay.submit(&batch.call, &proposed, gas, indexed).await {
                Err(MatcherError::Chain(error)) if !error.is_transient() => error,
                done => {
                    done?;
                    break;
                }
            };
            is_whole = false;
            batch = match batch.halved() {
                Ok(less) => less,
                Err(smallest) => {
                    self.hold(&smallest, &error, indexed).await?;
                    break;
                }
            };
        }
        if !is_whole {
            self.wake.notify_one();
        }
        Ok(is_whole)
    }

    async fn hold(&self, batch: &Batch, error: &ChainError, indexed: u64) -> Result<(), MatcherError> {
        for demand in batch.demands() {
            self.metrics.match_refused(demand, error);
            self.store.hold(demand, indexed).await?;
        }
        Ok(())
    }

    async fn end_deals(&mut self, seen: &Seen) -> Result<(), MatcherError> {
        let epoch = seen.epoch;
        self.refused_ends.retain(|_, refused_in| *refused_in == epoch);
        let under_way = self.store.pending_ends(seen.indexed).await?;
        let refused: BTreeSet<DealId> = self.refused_ends.keys().copied().collect();
        let ends = move |present: &mut Present| {
            let market = &mut present.market;
            let due = market.due(MAX_ENDS, |deal| !under_way.contains(&deal) && !refused.contains(&deal));
            let deal = |due: Due| Some((due, market.state().deals.get(&due.deal())?.deal.reference()));
            due.into_iter().filter_map(deal).collect::<Vec<_>>()
        };
        let market = self.views.terms.market;
        for (due, deal) in self.views.ask(ends).await? {
            let (kind, call) = match due {
                Due::Evict(_) => (TxKind::Evict, calls::evict(market, &deal)),
                Due::Close(_) => (TxKind::Close, calls::close_deal(market, &deal)),
            };
            self.lead().await?;
            let proposed = Proposed::EndOf(kind, due.deal());
            match self.relay.submit(&call, &proposed, GasBounds::NONE, seen.indexed).await {
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
    async fn housekeeping(&mut self, seen: &Seen) -> Result<(), MatcherError> {
        let (indexed, epoch, now) = (seen.indexed, seen.epoch, self.clock.unix_seconds());
        let sorted = &seen.sorted;
        if !sorted.void.is_empty() {
            self.store.close_offers(&sorted.void, now).await?;
            self.views.changed();
        }
        if !sorted.appeared.is_empty() || !sorted.vanished.is_empty() {
            self.store.note_chain(&sorted.appeared, &sorted.vanished, indexed).await?;
            self.views.changed();
        }
        if self.tidied_in != Some(epoch) {
            self.store.close_settled(indexed.saturating_sub(FINALITY_BLOCKS), now).await?;
            self.store.prune_offers(now.saturating_sub(REMEMBERED_SECONDS)).await?;
            self.store.prune_transactions(indexed.saturating_sub(REMEMBERED_BLOCKS)).await?;
            self.tidied_in = Some(epoch);
            self.views.changed();
        }
        Ok(())
    }
}

impl Seen {
    fn of(present: &mut Present) -> Self {
        Self {
            indexed: present.indexed(),
            epoch: present.market.conditions().epoch,
            open_demands: present.open_demands,
            open_supplies: present.market.seen().supplies_open(),
            matchable: present.matchable(),
            sorted: present.market.sort_signed(),
        }
    }
}
