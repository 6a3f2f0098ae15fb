//! Many rows at a time: written with as few statements as each of the two databases allows, and read by their keys.

use sqlx::{Arguments, AssertSqlSafe, Postgres, Transaction, postgres::PgArguments};

use super::{
    db::{Record, Statement, Tx, Value},
    error::StoreError,
};

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
        pub(super) const $constant: &$crate::store::bulk::Table = &$crate::store::bulk::Table {
            name: $name,
            columns: &[$($crate::store::bulk::Column {
                name: stringify!($column),
                kind: $crate::store::bulk::Kind::$kind,
                role: $crate::store::bulk::Role::$role,
            }),+],
        };
    };
}
pub(super) use table;

impl Tx {
    /// Writes rows, whose values follow each other in `values`; a row that is there already is replaced, as far as its
    /// columns change.
    pub(super) async fn put(&mut self, table: &Table, values: Vec<Value>) -> Result<(), StoreError> {
        if values.is_empty() {
            return Ok(());
        }
        match self {
            Self::Postgres(tx) if table.is_only_added_to() => copy(tx, table, &values).await,
            Self::Postgres(tx) => put_postgres(tx, table, &values).await,
            Self::Sqlite(_) => self.put_sqlite(table, values).await,
        }
    }

    async fn put_sqlite(&mut self, table: &Table, values: Vec<Value>) -> Result<(), StoreError> {
        let width = table.columns.len();
        let mut left = values.len().checked_div(width).unwrap_or_default();
        let mut values = values.into_iter();
        let group = unnumbered(width);
        while left > 0 {
            let rows = statement_rows(left);
            let groups = vec![group.as_str(); rows].join(", ");
            let sql = format!("{}VALUES {groups}{}", table.insertion(), table.replacement());
            let values = values.by_ref().take(rows.saturating_mul(width)).collect();
            self.execute(Statement::whole(sql, values)).await?;
            left = left.saturating_sub(rows);
        }
        Ok(())
    }

    /// The rows of `table` with one of `keys`, which are the values of the key columns.
    pub(super) async fn fetch_keys<T: Record>(
        &mut self,
        table: &Table,
        keys: &[Vec<Value>],
    ) -> Result<Vec<T>, StoreError> {
        match self {
            Self::Postgres(tx) => fetch_postgres(tx, table, keys).await,
            Self::Sqlite(_) => self.fetch_sqlite(table, keys).await,
        }
    }

    async fn fetch_sqlite<T: Record>(&mut self, table: &Table, mut keys: &[Vec<Value>]) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        while let Some((now, later)) = keys.split_at_checked(statement_rows(keys.len()).max(1)) {
            keys = later;
            found.extend(self.fetch_all::<T>(by_keys(table, now)).await?);
        }
        Ok(found)
    }
}

/// Rows of `table` with one of `keys`, for SQLite. It would read the whole table for keys of two columns in a list; this way
/// it looks up one by one, as `CROSS JOIN` is the order that it follows.
pub(super) fn by_keys(table: &Table, keys: &[Vec<Value>]) -> Statement {
    let columns = table.names_of(Role::Key);
    let groups = vec![unnumbered(columns.len()); keys.len()].join(", ");
    let equal: Vec<_> = columns.iter().map(|column| format!("t.{column} = keys.{column}")).collect();
    let sql = format!(
        "WITH keys ({}) AS (VALUES {groups}) SELECT t.* FROM keys CROSS JOIN {} t WHERE {}",
        columns.join(", "),
        table.name,
        equal.join(" AND ")
    );
    Statement::whole(sql, keys.concat())
}

/// Rows of the next statement when so many are left: few different lengths, so that each is found prepared.
const fn statement_rows(left: usize) -> usize {
    match left {
        0 => 0,
        MAX_ROWS.. => MAX_ROWS,
        _ => 1 << left.ilog2(),
    }
}

/// Rows of one statement: each is a way to SQLite's thread and back. SQLite takes 32,766 values.
const MAX_ROWS: usize = 512;

/// The placeholders of a row for SQLite alone, without numbers: the driver asks for the name of each numbered placeholder,
/// and SQLite looks through all of them for it, which is quadratic.
fn unnumbered(width: usize) -> String {
    format!("({})", vec!["?"; width].join(", "))
}

impl Table {
    /// Whether rows are never replaced.
    fn is_only_added_to(&self) -> bool {
        self.columns.iter().all(|column| column.role == Role::Fixed)
    }

    fn insertion(&self) -> String {
        format!("INSERT INTO {} ({}) ", self.name, self.names())
    }

    fn names_of(&self, role: Role) -> Vec<&'static str> {
        self.columns.iter().filter(|column| column.role == role).map(|column| column.name).collect()
    }

    fn names(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }

    fn replacement(&self) -> String {
        let keys = self.names_of(Role::Key);
        if keys.is_empty() {
            return String::new();
        }
        let changes: Vec<_> =
            self.names_of(Role::Changing).into_iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let act = if changes.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", changes.join(", ")) };
        format!(" ON CONFLICT ({}) DO {act}", keys.join(", "))
    }
}

/// One statement for all rows: an array of values for each column of the table.
async fn put_postgres(
    tx: &mut Transaction<'static, Postgres>,
    table: &Table,
    values: &[Value],
) -> Result<(), StoreError> {
    let width = table.columns.len();
    let columns = table.columns.iter().enumerate();
    let arrays = columns.map(|(at, column)| (column, values.iter().skip(at).step_by(width)));
    let (arguments, unnest) = unnested(arrays)?;
    let sql = format!("{}SELECT * FROM {unnest}{}", table.insertion(), table.replacement());
    sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **tx).await?;
    Ok(())
}

/// One statement for all keys: an array of values for each of their columns.
async fn fetch_postgres<T: Record>(
    tx: &mut Transaction<'static, Postgres>,
    table: &Table,
    keys: &[Vec<Value>],
) -> Result<Vec<T>, StoreError> {
    let columns = table.columns.iter().filter(|column| column.role == Role::Key).enumerate();
    let arrays = columns.map(|(at, column)| (column, keys.iter().filter_map(move |key| key.get(at))));
    let (arguments, unnest) = unnested(arrays)?;
    let names = table.names_of(Role::Key).join(", ");
    let sql = format!("SELECT t.* FROM {} t JOIN {unnest} AS k ({names}) USING ({names})", table.name);
    Ok(sqlx::query_as_with(AssertSqlSafe(sql), arguments).fetch_all(&mut **tx).await?)
}

/// `UNNEST` of one array a column, and the arrays.
fn unnested<'v, V: Iterator<Item = &'v Value>>(
    columns: impl Iterator<Item = (&'v Column, V)>,
) -> Result<(PgArguments, String), StoreError> {
    let mut arguments = PgArguments::default();
    let mut arrays = Vec::new();
    for (column, values) in columns {
        let (added, array) = match column.kind {
            Kind::Big => (arguments.add(values.map(Value::as_big).collect::<Vec<_>>()), "BIGINT[]"),
            Kind::Text => (arguments.add(values.map(Value::as_text).collect::<Vec<_>>()), "TEXT[]"),
            Kind::Bool => (arguments.add(values.map(Value::as_bool).collect::<Vec<_>>()), "BOOLEAN[]"),
        };
        added.map_err(sqlx::Error::Encode)?;
        arrays.push(format!("${}::{array}", arguments.len()));
    }
    Ok((arguments, format!("UNNEST({})", arrays.join(", "))))
}

/// Rows as PostgreSQL takes them in without looking at a statement for each: its binary form of `COPY`, which is a signature,
/// flags and no further header, then for each row the number of its columns and each column's length and bytes.
async fn copy(tx: &mut Transaction<'static, Postgres>, table: &Table, values: &[Value]) -> Result<(), StoreError> {
    let width = table.columns.len();
    let mut bytes = Vec::with_capacity(values.len().saturating_mul(32));
    bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for row in values.chunks(width) {
        bytes.extend(i16::try_from(row.len()).unwrap_or_default().to_be_bytes());
        for value in row {
            match value {
                Value::Big(Some(number)) => field(&mut bytes, &number.to_be_bytes()),
                Value::Text(Some(text)) => field(&mut bytes, text.as_bytes()),
                Value::Bool(yes) => field(&mut bytes, &[u8::from(*yes)]),
                Value::Big(None) | Value::Text(None) => bytes.extend((-1_i32).to_be_bytes()),
            }
        }
    }
    bytes.extend((-1_i16).to_be_bytes());
    let sql = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", table.name, table.names());
    let mut copy = tx.copy_in_raw(&sql).await?;
    copy.send(bytes).await?;
    copy.finish().await?;
    Ok(())
}

fn field(row: &mut Vec<u8>, value: &[u8]) {
    row.extend(i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
    row.extend_from_slice(value);
}
