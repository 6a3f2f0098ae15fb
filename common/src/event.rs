//! What the contract says has happened, without the encoding: one variant for each event of `IMarketEvents`.
//! Enough to rebuild all of the market's state.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    deal::EndCause,
    epoch::Epoch,
    ids::{Address, BlockHash, DealId, Digest, OfferHash, ReceiptRoot, TxHash},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
};

/// Why a match, a fill or a claim was passed over; numbers and names are the contract's `Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation; the contract's Reason has the comments")]
pub enum Reason {
    None,
    DeveloperOfferMalformed,
    DeveloperSignatureInvalid,
    DeveloperOfferCancelled,
    DeveloperNonceTooLow,
    DeveloperOfferExpired,
    MatcherNotNamed,
    TermOver,
    TooFewReplicas,
    ReplicasFull,
    ProviderOfferMalformed,
    ProviderSignatureInvalid,
    ProviderOfferCancelled,
    ProviderNonceTooLow,
    ProviderOfferExpired,
    ProviderNotAllowed,
    ProviderDenied,
    AlreadyHosting,
    RegionMismatch,
    FeaturesMissing,
    TermTooLong,
    CpuExceedsFree,
    MemoryExceedsFree,
    PriceAboveMaximum,
    FundsTooLow,
    BondTooLow,
    DealUnknown,
    DealAlreadyEnded,
    ProviderOfferMismatch,
}

impl Reason {
    /// All reasons; the place is the contract's number.
    pub const ALL: [Self; 29] = [
        Self::None,
        Self::DeveloperOfferMalformed,
        Self::DeveloperSignatureInvalid,
        Self::DeveloperOfferCancelled,
        Self::DeveloperNonceTooLow,
        Self::DeveloperOfferExpired,
        Self::MatcherNotNamed,
        Self::TermOver,
        Self::TooFewReplicas,
        Self::ReplicasFull,
        Self::ProviderOfferMalformed,
        Self::ProviderSignatureInvalid,
        Self::ProviderOfferCancelled,
        Self::ProviderNonceTooLow,
        Self::ProviderOfferExpired,
        Self::ProviderNotAllowed,
        Self::ProviderDenied,
        Self::AlreadyHosting,
        Self::RegionMismatch,
        Self::FeaturesMissing,
        Self::TermTooLong,
        Self::CpuExceedsFree,
        Self::MemoryExceedsFree,
        Self::PriceAboveMaximum,
        Self::FundsTooLow,
        Self::BondTooLow,
        Self::DealUnknown,
        Self::DealAlreadyEnded,
        Self::ProviderOfferMismatch,
    ];
}

/// One event of the market. Field meanings are those of `IMarketEvents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "documented where they are emitted: contracts/src/interfaces/IMarketEvents.sol")]
pub enum MarketEvent {
    Deposited {
        account: Address,
        from: Address,
        amount: Atoms,
    },
    Withdrawn {
        account: Address,
        to: Address,
        amount: Atoms,
    },
    ProviderOfferOpened {
        offer_hash: OfferHash,
        offer: Box<ProviderOffer>,
    },
    DeveloperOfferOpened {
        offer_hash: OfferHash,
        offer: Box<DeveloperOffer>,
    },
    OfferCancelled {
        owner: Address,
        offer_hash: OfferHash,
    },
    NonceFloorRaised {
        owner: Address,
        floor: u64,
    },
    ArtifactUpdated {
        developer_offer: OfferHash,
        version: u32,
        artifact: Digest,
        manifest: Digest,
        artifact_url: String,
    },
    DealOpened(Box<DealOpened>),
    MatcherPaid {
        developer_offer: OfferHash,
        matcher: Address,
        amount: Atoms,
    },
    MatchSkipped {
        developer_offer: OfferHash,
        reason: Reason,
    },
    FillSkipped {
        developer_offer: OfferHash,
        provider_offer: OfferHash,
        reason: Reason,
    },
    MatchingPaused {
        paused: bool,
    },
    DealFunded {
        deal_id: DealId,
        from: Address,
        amount: Atoms,
        paid_until: Epoch,
    },
    DealSettled {
        deal_id: DealId,
        paid: Atoms,
        topped_up: Atoms,
        settled_until: Epoch,
    },
    DealUnfunded {
        deal_id: DealId,
        since: Epoch,
    },
    DealChanged(Box<DealChanged>),
    DealRefunded {
        deal_id: DealId,
        refunded: Atoms,
        paid_until: Epoch,
    },
    DealEnding {
        deal_id: DealId,
        cause: EndCause,
        end_epoch: Epoch,
        refunded: Atoms,
    },
    DealEnded {
        deal_id: DealId,
        cause: EndCause,
        refunded: Atoms,
        bond_to: Address,
        bond: Atoms,
    },
    ClaimSkipped {
        deal_id: DealId,
        reason: Reason,
    },
    Attested {
        agent: Address,
        epoch: Epoch,
        receipt_root: ReceiptRoot,
        rolling_hash: ReceiptRoot,
    },
}

/// A replica has a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "documented where it is emitted: contracts/src/interfaces/IMarketEvents.sol")]
pub struct DealOpened {
    pub deal_id: DealId,
    pub developer_offer: OfferHash,
    pub provider_offer: OfferHash,
    pub price_per_epoch: Atoms,
    pub start_epoch: Epoch,
    pub end_epoch: Epoch,
    pub locked: Atoms,
}

/// A deal has other terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "documented where it is emitted: contracts/src/interfaces/IMarketEvents.sol")]
pub struct DealChanged {
    pub deal_id: DealId,
    pub sequence: u32,
    pub from: Epoch,
    pub end_epoch: Epoch,
    pub price_per_epoch: Atoms,
    pub size: Resources,
    pub bond: Atoms,
    pub paid_until: Epoch,
}

/// A block as far as the market cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockRef {
    /// Height.
    pub number: u64,
    /// Its hash.
    pub hash: BlockHash,
    /// The block before.
    pub parent_hash: BlockHash,
    /// Seconds since 1970.
    pub timestamp: u64,
}

/// Names a block of one of all chains that there could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId {
    /// Height.
    pub number: u64,
    /// Its hash.
    pub hash: BlockHash,
}

impl BlockRef {
    /// Its name.
    pub const fn id(&self) -> BlockId {
        BlockId { number: self.number, hash: self.hash }
    }
}

/// An event with its place on the chain; `(block hash, log index)` is its natural key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedEvent {
    /// Height of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: BlockHash,
    /// Place in the block.
    pub log_index: u64,
    /// The transaction that caused it.
    pub tx_hash: TxHash,
    /// What happened.
    pub event: MarketEvent,
}

/// A block with the market's events in it, in order of log index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketBlock {
    /// The block.
    pub block: BlockRef,
    /// Its events; often none.
    pub events: Vec<PlacedEvent>,
}
