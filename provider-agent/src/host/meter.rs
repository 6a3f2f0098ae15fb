//! What a request uses: CPU time by the clock of the thread that runs it, memory over all memories and tables of a deal.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;
use wasmtime::ResourceLimiter;

use super::bucket::CpuShare;

/// What one table element takes of the host's memory.
const TABLE_ELEMENT_BYTES: u64 = 8;

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A thread's CPU clock never shows a negative time.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time of one request. It moves between threads, but only while it does not run.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    /// Nanoseconds of all earlier turns.
    spent: AtomicU64,
    /// The thread's clock when the present turn began.
    turn_began: AtomicU64,
}

impl CpuMeter {
    /// CPU time so far; to be asked on the thread that runs the request, or when it does not run.
    pub(crate) fn spent_in_turn(&self) -> Duration {
        let turn = nanos(thread_cpu()).saturating_sub(self.turn_began.load(Ordering::Relaxed));
        Duration::from_nanos(self.spent.load(Ordering::Relaxed).saturating_add(turn))
    }

    /// CPU time of all turns that are over.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    fn begin_turn(&self) {
        self.turn_began.store(nanos(thread_cpu()), Ordering::Relaxed);
    }

    /// CPU time of the turn that is over now.
    fn end_turn(&self) -> Duration {
        let turn = nanos(thread_cpu()).saturating_sub(self.turn_began.load(Ordering::Relaxed));
        self.spent.fetch_add(turn, Ordering::Relaxed);
        Duration::from_nanos(turn)
    }
}

/// A future whose turns are counted by a meter and charged to its deal's share; it gets no turn while that is used up.
pub(crate) struct Metered<F> {
    future: Pin<Box<F>>,
    meter: Arc<CpuMeter>,
    share: Arc<CpuShare>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F> Metered<F> {
    pub(crate) fn new(future: F, meter: Arc<CpuMeter>, share: Arc<CpuShare>) -> Self {
        Self { future: Box::pin(future), meter, share, pause: None }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let Some(wait) = self.share.wait(Instant::now()) else { break };
            self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        }
        self.meter.begin_turn();
        let polled = self.future.as_mut().poll(context);
        let turn = self.meter.end_turn();
        self.share.charge(turn);
        polled
    }
}

/// The memory that a deal has bought, shared by all its instances.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or says how many would be in use then.
    fn take(&self, bytes: u64) -> Result<(), u64> {
        let grown = |used: u64| used.checked_add(bytes).filter(|total| *total <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => Ok(()),
            Err(used) => Err(used.saturating_add(bytes)),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Set when a request was refused memory; the guest may have gone on without.
#[derive(Debug, Default)]
pub(crate) struct MemoryRefusal {
    wanted: AtomicU64,
    others: AtomicU64,
}

impl MemoryRefusal {
    /// Bytes that the deal would have used, and how many of them belong to its other requests.
    pub(crate) fn get(&self) -> Option<(u64, u64)> {
        match self.wanted.load(Ordering::Relaxed) {
            0 => None,
            wanted => Some((wanted, self.others.load(Ordering::Relaxed))),
        }
    }
}

/// The share of one instance in its deal's memory; given back when it is dropped.
pub(crate) struct MemoryMeter {
    budget: Arc<MemoryBudget>,
    refusal: Arc<MemoryRefusal>,
    held: u64,
    last_growth: u64,
}

impl MemoryMeter {
    pub(crate) fn new(budget: Arc<MemoryBudget>, refusal: Arc<MemoryRefusal>) -> Self {
        Self { budget, refusal, held: 0, last_growth: 0 }
    }

    /// Takes `bytes`, unless the module's own `maximum` forbids them anyway.
    fn grow(&mut self, bytes: u64, is_allowed: bool) -> bool {
        self.last_growth = 0;
        if !is_allowed {
            return false;
        }
        if let Err(wanted) = self.budget.take(bytes) {
            self.refusal.wanted.store(wanted, Ordering::Relaxed);
            self.refusal.others.store(self.budget.used().saturating_sub(self.held), Ordering::Relaxed);
            return false;
        }
        self.held = self.held.saturating_add(bytes);
        self.last_growth = bytes;
        true
    }

    fn undo_growth(&mut self) {
        self.held = self.held.saturating_sub(self.last_growth);
        self.budget.give_back(std::mem::take(&mut self.last_growth));
    }
}

impl Drop for MemoryMeter {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

fn growth(current: usize, desired: usize) -> u64 {
    u64::try_from(desired.saturating_sub(current)).unwrap_or(u64::MAX)
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(growth(current, desired), maximum.is_none_or(|maximum| desired <= maximum)))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a memory did not grow");
        self.undo_growth();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = growth(current, desired).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(self.grow(bytes, maximum.is_none_or(|maximum| desired <= maximum)))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a table did not grow");
        self.undo_growth();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::bucket::CpuSource;

    #[test]
    fn a_budget_is_shared_and_comes_back() {
        let budget = Arc::new(MemoryBudget::new(100));
        let refusal = Arc::new(MemoryRefusal::default());
        let mut one = MemoryMeter::new(budget.clone(), Arc::default());
        let mut two = MemoryMeter::new(budget.clone(), refusal.clone());
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(two.table_growing(0, 5, None).unwrap());
        assert!(!two.memory_growing(0, 1, Some(0)).unwrap(), "beyond what the module itself declares");
        assert_eq!(refusal.get(), None);
        assert!(!two.memory_growing(0, 1, None).unwrap());
        assert_eq!(refusal.get(), Some((101, 60)));
        drop(one);
        assert!(two.memory_growing(0, 60, None).unwrap());
        two.memory_grow_failed(wasmtime::Error::msg("the machine has no more")).unwrap();
        assert_eq!(budget.used(), 40);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn cpu_time_counts_work_and_not_waiting() {
        let meter = Arc::new(CpuMeter::default());
        let inner = meter.clone();
        let busy = async move {
            while inner.spent_in_turn() < Duration::from_millis(20) {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
        };
        let share = CpuShare::new(1_000, Duration::from_millis(1), CpuSource::Turns, Instant::now());
        Metered::new(busy, meter.clone(), Arc::new(share)).await;
        assert!(meter.spent() >= Duration::from_millis(20));
    }
}
