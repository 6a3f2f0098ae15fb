//! One anvil process.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, mpsc},
    thread,
};

use alloy::primitives::{U64, U256};
use common::ids::Address;
use serde_json::{Value, json};

use crate::{convert::outward, keys::Key, rpc::Rpc};

/// Accounts that anvil funds.
const ACCOUNTS: usize = 20;

/// A chain of its own for one test, with 20 funded accounts. Blocks are mined with each transaction. The process ends
/// when this is dropped, or with the test process.
#[derive(Debug)]
pub struct Anvil {
    process: Child,
    url: String,
    keys: Vec<Key>,
    rpc: Rpc,
}

type Spawned = mpsc::Sender<std::io::Result<Child>>;

/// Processes are bound to the life of the *thread* that started them, so one thread that never ends starts them all.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<(Command, Spawned)>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<(Command, Spawned)>();
    thread::spawn(move || {
        for (mut command, done) in jobs {
            let _ = done.send(command.spawn());
        }
    });
    Mutex::new(sender)
});

impl Anvil {
    /// Starts anvil with its defaults.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts anvil with more command-line arguments.
    #[expect(clippy::unused_async, reason = "its callers need not change when waiting becomes asynchronous")]
    pub async fn start_with(arguments: &[&str]) -> Self {
        let binary = binary();
        let mut command = Command::new(&binary);
        command
            .args(["--host", "127.0.0.1", "--port", "0", "--accounts", &ACCOUNTS.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        die_with_parent(&mut command);
        let (done, spawned) = mpsc::channel();
        SPAWNER.lock().unwrap().send((command, done)).unwrap();
        let mut process =
            spawned.recv().unwrap().unwrap_or_else(|error| panic!("{} cannot be started: {error}", binary.display()));
        let (url, keys) = read_start(process.stdout.take().unwrap());
        let rpc = Rpc::new(std::slice::from_ref(&url)).unwrap();
        Self { process, url, keys, rpc }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A client of it.
    pub fn rpc(&self) -> Rpc {
        self.rpc.clone()
    }

    /// Key of its funded account `n`, 0 to 19.
    pub fn key(&self, n: usize) -> Key {
        self.keys.get(n).unwrap_or_else(|| panic!("anvil has accounts 0 to {}, not {n}", ACCOUNTS - 1)).clone()
    }

    /// Mines empty blocks.
    pub async fn mine(&self, blocks: u64) {
        self.call("anvil_mine", json!([U64::from(blocks)])).await;
    }

    /// Mines one block, `seconds` later than the last one.
    pub async fn increase_time(&self, seconds: u64) {
        self.mine_at(self.rpc.head().await.unwrap().timestamp + seconds).await;
    }

    /// Mines one block at this second, which must be later than the last block's.
    pub async fn mine_at(&self, timestamp: u64) {
        self.call("evm_setNextBlockTimestamp", json!([timestamp])).await;
        self.mine(1).await;
    }

    /// From now on each block is `seconds` after the one before, however fast time goes by.
    pub async fn set_block_timestamp_interval(&self, seconds: u64) {
        self.call("anvil_setBlockTimestampInterval", json!([seconds])).await;
    }

    /// Replaces the last `depth` blocks by as many empty ones.
    pub async fn reorg(&self, depth: u64) {
        self.call("anvil_reorg", json!([depth, []])).await;
    }

    /// Remembers the state.
    pub async fn snapshot(&self) -> String {
        self.call("evm_snapshot", json!([])).await.as_str().unwrap().to_owned()
    }

    /// Goes back to a remembered state, once.
    pub async fn revert(&self, snapshot: &str) {
        assert_eq!(self.call("evm_revert", json!([snapshot])).await, json!(true), "no snapshot {snapshot}");
    }

    /// Whether each transaction is mined at once in a block of its own, as it is at first.
    pub async fn set_automine(&self, automine: bool) {
        self.call("evm_setAutomine", json!([automine])).await;
    }

    /// Mines a block every `seconds`; 0 for never.
    pub async fn set_interval_mining(&self, seconds: u64) {
        self.call("evm_setIntervalMining", json!([seconds])).await;
    }

    /// Gives an account 1,000 of the chain's own currency, for gas.
    pub async fn give_gas(&self, account: Address) {
        let wei = U256::from(10).pow(U256::from(21));
        self.call("anvil_setBalance", json!([outward::address(account), wei])).await;
    }

    /// Any JSON-RPC request.
    pub async fn call(&self, method: &'static str, params: Value) -> Value {
        self.rpc.request(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(unsafe_code, reason = "pre_exec; the closure makes one system call and does not allocate")]
fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec the closure only calls prctl, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into)
        });
    }
}

/// Reads what anvil prints when it starts: its private keys, then where it listens.
fn read_start(stdout: impl std::io::Read + Send + 'static) -> (String, Vec<Key>) {
    let mut lines = BufReader::new(stdout).lines();
    let mut keys = Vec::new();
    let mut seen = String::new();
    loop {
        let Some(Ok(line)) = lines.next() else { panic!("anvil ended while it started:\n{seen}") };
        let last_word = line.split_whitespace().last().unwrap_or_default();
        if line.starts_with('(') && last_word.len() == 66 {
            keys.push(Key::from_hex(last_word).unwrap());
        }
        if let Some(address) = line.strip_prefix("Listening on ") {
            let url = format!("http://{}", address.trim());
            // A full pipe would stop it.
            thread::spawn(move || lines.for_each(drop));
            return (url, keys);
        }
        seen.push_str(&line);
        seen.push('\n');
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WHARFAGE_ANVIL") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let npm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/node_modules/@foundry-rs").join(npm_package());
    let candidates = std::env::split_paths(&path).map(|folder| folder.join("anvil")).chain([npm.join("bin/anvil")]);
    candidates.into_iter().find(|file| file.is_file()).unwrap_or_else(|| {
        panic!(
            "these tests need anvil 1.7: run `npm ci --ignore-scripts` in contracts/, or put anvil on the PATH, \
             or name it in WHARFAGE_ANVIL"
        )
    })
}

fn npm_package() -> String {
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    format!("anvil-{system}-{machine}")
}
