//! Compiles the contracts with the settings of the `release` profile of `contracts/foundry.toml`, and writes or
//! checks the artifacts in `contracts/abi/` that the Rust bindings and the deployment use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use foundry_compilers::{
    ProjectBuilder, ProjectPathsConfig,
    artifacts::{BytecodeHash, EvmVersion, Optimizer, Settings, SettingsMetadata, remappings::Remapping},
    solc::{CliSettings, Solc, SolcCompiler, SolcLanguage, SolcSettings},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools;

/// Contracts whose artifacts are committed.
const ARTIFACTS: [&str; 3] = ["Market", "MarketExtension", "TestUsdc"];

/// The market answers at one address what two contracts define: its artifact lists the functions of both.
const MARKET: &str = "Market";
const MARKET_EXTENSION: &str = "MarketExtension";

/// Writes, or compares, the artifacts and then the gas snapshot, which is measured on them.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    tools::install_node_packages()?;
    artifacts(check)?;
    tools::run(&mut measure_gas(check)?)
}

/// Runs the gas tests on the bytecode in `abi/`; they write `snapshots/gas.json`, or compare with it.
pub(crate) fn measure_gas(check: bool) -> anyhow::Result<Command> {
    let mut command = Command::new(tools::foundry("forge")?);
    command.arg("test").current_dir(tools::contracts_dir()).env("FOUNDRY_PROFILE", "gas");
    command.env("FORGE_SNAPSHOT_CHECK", check.to_string()).env("FORGE_SNAPSHOT_EMIT", (!check).to_string());
    Ok(command)
}

/// Figures of the committed gas snapshot, by name.
pub(crate) fn gas_snapshot() -> anyhow::Result<BTreeMap<String, u64>> {
    let path = tools::contracts_dir().join("snapshots/gas.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // Forge writes the numbers as text.
    let figures: BTreeMap<String, String> = serde_json::from_str(&text).context("contracts/snapshots/gas.json")?;
    figures
        .into_iter()
        .map(|(key, gas)| Ok((key, gas.parse().context("a figure of contracts/snapshots/gas.json is no number")?)))
        .collect()
}

/// Writes `abi/` and `release/`, or compares them with what the sources compile to.
pub(crate) fn artifacts(check: bool) -> anyhow::Result<()> {
    let folder = tools::contracts_dir();
    println!("compiling the contracts (through JavaScript: this takes a minute) …");
    let compiled = compile(&folder)?;
    let mut drifted = Vec::new();
    for (name, content) in compiled {
        let path = folder.join(&name);
        let text = format!("{}\n", serde_json::to_string_pretty(&content)?);
        if !check {
            let parent = path.parent().context("a file stands in a folder")?;
            std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("wrote contracts/{name}");
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            drifted.push(format!("contracts/{name}"));
        }
    }
    if !drifted.is_empty() {
        bail!("{} differ from the sources: run `cargo xtask contracts` and commit them", drifted.join(", "));
    }
    Ok(())
}

/// Files below `contracts/`: an artifact in `abi/` for each contract, and in `release/` the compiler's standard input that it
/// is made of, for whoever verifies deployed code.
fn compile(folder: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let profile = ReleaseProfile::read(&folder.join("foundry.toml"))?;
    let solc = Solc::new(folder.join("tools/solc")).context("contracts/tools/solc does not run: is node installed?")?;
    let project = project(folder, &profile)?.build(SolcCompiler::Specific(solc))?;
    let files = ARTIFACTS.map(|name| folder.join(format!("src/{name}.sol")));
    let output = project.compile_files(files.clone())?;
    if output.has_compiler_errors() {
        bail!("{output}");
    }
    let mut artifacts: BTreeMap<String, Value> = ARTIFACTS
        .into_iter()
        .zip(files.clone())
        .map(|(name, file)| {
            let artifact = output.find(&file, name).with_context(|| format!("{name} was not compiled"))?;
            let content = json!({
                "abi": artifact.abi,
                "bytecode": { "object": artifact.bytecode.as_ref().map(|code| &code.object) },
                "deployedBytecode": {
                    "object": artifact.deployed_bytecode.as_ref().and_then(|code| code.bytecode.as_ref()).map(|code| &code.object)
                },
            });
            Ok((name.to_owned(), content))
        })
        .collect::<anyhow::Result<_>>()?;
    join_abi(&mut artifacts);
    let mut written: BTreeMap<String, Value> =
        artifacts.into_iter().map(|(name, artifact)| (format!("abi/{name}.json"), artifact)).collect();
    for (name, file) in ARTIFACTS.into_iter().zip(files) {
        let input = project.standard_json_input(&file).with_context(|| format!("no standard input for {name}"))?;
        written.insert(format!("release/{name}.standard-input.json"), serde_json::to_value(input)?);
    }
    Ok(written)
}

/// Adds to the market's ABI what its extension has beyond it, its constructor apart.
fn join_abi(artifacts: &mut BTreeMap<String, Value>) {
    let entries = |artifact: &Value| artifact.get("abi").and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |entry: &Value, kind: &str| entry.get("type").and_then(Value::as_str) == Some(kind);
    let theirs = artifacts.get(MARKET_EXTENSION).map(entries).unwrap_or_default();
    let Some(market) = artifacts.get_mut(MARKET) else { return };
    let mut joined = entries(market);
    // What the fallback answers is listed.
    joined.retain(|entry| !is(entry, "fallback"));
    for entry in theirs {
        if !is(&entry, "constructor") && !joined.contains(&entry) {
            joined.push(entry);
        }
    }
    if let Some(abi) = market.get_mut("abi") {
        *abi = Value::Array(joined);
    }
}

fn project(folder: &Path, profile: &ReleaseProfile) -> anyhow::Result<ProjectBuilder<SolcCompiler>> {
    let remappings = profile
        .remappings
        .iter()
        .map(|text| text.parse::<Remapping>().with_context(|| format!("remapping {text:?} of contracts/foundry.toml")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let paths: ProjectPathsConfig<SolcLanguage> = ProjectPathsConfig::builder()
        .root(folder)
        .sources(folder.join("src"))
        .lib(folder.join("node_modules"))
        .remappings(remappings)
        .build()?;
    let hash: BytecodeHash = profile.bytecode_hash.parse().map_err(anyhow::Error::msg)?;
    let evm: EvmVersion = profile.evm_version.parse().map_err(anyhow::Error::msg)?;
    let settings = Settings {
        optimizer: Optimizer { enabled: Some(profile.optimizer), runs: Some(profile.optimizer_runs), details: None },
        metadata: Some(SettingsMetadata::new(hash, profile.cbor_metadata)),
        evm_version: Some(evm),
        via_ir: Some(profile.via_ir),
        ..Settings::default()
    };
    let settings = SolcSettings { settings, cli_settings: CliSettings::default() };
    Ok(ProjectBuilder::default().paths(paths).settings(settings).ephemeral().no_artifacts())
}

/// The settings that decide the released bytecode: profile `release` over profile `default`.
#[derive(Debug, Deserialize)]
struct ReleaseProfile {
    remappings: Vec<String>,
    evm_version: String,
    optimizer: bool,
    optimizer_runs: usize,
    via_ir: bool,
    bytecode_hash: String,
    cbor_metadata: bool,
}

impl ReleaseProfile {
    fn read(file: &PathBuf) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let config: toml::Table = toml::from_str(&text).context("contracts/foundry.toml")?;
        let profile = |name: &str| {
            let table = config.get("profile").and_then(|profiles| profiles.get(name)).and_then(toml::Value::as_table);
            table.cloned().with_context(|| format!("contracts/foundry.toml has no profile {name}"))
        };
        let mut settings = profile("default")?;
        settings.extend(profile("release")?);
        settings.try_into().context("contracts/foundry.toml lacks a setting of the release profile")
    }
}
