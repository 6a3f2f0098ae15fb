//! The market as the API answers about it and the loop plans on: one, kept in memory, that follows the index and the
//! matcher's own database by what has changed in them. It is loaded as a whole when the process starts, and where a
//! reorganization went deeper than it remembers.
//!
//! Both databases may be written by other processes. Whoever asks brings the market up to date first, where either has
//! changed; one at a time, and whoever comes second finds what the first has made.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chain::OfferDomain;
use common::{
    clock::SharedClock,
    event::{BlockId, Reason},
    ids::{Address, BlockHash, OfferHash},
    market::MarketTerms,
    offer::DeveloperOffer,
    state::{Place, StateError},
};
use indexer::{
    store::{Checkpoint, Loaded, News},
    view::AsOf,
};
use matching::{
    engine::{Match, Plan},
    feasible,
    ledger::FillCost,
    market::{Market, Planner},
    snapshot::{Demand, PendingFill, Supply},
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::{
    error::MatcherError,
    metrics::Metrics,
    store::{OfferNews, Store, StoredOffer},
};

/// Most blocks with events that can be taken back where the node names no final block.
pub(crate) const REMEMBERED_BLOCKS: usize = 4_096;

/// A demand and its hosts, cheapest first.
#[derive(Debug)]
pub(crate) struct PlannedMatch {
    pub(crate) demand: Demand,
    pub(crate) fills: Vec<(Supply, FillCost)>,
    /// Replicas that have a host or are under way.
    pub(crate) live: u16,
}

/// Keeps the market.
pub(crate) struct Views {
    pub(crate) domain: OfferDomain,
    pub(crate) terms: MarketTerms,
    parts: ViewParts,
    /// Counts changes of the matcher's own database.
    version: AtomicU64,
    /// The same, and every round of the loop, for those who wait for news.
    news: watch::Sender<u64>,
    present: Arc<Mutex<Option<Present>>>,
}

/// What it is kept from, and for whom.
pub(crate) struct ViewParts {
    pub(crate) indexer: indexer::Store,
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) matcher: Address,
    /// Most blocks with events that can be taken back.
    pub(crate) remembered: usize,
}

/// One moment of the market. All that can be matched is entered: so a newcomer finds it.
#[derive(Debug)]
pub(crate) struct Present {
    /// The block, with the chain's word on whether it is final; none before the first one is indexed.
    pub(crate) as_of: Option<AsOf>,
    pub(crate) market: Market,
    /// What can be matched now, in order of service.
    plan: Plan,
    /// Demands that want hosts, before that.
    pub(crate) open_demands: usize,
    /// The last change of signed offers that it knows of; none when it knows none of them.
    changes: Option<u64>,
    /// What it stands at; none while it is behind.
    key: Option<Key>,
}

/// What a moment depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    block: Option<BlockHash>,
    finalized: Option<u64>,
    version: u64,
}

/// Where the market is to stand.
struct Stand {
    checkpoint: Checkpoint,
    own: Own,
    /// None where more is to come.
    key: Option<Key>,
}

/// What the matcher alone knows.
struct Own {
    offers: OfferNews,
    pending: Vec<PendingFill>,
    held: BTreeSet<OfferHash>,
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

type Guard = OwnedMutexGuard<Option<Present>>;

impl Views {
    pub(crate) fn new((domain, terms): (OfferDomain, MarketTerms), parts: ViewParts) -> Self {
        Self {
            domain,
            terms,
            parts,
            version: AtomicU64::new(0),
            news: watch::Sender::default(),
            present: Arc::default(),
        }
    }

    /// To be called after every change of the matcher's own database that plans depend on.
    pub(crate) fn changed(&self) {
        let version = self.version.fetch_add(1, Ordering::SeqCst);
        self.news.send_replace(version);
    }

    /// Is told of every change of the matcher's own database, and of every block.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Height of the last indexed block.
    pub(crate) async fn indexed(&self) -> Result<Option<u64>, MatcherError> {
        Ok(self.parts.indexer.as_of().await?.map(|block| block.number))
    }

    /// Asks about the present market; CPU-bound, away from the threads that answer requests. One question at a time, each
    /// of which is to take a millisecond at the most.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Present) -> T + Send + 'static,
    ) -> Result<T, MatcherError> {
        let mut present = self.follow().await?;
        let answer = move || present.as_mut().map(question);
        tokio::task::spawn_blocking(answer).await.ok().flatten().ok_or(MatcherError::Aborted)
    }

    /// Brings the market up to date.
    pub(crate) async fn follow(&self) -> Result<Guard, MatcherError> {
        let mut present = Arc::clone(&self.present).lock_owned().await;
        loop {
            let version = self.version.load(Ordering::SeqCst);
            let checkpoint = self.parts.indexer.checkpoint().await?;
            match present.as_ref().map(|present| present.key) {
                Some(key) if key == Some(Key::new(checkpoint, version)) => return Ok(present),
                Some(_) => present = self.catch_up(present, version).await?,
                None => present = self.load(present, version).await?,
            }
            if present.as_ref().is_some_and(|present| present.key.is_some()) {
                return Ok(present);
            }
        }
    }

    /// Applies what has happened since, or a part of it, and takes back what has not.
    async fn catch_up(&self, mut present: Guard, version: u64) -> Result<Guard, MatcherError> {
        let market = present.as_ref().map(|present| &present.market);
        let stands: Vec<Option<BlockId>> = market.into_iter().flat_map(Market::anchors).collect();
        let (mut checkpoint, news) = self.parts.indexer.news_since(&stands).await?;
        let News::Since { fork, blocks, is_cut } = news else {
            *present = None;
            return Ok(present);
        };
        let key = (!is_cut).then(|| Key::new(checkpoint, version));
        // Where more blocks are to come, the last of these is where the market stands meanwhile.
        checkpoint.block = blocks.last().filter(|_| is_cut).map(|last| last.block).or(checkpoint.block);
        let changes = present.as_ref().and_then(|present| present.changes);
        let stand = Stand { checkpoint, own: self.own(changes, checkpoint).await?, key };
        let change = move |present: &mut Option<Present>| {
            let Some(present) = present else { return Ok(0) };
            let taken_back = present.market.take_back_to(fork);
            blocks.iter().try_for_each(|block| present.market.apply(block))?;
            Ok(taken_back)
        };
        self.change(present, change, stand).await
    }

    /// Makes the market anew, of everything that there is.
    async fn load(&self, present: Guard, version: u64) -> Result<Guard, MatcherError> {
        let Loaded { state, base, checkpoint } = self.parts.indexer.load_market().await?;
        let key = Some(Key::new(checkpoint, version));
        let stand = Stand { checkpoint, own: self.own(None, checkpoint).await?, key };
        let (terms, planner) = (self.terms, Planner::Account(self.parts.matcher));
        let remembered = self.parts.remembered;
        self.parts.metrics.market_loaded(checkpoint.block);
        let change = move |present: &mut Option<Present>| {
            *present = Some(Present::new(Market::of(state, base, terms, planner, remembered)));
            Ok(0)
        };
        self.change(present, change, stand).await
    }

    /// Changes the market, and stands where it is then. One whose events contradict each other is given up.
    async fn change(
        &self,
        mut present: Guard,
        change: impl FnOnce(&mut Option<Present>) -> Result<usize, StateError> + Send + 'static,
        stand: Stand,
    ) -> Result<Guard, MatcherError> {
        let now = self.parts.clock.unix_seconds();
        let work = move || {
            present.iter_mut().for_each(|present| present.key = None);
            let changed = change(&mut present);
            match (&changed, present.as_mut()) {
                (Ok(_), Some(present)) => present.stand_at(stand, now),
                _ => *present = None,
            }
            (present, changed)
        };
        // Whoever asked may be gone before the end: the market stays with what is done here.
        let (present, changed) = tokio::task::spawn_blocking(work).await.map_err(|_| MatcherError::Aborted)?;
        match changed {
            Ok(taken_back) => self.parts.metrics.blocks_taken_back(taken_back),
            Err(error) => self.parts.metrics.market_contradicted(&error),
        }
        Ok(present)
    }

    async fn own(&self, since: Option<u64>, checkpoint: Checkpoint) -> Result<Own, MatcherError> {
        let (store, indexed) = (&self.parts.store, checkpoint.block.map_or(0, |block| block.number));
        Ok(Own {
            offers: store.offer_news(since).await?,
            pending: store.pending_fills(indexed).await?,
            held: store.held(indexed).await?,
        })
    }
}

impl Key {
    fn new(checkpoint: Checkpoint, version: u64) -> Self {
        Self { block: checkpoint.block.map(|block| block.hash), finalized: checkpoint.finalized, version }
    }
}

impl Present {
    fn new(market: Market) -> Self {
        Self { as_of: None, market, plan: Plan::default(), open_demands: 0, changes: None, key: None }
    }

    /// Takes in what has changed, and plans anew.
    fn stand_at(&mut self, stand: Stand, now: u64) {
        let Stand { checkpoint, own, key } = stand;
        let market = &mut self.market;
        self.as_of = checkpoint.block.map(|block| AsOf::new(block, checkpoint.finalized));
        // The block's time and not ours: anybody can plan the same again.
        market.stand_at(checkpoint.block, now);
        checkpoint.finalized.into_iter().for_each(|finalized| market.forget_final(finalized));
        own.offers.closed.into_iter().for_each(|hash| market.close_signed(hash));
        for (offer, is_noted) in own.offers.open {
            match offer {
                StoredOffer::Developer(signed) => market.accept_demand(signed, is_noted),
                StoredOffer::Provider(signed) => market.accept_supply(signed, is_noted),
            }
        }
        self.changes = Some(own.offers.up_to);
        market.set_pending(own.pending);
        market.set_held(own.held);
        market.settle();
        self.open_demands = market.seen().demands_open();
        self.plan = market.plan(usize::MAX);
        self.key = key;
    }

    /// Height of the last indexed block; 0 before the first.
    pub(crate) fn indexed(&self) -> u64 {
        self.as_of.map_or(0, |block| block.number)
    }

    /// Demands that can be matched now, in order of service.
    pub(crate) fn matchable(&self) -> Vec<OfferHash> {
        self.plan.matches.iter().map(|found| found.demand).collect()
    }

    /// The first `most` matches of those that are `wanted`.
    pub(crate) fn matches(&self, most: usize, wanted: impl Fn(OfferHash) -> bool) -> Vec<PlannedMatch> {
        let wanted = self.plan.matches.iter().filter(|found| wanted(found.demand));
        wanted.take(most).filter_map(|found| self.planned(found)).collect()
    }

    fn planned(&self, found: &Match) -> Option<PlannedMatch> {
        let engine = self.market.seen();
        let fills = found.fills.iter().filter_map(|fill| Some((engine.supply(fill.supply)?.clone(), fill.cost)));
        Some(PlannedMatch {
            demand: engine.demand(found.demand)?.clone(),
            fills: fills.collect(),
            live: self.market.placed_or_under_way(found.demand).live_replicas,
        })
    }

    /// A developer offer as the market knows it.
    pub(crate) fn demand(&self, hash: OfferHash) -> Option<&Demand> {
        self.market.seen().demand(hash)
    }

    /// A developer offer as the market knows it, or else as a newcomer. A draft that names no developer is judged
    /// without money.
    pub(crate) fn demand_of(&self, hash: OfferHash, mut offer: DeveloperOffer) -> Demand {
        if let Some(known) = self.demand(hash) {
            return known.clone();
        }
        let is_draft = offer.developer.is_zero();
        if is_draft {
            // Any account will do, as no money is asked for.
            offer.developer = Address([0xff; 20]);
        }
        let place = Place { block: self.indexed(), log_index: u64::MAX };
        let mut demand = Demand::new(hash, offer, Vec::new(), place, &self.market.conditions().terms);
        demand.unlimited_funds = is_draft;
        demand
    }

    /// How far a developer offer is.
    pub(crate) fn status(&self, demand: &Demand) -> OfferStatus {
        let placement = self.market.placed(demand.hash);
        let live = placement.live_replicas;
        if live >= demand.offer.replicas {
            return OfferStatus::Placed;
        }
        if self.market.is_under_way(demand.hash) {
            return OfferStatus::Matching;
        }
        if live > 0 {
            return OfferStatus::PartlyPlaced;
        }
        match feasible::demand_is_blocked_under(self.market.conditions(), placement, demand) {
            Some(Reason::DeveloperOfferCancelled | Reason::DeveloperNonceTooLow) => OfferStatus::Cancelled,
            Some(Reason::TermOver) => OfferStatus::Ended,
            Some(Reason::DeveloperOfferExpired) if placement.end_epoch.is_some() => OfferStatus::Ended,
            Some(Reason::DeveloperOfferExpired) => OfferStatus::Expired,
            _ => OfferStatus::Waiting,
        }
    }
}
