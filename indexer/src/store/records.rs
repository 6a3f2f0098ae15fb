//! Rows as the driver hands them over, and how they become domain values.

use common::{
    deal::{Deal, OldPrice},
    epoch::Epoch,
    event::{BlockRef, MarketEvent, PlacedEvent},
    resources::Resources,
};

use super::{
    convert::{atoms, from_json, from_word, parse, unsigned},
    error::StoreError,
};
use crate::projection::rows::{AttestationRow, DealRow, DeveloperOfferRow, OpenedAt, ProviderOfferRow};

fn opened_at(block: i64, log_index: i64) -> Result<OpenedAt, StoreError> {
    Ok(OpenedAt { block: unsigned("opened_block", block)?, log_index: unsigned("opened_log_index", log_index)? })
}

fn epoch(what: &'static str, value: i64) -> Result<Epoch, StoreError> {
    unsigned(what, value).map(Epoch)
}

fn old_price((until, per_epoch): (i64, i64)) -> Result<OldPrice, StoreError> {
    Ok(OldPrice {
        until: epoch("deals.old_price_until", until)?,
        per_epoch: atoms("deals.old_price_per_epoch", per_epoch)?,
    })
}

#[derive(sqlx::FromRow)]
pub(super) struct BlockRecord {
    pub(super) number: i64,
    pub(super) hash: String,
    pub(super) parent_hash: String,
    pub(super) timestamp: i64,
    pub(super) event_count: i64,
}

impl BlockRecord {
    pub(super) fn into_domain(self) -> Result<BlockRef, StoreError> {
        Ok(BlockRef {
            number: unsigned("blocks.number", self.number)?,
            hash: parse("blocks.hash", &self.hash)?,
            parent_hash: parse("blocks.parent_hash", &self.parent_hash)?,
            timestamp: unsigned("blocks.timestamp", self.timestamp)?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct EventRecord {
    pub(super) block_hash: String,
    pub(super) log_index: i64,
    pub(super) block_number: i64,
    pub(super) tx_hash: String,
    pub(super) payload: String,
}

impl EventRecord {
    pub(super) fn into_domain(self) -> Result<PlacedEvent, StoreError> {
        let event: MarketEvent = from_json("events.payload", &self.payload)?;
        Ok(PlacedEvent {
            block_number: unsigned("events.block_number", self.block_number)?,
            block_hash: parse("blocks.hash", &self.block_hash)?,
            log_index: unsigned("events.log_index", self.log_index)?,
            tx_hash: parse("events.tx_hash", &self.tx_hash)?,
            event,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct ProviderOfferRecord {
    pub(super) offer_hash: String,
    pub(super) offer: String,
    pub(super) used_milli_cpu: i64,
    pub(super) used_memory_mib: i64,
    pub(super) opened_block: i64,
    pub(super) opened_log_index: i64,
}

impl ProviderOfferRecord {
    pub(super) fn into_domain(self) -> Result<ProviderOfferRow, StoreError> {
        Ok(ProviderOfferRow {
            offer: from_json("provider_offers.offer", &self.offer)?,
            used: Resources {
                milli_cpu: unsigned("provider_offers.used_milli_cpu", self.used_milli_cpu)?,
                memory_mib: unsigned("provider_offers.used_memory_mib", self.used_memory_mib)?,
            },
            opened_at: opened_at(self.opened_block, self.opened_log_index)?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct DeveloperOfferRecord {
    pub(super) offer_hash: String,
    pub(super) offer: String,
    pub(super) live_replicas: i64,
    pub(super) end_epoch: Option<i64>,
    pub(super) updated: Option<String>,
    pub(super) opened_block: i64,
    pub(super) opened_log_index: i64,
}

impl DeveloperOfferRecord {
    pub(super) fn into_domain(self) -> Result<DeveloperOfferRow, StoreError> {
        Ok(DeveloperOfferRow {
            offer: from_json("developer_offers.offer", &self.offer)?,
            live_replicas: unsigned("developer_offers.live_replicas", self.live_replicas)?,
            end_epoch: self.end_epoch.map(|end| epoch("developer_offers.end_epoch", end)).transpose()?,
            updated: self.updated.map(|text| from_json("developer_offers.updated", &text)).transpose()?,
            opened_at: opened_at(self.opened_block, self.opened_log_index)?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct DealRecord {
    pub(super) deal_id: String,
    pub(super) developer_offer: String,
    pub(super) provider_offer: String,
    pub(super) developer: String,
    pub(super) provider: String,
    pub(super) agent: String,
    pub(super) milli_cpu: i64,
    pub(super) memory_mib: i64,
    pub(super) price_per_epoch: i64,
    pub(super) old_price_until: Option<i64>,
    pub(super) old_price_per_epoch: Option<i64>,
    pub(super) changes: i64,
    pub(super) start_epoch: i64,
    pub(super) end_epoch: i64,
    pub(super) settled_until: i64,
    pub(super) paid_until: i64,
    pub(super) locked: i64,
    pub(super) bond: i64,
    pub(super) unfunded_since: Option<i64>,
    pub(super) state: String,
    pub(super) cause: Option<String>,
    pub(super) funded: i64,
    pub(super) paid: i64,
    pub(super) refunded: i64,
    pub(super) opened_block: i64,
    pub(super) opened_log_index: i64,
}

impl DealRecord {
    pub(super) fn into_domain(self) -> Result<DealRow, StoreError> {
        let deal = Deal {
            id: parse("deals.deal_id", &self.deal_id)?,
            developer_offer: parse("deals.developer_offer", &self.developer_offer)?,
            provider_offer: parse("deals.provider_offer", &self.provider_offer)?,
            developer: parse("deals.developer", &self.developer)?,
            provider: parse("deals.provider", &self.provider)?,
            agent: parse("deals.agent", &self.agent)?,
            size: Resources {
                milli_cpu: unsigned("deals.milli_cpu", self.milli_cpu)?,
                memory_mib: unsigned("deals.memory_mib", self.memory_mib)?,
            },
            price_per_epoch: atoms("deals.price_per_epoch", self.price_per_epoch)?,
            old_price: self.old_price_until.zip(self.old_price_per_epoch).map(old_price).transpose()?,
            changes: unsigned("deals.changes", self.changes)?,
            start_epoch: epoch("deals.start_epoch", self.start_epoch)?,
            end_epoch: epoch("deals.end_epoch", self.end_epoch)?,
            settled_until: epoch("deals.settled_until", self.settled_until)?,
            paid_until: epoch("deals.paid_until", self.paid_until)?,
            locked: atoms("deals.locked", self.locked)?,
            bond: atoms("deals.bond", self.bond)?,
            unfunded_since: self.unfunded_since.map(|since| epoch("deals.unfunded_since", since)).transpose()?,
            state: from_word("deals.state", &self.state)?,
            cause: self.cause.as_deref().map(|cause| from_word("deals.cause", cause)).transpose()?,
        };
        Ok(DealRow {
            deal,
            funded: atoms("deals.funded", self.funded)?,
            paid: atoms("deals.paid", self.paid)?,
            refunded: atoms("deals.refunded", self.refunded)?,
            opened_at: opened_at(self.opened_block, self.opened_log_index)?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct AttestationRecord {
    pub(super) agent: String,
    pub(super) epoch: i64,
    pub(super) receipt_root: String,
    pub(super) rolling_hash: String,
    pub(super) block_number: i64,
    pub(super) log_index: i64,
}

impl AttestationRecord {
    pub(super) fn into_domain(self) -> Result<AttestationRow, StoreError> {
        Ok(AttestationRow {
            receipt_root: parse("attestations.receipt_root", &self.receipt_root)?,
            rolling_hash: parse("attestations.rolling_hash", &self.rolling_hash)?,
            opened_at: opened_at(self.block_number, self.log_index)?,
        })
    }
}
