//! SQLite and PostgreSQL behind one set of statements, in the SQL that both speak: placeholders are `$1`, `$2` …, and
//! counts and sums are cast to `BIGINT`. What differs is how a transaction begins. Other services' databases use it too.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Arguments, AssertSqlSafe, Encode, FromRow, PgPool, Postgres, Sqlite, SqlitePool, Transaction, Type,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::error::StoreError;

/// How long a statement waits for another process's lock, and a reader for a free connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What the writer of a SQLite file keeps of it in memory, in SQLite's words: kibibytes are negative.
const WRITER_CACHE_KIB: &str = "-12288";
/// Readers at a time; further ones wait.
const MAX_READERS: u32 = 8;

/// Where the database is. As text: a `postgres://` URL, or else the path of a SQLite file.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A file on this machine.
    Sqlite(PathBuf),
    /// A server, for more than one machine: `postgres://user:password@host/database`.
    Postgres(String),
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            // The reason may quote the password.
            let wrong = |_| "must be postgres://USER:PASSWORD@HOST/DATABASE, or the path of a SQLite file".to_owned();
            return PgConnectOptions::from_str(text).map(|_| Self::Postgres(text.to_owned())).map_err(wrong);
        }
        match text.split_once("://") {
            Some(("sqlite", path)) => Ok(Self::Sqlite(path.into())),
            Some((scheme, _)) => Err(format!("{scheme:?} is no database known here: use postgres:// or a file's path")),
            None => Ok(Self::Sqlite(text.into())),
        }
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => match PgConnectOptions::from_str(url) {
                Ok(options) => {
                    let database = options.get_database().unwrap_or_default();
                    write!(f, "postgres://{}:{}/{database}", options.get_host(), options.get_port())
                }
                Err(_) => f.write_str("postgres://"),
            },
        }
    }
}

/// The password is not shown.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Connections to one of the two.
#[derive(Debug, Clone)]
pub enum Pool {
    /// To a file.
    Sqlite(SqlitePool),
    /// To a server.
    Postgres(PgPool),
}

impl Pool {
    /// The one writing connection. A SQLite file and its folder are made where they are missing.
    pub(super) async fn writer(location: &Location) -> Result<Self, StoreError> {
        match location {
            Location::Sqlite(path) => {
                if let Some(folder) = path.parent() {
                    let failed = |source| StoreError::Folder { path: path.display().to_string(), source };
                    tokio::fs::create_dir_all(folder).await.map_err(failed)?;
                }
                // In write-ahead mode readers never wait for the writer. A commit that is lost to a power cut is fetched
                // again from the chain, so it need not be forced to the disk.
                let options = sqlite(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    // Bulk writes touch more pages than the 2 MiB that SQLite keeps by itself, each of which is then written
                    // and read again before the commit.
                    .page_size(8_192)
                    .pragma("cache_size", WRITER_CACHE_KIB);
                let pool = migrations::sqlite_pool(1);
                Ok(Self::Sqlite(pool.connect_with(options).await?))
            }
            Location::Postgres(url) => {
                let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(BUSY_TIMEOUT);
                Ok(Self::Postgres(pool.connect_with(PgConnectOptions::from_str(url)?).await?))
            }
        }
    }

    /// Connections for reading.
    pub(super) async fn readers(location: &Location) -> Result<Self, StoreError> {
        match location {
            Location::Sqlite(path) => {
                let pool = SqlitePoolOptions::new().max_connections(MAX_READERS).acquire_timeout(BUSY_TIMEOUT);
                Ok(Self::Sqlite(pool.connect_with(sqlite(path).read_only(true)).await?))
            }
            Location::Postgres(url) => {
                let pool = PgPoolOptions::new().max_connections(MAX_READERS).acquire_timeout(BUSY_TIMEOUT);
                Ok(Self::Postgres(pool.connect_with(PgConnectOptions::from_str(url)?).await?))
            }
        }
    }

    /// Brings the schema up to date.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            Self::Sqlite(pool) => migrations::INDEXER.run(pool).await,
            Self::Postgres(pool) => migrations::INDEXER.run(pool).await,
        }
    }

    /// Begins to read: everything is true at one moment.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?)
            }
        })
    }

    /// Begins to write: nobody else does until this is over.
    pub(super) async fn write(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(pool) => Ok(Tx::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)),
            Self::Postgres(pool) => {
                let mut tx = Tx::Postgres(pool.begin().await?);
                tx.execute(Statement::new("LOCK TABLE checkpoint IN EXCLUSIVE MODE")).await?;
                Ok(tx)
            }
        }
    }
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT)
}

/// A transaction. Dropped, it is rolled back.
pub enum Tx {
    /// Of a file.
    Sqlite(Transaction<'static, Sqlite>),
    /// Of a server.
    Postgres(Transaction<'static, Postgres>),
}

/// What a row can be read into: structs that derive [`FromRow`], and tuples.
pub trait Record: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Record for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl Tx {
    /// Makes it last.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Carries out a statement that gives no rows.
    pub async fn execute(&mut self, statement: Statement) -> Result<(), StoreError> {
        let Statement { sql, values } = statement;
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(tx) => _ = sqlx::query_with(sql, arguments::<Sqlite>(values)?).execute(&mut **tx).await?,
            Self::Postgres(tx) => _ = sqlx::query_with(sql, arguments::<Postgres>(values)?).execute(&mut **tx).await?,
        }
        Ok(())
    }

    /// All rows.
    pub async fn fetch_all<T: Record>(&mut self, statement: Statement) -> Result<Vec<T>, StoreError> {
        let Statement { sql, values } = statement;
        let sql = AssertSqlSafe(sql);
        Ok(match self {
            Self::Sqlite(tx) => sqlx::query_as_with(sql, arguments::<Sqlite>(values)?).fetch_all(&mut **tx).await?,
            Self::Postgres(tx) => sqlx::query_as_with(sql, arguments::<Postgres>(values)?).fetch_all(&mut **tx).await?,
        })
    }

    /// The first row, if any.
    pub async fn fetch_optional<T: Record>(&mut self, statement: Statement) -> Result<Option<T>, StoreError> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    /// The one row that an aggregate has.
    pub async fn fetch_one<T: Record>(&mut self, statement: Statement) -> Result<T, StoreError> {
        self.fetch_optional(statement).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }
}

/// What can be bound to a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `BIGINT`.
    Big(Option<i64>),
    /// `TEXT`.
    Text(Option<String>),
    /// `BOOLEAN`.
    Bool(bool),
}

macro_rules! value_from {
    ($($type:ty => |$value:ident| $made:expr;)+) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        })+
    };
}

value_from! {
    i64 => |value| Self::Big(Some(value));
    u32 => |value| Self::Big(Some(value.into()));
    Option<i64> => |value| Self::Big(value);
    String => |value| Self::Text(Some(value));
    Option<String> => |value| Self::Text(value);
    bool => |value| Self::Bool(value);
}

/// A statement and its values.
#[derive(Debug, Clone)]
pub struct Statement {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

impl Value {
    pub(super) fn as_big(&self) -> Option<i64> {
        if let Self::Big(value) = self { *value } else { None }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(value) = self { value.as_deref() } else { None }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }
}

impl Statement {
    /// A statement without values so far.
    pub const fn new(sql: &'static str) -> Self {
        Self { sql: Cow::Borrowed(sql), values: Vec::new() }
    }

    /// A statement with all its values.
    pub(super) const fn whole(sql: String, values: Vec<Value>) -> Self {
        Self { sql: Cow::Owned(sql), values }
    }

    /// The value of the next placeholder, which the text has already.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The same, to be asked how it would be answered.
    #[cfg(test)]
    pub(super) fn explained(self) -> Self {
        Self { sql: Cow::Owned(format!("EXPLAIN QUERY PLAN {}", self.sql)), ..self }
    }

    /// Goes on with `sql`.
    pub fn push(&mut self, sql: impl Display) -> &mut Self {
        // A `String` takes everything.
        let _ = write!(self.sql.to_mut(), "{sql}");
        self
    }

    /// Goes on with a placeholder for `value`.
    pub(super) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let number = self.values.len();
        self.push(format_args!("${number}"))
    }

    /// Goes on with placeholders for `values`, with commas between them.
    pub(super) fn push_list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        for (at, value) in values.into_iter().enumerate() {
            self.push(if at == 0 { "" } else { ", " }).push_bind(value);
        }
        self
    }
}

fn arguments<DB: sqlx::Database>(values: Vec<Value>) -> Result<DB::Arguments, StoreError>
where
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
    bool: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut arguments = DB::Arguments::default();
    for value in values {
        match value {
            Value::Big(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bool(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
