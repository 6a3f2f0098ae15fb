//! The one way in which the database changes: a [`Step`] is taken back, applied and recorded in one transaction.

use std::collections::BTreeMap;

use common::event::{BlockRef, MarketBlock};

use super::{
    Checkpoint, checkpoint,
    convert::{big, from_json, unsigned},
    db::{Statement, Tx},
    error::StoreError,
    pipeline::{Added, Known},
    records::{BlockRecord, EventRecord},
    rows,
};
use crate::{
    input::Step,
    projection::rows::{Row, RowKey},
};

/// Events that are projected at once when the projection is rebuilt, and read at once by those who follow.
pub(super) const REBUILD_EVENTS: i64 = 20_000;

/// Applies `step` and says where the projection is then, and what is known there. `known` is true where the step begins.
/// The caller commits.
pub(super) async fn apply(db: &mut Tx, step: &Step, known: Known) -> Result<(Checkpoint, Known), StoreError> {
    let before = checkpoint(db).await?;
    if before.block != step.follows {
        return Err(StoreError::conflict(step.follows, before.block));
    }
    let (mut committed, mut known) = (before.block, known);
    if let Some(lowest) = step.input.dropped().first() {
        if let Some(finalized) = before.finalized.filter(|finalized| lowest.number <= *finalized) {
            return Err(StoreError::BelowFinal { number: lowest.number, finalized });
        }
        take_back(db, lowest.number).await?;
        known.rows.clear();
        committed = newest_block(db).await?;
    }
    let added = step.input.added();
    committed = added.last().map(|last| last.block).or(committed);
    let finalized = match (step.finalized, committed) {
        // A final block that is not committed yet is none that the projection can rely on.
        (Some(finalized), Some(committed)) => before.finalized.max(Some(finalized.min(committed.number))),
        _ => before.finalized,
    };
    let known = Added { blocks: added, finalized, are_new: true }.write(db, known).await?;
    advance(db, committed, finalized).await?;
    Ok((Checkpoint { block: committed, finalized }, known))
}

/// Replays all stored events into emptied tables. The caller commits.
pub(super) async fn rebuild(db: &mut Tx, mut progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
    let finalized = checkpoint(db).await?.finalized;
    empty(db, &PROJECTED).await?;
    let (all,): (i64,) = db.fetch_one(Statement::new("SELECT count(*) FROM events")).await?;
    let (all, mut done) = (unsigned("count of events", all)?, 0_u64);
    let (mut after, mut known) = (-1_i64, Known::default());
    loop {
        progress(done, all);
        let blocks = blocks_with_events(db, after).await?;
        let Some(last) = blocks.last() else { return Ok(()) };
        after = big("block number", last.block.number)?;
        known = Added { blocks: &blocks, finalized, are_new: false }.write(db, known).await?;
        done = blocks.iter().fold(done, |done, block| done.saturating_add(block.events.len() as u64));
    }
}

/// Empties all tables. The caller commits.
pub(super) async fn forget(db: &mut Tx) -> Result<(), StoreError> {
    empty(db, &PROJECTED).await?;
    empty(db, &["DELETE FROM events", "DELETE FROM blocks", "DELETE FROM market"]).await?;
    db.execute(Statement::new("UPDATE checkpoint SET block_number = NULL, finalized_number = NULL")).await
}

/// What follows from events.
const PROJECTED: [&str; 12] = [
    "DELETE FROM balances",
    "DELETE FROM nonce_floors",
    "DELETE FROM cancelled_offers",
    "DELETE FROM matching",
    "DELETE FROM provider_offers",
    "DELETE FROM developer_offers",
    "DELETE FROM deals",
    "DELETE FROM attestations",
    "DELETE FROM payments",
    "DELETE FROM mentions",
    "DELETE FROM accounts",
    "DELETE FROM undo",
];

async fn empty(db: &mut Tx, statements: &[&'static str]) -> Result<(), StoreError> {
    for statement in statements {
        db.execute(Statement::new(statement)).await?;
    }
    Ok(())
}

/// The next blocks that have events, with about [`REBUILD_EVENTS`] of these.
pub(super) async fn blocks_with_events(db: &mut Tx, after: i64) -> Result<Vec<MarketBlock>, StoreError> {
    let query = "SELECT * FROM blocks WHERE number > $1 AND event_count > 0 ORDER BY number LIMIT $2";
    let mut records: Vec<BlockRecord> = db.fetch_all(Statement::new(query).bind(after).bind(REBUILD_EVENTS)).await?;
    let mut events = 0_i64;
    records.retain(|record| {
        let wanted = events < REBUILD_EVENTS;
        events = events.saturating_add(record.event_count);
        wanted
    });
    let Some(last) = records.last().map(|record| record.number) else { return Ok(Vec::new()) };
    let query = "SELECT e.*, b.hash AS block_hash FROM events e JOIN blocks b ON b.number = e.block_number
         WHERE e.block_number > $1 AND e.block_number <= $2 ORDER BY e.block_number, e.log_index";
    let events: Vec<EventRecord> = db.fetch_all(Statement::new(query).bind(after).bind(last)).await?;
    let mut events = events.into_iter().peekable();
    let mut blocks = Vec::with_capacity(records.len());
    for record in records {
        let mut of_block = Vec::new();
        while let Some(event) = events.next_if(|event| event.block_number == record.number) {
            of_block.push(event.into_domain()?);
        }
        blocks.push(MarketBlock { block: record.into_domain()?, events: of_block });
    }
    Ok(blocks)
}

/// Makes every row what it was before block `from`, and forgets that block and all later ones.
async fn take_back(db: &mut Tx, from: u64) -> Result<(), StoreError> {
    let from = big("block number", from)?;
    let query = "SELECT row_key, row_before FROM undo WHERE block_number >= $1 ORDER BY block_number DESC";
    let images: Vec<(String, Option<String>)> = db.fetch_all(Statement::new(query).bind(from)).await?;
    // The lowest block comes last and decides.
    let images: BTreeMap<String, Option<String>> = images.into_iter().collect();
    let mut rows = Vec::with_capacity(images.len());
    for (key, before) in images {
        let key: RowKey = from_json("undo.row_key", &key)?;
        let before: Option<Row> = before.map(|row| from_json("undo.row_before", &row)).transpose()?;
        rows.push((key, before));
    }
    rows::save(db, &rows).await?;
    for table in [
        "DELETE FROM undo WHERE block_number >= $1",
        "DELETE FROM payments WHERE block_number >= $1",
        "DELETE FROM mentions WHERE block_number >= $1",
        "DELETE FROM events WHERE block_number >= $1",
        "DELETE FROM blocks WHERE number >= $1",
    ] {
        db.execute(Statement::new(table).bind(from)).await?;
    }
    Ok(())
}

async fn newest_block(db: &mut Tx) -> Result<Option<BlockRef>, StoreError> {
    let query = Statement::new("SELECT * FROM blocks ORDER BY number DESC LIMIT 1");
    let record: Option<BlockRecord> = db.fetch_optional(query).await?;
    record.map(BlockRecord::into_domain).transpose()
}

/// Records where the projection is, and forgets what can no longer be needed.
async fn advance(db: &mut Tx, committed: Option<BlockRef>, finalized: Option<u64>) -> Result<(), StoreError> {
    let number = committed.map(|block| big("block number", block.number)).transpose()?;
    let finalized = finalized.map(|number| big("block number", number)).transpose()?;
    let update = "UPDATE checkpoint SET block_number = $1, finalized_number = $2 WHERE id = 1";
    db.execute(Statement::new(update).bind(number).bind(finalized)).await?;
    if finalized.is_some() {
        db.execute(Statement::new("DELETE FROM undo WHERE block_number <= $1").bind(finalized)).await?;
        // The last final block stays: it is what a chain is recognized by.
        let empty = "DELETE FROM blocks WHERE event_count = 0
             AND number < (SELECT max(number) FROM blocks WHERE number <= $1)";
        db.execute(Statement::new(empty).bind(finalized)).await?;
    }
    Ok(())
}
