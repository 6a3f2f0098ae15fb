//! Everything that a database holds, as text, so that two of them can be compared.

use std::{collections::BTreeMap, path::Path};

use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};

const TABLES: [(&str, &str); 12] = [
    ("checkpoint", "SELECT * FROM checkpoint"),
    ("blocks", "SELECT * FROM blocks ORDER BY number"),
    ("events", "SELECT * FROM events ORDER BY block_number, log_index"),
    ("undo", "SELECT * FROM undo ORDER BY block_number, row_key"),
    ("balances", "SELECT * FROM balances ORDER BY account"),
    ("nonce_floors", "SELECT * FROM nonce_floors ORDER BY owner"),
    ("cancelled_offers", "SELECT * FROM cancelled_offers ORDER BY owner, offer_hash"),
    ("matching", "SELECT * FROM matching"),
    ("provider_offers", "SELECT * FROM provider_offers ORDER BY offer_hash"),
    ("developer_offers", "SELECT * FROM developer_offers ORDER BY offer_hash"),
    ("deals", "SELECT * FROM deals ORDER BY deal_id"),
    ("attestations", "SELECT * FROM attestations ORDER BY agent, epoch"),
];

/// Rows by table.
pub(crate) type Dump = BTreeMap<&'static str, Vec<String>>;

pub(crate) async fn dump(database: &Path) -> Dump {
    let mut db = SqliteConnectOptions::new().filename(database).read_only(true).connect().await.unwrap();
    let mut dump = Dump::new();
    for (table, sql) in TABLES {
        let rows = sqlx::query(sql).fetch_all(&mut db).await.unwrap();
        let texts = rows.iter().map(|row| {
            let columns = (0..row.len()).map(|at| row.get_unchecked::<Option<String>, _>(at));
            columns.map(|column| column.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>().join(" | ")
        });
        dump.insert(table, texts.collect());
    }
    dump
}
