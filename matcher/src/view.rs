//! The market as the API answers about it and the loop plans on: one snapshot for as long as neither the indexed chain
//! nor the matcher's own database changes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chain::OfferDomain;
use common::{
    clock::SharedClock,
    deal::DealState,
    event::Reason,
    ids::{Address, BlockHash, DealId, OfferHash},
    market::MarketTerms,
    offer::DeveloperOffer,
    state::{MarketState, Place},
};
use indexer::view::AsOf;
use matching::{
    engine::Engine,
    feasible,
    ledger::{FillCost, Ledger},
    snapshot::{Conditions, Demand, Inputs, PendingFill, Snapshot, Supply},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    error::MatcherError,
    store::{SignedOffers, Store},
};

/// One moment of the market.
#[derive(Debug)]
pub(crate) struct View {
    /// The block, with the chain's word on whether it is final; none before the first one is indexed.
    pub(crate) as_of: Option<AsOf>,
    /// The indexed chain.
    pub(crate) state: MarketState,
    /// What plans are made of.
    pub(crate) snapshot: Snapshot,
    /// Signed offers that are open.
    pub(crate) signed: SignedOffers,
    /// Fills under way.
    pub(crate) pending: Vec<PendingFill>,
    /// What can be matched now, in order of service.
    pub(crate) matches: Vec<PlannedMatch>,
}

/// A demand and its hosts, cheapest first.
#[derive(Debug)]
pub(crate) struct PlannedMatch {
    pub(crate) demand: Demand,
    pub(crate) fills: Vec<(Supply, FillCost)>,
}

/// Keeps the latest view.
pub(crate) struct Views {
    pub(crate) domain: OfferDomain,
    pub(crate) terms: MarketTerms,
    indexer: indexer::Store,
    store: Store,
    clock: SharedClock,
    matcher: Address,
    /// Counts changes of the matcher's own database.
    version: AtomicU64,
    latest: Arc<Mutex<Option<Latest>>>,
}

/// A view and the engine that stands at it, all that can be matched entered: so a newcomer finds the market.
struct Latest {
    key: Key,
    view: Arc<View>,
    engine: Engine,
}

/// What a view depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    block: Option<BlockHash>,
    finalized: Option<u64>,
    version: u64,
}

/// How far a developer offer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OfferStatus {
    /// No host yet.
    Waiting,
    /// A match is under way.
    Matching,
    /// Every replica has a host.
    Placed,
    /// Some replicas have a host.
    PartlyPlaced,
    /// Its term is over.
    Ended,
    /// Its owner voided it, and no replica lives.
    Cancelled,
    /// It can no longer be matched, and no replica lives.
    Expired,
}

impl Views {
    pub(crate) fn new(
        (domain, terms): (OfferDomain, MarketTerms),
        indexer: indexer::Store,
        store: Store,
        clock: SharedClock,
        matcher: Address,
    ) -> Self {
        let (version, latest) = (AtomicU64::new(0), Arc::default());
        Self { domain, terms, indexer, store, clock, matcher, version, latest }
    }

    /// To be called after every change of the matcher's own database that plans depend on.
    pub(crate) fn changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Height of the last indexed block.
    pub(crate) async fn indexed(&self) -> Result<Option<u64>, MatcherError> {
        Ok(self.indexer.as_of().await?.map(|block| block.number))
    }

    /// The present market.
    pub(crate) async fn now(&self) -> Result<Arc<View>, MatcherError> {
        Ok(self.refreshed(|latest| Arc::clone(&latest.view)).await?.1)
    }

    /// Asks the engine about the present market; CPU-bound, away from the threads that answer requests. One question at a
    /// time, each of which takes a millisecond at the most.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View, &mut Engine) -> T + Send + 'static,
    ) -> Result<T, MatcherError> {
        let (mut latest, _) = self.refreshed(|_| ()).await?;
        let answer = move || latest.as_mut().map(|latest| question(&latest.view, &mut latest.engine));
        tokio::task::spawn_blocking(answer).await.ok().flatten().ok_or(MatcherError::Aborted)
    }

    /// The latest view and engine, and what `look` sees there.
    async fn refreshed<T>(
        &self,
        look: impl FnOnce(&Latest) -> T,
    ) -> Result<(OwnedMutexGuard<Option<Latest>>, T), MatcherError> {
        // One at a time: whoever comes second finds what the first has made.
        let mut latest = Arc::clone(&self.latest).lock_owned().await;
        let version = self.version.load(Ordering::SeqCst);
        let checkpoint = self.indexer.checkpoint().await?;
        let block = checkpoint.block.map(|block| block.hash);
        let key = Key { block, finalized: checkpoint.finalized, version };
        let before = latest.take();
        let present = match before {
            Some(present) if present.key == key => present,
            before => {
                let state = self.indexer.market_state().await?;
                let (view, engine) = self.build(before, state, checkpoint.finalized).await?;
                // The indexer may have moved on meanwhile: then the key is not that of this view, and it is made anew next
                // time.
                Latest { key, view: Arc::new(view), engine }
            }
        };
        let seen = look(latest.insert(present));
        Ok((latest, seen))
    }

    /// The view of a state. The engine comes from the view before, so that it only has to follow what has changed.
    async fn build(
        &self,
        before: Option<Latest>,
        state: MarketState,
        finalized: Option<u64>,
    ) -> Result<(View, Engine), MatcherError> {
        let indexed = state.as_of.map_or(0, |block| block.number);
        let signed = self.store.signed_offers().await?;
        let pending = self.store.pending_fills(indexed).await?;
        let held = self.store.held(indexed).await?;
        let (terms, matcher) = (self.terms, self.matcher);
        let now = self.clock.unix_seconds();
        let build = move || {
            let snapshot = Snapshot::build(Inputs {
                terms,
                state: &state,
                matcher,
                // The block's time and not ours: anybody can plan the same again.
                time: state.as_of.map_or(now, |block| block.timestamp),
                developer_offers: signed.developer.clone(),
                provider_offers: signed.provider.clone(),
                pending: &pending,
                held: &held,
            });
            let mut engine = match before {
                Some(mut before) => {
                    before.engine.follow(&before.view.snapshot, &snapshot);
                    before.engine
                }
                None => Engine::of(&snapshot),
            };
            let matches = plan(&mut engine);
            let as_of = state.as_of.map(|block| AsOf::new(block, finalized));
            (View { as_of, state, snapshot, signed, pending, matches }, engine)
        };
        tokio::task::spawn_blocking(build).await.map_err(|_| MatcherError::Aborted)
    }
}

impl View {
    /// Height of the last indexed block; 0 before the first.
    pub(crate) fn indexed(&self) -> u64 {
        self.as_of.map_or(0, |block| block.number)
    }

    /// A developer offer as the market knows it, or else as a newcomer. A draft that names no developer is judged
    /// without money.
    pub(crate) fn demand_of(&self, hash: OfferHash, mut offer: DeveloperOffer) -> Demand {
        if let Some(known) = self.snapshot.demand(hash) {
            return known.clone();
        }
        let is_draft = offer.developer.is_zero();
        if is_draft {
            // Any account will do, as no money is asked for.
            offer.developer = Address([0xff; 20]);
        }
        let place = Place { block: self.indexed(), log_index: u64::MAX };
        let mut demand = Demand::new(hash, offer, Vec::new(), place, &self.snapshot.conditions.terms);
        demand.unlimited_funds = is_draft;
        demand
    }

    /// How far a developer offer is.
    pub(crate) fn status(&self, demand: &Demand) -> OfferStatus {
        let placement = self.state.developer_offers.get(&demand.hash);
        let live = placement.map_or(0, |known| known.live_replicas);
        if live >= demand.offer.replicas {
            return OfferStatus::Placed;
        }
        if self.pending.iter().any(|fill| fill.developer_offer == demand.hash) {
            return OfferStatus::Matching;
        }
        if live > 0 {
            return OfferStatus::PartlyPlaced;
        }
        match feasible::demand_is_blocked(&self.snapshot.conditions, &Ledger::of(&self.state), demand) {
            Some(Reason::DeveloperOfferCancelled | Reason::DeveloperNonceTooLow) => OfferStatus::Cancelled,
            Some(Reason::TermOver) => OfferStatus::Ended,
            Some(Reason::DeveloperOfferExpired) if placement.is_some_and(|known| known.end_epoch.is_some()) => {
                OfferStatus::Ended
            }
            Some(Reason::DeveloperOfferExpired) => OfferStatus::Expired,
            _ => OfferStatus::Waiting,
        }
    }

    /// Deals of a developer offer or of a provider offer that have not ended, or all of them.
    pub(crate) fn deals_of(&self, offer: OfferHash, ended_too: bool) -> Vec<DealId> {
        let deals = self.state.deals.values().map(|known| &known.deal);
        deals
            .filter(|deal| deal.developer_offer == offer || deal.provider_offer == offer)
            .filter(|deal| ended_too || deal.state != DealState::Ended)
            .map(|deal| deal.id)
            .collect()
    }

    /// Number of demands that want hosts.
    pub(crate) fn open_demands(&self) -> usize {
        let open = |demand: &&Demand| {
            feasible::demand_is_blocked(&self.snapshot.conditions, &self.snapshot.ledger, demand).is_none()
        };
        self.snapshot.demands.iter().filter(open).count()
    }

    /// The open signed offers, sorted by what is to be noted of them.
    pub(crate) fn sort_signed(&self) -> SortedOffers {
        let mut sorted = SortedOffers::default();
        let conditions = &self.snapshot.conditions;
        for signed in &self.signed.developer {
            let known = self.state.developer_offers.contains_key(&signed.hash);
            let (owner, nonce, valid_until) = (signed.offer.developer, signed.offer.nonce, signed.offer.valid_until);
            sorted.add(
                signed.hash,
                known,
                self.signed.seen_on_chain.contains(&signed.hash),
                is_void(conditions, owner, signed.hash, nonce, valid_until),
            );
        }
        for signed in &self.signed.provider {
            let known = self.state.provider_offers.contains_key(&signed.hash);
            let (owner, nonce, valid_until) = (signed.offer.provider, signed.offer.nonce, signed.offer.valid_until);
            sorted.add(
                signed.hash,
                known,
                self.signed.seen_on_chain.contains(&signed.hash),
                is_void(conditions, owner, signed.hash, nonce, valid_until),
            );
        }
        sorted
    }
}

/// What can be matched now; it stays entered.
fn plan(engine: &mut Engine) -> Vec<PlannedMatch> {
    let plan = engine.plan(usize::MAX);
    let matches = plan.matches.iter().filter_map(|found| {
        let fills = found.fills.iter().filter_map(|fill| Some((engine.supply(fill.supply)?.clone(), fill.cost)));
        Some(PlannedMatch { demand: engine.demand(found.demand)?.clone(), fills: fills.collect() })
    });
    matches.collect()
}

/// What is to be noted of signed offers.
#[derive(Debug, Default)]
pub(crate) struct SortedOffers {
    /// The chain knows them now.
    pub(crate) appeared: Vec<OfferHash>,
    /// A reorganization made the chain forget them.
    pub(crate) vanished: Vec<OfferHash>,
    /// Nobody can match them any more.
    pub(crate) void: Vec<OfferHash>,
}

impl SortedOffers {
    fn add(&mut self, hash: OfferHash, known: bool, was_known: bool, void: bool) {
        match (known, was_known) {
            (true, false) => self.appeared.push(hash),
            (false, true) => self.vanished.push(hash),
            (false, false) if void => self.void.push(hash),
            _ => (),
        }
    }
}

fn is_void(conditions: &Conditions, owner: Address, hash: OfferHash, nonce: u64, valid_until: u64) -> bool {
    valid_until < conditions.time
        || nonce < conditions.nonce_floor(owner)
        || conditions.cancelled.contains(&(owner, hash))
}
