//! What is signed beside offers: changes of deals, updates of artifacts, receipts. As the contract defines them.

use serde::{Deserialize, Serialize};

use crate::{
    epoch::Epoch,
    ids::{DealId, Digest, OfferHash},
    money::Atoms,
    resources::Resources,
};

/// New terms of a deal from the next epoch on: extended, re-priced or resized. Signed by its developer and its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DealChange {
    /// The deal.
    pub deal_id: DealId,
    /// 1 for the first change of a deal, then counted up: none is carried out twice or out of order.
    pub sequence: u32,
    /// First epoch that is no longer billed.
    pub end_epoch: Epoch,
    /// New size of the replica.
    pub size: Resources,
    /// New price of one epoch.
    pub price_per_epoch: Atoms,
    /// Last second at which the change may be carried out.
    pub valid_until: u64,
}

/// Another artifact for the replicas of a developer offer. Signed by its developer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactUpdate {
    /// The offer.
    pub developer_offer: OfferHash,
    /// 1 for the first update of an offer, then counted up: an old one can't be brought back.
    pub version: u32,
    /// The Wasm component.
    pub artifact: Digest,
    /// The manifest; zero for none.
    pub manifest: Digest,
    /// Last second at which the update may be carried out.
    pub valid_until: u64,
    /// Where the artifact may be fetched, at most 512 bytes.
    pub artifact_url: String,
}

/// An agent's word on one execution. Two of one number that differ are proof of fraud. Signed by the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The deal.
    pub deal_id: DealId,
    /// Counts the executions of the deal.
    pub sequence: u64,
    /// Digest of everything else that the agent says about the execution.
    pub content: Digest,
}
