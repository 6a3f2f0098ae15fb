//! Carries out what reconciliation decides: brings replicas up, pauses, resumes and stops them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use common::{clock::SharedClock, epoch::Epoch, ids::DealId, region::Region, shutdown::Shutdown};

use crate::{
    artifacts::{Artifacts, Origin},
    book::Book,
    domain::{
        reconcile::{self, Action},
        replica::{Cause, Failure, IllegalEvent, ReplicaEvent, ReplicaState},
    },
    host::{Worker, WorkerHost, WorkerSpec},
    metrics::Metrics,
    replicas::{Cell, Replicas},
    seen::Seen,
    store::{Store, StoreError},
};

/// Brings replicas to where the chain wants them.
pub(crate) struct Supervisor {
    pub(crate) host: WorkerHost,
    pub(crate) artifacts: Artifacts,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) book: Arc<Book>,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    pub(crate) region: Option<Region>,
    pub(crate) seen: Arc<Seen>,
    /// How old a look at the chain may be for its epoch to count as the present one.
    pub(crate) fresh_within: Duration,
    /// Ends everything that was started here.
    pub(crate) life: Shutdown,
    /// Served epochs that are not in the database yet.
    pub(crate) unwritten: Mutex<Vec<(DealId, Epoch)>>,
}

/// Why a replica did not come up.
enum Setback {
    Failure(Failure),
    /// The deal ended meanwhile.
    Overtaken,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<IllegalEvent> for Setback {
    fn from(_: IllegalEvent) -> Self {
        Self::Overtaken
    }
}

impl Supervisor {
    /// Starts the next step of every replica that is not where it should be at `epoch`.
    pub(crate) fn reconcile(self: &Arc<Self>, epoch: Epoch) {
        let now = self.clock.unix_seconds();
        let snapshots: Vec<_> = self.replicas.all().iter().map(|cell| cell.snapshot()).collect();
        let pairs = snapshots.iter().map(|snapshot| (&snapshot.assignment.deal, &snapshot.state));
        for (deal, action) in reconcile::plan(pairs, epoch, now) {
            if let Some(cell) = self.replicas.get(deal) {
                self.act(deal, &cell, action);
            }
        }
        self.count_replicas();
    }

    fn act(self: &Arc<Self>, deal: DealId, cell: &Arc<Cell>, action: Action) {
        let event = match action {
            Action::BringUp => ReplicaEvent::Begin,
            Action::Pause => ReplicaEvent::Pause,
            Action::Resume => ReplicaEvent::Resume,
            Action::Stop if is_idle(&cell.serving().0) => ReplicaEvent::Stopped,
            Action::Stop => ReplicaEvent::Drain,
        };
        // It may have moved on by itself since the plan was made; the next plan sees that.
        let Ok(state) = cell.apply(event) else { return };
        tracing::info!(%deal, state = state.name(), "replica");
        let (supervisor, cell) = (self.clone(), cell.clone());
        match action {
            Action::BringUp => self.spawn(async move { supervisor.bring_up(deal, &cell).await }),
            Action::Stop if state == ReplicaState::Draining => {
                self.spawn(async move { supervisor.stop(deal, &cell).await });
            }
            _ => (),
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let life = self.life.clone();
        tokio::spawn(async move { life.run_until_cancelled(work).await });
    }

    /// Brings a replica up, and stays with it until its worker's process ends, if it has one.
    async fn bring_up(&self, deal: DealId, cell: &Cell) {
        let began = self.clock.now();
        let failure = match self.try_bring_up(deal, cell).await {
            Ok(worker) => {
                let took = self.clock.now().saturating_sub(began);
                tracing::info!(%deal, took_ms = took.as_millis(), process = worker.process_id(), "replica ready");
                self.count_replicas();
                if worker.process_id().is_none() {
                    return;
                }
                let why = worker.ended().await;
                self.count_use(&worker);
                Failure::new(Cause::WorkerDied, why)
            }
            Err(Setback::Overtaken) => return,
            Err(Setback::Failure(failure)) => failure,
        };
        // Refused where the deal ended meanwhile: it then stays ended.
        let event = ReplicaEvent::Failed { failure: failure.clone(), now: self.clock.unix_seconds() };
        if cell.apply(event).is_ok() {
            self.metrics.failures.with_label_values(&[failure.cause.code()]).inc();
            tracing::warn!(%deal, %failure, "replica failed");
        }
        self.count_replicas();
    }

    async fn try_bring_up(&self, deal: DealId, cell: &Cell) -> Result<Worker, Setback> {
        let assignment = cell.snapshot().assignment;
        let offer = &assignment.offer;
        let (bytes, origin) = self.artifacts.get(offer.artifact, &offer.artifact_url).await?;
        let label = match origin {
            Origin::Cache => "cache",
            Origin::Network => "network",
        };
        self.metrics.artifacts.with_label_values(&[label]).inc();
        cell.apply(ReplicaEvent::Verified)?;
        cell.apply(ReplicaEvent::Compiling)?;
        let module = self.host.load(offer.artifact, bytes).await?;
        cell.apply(ReplicaEvent::Starting)?;
        let spec = WorkerSpec { deal, region: self.region, size: offer.size, features: offer.features };
        let worker = self.host.start(module, spec).await?;
        let age = self.seen.age(self.clock.now());
        let is_fresh = age.is_some_and(|age| age <= self.fresh_within);
        cell.ready(worker.clone(), is_fresh.then(|| self.seen.epoch()))?;
        Ok(worker)
    }

    async fn stop(&self, deal: DealId, cell: &Cell) {
        if let Some(worker) = cell.serving().1 {
            worker.close().await;
            self.count_use(&worker);
        }
        if cell.apply(ReplicaEvent::Stopped).is_ok() {
            tracing::info!(%deal, "replica stopped");
        }
        self.count_replicas();
    }

    /// Writes down which deals were ready up to `epoch`, and the requests that were answered.
    pub(crate) async fn write_served(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.book.turn_to(epoch);
        let served = {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            unwritten.extend(self.replicas.observe_ready(epoch));
            unwritten.clone()
        };
        let pages = self.book.pages();
        self.store.keep_served(&served, &pages).await?;
        self.book.written(&pages);
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.retain(|note| !served.contains(note));
        Ok(())
    }

    fn count_use(&self, worker: &Worker) {
        self.metrics.cpu_seconds.inc_by(worker.take_cpu_used().as_secs_f64());
    }

    fn count_replicas(&self) {
        let mut memory = 0_u64;
        let mut counts = ReplicaState::NAMES.map(|name| (name, 0_i64));
        for cell in self.replicas.all() {
            let (state, worker) = cell.serving();
            if let Some((_, count)) = counts.iter_mut().find(|(name, _)| *name == state.name()) {
                *count = count.saturating_add(1);
            }
            if let Some(worker) = worker {
                memory = memory.saturating_add(worker.memory_used());
                self.count_use(&worker);
            }
        }
        for (name, count) in counts {
            self.metrics.replicas.with_label_values(&[name]).set(count);
        }
        self.metrics.memory_bytes.set(i64::try_from(memory).unwrap_or(i64::MAX));
    }
}

/// Whether nothing of a replica runs that would have to end first.
const fn is_idle(state: &ReplicaState) -> bool {
    matches!(state, ReplicaState::Assigned | ReplicaState::Backoff { .. } | ReplicaState::Failed { .. })
}
