//! A step is worked out while it is written. One side encodes rows and projects events, and hands them over in portions;
//! the other holds the transaction: while the database is busy with one portion, the next is made.

use std::collections::HashMap;

use common::event::{MarketBlock, PlacedEvent};
use tokio::sync::{mpsc, oneshot};

use super::{
    accounts::Accounts,
    bound_terms,
    bulk::{Table, table},
    convert::{big, json, key},
    db::{Tx, Value},
    error::StoreError,
    mentions, payments,
    rows::{self, Rows},
};
use crate::{
    kind,
    projection::{
        ledger::{Ledger, RowSource, WorkingRows},
        mentions::Mention,
        payments::Payment,
        rows::{Row, RowKey},
    },
};

/// Events of a portion: enough for a bulk write, few enough for the first one to be ready soon.
const PORTION_EVENTS: usize = 4_096;
/// Rows of the projection in a portion.
const PORTION_ROWS: usize = 512;
/// Portions that are made ahead of what is written.
const PORTIONS_AHEAD: usize = 2;
/// Events after which the writing side gets a turn, some tenth of a millisecond.
const EVENTS_A_TURN: usize = 32;
/// Rows, and accounts, that are handed on to the next step at most, some megabytes.
const MOST_ROWS: usize = 16_384;

table!(
    BLOCKS, "blocks",
    number Big Fixed, hash Text Fixed, parent_hash Text Fixed, timestamp Big Fixed, event_count Big Fixed,
);
table!(
    EVENTS, "events",
    block_number Big Fixed, log_index Big Fixed, tx_hash Text Fixed, kind Big Fixed, deal_key Big Fixed,
    deal_id Text Fixed, payload Text Fixed,
);
table!(UNDO, "undo", block_number Big Fixed, row_key Text Fixed, row_before Text Fixed);

/// What one step learns and the next one need not ask the database for.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) rows: WorkingRows,
    accounts: Accounts,
}

/// Blocks to be projected.
pub(super) struct Added<'a> {
    pub(super) blocks: &'a [MarketBlock],
    /// Blocks up to this height need no undo information.
    pub(super) finalized: Option<u64>,
    /// Whether they and their events are new to the database as well.
    pub(super) are_new: bool,
}

impl Added<'_> {
    /// Writes what follows from the blocks. `known` is what the blocks before have left; returned is what is known then.
    pub(super) async fn write(&self, db: &mut Tx, known: Known) -> Result<Known, StoreError> {
        let bond_epochs = bound_terms(db).await?.bond_epochs;
        let (sender, receiver) = mpsc::channel(PORTIONS_AHEAD);
        let Known { rows, accounts } = known;
        let (mut rows, mut accounts) =
            tokio::try_join!(self.make(Outlet(sender), bond_epochs, rows), carry_out(db, receiver, accounts))?;
        if rows.len() > MOST_ROWS {
            rows = WorkingRows::new();
        }
        if accounts.len() > MOST_ROWS {
            accounts = Accounts::default();
        }
        Ok(Known { rows, accounts })
    }

    async fn make(&self, outlet: Outlet, bond_epochs: u32, known: WorkingRows) -> Result<WorkingRows, StoreError> {
        let mut source = outlet.clone();
        let mut ledger = Ledger::new(&mut source, bond_epochs, known);
        let mut left = self.blocks;
        while !left.is_empty() {
            let (portion, later) = portion(left);
            if self.are_new {
                outlet.record(portion).await?;
            }
            if left.len() == self.blocks.len() {
                // While the first portion is written.
                ledger.read_ahead(self.blocks).await?;
            }
            self.project(portion, &mut ledger, &outlet).await?;
            left = later;
        }
        let (changed, known) = ledger.into_rows();
        let changed: Vec<(RowKey, &Row)> =
            changed.into_iter().filter_map(|key| Some((key, known.get(&key)?.as_ref()?))).collect();
        for rows in changed.chunks(PORTION_ROWS) {
            for (table, values) in rows::encoded(rows)? {
                outlet.put(table, values).await?;
            }
        }
        Ok(known)
    }

    async fn project(
        &self,
        blocks: &[MarketBlock],
        ledger: &mut Ledger<'_, Outlet>,
        outlet: &Outlet,
    ) -> Result<(), StoreError> {
        let mut undo: Vec<Value> = Vec::new();
        for MarketBlock { block, events } in blocks {
            let is_final = self.finalized.is_some_and(|finalized| block.number <= finalized);
            ledger.begin_block(!is_final);
            for events in events.chunks(EVENTS_A_TURN) {
                for event in events {
                    ledger.apply(event).await?;
                }
                tokio::task::yield_now().await;
            }
            let number = big("block number", block.number)?;
            for (key, before) in ledger.end_block() {
                let before = before.map(|row| json("undo.row_before", &row)).transpose()?;
                undo.extend([number.into(), json("undo.row_key", &key)?.into(), before.into()]);
            }
        }
        outlet.send(Work::Name(ledger.take_payments(), ledger.take_mentions())).await?;
        outlet.put(UNDO, undo).await
    }
}

/// The first blocks, with about [`PORTION_EVENTS`], and the others.
fn portion(blocks: &[MarketBlock]) -> (&[MarketBlock], &[MarketBlock]) {
    let mut events = 0_usize;
    let is_wanted = |block: &&MarketBlock| {
        let is_wanted = events < PORTION_EVENTS;
        events = events.saturating_add(block.events.len());
        is_wanted
    };
    let count = blocks.iter().take_while(is_wanted).count();
    blocks.split_at_checked(count).unwrap_or((blocks, &[]))
}

/// What the side that makes portions wants of the one that has the database.
enum Work {
    Put(&'static Table, Vec<Value>),
    /// These name accounts by numbers, which the database has.
    Name(Vec<Payment>, Vec<Mention>),
    Load(Vec<RowKey>, oneshot::Sender<HashMap<RowKey, Row>>),
}

async fn carry_out(
    db: &mut Tx,
    mut portions: mpsc::Receiver<Work>,
    mut accounts: Accounts,
) -> Result<Accounts, StoreError> {
    while let Some(work) = portions.recv().await {
        match work {
            Work::Put(table, values) => db.put(table, values).await?,
            Work::Name(payments, mentions) => {
                let named = payments.iter().flat_map(|payment| [payment.from, payment.to]);
                accounts.learn(db, named.chain(mentions.iter().map(|mention| mention.account))).await?;
                db.put(payments::TABLE, payments::encoded(&payments, &accounts)?).await?;
                db.put(mentions::TABLE, mentions::encoded(&mentions, &accounts)?).await?;
            }
            Work::Load(keys, answer) => {
                let found = Rows(&mut *db).load(keys).await?;
                // Nobody waits any more when making the portions has failed, which is told where it did.
                let _ = answer.send(found);
            }
        }
    }
    Ok(accounts)
}

#[derive(Clone)]
struct Outlet(mpsc::Sender<Work>);

impl Outlet {
    async fn put(&self, table: &'static Table, values: Vec<Value>) -> Result<(), StoreError> {
        if values.is_empty() { Ok(()) } else { self.send(Work::Put(table, values)).await }
    }

    /// The other side ends first only by an error of its own, which is then the one that is told.
    async fn send(&self, work: Work) -> Result<(), StoreError> {
        self.0.send(work).await.map_err(|_| sqlx::Error::WorkerCrashed.into())
    }

    /// Stores blocks and their events as they are.
    async fn record(&self, added: &[MarketBlock]) -> Result<(), StoreError> {
        let mut blocks: Vec<Value> = Vec::new();
        let mut events: Vec<Value> = Vec::new();
        for MarketBlock { block, events: of_block } in added {
            blocks.extend([
                big("block number", block.number)?.into(),
                block.hash.to_string().into(),
                block.parent_hash.to_string().into(),
                big("block timestamp", block.timestamp)?.into(),
                i64::try_from(of_block.len()).unwrap_or(i64::MAX).into(),
            ]);
            for of_turn in of_block.chunks(EVENTS_A_TURN) {
                for event in of_turn {
                    events.extend(event_values(event)?);
                }
                tokio::task::yield_now().await;
            }
        }
        self.put(BLOCKS, blocks).await?;
        self.put(EVENTS, events).await
    }
}

/// Rows that no block of the step has changed yet are in the database as they were before it.
impl RowSource for Outlet {
    type Error = StoreError;

    async fn load(&mut self, keys: Vec<RowKey>) -> Result<HashMap<RowKey, Row>, StoreError> {
        let (sender, answer) = oneshot::channel();
        self.send(Work::Load(keys, sender)).await?;
        answer.await.map_err(|_| sqlx::Error::WorkerCrashed.into())
    }
}

fn event_values(event: &PlacedEvent) -> Result<[Value; 7], StoreError> {
    let deal = event.event.deal_id();
    Ok([
        big("block number", event.block_number)?.into(),
        big("log index", event.log_index)?.into(),
        event.tx_hash.to_string().into(),
        kind::number(kind::of(&event.event)).into(),
        deal.map(|id| key(id.as_bytes())).into(),
        deal.map(|id| id.to_string()).into(),
        json("events.payload", &event.event)?.into(),
    ])
}
