//! Tasks of the repository, run as `cargo xtask TASK`.
//!
//! Layout: [`bench`] measures, [`contracts`] compiles the Solidity sources and guards the committed artifacts, [`proofs`]
//! proves parts of them, [`tests`] runs everything that can fail, [`tools`] installs and starts what the tasks need.

#![expect(clippy::print_stdout, reason = "a task talks to whoever started it")]

mod bench;
mod contracts;
mod proofs;
mod tests;
mod tools;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Wharfage repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the contracts and measure their gas: writes `contracts/abi/` and `contracts/snapshots/`, or compares.
    #[command(after_help = "Examples:\n  cargo xtask contracts\n  cargo xtask contracts --check")]
    Contracts {
        /// Write nothing; fail when the committed artifacts differ from the sources.
        #[arg(long)]
        check: bool,
    },
    /// Measure something, print a table and write `target/bench/NAME.json`.
    #[command(subcommand, after_help = "Example:\n  cargo xtask bench gas")]
    Bench(Bench),
    /// Prove parts of the contracts with Halmos, which needs Python 3.11 or newer and is installed into `target/`.
    #[command(after_help = "Examples:\n  cargo xtask prove\n  cargo xtask prove --only CostIsAdditive")]
    Prove {
        /// Only proofs whose names, behind `check_`, match this regular expression.
        #[arg(long, value_name = "REGEX")]
        only: Option<String>,
    },
    /// Install what the tests need and run all of them: Solidity, Rust, end to end.
    #[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only solidity")]
    Test {
        /// Run one part alone.
        #[arg(long, value_enum)]
        only: Option<tests::Part>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Gas of the market's transactions, beside that of existing markets and the ceilings.
    Gas,
    /// Speed of the indexer into SQLite and PostgreSQL, beside a plain fetch-and-COPY script, and the same compiled.
    #[command(after_help = "Example:\n  cargo xtask bench indexer --events 20000 --blocks 400 --rounds 1")]
    Indexer {
        /// Passed on; `--help` lists what there is.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The matching engine on public workloads: welfare beside proven bounds, time of each operation, a trace.
    #[command(after_help = "Example:\n  cargo xtask bench matching --data ../shared/data --offers 10000,100000")]
    Matching {
        /// Passed on; `--help` lists what there is.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// What a block costs the market that a matcher keeps, in markets of any size.
    #[command(after_help = "Example:\n  cargo xtask bench tick --offers 100000,1000000 --index")]
    Tick {
        /// Passed on; `--help` lists what there is.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Contracts { check } => contracts::run(check),
        Task::Bench(Bench::Gas) => bench::gas::run(),
        Task::Bench(Bench::Indexer { options }) => bench::indexer(&options),
        Task::Bench(Bench::Matching { options }) => bench::services("matching", &options),
        Task::Bench(Bench::Tick { options }) => bench::services("tick", &options),
        Task::Prove { only } => proofs::run(only.as_deref()),
        Task::Test { only } => tests::run(only),
    }
}
