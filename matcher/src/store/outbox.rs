//! Transactions, written down before they are sent. One may have several attempts: the same nonce at higher and higher
//! fees, each with a hash of its own, of which one at most is ever mined. The transaction goes by the hash of the first.

use std::collections::{BTreeMap, BTreeSet};

use chain::PreparedTx;
use common::{
    event::Reason,
    ids::{DealId, OfferHash, TxHash},
};
use indexer::store::db::{Statement, Tx};
use matching::snapshot::PendingFill;
use serde::Serialize;
use sqlx::FromRow;

use super::{
    Store, StoreError,
    convert::{corrupt, from_json, id, signed, to_json, unsigned},
};

/// Longest time that a refused demand is left alone, in blocks.
const MAX_HOLD_BLOCKS: u64 = 256;

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TxKind {
    /// Opens deals.
    Match,
    /// Ends a deal whose provider is gone.
    Evict,
    /// Ends a deal that is over.
    Close,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TxStatus {
    /// Written down; whether it was sent is not known.
    Recorded,
    /// A node has it.
    Sent,
    /// In a block, and it did what it should.
    Mined,
    /// In a block, and reverted.
    Failed,
    /// Never to be mined: its nonce is another transaction's.
    Abandoned,
}

/// What a transaction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// These fills.
    Fills(Vec<PendingFill>),
    /// The end of this deal.
    EndOf(TxKind, DealId),
}

impl Proposed {
    /// What the transaction does.
    pub const fn kind(&self) -> TxKind {
        match self {
            Self::Fills(_) => TxKind::Match,
            Self::EndOf(kind, _) => *kind,
        }
    }
}

/// A transaction of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxRecord {
    /// Hash of its first attempt, by which it is known.
    pub id: TxHash,
    /// What it does.
    pub kind: TxKind,
    /// The attempt that is in a block, or else the latest.
    pub prepared: PreparedTx,
    /// All other attempts.
    pub replaced: Vec<PreparedTx>,
    /// How far it is.
    pub status: TxStatus,
    /// Block that was indexed last when it was written down.
    pub recorded_block: u64,
    /// Block that was indexed last when its latest attempt was written down.
    pub priced_block: u64,
    /// Block that it is in.
    pub mined_block: Option<u64>,
}

/// What became of one proposed fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOutcome {
    /// A deal was opened.
    Opened,
    /// The contract passed it over because of what others did meanwhile.
    Raced(Reason),
    /// The contract passed it over although nothing had happened.
    Refused(Reason),
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a block.
    Mined {
        /// The block.
        block: u64,
        /// What became of its fills.
        fills: Vec<(PendingFill, FillOutcome)>,
    },
    /// It is in a block, reverted.
    Failed {
        /// The block.
        block: u64,
    },
    /// Its nonce is another transaction's.
    Abandoned,
}

#[derive(FromRow)]
struct Row {
    tx_hash: String,
    kind: String,
    status: String,
    recorded_block: i64,
    priced_block: i64,
    mined_block: Option<i64>,
    mined_hash: Option<String>,
    prepared: String,
}

/// Each transaction once for each of its attempts, in order.
const TRANSACTIONS: &str = "SELECT t.tx_hash, t.kind, t.status, t.recorded_block, t.priced_block, t.mined_block,
     t.mined_hash, a.prepared FROM transactions t JOIN transaction_attempts a ON a.tx_hash = t.tx_hash ";

impl Store {
    /// Writes a transaction down, before it is sent.
    pub async fn record(&self, tx: &PreparedTx, proposed: &Proposed, block: u64) -> Result<(), StoreError> {
        let mut db = self.write().await?;
        // The same call with the same nonce at the same fees is the very same transaction: one that was given up comes
        // back.
        let same = Statement::new(
            "DELETE FROM transactions WHERE status = 'abandoned'
             AND tx_hash IN (SELECT tx_hash FROM transaction_attempts WHERE attempt_hash = $1)",
        );
        db.execute(same.bind(tx.hash.to_string())).await?;
        let transaction = Statement::new(
            "INSERT INTO transactions (tx_hash, kind, status, recorded_block, priced_block, sequence)
             VALUES ($1, $2, 'recorded', $3, $4, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM transactions))",
        );
        let block = signed("transactions.recorded_block", block)?;
        let kind = proposed.kind().as_str().to_owned();
        db.execute(transaction.bind(tx.hash.to_string()).bind(kind).bind(block).bind(block)).await?;
        insert_attempt(&mut db, tx.hash, tx).await?;
        match proposed {
            Proposed::Fills(fills) => insert_fills(&mut db, tx.hash, fills).await?,
            Proposed::EndOf(_, deal) => {
                let ends = Statement::new("INSERT INTO transaction_deals (tx_hash, deal_id) VALUES ($1, $2)");
                db.execute(ends.bind(tx.hash.to_string()).bind(deal.to_string())).await?;
            }
        }
        Ok(db.commit().await?)
    }

    /// Writes another attempt of a transaction down, before it is sent.
    pub async fn record_attempt(&self, id: TxHash, attempt: &PreparedTx, block: u64) -> Result<(), StoreError> {
        let mut db = self.write().await?;
        insert_attempt(&mut db, id, attempt).await?;
        let priced =
            Statement::new("UPDATE transactions SET status = 'recorded', priced_block = $1 WHERE tx_hash = $2");
        db.execute(priced.bind(signed("transactions.priced_block", block)?).bind(id.to_string())).await?;
        Ok(db.commit().await?)
    }

    /// Notes that a node has it, or has to be given it again.
    pub async fn set_status(&self, id: TxHash, status: TxStatus) -> Result<(), StoreError> {
        let set = "UPDATE transactions SET status = $1, mined_block = NULL, mined_hash = NULL WHERE tx_hash = $2";
        self.change(Statement::new(set).bind(status.as_str().to_owned()).bind(id.to_string())).await
    }

    /// Notes what became of a transaction, and by which of its attempts. A demand of which nothing was opened, but for
    /// lost races, is held, twice as long every time.
    pub async fn finish(&self, id: TxHash, mined: Option<TxHash>, outcome: &Outcome) -> Result<(), StoreError> {
        let (status, block) = match outcome {
            Outcome::Mined { block, .. } => (TxStatus::Mined, Some(*block)),
            Outcome::Failed { block } => (TxStatus::Failed, Some(*block)),
            Outcome::Abandoned => (TxStatus::Abandoned, None),
        };
        let mut db = self.write().await?;
        let end = "UPDATE transactions SET status = $1, mined_block = $2, mined_hash = $3 WHERE tx_hash = $4";
        let end = Statement::new(end)
            .bind(status.as_str().to_owned())
            .bind(block.map(|block| signed("transactions.mined_block", block)).transpose()?)
            .bind(mined.map(|hash| hash.to_string()))
            .bind(id.to_string());
        db.execute(end).await?;
        // Demands that had a host, or would have had one but for others.
        let mut served = BTreeSet::new();
        if let Outcome::Mined { fills, .. } = outcome {
            for (fill, outcome) in fills {
                note_fill(&mut db, id, *fill, *outcome).await?;
                let is_served = !matches!(outcome, FillOutcome::Refused(_));
                served.extend(is_served.then_some(fill.developer_offer));
            }
        }
        if let Some(block) = block {
            let proposed = fills_of(&mut db, id).await?;
            let demands: BTreeSet<_> = proposed.iter().map(|fill| fill.developer_offer).collect();
            for demand in demands {
                note_hold(&mut db, demand, served.contains(&demand), block).await?;
            }
        }
        Ok(db.commit().await?)
    }

    /// Transactions that may still change, in the order of their nonces: not mined, or mined after `since`.
    pub async fn unsettled(&self, since: u64) -> Result<Vec<TxRecord>, StoreError> {
        let mut unsettled = Statement::new(TRANSACTIONS);
        unsettled.push(
            "WHERE t.status IN ('recorded', 'sent') OR (t.status IN ('mined', 'failed') AND t.mined_block > $1)
             ORDER BY t.recorded_block, t.sequence, t.tx_hash, a.number",
        );
        let rows = self.rows(unsettled.bind(signed("transactions.mined_block", since)?)).await?;
        let mut records = records(rows)?;
        records.sort_by_key(|record| record.prepared.nonce);
        Ok(records)
    }

    /// Transactions that are not mined, in the order of their nonces.
    pub async fn open_transactions(&self) -> Result<Vec<TxRecord>, StoreError> {
        // The database holds no higher block.
        self.unsettled(i64::MAX.unsigned_abs()).await
    }

    /// Whether a hash is that of an attempt which plans have counted on: of a transaction that was not given up.
    pub async fn is_own(&self, hash: TxHash) -> Result<bool, StoreError> {
        let own = Statement::new(
            "SELECT a.number FROM transaction_attempts a JOIN transactions t ON t.tx_hash = a.tx_hash
             WHERE a.attempt_hash = $1 AND t.status <> 'abandoned'",
        );
        let found: Option<(i64,)> = self.row(own.bind(hash.to_string())).await?;
        Ok(found.is_some())
    }

    /// Fills of transactions that are not mined, or in a block above `indexed`.
    pub async fn pending_fills(&self, indexed: u64) -> Result<Vec<PendingFill>, StoreError> {
        let pending = Statement::new(
            "SELECT f.developer_offer, f.provider_offer FROM transaction_fills f
             JOIN transactions t ON t.tx_hash = f.tx_hash
             WHERE t.status IN ('recorded', 'sent') OR (t.status = 'mined' AND t.mined_block > $1)
             ORDER BY t.recorded_block, t.sequence, t.tx_hash, f.position",
        );
        let rows: Vec<(String, String)> = self.rows(pending.bind(signed("transactions.mined_block", indexed)?)).await?;
        rows.iter().map(pending_fill).collect()
    }

    /// Deals whose end is under way: not mined, or in a block above `indexed`.
    pub async fn pending_ends(&self, indexed: u64) -> Result<BTreeSet<DealId>, StoreError> {
        let pending = Statement::new(
            "SELECT d.deal_id FROM transaction_deals d JOIN transactions t ON t.tx_hash = d.tx_hash
             WHERE t.status IN ('recorded', 'sent') OR (t.status = 'mined' AND t.mined_block > $1)",
        );
        let rows: Vec<(String,)> = self.rows(pending.bind(signed("transactions.mined_block", indexed)?)).await?;
        rows.iter().map(|(deal,)| id("transaction_deals.deal_id", deal)).collect()
    }

    /// Demands to be left alone at `block`.
    pub async fn held(&self, block: u64) -> Result<BTreeSet<OfferHash>, StoreError> {
        let held = Statement::new("SELECT developer_offer FROM holds WHERE until_block > $1");
        let rows: Vec<(String,)> = self.rows(held.bind(signed("holds.until_block", block)?)).await?;
        rows.iter().map(|(hash,)| id("holds.developer_offer", hash)).collect()
    }

    /// Leaves a demand alone for a while, twice as long every time.
    pub async fn hold(&self, demand: OfferHash, block: u64) -> Result<(), StoreError> {
        let mut db = self.write().await?;
        note_hold(&mut db, demand, false, block).await?;
        Ok(db.commit().await?)
    }

    /// Match transactions that propose hosts for a developer offer, latest first, at most `limit`.
    pub async fn matches_of(&self, offer: OfferHash, limit: u32) -> Result<Vec<TxRecord>, StoreError> {
        let mut matches = Statement::new(TRANSACTIONS);
        matches.push(
            "WHERE t.tx_hash IN (
                 SELECT l.tx_hash FROM transactions l
                 WHERE l.tx_hash IN (SELECT tx_hash FROM transaction_fills WHERE developer_offer = $1)
                 ORDER BY l.recorded_block DESC, l.sequence DESC, l.tx_hash LIMIT $2)
             ORDER BY t.recorded_block DESC, t.sequence DESC, t.tx_hash, a.number",
        );
        records(self.rows(matches.bind(offer.to_string()).bind(limit)).await?)
    }

    /// Forgets finished transactions that were written down before `block`, and holds that ended before it.
    pub async fn prune_transactions(&self, block: u64) -> Result<(), StoreError> {
        let block = signed("transactions.recorded_block", block)?;
        let finished = Statement::new(
            "DELETE FROM transactions WHERE status IN ('mined', 'failed', 'abandoned') AND recorded_block < $1",
        );
        let mut db = self.write().await?;
        db.execute(finished.bind(block)).await?;
        db.execute(Statement::new("DELETE FROM holds WHERE until_block < $1").bind(block)).await?;
        Ok(db.commit().await?)
    }
}

async fn insert_attempt(db: &mut Tx, id: TxHash, attempt: &PreparedTx) -> Result<(), StoreError> {
    let insert = Statement::new(
        "INSERT INTO transaction_attempts (attempt_hash, tx_hash, number, prepared)
         VALUES ($1, $2, (SELECT COUNT(*) FROM transaction_attempts WHERE tx_hash = $3), $4)",
    );
    let (attempt_hash, prepared) = (attempt.hash.to_string(), to_json("transaction_attempts.prepared", attempt)?);
    let insert = insert.bind(attempt_hash).bind(id.to_string()).bind(id.to_string()).bind(prepared);
    Ok(db.execute(insert).await?)
}

async fn insert_fills(db: &mut Tx, tx: TxHash, fills: &[PendingFill]) -> Result<(), StoreError> {
    for (position, fill) in (0_i64..).zip(fills) {
        let insert = Statement::new(
            "INSERT INTO transaction_fills (tx_hash, position, developer_offer, provider_offer) VALUES ($1, $2, $3, $4)",
        );
        let insert = insert.bind(tx.to_string()).bind(position).bind(fill.developer_offer.to_string());
        db.execute(insert.bind(fill.provider_offer.to_string())).await?;
    }
    Ok(())
}

async fn fills_of(db: &mut Tx, tx: TxHash) -> Result<Vec<PendingFill>, StoreError> {
    let fills = Statement::new(
        "SELECT developer_offer, provider_offer FROM transaction_fills WHERE tx_hash = $1 ORDER BY position",
    );
    let rows: Vec<(String, String)> = db.fetch_all(fills.bind(tx.to_string())).await?;
    rows.iter().map(pending_fill).collect()
}

fn pending_fill((developer, provider): &(String, String)) -> Result<PendingFill, StoreError> {
    Ok(PendingFill {
        developer_offer: id("transaction_fills.developer_offer", developer)?,
        provider_offer: id("transaction_fills.provider_offer", provider)?,
    })
}

async fn note_fill(db: &mut Tx, tx: TxHash, fill: PendingFill, outcome: FillOutcome) -> Result<(), StoreError> {
    let outcome = match outcome {
        FillOutcome::Opened => "opened".to_owned(),
        FillOutcome::Raced(reason) | FillOutcome::Refused(reason) => {
            to_json("transaction_fills.outcome", &reason)?.trim_matches('"').to_owned()
        }
    };
    let note = Statement::new(
        "UPDATE transaction_fills SET outcome = $1 WHERE tx_hash = $2 AND developer_offer = $3 AND provider_offer = $4",
    );
    let note = note.bind(outcome).bind(tx.to_string()).bind(fill.developer_offer.to_string());
    Ok(db.execute(note.bind(fill.provider_offer.to_string())).await?)
}

async fn note_hold(db: &mut Tx, demand: OfferHash, is_served: bool, block: u64) -> Result<(), StoreError> {
    if is_served {
        let free = Statement::new("DELETE FROM holds WHERE developer_offer = $1").bind(demand.to_string());
        return Ok(db.execute(free).await?);
    }
    let before = Statement::new("SELECT failures FROM holds WHERE developer_offer = $1").bind(demand.to_string());
    let failures: Option<(i64,)> = db.fetch_optional(before).await?;
    let failures = unsigned("holds.failures", failures.map_or(0, |(failures,)| failures))?.saturating_add(1);
    let doubled = u32::try_from(failures).ok().and_then(|failures| 1_u64.checked_shl(failures));
    let until = block.saturating_add(doubled.unwrap_or(MAX_HOLD_BLOCKS).min(MAX_HOLD_BLOCKS));
    let hold = Statement::new(
        "INSERT INTO holds (developer_offer, failures, until_block) VALUES ($1, $2, $3)
         ON CONFLICT (developer_offer) DO UPDATE SET failures = $2, until_block = $3",
    );
    let hold = hold.bind(demand.to_string()).bind(signed("holds.failures", failures)?);
    Ok(db.execute(hold.bind(signed("holds.until_block", until)?)).await?)
}

/// Rows, one for each attempt, as transactions, in the order of their first rows.
fn records(rows: Vec<Row>) -> Result<Vec<TxRecord>, StoreError> {
    let mut records: Vec<TxRecord> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let attempt: PreparedTx = from_json("transaction_attempts.prepared", &row.prepared)?;
        match places.get(&row.tx_hash).and_then(|place| records.get_mut(*place)) {
            Some(record) => {
                let mined: Option<TxHash> =
                    row.mined_hash.as_deref().map(|hash| id("transactions.mined_hash", hash)).transpose()?;
                // Later ones stand in for earlier ones, but for one that is in a block.
                let other = if mined == Some(record.prepared.hash) {
                    attempt
                } else {
                    std::mem::replace(&mut record.prepared, attempt)
                };
                record.replaced.push(other);
            }
            None => {
                places.insert(row.tx_hash.clone(), records.len());
                records.push(row.with(attempt)?);
            }
        }
    }
    Ok(records)
}

impl Row {
    fn with(self, prepared: PreparedTx) -> Result<TxRecord, StoreError> {
        Ok(TxRecord {
            id: id("transactions.tx_hash", &self.tx_hash)?,
            kind: TxKind::read(&self.kind)?,
            prepared,
            replaced: Vec::new(),
            status: TxStatus::read(&self.status)?,
            recorded_block: unsigned("transactions.recorded_block", self.recorded_block)?,
            priced_block: unsigned("transactions.priced_block", self.priced_block)?,
            mined_block: self.mined_block.map(|block| unsigned("transactions.mined_block", block)).transpose()?,
        })
    }
}

impl TxRecord {
    /// One that was just written down.
    pub const fn new(kind: TxKind, prepared: PreparedTx, block: u64) -> Self {
        Self {
            id: prepared.hash,
            kind,
            prepared,
            replaced: Vec::new(),
            status: TxStatus::Recorded,
            recorded_block: block,
            priced_block: block,
            mined_block: None,
        }
    }

    /// All attempts, the likeliest to be mined first.
    pub fn attempts(&self) -> impl Iterator<Item = &PreparedTx> {
        std::iter::once(&self.prepared).chain(self.replaced.iter().rev())
    }
}

impl TxKind {
    /// The word that databases and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Evict => "evict",
            Self::Close => "close",
        }
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        let all = [Self::Match, Self::Evict, Self::Close];
        all.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| corrupt("transactions.kind", text))
    }
}

impl TxStatus {
    /// The word that databases and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Sent => "sent",
            Self::Mined => "mined",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        let all = [Self::Recorded, Self::Sent, Self::Mined, Self::Failed, Self::Abandoned];
        all.into_iter().find(|status| status.as_str() == text).ok_or_else(|| corrupt("transactions.status", text))
    }
}
