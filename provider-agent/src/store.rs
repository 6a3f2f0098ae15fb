//! The agent's database: SQLite in its data folder. Tables are documented in `migrations/agent`.

use std::{collections::BTreeSet, path::Path};

use chain::PreparedTx;
use common::{
    deal::Deal,
    epoch::Epoch,
    ids::{DealId, InvalidId},
    offer::DeveloperOffer,
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use thiserror::Error;

use crate::domain::receipts::Rolling;

/// Transactions that are remembered after they were mined.
const OUTBOX_KEPT: i64 = 10_000;

/// The database cannot be read or written, or holds what this agent has not written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// SQLite.
    #[error("the agent's database cannot be used")]
    Database(#[from] sqlx::Error),
    /// A newer agent's schema, or a damaged one.
    #[error("the agent's database cannot be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// JSON of another form.
    #[error("{what} in the agent's database cannot be read")]
    Content {
        /// Column.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A text that is no id.
    #[error("an id in the agent's database cannot be read")]
    Id(#[from] InvalidId),
    /// A number outside its range.
    #[error("{what} in the agent's database is out of range")]
    Range {
        /// Column.
        what: &'static str,
    },
}

/// A deal with what hosting it needs, as last read from the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) deal: Deal,
    pub(crate) offer: DeveloperOffer,
    /// Block at which the chain first knew the deal no more.
    pub(crate) missing_since: Option<u64>,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Attest(Epoch),
    Claim,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxEnd {
    Mined {
        gas: u64,
    },
    Reverted {
        gas: u64,
    },
    /// Another transaction took its nonce: it can never be mined.
    Dropped,
}

/// A transaction of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxTx {
    pub(crate) id: i64,
    pub(crate) purpose: Purpose,
    pub(crate) tx: PreparedTx,
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: SqlitePool,
}

fn content(what: &'static str) -> impl FnOnce(serde_json::Error) -> StoreError {
    move |source| StoreError::Content { what, source }
}

fn to_json(what: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(content(what))
}

fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(content(what))
}

fn epoch(number: i64) -> Result<Epoch, StoreError> {
    u32::try_from(number).map(Epoch).map_err(|_| StoreError::Range { what: "epoch" })
}

fn to_i64(what: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Range { what })
}

fn outbox_tx(row: &sqlx::sqlite::SqliteRow) -> Result<OutboxTx, StoreError> {
    let attested: Option<i64> = row.try_get("epoch")?;
    Ok(OutboxTx {
        id: row.try_get("id")?,
        purpose: attested.map(epoch).transpose()?.map_or(Purpose::Claim, Purpose::Attest),
        tx: from_json("outbox.prepared", row.try_get("prepared")?)?,
    })
}

impl Store {
    /// Opens or makes the database in `data_dir`.
    pub(crate) async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join("agent.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A transaction that was recorded must still be known after a power cut.
            .synchronous(SqliteSynchronous::Full);
        let pool = migrations::sqlite_pool(4).connect_with(options).await?;
        migrations::AGENT.run(&pool).await?;
        Ok(Self { pool })
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// A single fact, if it was ever set.
    pub(crate) async fn fact<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("SELECT value FROM facts WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        text.map(|text| from_json(name, &text)).transpose()
    }

    pub(crate) async fn set_fact(&self, name: &'static str, value: &impl Serialize) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        set_fact(&mut connection, name, value).await
    }

    /// All deals that ever named this agent.
    pub(crate) async fn assignments(&self) -> Result<Vec<Assignment>, StoreError> {
        let rows = sqlx::query("SELECT deal, offer, missing_since FROM replicas").fetch_all(&self.pool).await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let missing: Option<i64> = row.try_get("missing_since")?;
            Ok(Assignment {
                deal: from_json("replicas.deal", row.try_get("deal")?)?,
                offer: from_json("replicas.offer", row.try_get("offer")?)?,
                missing_since: missing.and_then(|block| u64::try_from(block).ok()),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Keeps what was read from the chain, its epoch and how far it was searched, together.
    pub(crate) async fn keep_reading(
        &self,
        changed: &[Assignment],
        epoch: Epoch,
        searched_to: u64,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for assignment in changed {
            let missing = assignment.missing_since.map(|block| to_i64("missing_since", block)).transpose()?;
            sqlx::query("INSERT OR REPLACE INTO replicas (deal_id, deal, offer, missing_since) VALUES (?, ?, ?, ?)")
                .bind(assignment.deal.id.to_string())
                .bind(to_json("deal", &assignment.deal)?)
                .bind(to_json("offer", &assignment.offer)?)
                .bind(missing)
                .execute(&mut *transaction)
                .await?;
        }
        set_fact(&mut transaction, EPOCH, &epoch).await?;
        set_fact(&mut transaction, SEARCHED_TO, &searched_to).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Block up to which the chain was searched for deals.
    pub(crate) async fn searched_to(&self) -> Result<Option<u64>, StoreError> {
        self.fact(SEARCHED_TO).await
    }

    /// The chain's epoch as it was last read.
    pub(crate) async fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        self.fact(EPOCH).await
    }

    /// Notes served epochs and requests; what was noted before stays.
    pub(crate) async fn keep_served(&self, served: &[(DealId, Epoch)], requests: &[Rolling]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for (deal, epoch) in served {
            sqlx::query("INSERT OR IGNORE INTO served (epoch, deal_id) VALUES (?, ?)")
                .bind(epoch.0)
                .bind(deal.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        for rolling in requests {
            sqlx::query("INSERT OR REPLACE INTO receipts (epoch, deal_id, count, hash) VALUES (?, ?, ?, ?)")
                .bind(rolling.epoch.0)
                .bind(rolling.deal.to_string())
                .bind(to_i64("count", rolling.count)?)
                .bind(rolling.hash.as_slice())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What was served from `first` on.
    pub(crate) async fn served_since(&self, first: Epoch) -> Result<BTreeSet<(DealId, Epoch)>, StoreError> {
        let rows = sqlx::query("SELECT epoch, deal_id FROM served WHERE epoch >= ?")
            .bind(first.0)
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let deal: &str = row.try_get("deal_id")?;
            Ok((deal.parse()?, epoch(row.try_get("epoch")?)?))
        };
        rows.iter().map(read).collect()
    }

    /// Requests of all deals from epoch `first` to epoch `last`.
    pub(crate) async fn requests_between(&self, first: Epoch, last: Epoch) -> Result<Vec<Rolling>, StoreError> {
        let rows = sqlx::query("SELECT epoch, deal_id, count, hash FROM receipts WHERE epoch BETWEEN ? AND ?")
            .bind(first.0)
            .bind(last.0)
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let deal: &str = row.try_get("deal_id")?;
            let (count, hash): (i64, &[u8]) = (row.try_get("count")?, row.try_get("hash")?);
            Ok(Rolling {
                deal: deal.parse()?,
                epoch: epoch(row.try_get("epoch")?)?,
                count: u64::try_from(count).map_err(|_| StoreError::Range { what: "count" })?,
                hash: hash.try_into().map_err(|_| StoreError::Range { what: "hash" })?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Records a transaction that is about to be sent. After a reorganisation the very same one may be due again: it is open
    /// again then.
    pub(crate) async fn record_tx(&self, purpose: Purpose, tx: &PreparedTx, now: u64) -> Result<i64, StoreError> {
        let (kind, epoch) = match purpose {
            Purpose::Attest(epoch) => ("attest", Some(epoch.0)),
            Purpose::Claim => ("claim", None),
        };
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO outbox (kind, epoch, tx_hash, prepared, state, created_at) VALUES (?, ?, ?, ?, 'open', ?) \
             ON CONFLICT (tx_hash) DO UPDATE SET state = 'open', gas_used = NULL RETURNING id",
        )
        .bind(kind)
        .bind(epoch)
        .bind(tx.hash.to_string())
        .bind(to_json("prepared", tx)?)
        .bind(to_i64("created_at", now)?)
        .fetch_one(&self.pool)
        .await?;
        sqlx::query("DELETE FROM outbox WHERE id <= ? AND state <> 'open'")
            .bind(id.saturating_sub(OUTBOX_KEPT))
            .execute(&self.pool)
            .await?;
        Ok(id)
    }

    /// Transactions whose end is not known, oldest first.
    pub(crate) async fn open_txs(&self) -> Result<Vec<OutboxTx>, StoreError> {
        let query = "SELECT id, kind, epoch, prepared FROM outbox WHERE state = 'open' ORDER BY id";
        sqlx::query(query).fetch_all(&self.pool).await?.iter().map(outbox_tx).collect()
    }

    /// The last `count` transactions that were mined before the one with this id, oldest first.
    pub(crate) async fn mined_before(&self, id: i64, count: u32) -> Result<Vec<OutboxTx>, StoreError> {
        let query = "SELECT id, kind, epoch, prepared FROM outbox WHERE id < ? AND state IN ('mined', 'reverted') \
                     ORDER BY id DESC LIMIT ?";
        sqlx::query(query).bind(id).bind(count).fetch_all(&self.pool).await?.iter().rev().map(outbox_tx).collect()
    }

    pub(crate) async fn end_tx(&self, id: i64, end: TxEnd) -> Result<(), StoreError> {
        let (state, gas) = match end {
            TxEnd::Mined { gas } => ("mined", Some(gas)),
            TxEnd::Reverted { gas } => ("reverted", Some(gas)),
            TxEnd::Dropped => ("dropped", None),
        };
        let gas = gas.map(|gas| to_i64("gas_used", gas)).transpose()?;
        sqlx::query("UPDATE outbox SET state = ?, gas_used = ? WHERE id = ?")
            .bind(state)
            .bind(gas)
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets what was served before `first`: it can no longer be attested.
    pub(crate) async fn forget_served_before(&self, first: Epoch) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DELETE FROM served WHERE epoch < ?").bind(first.0).execute(&mut *transaction).await?;
        sqlx::query("DELETE FROM receipts WHERE epoch < ?").bind(first.0).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

const EPOCH: &str = "epoch";
const SEARCHED_TO: &str = "searched_to";

async fn set_fact(
    connection: &mut SqliteConnection,
    name: &'static str,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)")
        .bind(name)
        .bind(to_json(name, value)?)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use common::ids::TxHash;

    use super::*;

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_recorded_transaction_is_open_until_it_ends_also_after_reopening() {
        let (folder, store) = store().await;
        let tx = PreparedTx { hash: TxHash([7; 32]), raw: vec![1, 2, 3], nonce: 4, label: "attest".to_owned() };
        let id = store.record_tx(Purpose::Attest(Epoch(9)), &tx, 100).await.unwrap();
        store.close().await;
        let store = Store::open(folder.path()).await.unwrap();
        let open = OutboxTx { id, purpose: Purpose::Attest(Epoch(9)), tx };
        assert_eq!(store.open_txs().await.unwrap(), std::slice::from_ref(&open));
        store.end_tx(id, TxEnd::Mined { gas: 40_000 }).await.unwrap();
        assert_eq!(store.open_txs().await.unwrap(), []);
        assert_eq!(store.mined_before(id.saturating_add(1), 5).await.unwrap(), std::slice::from_ref(&open));
        assert_eq!(store.mined_before(id, 5).await.unwrap(), []);
        // The block that it was in was replaced, and nothing else has changed.
        let OutboxTx { purpose, tx, .. } = open;
        assert_eq!(store.record_tx(purpose, &tx, 200).await.unwrap(), id);
        assert_eq!(store.open_txs().await.unwrap(), [OutboxTx { id, purpose, tx }]);
    }

    #[tokio::test]
    async fn served_epochs_and_requests_are_kept_and_forgotten_by_epoch() {
        let (_folder, store) = store().await;
        let (deal, other) = (DealId([1; 32]), DealId([2; 32]));
        let rolling = Rolling { deal, epoch: Epoch(5), count: 3, hash: [9; 32] };
        store.keep_served(&[(deal, Epoch(4)), (deal, Epoch(5)), (other, Epoch(5))], &[rolling]).await.unwrap();
        store.keep_served(&[(deal, Epoch(5))], &[rolling]).await.unwrap();
        assert_eq!(store.served_since(Epoch(5)).await.unwrap(), BTreeSet::from([(deal, Epoch(5)), (other, Epoch(5))]));
        assert_eq!(store.requests_between(Epoch(5), Epoch(5)).await.unwrap(), [rolling]);
        store.forget_served_before(Epoch(6)).await.unwrap();
        assert_eq!(store.served_since(Epoch(0)).await.unwrap(), BTreeSet::new());
        assert_eq!(store.requests_between(Epoch(5), Epoch(5)).await.unwrap(), []);
    }

    #[tokio::test]
    async fn facts_are_replaced() {
        let (_folder, store) = store().await;
        assert_eq!(store.searched_to().await.unwrap(), None);
        store.keep_reading(&[], Epoch(1), 7).await.unwrap();
        store.keep_reading(&[], Epoch(2), 8).await.unwrap();
        assert_eq!(store.searched_to().await.unwrap(), Some(8));
        assert_eq!(store.epoch().await.unwrap(), Some(Epoch(2)));
    }
}
