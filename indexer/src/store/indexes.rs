//! Indexes that only serve readers. While a long history is fetched there are none: one that is made of a filled table
//! costs a fraction of one that grows row by row.

use super::{
    db::{Statement, Tx},
    error::StoreError,
};

/// An index: what stands before its name, its name, and what stands behind it.
type Index = (&'static str, &'static str, &'static str);

/// Of what the chain said.
const OF_EVENTS: [Index; 2] = [
    ("INDEX", "events_deal", "events (deal_key, block_number, log_index) WHERE deal_key IS NOT NULL"),
    ("INDEX", "events_kind", "events (kind, block_number, log_index)"),
];

/// Of what follows from it.
const OF_PROJECTION: [Index; 16] = [
    ("INDEX", "payments_from", "payments (from_account, block_number, log_index, part)"),
    // Money that only changes its purpose is found by the index above.
    ("INDEX", "payments_to", "payments (to_account, block_number, log_index, part) WHERE to_account <> from_account"),
    ("INDEX", "mentions_account", "mentions (account, block_number, log_index)"),
    ("INDEX", "attestations_place", "attestations (block_number, log_index)"),
    ("INDEX", "attestations_epoch", "attestations (epoch, block_number, log_index)"),
    ("UNIQUE INDEX", "provider_offers_place", "provider_offers (opened_block, opened_log_index)"),
    ("INDEX", "provider_offers_provider", "provider_offers (provider, opened_block, opened_log_index)"),
    ("UNIQUE INDEX", "developer_offers_place", "developer_offers (opened_block, opened_log_index)"),
    ("INDEX", "developer_offers_developer", "developer_offers (developer, opened_block, opened_log_index)"),
    ("UNIQUE INDEX", "deals_place", "deals (opened_block, opened_log_index)"),
    ("INDEX", "deals_developer_offer", "deals (developer_offer, opened_block, opened_log_index)"),
    ("INDEX", "deals_developer", "deals (developer, opened_block, opened_log_index)"),
    ("INDEX", "deals_provider", "deals (provider, opened_block, opened_log_index)"),
    ("INDEX", "deals_state", "deals (state, opened_block, opened_log_index)"),
    ("INDEX", "deals_agent", "deals (agent, opened_block, opened_log_index)"),
    // Ended deals pile up; those that are not are what everyone asks for.
    ("INDEX", "deals_open", "deals (developer_offer) WHERE state <> 'ended'"),
];

/// Makes those that are missing.
pub(super) async fn create(db: &mut Tx) -> Result<(), StoreError> {
    for (kind, name, on) in OF_EVENTS.into_iter().chain(OF_PROJECTION) {
        let mut create = Statement::new("CREATE ");
        create.push(kind).push(" IF NOT EXISTS ").push(name).push(" ON ").push(on);
        db.execute(create).await?;
    }
    Ok(())
}

/// Takes away all that there are.
pub(super) async fn drop(db: &mut Tx) -> Result<(), StoreError> {
    remove(db, &OF_EVENTS).await?;
    drop_of_projection(db).await
}

/// Takes away those of tables that a rebuild fills anew.
pub(super) async fn drop_of_projection(db: &mut Tx) -> Result<(), StoreError> {
    remove(db, &OF_PROJECTION).await
}

async fn remove(db: &mut Tx, indexes: &[Index]) -> Result<(), StoreError> {
    for (_, name, _) in indexes {
        let mut drop = Statement::new("DROP INDEX IF EXISTS ");
        drop.push(name);
        db.execute(drop).await?;
    }
    Ok(())
}
