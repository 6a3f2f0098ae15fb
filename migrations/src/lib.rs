//! SQL schemas of the services, compiled into the program: one folder and one [`Migrator`] for each database. Every
//! table and every view is documented in `migrations/README.md`.
//!
//! A database is migrated by the service that owns it, when it opens it. Files are never edited once released: a change
//! is a new file.

#[cfg(feature = "testing")]
pub mod testing;

use sqlx::{Connection as _, migrate::Migrator, sqlite::SqlitePoolOptions};

/// The indexer's projection of the chain. It can be dropped and rebuilt at any time.
pub static INDEXER: Migrator = sqlx::migrate!("./indexer");

/// The matcher's signed offers, accepted artifacts and transaction outbox.
pub static MATCHER: Migrator = sqlx::migrate!("./matcher");

/// The provider agent's replicas, billing outbox and receipts.
pub static AGENT: Migrator = sqlx::migrate!("./agent");

/// Connections to a SQLite file that is written to.
///
/// Where SQLite takes a transaction back by itself, as on a full disk, the driver's own attempt to do so fails and leaves it
/// believing that one is open: no other could begin on that connection, ever. Such a connection is not used again.
pub fn sqlite_pool(max_connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(max_connections).after_release(|connection, _| {
        Box::pin(async move {
            connection.ping().await?;
            Ok(!connection.is_in_transaction())
        })
    })
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;

    const README: &str = include_str!("../README.md");

    async fn tables(migrator: &Migrator) -> Vec<String> {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        migrator.run(&mut db).await.unwrap();
        // What a restarted service does.
        migrator.run(&mut db).await.unwrap();
        let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE '\\_%' ESCAPE '\\'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut db).await.unwrap();
        for table in &tables {
            // A view is only read when somebody asks.
            let query = sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"));
            sqlx::query(query).fetch_all(&mut db).await.unwrap();
        }
        tables
    }

    #[tokio::test]
    async fn every_database_is_made_from_nothing_and_every_table_and_view_is_documented() {
        for migrator in [&INDEXER, &MATCHER, &AGENT] {
            let tables = tables(migrator).await;
            assert!(!tables.is_empty());
            for table in tables {
                assert!(README.contains(&format!("| `{table}` |")), "README.md says nothing about {table}");
            }
        }
    }

    #[test]
    fn every_migration_opens_with_why() {
        for migration in [&INDEXER, &MATCHER, &AGENT].into_iter().flat_map(|migrator| migrator.iter()) {
            assert!(migration.sql.as_str().starts_with("-- Why: "), "{}", migration.description);
        }
    }
}
