//! The projection's rows and their keys, as values: what a block changes is a set of row images, whatever the table, so
//! that taking a block back is writing the images from before it.

use common::{
    deal::Deal,
    epoch::Epoch,
    ids::{Address, DealId, OfferHash, ReceiptRoot},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
    state::ArtifactVersion,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Place of the event that created a row: height and log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenedAt {
    /// Height.
    pub block: u64,
    /// Log index in that block.
    pub log_index: u64,
}

/// Names one row of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the fields are the key columns of the table that the variant names")]
pub enum RowKey {
    Balance { account: Address },
    NonceFloor { owner: Address },
    Cancelled { owner: Address, offer: OfferHash },
    ProviderOffer { hash: OfferHash },
    DeveloperOffer { hash: OfferHash },
    Deal { id: DealId },
    Attestation { agent: Address, epoch: Epoch },
    Matching,
}

/// What a row holds beside its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "table", content = "row", rename_all = "snake_case")]
pub enum Row {
    /// Free balance in atoms.
    Balance(Atoms),
    /// Offers with a smaller nonce are void.
    NonceFloor(u64),
    /// The offer was voided by that owner.
    Cancelled,
    /// Supply.
    ProviderOffer(Box<ProviderOfferRow>),
    /// Demand.
    DeveloperOffer(Box<DeveloperOfferRow>),
    /// A deal with its money.
    Deal(Box<DealRow>),
    /// One agent's word on one epoch.
    Attestation(AttestationRow),
    /// Whether new matches are stopped.
    Matching(bool),
}

/// A provider offer that the chain knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderOfferRow {
    /// Its terms.
    pub offer: ProviderOffer,
    /// What deals hold of it.
    pub used: Resources,
    /// Where it became known.
    pub opened_at: OpenedAt,
}

/// A developer offer that the chain knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeveloperOfferRow {
    /// Its terms.
    pub offer: DeveloperOffer,
    /// Replicas that have a host.
    pub live_replicas: u16,
    /// First epoch after the term; fixed by the first match.
    pub end_epoch: Option<Epoch>,
    /// The last update of its artifact, if there was one.
    pub updated: Option<ArtifactVersion>,
    /// Where it became known.
    pub opened_at: OpenedAt,
}

/// A deal with its money since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DealRow {
    /// Where it stands.
    pub deal: Deal,
    /// Everything that was ever locked for it.
    pub funded: Atoms,
    /// Everything that the provider was paid.
    pub paid: Atoms,
    /// Everything that went back to the developer.
    pub refunded: Atoms,
    /// Where it was opened.
    pub opened_at: OpenedAt,
}

/// One agent's word on one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttestationRow {
    /// Commitment to the epoch's receipts.
    pub receipt_root: ReceiptRoot,
    /// Commitment to all roots so far.
    pub rolling_hash: ReceiptRoot,
    /// Where it was logged.
    pub opened_at: OpenedAt,
}
