//! Measurements: each prints a table for people and writes `target/bench/NAME.json`, one flat object with units in its
//! keys.

pub(crate) mod gas;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use crate::tools;

/// The indexer, beside a script that has packages of its own.
pub(crate) fn indexer(options: &[String]) -> anyhow::Result<()> {
    tools::install_packages_of(&tools::root().join("tests/bench/script"))?;
    services("indexer", options)
}

/// Builds the measurements of the services and runs the one called `name`, which writes its figures itself.
pub(crate) fn services(name: &str, options: &[String]) -> anyhow::Result<()> {
    tools::install_node_packages()?;
    // Built as the tests are, all packages with their features at once: nothing is compiled twice.
    let build = "test --no-run --release --workspace --bench services --message-format json-render-diagnostics";
    let output = tools::cargo().args(build.split(' ')).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the measurements cannot be built ({})", output.status);
    let built = String::from_utf8(output.stdout)?;
    let messages = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages
        .filter(|message| message.pointer("/target/name").is_some_and(|name| name == "services"))
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .context("cargo built no program called services")?;
    let mut bench = Command::new(program);
    bench.arg(name).args(options).current_dir(tools::root()).env("WHARFAGE_ANVIL", tools::foundry("anvil")?);
    tools::run(&mut bench)
}

/// Writes what a bench has measured; says where.
fn write(name: &str, figures: &Map<String, Value>) -> anyhow::Result<PathBuf> {
    let folder = tools::root().join("target/bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    let text = format!("{}\n", serde_json::to_string_pretty(figures)?);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
