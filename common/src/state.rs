//! The whole market's state as a fold over its events, in memory: the oracle that databases, matchers and auditors
//! are held against. It needs nothing but the chain's logs.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    deal::{Deal, DealState},
    epoch::Epoch,
    event::{BlockRef, DealChanged, DealOpened, MarketBlock, MarketEvent, PlacedEvent},
    ids::{Address, DealId, Digest, OfferHash},
    market::MarketTerms,
    money::{Atoms, MoneyError},
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
};

/// Place of an event on the chain: block number, log index. Offers are served in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// Height.
    pub block: u64,
    /// Log index in that block.
    pub log_index: u64,
}

/// A provider offer that the chain knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProviderOffer {
    /// Its terms.
    pub offer: ProviderOffer,
    /// Where it became known.
    pub opened_at: Place,
    /// What deals hold of it.
    pub used: Resources,
}

/// The artifact that a developer offer's replicas run since its last update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactVersion {
    /// 1 for the first update.
    pub version: u32,
    /// SHA-256 digest of the component.
    pub artifact: Digest,
    /// SHA-256 digest of the manifest; zero for none.
    pub manifest: Digest,
    /// Where the artifact may be fetched.
    pub artifact_url: String,
}

/// A developer offer that the chain knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDeveloperOffer {
    /// Its terms.
    pub offer: DeveloperOffer,
    /// Where it became known.
    pub opened_at: Place,
    /// Replicas that have a host.
    pub live_replicas: u16,
    /// First epoch after the term; fixed by the first match.
    pub end_epoch: Option<Epoch>,
    /// Its last update, if there was one.
    pub updated: Option<ArtifactVersion>,
}

/// A deal with its money since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDeal {
    /// Where it stands.
    pub deal: Deal,
    /// Everything that was ever locked for it.
    pub funded: Atoms,
    /// Everything that the provider was paid.
    pub paid: Atoms,
    /// Everything that went back to the developer.
    pub refunded: Atoms,
}

/// The market after some block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MarketState {
    /// Bond of a deal in epochs of its price: the market's constant.
    pub bond_epochs: u32,
    /// The last block that was applied.
    pub as_of: Option<BlockRef>,
    /// Free balances; accounts never seen hold nothing.
    pub free: BTreeMap<Address, Atoms>,
    /// Provider offers known to the chain.
    pub provider_offers: BTreeMap<OfferHash, KnownProviderOffer>,
    /// Developer offers known to the chain.
    pub developer_offers: BTreeMap<OfferHash, KnownDeveloperOffer>,
    /// Offers that their owners voided, known to the chain or not.
    pub cancelled: BTreeSet<(Address, OfferHash)>,
    /// Offers with a smaller nonce are void.
    pub nonce_floors: BTreeMap<Address, u64>,
    /// All deals ever.
    pub deals: BTreeMap<DealId, KnownDeal>,
    /// Attested epochs by agent.
    pub attested: BTreeMap<Address, BTreeSet<Epoch>>,
    /// Whether new matches are stopped.
    pub matching_paused: bool,
}

/// Events that contradict what came before: logs are missing, doubled or out of order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// A sum of money left its range.
    #[error("money does not add up for {subject}")]
    Money {
        /// Account or deal.
        subject: String,
        /// What went wrong.
        #[source]
        source: MoneyError,
    },
    /// An event names something that no earlier event has introduced.
    #[error("{what} {id} is unknown")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A deal was opened a second time.
    #[error("deal {0} was opened before")]
    DealReopened(DealId),
}

impl StateError {
    fn money(subject: impl ToString) -> impl FnOnce(MoneyError) -> Self {
        move |source| Self::Money { subject: subject.to_string(), source }
    }

    fn unknown(what: &'static str, id: impl ToString) -> Self {
        Self::Unknown { what, id: id.to_string() }
    }
}

impl MarketState {
    /// The state of a market before its first event.
    pub fn new(terms: &MarketTerms) -> Self {
        Self { bond_epochs: terms.bond_epochs, ..Self::default() }
    }

    /// Applies a block's events in their order.
    pub fn apply_block(&mut self, block: &MarketBlock) -> Result<(), StateError> {
        block.events.iter().try_for_each(|event| self.apply(event))?;
        self.as_of = Some(block.block);
        Ok(())
    }

    /// Applies one event.
    pub fn apply(&mut self, placed: &PlacedEvent) -> Result<(), StateError> {
        let place = Place { block: placed.block_number, log_index: placed.log_index };
        match &placed.event {
            MarketEvent::Deposited { account, amount, .. } => self.credit(*account, *amount),
            MarketEvent::Withdrawn { account, amount, .. } => self.debit(*account, *amount),
            MarketEvent::ProviderOfferOpened { offer_hash, offer } => {
                let used = Resources::default();
                let known = KnownProviderOffer { offer: offer.as_ref().clone(), opened_at: place, used };
                self.provider_offers.insert(*offer_hash, known);
                Ok(())
            }
            MarketEvent::DeveloperOfferOpened { offer_hash, offer } => {
                let offer = offer.as_ref().clone();
                let known =
                    KnownDeveloperOffer { offer, opened_at: place, live_replicas: 0, end_epoch: None, updated: None };
                self.developer_offers.insert(*offer_hash, known);
                Ok(())
            }
            MarketEvent::OfferCancelled { owner, offer_hash } => {
                self.cancelled.insert((*owner, *offer_hash));
                Ok(())
            }
            MarketEvent::NonceFloorRaised { owner, floor } => {
                self.nonce_floors.insert(*owner, *floor);
                Ok(())
            }
            MarketEvent::MatchingPaused { paused } => {
                self.matching_paused = *paused;
                Ok(())
            }
            MarketEvent::Attested { agent, epoch, .. } => {
                self.attested.entry(*agent).or_default().insert(*epoch);
                Ok(())
            }
            MarketEvent::ArtifactUpdated { developer_offer, version, artifact, manifest, artifact_url } => {
                let (artifact, manifest, artifact_url) = (*artifact, *manifest, artifact_url.clone());
                let updated = ArtifactVersion { version: *version, artifact, manifest, artifact_url };
                self.known_demand(*developer_offer)?.updated = Some(updated);
                Ok(())
            }
            MarketEvent::MatcherPaid { developer_offer, matcher, amount } => {
                let developer = self.known_demand(*developer_offer)?.offer.developer;
                self.debit(developer, *amount)?;
                self.credit(*matcher, *amount)
            }
            MarketEvent::MatchSkipped { .. } | MarketEvent::FillSkipped { .. } | MarketEvent::ClaimSkipped { .. } => {
                Ok(())
            }
            event => self.apply_to_deal(event),
        }
    }

    fn apply_to_deal(&mut self, event: &MarketEvent) -> Result<(), StateError> {
        match event {
            MarketEvent::DealOpened(opened) => self.open_deal(opened),
            MarketEvent::DealFunded { deal_id, from, amount, paid_until } => {
                self.debit(*from, *amount)?;
                let known = self.known_deal(*deal_id)?;
                known.fund(*amount)?;
                known.deal.paid_until = *paid_until;
                // Said again right after this event where the money does not reach the next epoch.
                known.deal.unfunded_since = None;
                Ok(())
            }
            MarketEvent::DealSettled { deal_id, paid, topped_up, settled_until } => {
                let known = self.known_deal(*deal_id)?;
                known.fund(*topped_up)?;
                known.pay(*paid)?;
                known.deal.settled_until = *settled_until;
                known.deal.paid_until = known.deal.covered_until();
                known.deal.unfunded_since = None;
                let (developer, supply) = (known.deal.developer, known.deal.provider_offer);
                let payout = self.known_supply(supply)?.offer.payout;
                self.debit(developer, *topped_up)?;
                self.credit(payout, *paid)
            }
            MarketEvent::DealUnfunded { deal_id, since } => {
                let known = self.known_deal(*deal_id)?;
                known.deal.unfunded_since = Some(*since);
                known.deal.paid_until = (*since).min(known.deal.end_epoch);
                Ok(())
            }
            MarketEvent::DealChanged(changed) => self.change_deal(changed),
            MarketEvent::DealRefunded { deal_id, refunded, paid_until } => {
                let known = self.known_deal(*deal_id)?;
                known.refund(*refunded)?;
                known.deal.paid_until = *paid_until;
                let developer = known.deal.developer;
                self.credit(developer, *refunded)
            }
            MarketEvent::DealEnding { deal_id, cause, end_epoch, refunded } => {
                let known = self.known_deal(*deal_id)?;
                known.refund(*refunded)?;
                known.deal.state = DealState::Ending;
                known.deal.cause = Some(*cause);
                known.deal.end_epoch = *end_epoch;
                known.deal.paid_until = known.deal.paid_until.min(*end_epoch);
                let developer = known.deal.developer;
                self.credit(developer, *refunded)
            }
            MarketEvent::DealEnded { deal_id, cause, refunded, bond_to, bond } => {
                let known = self.known_deal(*deal_id)?;
                known.refund(*refunded)?;
                known.deal.end(*cause);
                let deal = known.deal.clone();
                self.release(&deal)?;
                self.credit(deal.developer, *refunded)?;
                self.credit(*bond_to, *bond)
            }
            // Handled by `apply`.
            _ => Ok(()),
        }
    }

    fn open_deal(&mut self, opened: &DealOpened) -> Result<(), StateError> {
        if self.deals.contains_key(&opened.deal_id) {
            return Err(StateError::DealReopened(opened.deal_id));
        }
        let bond_epochs = self.bond_epochs;
        let supply = self.known_supply(opened.provider_offer)?.offer.clone();
        let demand = self.known_demand(opened.developer_offer)?;
        let deal =
            Deal::opened(opened, &demand.offer, &supply, bond_epochs).map_err(StateError::money(opened.deal_id))?;
        demand.live_replicas = demand.live_replicas.saturating_add(1);
        demand.end_epoch = Some(opened.end_epoch);
        self.debit(deal.developer, opened.locked)?;
        self.debit(deal.provider, deal.bond)?;
        self.resize(deal.provider_offer, Resources::default(), deal.size)?;
        let known = KnownDeal { deal, funded: opened.locked, paid: Atoms::ZERO, refunded: Atoms::ZERO };
        self.deals.insert(opened.deal_id, known);
        Ok(())
    }

    fn change_deal(&mut self, changed: &DealChanged) -> Result<(), StateError> {
        let deal = &mut self.known_deal(changed.deal_id)?.deal;
        let before = deal.clone();
        deal.change(changed);
        self.resize(before.provider_offer, before.size, changed.size)?;
        self.credit(before.provider, before.bond)?;
        self.debit(before.provider, changed.bond)
    }

    /// Capacity of a provider offer that was held as `before` is now held as `after`.
    fn resize(&mut self, hash: OfferHash, before: Resources, after: Resources) -> Result<(), StateError> {
        let used = &mut self.known_supply(hash)?.used;
        let rest = used.saturating_sub(before);
        used.milli_cpu = rest.milli_cpu.saturating_add(after.milli_cpu);
        used.memory_mib = rest.memory_mib.saturating_add(after.memory_mib);
        Ok(())
    }

    /// Gives capacity and place back when a deal has ended.
    fn release(&mut self, deal: &Deal) -> Result<(), StateError> {
        let demand = self.known_demand(deal.developer_offer)?;
        demand.live_replicas = demand.live_replicas.saturating_sub(1);
        self.resize(deal.provider_offer, deal.size, Resources::default())
    }

    fn known_deal(&mut self, id: DealId) -> Result<&mut KnownDeal, StateError> {
        self.deals.get_mut(&id).ok_or_else(|| StateError::unknown("deal", id))
    }

    fn known_demand(&mut self, hash: OfferHash) -> Result<&mut KnownDeveloperOffer, StateError> {
        self.developer_offers.get_mut(&hash).ok_or_else(|| StateError::unknown("developer offer", hash))
    }

    fn known_supply(&mut self, hash: OfferHash) -> Result<&mut KnownProviderOffer, StateError> {
        self.provider_offers.get_mut(&hash).ok_or_else(|| StateError::unknown("provider offer", hash))
    }

    fn credit(&mut self, account: Address, amount: Atoms) -> Result<(), StateError> {
        let free = self.free.entry(account).or_default();
        *free = free.checked_add(amount).map_err(StateError::money(account))?;
        Ok(())
    }

    fn debit(&mut self, account: Address, amount: Atoms) -> Result<(), StateError> {
        let free = self.free.entry(account).or_default();
        *free = free.checked_sub(amount).map_err(StateError::money(account))?;
        Ok(())
    }

    /// Free balance of `account`.
    pub fn free_balance(&self, account: Address) -> Atoms {
        self.free.get(&account).copied().unwrap_or_default()
    }

    /// Everything that the contract must hold: free balances, locks and bonds.
    pub fn total_held(&self) -> Result<Atoms, MoneyError> {
        let locks = self.deals.values().flat_map(|known| [known.deal.locked, known.deal.bond]);
        self.free.values().copied().chain(locks).sum()
    }
}

impl KnownDeal {
    fn fund(&mut self, amount: Atoms) -> Result<(), StateError> {
        self.deal.locked = self.deal.locked.checked_add(amount).map_err(StateError::money(self.deal.id))?;
        self.funded = self.funded.checked_add(amount).map_err(StateError::money(self.deal.id))?;
        Ok(())
    }

    fn pay(&mut self, amount: Atoms) -> Result<(), StateError> {
        self.deal.locked = self.deal.locked.checked_sub(amount).map_err(StateError::money(self.deal.id))?;
        self.paid = self.paid.checked_add(amount).map_err(StateError::money(self.deal.id))?;
        Ok(())
    }

    fn refund(&mut self, amount: Atoms) -> Result<(), StateError> {
        self.deal.locked = self.deal.locked.checked_sub(amount).map_err(StateError::money(self.deal.id))?;
        self.refunded = self.refunded.checked_add(amount).map_err(StateError::money(self.deal.id))?;
        Ok(())
    }
}
