//! Measurements of the services. `cargo xtask bench NAME` builds and starts this and says where the figures went.
//!
//! Layout: [`indexer`] holds the indexer beside a plain script; [`workload`] makes the chain that both read;
//! [`process`] runs one contestant in a process of its own and reads what it cost; [`matching`] measures the matching
//! engine on public workloads, [`tick`] what a block costs the market that a matcher keeps.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement talks to whoever started it")]
#![expect(clippy::unwrap_used, clippy::float_arithmetic, reason = "a measurement that fails says where; no money here")]

mod indexer;
mod matching;
mod process;
mod tick;
mod workload;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Measurements of Wharfage's services")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Index a long chain into SQLite and PostgreSQL, beside a plain fetch-and-COPY script
    Indexer(indexer::Options),
    /// Match public workloads: welfare beside proven bounds, and the time of each operation
    Matching(matching::Options),
    /// Follow a chain with the market that a matcher keeps, and the time of each block
    Tick(tick::Options),
    /// One contestant, in a process of its own
    #[command(hide = true, subcommand)]
    Contestant(indexer::Contestant),
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Indexer(options) => indexer::run(&options).await,
        What::Matching(options) => matching::run(&options),
        What::Tick(options) => tick::run(&options).await,
        What::Contestant(contestant) => contestant.run().await,
    }
}
