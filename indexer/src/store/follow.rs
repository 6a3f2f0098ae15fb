//! What the market has become since a block that somebody stands at, for those who keep all of it in memory.
//!
//! A market is what its events make of it, so blocks without any are left out: the last block with events says on which
//! chain one stands. Those are never removed but by a reorganization; empty ones are, when they are final.

use common::{
    event::{BlockId, MarketBlock},
    state::MarketState,
};

use super::{
    Checkpoint, Store, block_at, checkpoint,
    convert::big,
    db::{Statement, Tx},
    error::StoreError,
    state,
    write::{REBUILD_EVENTS, blocks_with_events},
};

/// What is to be done to stand where the projection does.
#[derive(Debug)]
pub enum News {
    /// Everything behind this block, or behind the beginning of the market, is to be taken back, and these blocks come
    /// instead.
    Since {
        /// One of those that were asked about.
        fork: Option<BlockId>,
        /// With events, all of them, oldest first.
        blocks: Vec<MarketBlock>,
        /// Whether there are more behind them.
        is_cut: bool,
    },
    /// None of the blocks is the chain's any more.
    Elsewhere,
}

/// The whole market, with where it stands.
#[derive(Debug)]
pub struct Loaded {
    /// All of it.
    pub state: MarketState,
    /// The last block with events, if there is one.
    pub base: Option<BlockId>,
    /// How far the projection is.
    pub checkpoint: Checkpoint,
}

impl Store {
    /// What has become of the market since `stands`: blocks with events that it was followed through, newest first, the
    /// beginning of the market as none. One consistent read, of some 20,000 events at the most.
    pub async fn news_since(&self, stands: &[Option<BlockId>]) -> Result<(Checkpoint, News), StoreError> {
        let mut read = self.readers.read().await?;
        let checkpoint = checkpoint(&mut read).await?;
        let Some(fork) = fork(&mut read, stands).await? else { return Ok((checkpoint, News::Elsewhere)) };
        let after = fork.map_or(Ok(-1), |fork| big("block number", fork.number))?;
        let blocks = blocks_with_events(&mut read, after).await?;
        let events: usize = blocks.iter().map(|block| block.events.len()).fold(0, usize::saturating_add);
        let is_cut = i64::try_from(events).unwrap_or(i64::MAX) >= REBUILD_EVENTS;
        Ok((checkpoint, News::Since { fork, blocks, is_cut }))
    }

    /// The whole market, to be followed from there. One consistent read.
    pub async fn load_market(&self) -> Result<Loaded, StoreError> {
        let mut read = self.readers.read().await?;
        let last = "SELECT block_number FROM events ORDER BY block_number DESC LIMIT 1";
        let last: Option<(i64,)> = read.fetch_optional(Statement::new(last)).await?;
        let base = match last {
            Some((number,)) => block_at(&mut read, number).await?.map(|block| block.id()),
            None => None,
        };
        let checkpoint = checkpoint(&mut read).await?;
        Ok(Loaded { state: state::load(&mut read).await?, base, checkpoint })
    }
}

/// The first of these blocks that is the chain's.
async fn fork(db: &mut Tx, stands: &[Option<BlockId>]) -> Result<Option<Option<BlockId>>, StoreError> {
    for block in stands {
        let Some(id) = block else { return Ok(Some(None)) };
        let stored = block_at(db, big("block number", id.number)?).await?;
        if stored.is_some_and(|stored| stored.hash == id.hash) {
            return Ok(Some(*block));
        }
    }
    Ok(None)
}
