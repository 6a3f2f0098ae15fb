//! The one way in which the database changes: a [`Step`] is taken back, applied and recorded in one transaction.

use std::collections::BTreeMap;

use common::event::{BlockRef, MarketBlock, PlacedEvent};
use sqlx::SqliteConnection;

use super::{
    Checkpoint, bound_terms, checkpoint,
    convert::{big, from_json, json},
    error::StoreError,
    records::{BlockRecord, EventRecord},
    rows::{self, Rows},
};
use crate::{
    input::Step,
    kind,
    projection::{
        ledger::{Ledger, UndoImages},
        rows::{Row, RowKey},
    },
};

/// Blocks whose events are projected at once when the projection is rebuilt.
const REBUILD_BLOCKS: i64 = 1_000;

/// Applies `step` and says where the projection is then. The caller commits.
pub(super) async fn apply(db: &mut SqliteConnection, step: &Step) -> Result<Checkpoint, StoreError> {
    let before = checkpoint(db).await?;
    if before.block != step.follows {
        return Err(StoreError::conflict(step.follows, before.block));
    }
    let mut committed = before.block;
    if let Some(lowest) = step.input.dropped().first() {
        if let Some(finalized) = before.finalized.filter(|finalized| lowest.number <= *finalized) {
            return Err(StoreError::BelowFinal { number: lowest.number, finalized });
        }
        take_back(db, lowest.number).await?;
        committed = newest_block(db).await?;
    }
    let added = step.input.added();
    committed = added.last().map(|last| last.block).or(committed);
    let finalized = match (step.finalized, committed) {
        // A final block that is not committed yet is none that the projection can rely on.
        (Some(finalized), Some(committed)) => before.finalized.max(Some(finalized.min(committed.number))),
        _ => before.finalized,
    };
    record(db, added).await?;
    project(db, added, finalized).await?;
    advance(db, committed, finalized).await?;
    Ok(Checkpoint { block: committed, finalized })
}

/// Replays all stored events into emptied tables. The caller commits.
pub(super) async fn rebuild(db: &mut SqliteConnection) -> Result<(), StoreError> {
    let finalized = checkpoint(db).await?.finalized;
    for table in [
        "DELETE FROM balances",
        "DELETE FROM nonce_floors",
        "DELETE FROM cancelled_offers",
        "DELETE FROM matching",
        "DELETE FROM provider_offers",
        "DELETE FROM developer_offers",
        "DELETE FROM deals",
        "DELETE FROM attestations",
        "DELETE FROM undo",
    ] {
        sqlx::query(table).execute(&mut *db).await?;
    }
    let mut after = -1_i64;
    loop {
        let blocks = blocks_with_events(db, after).await?;
        let Some(last) = blocks.last() else { return Ok(()) };
        after = big("block number", last.block.number)?;
        project(db, &blocks, finalized).await?;
    }
}

async fn blocks_with_events(db: &mut SqliteConnection, after: i64) -> Result<Vec<MarketBlock>, StoreError> {
    let sql = "SELECT * FROM blocks WHERE number > ? AND event_count > 0 ORDER BY number LIMIT ?";
    let records: Vec<BlockRecord> = sqlx::query_as(sql).bind(after).bind(REBUILD_BLOCKS).fetch_all(&mut *db).await?;
    let mut blocks = Vec::with_capacity(records.len());
    for record in records {
        let sql = "SELECT * FROM events WHERE block_number = ? ORDER BY log_index";
        let events: Vec<EventRecord> = sqlx::query_as(sql).bind(record.number).fetch_all(&mut *db).await?;
        let events = events.into_iter().map(EventRecord::into_domain).collect::<Result<_, _>>()?;
        blocks.push(MarketBlock { block: record.into_domain()?, events });
    }
    Ok(blocks)
}

/// Makes every row what it was before block `from`, and forgets that block and all later ones.
async fn take_back(db: &mut SqliteConnection, from: u64) -> Result<(), StoreError> {
    let from = big("block number", from)?;
    let sql = "SELECT row_key, row_before FROM undo WHERE block_number >= ? ORDER BY block_number DESC";
    let images: Vec<(String, Option<String>)> = sqlx::query_as(sql).bind(from).fetch_all(&mut *db).await?;
    // The lowest block comes last and decides.
    let images: BTreeMap<String, Option<String>> = images.into_iter().collect();
    for (key, before) in images {
        let key: RowKey = from_json("undo.row_key", &key)?;
        let before: Option<Row> = before.map(|row| from_json("undo.row_before", &row)).transpose()?;
        rows::save(db, key, before.as_ref()).await?;
    }
    for table in [
        "DELETE FROM undo WHERE block_number >= ?",
        "DELETE FROM events WHERE block_number >= ?",
        "DELETE FROM blocks WHERE number >= ?",
    ] {
        sqlx::query(table).bind(from).execute(&mut *db).await?;
    }
    Ok(())
}

async fn newest_block(db: &mut SqliteConnection) -> Result<Option<BlockRef>, StoreError> {
    let query = sqlx::query_as("SELECT * FROM blocks ORDER BY number DESC LIMIT 1");
    let record: Option<BlockRecord> = query.fetch_optional(db).await?;
    record.map(BlockRecord::into_domain).transpose()
}

/// Stores blocks and their events as they are.
async fn record(db: &mut SqliteConnection, blocks: &[MarketBlock]) -> Result<(), StoreError> {
    for MarketBlock { block, events } in blocks {
        let event_count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        sqlx::query("INSERT INTO blocks (number, hash, parent_hash, timestamp, event_count) VALUES (?, ?, ?, ?, ?)")
            .bind(big("block number", block.number)?)
            .bind(block.hash.to_string())
            .bind(block.parent_hash.to_string())
            .bind(big("block timestamp", block.timestamp)?)
            .bind(event_count)
            .execute(&mut *db)
            .await?;
        for event in events {
            record_event(db, event).await?;
        }
    }
    Ok(())
}

async fn record_event(db: &mut SqliteConnection, event: &PlacedEvent) -> Result<(), StoreError> {
    let sql = "INSERT INTO events (block_hash, log_index, block_number, tx_hash, kind, deal_id, payload)
         VALUES (?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(event.block_hash.to_string())
        .bind(big("log index", event.log_index)?)
        .bind(big("block number", event.block_number)?)
        .bind(event.tx_hash.to_string())
        .bind(kind::of(&event.event))
        .bind(kind::deal_of(&event.event).map(|id| id.to_string()))
        .bind(json("events.payload", &event.event)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn project(db: &mut SqliteConnection, blocks: &[MarketBlock], finalized: Option<u64>) -> Result<(), StoreError> {
    let bond_epochs = bound_terms(db).await?.bond_epochs;
    let mut rows = Rows(&mut *db);
    let mut ledger = Ledger::new(&mut rows, bond_epochs);
    let mut undo: Vec<(u64, UndoImages)> = Vec::new();
    for MarketBlock { block, events } in blocks {
        for event in events {
            ledger.apply(event).await?;
        }
        let images = ledger.end_block();
        if finalized.is_none_or(|finalized| block.number > finalized) {
            undo.push((block.number, images));
        }
    }
    let changes: Vec<_> = ledger.into_changes().collect();
    for (key, row) in changes {
        rows::save(db, key, row.as_ref()).await?;
    }
    for (number, images) in undo {
        let number = big("block number", number)?;
        for (key, before) in images {
            sqlx::query("INSERT INTO undo (block_number, row_key, row_before) VALUES (?, ?, ?)")
                .bind(number)
                .bind(json("undo.row_key", &key)?)
                .bind(before.map(|row| json("undo.row_before", &row)).transpose()?)
                .execute(&mut *db)
                .await?;
        }
    }
    Ok(())
}

/// Records where the projection is, and forgets what can no longer be needed.
async fn advance(
    db: &mut SqliteConnection,
    committed: Option<BlockRef>,
    finalized: Option<u64>,
) -> Result<(), StoreError> {
    let number = committed.map(|block| big("block number", block.number)).transpose()?;
    let finalized = finalized.map(|number| big("block number", number)).transpose()?;
    sqlx::query("UPDATE checkpoint SET block_number = ?, finalized_number = ? WHERE id = 1")
        .bind(number)
        .bind(finalized)
        .execute(&mut *db)
        .await?;
    if let Some(finalized) = finalized {
        sqlx::query("DELETE FROM undo WHERE block_number <= ?").bind(finalized).execute(&mut *db).await?;
        // The last final block stays: it is what a chain is recognized by.
        let newest_final = "SELECT max(number) FROM blocks WHERE number <= ?";
        let newest_final: Option<i64> = sqlx::query_scalar(newest_final).bind(finalized).fetch_one(&mut *db).await?;
        sqlx::query("DELETE FROM blocks WHERE event_count = 0 AND number < ?")
            .bind(newest_final)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
