//! Queries behind the API's views, and how their rows become views.

use std::collections::HashMap;

use common::ids::OfferHash;

use super::{
    Snapshot,
    convert::{from_json, parse, unsigned},
    db::Statement,
    error::StoreError,
    records::{DealRecord, DeveloperOfferRecord, ProviderOfferRecord},
};
use crate::view::{DealView, Deployment, DeploymentDeal, DeveloperOfferView, EventView, ProviderOfferView};

/// Provider offers; conditions are added with `AND`.
pub(super) const PROVIDER_OFFERS: &str = "SELECT o.*, c.owner IS NOT NULL AS voided, f.floor
     FROM provider_offers o
     LEFT JOIN cancelled_offers c ON c.owner = o.provider AND c.offer_hash = o.offer_hash
     LEFT JOIN nonce_floors f ON f.owner = o.provider
     WHERE 1 = 1";

/// Developer offers; conditions are added with `AND`.
pub(super) const DEVELOPER_OFFERS: &str = "SELECT o.*, c.owner IS NOT NULL AS voided, f.floor
     FROM developer_offers o
     LEFT JOIN cancelled_offers c ON c.owner = o.developer AND c.offer_hash = o.offer_hash
     LEFT JOIN nonce_floors f ON f.owner = o.developer
     WHERE 1 = 1";

/// Deals with the offers that they are hosted under; conditions are added with `AND`.
pub(super) const DEALS: &str = "SELECT d.*, p.offer AS hosted_under
     FROM deals d JOIN provider_offers p ON p.offer_hash = d.provider_offer
     WHERE 1 = 1";

/// Events; conditions are added with `AND`.
pub(super) const EVENTS: &str =
    "SELECT e.block_number, b.hash AS block_hash, b.timestamp, e.log_index, e.tx_hash, e.payload
     FROM events e JOIN blocks b ON b.number = e.block_number
     WHERE 1 = 1";

/// Events at the places of a table of that name, looked up one by one; conditions are added with `AND`.
pub(super) const EVENTS_AT_PLACES: &str =
    "SELECT e.block_number, b.hash AS block_hash, b.timestamp, e.log_index, e.tx_hash, e.payload
     FROM places CROSS JOIN events e JOIN blocks b ON b.number = e.block_number
     WHERE e.block_number = places.block_number AND e.log_index = places.log_index";

/// An offer with what says whether its owner voided it.
#[derive(sqlx::FromRow)]
struct OfferRow<T> {
    #[sqlx(flatten)]
    record: T,
    #[sqlx(flatten)]
    void: Void,
}

#[derive(sqlx::FromRow)]
struct Void {
    voided: bool,
    floor: Option<String>,
}

impl Void {
    fn covers(&self, nonce: u64) -> Result<bool, StoreError> {
        let floor = self.floor.as_deref().map(|floor| parse::<u64>("nonce_floors.floor", floor)).transpose()?;
        Ok(self.voided || floor.is_some_and(|floor| nonce < floor))
    }
}

#[derive(sqlx::FromRow)]
struct HostedDeal {
    #[sqlx(flatten)]
    record: DealRecord,
    hosted_under: String,
}

#[derive(sqlx::FromRow)]
struct LoggedEvent {
    block_number: i64,
    block_hash: String,
    timestamp: i64,
    log_index: i64,
    tx_hash: String,
    payload: String,
}

impl Snapshot {
    pub(super) async fn fetch_provider_offers(
        &mut self,
        query: Statement,
    ) -> Result<Vec<ProviderOfferView>, StoreError> {
        let found: Vec<OfferRow<ProviderOfferRecord>> = self.read.fetch_all(query).await?;
        let view = |found: OfferRow<ProviderOfferRecord>| {
            let offer_hash = parse("provider_offers.offer_hash", &found.record.offer_hash)?;
            let row = found.record.into_domain()?;
            Ok(ProviderOfferView {
                offer_hash,
                cancelled: found.void.covers(row.offer.nonce)?,
                free: row.offer.capacity.saturating_sub(row.used),
                offer: row.offer,
                used: row.used,
                opened_at: row.opened_at,
            })
        };
        found.into_iter().map(view).collect()
    }

    pub(super) async fn fetch_developer_offers(
        &mut self,
        query: Statement,
    ) -> Result<Vec<DeveloperOfferView>, StoreError> {
        let found: Vec<OfferRow<DeveloperOfferRecord>> = self.read.fetch_all(query).await?;
        let view = |found: OfferRow<DeveloperOfferRecord>| {
            let offer_hash = parse("developer_offers.offer_hash", &found.record.offer_hash)?;
            let row = found.record.into_domain()?;
            Ok(DeveloperOfferView {
                offer_hash,
                cancelled: found.void.covers(row.offer.nonce)?,
                offer: row.offer,
                updated: row.updated,
                live_replicas: row.live_replicas,
                end_epoch: row.end_epoch,
                opened_at: row.opened_at,
            })
        };
        found.into_iter().map(view).collect()
    }

    pub(super) async fn fetch_deals(&mut self, query: Statement) -> Result<Vec<DealView>, StoreError> {
        let found: Vec<HostedDeal> = self.read.fetch_all(query).await?;
        let view = |found: HostedDeal| {
            let row = found.record.into_domain()?;
            let host: common::offer::ProviderOffer = from_json("provider_offers.offer", &found.hosted_under)?;
            Ok(DealView {
                deal: row.deal,
                funded: row.funded,
                paid: row.paid,
                refunded: row.refunded,
                region: host.region,
                endpoint: host.endpoint,
                opened_at: row.opened_at,
            })
        };
        found.into_iter().map(view).collect()
    }

    pub(super) async fn fetch_events(&mut self, query: Statement) -> Result<Vec<EventView>, StoreError> {
        let found: Vec<LoggedEvent> = self.read.fetch_all(query).await?;
        let view = |found: LoggedEvent| {
            Ok(EventView {
                block_number: unsigned("events.block_number", found.block_number)?,
                block_hash: parse("blocks.hash", &found.block_hash)?,
                timestamp: unsigned("blocks.timestamp", found.timestamp)?,
                log_index: unsigned("events.log_index", found.log_index)?,
                tx_hash: parse("events.tx_hash", &found.tx_hash)?,
                event: from_json("events.payload", &found.payload)?,
            })
        };
        found.into_iter().map(view).collect()
    }

    /// Offers with all their deals, read in one query.
    pub(super) async fn with_deals(&mut self, offers: Vec<DeveloperOfferView>) -> Result<Vec<Deployment>, StoreError> {
        if offers.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = Statement::new(DEALS);
        query.push(" AND d.developer_offer IN (").push_list(offers.iter().map(|offer| offer.offer_hash.to_string()));
        query.push(") ORDER BY d.opened_block, d.opened_log_index");
        let mut deals: HashMap<OfferHash, Vec<DeploymentDeal>> = HashMap::new();
        for deal in self.fetch_deals(query).await? {
            deals.entry(deal.deal.developer_offer).or_default().push(replica(deal));
        }
        let deployment = |offer: DeveloperOfferView| Deployment {
            developer_offer: offer.offer_hash,
            developer: offer.offer.developer,
            artifact: offer.updated.as_ref().map_or(offer.offer.artifact, |updated| updated.artifact),
            artifact_version: offer.updated.as_ref().map_or(0, |updated| updated.version),
            replicas: offer.offer.replicas,
            live_replicas: offer.live_replicas,
            end_epoch: offer.end_epoch,
            cancelled: offer.cancelled,
            opened_at: offer.opened_at,
            deals: deals.remove(&offer.offer_hash).unwrap_or_default(),
        };
        Ok(offers.into_iter().map(deployment).collect())
    }
}

fn replica(view: DealView) -> DeploymentDeal {
    let deal = view.deal;
    DeploymentDeal {
        id: deal.id,
        provider: deal.provider,
        region: view.region,
        endpoint: view.endpoint,
        state: deal.state,
        unfunded_since: deal.unfunded_since,
        start_epoch: deal.start_epoch,
        end_epoch: deal.end_epoch,
        price_per_epoch: deal.price_per_epoch,
    }
}
