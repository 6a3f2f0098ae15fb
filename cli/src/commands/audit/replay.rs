//! Reading a market's events, a window of blocks at a time: what is held at once is one window and the market's state.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chain::MarketReader;
use common::event::BlockRef;

use super::judge::Book;
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
    reader: MarketReader,
    pub(super) book: Book,
    window: u64,
    output: Output,
}

impl Replay {
    pub(super) fn new(reader: MarketReader, output: Output) -> Self {
        let book = Book::new(reader.terms());
        Self { reader, book, window: FIRST_WINDOW, output }
    }

    /// Adds the events up to the block of this height; returns it.
    pub(super) async fn advance(&mut self, to: u64) -> anyhow::Result<BlockRef> {
        let mut next =
            self.book.block().map_or(self.reader.terms().deployed_at_block, |block| block.number.saturating_add(1));
        let first = next;
        let mut said = Instant::now();
        while next <= to {
            let last = next.saturating_add(self.window.saturating_sub(1)).min(to);
            let blocks = self.reader.blocks(next, last).await?;
            for block in &blocks {
                self.book.apply_block(block).with_context(|| {
                    format!(
                        "the events up to block {} contradict each other: the node left some out",
                        block.block.number
                    )
                })?;
            }
            self.window = next_window(self.window, blocks.iter().map(|block| block.events.len()).sum());
            next = last.saturating_add(1);
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                self.say(next.saturating_sub(first), to.saturating_sub(first).saturating_add(1));
            }
        }
        let reached = self.book.block().context("the chain has no block of the market")?;
        ensure!(reached.number == to, "block {to} lies before block {}, which was read already", reached.number);
        Ok(reached)
    }

    fn say(&self, done: u64, all: u64) {
        self.output.progress(&format!("events: {done} of {all} blocks, {} events", self.book.events));
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
