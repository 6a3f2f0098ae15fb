//! SQLite and PostgreSQL behind one set of statements, in the SQL that both speak: placeholders are `$1`, `$2` …, and
//! counts and sums are cast to `BIGINT`. What differs is how a transaction begins.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Arguments, AssertSqlSafe, Connection as _, Encode, FromRow, PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    Type,
    migrate::MigrateError,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::error::StoreError;

/// How long a statement waits for another process's lock, and a reader for a free connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
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
pub(super) enum Pool {
    Sqlite(SqlitePool),
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
                    .synchronous(SqliteSynchronous::Normal);
                // Where SQLite takes a transaction back by itself, as on a full disk, the driver's own attempt to do so fails
                // and leaves it believing that one is open: no other could begin on that connection, ever.
                let pool = SqlitePoolOptions::new().max_connections(1).after_release(|connection, _| {
                    Box::pin(async move {
                        connection.ping().await?;
                        Ok(!connection.is_in_transaction())
                    })
                });
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
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
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
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// What a row can be read into: structs that derive [`FromRow`], and tuples.
pub(super) trait Record: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Record for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl Tx {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    pub(super) async fn execute(&mut self, statement: Statement) -> Result<(), StoreError> {
        let Statement { sql, values } = statement;
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(tx) => _ = sqlx::query_with(sql, arguments::<Sqlite>(values)?).execute(&mut **tx).await?,
            Self::Postgres(tx) => _ = sqlx::query_with(sql, arguments::<Postgres>(values)?).execute(&mut **tx).await?,
        }
        Ok(())
    }

    pub(super) async fn fetch_all<T: Record>(&mut self, statement: Statement) -> Result<Vec<T>, StoreError> {
        let Statement { sql, values } = statement;
        let sql = AssertSqlSafe(sql);
        Ok(match self {
            Self::Sqlite(tx) => sqlx::query_as_with(sql, arguments::<Sqlite>(values)?).fetch_all(&mut **tx).await?,
            Self::Postgres(tx) => sqlx::query_as_with(sql, arguments::<Postgres>(values)?).fetch_all(&mut **tx).await?,
        })
    }

    pub(super) async fn fetch_optional<T: Record>(&mut self, statement: Statement) -> Result<Option<T>, StoreError> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    /// The one row that an aggregate has.
    pub(super) async fn fetch_one<T: Record>(&mut self, statement: Statement) -> Result<T, StoreError> {
        self.fetch_optional(statement).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }
}

/// A table as rows are written to it.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// In the order of the values of a row.
    pub(super) columns: &'static [Column],
}

pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) role: Role,
}

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Big,
    Text,
    Bool,
}

/// What happens to a column when a row is written that is there already. Tables without a key are only added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// By it the row is known.
    Key,
    /// It never changes.
    Fixed,
    /// It is replaced.
    Changing,
}

/// A [`Table`] as a constant: its name, and each column with its [`Kind`] and its [`Role`].
macro_rules! table {
    ($constant:ident, $name:literal, $($column:ident $kind:ident $role:ident),+ $(,)?) => {
        const $constant: &$crate::store::db::Table = &$crate::store::db::Table {
            name: $name,
            columns: &[$($crate::store::db::Column {
                name: stringify!($column),
                kind: $crate::store::db::Kind::$kind,
                role: $crate::store::db::Role::$role,
            }),+],
        };
    };
}
pub(super) use table;

impl Tx {
    /// Writes rows, whose values follow each other in `values`; a row that is there already is replaced, as far as its
    /// columns change.
    pub(super) async fn put(&mut self, table: &Table, values: Vec<Value>) -> Result<(), StoreError> {
        match self {
            Self::Postgres(tx) => put_postgres(tx, table, &values).await,
            Self::Sqlite(_) => {
                let width = table.columns.len();
                let mut values = values.into_iter().peekable();
                while values.peek().is_some() {
                    let left = values.len().checked_div(width).unwrap_or_default();
                    // Statements of few lengths, so that SQLite finds each of them prepared.
                    let rows = if left >= MAX_ROWS { MAX_ROWS } else { 1 << left.max(1).ilog2() };
                    let mut statement = Statement::new("");
                    statement.push(table.insertion()).push("VALUES ");
                    for row in 0..rows {
                        statement.push(if row == 0 { "(" } else { ", (" }).push_list(values.by_ref().take(width));
                        statement.push(")");
                    }
                    statement.push(table.replacement());
                    self.execute(statement).await?;
                }
                Ok(())
            }
        }
    }

    /// The rows of `table` whose `columns` are one of `keys`.
    pub(super) async fn fetch_keys<T: Record>(
        &mut self,
        table: &'static str,
        columns: &'static str,
        keys: Vec<Vec<Value>>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        for keys in keys.chunks(MAX_ROWS) {
            let Some(last) = keys.last() else { continue };
            let mut query = Statement::new("");
            query.push(format_args!("SELECT * FROM {table} WHERE ({columns}) IN (VALUES "));
            // Of few lengths, as above: the last key is repeated.
            let padded = keys.iter().chain(std::iter::repeat(last));
            for (at, key) in padded.take(keys.len().next_power_of_two()).enumerate() {
                query.push(if at == 0 { "(" } else { ", (" }).push_list(key.iter().cloned()).push(")");
            }
            query.push(")");
            found.extend(self.fetch_all::<T>(query).await?);
        }
        Ok(found)
    }
}

/// Rows of one statement.
const MAX_ROWS: usize = 64;

impl Table {
    fn insertion(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| column.name).collect();
        format!("INSERT INTO {} ({}) ", self.name, names.join(", "))
    }

    fn replacement(&self) -> String {
        let names = |role| {
            let columns = self.columns.iter().filter(move |column| column.role == role);
            columns.map(|column| column.name).collect::<Vec<_>>()
        };
        let keys = names(Role::Key);
        if keys.is_empty() {
            return String::new();
        }
        let changes: Vec<_> =
            names(Role::Changing).into_iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let act = if changes.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", changes.join(", ")) };
        format!(" ON CONFLICT ({}) DO {act}", keys.join(", "))
    }
}

/// One statement for all rows: a column of values for each column of the table.
async fn put_postgres(
    tx: &mut Transaction<'static, Postgres>,
    table: &Table,
    values: &[Value],
) -> Result<(), StoreError> {
    let width = table.columns.len();
    let mut arguments = PgArguments::default();
    let mut columns = Vec::with_capacity(width);
    for (at, column) in table.columns.iter().enumerate() {
        let of_column = values.iter().skip(at).step_by(width);
        let added = match column.kind {
            Kind::Big => arguments.add(of_column.map(Value::as_big).collect::<Vec<_>>()),
            Kind::Text => arguments.add(of_column.map(Value::as_text).collect::<Vec<_>>()),
            Kind::Bool => arguments.add(of_column.map(Value::as_bool).collect::<Vec<_>>()),
        };
        added.map_err(sqlx::Error::Encode)?;
        let array = match column.kind {
            Kind::Big => "BIGINT[]",
            Kind::Text => "TEXT[]",
            Kind::Bool => "BOOLEAN[]",
        };
        columns.push(format!("${}::{array}", at.saturating_add(1)));
    }
    let sql = format!("{}SELECT * FROM UNNEST({}){}", table.insertion(), columns.join(", "), table.replacement());
    sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **tx).await?;
    Ok(())
}

/// What can be bound to a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Big(Option<i64>),
    Text(Option<String>),
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
pub(super) struct Statement {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

impl Value {
    fn as_big(&self) -> Option<i64> {
        if let Self::Big(value) = self { *value } else { None }
    }

    fn as_text(&self) -> Option<&str> {
        if let Self::Text(value) = self { value.as_deref() } else { None }
    }

    fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }
}

impl Statement {
    pub(super) const fn new(sql: &'static str) -> Self {
        Self { sql: Cow::Borrowed(sql), values: Vec::new() }
    }

    /// The value of the next placeholder, which the text has already.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Goes on with `sql`.
    pub(super) fn push(&mut self, sql: impl Display) -> &mut Self {
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
