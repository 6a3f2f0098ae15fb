//! A database that an older version has filled: it is brought up to date, and indexing the chain again makes of it what a
//! new one is.

use indexer::{
    Location, Store,
    input::{ChainInput, Step},
};
use migrations::testing::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, migrate::Migrator};

use crate::{
    dump::dump,
    history::{Chain, terms},
    projection::{Database, ENGINES, Engine},
};

/// The oldest version whose databases are tried: the first whose indexes are the service's own is older still.
const OLDEST: i64 = 5;

/// Indexes that the service of that version made.
const INDEXES: [&str; 6] = [
    "INDEX events_deal ON events (deal_key, block_number, log_index) WHERE deal_key IS NOT NULL",
    "INDEX events_kind ON events (kind, block_number, log_index)",
    "INDEX attestations_epoch ON attestations (epoch, block_number, log_index)",
    "UNIQUE INDEX deals_place ON deals (opened_block, opened_log_index)",
    "INDEX deals_open ON deals (developer_offer) WHERE state <> 'ended'",
    "INDEX payments_from ON payments (from_account, block_number, log_index, part)",
];

enum Db {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Db {
    async fn connect(location: &Location) -> Self {
        match location {
            Location::Sqlite(path) => {
                let url = format!("sqlite://{}?mode=rwc", path.display());
                Self::Sqlite(SqliteConnection::connect(&url).await.unwrap())
            }
            Location::Postgres(url) => Self::Postgres(PgConnection::connect(url).await.unwrap()),
        }
    }

    async fn migrate(&mut self, to: i64) {
        let migrations = migrations::INDEXER.iter().filter(|migration| migration.version <= to).cloned().collect();
        let migrator = Migrator::with_migrations(migrations);
        match self {
            Self::Sqlite(db) => migrator.run(db).await.unwrap(),
            Self::Postgres(db) => migrator.run(db).await.unwrap(),
        }
    }

    async fn execute(&mut self, sql: String) {
        match self {
            Self::Sqlite(db) => _ = sqlx::query(AssertSqlSafe(sql)).execute(db).await.unwrap(),
            Self::Postgres(db) => _ = sqlx::query(AssertSqlSafe(sql)).execute(db).await.unwrap(),
        }
    }

    async fn pairs(&mut self, sql: String) -> Vec<(String, String)> {
        match self {
            Self::Sqlite(db) => sqlx::query_as(AssertSqlSafe(sql)).fetch_all(db).await.unwrap(),
            Self::Postgres(db) => sqlx::query_as(AssertSqlSafe(sql)).fetch_all(db).await.unwrap(),
        }
    }

    /// Tables with their columns and the types of these.
    async fn columns(&mut self) -> Vec<(String, Vec<(String, String)>)> {
        let tables = match self {
            Self::Sqlite(_) => "SELECT name, type FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
            Self::Postgres(_) => {
                "SELECT table_name::TEXT, table_type::TEXT FROM information_schema.tables
                 WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            }
        };
        let mut found = Vec::new();
        for (table, _) in self.pairs(tables.to_owned()).await {
            if table.starts_with('_') {
                continue;
            }
            let columns = match self {
                Self::Sqlite(_) => format!("SELECT name, type FROM pragma_table_info('{table}')"),
                Self::Postgres(_) => format!(
                    "SELECT column_name::TEXT, data_type::TEXT FROM information_schema.columns
                     WHERE table_schema = 'public' AND table_name = '{table}'"
                ),
            };
            found.push((table, self.pairs(columns).await));
        }
        found
    }

    /// Rows in all tables, as far as an older service got: what stands in them is another chain's.
    async fn fill(&mut self) {
        let tables = self.columns().await;
        assert!(tables.len() > 12, "{tables:?}");
        for (table, columns) in tables {
            match table.as_str() {
                "checkpoint" => {
                    self.execute("UPDATE checkpoint SET block_number = 1, finalized_number = 1".into()).await
                }
                "market" => {
                    let (chain, market) = (terms().chain_id, terms().market);
                    let terms = serde_json::to_string(&terms()).unwrap();
                    let sql = format!("INSERT INTO market VALUES (1, {chain}, '{market}', '{terms}')");
                    self.execute(sql).await;
                }
                _ => {
                    let value = |(_, kind): &(String, String)| match kind.to_lowercase().as_str() {
                        "bigint" => "1",
                        "boolean" => "TRUE",
                        _ => "'0x01'",
                    };
                    let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
                    let values: Vec<_> = columns.iter().map(value).collect();
                    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "));
                    self.execute(sql).await;
                }
            }
        }
        for index in INDEXES {
            self.execute(format!("CREATE {index}")).await;
        }
    }
}

#[tokio::test]
async fn a_database_of_an_older_version_ends_as_a_new_one() {
    let newest = migrations::INDEXER.iter().map(|migration| migration.version).max().unwrap();
    let mut chain = Chain::default();
    chain.busy_at(&[1, 2, 3, 9, 10, 40]);
    chain.finalized = Some(9);
    for engine in ENGINES {
        let clean = dump(&Database::of(&chain, engine).await.location).await;
        assert!(clean.values().all(|rows| !rows.is_empty()), "the chain has something for every table: {clean:?}");
        for version in OLDEST..newest {
            let folder = tempfile::tempdir().unwrap();
            let location: Location = match engine {
                Engine::Sqlite => folder.path().join("indexer.db").into(),
                Engine::Postgres => Postgres::shared().database().await.parse().unwrap(),
            };
            let mut old = Db::connect(&location).await;
            old.migrate(version).await;
            old.fill().await;
            drop(old);
            let store = Store::open(&location).await.unwrap();
            store.bind(&terms()).await.unwrap();
            // What it says meanwhile is not what it had said of the other chain.
            assert_eq!(store.checkpoint().await.unwrap().block, None, "{engine:?} from {version}");
            let input = ChainInput::Committed { blocks: chain.blocks.clone() };
            store.apply(&Step { follows: None, input, finalized: chain.finalized }).await.unwrap();
            assert_eq!(store.market_state().await.unwrap(), chain.state());
            assert_eq!(dump(&location).await, clean, "{engine:?} from {version}");
            // And the schema is that of a new one: whatever a service does next, it can.
            store.rebuild(|_, _| ()).await.unwrap();
            assert_eq!(dump(&location).await, clean, "{engine:?} from {version}, rebuilt");
        }
    }
}
