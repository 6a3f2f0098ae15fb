//! Transactions, written down before they are sent.

use std::collections::BTreeSet;

use chain::PreparedTx;
use common::{
    event::Reason,
    ids::{DealId, OfferHash, TxHash},
};
use matching::snapshot::PendingFill;
use serde::Serialize;
use sqlx::{FromRow, SqliteConnection};

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
    /// What it does.
    pub kind: TxKind,
    /// What is sent.
    pub prepared: PreparedTx,
    /// How far it is.
    pub status: TxStatus,
    /// Block that was indexed last when it was written down.
    pub recorded_block: u64,
    /// Block that it is in.
    pub mined_block: Option<u64>,
}

/// What became of one proposed fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOutcome {
    /// A deal was opened.
    Opened,
    /// The contract passed it over.
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
    kind: String,
    prepared: String,
    status: String,
    recorded_block: i64,
    mined_block: Option<i64>,
}

impl Store {
    /// Writes a transaction down, before it is sent.
    pub async fn record(&self, tx: &PreparedTx, proposed: &Proposed, block: u64) -> Result<(), StoreError> {
        let mut db = self.write().await?;
        sqlx::query(
            "INSERT INTO transactions (tx_hash, kind, prepared, status, recorded_block) VALUES (?, ?, ?, 'recorded', ?)",
        )
        .bind(tx.hash.to_string())
        .bind(proposed.kind().as_str())
        .bind(to_json("transactions.prepared", tx)?)
        .bind(signed("transactions.recorded_block", block)?)
        .execute(&mut *db)
        .await?;
        match proposed {
            Proposed::Fills(fills) => insert_fills(&mut db, tx.hash, fills).await?,
            Proposed::EndOf(_, deal) => {
                sqlx::query("INSERT INTO transaction_deals (tx_hash, deal_id) VALUES (?, ?)")
                    .bind(tx.hash.to_string())
                    .bind(deal.to_string())
                    .execute(&mut *db)
                    .await?;
            }
        }
        Ok(db.commit().await?)
    }

    /// Notes that a node has it, or has to be given it again.
    pub async fn set_status(&self, tx: TxHash, status: TxStatus) -> Result<(), StoreError> {
        sqlx::query("UPDATE transactions SET status = ?, mined_block = NULL WHERE tx_hash = ?")
            .bind(status.as_str())
            .bind(tx.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes what became of a transaction. A demand of which nothing was opened is held, twice as long every time.
    pub async fn finish(&self, tx: TxHash, outcome: &Outcome) -> Result<(), StoreError> {
        let (status, block) = match outcome {
            Outcome::Mined { block, .. } => (TxStatus::Mined, Some(*block)),
            Outcome::Failed { block } => (TxStatus::Failed, Some(*block)),
            Outcome::Abandoned => (TxStatus::Abandoned, None),
        };
        let mut db = self.write().await?;
        sqlx::query("UPDATE transactions SET status = ?, mined_block = ? WHERE tx_hash = ?")
            .bind(status.as_str())
            .bind(block.map(|block| signed("transactions.mined_block", block)).transpose()?)
            .bind(tx.to_string())
            .execute(&mut *db)
            .await?;
        let mut opened = BTreeSet::new();
        if let Outcome::Mined { fills, .. } = outcome {
            for (fill, outcome) in fills {
                note_fill(&mut db, tx, *fill, *outcome).await?;
                opened.extend((*outcome == FillOutcome::Opened).then_some(fill.developer_offer));
            }
        }
        if let Some(block) = block {
            let proposed = fills_of(&mut db, tx).await?;
            let demands: BTreeSet<_> = proposed.iter().map(|fill| fill.developer_offer).collect();
            for demand in demands {
                note_hold(&mut db, demand, opened.contains(&demand), block).await?;
            }
        }
        Ok(db.commit().await?)
    }

    /// Transactions that may still change: not mined, or mined after `since`.
    pub async fn unsettled(&self, since: u64) -> Result<Vec<TxRecord>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT kind, prepared, status, recorded_block, mined_block FROM transactions
             WHERE status IN ('recorded', 'sent') OR (status IN ('mined', 'failed') AND mined_block > ?)
             ORDER BY recorded_block, rowid",
        )
        .bind(signed("transactions.mined_block", since)?)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Fills of transactions that are not mined, or in a block above `indexed`.
    pub async fn pending_fills(&self, indexed: u64) -> Result<Vec<PendingFill>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT f.developer_offer, f.provider_offer FROM transaction_fills f
             JOIN transactions t ON t.tx_hash = f.tx_hash
             WHERE t.status IN ('recorded', 'sent') OR (t.status = 'mined' AND t.mined_block > ?)
             ORDER BY t.recorded_block, t.rowid, f.position",
        )
        .bind(signed("transactions.mined_block", indexed)?)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(pending_fill).collect()
    }

    /// Deals whose end is under way: not mined, or in a block above `indexed`.
    pub async fn pending_ends(&self, indexed: u64) -> Result<BTreeSet<DealId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT d.deal_id FROM transaction_deals d JOIN transactions t ON t.tx_hash = d.tx_hash
             WHERE t.status IN ('recorded', 'sent') OR (t.status = 'mined' AND t.mined_block > ?)",
        )
        .bind(signed("transactions.mined_block", indexed)?)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|(deal,)| id("transaction_deals.deal_id", deal)).collect()
    }

    /// Demands to be left alone at `block`.
    pub async fn held(&self, block: u64) -> Result<BTreeSet<OfferHash>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT developer_offer FROM holds WHERE until_block > ?")
            .bind(signed("holds.until_block", block)?)
            .fetch_all(&self.pool)
            .await?;
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
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT kind, prepared, status, recorded_block, mined_block FROM transactions
             WHERE tx_hash IN (SELECT tx_hash FROM transaction_fills WHERE developer_offer = ?)
             ORDER BY recorded_block DESC, rowid DESC LIMIT ?",
        )
        .bind(offer.to_string())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Forgets finished transactions that were written down before `block`, and holds that ended before it.
    pub async fn prune_transactions(&self, block: u64) -> Result<(), StoreError> {
        let block = signed("transactions.recorded_block", block)?;
        let mut db = self.write().await?;
        sqlx::query("DELETE FROM transactions WHERE status IN ('mined', 'failed', 'abandoned') AND recorded_block < ?")
            .bind(block)
            .execute(&mut *db)
            .await?;
        sqlx::query("DELETE FROM holds WHERE until_block < ?").bind(block).execute(&mut *db).await?;
        Ok(db.commit().await?)
    }
}

async fn insert_fills(db: &mut SqliteConnection, tx: TxHash, fills: &[PendingFill]) -> Result<(), StoreError> {
    for (position, fill) in (0_i64..).zip(fills) {
        sqlx::query(
            "INSERT INTO transaction_fills (tx_hash, position, developer_offer, provider_offer) VALUES (?, ?, ?, ?)",
        )
        .bind(tx.to_string())
        .bind(position)
        .bind(fill.developer_offer.to_string())
        .bind(fill.provider_offer.to_string())
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

async fn fills_of(db: &mut SqliteConnection, tx: TxHash) -> Result<Vec<PendingFill>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT developer_offer, provider_offer FROM transaction_fills WHERE tx_hash = ? ORDER BY position",
    )
    .bind(tx.to_string())
    .fetch_all(db)
    .await?;
    rows.iter().map(pending_fill).collect()
}

fn pending_fill((developer, provider): &(String, String)) -> Result<PendingFill, StoreError> {
    Ok(PendingFill {
        developer_offer: id("transaction_fills.developer_offer", developer)?,
        provider_offer: id("transaction_fills.provider_offer", provider)?,
    })
}

async fn note_fill(
    db: &mut SqliteConnection,
    tx: TxHash,
    fill: PendingFill,
    outcome: FillOutcome,
) -> Result<(), StoreError> {
    let outcome = match outcome {
        FillOutcome::Opened => "opened".to_owned(),
        FillOutcome::Refused(reason) => to_json("transaction_fills.outcome", &reason)?.trim_matches('"').to_owned(),
    };
    sqlx::query(
        "UPDATE transaction_fills SET outcome = ? WHERE tx_hash = ? AND developer_offer = ? AND provider_offer = ?",
    )
    .bind(outcome)
    .bind(tx.to_string())
    .bind(fill.developer_offer.to_string())
    .bind(fill.provider_offer.to_string())
    .execute(db)
    .await?;
    Ok(())
}

async fn note_hold(db: &mut SqliteConnection, demand: OfferHash, opened: bool, block: u64) -> Result<(), StoreError> {
    if opened {
        sqlx::query("DELETE FROM holds WHERE developer_offer = ?").bind(demand.to_string()).execute(db).await?;
        return Ok(());
    }
    let failures: Option<(i64,)> = sqlx::query_as("SELECT failures FROM holds WHERE developer_offer = ?")
        .bind(demand.to_string())
        .fetch_optional(&mut *db)
        .await?;
    let failures = unsigned("holds.failures", failures.map_or(0, |(failures,)| failures))?.saturating_add(1);
    let doubled = u32::try_from(failures).ok().and_then(|failures| 1_u64.checked_shl(failures));
    let until = block.saturating_add(doubled.unwrap_or(MAX_HOLD_BLOCKS).min(MAX_HOLD_BLOCKS));
    sqlx::query(
        "INSERT INTO holds (developer_offer, failures, until_block) VALUES (?1, ?2, ?3)
         ON CONFLICT (developer_offer) DO UPDATE SET failures = ?2, until_block = ?3",
    )
    .bind(demand.to_string())
    .bind(signed("holds.failures", failures)?)
    .bind(signed("holds.until_block", until)?)
    .execute(db)
    .await?;
    Ok(())
}

impl TryFrom<Row> for TxRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            kind: TxKind::read(&row.kind)?,
            prepared: from_json("transactions.prepared", &row.prepared)?,
            status: TxStatus::read(&row.status)?,
            recorded_block: unsigned("transactions.recorded_block", row.recorded_block)?,
            mined_block: row.mined_block.map(|block| unsigned("transactions.mined_block", block)).transpose()?,
        })
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
