//! Who plans and sends where several processes share a database: one at a time.
//!
//! On PostgreSQL that is whoever holds a session's advisory lock for this market and account. The server lets go of it
//! when the session ends, however that comes about, and another process takes it with its next look. A leader asks its
//! session before everything that it sends; without an answer it leads no more, gives up the session and starts over.
//!
//! Between the answer and the sending the session may still end, so that for a moment two may send. That harms nobody:
//!
//! - Both write down what they send in the same database first, so that each later looks after the other's transactions.
//! - Both send from one account. Two transactions with one nonce cannot both be mined; the other one is found out by its
//!   nonce, given up and planned anew. Two with different nonces are both mined, in order.
//! - A deal is never opened twice: the contract passes over a replica that has a host.
//!
//! On SQLite a lock on a file beside the database keeps a second process from starting at all.

use std::{
    fs::{File, TryLockError},
    path::Path,
    str::FromStr,
    time::Duration,
};

use common::ids::Address;
use indexer::store::Location;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, timeout};

use super::StoreError;

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that was just stopped may keep its file.
const FILE_PATIENCE: Duration = Duration::from_secs(5);
const FILE_INTERVAL: Duration = Duration::from_millis(50);

/// Whether this process plans and sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Leader,
    /// Another one does, or nobody can be asked: this one only answers the API.
    Follower,
}

/// A place among the processes that share a database. Dropped, it is free for another one.
#[derive(Debug)]
pub struct Leadership(Kind);

#[derive(Debug)]
enum Kind {
    /// Nobody else can have the database.
    Alone {
        _lock: File,
    },
    Shared(Box<Session>),
}

#[derive(Debug)]
struct Session {
    options: PgConnectOptions,
    key: i64,
    connection: Option<PgConnection>,
    leads: bool,
}

impl Leadership {
    /// Takes a place for the account `matcher` on this market.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has the database file, [`StoreError::Lock`]. A server that is away is no
    /// error: the process follows until it is there.
    pub async fn take(
        location: &Location,
        (chain_id, market, matcher): (u64, Address, Address),
    ) -> Result<Self, StoreError> {
        Ok(Self(match location {
            Location::Sqlite(path) => Kind::Alone { _lock: lock(path).await? },
            Location::Postgres(url) => {
                let name = format!("wharfage matcher {chain_id} {market} {matcher}");
                let [a, b, c, d, e, f, g, h, ..] = chain::keccak256(name.as_bytes());
                let key = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
                // A machine that is gone without a word is noticed within seconds.
                let options = PgConnectOptions::from_str(url)?.options([
                    ("tcp_keepalives_idle", "2"),
                    ("tcp_keepalives_interval", "1"),
                    ("tcp_keepalives_count", "3"),
                    ("tcp_user_timeout", "5000"),
                ]);
                let options = options.application_name("wharfage-matcher-leader");
                Kind::Shared(Box::new(Session { options, key, connection: None, leads: false }))
            }
        }))
    }

    /// Whether other processes may use the same database.
    pub const fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Shared(_))
    }

    /// Asks anew whether this process leads, and takes the lead where nobody has it.
    pub async fn standing(&mut self) -> Standing {
        match &mut self.0 {
            Kind::Alone { .. } => Standing::Leader,
            Kind::Shared(session) => session.standing().await,
        }
    }
}

impl Session {
    async fn standing(&mut self) -> Standing {
        // A connection that was left in the middle of an answer is not used again: it comes back only after one.
        let connection = self.connection.take();
        match timeout(ANSWER_TIMEOUT, ask(&self.options, self.key, connection, self.leads)).await {
            Ok(Ok((connection, leads))) => {
                self.connection = Some(connection);
                self.leads = leads;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database cannot be asked who leads");
                self.leads = false;
            }
            Err(_) => {
                tracing::warn!("the database does not say who leads");
                self.leads = false;
            }
        }
        if self.leads { Standing::Leader } else { Standing::Follower }
    }
}

async fn ask(
    options: &PgConnectOptions,
    key: i64,
    connection: Option<PgConnection>,
    leads: bool,
) -> Result<(PgConnection, bool), sqlx::Error> {
    let (mut connection, leads) = match connection {
        Some(connection) => (connection, leads),
        None => (options.connect().await?, false),
    };
    if leads {
        // The lock lasts as long as the session.
        connection.ping().await?;
        return Ok((connection, true));
    }
    let (taken,): (bool,) =
        sqlx::query_as("SELECT pg_try_advisory_lock($1)").bind(key).fetch_one(&mut connection).await?;
    Ok((connection, taken))
}

async fn lock(database: &Path) -> Result<File, StoreError> {
    let path = database.with_extension("lock");
    let failed = |source| StoreError::Lock { path: path.display().to_string(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < FILE_PATIENCE => {
                tokio::time::sleep(FILE_INTERVAL).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: database.display().to_string() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use migrations::testing::Postgres;

    use super::*;

    const WHO: (u64, Address, Address) = (1, Address([1; 20]), Address([2; 20]));

    #[tokio::test]
    async fn one_leads_and_another_takes_over_when_its_session_is_gone() {
        let url = Postgres::shared().database().await;
        let location = Location::Postgres(url.clone());
        let mut first = Leadership::take(&location, WHO).await.unwrap();
        let mut second = Leadership::take(&location, WHO).await.unwrap();
        let mut elsewhere = Leadership::take(&location, (2, WHO.1, WHO.2)).await.unwrap();
        assert_eq!(first.standing().await, Standing::Leader);
        assert_eq!(second.standing().await, Standing::Follower);
        assert_eq!(elsewhere.standing().await, Standing::Leader, "another market");
        assert_eq!(first.standing().await, Standing::Leader);

        // The server is restarted: whoever asks first has it, and the one before notices.
        Postgres::shared().disconnect(&url).await;
        assert_eq!(first.standing().await, Standing::Follower);
        assert_eq!(second.standing().await, Standing::Follower, "its session was gone too");
        assert_eq!(second.standing().await, Standing::Leader);
        assert_eq!(first.standing().await, Standing::Follower);
        drop(second);
        while first.standing().await == Standing::Follower {
            tokio::time::sleep(FILE_INTERVAL).await;
        }
    }

    #[tokio::test]
    async fn a_file_has_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("matcher.db"));
        let mut first = Leadership::take(&location, WHO).await.unwrap();
        assert_eq!(first.standing().await, Standing::Leader);
        let error = Leadership::take(&location, WHO).await.unwrap_err();
        assert!(error.to_string().contains("matcher.db: stop it"), "{error}");
        drop(first);
        assert!(Leadership::take(&location, WHO).await.is_ok());
    }
}
