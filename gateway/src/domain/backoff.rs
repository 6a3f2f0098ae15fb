//! Whether a replica is worth a request. Times are durations since some fixed moment, the same for all calls.

use std::time::Duration;

/// Pause after the first failure in a row; it doubles with each further one.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is known of one replica. A new one is trusted until it fails: it was matched because somebody promised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    failures_in_a_row: u32,
    ejected_until: Duration,
}

impl Standing {
    /// Whether requests may go there at `now`.
    pub fn is_healthy(&self, now: Duration) -> bool {
        now >= self.ejected_until
    }

    /// When requests may go there again.
    pub fn ejected_until(&self) -> Duration {
        self.ejected_until
    }

    /// It answered: everything is forgiven.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It failed at `now`. Failures while it is ejected anyway (requests that were under way, probes) do not make the
    /// pause longer, or one lost connection with many requests on it would count as many.
    pub fn failed(&mut self, now: Duration) {
        if !self.is_healthy(now) {
            return;
        }
        let doublings = self.failures_in_a_row.min(16);
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.ejected_until = now.saturating_add(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_a_success() {
        let mut standing = Standing::default();
        let mut now = Duration::from_secs(100);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            assert!(standing.is_healthy(now));
            standing.failed(now);
            assert!(!standing.is_healthy(now));
            pauses.push(standing.ejected_until() - now);
            now = standing.ejected_until();
        }
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[39], LONGEST_PAUSE);
        standing.failed(now);
        standing.succeeded();
        assert_eq!(standing, Standing::default());
    }

    #[test]
    fn failures_of_one_outage_count_once() {
        let mut standing = Standing::default();
        standing.failed(Duration::ZERO);
        let once = standing;
        (0..10).for_each(|_| standing.failed(Duration::from_millis(1)));
        assert_eq!(standing, once);
    }
}
