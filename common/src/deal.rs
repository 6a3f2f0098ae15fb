//! Deals: one replica of one developer offer at one provider.

use serde::{Deserialize, Serialize};

use crate::{
    epoch::Epoch,
    ids::{Address, DealId, OfferHash},
    money::Atoms,
};

/// Life of a deal. It only moves forward; numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DealState {
    /// Hosted and billed.
    Active,
    /// Hosted and billed until an end that is already known.
    Ending,
    /// Over; nothing is locked.
    Ended,
}

/// Why a deal ends or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// The agreed term is over.
    TermOver,
    /// The developer cancelled.
    DeveloperCancelled,
    /// The provider gave notice.
    ProviderLeft,
    /// The provider missed too many epochs.
    ProviderEvicted,
    /// Nobody funded it within the grace period.
    Unfunded,
}

/// A deal as the contract or a projection of it knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deal {
    /// Its id.
    pub id: DealId,
    /// The demand it serves.
    pub developer_offer: OfferHash,
    /// The supply it uses.
    pub provider_offer: OfferHash,
    /// Who pays.
    pub developer: Address,
    /// Who hosts.
    pub provider: Address,
    /// Whose attestations count.
    pub agent: Address,
    /// The provider's ask for this replica.
    pub price_per_epoch: Atoms,
    /// First billed epoch.
    pub start_epoch: Epoch,
    /// First epoch that is no longer billed.
    pub end_epoch: Epoch,
    /// Epochs before this one are settled.
    pub settled_until: Epoch,
    /// First epoch that the locked money does not cover.
    pub paid_until: Epoch,
    /// Money locked now.
    pub locked: Atoms,
    /// The provider's bond.
    pub bond: Atoms,
    /// First epoch that was recorded as unfunded, while that lasts.
    pub unfunded_since: Option<Epoch>,
    /// Where it stands.
    pub state: DealState,
    /// Why it ends, once that is known.
    pub cause: Option<EndCause>,
}

impl Deal {
    /// Whether the worker shall run during `epoch`. It also runs before the first billed epoch, to be ready at the
    /// boundary.
    pub fn is_served_in(&self, epoch: Epoch) -> bool {
        self.state != DealState::Ended
            && epoch < self.end_epoch
            && self.unfunded_since.is_none_or(|since| epoch < since)
    }

    /// Whether an attestation of `epoch` would count for this deal.
    pub fn is_billed_in(&self, epoch: Epoch) -> bool {
        self.start_epoch <= epoch && self.is_served_in(epoch)
    }
}
