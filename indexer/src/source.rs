//! Chain → [`ChainInput`](crate::input::ChainInput).
//!
//! Final blocks cannot change, so they are fetched in windows, several at a time and ahead of what is committed. Above
//! them every block is named by its hash and must link to the one before, so that blocks of two forks are never mixed: a
//! node that is asked for a range by number may answer each half from another chain. Where the first new block does not
//! link to the last committed one, the newest stored block that is still canonical is the fork point, and everything
//! above it is replaced.

use chain::{ChainError, LogCheck, MarketReader};
use common::event::{BlockRef, MarketBlock};
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backfill::Backfill,
    input::{ChainInput, Step},
    store::{Checkpoint, Store, StoreError},
};

/// Blocks above the final ones that make up one step.
const HEAD_BLOCKS: u64 = 256;
/// Stored blocks that are compared with the chain at a time when a fork point is sought.
const FORK_BATCH: u32 = 32;

/// Why there is no next step.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The chain could not be read.
    #[error("the chain could not be read")]
    Chain(#[from] ChainError),
    /// The database could not be read.
    #[error("the database could not be read")]
    Store(#[from] StoreError),
    /// The chain no longer has a block that was final.
    #[error(
        "the chain no longer has block {number} {}, which was final: the endpoint serves another chain, or finality was \
         broken; check the endpoints, then run `wharfage indexer rebuild` to index anew", .stored.hash
    )]
    Diverged {
        /// Height of the last final block.
        number: u64,
        /// The block as it was committed.
        stored: BlockRef,
    },
}

/// What a look at the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The newest block of the chain.
    pub head: BlockRef,
    /// What to do; none when there is nothing new, or when the chain moved while it was looked at.
    pub step: Option<Step>,
}

/// Finds the next step from what is committed to what the chain has.
pub struct ChainSource {
    reader: MarketReader,
    finality_depth: u64,
    backfill: Backfill,
    ahead: Option<Ahead>,
    /// The next look's, asked for while a step that is not the last one is committed.
    tip: Option<AbortOnDropHandle<Result<Tip, ChainError>>>,
}

/// Where the chain is.
#[derive(Debug, Clone, Copy)]
struct Tip {
    head: BlockRef,
    /// Height of the last final block.
    finalized: Option<u64>,
}

/// The first blocks above the final ones, fetched while the last of those are committed.
struct Ahead {
    from: u64,
    task: AbortOnDropHandle<Result<Vec<MarketBlock>, ChainError>>,
}

/// Blocks that were asked for, or why there are none.
enum Fetched {
    /// In order; they follow the block that they should.
    Blocks(Vec<MarketBlock>),
    /// The first one does not follow the block that it should.
    Forked,
    /// There are none, or the chain changed between two requests: look again later.
    Nothing,
}

/// Where the chain and the stored blocks part.
enum Fork {
    /// Above this block; above nothing at all where no stored block is canonical and none was final.
    Above(Option<BlockRef>),
    /// The node does not have the blocks that would tell.
    Unknown,
}

impl ChainSource {
    /// A source of `reader`'s market. Where the node knows no final block, blocks `finality_depth` below the head count
    /// as final. `check` is for those that are final; above them every block is checked.
    pub fn new(reader: MarketReader, finality_depth: u64, check: LogCheck) -> Self {
        Self { backfill: Backfill::new(reader.clone(), check), ahead: None, tip: None, reader, finality_depth }
    }

    /// Compares the chain with what is committed.
    pub async fn look(&mut self, store: &Store) -> Result<Look, SourceError> {
        let Tip { head, finalized } = self.tip().await?;
        let committed = store.checkpoint().await?;
        let fetched = match committed.block {
            Some(block) if head.number <= block.number => self.compare(store, head, block).await?,
            parent => self.fetch(parent, head, finalized).await?,
        };
        let input = match fetched {
            Fetched::Blocks(blocks) => Some(ChainInput::Committed { blocks }),
            Fetched::Forked => {
                self.backfill.clear();
                self.replace(store, committed, head).await?
            }
            Fetched::Nothing => None,
        };
        Ok(Look { head, step: input.map(|input| Step { follows: committed.block, input, finalized }) })
    }

    /// Where the chain is, or was when the last step was found.
    async fn tip(&mut self) -> Result<Tip, ChainError> {
        if let Some(asked) = self.tip.take()
            && let Ok(Ok(tip)) = asked.await
        {
            return Ok(tip);
        }
        tip(&self.reader, self.finality_depth).await
    }

    fn ask_for_tip(&mut self) {
        let (reader, finality_depth) = (self.reader.clone(), self.finality_depth);
        let task = tokio::spawn(async move { tip(&reader, finality_depth).await });
        self.tip = Some(AbortOnDropHandle::new(task));
    }

    /// Whether a head that is not above the committed block is on the same chain.
    async fn compare(&self, store: &Store, head: BlockRef, block: BlockRef) -> Result<Fetched, SourceError> {
        let stored = if head.number == block.number { Some(block) } else { store.block_at(head.number).await? };
        // A node that lags behind another one is waited for, also where its head is too old to be stored here. If the
        // chain really became shorter, its next blocks will not link.
        let is_same = stored.is_none_or(|stored| stored.hash == head.hash);
        Ok(if is_same { Fetched::Nothing } else { Fetched::Forked })
    }

    /// Blocks after `parent`, some of them at least.
    async fn fetch(
        &mut self,
        parent: Option<BlockRef>,
        head: BlockRef,
        finalized: Option<u64>,
    ) -> Result<Fetched, SourceError> {
        let from = self.first_after(parent);
        if from > head.number {
            return Ok(Fetched::Nothing);
        }
        let Some(finalized) = finalized.filter(|finalized| from <= *finalized) else {
            self.backfill.clear();
            if let Some(blocks) = self.fetched_ahead(parent, from, head).await {
                return Ok(Fetched::Blocks(blocks));
            }
            return self.linked(parent, from, head.number).await.map(|fetched| match fetched {
                // The node has less than the head that it named.
                Fetched::Blocks(blocks) if blocks.is_empty() => Fetched::Nothing,
                fetched => fetched,
            });
        };
        let window = self.backfill.next(from, finalized).await?;
        if window.blocks.last().is_some_and(|last| last.block.number == finalized) && finalized < head.number {
            self.fetch_ahead(finalized.saturating_add(1), head.number);
        }
        let follows = parent.is_none_or(|parent| window.parent_hash == parent.hash);
        if follows && window.blocks.last().is_some_and(|last| last.block.number < finalized) {
            // The next step is of final blocks too, whatever the chain does meanwhile.
            self.ask_for_tip();
        }
        Ok(if follows { Fetched::Blocks(window.blocks) } else { Fetched::Forked })
    }

    fn fetch_ahead(&mut self, from: u64, head: u64) {
        let (reader, to) = (self.reader.clone(), last_of_step(from, head));
        let task = tokio::spawn(async move { reader.linked_blocks(from, to).await });
        self.ahead = Some(Ahead { from, task: AbortOnDropHandle::new(task) });
    }

    /// What was fetched ahead, if it is those blocks and they still are what the chain has up to its head.
    async fn fetched_ahead(&mut self, parent: Option<BlockRef>, from: u64, head: BlockRef) -> Option<Vec<MarketBlock>> {
        let ahead = self.ahead.take().filter(|ahead| ahead.from == from)?;
        // Whatever failed is tried again, and fails where it is told.
        let blocks = ahead.task.await.ok()?.ok()?;
        let follows = blocks.first().zip(parent).is_some_and(|(first, parent)| first.block.parent_hash == parent.hash);
        let is_whole = blocks.last().is_some_and(|last| last.block.hash == head.hash);
        (follows && is_whole).then_some(blocks)
    }

    /// Blocks `from` up to at most `to`, each named by its hash and linked to the one before.
    async fn linked(&self, parent: Option<BlockRef>, from: u64, to: u64) -> Result<Fetched, SourceError> {
        let to = last_of_step(from, to);
        let blocks = match self.reader.linked_blocks(from, to).await {
            Err(ChainError::BlockGone { .. }) => return Ok(Fetched::Nothing),
            blocks => blocks?,
        };
        let follows = |first: &MarketBlock| parent.is_none_or(|parent| first.block.parent_hash == parent.hash);
        Ok(if blocks.first().is_none_or(follows) { Fetched::Blocks(blocks) } else { Fetched::Forked })
    }

    /// What is to be taken back, and what stands in its place.
    async fn replace(
        &self,
        store: &Store,
        committed: Checkpoint,
        head: BlockRef,
    ) -> Result<Option<ChainInput>, SourceError> {
        let Fork::Above(fork) = self.fork(store, committed).await? else { return Ok(None) };
        let old = store.blocks_above(fork.map(|block| block.number)).await?;
        let Fetched::Blocks(new) = self.linked(fork, self.first_after(fork), head.number).await? else {
            return Ok(None);
        };
        Ok(Some(ChainInput::Reorged { old, new }).filter(|input| !input.dropped().is_empty()))
    }

    /// The newest stored block that is still canonical.
    async fn fork(&self, store: &Store, committed: Checkpoint) -> Result<Fork, SourceError> {
        let mut below = committed.block.map_or(0, |block| block.number.saturating_add(1));
        loop {
            let stored = store.blocks_below(below, FORK_BATCH).await?;
            let Some(oldest) = stored.last() else { return Ok(Fork::Above(None)) };
            below = oldest.number;
            let numbers: Vec<u64> = stored.iter().map(|block| block.number).collect();
            let now = self.reader.rpc().blocks(&numbers).await?;
            for (stored, now) in stored.into_iter().zip(now) {
                let is_final = committed.finalized.is_some_and(|finalized| stored.number <= finalized);
                match now {
                    Some(now) if now.hash == stored.hash => return Ok(Fork::Above(Some(stored))),
                    Some(_) if is_final => return Err(SourceError::Diverged { number: stored.number, stored }),
                    None if is_final => return Ok(Fork::Unknown),
                    _ => (),
                }
            }
        }
    }

    pub(crate) const fn reader(&self) -> &MarketReader {
        &self.reader
    }

    fn first_after(&self, parent: Option<BlockRef>) -> u64 {
        parent.map_or(self.reader.terms().deployed_at_block, |parent| parent.number.saturating_add(1))
    }
}

async fn tip(reader: &MarketReader, finality_depth: u64) -> Result<Tip, ChainError> {
    let head = reader.rpc().head().await?;
    if let Some(number) = reader.rpc().finalized().await? {
        return Ok(Tip { head, finalized: Some(number.min(head.number)) });
    }
    // Without the chain's own word, a head that does not exist would make blocks final that are not.
    let exists = reader.rpc().block(head.number).await?.is_some_and(|now| now.hash == head.hash);
    Ok(Tip { head, finalized: head.number.checked_sub(finality_depth).filter(|_| exists) })
}

/// The last block, up to `head`, of a step of blocks that are not final.
fn last_of_step(from: u64, head: u64) -> u64 {
    head.min(from.saturating_add(HEAD_BLOCKS).saturating_sub(1))
}
