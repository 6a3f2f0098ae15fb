//! Deals: one replica of one developer offer at one provider.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    epoch::Epoch,
    event::{DealChanged, DealOpened},
    ids::{Address, DealId, OfferHash},
    money::{Atoms, MoneyError},
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
};

/// Life of a deal. It only moves forward; numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
    /// The agent signed two different receipts of one number.
    ProviderSlashed,
}

/// Names a deal together with what it was made of, as calls of the contract do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DealRef {
    /// The demand it serves.
    pub developer_offer: OfferHash,
    /// Who hosts.
    pub provider: Address,
    /// The supply it uses.
    pub provider_offer: OfferHash,
}

/// What epochs before the last change of a deal's terms cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldPrice {
    /// First epoch at the new price.
    pub until: Epoch,
    /// Price of an epoch before that.
    pub per_epoch: Atoms,
}

/// A deal as the contract or a projection of it knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// CPU and memory of the replica.
    pub size: Resources,
    /// Price of an epoch: the provider's ask for this replica, or what both sides agreed on later.
    pub price_per_epoch: Atoms,
    /// What earlier epochs cost, when the terms were ever changed.
    pub old_price: Option<OldPrice>,
    /// How often the terms were changed.
    pub changes: u32,
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
    /// The deal that this event opens, under these offers. The bond is `bond_epochs`, a constant of the market, times the
    /// price.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] for a bond that money can't be, which the contract never makes.
    pub fn opened(
        opened: &DealOpened,
        demand: &DeveloperOffer,
        supply: &ProviderOffer,
        bond_epochs: u32,
    ) -> Result<Self, MoneyError> {
        let mut deal = Self {
            id: opened.deal_id,
            developer_offer: opened.developer_offer,
            provider_offer: opened.provider_offer,
            developer: demand.developer,
            provider: supply.provider,
            agent: supply.agent,
            size: demand.size,
            price_per_epoch: opened.price_per_epoch,
            old_price: None,
            changes: 0,
            start_epoch: opened.start_epoch,
            end_epoch: opened.end_epoch,
            settled_until: opened.start_epoch,
            paid_until: opened.start_epoch,
            locked: opened.locked,
            bond: opened.price_per_epoch.checked_mul(u64::from(bond_epochs))?,
            unfunded_since: None,
            state: DealState::Active,
            cause: None,
        };
        deal.paid_until = deal.covered_until();
        Ok(deal)
    }

    /// Takes over the terms that both sides agreed on.
    pub fn change(&mut self, changed: &DealChanged) {
        self.old_price = Some(OldPrice { until: changed.from, per_epoch: self.price_per_epoch });
        self.changes = changed.sequence;
        self.end_epoch = changed.end_epoch;
        self.price_per_epoch = changed.price_per_epoch;
        self.size = changed.size;
        self.bond = changed.bond;
        self.paid_until = changed.paid_until;
    }

    /// It is over, and its lock was given back: what it is paid until is where it was settled to, or where its money ended.
    pub fn end(&mut self, cause: EndCause) {
        self.state = DealState::Ended;
        self.cause = Some(cause);
        self.bond = Atoms::ZERO;
        self.paid_until = self.unfunded_since.unwrap_or_else(|| self.covered_until()).min(self.end_epoch);
    }

    /// What calls of the contract name it by.
    pub const fn reference(&self) -> DealRef {
        DealRef { developer_offer: self.developer_offer, provider: self.provider, provider_offer: self.provider_offer }
    }

    /// First epoch that the lock does not pay, not beyond the end; as `Deals._reach` of the contract computes it.
    pub fn covered_until(&self) -> Epoch {
        let mut from = self.settled_until;
        let mut locked = self.locked.get();
        if let Some(old) = self.old_price.filter(|old| from < old.until) {
            let price = old.per_epoch.get();
            let cost = u128::from(old.until.since(from)).saturating_mul(u128::from(price));
            if u128::from(locked) < cost {
                return from.plus(epochs_for(locked, price)).min(self.end_epoch);
            }
            locked = locked.saturating_sub(u64::try_from(cost).unwrap_or(u64::MAX));
            from = old.until;
        }
        from.plus(epochs_for(locked, self.price_per_epoch.get())).min(self.end_epoch)
    }

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

/// Epochs that `atoms` pay for at this price; as many as there are when they cost nothing.
fn epochs_for(atoms: u64, price: u64) -> u32 {
    atoms.checked_div(price).map_or(u32::MAX, |epochs| u32::try_from(epochs).unwrap_or(u32::MAX))
}
