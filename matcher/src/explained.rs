//! Explains the offers that wait, a few in each round, and keeps what stands in their way.
//!
//! All of them together would take longer than a block in a large market; so each round goes on where the last one ended.
//! Offers whose explanation was kept and that do not wait any more are found the same way, and forgotten.

use common::ids::OfferHash;
use matching::explain::Explanation;

use crate::{
    error::MatcherError,
    metrics::Metrics,
    store::Store,
    view::{Present, Views},
};

/// Offers that are explained in a round: some 20 ms of a large market.
const EXPLAINED: usize = 64;
/// Explained under one lock of the market: about a millisecond.
const AT_ONCE: usize = 4;
/// Places of the engine that a round looks for waiting offers at.
const LOOKED_AT: u32 = 16_384;
/// Kept explanations that a round looks through for those that are over.
const REVIEWED: u32 = 128;

/// How far the rounds have come.
#[derive(Debug, Default)]
pub(crate) struct Explaining {
    /// Place in the engine.
    next: u32,
    /// The last kept explanation that was looked at.
    reviewed: Option<OfferHash>,
}

impl Explaining {
    /// One round.
    pub(crate) async fn go_on(&mut self, views: &Views, store: &Store, metrics: &Metrics) -> Result<(), MatcherError> {
        self.explain(views, store, metrics).await?;
        self.review(views, store).await
    }

    async fn explain(&mut self, views: &Views, store: &Store, metrics: &Metrics) -> Result<(), MatcherError> {
        let from = self.next;
        let (waiting, next) = views.ask(move |present| waiting(present, from)).await?;
        self.next = next;
        for some in waiting.chunks(AT_ONCE) {
            let some = some.to_vec();
            let (found, block) = views.ask(move |present| (explained(present, &some), present.indexed())).await?;
            if !found.is_empty() {
                let changed = store.keep_explanations(&found, block).await?;
                metrics.explanations_changed(changed);
            }
        }
        Ok(())
    }

    async fn review(&mut self, views: &Views, store: &Store) -> Result<(), MatcherError> {
        let kept = store.kept_explanations(self.reviewed, REVIEWED).await?;
        self.reviewed = kept.last().map(|last| last.developer_offer);
        let offers: Vec<OfferHash> = kept.into_iter().map(|kept| kept.developer_offer).collect();
        let is_over = move |present: &mut Present| -> Vec<OfferHash> {
            offers.into_iter().filter(|offer| !present.market.seen().waits(*offer)).collect()
        };
        let over = views.ask(is_over).await?;
        if !over.is_empty() {
            store.drop_explanations(&over).await?;
        }
        Ok(())
    }
}

/// The next offers that wait, and the place after them.
fn waiting(present: &mut Present, from: u32) -> (Vec<OfferHash>, u32) {
    let mut waiting = Vec::new();
    let engine = present.market.seen();
    let next = engine.look_at_waiting(from, LOOKED_AT, |demand| {
        waiting.push(demand);
        waiting.len() < EXPLAINED
    });
    (waiting, next.unwrap_or_default())
}

fn explained(present: &mut Present, offers: &[OfferHash]) -> Vec<(OfferHash, Explanation)> {
    let engine = present.market.engine();
    let explained = offers.iter().filter(|offer| engine.waits(**offer)).copied().collect::<Vec<_>>();
    let demands: Vec<_> = explained.iter().filter_map(|offer| engine.demand(*offer).cloned()).collect();
    demands.iter().map(|demand| (demand.hash, engine.explain(demand))).collect()
}
