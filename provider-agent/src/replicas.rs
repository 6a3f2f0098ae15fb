//! All replicas of this agent, shared by those who change them (the supervisor) and those who ask (ingress, billing).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use common::{deal::Deal, epoch::Epoch, ids::DealId};

use crate::{
    domain::replica::{IllegalEvent, Replica, ReplicaEvent, ReplicaState},
    host::Worker,
    store::Assignment,
};

/// One replica: what the chain says of it, where it stands, and its worker once there is one.
pub(crate) struct Cell {
    inner: Mutex<Inner>,
}

struct Inner {
    assignment: Assignment,
    replica: Replica,
    worker: Option<Worker>,
    /// Epoch from which on it is ready and not reported yet, while that lasts.
    ready_since: Option<Epoch>,
}

/// What there is to know of a replica at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) assignment: Assignment,
    pub(crate) state: ReplicaState,
    pub(crate) worker: Option<Worker>,
}

impl Cell {
    fn new(assignment: Assignment) -> Self {
        let inner = Inner { assignment, replica: Replica::default(), worker: None, ready_since: None };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            assignment: inner.assignment.clone(),
            state: inner.replica.state().clone(),
            worker: inner.worker.clone(),
        }
    }

    /// State and worker alone: what a request needs.
    pub(crate) fn serving(&self) -> (ReplicaState, Option<Worker>) {
        let inner = self.lock();
        (inner.replica.state().clone(), inner.worker.clone())
    }

    pub(crate) fn apply(&self, event: ReplicaEvent) -> Result<ReplicaState, IllegalEvent> {
        let mut inner = self.lock();
        inner.replica.apply(event)?;
        let state = inner.replica.state().clone();
        if state != ReplicaState::Ready {
            inner.ready_since = None;
        }
        // Nothing is left of it, or nothing that is of use.
        if state == ReplicaState::Stopped || state.failure().is_some() {
            inner.worker = None;
        }
        Ok(state)
    }

    /// Ready with this worker, in one step; `since` is the present epoch, where that is known.
    pub(crate) fn ready(&self, worker: Worker, since: Option<Epoch>) -> Result<(), IllegalEvent> {
        let mut inner = self.lock();
        inner.replica.apply(ReplicaEvent::Ready)?;
        inner.worker = Some(worker);
        inner.ready_since = since;
        Ok(())
    }

    /// Epochs up to `now` in which it was ready without a break, as far as was seen.
    fn observe_ready(&self, now: Epoch) -> std::ops::RangeInclusive<u32> {
        let mut inner = self.lock();
        if inner.replica.state() != &ReplicaState::Ready {
            return std::ops::RangeInclusive::new(1, 0);
        }
        let since = *inner.ready_since.get_or_insert(now);
        // From here on only what is new is reported.
        inner.ready_since = Some(now);
        since.0..=now.0
    }
}

/// The replicas by deal.
#[derive(Default)]
pub(crate) struct Replicas {
    cells: RwLock<BTreeMap<DealId, Arc<Cell>>>,
}

impl Replicas {
    pub(crate) fn get(&self, deal: DealId) -> Option<Arc<Cell>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).get(&deal).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes over what was read of a deal; its worker and state stay.
    pub(crate) fn assign(&self, assignment: Assignment) {
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        match cells.get(&assignment.deal.id) {
            Some(cell) => cell.lock().assignment = assignment,
            None => {
                cells.insert(assignment.deal.id, Arc::new(Cell::new(assignment)));
            }
        }
    }

    /// All deals, as last read.
    pub(crate) fn deals(&self) -> Vec<Deal> {
        self.all().iter().map(|cell| cell.lock().assignment.deal.clone()).collect()
    }

    /// What was ready since this was last asked, up to epoch `now`.
    pub(crate) fn observe_ready(&self, now: Epoch) -> Vec<(DealId, Epoch)> {
        let ready = |cell: &Arc<Cell>| {
            let deal = cell.lock().assignment.deal.id;
            cell.observe_ready(now).map(move |epoch| (deal, Epoch(epoch)))
        };
        self.all().iter().flat_map(ready).collect()
    }
}
