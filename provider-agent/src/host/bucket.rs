//! The CPU that was bought, as a token bucket: what a deal uses beyond its share it waits for.
//!
//! Tokens are nanoseconds of CPU time. They come in at the share that was bought and are kept up to `burst`; what was used is
//! taken out after the fact, so that the balance may be below zero: then nothing of the deal runs until it is above.
//! Over any span a deal uses at most share × span + burst, and what runs when the balance ends: one turn of each thread.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// Where the CPU time that is charged comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuSource {
    /// What is charged by hand: the turns of the deal's requests on the clocks of their threads.
    Turns,
    /// The clock of this process, which sums those of all its threads: for a process that serves one deal alone.
    Process,
}

/// The share of one deal.
#[derive(Debug)]
pub(crate) struct CpuShare {
    milli_cpu: u32,
    burst: i64,
    source: CpuSource,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    balance: i64,
    at: Instant,
    /// The process's clock when it was last charged.
    charged: Duration,
    paused: Duration,
}

/// CPU time of this process so far.
pub(crate) fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // A process's CPU clock never shows a negative time.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl CpuShare {
    /// A full bucket. `milli_cpu` thousandths of a CPU were bought; `burst` of CPU time may be used at once.
    pub(crate) fn new(milli_cpu: u32, burst: Duration, source: CpuSource, now: Instant) -> Self {
        let burst = nanos(burst);
        let state = State { balance: burst, at: now, charged: process_cpu(), paused: Duration::ZERO };
        Self { milli_cpu, burst, source, state: Mutex::new(state) }
    }

    /// Charges CPU time that is not seen otherwise.
    pub(crate) fn charge(&self, used: Duration) {
        if self.source == CpuSource::Turns {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.balance = state.balance.saturating_sub(nanos(used));
        }
    }

    /// How long the deal has to wait before anything of it runs again; `None` when it may run now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.source == CpuSource::Process {
            let used = process_cpu();
            state.balance = state.balance.saturating_sub(nanos(used.saturating_sub(state.charged)));
            state.charged = used;
        }
        let elapsed = nanos(now.saturating_duration_since(state.at));
        state.at = state.at.max(now);
        let earned = i128::from(elapsed).saturating_mul(i128::from(self.milli_cpu)).checked_div(1_000).unwrap_or(0);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        state.balance = state.balance.saturating_add(earned).min(self.burst);
        if state.balance > 0 {
            return None;
        }
        // Nanoseconds of CPU over milli-CPU, rounded up to whole microseconds.
        let debt = 1_i64.saturating_sub(state.balance);
        let share = i64::from(self.milli_cpu.max(1));
        let micros = debt.saturating_add(share.saturating_sub(1)).checked_div(share).unwrap_or(i64::MAX);
        let wait = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(LONGEST_WAIT);
        state.paused = state.paused.saturating_add(wait);
        Some(wait)
    }

    /// Time that requests of the deal have waited for CPU, summed over them.
    pub(crate) fn paused(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).paused
    }
}

/// After this it is looked at again, as the balance is only known by looking.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(milli_cpu: u32, burst_ms: u64, now: Instant) -> CpuShare {
        CpuShare::new(milli_cpu, Duration::from_millis(burst_ms), CpuSource::Turns, now)
    }

    #[test]
    fn what_was_used_beyond_the_share_is_waited_for() {
        let began = Instant::now();
        let share = share(250, 100, began);
        assert_eq!(share.wait(began), None);
        share.charge(Duration::from_millis(150));
        // 50 ms too much at a quarter of a CPU.
        let wait = share.wait(began).unwrap();
        assert_eq!(wait.as_millis(), 200);
        assert!(share.wait(began + Duration::from_millis(199)).is_some());
        assert_eq!(share.wait(began + wait), None);
        assert!(share.paused() >= wait);
        // Idle time fills it to the burst and no further.
        share.charge(Duration::from_millis(101));
        assert!(share.wait(began + Duration::from_secs(3_600)).is_none());
        share.charge(Duration::from_millis(101));
        assert!(share.wait(began + Duration::from_secs(3_600)).is_some());
    }

    proptest! {
        /// Whoever runs whenever it may, in turns of any length, uses share × time + burst and one turn at most, and no
        /// less than its share.
        #[test]
        fn over_any_span_the_share_is_what_was_bought(
            milli_cpu in 1_u32..8_000,
            turns in proptest::collection::vec(1_u64..20_000, 1..200),
        ) {
            let began = Instant::now();
            let burst = Duration::from_millis(50);
            let share = CpuShare::new(milli_cpu, burst, CpuSource::Turns, began);
            let (mut now, mut used) = (began, Duration::ZERO);
            let longest = Duration::from_micros(*turns.iter().max().unwrap());
            for turn in turns {
                while let Some(wait) = share.wait(now) {
                    now += wait;
                }
                let turn = Duration::from_micros(turn);
                share.charge(turn);
                used += turn;
                let bought = (now - began) * milli_cpu / 1_000;
                prop_assert!(used <= bought + burst + longest, "{used:?} of {bought:?}");
                // Waits are rounded up to whole microseconds.
                let fair = bought.saturating_sub(Duration::from_millis(10));
                prop_assert!(used >= fair || now == began, "{used:?} of {bought:?}");
            }
        }
    }
}
