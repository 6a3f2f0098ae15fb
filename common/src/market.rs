//! The market's constants, as its contract was deployed with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    epoch::{Epoch, EpochSchedule},
    ids::Address,
    money::{Atoms, MoneyError},
};

/// Constants of one deployed market; the contract's `config()` with where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MarketTerms {
    /// Chain id, as in EIP-155.
    pub chain_id: u64,
    /// The Market contract.
    pub market: Address,
    /// Block that the contract was deployed in, where indexing begins.
    pub deployed_at_block: u64,
    /// The token that everything is paid in.
    pub token: Address,
    /// May pause new matches.
    pub operator: Address,
    /// When epochs begin.
    pub schedule: EpochSchedule,
    /// An epoch can be attested during this many epochs after it.
    pub attestation_window: u32,
    /// Consecutive missed epochs after which anyone may evict.
    pub evict_after_missed: u32,
    /// Bond in epochs of the deal's price.
    pub bond_epochs: u32,
    /// Least number of epochs that a developer offer locks ahead.
    pub min_prepaid_epochs: u32,
    /// Epochs that an unfunded deal may stay open.
    pub grace_epochs: u32,
    /// Epochs between a provider's notice and the end.
    pub notice_epochs: u32,
}

impl MarketTerms {
    /// Money that a match locks for one replica at `price` per epoch with `remaining` epochs to go.
    pub fn lock(&self, price: Atoms, prepaid_epochs: u32, remaining: u32) -> Result<Atoms, MoneyError> {
        price.checked_mul(u64::from(prepaid_epochs.min(remaining)))
    }

    /// Bond that a match locks of the provider's money.
    pub fn bond(&self, price: Atoms) -> Result<Atoms, MoneyError> {
        price.checked_mul(u64::from(self.bond_epochs))
    }

    /// First epoch at which a deal with this end can be closed: nothing is attestable any more.
    pub fn closable_from(&self, end_epoch: Epoch) -> Epoch {
        end_epoch.plus(self.attestation_window)
    }
}
