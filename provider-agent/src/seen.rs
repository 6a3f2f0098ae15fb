//! When the chain was last seen, and in which epoch it was.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use common::epoch::Epoch;

/// Shared by the one who looks at the chain and those who want to know how old that look is.
#[derive(Debug)]
pub(crate) struct Seen {
    epoch: AtomicU32,
    /// Milliseconds since 1970 of the last good look; 0 before the first.
    at: AtomicU64,
}

impl Seen {
    /// Not seen in this run of the program; `epoch` is from an earlier one.
    pub(crate) const fn before_restart(epoch: Epoch) -> Self {
        Self { epoch: AtomicU32::new(epoch.0), at: AtomicU64::new(0) }
    }

    /// The chain was seen at `now` (since 1970).
    pub(crate) fn note(&self, epoch: Epoch, now: Duration) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.at.store(millis(now), Ordering::Relaxed);
    }

    /// The last known epoch, however old.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// How long ago the chain was seen; `None` before the first time.
    pub(crate) fn age(&self, now: Duration) -> Option<Duration> {
        match self.at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Duration::from_millis(millis(now).saturating_sub(at))),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
