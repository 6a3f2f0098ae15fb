//! How the indexer is doing, as its readiness, its API and its metrics tell.

use std::time::Duration;

use common::{
    clock::SharedClock,
    event::{BlockRef, MarketBlock},
};
use tokio::sync::watch;

use crate::{
    progress::{Pace, Progress},
    source::Look,
    store::Checkpoint,
};

/// Blocks that the projection may be behind the head, or the node behind the projection.
const MAX_LAG_BLOCKS: u64 = 16;
/// Seconds that the projection may be behind without having reached the head. Not by block timestamps: where blocks are
/// rare, the newest one is always much younger than the one before.
const MAX_LAG_SECONDS: u64 = 60;
/// Seconds without a successful look at the chain.
const MAX_SILENT_SECONDS: u64 = 30;
/// Seconds between two words about the progress.
const TELL_SECONDS: u64 = 10;

/// What is known about the indexer now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) head: Option<BlockRef>,
    pub(crate) committed: Checkpoint,
    /// Whether the projection has reached the head since the start.
    converged: bool,
    /// Second since which the projection has not been at the head.
    behind_since: Option<u64>,
    /// Second of the last successful look at the chain.
    looked_at: Option<u64>,
    heads: Heads,
    pace: Pace,
    /// Second in which the progress was told last.
    told_at: Option<u64>,
    /// Why the loop has ended, once it has.
    stopped: Option<Stop>,
}

/// When the head of the chain moved.
#[derive(Debug, Clone, Copy, Default)]
struct Heads {
    moved_at: u64,
    /// Second since which the head has never stood still for half the time that counts as a stall.
    regular_since: u64,
}

impl Heads {
    fn moved(&mut self, now: u64, max_still: u64) {
        if now.saturating_sub(self.moved_at) > max_still.div_euclid(2) {
            self.regular_since = now;
        }
        self.moved_at = now;
    }

    /// Seconds for which a head stands still that moved regularly before, for as long at least. Chains that make blocks
    /// only when there are transactions have no such head.
    fn stalled(&self, now: u64, max_still: u64) -> Option<u64> {
        let still = now.saturating_sub(self.moved_at);
        let was_regular = self.moved_at.saturating_sub(self.regular_since) >= max_still;
        (still > max_still && was_regular).then_some(still)
    }
}

#[derive(Debug, Clone)]
struct Stop {
    reason: String,
    failed: bool,
}

/// Shared between the loop, which writes, and those who ask.
pub(crate) struct Status {
    condition: watch::Sender<Condition>,
    clock: SharedClock,
    limits: StatusLimits,
}

/// What [`Status`] compares with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatusLimits {
    /// The market's first block.
    pub(crate) first_block: u64,
    /// Longest time that a head may stand still which moved regularly before.
    pub(crate) max_still: Duration,
}

impl Status {
    pub(crate) fn new(clock: SharedClock, committed: Checkpoint, limits: StatusLimits) -> Self {
        let mut condition = Condition { committed, ..Condition::default() };
        let block = committed.block.map_or(limits.first_block, |block| block.number);
        condition.pace.committed(clock.now(), block, 0);
        Self { condition: watch::Sender::new(condition), clock, limits }
    }

    /// The chain was looked at; without a step there is nothing new.
    pub(crate) fn looked(&self, look: &Look) {
        let now = self.clock.unix_seconds();
        self.condition.send_modify(|condition| {
            if condition.head.is_none_or(|head| head.hash != look.head.hash) {
                condition.heads.moved(now, self.limits.max_still.as_secs());
            }
            condition.head = Some(look.head);
            condition.looked_at = Some(now);
            condition.compare(now);
        });
    }

    /// A step was committed, which added these blocks.
    pub(crate) fn committed(&self, checkpoint: Checkpoint, added: &[MarketBlock]) {
        let now = self.clock.unix_seconds();
        let events = added.iter().map(|block| block.events.len()).sum::<usize>();
        let block = checkpoint.block.map_or(self.limits.first_block, |block| block.number);
        self.condition.send_modify(|condition| {
            condition.committed = checkpoint;
            condition.pace.committed(self.clock.now(), block, u64::try_from(events).unwrap_or(u64::MAX));
            condition.compare(now);
        });
    }

    /// The loop ended as it was told to.
    pub(crate) fn shut_down(&self) {
        let stop = Stop { reason: "it was shut down".to_owned(), failed: false };
        self.condition.send_modify(|condition| condition.stopped = Some(stop));
    }

    /// The loop ended by an error.
    pub(crate) fn failed(&self, reason: String) {
        self.condition.send_modify(|condition| condition.stopped = Some(Stop { reason, failed: true }));
    }

    pub(crate) fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// How far it is from the market's first block to the head; none before the head is known.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let condition = self.condition.borrow();
        let head = condition.head?.number;
        Some(condition.pace.progress(self.clock.now(), self.limits.first_block, head))
    }

    /// The progress, where it is time to tell it: now and then until the head is reached.
    pub(crate) fn progress_to_tell(&self) -> Option<Progress> {
        let now = self.clock.unix_seconds();
        let mut is_due = false;
        self.condition.send_if_modified(|condition| {
            let told = condition.told_at.get_or_insert(now);
            is_due = !condition.converged && now.saturating_sub(*told) >= TELL_SECONDS;
            if is_due {
                *told = now;
            }
            false
        });
        self.progress().filter(|_| is_due)
    }

    /// Whether answers can be relied on; the text says what is missing.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.condition.borrow().ready(self.clock.unix_seconds(), self.limits.max_still.as_secs())
    }
}

impl Condition {
    /// Why answers must not be given at all: the loop ended by an error, such as a chain that broke its finality.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.stopped.as_ref().filter(|stop| stop.failed).map(|stop| stop.reason.as_str())
    }

    fn compare(&mut self, now: u64) {
        let is_at_head = self.committed.block.zip(self.head).is_some_and(|(block, head)| block.number >= head.number);
        self.converged |= is_at_head;
        self.behind_since = if is_at_head { None } else { self.behind_since.or(Some(now)) };
    }

    fn ready(&self, now: u64, max_still: u64) -> Result<(), String> {
        if let Some(stop) = &self.stopped {
            return Err(format!("the indexer stopped: {}", stop.reason));
        }
        let (Some(head), Some(looked_at)) = (self.head, self.looked_at) else {
            return Err("the chain has not answered the indexer yet".to_owned());
        };
        let silent = now.saturating_sub(looked_at);
        if silent > MAX_SILENT_SECONDS {
            return Err(format!(
                "the indexer could not follow the chain for {silent} s (limit {MAX_SILENT_SECONDS} s)"
            ));
        }
        let Some(block) = self.committed.block.filter(|_| self.converged) else {
            let at = self.committed.block.map_or(0, |block| block.number);
            return Err(format!("the indexer is catching up: block {at} of {}", head.number));
        };
        let blocks = head.number.saturating_sub(block.number);
        let seconds = self.behind_since.map_or(0, |since| now.saturating_sub(since));
        if blocks > MAX_LAG_BLOCKS || seconds > MAX_LAG_SECONDS {
            return Err(format!(
                "the indexer is {blocks} blocks behind the chain, for {seconds} s (limits {MAX_LAG_BLOCKS} and \
                 {MAX_LAG_SECONDS} s)"
            ));
        }
        if let Some(still) = self.heads.stalled(now, max_still) {
            return Err(format!(
                "the chain's head, block {}, has not moved for {still} s (limit {max_still} s), and did so regularly before: \
                 the endpoints or the chain have stalled",
                head.number
            ));
        }
        let node_behind = block.number.saturating_sub(head.number);
        if node_behind > MAX_LAG_BLOCKS {
            return Err(format!(
                "the node is {node_behind} blocks behind what was indexed (limit {MAX_LAG_BLOCKS}): it is syncing, or \
                 serves another chain"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::{clock::ManualClock, ids::BlockHash};

    use super::*;

    const MAX_STILL: u64 = 120;

    fn block(number: u64) -> BlockRef {
        let hash = BlockHash([u8::try_from(number % 251).unwrap(); 32]);
        BlockRef { number, hash, parent_hash: BlockHash::ZERO, timestamp: number }
    }

    fn look(number: u64) -> Look {
        Look { head: block(number), step: None }
    }

    fn at(number: u64) -> Checkpoint {
        Checkpoint { block: Some(block(number)), finalized: None }
    }

    fn status(committed: Checkpoint) -> (Status, ManualClock) {
        let clock = ManualClock::at(1_000);
        let limits = StatusLimits { first_block: 0, max_still: Duration::from_secs(MAX_STILL) };
        (Status::new(Arc::new(clock.clone()), committed, limits), clock)
    }

    fn missing(status: &Status) -> String {
        status.ready().unwrap_err()
    }

    #[test]
    fn ready_only_after_the_head_was_reached_since_the_start() {
        let (status, _) = status(at(100));
        assert!(missing(&status).contains("has not answered"));
        status.looked(&look(110));
        assert!(missing(&status).contains("catching up: block 100 of 110"));
        status.committed(at(110), &[]);
        assert_eq!(status.ready(), Ok(()));
        status.looked(&look(112));
        assert_eq!(status.ready(), Ok(()), "a few blocks behind is normal");
    }

    #[test]
    fn lagging_by_blocks_or_by_time_is_not_ready() {
        let (status, clock) = status(at(100));
        status.looked(&look(100));
        status.looked(&look(101 + MAX_LAG_BLOCKS));
        assert!(missing(&status).contains("17 blocks behind"));
        status.committed(at(100 + MAX_LAG_BLOCKS), &[]);
        assert_eq!(status.ready(), Ok(()));
        for _ in 0..4 {
            clock.advance(std::time::Duration::from_secs(20));
            status.looked(&look(101 + MAX_LAG_BLOCKS));
        }
        assert!(missing(&status).contains("for 80 s"), "looks succeed, commits do not");
    }

    #[test]
    fn a_silent_chain_and_a_node_far_behind_are_not_ready() {
        let (status, clock) = status(at(100));
        status.looked(&look(100));
        clock.advance(std::time::Duration::from_secs(MAX_SILENT_SECONDS + 1));
        assert!(missing(&status).contains("could not follow the chain for 31 s"));
        status.looked(&look(99));
        assert_eq!(status.ready(), Ok(()));
        status.looked(&look(5));
        assert!(missing(&status).contains("95 blocks behind what was indexed"));
    }

    #[test]
    fn a_head_that_moved_regularly_and_stands_still_is_not_ready() {
        let (status, clock) = status(at(0));
        let second = Duration::from_secs(1);
        let look_on = |number| {
            status.looked(&look(number));
            status.committed(at(number), &[]);
        };
        // A burst of blocks is no regularity.
        for number in 0..50 {
            look_on(number);
            clock.advance(second);
        }
        for _ in 0..100 {
            clock.advance(10 * second);
            look_on(50);
            assert_eq!(status.ready(), Ok(()));
        }
        for number in 51..70 {
            clock.advance(12 * second);
            look_on(number);
        }
        for _ in 0..12 {
            clock.advance(10 * second);
            look_on(69);
            assert_eq!(status.ready(), Ok(()));
        }
        clock.advance(10 * second);
        look_on(69);
        assert!(missing(&status).contains("block 69, has not moved for 130 s"), "{}", missing(&status));
        look_on(70);
        assert_eq!(status.ready(), Ok(()));
    }

    #[test]
    fn progress_is_told_now_and_then_until_the_head_is_reached() {
        let (status, clock) = status(at(0));
        assert_eq!(status.progress(), None);
        let mut told = Vec::new();
        for number in 0..60 {
            clock.advance(Duration::from_secs(1));
            status.looked(&look(100));
            status.committed(at(number * 2), &[]);
            told.extend(status.progress_to_tell());
        }
        let percents: Vec<u64> = told.iter().map(|progress| progress.percent).collect();
        assert_eq!(percents, [20, 40, 60, 80], "never again once the head was reached");
        assert_eq!(told[0].seconds_left, Some(44), "80 blocks at 20 in 11 seconds");
    }

    #[test]
    fn a_stopped_indexer_says_why() {
        let (status, _) = status(at(100));
        status.looked(&look(100));
        status.shut_down();
        assert!(missing(&status).contains("shut down"));
        assert_eq!(status.condition().failure(), None, "what was indexed may still be read");
        status.failed("diverged".to_owned());
        assert!(missing(&status).contains("diverged"));
        assert_eq!(status.condition().failure(), Some("diverged"));
    }
}
