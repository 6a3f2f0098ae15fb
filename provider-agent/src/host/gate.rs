//! Who may run: so many requests of a deal at once, so many waiting, and none once it is closed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::ServeError;
use crate::config::HostLimits;

/// Admits the requests of one deal.
pub(crate) struct Gate {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: HostLimits,
}

impl Gate {
    pub(crate) fn new(limits: HostLimits) -> Self {
        let running = Arc::new(Semaphore::new(limits.max_concurrent_requests));
        Self { running, waiting: AtomicUsize::new(0), limits }
    }

    /// Requests that run now.
    pub(crate) fn running(&self) -> usize {
        self.limits.max_concurrent_requests.saturating_sub(self.running.available_permits())
    }

    /// Waits for a turn, up to `deadline`. The permit is the turn.
    pub(crate) async fn admit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ServeError> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        if self.running.is_closed() {
            return Err(ServeError::Closed);
        }
        let _waiting =
            Waiting::begin(&self.waiting, self.limits.max_queued_requests).ok_or(ServeError::Overloaded {
                running: self.limits.max_concurrent_requests,
                waiting: self.limits.max_queued_requests,
            })?;
        match tokio::time::timeout_at(deadline, self.running.clone().acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| ServeError::Closed),
            Err(_) => Err(ServeError::Deadline { limit_ms: self.limits.request_timeout_ms }),
        }
    }

    /// Refuses all further requests and waits until the running ones have ended, which their deadline bounds.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(self.limits.max_concurrent_requests).unwrap_or(u32::MAX);
        if let Ok(permits) = self.running.acquire_many(all).await {
            permits.forget();
        }
        self.running.close();
    }
}

/// Counts a waiting request for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let more = |waiting: usize| waiting.checked_add(1).filter(|waiting| *waiting <= limit);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
