//! A real PostgreSQL for tests and benchmarks, which nobody has to start beforehand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "part of tests: a failure here is the test's failure"
)]

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Whoever runs the server must not be root: this account does then, which Debian's packages make.
const ACCOUNT: &str = "postgres";

/// A server of its own in a temporary folder, reached by a Unix socket. It ends when this is dropped, or with the thread
/// that started it.
#[derive(Debug)]
pub struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
    databases: AtomicU32,
}

/// Started by a thread that never ends, since servers end with the thread that started them.
static SHARED: LazyLock<Postgres> = LazyLock::new(|| {
    let (sender, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        sender.send(Postgres::start()).unwrap();
        loop {
            std::thread::park();
        }
    });
    started.recv().unwrap()
});

impl Postgres {
    /// One server for all tests of a process.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// Starts a server. What is committed need not survive a power cut, as with the tests' SQLite files.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = folder.path().join("data");
        run(as_account(&binary("initdb")).args(["--auth=trust", "--username=wharfage", "--no-sync", "-D"]).arg(&data));
        let server = as_account(&binary("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-h", "", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"])
            .args(["-c", "shared_buffers=64MB", "-c", "max_wal_size=512MB"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { server, folder, databases: AtomicU32::new(0) }
    }

    /// Makes an empty database and says its URL.
    pub async fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connect().await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        self.url(&name)
    }

    /// Cuts all connections to a database, as a server does that is restarted.
    pub async fn disconnect(&self, url: &str) {
        let name = url.split(['/', '?']).nth(3).unwrap();
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(sql).bind(name).execute(&mut self.connect().await).await.unwrap();
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://wharfage@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Waits for the server to be up.
    async fn connect(&self) -> PgConnection {
        for _ in 0..600 {
            if let Ok(connection) = PgConnection::connect(&self.url("postgres")).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("PostgreSQL does not start:\n{log}")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A command that does not run as root and ends with the thread that starts it.
fn as_account(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups"]);
    }
    command.arg(program).current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The newest of the installed ones.
fn binary(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|folders| folders.flatten().map(|folder| folder.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let folders = std::env::split_paths(&path).chain(versions.into_iter().rev());
    folders.map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("these tests need PostgreSQL 15 or newer: install Debian's `postgresql`, or put `{name}` on the PATH")
    })
}
