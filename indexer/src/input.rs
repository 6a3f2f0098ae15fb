//! What the projection sees of the chain, and nothing else: blocks that were added, or blocks that were replaced.

use common::event::{BlockRef, MarketBlock};

/// A change of the canonical chain. Blocks are in ascending order; blocks without events may be missing between them,
/// but never the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainInput {
    /// Blocks on top of the last one.
    Committed {
        /// At least one.
        blocks: Vec<MarketBlock>,
    },
    /// Blocks that are no longer canonical, and what stands in their place.
    Reorged {
        /// What is to be taken back; at least one.
        old: Vec<BlockRef>,
        /// What came instead; none when the new chain is the shorter one.
        new: Vec<MarketBlock>,
    },
}

/// A [`ChainInput`] with what must hold for it to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The last committed block when the input was found; nothing is applied on top of another one.
    pub follows: Option<BlockRef>,
    /// The change.
    pub input: ChainInput,
    /// Height of the chain's last final block, if one is known.
    pub finalized: Option<u64>,
}

impl ChainInput {
    /// Blocks that become canonical.
    pub fn added(&self) -> &[MarketBlock] {
        match self {
            Self::Committed { blocks } => blocks,
            Self::Reorged { new, .. } => new,
        }
    }

    /// Blocks that cease to be canonical.
    pub fn dropped(&self) -> &[BlockRef] {
        match self {
            Self::Committed { .. } => &[],
            Self::Reorged { old, .. } => old,
        }
    }
}
