//! Where in a block's events a match begins and ends.
//!
//! The contract logs a match in one piece: the developer offer where the chain did not know it, then each deal, behind its
//! provider offer where the chain did not know that one, then the matcher's fee. Offers that are posted have the same events,
//! but no deal right behind them.

use common::{
    event::{DealOpened, MarketEvent, PlacedEvent},
    ids::{Address, OfferHash, TxHash},
};

/// A match, as its events have it.
#[derive(Debug)]
pub(super) struct Made<'a> {
    pub(super) events: &'a [PlacedEvent],
    pub(super) block: u64,
    pub(super) transaction: TxHash,
    pub(super) demand: OfferHash,
    pub(super) deals: Vec<&'a DealOpened>,
    /// Offers that the chain did not know before.
    pub(super) revealed: Vec<OfferHash>,
    /// Who was paid for it.
    pub(super) paid: Option<Address>,
}

impl<'a> Made<'a> {
    /// The match that these events begin with, if they do.
    pub(super) fn at(events: &'a [PlacedEvent]) -> Option<Self> {
        let first = events.first()?;
        let transaction = first.tx_hash;
        let mut made = Self {
            events: &[],
            block: first.block_number,
            transaction,
            demand: OfferHash::ZERO,
            deals: Vec::new(),
            revealed: Vec::new(),
            paid: None,
        };
        let mut rest = events;
        let opened = match &first.event {
            MarketEvent::DeveloperOfferOpened { offer_hash, .. } => {
                rest = rest.get(1..)?;
                made.revealed.push(*offer_hash);
                Some(*offer_hash)
            }
            _ => None,
        };
        while let Some((deal, length)) = deal_at(rest, transaction) {
            let is_of_it = made.deals.first().map(|first| first.developer_offer).or(opened);
            if is_of_it.is_some_and(|demand| demand != deal.developer_offer) {
                break;
            }
            made.demand = deal.developer_offer;
            made.deals.push(deal);
            if length > 1 {
                made.revealed.push(deal.provider_offer);
            }
            rest = rest.get(length..)?;
        }
        if made.deals.is_empty() {
            return None;
        }
        if let Some(PlacedEvent { tx_hash, event, .. }) = rest.first()
            && let MarketEvent::MatcherPaid { developer_offer, matcher, .. } = event
            && (*tx_hash, *developer_offer) == (transaction, made.demand)
        {
            made.paid = Some(*matcher);
            rest = rest.get(1..)?;
        }
        made.events = events.get(..events.len().saturating_sub(rest.len()))?;
        Some(made)
    }

    pub(super) fn has(&self, supply: OfferHash) -> bool {
        self.deals.iter().any(|deal| deal.provider_offer == supply)
    }
}

/// The deal that these events begin with, and how many of them belong to it.
fn deal_at(events: &[PlacedEvent], transaction: TxHash) -> Option<(&DealOpened, usize)> {
    let deal = |at: usize| {
        let placed = events.get(at).filter(|placed| placed.tx_hash == transaction)?;
        if let MarketEvent::DealOpened(deal) = &placed.event { Some(&**deal) } else { None }
    };
    match &events.first()?.event {
        MarketEvent::ProviderOfferOpened { offer_hash, .. } => {
            deal(1).filter(|deal| deal.provider_offer == *offer_hash).map(|deal| (deal, 2))
        }
        _ => deal(0).map(|deal| (deal, 1)),
    }
}

/// Whether the event makes an offer known.
pub(super) const fn opens(event: &MarketEvent) -> bool {
    matches!(event, MarketEvent::DeveloperOfferOpened { .. } | MarketEvent::ProviderOfferOpened { .. })
}
