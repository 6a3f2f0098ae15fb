//! Names of the market's events, for columns and metric labels.

use common::event::MarketEvent;

/// All names, each at the place that is its number in the database: new ones come last.
pub(crate) const ALL: [&str; 21] = [
    "deposited",
    "withdrawn",
    "provider_offer_opened",
    "developer_offer_opened",
    "offer_cancelled",
    "nonce_floor_raised",
    "deal_opened",
    "match_skipped",
    "fill_skipped",
    "matching_paused",
    "deal_funded",
    "deal_settled",
    "deal_unfunded",
    "deal_ending",
    "deal_ended",
    "claim_skipped",
    "attested",
    "artifact_updated",
    "matcher_paid",
    "deal_changed",
    "deal_refunded",
];

/// The event's name, as in its JSON.
pub(crate) const fn of(event: &MarketEvent) -> &'static str {
    match event {
        MarketEvent::Deposited { .. } => "deposited",
        MarketEvent::Withdrawn { .. } => "withdrawn",
        MarketEvent::ProviderOfferOpened { .. } => "provider_offer_opened",
        MarketEvent::DeveloperOfferOpened { .. } => "developer_offer_opened",
        MarketEvent::OfferCancelled { .. } => "offer_cancelled",
        MarketEvent::NonceFloorRaised { .. } => "nonce_floor_raised",
        MarketEvent::DealOpened(_) => "deal_opened",
        MarketEvent::MatchSkipped { .. } => "match_skipped",
        MarketEvent::FillSkipped { .. } => "fill_skipped",
        MarketEvent::MatchingPaused { .. } => "matching_paused",
        MarketEvent::DealFunded { .. } => "deal_funded",
        MarketEvent::DealSettled { .. } => "deal_settled",
        MarketEvent::DealUnfunded { .. } => "deal_unfunded",
        MarketEvent::DealEnding { .. } => "deal_ending",
        MarketEvent::DealEnded { .. } => "deal_ended",
        MarketEvent::ClaimSkipped { .. } => "claim_skipped",
        MarketEvent::Attested { .. } => "attested",
        MarketEvent::ArtifactUpdated { .. } => "artifact_updated",
        MarketEvent::MatcherPaid { .. } => "matcher_paid",
        MarketEvent::DealChanged(_) => "deal_changed",
        MarketEvent::DealRefunded { .. } => "deal_refunded",
    }
}

/// The number of an event's name.
pub(crate) fn number(name: &str) -> Option<i64> {
    let place = ALL.iter().position(|known| *known == name)?;
    i64::try_from(place).ok()
}
