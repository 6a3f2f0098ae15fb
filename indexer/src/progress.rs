//! How fast the indexer catches up, and when it will have, as far as that can be known.

use std::{collections::VecDeque, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

/// Time over which rates are measured.
const MEASURED: Duration = Duration::from_secs(60);
/// Shortest time from which anything can be concluded.
const LEAST: Duration = Duration::from_secs(5);
/// Commits that are remembered at most; later ones replace the newest.
const MAX_SAMPLES: usize = 256;

/// Progress towards the head of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    /// Blocks committed of those that there are, in per cent, rounded down.
    pub(crate) percent: u64,
    /// Blocks that are not committed yet.
    pub(crate) blocks_left: u64,
    /// In the last minute; none before there is a basis.
    pub(crate) blocks_per_second: Option<u64>,
    /// In the last minute; none before there is a basis.
    pub(crate) events_per_second: Option<u64>,
    /// At the blocks' rate of the last minute; none before there is a basis, or while nothing moves.
    pub(crate) seconds_left: Option<u64>,
}

/// Commits of the last minute.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    samples: VecDeque<Sample>,
    /// Events committed since the start.
    events: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    block: u64,
    events: u64,
}

impl Pace {
    /// Everything up to `block` is committed, `events` more than before.
    pub(crate) fn committed(&mut self, at: Duration, block: u64, events: u64) {
        self.events = self.events.saturating_add(events);
        if self.samples.back().is_some_and(|last| last.block > block) {
            // The chain went back: what was measured tells nothing about what comes.
            self.samples.clear();
        }
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_back();
        }
        self.samples.push_back(Sample { at, block, events: self.events });
        // One sample from before the measured time stays, to measure from.
        while self.samples.get(1).is_some_and(|second| at.saturating_sub(second.at) >= MEASURED) {
            self.samples.pop_front();
        }
    }

    /// Progress from block `first` to `head`.
    pub(crate) fn progress(&self, now: Duration, first: u64, head: u64) -> Progress {
        let block = self.samples.back().map_or(first, |last| last.block);
        let blocks_left = head.saturating_sub(block);
        let all = head.saturating_sub(first);
        let done = block.saturating_sub(first).min(all);
        let measured = self.measured(now);
        let per_second = |count: u64, millis: u64| count.saturating_mul(1_000).checked_div(millis);
        let seconds_left = measured.and_then(|Measured { millis, blocks, .. }| {
            blocks_left.saturating_mul(millis).checked_div(blocks.saturating_mul(1_000))
        });
        Progress {
            percent: done.saturating_mul(100).checked_div(all).unwrap_or(100),
            blocks_left,
            blocks_per_second: measured.and_then(|measured| per_second(measured.blocks, measured.millis)),
            events_per_second: measured.and_then(|measured| per_second(measured.events, measured.millis)),
            seconds_left,
        }
    }

    fn measured(&self, now: Duration) -> Option<Measured> {
        let (from, to) = self.samples.front().zip(self.samples.back())?;
        let time = now.saturating_sub(from.at);
        let moves = now.saturating_sub(to.at) < MEASURED;
        let since = |later: u64, earlier: u64| if moves { later.saturating_sub(earlier) } else { 0 };
        (time >= LEAST).then(|| Measured {
            millis: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            blocks: since(to.block, from.block),
            events: since(to.events, from.events),
        })
    }
}

/// What was committed in some time.
#[derive(Debug, Clone, Copy)]
struct Measured {
    millis: u64,
    blocks: u64,
    events: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_estimate_is_unknown_until_it_has_a_basis() {
        let mut pace = Pace::default();
        let start = pace.progress(at(100), 0, 10_000);
        assert_eq!((start.percent, start.blocks_left, start.seconds_left), (0, 10_000, None));
        pace.committed(at(100), 0, 0);
        pace.committed(at(102), 200, 50);
        assert_eq!(pace.progress(at(102), 0, 10_000).seconds_left, None, "two seconds are no basis");
        pace.committed(at(110), 1_000, 450);
        let progress = pace.progress(at(110), 0, 10_000);
        assert_eq!((progress.blocks_per_second, progress.events_per_second), (Some(100), Some(50)));
        assert_eq!((progress.percent, progress.seconds_left), (10, Some(90)));
    }

    #[test]
    fn it_follows_the_last_minute_and_admits_that_nothing_moves() {
        let mut pace = Pace::default();
        for second in 0..=100 {
            // 100 blocks a second, then 10.
            let block = if second <= 30 { second * 100 } else { 3_000 + (second - 30) * 10 };
            pace.committed(at(second), block, 1);
        }
        assert_eq!(pace.progress(at(100), 0, 4_700).seconds_left, Some(100));
        assert_eq!(pace.progress(at(1_000), 0, 4_700).blocks_per_second, Some(0));
        assert_eq!(pace.progress(at(1_000), 0, 4_700).seconds_left, None);
        pace.committed(at(1_001), 3_600, 0);
        assert_eq!(pace.progress(at(1_001), 0, 4_700).blocks_per_second, None, "the chain went back");
    }
}
