//! Which rows an event will ask for, as far as can be told beforehand.

use common::{
    event::MarketEvent,
    ids::{Address, OfferHash},
    offer::ProviderOffer,
};

use super::rows::{Row, RowKey};

const fn balance(account: Address) -> RowKey {
    RowKey::Balance { account }
}

const fn demand(hash: OfferHash) -> RowKey {
    RowKey::DeveloperOffer { hash }
}

const fn supply(hash: OfferHash) -> RowKey {
    RowKey::ProviderOffer { hash }
}

/// Rows that the event names.
pub(super) fn by_event(event: &MarketEvent) -> Vec<RowKey> {
    let mut keys: Vec<RowKey> = event.deal_id().map(|id| RowKey::Deal { id }).into_iter().collect();
    match event {
        MarketEvent::Deposited { account, .. } | MarketEvent::Withdrawn { account, .. } => keys.push(balance(*account)),
        MarketEvent::ProviderOfferOpened { offer_hash, .. } => keys.push(supply(*offer_hash)),
        MarketEvent::DeveloperOfferOpened { offer_hash, .. } => keys.push(demand(*offer_hash)),
        MarketEvent::ArtifactUpdated { developer_offer, .. } => keys.push(demand(*developer_offer)),
        MarketEvent::OfferCancelled { owner, offer_hash } => {
            keys.push(RowKey::Cancelled { owner: *owner, offer: *offer_hash });
        }
        MarketEvent::NonceFloorRaised { owner, .. } => keys.push(RowKey::NonceFloor { owner: *owner }),
        MarketEvent::MatcherPaid { developer_offer, matcher, .. } => {
            keys.extend([demand(*developer_offer), balance(*matcher)]);
        }
        MarketEvent::DealOpened(opened) => keys.extend([demand(opened.developer_offer), supply(opened.provider_offer)]),
        MarketEvent::DealFunded { from, .. } => keys.push(balance(*from)),
        MarketEvent::DealEnded { bond_to, .. } => keys.push(balance(*bond_to)),
        MarketEvent::Attested { agent, epoch, .. } => {
            keys.push(RowKey::Attestation { agent: *agent, epoch: *epoch });
        }
        _ => (),
    }
    keys
}

/// Rows that the offer which an event brings will lead to.
pub(super) fn by_offer(event: &MarketEvent) -> Vec<RowKey> {
    match event {
        MarketEvent::ProviderOfferOpened { offer, .. } => accounts_of(offer),
        MarketEvent::DeveloperOfferOpened { offer, .. } => vec![balance(offer.developer)],
        _ => Vec::new(),
    }
}

/// Rows that follow from one that is known.
pub(super) fn by_row(row: &Row) -> Vec<RowKey> {
    match row {
        Row::Deal(row) => {
            let deal = &row.deal;
            vec![
                demand(deal.developer_offer),
                supply(deal.provider_offer),
                balance(deal.developer),
                balance(deal.provider),
            ]
        }
        Row::ProviderOffer(row) => accounts_of(&row.offer),
        Row::DeveloperOffer(row) => vec![balance(row.offer.developer)],
        _ => Vec::new(),
    }
}

fn accounts_of(offer: &ProviderOffer) -> Vec<RowKey> {
    vec![balance(offer.provider), balance(offer.payout)]
}
