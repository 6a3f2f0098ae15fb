//! How the indexer is doing, as its readiness, its API and its metrics tell.

use common::{clock::SharedClock, event::BlockRef};
use tokio::sync::watch;

use crate::{source::Look, store::Checkpoint};

/// Blocks that the projection may be behind the head, or the node behind the projection.
const MAX_LAG_BLOCKS: u64 = 16;
/// Seconds that the projection may be behind without having reached the head. Not by block timestamps: where blocks are
/// rare, the newest one is always much younger than the one before.
const MAX_LAG_SECONDS: u64 = 60;
/// Seconds without a successful look at the chain.
const MAX_SILENT_SECONDS: u64 = 30;

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
    /// Why the loop has ended, once it has.
    stopped: Option<Stop>,
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
}

impl Status {
    pub(crate) fn new(clock: SharedClock, committed: Checkpoint) -> Self {
        let condition = Condition { committed, ..Condition::default() };
        Self { condition: watch::Sender::new(condition), clock }
    }

    /// The chain was looked at; without a step there is nothing new.
    pub(crate) fn looked(&self, look: &Look) {
        let now = self.clock.unix_seconds();
        self.condition.send_modify(|condition| {
            condition.head = Some(look.head);
            condition.looked_at = Some(now);
            condition.compare(now);
        });
    }

    /// A step was committed.
    pub(crate) fn committed(&self, checkpoint: Checkpoint) {
        let now = self.clock.unix_seconds();
        self.condition.send_modify(|condition| {
            condition.committed = checkpoint;
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

    /// Whether answers can be relied on; the text says what is missing.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.condition.borrow().ready(self.clock.unix_seconds())
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

    fn ready(&self, now: u64) -> Result<(), String> {
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
        (Status::new(Arc::new(clock.clone()), committed), clock)
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
        status.committed(at(110));
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
        status.committed(at(100 + MAX_LAG_BLOCKS));
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
