//! Deployments that the table does not have: too new, or no longer live. Asked for one at a time, remembered briefly,
//! so that neither a stranger's guesses nor a crowd at a new deployment become as many questions to the indexer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use common::ids::OfferHash;
use tokio::sync::Semaphore;

use crate::{
    domain::table::Deployment,
    indexer::{Indexer, IndexerError},
};

/// Questions to the indexer under way at a time.
const PARALLEL: usize = 4;
/// How long an answer is good for.
const KEPT_FOR: Duration = Duration::from_secs(2);
/// Most answers remembered.
const MAX_KEPT: usize = 4_096;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(2);

type Answer = Option<Arc<Deployment>>;

pub(crate) struct Lookup {
    indexer: Arc<Indexer>,
    kept: Mutex<HashMap<OfferHash, (Instant, Answer)>>,
    turns: Semaphore,
}

impl Lookup {
    pub(crate) fn new(indexer: Arc<Indexer>) -> Self {
        Self { indexer, kept: Mutex::default(), turns: Semaphore::new(PARALLEL) }
    }

    /// The deployment of `offer`; `Ok(None)` when there is no such offer.
    pub(crate) async fn find(&self, offer: OfferHash) -> Result<Answer, LookupFailed> {
        if let Some(answer) = self.remembered(offer) {
            return Ok(answer);
        }
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await.map_err(|_| LookupFailed::Busy)?;
        let _turn = turn.map_err(|_| LookupFailed::Busy)?;
        // Another request may have asked meanwhile.
        if let Some(answer) = self.remembered(offer) {
            return Ok(answer);
        }
        let answer = self.indexer.deployment_of(offer).await?.map(Arc::new);
        self.remember(offer, answer.clone());
        Ok(answer)
    }

    fn remembered(&self, offer: OfferHash) -> Option<Answer> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&offer).filter(|(since, _)| since.elapsed() < KEPT_FOR).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, offer: OfferHash, answer: Answer) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(offer, (Instant::now(), answer));
        }
    }
}

/// The indexer could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupFailed {
    #[error("too many deployments are being looked up")]
    Busy,
    #[error(transparent)]
    Indexer(#[from] IndexerError),
}
