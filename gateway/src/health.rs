//! Which replicas answer, and how busy each is.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{ids::DealId, shutdown::Shutdown};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use crate::{
    domain::{backoff::Standing, table::Replica},
    metrics::Metrics,
    proxy::Upstream,
    refresh::Routes,
};

/// Probes under way at a time.
const PARALLEL_PROBES: usize = 32;
/// Longest that a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of an agent's status that are read.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// What is known of all replicas.
pub(crate) struct Health {
    started: Instant,
    entries: RwLock<HashMap<DealId, Arc<Entry>>>,
    metrics: Arc<Metrics>,
}

/// What is known of one replica.
#[derive(Default)]
pub(crate) struct Entry {
    in_flight: AtomicUsize,
    standing: Mutex<Standing>,
}

impl Entry {
    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    fn standing<T>(&self, read_or_change: impl FnOnce(&mut Standing) -> T) -> T {
        read_or_change(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request that is under way.
pub(crate) struct InFlight(Arc<Entry>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Health {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { started: Instant::now(), entries: RwLock::default(), metrics }
    }

    /// A monotonic time, so that back-offs do not depend on the machine's date.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn entry(&self, deal: DealId) -> Arc<Entry> {
        if let Some(entry) = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&deal) {
            return Arc::clone(entry);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(deal).or_default())
    }

    pub(crate) fn is_healthy(&self, entry: &Entry) -> bool {
        let now = self.now();
        entry.standing(|standing| standing.is_healthy(now))
    }

    pub(crate) fn succeeded(&self, entry: &Entry) {
        entry.standing(Standing::succeeded);
    }

    pub(crate) fn failed(&self, replica: &Replica, entry: &Entry) {
        let now = self.now();
        let ejected_now = entry.standing(|standing| {
            let was_healthy = standing.is_healthy(now);
            standing.failed(now);
            was_healthy
        });
        if ejected_now {
            self.metrics.replica_ejected(replica);
        }
    }

    /// Forgets replicas that no route leads to.
    fn retain(&self, replicas: &[Replica]) {
        let known: std::collections::HashSet<_> = replicas.iter().map(|replica| replica.deal).collect();
        self.entries.write().unwrap_or_else(PoisonError::into_inner).retain(|deal, _| known.contains(deal));
    }

    /// Asks every replica how it is, again and again.
    pub(crate) async fn probe_all(
        self: Arc<Self>,
        routes: Arc<Routes>,
        upstream: Upstream,
        interval: Duration,
        shutdown: Shutdown,
    ) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let replicas: Vec<Replica> = routes.table().replicas().cloned().collect();
            self.retain(&replicas);
            let probes = stream::iter(replicas)
                .for_each_concurrent(PARALLEL_PROBES, |replica| Arc::clone(&self).probe(upstream.clone(), replica));
            shutdown.run_until_cancelled(probes).await;
        }
    }

    async fn probe(self: Arc<Self>, upstream: Upstream, replica: Replica) {
        let entry = self.entry(replica.deal);
        if is_ready(&upstream, &replica).await {
            self.succeeded(&entry);
        } else {
            self.failed(&replica, &entry);
        }
    }
}

/// The part of an agent's `/status/{dealId}` that matters here.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    state: Option<String>,
}

/// Whether the agent says that the replica is ready.
async fn is_ready(upstream: &Upstream, replica: &Replica) -> bool {
    let Ok(uri) = replica.endpoint.uri(&format!("/status/{}", replica.deal)) else { return false };
    let asked = tokio::time::timeout(PROBE_TIMEOUT, upstream.get_small(uri, MAX_STATUS_BYTES)).await;
    let Ok(Some(body)) = asked else { return false };
    match serde_json::from_slice::<Status>(&body) {
        Ok(status) => status.state.is_none_or(|state| state.eq_ignore_ascii_case("ready")),
        Err(_) => false,
    }
}
