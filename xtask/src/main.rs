//! Tasks of the repository, run as `cargo xtask TASK`.
//!
//! Layout: [`bench`] measures, [`contracts`] compiles the Solidity sources and guards the committed artifacts, [`tests`] runs everything
//! that can fail, [`tools`] installs and starts what the tasks need.

#![expect(clippy::print_stdout, reason = "a task talks to whoever started it")]

mod bench;
mod contracts;
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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Contracts { check } => contracts::run(check),
        Task::Bench(Bench::Gas) => bench::gas::run(),
        Task::Test { only } => tests::run(only),
    }
}
