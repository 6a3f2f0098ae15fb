//! Opens the database, whichever it is, and begins to write to it.

use std::{path::Path, str::FromStr, time::Duration};

use indexer::store::{
    Location,
    db::{Pool, Statement, Tx},
};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::StoreError;

/// How long a statement waits for another writer, and whoever comes for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time; further questions wait.
const MAX_CONNECTIONS: u32 = 4;
/// The tables' place in a PostgreSQL database, so that one can serve the indexer as well.
const SCHEMA: &str = "matcher";

/// Opens the database, creates a file where it is missing, and brings its schema up to date.
pub(super) async fn open(location: &Location) -> Result<Pool, StoreError> {
    let pool = match location {
        Location::Sqlite(path) => sqlite(path).await?,
        Location::Postgres(url) => postgres(url).await?,
    };
    let failed = |source| StoreError::Migrate { database: location.to_string(), source: Box::new(source) };
    migrate(&pool).await.map_err(failed)?;
    Ok(pool)
}

/// Begins to write: nobody else does until this is over, so that what it reads stays true until it writes.
pub(super) async fn write(pool: &Pool) -> Result<Tx, StoreError> {
    match pool {
        Pool::Sqlite(pool) => Ok(Tx::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)),
        Pool::Postgres(pool) => {
            let mut tx = Tx::Postgres(pool.begin().await?);
            tx.execute(Statement::new("LOCK TABLE acceptance IN EXCLUSIVE MODE")).await?;
            Ok(tx)
        }
    }
}

async fn sqlite(path: &Path) -> Result<Pool, StoreError> {
    // What is committed here is promised to others or about to be sent: it has to survive a power cut.
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = migrations::sqlite_pool(MAX_CONNECTIONS).acquire_timeout(BUSY_TIMEOUT);
    Ok(Pool::Sqlite(pool.connect_with(options).await?))
}

async fn postgres(url: &str) -> Result<Pool, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    let mut first = PgConnection::connect_with(&options).await?;
    // Two that start at once would both try, and one of them fail.
    sqlx::query("SELECT pg_advisory_lock(hashtext($1))").bind(SCHEMA).execute(&mut first).await?;
    let sql = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}"));
    sqlx::query(sql).execute(&mut first).await?;
    first.close().await?;
    let pool = PgPoolOptions::new().max_connections(MAX_CONNECTIONS).acquire_timeout(BUSY_TIMEOUT);
    Ok(Pool::Postgres(pool.connect_with(options.options([("search_path", SCHEMA)])).await?))
}

async fn migrate(pool: &Pool) -> Result<(), MigrateError> {
    match pool {
        Pool::Sqlite(pool) => migrations::MATCHER.run(pool).await,
        Pool::Postgres(pool) => migrations::MATCHER.run(pool).await,
    }
}
