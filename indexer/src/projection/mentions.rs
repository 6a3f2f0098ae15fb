//! Accounts that an event concerns and that no other table finds it by, noted while events are applied.
//!
//! Most events need none: money that moves is a payment, which names its accounts; a deal, an offer and an attestation name
//! theirs; and a deal's events are found by their deal.

use common::{event::MarketEvent, ids::Address};

use super::{payments::Payments, rows::OpenedAt};

/// An account that an event concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mention {
    /// The event.
    pub at: OpenedAt,
    /// The account.
    pub account: Address,
}

/// Mentions that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Mentions(Vec<Mention>);

impl Mentions {
    /// Notes whom an event concerns by what it says itself, and `developer`, whose offer it is about. `payments` has
    /// those of the event already.
    pub(super) fn note(&mut self, event: &MarketEvent, at: OpenedAt, developer: Option<Address>, payments: &Payments) {
        let by_row = named_by_row(event);
        for account in event.parties().chain(developer) {
            let mention = Mention { at, account };
            let is_noted = self.0.iter().rev().take_while(|last| last.at == at).any(|last| *last == mention);
            if Some(account) != by_row && !is_noted && !payments.have_moved(at, account) {
                self.0.push(mention);
            }
        }
    }

    pub(super) fn take(&mut self) -> Vec<Mention> {
        std::mem::take(&mut self.0)
    }
}

/// The account by which the row that the event makes is found, with the event's place.
const fn named_by_row(event: &MarketEvent) -> Option<Address> {
    match event {
        MarketEvent::ProviderOfferOpened { offer, .. } => Some(offer.provider),
        MarketEvent::DeveloperOfferOpened { offer, .. } => Some(offer.developer),
        MarketEvent::Attested { agent, .. } => Some(*agent),
        _ => None,
    }
}
