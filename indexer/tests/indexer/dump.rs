//! Everything that a database holds, as text, so that two of them can be compared, also a SQLite one with a PostgreSQL one.

use std::collections::BTreeMap;

use indexer::Location;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

/// Table, its columns, and what its rows are ordered by.
const TABLES: [(&str, &str, &str); 14] = [
    ("checkpoint", "block_number finalized_number", "id"),
    ("blocks", "number hash parent_hash timestamp event_count", "number"),
    ("events", "block_number log_index tx_hash kind deal_key deal_id payload", "block_number, log_index"),
    ("undo", "block_number row_key row_before", "block_number, row_key"),
    ("balances", "account free", "account"),
    ("nonce_floors", "owner floor", "owner"),
    ("cancelled_offers", "owner offer_hash", "owner, offer_hash"),
    ("matching", "paused", "id"),
    (
        "provider_offers",
        "offer_hash provider region offer used_milli_cpu used_memory_mib opened_block opened_log_index",
        "offer_hash",
    ),
    (
        "developer_offers",
        "offer_hash developer offer live_replicas end_epoch updated opened_block opened_log_index",
        "offer_hash",
    ),
    (
        "deals",
        "deal_id developer_offer provider_offer developer provider agent milli_cpu memory_mib price_per_epoch \
         old_price_until old_price_per_epoch changes start_epoch end_epoch settled_until paid_until locked bond \
         unfunded_since state cause funded paid refunded opened_block opened_log_index",
        "deal_id",
    ),
    ("attestations", "agent epoch receipt_root rolling_hash block_number log_index", "agent, epoch"),
    // An account's number may be another one where blocks were taken back.
    (
        "payment_overview",
        "block_number log_index part kind from_account to_account amount",
        "block_number, log_index, part",
    ),
    (
        "mentions m JOIN accounts a ON a.number = m.account",
        "block_number log_index a.account",
        "block_number, log_index",
    ),
];

/// Rows by table.
pub(crate) type Dump = BTreeMap<&'static str, Vec<String>>;

pub(crate) async fn dump(database: &Location) -> Dump {
    let mut dump = Dump::new();
    for (table, columns, order) in TABLES {
        let column = |name: &str| match name {
            "paused" => "CASE WHEN paused THEN 'true' ELSE 'false' END".to_owned(),
            name => format!("coalesce(CAST({name} AS TEXT), 'NULL')"),
        };
        let columns: Vec<_> = columns.split_whitespace().map(column).collect();
        let sql = AssertSqlSafe(format!("SELECT {} FROM {table} ORDER BY {order}", columns.join(" || ' | ' || ")));
        let mut rows: Vec<String> = match database {
            Location::Sqlite(path) => {
                let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
                sqlx::query_scalar(sql).fetch_all(&mut db).await.unwrap()
            }
            Location::Postgres(url) => {
                let mut db = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(sql).fetch_all(&mut db).await.unwrap()
            }
        };
        // Texts are ordered otherwise by either.
        rows.sort();
        dump.insert(table, rows);
    }
    dump
}

/// Names of all indexes.
pub(crate) async fn indexes(database: &Location) -> Vec<String> {
    match database {
        Location::Sqlite(path) => {
            let mut db = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'index'").fetch_all(&mut db).await.unwrap()
        }
        Location::Postgres(url) => {
            let mut db = PgConnection::connect(url).await.unwrap();
            sqlx::query_scalar("SELECT indexname::TEXT FROM pg_indexes").fetch_all(&mut db).await.unwrap()
        }
    }
}
