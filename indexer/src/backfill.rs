//! Final blocks, fetched ahead of what is committed: several windows at a time, handed over strictly in order.
//!
//! How far ahead is bounded by windows and by events, so that memory stays low however dense the market is. Windows follow
//! the market's density: each shall have some [`WINDOW_EVENTS`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chain::{ChainError, LogCheck, MarketReader, Window};
use tokio_util::task::AbortOnDropHandle;

/// Windows that are fetched or wait to be committed.
const MAX_WINDOWS: usize = 4;
/// Events that wait to be committed, with those expected of windows that are being fetched.
const MAX_EVENTS: u64 = 30_000;
/// Events that a window shall have.
const WINDOW_EVENTS: u64 = 5_000;
/// Events from which on a step takes no further window: enough for bulk writes to pay.
const STEP_EVENTS: u64 = 20_000;
/// Blocks of the first window, and of any: a window may be much denser than the one before.
const FIRST_BLOCKS: u64 = 64;
const LEAST_BLOCKS: u64 = 8;
const MOST_BLOCKS: u64 = 1_000;

/// What is fetched ahead. Dropping it ends what is under way.
pub(crate) struct Backfill {
    reader: MarketReader,
    check: LogCheck,
    windows: VecDeque<Fetch>,
    /// Events of windows that are fetched and not handed over.
    waiting: Arc<AtomicU64>,
    /// First block of the next window, and how many it shall have.
    upcoming: u64,
    span: u64,
}

struct Fetch {
    from: u64,
    to: u64,
    task: AbortOnDropHandle<Result<Window, ChainError>>,
}

impl Backfill {
    pub(crate) fn new(reader: MarketReader, check: LogCheck) -> Self {
        Self { reader, check, windows: VecDeque::new(), waiting: Arc::default(), upcoming: 0, span: FIRST_BLOCKS }
    }

    /// Forgets what was fetched ahead: it may no longer be so.
    pub(crate) fn clear(&mut self) {
        self.windows.clear();
        // Tasks that are just ending count for the old one.
        self.waiting = Arc::default();
    }

    /// The blocks from `from` on, up to at most `last`, which is not below it.
    pub(crate) async fn next(&mut self, from: u64, last: u64) -> Result<Window, ChainError> {
        if self.windows.front().is_none_or(|first| first.from != from) {
            self.clear();
            self.upcoming = from;
        }
        self.fetch_ahead(last);
        let result = self.take(from).await;
        match &result {
            // While these are committed.
            Ok(_) => self.fetch_ahead(last),
            Err(_) => self.clear(),
        }
        result
    }

    /// The first window and those after it that are there already.
    async fn take(&mut self, from: u64) -> Result<Window, ChainError> {
        let gone = ChainError::BlockGone { number: from };
        let Some(first) = self.windows.pop_front() else { return Err(gone) };
        let mut end = first.to;
        let mut taken = self.finish(first).await?;
        while count(&taken) < STEP_EVENTS {
            let Some(next) = self.windows.pop_front_if(|next| next.task.is_finished()) else { break };
            let next_end = next.to;
            let next = self.finish(next).await?;
            if taken.blocks.last().is_none_or(|last| last.block.hash != next.parent_hash) {
                // The endpoints do not agree on what is final, or the chain broke it: the next look will tell.
                self.clear();
                self.upcoming = end.saturating_add(1);
                break;
            }
            taken.blocks.extend(next.blocks);
            end = next_end;
        }
        Ok(taken)
    }

    async fn finish(&mut self, fetch: Fetch) -> Result<Window, ChainError> {
        let gone = ChainError::BlockGone { number: fetch.from };
        let window = fetch.task.await.map_err(|_| gone)??;
        let events = count(&window);
        self.waiting.fetch_sub(events, Ordering::Relaxed);
        let blocks = fetch.to.saturating_sub(fetch.from).saturating_add(1);
        let wanted = blocks.saturating_mul(WINDOW_EVENTS).checked_div(events).unwrap_or(MOST_BLOCKS);
        self.span = wanted.min(self.span.saturating_mul(2)).clamp(LEAST_BLOCKS, MOST_BLOCKS);
        Ok(window)
    }

    fn fetch_ahead(&mut self, last: u64) {
        while self.upcoming <= last && self.has_room() {
            let from = self.upcoming;
            let to = last.min(from.saturating_add(self.span).saturating_sub(1));
            self.upcoming = to.saturating_add(1);
            let (reader, check, waiting) = (self.reader.clone(), self.check, Arc::clone(&self.waiting));
            let fetch = async move {
                let window = reader.window(from, to, check).await?;
                waiting.fetch_add(count(&window), Ordering::Relaxed);
                Ok(window)
            };
            self.windows.push_back(Fetch { from, to, task: AbortOnDropHandle::new(tokio::spawn(fetch)) });
        }
    }

    fn has_room(&self) -> bool {
        let under_way = self.windows.iter().filter(|fetch| !fetch.task.is_finished()).count();
        let expected = u64::try_from(under_way).unwrap_or(u64::MAX).saturating_mul(WINDOW_EVENTS);
        let events = self.waiting.load(Ordering::Relaxed).saturating_add(expected);
        self.windows.len() < MAX_WINDOWS && (self.windows.is_empty() || events < MAX_EVENTS)
    }
}

fn count(window: &Window) -> u64 {
    let events = window.blocks.iter().map(|block| block.events.len()).sum::<usize>();
    u64::try_from(events).unwrap_or(u64::MAX)
}
