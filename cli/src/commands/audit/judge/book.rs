//! What the chain's events add up to: the market's state, and beside it the order in which things became known and what
//! agents have committed to. It grows with the market, not with its history.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    event::{BlockRef, MarketBlock, MarketEvent, PlacedEvent},
    ids::{Address, DealId, OfferHash, ReceiptRoot},
    market::MarketTerms,
    state::{KnownDeal, MarketState, Place, StateError},
};

/// The market as its events tell it.
#[derive(Debug, Clone)]
pub(in super::super) struct Book {
    pub(in super::super) state: MarketState,
    /// Deals in the order of their opening.
    pub(super) deals: BTreeMap<Place, DealId>,
    /// By developer offer, in the order of their opening.
    pub(super) deals_of: BTreeMap<OfferHash, Vec<DealId>>,
    /// In the order in which the chain came to know them.
    pub(super) provider_offers: BTreeMap<Place, OfferHash>,
    /// In the order in which the chain came to know them.
    pub(super) developer_offers: BTreeMap<Place, OfferHash>,
    /// What each agent's last attestation commits to.
    pub(super) receipts: BTreeMap<Address, ReceiptRoot>,
    /// Events so far.
    pub(in super::super) events: u64,
}

impl Book {
    /// Before the first event.
    pub(in super::super) fn new(terms: &MarketTerms) -> Self {
        Self {
            state: MarketState::new(terms),
            deals: BTreeMap::new(),
            deals_of: BTreeMap::new(),
            provider_offers: BTreeMap::new(),
            developer_offers: BTreeMap::new(),
            receipts: BTreeMap::new(),
            events: 0,
        }
    }

    /// Adds a block's events in their order.
    pub(in super::super) fn apply_block(&mut self, block: &MarketBlock) -> Result<(), StateError> {
        block.events.iter().try_for_each(|event| self.apply(event))?;
        self.state.as_of = Some(block.block);
        Ok(())
    }

    /// Adds one event.
    pub(super) fn apply(&mut self, placed: &PlacedEvent) -> Result<(), StateError> {
        self.state.apply(placed)?;
        self.note(placed);
        Ok(())
    }

    fn note(&mut self, placed: &PlacedEvent) {
        let place = Place { block: placed.block_number, log_index: placed.log_index };
        self.events = self.events.saturating_add(1);
        match &placed.event {
            MarketEvent::DealOpened(opened) => {
                self.deals.insert(place, opened.deal_id);
                self.deals_of.entry(opened.developer_offer).or_default().push(opened.deal_id);
            }
            MarketEvent::ProviderOfferOpened { offer_hash, .. } => {
                self.provider_offers.insert(place, *offer_hash);
            }
            MarketEvent::DeveloperOfferOpened { offer_hash, .. } => {
                self.developer_offers.insert(place, *offer_hash);
            }
            MarketEvent::Attested { agent, rolling_hash, .. } => {
                self.receipts.insert(*agent, *rolling_hash);
            }
            _ => {}
        }
    }

    /// The last block that was added.
    pub(in super::super) const fn block(&self) -> Option<BlockRef> {
        self.state.as_of
    }

    /// Everyone whom an event names, whether they have money or not.
    pub(in super::super) fn accounts(&self) -> BTreeSet<Address> {
        let state = &self.state;
        let supplies = state.provider_offers.values().map(|known| &known.offer);
        let demands = state.developer_offers.values().map(|known| &known.offer);
        state
            .free
            .keys()
            .chain(state.nonce_floors.keys())
            .chain(state.attested.keys())
            .copied()
            .chain(state.cancelled.iter().map(|(owner, _)| *owner))
            .chain(supplies.flat_map(|offer| [offer.provider, offer.agent, offer.payout]))
            .chain(demands.map(|offer| offer.developer))
            .collect()
    }

    /// Providers with an offer or a deal.
    pub(in super::super) fn providers(&self) -> BTreeSet<Address> {
        self.state.provider_offers.values().map(|known| known.offer.provider).collect()
    }

    /// Agents that attest, or could.
    pub(in super::super) fn agents(&self) -> BTreeSet<Address> {
        let named = self.state.provider_offers.values().map(|known| known.offer.agent);
        named.chain(self.state.attested.keys().copied()).collect()
    }

    /// Whether the owner has voided an offer, by its hash or by a nonce floor.
    pub(super) fn is_void(&self, owner: Address, hash: OfferHash, nonce: u64) -> bool {
        let floor = self.state.nonce_floors.get(&owner).copied().unwrap_or_default();
        nonce < floor || self.state.cancelled.contains(&(owner, hash))
    }

    /// All deals in the order of their opening.
    pub(in super::super) fn known_deals(&self) -> impl Iterator<Item = &KnownDeal> {
        self.deals.values().filter_map(|id| self.state.deals.get(id))
    }
}
