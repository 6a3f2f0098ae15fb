//! How an endpoint is doing, without I/O: when it is left, when it comes back, and how fast it may be asked.
//!
//! Times are those of a [`Clock`](common::clock::Clock).

use std::time::Duration;

/// First time that an endpoint is left for; each further failure doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest time that an endpoint is left for, unless it asks for longer itself.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Longest `Retry-After` that is honoured: it is a stranger's word.
const MAX_REST: Duration = Duration::from_secs(300);

/// What is known about one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failures since it was last well for a while.
    failures: u32,
    /// It is not asked before, if another one can be.
    left_until: Duration,
    /// Whether it must not be asked before at all: it said that it is over its limit.
    must_rest: bool,
    /// How long it was left for last.
    backoff: Duration,
    head: Option<SeenHead>,
}

/// The newest block that an endpoint named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenHead {
    pub(crate) number: u64,
    pub(crate) moved_at: Duration,
}

/// Whether an endpoint can be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Well,
    /// Left until then; asked all the same when no other one is well.
    Suspect(Duration),
    /// Over its limit until then.
    Resting(Duration),
}

impl Health {
    pub(crate) fn standing(&self, now: Duration) -> Standing {
        match self.left_until > now {
            false => Standing::Well,
            true if self.must_rest => Standing::Resting(self.left_until),
            true => Standing::Suspect(self.left_until),
        }
    }

    /// It answered as it should.
    pub(crate) fn answered(&mut self, now: Duration) {
        // One good answer between two failures does not make it well.
        if now > self.left_until.saturating_add(self.backoff) {
            self.failures = 0;
        }
    }

    /// It is left for a while; says for how long. Failures while it is left already change nothing, so that many requests
    /// that fail together count as one.
    pub(crate) fn leave(&mut self, now: Duration) -> Option<Duration> {
        if self.left_until > now {
            return None;
        }
        self.backoff =
            FIRST_BACKOFF.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1).min(16);
        self.left_until = now.saturating_add(self.backoff);
        self.must_rest = false;
        // A head that it named before it failed tells nothing about the others.
        self.head = None;
        Some(self.backoff)
    }

    /// It said that it is over its limit, and perhaps for how long.
    pub(crate) fn rest(&mut self, now: Duration, retry_after: Option<Duration>) -> Duration {
        let backoff = self.leave(now).unwrap_or(self.backoff);
        let rest = retry_after.map_or(backoff, |asked| asked.clamp(FIRST_BACKOFF, MAX_REST));
        self.left_until = self.left_until.max(now.saturating_add(rest));
        self.must_rest = true;
        rest
    }

    pub(crate) fn saw_head(&mut self, now: Duration, number: u64) {
        let moved_at = self.head.filter(|head| head.number == number).map_or(now, |head| head.moved_at);
        self.head = Some(SeenHead { number, moved_at });
    }

    pub(crate) const fn head(&self) -> Option<SeenHead> {
        self.head
    }
}

/// Why an endpoint with head `own` shall be left, given the best head of the others.
pub(crate) fn is_behind(
    own: SeenHead,
    best: SeenHead,
    now: Duration,
    max_blocks: u64,
    max_still: Duration,
) -> Option<String> {
    let behind = best.number.saturating_sub(own.number);
    if behind > max_blocks {
        return Some(format!("it is {behind} blocks behind another one (limit {max_blocks})"));
    }
    let still = now.saturating_sub(own.moved_at);
    let others_moved = behind > 0 && best.moved_at > own.moved_at;
    (others_moved && still > max_still)
        .then(|| format!("its head has not moved for {} s while another's did", still.as_secs()))
}

/// A limit on requests per second, with one second's worth of burst.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: u32,
    /// When the bucket will be full again: the fuller it is, the further this lies in the past.
    full_at: Duration,
}

impl TokenBucket {
    pub(crate) const fn new(per_second: u32) -> Self {
        Self { per_second, full_at: Duration::ZERO }
    }

    /// Takes `tokens` and says how long to wait before using them. More than the burst may be taken: it is owed then.
    pub(crate) fn take(&mut self, now: Duration, tokens: u32) -> Duration {
        let Some(each) = Duration::from_secs(1).checked_div(self.per_second) else { return Duration::ZERO };
        self.full_at = self.full_at.max(now).saturating_add(each.saturating_mul(tokens));
        self.full_at.saturating_sub(now).saturating_sub(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use common::clock::{Clock, ManualClock};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_endpoint_that_fails_again_and_again_is_left_for_longer() {
        let clock = ManualClock::at(1_000);
        let mut health = Health::default();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(health.leave(clock.now()), Some(Duration::from_secs(seconds)));
            assert_eq!(health.leave(clock.now()), None, "failures at the same time count once");
            assert!(matches!(health.standing(clock.now()), Standing::Suspect(_)));
            clock.advance(Duration::from_secs(seconds));
            assert_eq!(health.standing(clock.now()), Standing::Well);
            health.answered(clock.now());
        }
        clock.advance(61 * SECOND);
        health.answered(clock.now());
        assert_eq!(health.leave(clock.now()), Some(SECOND), "well for a while: forgiven");
    }

    #[test]
    fn an_endpoint_over_its_limit_rests_as_long_as_it_asks() {
        let clock = ManualClock::at(1_000);
        let mut health = Health::default();
        assert_eq!(health.rest(clock.now(), Some(7 * SECOND)), 7 * SECOND);
        clock.advance(6 * SECOND);
        assert_eq!(health.standing(clock.now()), Standing::Resting(1_007 * SECOND));
        clock.advance(SECOND);
        assert_eq!(health.standing(clock.now()), Standing::Well);
        assert_eq!(health.rest(clock.now(), Some(Duration::from_secs(86_400))), MAX_REST);
        let mut health = Health::default();
        assert_eq!(health.rest(clock.now(), None), FIRST_BACKOFF);
    }

    #[test]
    fn a_head_far_behind_or_still_while_others_move_is_noticed() {
        let at = |number, seconds| SeenHead { number, moved_at: Duration::from_secs(seconds) };
        let behind = |own, best, now| is_behind(own, best, Duration::from_secs(now), 8, 60 * SECOND);
        assert_eq!(behind(at(100, 10), at(108, 20), 30), None);
        assert!(behind(at(100, 10), at(109, 20), 30).unwrap().contains("9 blocks behind"));
        assert!(behind(at(100, 10), at(101, 20), 71).unwrap().contains("not moved for 61 s"));
        assert_eq!(behind(at(100, 10), at(100, 10), 999), None, "the chain itself stands still");
    }

    #[test]
    fn the_rate_is_kept_after_a_burst_of_a_second() {
        let clock = ManualClock::at(1_000);
        let mut bucket = TokenBucket::new(10);
        for _ in 0..10 {
            assert_eq!(bucket.take(clock.now(), 1), Duration::ZERO);
        }
        assert_eq!(bucket.take(clock.now(), 1), Duration::from_millis(100));
        assert_eq!(bucket.take(clock.now(), 20), Duration::from_millis(2_100));
        clock.advance(4 * SECOND);
        assert_eq!(bucket.take(clock.now(), 10), Duration::ZERO);
        assert_eq!(TokenBucket::new(0).take(clock.now(), 1_000), Duration::ZERO, "no limit");
    }
}
