//! Reading a market's events, a window of blocks at a time: what is held at once is one window and the market's state.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chain::MarketReader;
use common::event::{BlockRef, MarketBlock};

use super::{
    judge::{Book, Findings},
    lists::ListAudit,
};
use crate::output::Output;

/// Blocks of the first window.
const FIRST_WINDOW: u64 = 1_000;
/// Most blocks of a window.
const MOST_BLOCKS: u64 = 100_000;
/// Windows with fewer events grow, windows with more than four times as many shrink.
const FEW_EVENTS: usize = 2_000;
/// Time between two words about the progress.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// The market's events up to some block.
pub(super) struct Replay {
    feed: Feed,
    pub(super) book: Book,
    /// Lists that are compared while the events are read.
    pub(super) lists: Vec<ListAudit>,
}

impl Replay {
    pub(super) fn new(reader: MarketReader, lists: Vec<ListAudit>, output: Output) -> Self {
        let book = Book::new(reader.terms());
        Self { feed: Feed::new(reader, output), book, lists }
    }

    /// Adds the events up to the block of this height; returns it.
    pub(super) async fn advance(&mut self, to: u64, findings: &mut Findings) -> anyhow::Result<BlockRef> {
        self.feed.begin();
        while let Some(blocks) = self.feed.window(to).await? {
            for block in &blocks {
                if self.lists.is_empty() {
                    self.book.apply_block(block).with_context(|| contradiction(block))?;
                    continue;
                }
                let rows = self.book.apply_with_rows(block).with_context(|| contradiction(block))?;
                for list in &mut self.lists {
                    list.block(&rows, findings).await?;
                }
            }
        }
        let reached = self.book.block().context("the chain has no block of the market")?;
        ensure!(reached.number == to, "block {to} lies before block {}, which was read already", reached.number);
        Ok(reached)
    }
}

/// What it means when a block's events do not follow from those before.
pub(super) fn contradiction(block: &MarketBlock) -> String {
    format!("the events up to block {} contradict each other: the node left some out", block.block.number)
}

/// Reads the market's blocks in their order.
pub(super) struct Feed {
    reader: MarketReader,
    next: u64,
    window: u64,
    events: u64,
    /// The block that the present reading began with, and when something was last said of it.
    began: (u64, Instant),
    output: Output,
}

impl Feed {
    pub(super) fn new(reader: MarketReader, output: Output) -> Self {
        let next = reader.terms().deployed_at_block;
        Self { reader, next, window: FIRST_WINDOW, events: 0, began: (next, Instant::now()), output }
    }

    /// A new reading, with progress of its own.
    fn begin(&mut self) {
        self.began = (self.next, Instant::now());
    }

    /// The blocks that have events of the next window, and always its last; none when everything up to `to` was read.
    pub(super) async fn window(&mut self, to: u64) -> anyhow::Result<Option<Vec<MarketBlock>>> {
        if self.next > to {
            return Ok(None);
        }
        let last = self.next.saturating_add(self.window.saturating_sub(1)).min(to);
        let blocks = self.reader.blocks(self.next, last).await?;
        let events = blocks.iter().map(|block| block.events.len()).sum();
        self.events = self.events.saturating_add(u64::try_from(events).unwrap_or(u64::MAX));
        self.window = next_window(self.window, events);
        self.next = last.saturating_add(1);
        self.say(to);
        Ok(Some(blocks))
    }

    /// Events so far.
    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    fn say(&mut self, to: u64) {
        let (first, said) = self.began;
        if said.elapsed() < SAY_EVERY {
            return;
        }
        self.began = (first, Instant::now());
        let (done, all) = (self.next.saturating_sub(first), to.saturating_sub(first).saturating_add(1));
        self.output.progress(&format!("events: {done} of {all} blocks, {} events", self.events));
    }
}

/// How many blocks to ask for after `blocks` had this many events.
fn next_window(blocks: u64, events: usize) -> u64 {
    if events < FEW_EVENTS {
        blocks.saturating_mul(2).min(MOST_BLOCKS)
    } else if events > FEW_EVENTS.saturating_mul(4) {
        blocks.div_euclid(2).max(1)
    } else {
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_events() {
        assert_eq!(next_window(FIRST_WINDOW, 0), 2 * FIRST_WINDOW);
        assert_eq!(next_window(MOST_BLOCKS, 0), MOST_BLOCKS);
        assert_eq!(next_window(500, FEW_EVENTS), 500);
        assert_eq!(next_window(500, 100_000), 250);
        assert_eq!(next_window(1, 100_000), 1);
    }
}
