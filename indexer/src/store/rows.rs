//! The projection's rows in their tables: read by their keys and written, many at a time.

use std::collections::HashMap;

use common::{
    epoch::Epoch,
    ids::{Address, OfferHash},
};

use super::{
    bulk::{Role, Table, table},
    convert::{atoms, big, json, parse, unsigned, word},
    db::{Statement, Tx, Value},
    error::StoreError,
    records::{AttestationRecord, DealRecord, DeveloperOfferRecord, ProviderOfferRecord},
};
use crate::projection::{
    ledger::RowSource,
    rows::{AttestationRow, DealRow, DeveloperOfferRow, ProviderOfferRow, Row, RowKey},
};

/// Rows of one transaction.
pub(super) struct Rows<'c>(pub(super) &'c mut Tx);

impl RowSource for Rows<'_> {
    type Error = StoreError;

    async fn load(&mut self, keys: Vec<RowKey>) -> Result<HashMap<RowKey, Row>, StoreError> {
        let mut wanted: HashMap<&'static str, (&'static Table, Vec<Vec<Value>>)> = HashMap::new();
        for key in &keys {
            let table = table_of(key);
            wanted.entry(table.name).or_insert((table, Vec::new())).1.push(key_values(key));
        }
        let mut found = HashMap::with_capacity(keys.len());
        for (table, keys) in wanted.into_values() {
            load_from(self.0, table, &keys, &mut found).await?;
        }
        Ok(found)
    }
}

table!(BALANCES, "balances", account Text Key, free Big Changing);
table!(NONCE_FLOORS, "nonce_floors", owner Text Key, floor Text Changing);
table!(CANCELLED_OFFERS, "cancelled_offers", owner Text Key, offer_hash Text Key);
table!(MATCHING, "matching", id Big Key, paused Bool Changing);
table!(
    PROVIDER_OFFERS, "provider_offers",
    offer_hash Text Key, provider Text Fixed, region Text Fixed, offer Text Fixed, used_milli_cpu Big Changing,
    used_memory_mib Big Changing, opened_block Big Fixed, opened_log_index Big Fixed,
);
table!(
    DEVELOPER_OFFERS, "developer_offers",
    offer_hash Text Key, developer Text Fixed, offer Text Fixed, live_replicas Big Changing, end_epoch Big Changing,
    updated Text Changing, opened_block Big Fixed, opened_log_index Big Fixed,
);
table!(
    DEALS, "deals",
    deal_id Text Key, developer_offer Text Fixed, provider_offer Text Fixed, developer Text Fixed, provider Text Fixed,
    agent Text Fixed, milli_cpu Big Changing, memory_mib Big Changing, price_per_epoch Big Changing,
    old_price_until Big Changing, old_price_per_epoch Big Changing, changes Big Changing, start_epoch Big Fixed,
    end_epoch Big Changing, settled_until Big Changing, paid_until Big Changing, locked Big Changing, bond Big Changing,
    unfunded_since Big Changing, state Text Changing, cause Text Changing, funded Big Changing, paid Big Changing,
    refunded Big Changing, opened_block Big Fixed, opened_log_index Big Fixed,
);
table!(
    ATTESTATIONS, "attestations",
    agent Text Key, epoch Big Key, receipt_root Text Changing, rolling_hash Text Changing, block_number Big Changing,
    log_index Big Changing,
);

const fn table_of(key: &RowKey) -> &'static Table {
    match key {
        RowKey::Balance { .. } => BALANCES,
        RowKey::NonceFloor { .. } => NONCE_FLOORS,
        RowKey::Cancelled { .. } => CANCELLED_OFFERS,
        RowKey::ProviderOffer { .. } => PROVIDER_OFFERS,
        RowKey::DeveloperOffer { .. } => DEVELOPER_OFFERS,
        RowKey::Deal { .. } => DEALS,
        RowKey::Attestation { .. } => ATTESTATIONS,
        RowKey::Matching => MATCHING,
    }
}

/// Values of the key columns.
fn key_values(key: &RowKey) -> Vec<Value> {
    match key {
        RowKey::Balance { account } => vec![account.to_string().into()],
        RowKey::NonceFloor { owner } => vec![owner.to_string().into()],
        RowKey::Cancelled { owner, offer } => vec![owner.to_string().into(), offer.to_string().into()],
        RowKey::ProviderOffer { hash } | RowKey::DeveloperOffer { hash } => vec![hash.to_string().into()],
        RowKey::Deal { id } => vec![id.to_string().into()],
        RowKey::Attestation { agent, epoch } => vec![agent.to_string().into(), epoch.0.into()],
        RowKey::Matching => vec![1_i64.into()],
    }
}

async fn load_from(
    db: &mut Tx,
    table: &Table,
    keys: &[Vec<Value>],
    found: &mut HashMap<RowKey, Row>,
) -> Result<(), StoreError> {
    match table.name {
        "balances" => {
            for (account, free) in db.fetch_keys::<(String, i64)>(table, keys).await? {
                let account = parse("balances.account", &account)?;
                found.insert(RowKey::Balance { account }, Row::Balance(atoms("balances.free", free)?));
            }
        }
        "nonce_floors" => {
            for (owner, floor) in db.fetch_keys::<(String, String)>(table, keys).await? {
                let owner = parse("nonce_floors.owner", &owner)?;
                found.insert(RowKey::NonceFloor { owner }, Row::NonceFloor(parse("nonce_floors.floor", &floor)?));
            }
        }
        "cancelled_offers" => {
            for (owner, offer) in db.fetch_keys::<(String, String)>(table, keys).await? {
                let owner: Address = parse("cancelled_offers.owner", &owner)?;
                let offer: OfferHash = parse("cancelled_offers.offer_hash", &offer)?;
                found.insert(RowKey::Cancelled { owner, offer }, Row::Cancelled);
            }
        }
        "provider_offers" => {
            for record in db.fetch_keys::<ProviderOfferRecord>(table, keys).await? {
                let hash = parse("provider_offers.offer_hash", &record.offer_hash)?;
                found.insert(RowKey::ProviderOffer { hash }, Row::ProviderOffer(Box::new(record.into_domain()?)));
            }
        }
        "developer_offers" => {
            for record in db.fetch_keys::<DeveloperOfferRecord>(table, keys).await? {
                let hash = parse("developer_offers.offer_hash", &record.offer_hash)?;
                found.insert(RowKey::DeveloperOffer { hash }, Row::DeveloperOffer(Box::new(record.into_domain()?)));
            }
        }
        "deals" => {
            for record in db.fetch_keys::<DealRecord>(table, keys).await? {
                let row = record.into_domain()?;
                found.insert(RowKey::Deal { id: row.deal.id }, Row::Deal(Box::new(row)));
            }
        }
        "attestations" => {
            for record in db.fetch_keys::<AttestationRecord>(table, keys).await? {
                let agent = parse("attestations.agent", &record.agent)?;
                let epoch = Epoch(unsigned("attestations.epoch", record.epoch)?);
                found.insert(RowKey::Attestation { agent, epoch }, Row::Attestation(record.into_domain()?));
            }
        }
        _ => {
            let query = Statement::new("SELECT paused FROM matching WHERE id = 1");
            let paused: Option<(bool,)> = db.fetch_optional(query).await?;
            found.extend(paused.map(|(paused,)| (RowKey::Matching, Row::Matching(paused))));
        }
    }
    Ok(())
}

/// Makes the row under each key be what stands beside it; `None` removes it.
pub(super) async fn save(db: &mut Tx, changes: &[(RowKey, Option<Row>)]) -> Result<(), StoreError> {
    for (key, _) in changes.iter().filter(|(_, row)| row.is_none()) {
        remove(db, *key).await?;
    }
    let written: Vec<(RowKey, &Row)> = changes.iter().filter_map(|(key, row)| Some((*key, row.as_ref()?))).collect();
    for (table, values) in encoded(&written)? {
        db.put(table, values).await?;
    }
    Ok(())
}

/// Values of all columns, by tables.
pub(super) fn encoded(rows: &[(RowKey, &Row)]) -> Result<Vec<(&'static Table, Vec<Value>)>, StoreError> {
    let mut written: HashMap<&'static str, (&'static Table, Vec<Value>)> = HashMap::new();
    for (key, row) in rows {
        let table = table_of(key);
        written.entry(table.name).or_insert((table, Vec::new())).1.extend(values(*key, row)?);
    }
    Ok(written.into_values().collect())
}

/// Values of all columns.
fn values(key: RowKey, row: &Row) -> Result<Vec<Value>, StoreError> {
    let mut values = key_values(&key);
    match (key, row) {
        (RowKey::Balance { .. }, Row::Balance(free)) => values.push(free.to_i64().into()),
        (RowKey::NonceFloor { .. }, Row::NonceFloor(floor)) => values.push(floor.to_string().into()),
        (RowKey::Cancelled { .. }, Row::Cancelled) => (),
        (RowKey::Matching, Row::Matching(paused)) => values.push((*paused).into()),
        (RowKey::Attestation { .. }, Row::Attestation(row)) => values.extend(attestation_values(row)?),
        (RowKey::ProviderOffer { .. }, Row::ProviderOffer(row)) => values.extend(provider_offer_values(row)?),
        (RowKey::DeveloperOffer { .. }, Row::DeveloperOffer(row)) => values.extend(developer_offer_values(row)?),
        (RowKey::Deal { .. }, Row::Deal(row)) => values.extend(deal_values(row)?),
        (key, _) => return Err(StoreError::corrupt("undo.row_before", format!("{key:?}"))),
    }
    Ok(values)
}

fn attestation_values(row: &AttestationRow) -> Result<[Value; 4], StoreError> {
    Ok([
        row.receipt_root.to_string().into(),
        row.rolling_hash.to_string().into(),
        big("block number", row.opened_at.block)?.into(),
        big("log index", row.opened_at.log_index)?.into(),
    ])
}

fn provider_offer_values(row: &ProviderOfferRow) -> Result<[Value; 7], StoreError> {
    Ok([
        row.offer.provider.to_string().into(),
        row.offer.region.to_string().into(),
        json("provider_offers.offer", &row.offer)?.into(),
        row.used.milli_cpu.into(),
        row.used.memory_mib.into(),
        big("block number", row.opened_at.block)?.into(),
        big("log index", row.opened_at.log_index)?.into(),
    ])
}

fn developer_offer_values(row: &DeveloperOfferRow) -> Result<[Value; 7], StoreError> {
    Ok([
        row.offer.developer.to_string().into(),
        json("developer_offers.offer", &row.offer)?.into(),
        u32::from(row.live_replicas).into(),
        row.end_epoch.map(|end| i64::from(end.0)).into(),
        row.updated.as_ref().map(|updated| json("developer_offers.updated", updated)).transpose()?.into(),
        big("block number", row.opened_at.block)?.into(),
        big("log index", row.opened_at.log_index)?.into(),
    ])
}

fn deal_values(row: &DealRow) -> Result<[Value; 25], StoreError> {
    let deal = &row.deal;
    Ok([
        deal.developer_offer.to_string().into(),
        deal.provider_offer.to_string().into(),
        deal.developer.to_string().into(),
        deal.provider.to_string().into(),
        deal.agent.to_string().into(),
        deal.size.milli_cpu.into(),
        deal.size.memory_mib.into(),
        deal.price_per_epoch.to_i64().into(),
        deal.old_price.map(|old| i64::from(old.until.0)).into(),
        deal.old_price.map(|old| old.per_epoch.to_i64()).into(),
        deal.changes.into(),
        deal.start_epoch.0.into(),
        deal.end_epoch.0.into(),
        deal.settled_until.0.into(),
        deal.paid_until.0.into(),
        deal.locked.to_i64().into(),
        deal.bond.to_i64().into(),
        deal.unfunded_since.map(|since| i64::from(since.0)).into(),
        word("deals.state", &deal.state)?.into(),
        deal.cause.map(|cause| word("deals.cause", &cause)).transpose()?.into(),
        row.funded.to_i64().into(),
        row.paid.to_i64().into(),
        row.refunded.to_i64().into(),
        big("block number", row.opened_at.block)?.into(),
        big("log index", row.opened_at.log_index)?.into(),
    ])
}

async fn remove(db: &mut Tx, key: RowKey) -> Result<(), StoreError> {
    let table = table_of(&key);
    let mut statement = Statement::new("DELETE FROM ");
    statement.push(table.name).push(" WHERE ");
    let keys = table.columns.iter().filter(|column| column.role == Role::Key);
    for (at, (column, value)) in keys.zip(key_values(&key)).enumerate() {
        statement.push(if at == 0 { "" } else { " AND " }).push(column.name).push(" = ").push_bind(value);
    }
    db.execute(statement).await
}
