//! The indexer on a long chain, into both databases, beside what any indexer has to do at least: a plain script that
//! fetches ranges of logs and copies them into one table of PostgreSQL, and the same as a compiled program. All of them run
//! in turn, several times, on the same chain; the figures are medians.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use chain::{MarketReader, Rpc};
use clap::{Args, Subcommand};
use common::{ids::Address, shutdown::Shutdown};
use indexer::{Indexer, IndexerConfig, Location, Store};
use migrations::testing::Postgres;
use serde_json::{Map, Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    process::{self, Cost},
    workload,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Events of the market on the chain
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Blocks that they are in
    #[arg(long, default_value_t = 2_000)]
    blocks: u64,
    /// How often everything is run
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/indexer.json")]
    out: PathBuf,
}

/// Where the chain is.
#[derive(Args, Clone)]
pub(crate) struct Chain {
    #[arg(long)]
    rpc: String,
    #[arg(long)]
    market: Address,
    #[arg(long)]
    from: u64,
    #[arg(long)]
    to: u64,
    #[arg(long)]
    database: String,
}

#[derive(Subcommand)]
pub(crate) enum Contestant {
    /// The indexer, until it is at the head
    Index(Chain),
    /// Projects the stored events anew
    Rebuild(Chain),
    /// Fetches logs and copies them into a table, as the script does
    Compiled(Chain),
}

impl Contestant {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let cost = match self {
            Self::Index(chain) => index(chain).await?,
            Self::Rebuild(chain) => rebuild(chain).await?,
            Self::Compiled(chain) => compiled(chain).await?,
        };
        println!("{}", serde_json::to_string(&cost)?);
        Ok(())
    }
}

async fn index(chain: Chain) -> anyhow::Result<Cost> {
    let location: Location = chain.database.parse().map_err(anyhow::Error::msg)?;
    let reader = MarketReader::connect(Rpc::new(&[chain.rpc])?, chain.market, Some(chain.from)).await?;
    let began = Instant::now();
    let mut config = IndexerConfig::new(location.clone());
    config.poll_interval = Duration::from_millis(50);
    let shutdown = Shutdown::new();
    let indexer = Indexer::start(reader, config, shutdown.clone()).await?;
    let mut committed = indexer.subscribe();
    committed.wait_for(|block| block.is_some_and(|block| block.number >= chain.to)).await?;
    let seconds = began.elapsed().as_secs_f64();
    shutdown.cancel();
    indexer.stopped().await?;
    Cost::so_far(seconds, events_in(&location, "events").await?)
}

async fn rebuild(chain: Chain) -> anyhow::Result<Cost> {
    let location: Location = chain.database.parse().map_err(anyhow::Error::msg)?;
    let store = Store::open(&location).await?;
    let began = Instant::now();
    store.rebuild(|_, _| ()).await?;
    Cost::so_far(began.elapsed().as_secs_f64(), events_in(&location, "events").await?)
}

async fn events_in(location: &Location, table: &'static str) -> anyhow::Result<u64> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    let count: i64 = match location {
        Location::Sqlite(path) => {
            let mut db = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
            sqlx::query_scalar(sql).fetch_one(&mut db).await?
        }
        Location::Postgres(url) => sqlx::query_scalar(sql).fetch_one(&mut PgConnection::connect(url).await?).await?,
    };
    Ok(u64::try_from(count)?)
}

/// The script in Rust: ranges of 100 blocks, one after the other, as they come.
async fn compiled(chain: Chain) -> anyhow::Result<Cost> {
    let client = reqwest::Client::new();
    let mut db = PgConnection::connect(&chain.database).await?;
    sqlx::raw_sql(
        "CREATE TABLE logs (block BIGINT, block_hash TEXT, log_index BIGINT, tx TEXT, topics TEXT, data TEXT)",
    )
    .execute(&mut db)
    .await?;
    let began = Instant::now();
    let mut from = chain.from;
    while from <= chain.to {
        let to = chain.to.min(from.saturating_add(99));
        let request = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_getLogs",
            "params": [{ "address": chain.market, "fromBlock": format!("{from:#x}"), "toBlock": format!("{to:#x}") }],
        });
        let answer: Value = client.post(&chain.rpc).json(&request).send().await?.json().await?;
        let mut copy = db.copy_in_raw("COPY logs FROM STDIN").await?;
        for log in answer.get("result").and_then(Value::as_array).context("no logs")? {
            let text = |key: &str| log.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let number = |key: &str| u64::from_str_radix(text(key).trim_start_matches("0x"), 16);
            let row = format!(
                "{}\t{}\t{}\t{}\t{}\t{}\n",
                number("blockNumber")?,
                text("blockHash"),
                number("logIndex")?,
                text("transactionHash"),
                log.get("topics").unwrap_or(&Value::Null),
                text("data"),
            );
            copy.send(row.as_bytes()).await?;
        }
        copy.finish().await?;
        from = to.saturating_add(1);
    }
    let seconds = began.elapsed().as_secs_f64();
    let location = Location::Postgres(chain.database.clone());
    Cost::so_far(seconds, events_in(&location, "logs").await?)
}

/// Runs everything and writes the figures.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    eprintln!("building a chain of {} events in {} blocks …", options.events, options.blocks);
    let workload = workload::build(options.events, options.blocks).await?;
    let postgres = Postgres::shared();
    let folder = tempfile::tempdir()?;
    let mut costs: [Vec<Cost>; 6] = Default::default();
    for round in 0..options.rounds {
        let sqlite = folder.path().join(format!("{round}.db")).display().to_string();
        let (server, scripts, compiled) =
            (postgres.database().await, postgres.database().await, postgres.database().await);
        let runs = [
            ("script", &scripts),
            ("compiled", &compiled),
            ("index", &sqlite),
            ("index", &server),
            ("rebuild", &sqlite),
            ("rebuild", &server),
        ];
        for ((what, database), costs) in runs.into_iter().zip(&mut costs) {
            let cost = match what {
                "script" => script(&workload, database).await?,
                _ => process::run(&arguments(&workload, what, database)).await?,
            };
            eprintln!(
                "{what} into {}: {cost:?}",
                if database.starts_with("postgres") { "PostgreSQL" } else { "SQLite" }
            );
            anyhow::ensure!(cost.events == workload.events, "{what} stored {} events", cost.events);
            costs.push(cost);
        }
    }
    report(options, &workload, &costs)
}

/// Prints the figures and writes them.
fn report(options: &Options, workload: &workload::Workload, costs: &[Vec<Cost>; 6]) -> anyhow::Result<()> {
    let mut found: Map<String, Value> = Map::new();
    let names = ["floor", "compiled_floor", "sqlite", "postgres", "sqlite_rebuild", "postgres_rebuild"];
    println!(
        "{:<18}{:>10}{:>12}{:>14}{:>10}{:>12}{:>14}",
        "", "seconds", "events/s", "CPU s/100k", "MiB", "of floor", "of compiled"
    );
    let [floor, compiled, ..] = costs;
    let (floor, compiled) = (rate(floor), rate(compiled));
    let (mut most_cpu, mut most_memory) = (0.0_f64, 0.0_f64);
    for (name, costs) in names.into_iter().zip(costs) {
        let rate = rate(costs);
        let cpu = median(costs.iter().map(|cost| cost.cpu_seconds * 100_000.0 / cost.events as f64));
        let peak = median(costs.iter().map(|cost| cost.peak_mib));
        let seconds = median(costs.iter().map(|cost| cost.seconds));
        println!(
            "{name:<18}{seconds:>10.2}{rate:>12.0}{cpu:>14.2}{peak:>10.1}{:>12.2}{:>14.2}",
            rate / floor,
            rate / compiled
        );
        found.insert(format!("{name}_events_per_second"), rate.into());
        found.insert(format!("{name}_seconds"), seconds.into());
        found.insert(format!("{name}_cpu_seconds_per_100k_events"), cpu.into());
        found.insert(format!("{name}_peak_mib"), peak.into());
        found.insert(format!("{name}_over_floor"), (rate / floor).into());
        found.insert(format!("{name}_over_compiled_floor"), (rate / compiled).into());
        if ["sqlite", "postgres"].contains(&name) {
            (most_cpu, most_memory) = (most_cpu.max(cpu), most_memory.max(peak));
        }
    }
    // Of indexing into the dearer of the two databases.
    found.insert("cpu_seconds_per_100k_events".to_owned(), most_cpu.into());
    found.insert("peak_mib".to_owned(), most_memory.into());
    found.insert("events_count".to_owned(), workload.events.into());
    found.insert("blocks_count".to_owned(), options.blocks.into());
    found.insert("rounds_count".to_owned(), options.rounds.into());
    if let Some(parent) = options.out.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&options.out, format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    println!("wrote {}", options.out.display());
    Ok(())
}

/// The script, in a Node of its own.
async fn script(workload: &workload::Workload, database: &str) -> anyhow::Result<Cost> {
    let terms = workload.market.reader.terms();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/script/floor.mjs");
    let (rpc, market) = (workload.market.anvil.url(), workload.market.market.to_string());
    let (from, to) = (terms.deployed_at_block.to_string(), workload.head.to_string());
    process::run_program(Path::new("node"), &[file, &rpc, &market, &from, &to, database].map(str::to_owned)).await
}

fn arguments(workload: &workload::Workload, what: &str, database: &str) -> Vec<String> {
    let terms = workload.market.reader.terms();
    let (from, to) = (terms.deployed_at_block.to_string(), workload.head.to_string());
    let (rpc, market) = (workload.market.anvil.url(), workload.market.market.to_string());
    ["contestant", what, "--rpc", &rpc, "--market", &market, "--from", &from, "--to", &to, "--database", database]
        .map(str::to_owned)
        .to_vec()
}

fn rate(costs: &[Cost]) -> f64 {
    median(costs.iter().map(|cost| cost.events as f64 / cost.seconds))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
