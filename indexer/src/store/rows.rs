//! One row in, one row out, for every table of the projection.

use common::{
    epoch::Epoch,
    ids::{Address, OfferHash},
};
use sqlx::SqliteConnection;

use super::{
    convert::{atoms, big, json, parse, word},
    error::StoreError,
    records::{AttestationRecord, DealRecord, DeveloperOfferRecord, ProviderOfferRecord},
};
use crate::projection::{
    ledger::RowSource,
    rows::{AttestationRow, DealRow, DeveloperOfferRow, ProviderOfferRow, Row, RowKey},
};

/// Rows of one connection, which is usually in a transaction.
pub(super) struct Rows<'c>(pub(super) &'c mut SqliteConnection);

impl RowSource for Rows<'_> {
    type Error = StoreError;

    async fn load(&mut self, key: RowKey) -> Result<Option<Row>, StoreError> {
        load(self.0, key).await
    }
}

async fn load(db: &mut SqliteConnection, key: RowKey) -> Result<Option<Row>, StoreError> {
    match key {
        RowKey::Balance { account } => {
            let query = sqlx::query_scalar("SELECT free FROM balances WHERE account = ?");
            let free: Option<i64> = query.bind(account.to_string()).fetch_optional(db).await?;
            free.map(|free| atoms("balances.free", free).map(Row::Balance)).transpose()
        }
        RowKey::NonceFloor { owner } => {
            let query = sqlx::query_scalar("SELECT floor FROM nonce_floors WHERE owner = ?");
            let floor: Option<String> = query.bind(owner.to_string()).fetch_optional(db).await?;
            floor.map(|floor| parse("nonce_floors.floor", &floor).map(Row::NonceFloor)).transpose()
        }
        RowKey::Cancelled { owner, offer } => {
            let query = sqlx::query_scalar("SELECT 1 FROM cancelled_offers WHERE owner = ? AND offer_hash = ?");
            let found: Option<i64> = query.bind(owner.to_string()).bind(offer.to_string()).fetch_optional(db).await?;
            Ok(found.map(|_| Row::Cancelled))
        }
        RowKey::ProviderOffer { hash } => {
            let query = sqlx::query_as("SELECT * FROM provider_offers WHERE offer_hash = ?");
            let record: Option<ProviderOfferRecord> = query.bind(hash.to_string()).fetch_optional(db).await?;
            record.map(|record| record.into_domain().map(|row| Row::ProviderOffer(Box::new(row)))).transpose()
        }
        RowKey::DeveloperOffer { hash } => {
            let query = sqlx::query_as("SELECT * FROM developer_offers WHERE offer_hash = ?");
            let record: Option<DeveloperOfferRecord> = query.bind(hash.to_string()).fetch_optional(db).await?;
            record.map(|record| record.into_domain().map(|row| Row::DeveloperOffer(Box::new(row)))).transpose()
        }
        RowKey::Deal { id } => {
            let query = sqlx::query_as("SELECT * FROM deals WHERE deal_id = ?");
            let record: Option<DealRecord> = query.bind(id.to_string()).fetch_optional(db).await?;
            record.map(|record| record.into_domain().map(|row| Row::Deal(Box::new(row)))).transpose()
        }
        RowKey::Attestation { agent, epoch } => {
            let query = sqlx::query_as("SELECT * FROM attestations WHERE agent = ? AND epoch = ?");
            let query = query.bind(agent.to_string()).bind(i64::from(epoch.0));
            let record: Option<AttestationRecord> = query.fetch_optional(db).await?;
            record.map(|record| record.into_domain().map(Row::Attestation)).transpose()
        }
        RowKey::Matching => {
            let paused: Option<bool> =
                sqlx::query_scalar("SELECT paused FROM matching WHERE id = 1").fetch_optional(db).await?;
            Ok(paused.map(Row::Matching))
        }
    }
}

/// Makes the row under `key` be `row`; `None` removes it.
pub(super) async fn save(db: &mut SqliteConnection, key: RowKey, row: Option<&Row>) -> Result<(), StoreError> {
    match (key, row) {
        (RowKey::Balance { account }, Some(Row::Balance(free))) => {
            let sql = "INSERT INTO balances (account, free) VALUES (?, ?)
                 ON CONFLICT (account) DO UPDATE SET free = excluded.free";
            sqlx::query(sql).bind(account.to_string()).bind(free.to_i64()).execute(db).await?;
        }
        (RowKey::NonceFloor { owner }, Some(Row::NonceFloor(floor))) => {
            let sql = "INSERT INTO nonce_floors (owner, floor) VALUES (?, ?)
                 ON CONFLICT (owner) DO UPDATE SET floor = excluded.floor";
            sqlx::query(sql).bind(owner.to_string()).bind(floor.to_string()).execute(db).await?;
        }
        (RowKey::Cancelled { owner, offer }, Some(Row::Cancelled)) => {
            let sql = "INSERT INTO cancelled_offers (owner, offer_hash) VALUES (?, ?) ON CONFLICT DO NOTHING";
            sqlx::query(sql).bind(owner.to_string()).bind(offer.to_string()).execute(db).await?;
        }
        (RowKey::Matching, Some(Row::Matching(paused))) => {
            let sql = "INSERT INTO matching (id, paused) VALUES (1, ?)
                 ON CONFLICT (id) DO UPDATE SET paused = excluded.paused";
            sqlx::query(sql).bind(paused).execute(db).await?;
        }
        (RowKey::Attestation { agent, epoch }, Some(Row::Attestation(row))) => {
            save_attestation(db, agent, epoch, row).await?;
        }
        (RowKey::ProviderOffer { hash }, Some(Row::ProviderOffer(row))) => save_provider_offer(db, hash, row).await?,
        (RowKey::DeveloperOffer { hash }, Some(Row::DeveloperOffer(row))) => {
            save_developer_offer(db, hash, row).await?;
        }
        (RowKey::Deal { .. }, Some(Row::Deal(row))) => save_deal(db, row).await?,
        (_, None) => remove(db, key).await?,
        (_, Some(_)) => return Err(StoreError::corrupt("undo.row_before", format!("{key:?}"))),
    }
    Ok(())
}

async fn save_attestation(
    db: &mut SqliteConnection,
    agent: Address,
    epoch: Epoch,
    row: &AttestationRow,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO attestations (agent, epoch, receipt_root, rolling_hash, block_number, log_index)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (agent, epoch) DO UPDATE SET receipt_root = excluded.receipt_root,
           rolling_hash = excluded.rolling_hash, block_number = excluded.block_number, log_index = excluded.log_index";
    sqlx::query(sql)
        .bind(agent.to_string())
        .bind(i64::from(epoch.0))
        .bind(row.receipt_root.to_string())
        .bind(row.rolling_hash.to_string())
        .bind(big("block number", row.opened_at.block)?)
        .bind(big("log index", row.opened_at.log_index)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn save_provider_offer(
    db: &mut SqliteConnection,
    hash: OfferHash,
    row: &ProviderOfferRow,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO provider_offers (offer_hash, provider, region, offer, used_milli_cpu, used_memory_mib,
           opened_block, opened_log_index)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (offer_hash) DO UPDATE SET used_milli_cpu = excluded.used_milli_cpu,
           used_memory_mib = excluded.used_memory_mib";
    sqlx::query(sql)
        .bind(hash.to_string())
        .bind(row.offer.provider.to_string())
        .bind(row.offer.region.to_string())
        .bind(json("provider_offers.offer", &row.offer)?)
        .bind(i64::from(row.used.milli_cpu))
        .bind(i64::from(row.used.memory_mib))
        .bind(big("block number", row.opened_at.block)?)
        .bind(big("log index", row.opened_at.log_index)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn save_developer_offer(
    db: &mut SqliteConnection,
    hash: OfferHash,
    row: &DeveloperOfferRow,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO developer_offers (offer_hash, developer, offer, live_replicas, end_epoch, updated,
           opened_block, opened_log_index)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (offer_hash) DO UPDATE SET live_replicas = excluded.live_replicas,
           end_epoch = excluded.end_epoch, updated = excluded.updated";
    sqlx::query(sql)
        .bind(hash.to_string())
        .bind(row.offer.developer.to_string())
        .bind(json("developer_offers.offer", &row.offer)?)
        .bind(i64::from(row.live_replicas))
        .bind(row.end_epoch.map(|end| i64::from(end.0)))
        .bind(row.updated.as_ref().map(|updated| json("developer_offers.updated", updated)).transpose()?)
        .bind(big("block number", row.opened_at.block)?)
        .bind(big("log index", row.opened_at.log_index)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn save_deal(db: &mut SqliteConnection, row: &DealRow) -> Result<(), StoreError> {
    let deal = &row.deal;
    let sql = "INSERT INTO deals (deal_id, developer_offer, provider_offer, developer, provider, agent,
           milli_cpu, memory_mib, price_per_epoch, old_price_until, old_price_per_epoch, changes, start_epoch, end_epoch,
           settled_until, paid_until, locked, bond, unfunded_since, state, cause, funded, paid, refunded, opened_block,
           opened_log_index)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (deal_id) DO UPDATE SET milli_cpu = excluded.milli_cpu, memory_mib = excluded.memory_mib,
           price_per_epoch = excluded.price_per_epoch, old_price_until = excluded.old_price_until,
           old_price_per_epoch = excluded.old_price_per_epoch, changes = excluded.changes, end_epoch = excluded.end_epoch, settled_until = excluded.settled_until,
           paid_until = excluded.paid_until, locked = excluded.locked, bond = excluded.bond,
           unfunded_since = excluded.unfunded_since, state = excluded.state, cause = excluded.cause,
           funded = excluded.funded, paid = excluded.paid, refunded = excluded.refunded";
    sqlx::query(sql)
        .bind(deal.id.to_string())
        .bind(deal.developer_offer.to_string())
        .bind(deal.provider_offer.to_string())
        .bind(deal.developer.to_string())
        .bind(deal.provider.to_string())
        .bind(deal.agent.to_string())
        .bind(i64::from(deal.size.milli_cpu))
        .bind(i64::from(deal.size.memory_mib))
        .bind(deal.price_per_epoch.to_i64())
        .bind(deal.old_price.map(|old| i64::from(old.until.0)))
        .bind(deal.old_price.map(|old| old.per_epoch.to_i64()))
        .bind(i64::from(deal.changes))
        .bind(i64::from(deal.start_epoch.0))
        .bind(i64::from(deal.end_epoch.0))
        .bind(i64::from(deal.settled_until.0))
        .bind(i64::from(deal.paid_until.0))
        .bind(deal.locked.to_i64())
        .bind(deal.bond.to_i64())
        .bind(deal.unfunded_since.map(|since| i64::from(since.0)))
        .bind(word("deals.state", &deal.state)?)
        .bind(deal.cause.map(|cause| word("deals.cause", &cause)).transpose()?)
        .bind(row.funded.to_i64())
        .bind(row.paid.to_i64())
        .bind(row.refunded.to_i64())
        .bind(big("block number", row.opened_at.block)?)
        .bind(big("log index", row.opened_at.log_index)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn remove(db: &mut SqliteConnection, key: RowKey) -> Result<(), StoreError> {
    let query = match key {
        RowKey::Balance { account } => sqlx::query("DELETE FROM balances WHERE account = ?").bind(account.to_string()),
        RowKey::NonceFloor { owner } => sqlx::query("DELETE FROM nonce_floors WHERE owner = ?").bind(owner.to_string()),
        RowKey::Cancelled { owner, offer } => {
            let sql = "DELETE FROM cancelled_offers WHERE owner = ? AND offer_hash = ?";
            sqlx::query(sql).bind(owner.to_string()).bind(offer.to_string())
        }
        RowKey::ProviderOffer { hash } => {
            sqlx::query("DELETE FROM provider_offers WHERE offer_hash = ?").bind(hash.to_string())
        }
        RowKey::DeveloperOffer { hash } => {
            sqlx::query("DELETE FROM developer_offers WHERE offer_hash = ?").bind(hash.to_string())
        }
        RowKey::Deal { id } => sqlx::query("DELETE FROM deals WHERE deal_id = ?").bind(id.to_string()),
        RowKey::Attestation { agent, epoch } => {
            let sql = "DELETE FROM attestations WHERE agent = ? AND epoch = ?";
            sqlx::query(sql).bind(agent.to_string()).bind(i64::from(epoch.0))
        }
        RowKey::Matching => sqlx::query("DELETE FROM matching WHERE id = 1"),
    };
    query.execute(db).await?;
    Ok(())
}
