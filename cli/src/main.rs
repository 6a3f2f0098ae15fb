//! The command `wharfage`.

mod client;
mod commands;
mod demo;
mod explanation;
mod ledger;
mod local;
mod market;
mod output;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use common::telemetry::{self, LogFormat};

use crate::output::Output;

/// An open market for hosting WebAssembly workers.
#[derive(Debug, Parser)]
#[command(name = "wharfage", version, about, propagate_version = true)]
struct Cli {
    /// Answer with JSON on standard output; everything else goes to standard error
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play one deal's life on a local market, for real, in about a minute
    Demo(demo::DemoArgs),
    /// Keep a local market running to play with
    Up(up::UpArgs),
    #[command(flatten)]
    Client(commands::Command),
}

fn main() -> ExitCode {
    // Before any thread: an agent's workers run in processes of this same program.
    provider_agent::run_if_sandboxed().unwrap_or_else(run)
}

#[tokio::main]
async fn run() -> ExitCode {
    let cli = Cli::parse();
    // A story is not interrupted by routine; services log what they do.
    let filter = if matches!(cli.command, Command::Demo(_) | Command::Up(_)) { "warn" } else { "info" };
    telemetry::init_logs(filter, LogFormat::Text);
    let output = Output::new(cli.json);
    let result = match cli.command {
        Command::Demo(args) => demo::run(args, cli.json).await.map(|()| ExitCode::SUCCESS),
        Command::Up(args) => up::run(args, cli.json).await.map(|()| ExitCode::SUCCESS),
        Command::Client(command) => commands::run(command, &output).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => output.fail(&error),
    }
}
