//! `wharfage demo`: one deal's life, for real, in about a minute.
//!
//! Layout: [`story`] prints and remembers the steps, `acts` are the steps, [`report`] is what programs get.

mod acts;
pub(crate) mod report;
pub(crate) mod story;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use common::shutdown;

use self::{acts::Stage, report::Report, story::Story};
use crate::local::{LocalOptions, Ports};

/// Options of `wharfage demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharfage demo\n  wharfage demo --keep\n  wharfage demo --worker my-worker.wasm --json"
)]
pub(crate) struct DemoArgs {
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// A WASI 0.2 HTTP component to deploy instead of the built-in one
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// Folder for chain state, databases and logs [default: a temporary one, deleted at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder that anvil is fetched to when none is on the PATH
    #[arg(long, value_name = "DIR", default_value = ".wharfage/tools")]
    tools_dir: PathBuf,
    /// Length of an epoch in seconds; longer is safer on a busy machine, shorter is faster
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=3_600))]
    epoch_seconds: u32,
}

/// Plays the story. With `json` the report goes to standard output and the story to standard error.
pub(crate) async fn run(args: DemoArgs, json: bool) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signals()?;
    let worker = read_worker(args.worker.as_deref()).await?;
    let scratch = tempfile::Builder::new().prefix("wharfage-demo-").tempdir().context("no temporary folder")?;
    let options = LocalOptions {
        data_dir: args.data_dir.clone().unwrap_or_else(|| scratch.path().to_path_buf()),
        database: None,
        tools_dir: std::path::absolute(&args.tools_dir)?,
        ports: Ports::free()?,
        block_seconds: 1,
        epoch_seconds: args.epoch_seconds,
    };
    anyhow::ensure!(
        !options.data_dir.join("market.json").exists(),
        "{} holds a market already: name an empty folder with --data-dir, or play on with `wharfage up`",
        options.data_dir.display()
    );
    let mut stage = Stage::new(Story::begin(json), options, worker);
    let played = tokio::select! {
        played = stage.play() => played.map(Some),
        () = shutdown.cancelled() => Ok(None),
    };
    let outcome = match played {
        Ok(Some(report)) => {
            finish(&stage, &report, json)?;
            if args.keep {
                stage.story().say("\nEverything keeps running; Ctrl-C ends it.");
                shutdown.cancelled().await;
            }
            report.ledger.ensure_conserved()
        }
        Ok(None) => Err(anyhow::anyhow!("interrupted; everything that was started is being stopped")),
        Err(error) => {
            let kept = scratch.keep();
            let place = args.data_dir.unwrap_or(kept);
            stage.stop().await?;
            return Err(error.context(format!("the demo did not get to its end; logs are in {}", place.display())));
        }
    };
    stage.stop().await?;
    outcome
}

#[expect(clippy::print_stdout, reason = "the report is this command's answer")]
fn finish(stage: &Stage, report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        stage.story().heading("Every atom accounted for");
        report.ledger.lines().iter().for_each(|line| stage.story().say(&format!("  {line}")));
    }
    Ok(())
}

/// The worker to deploy: the caller's, or the one that every build carries.
async fn read_worker(file: Option<&std::path::Path>) -> anyhow::Result<Vec<u8>> {
    match file {
        None => Ok(include_bytes!("../../assets/hello.wasm").to_vec()),
        Some(file) => tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display())),
    }
}
