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
const ARTIFACTS: [&str; 2] = ["Market", "TestUsdc"];

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

/// Writes `abi/`, or compares it with what the sources compile to.
pub(crate) fn artifacts(check: bool) -> anyhow::Result<()> {
    let folder = tools::contracts_dir();
    println!("compiling the contracts (through JavaScript: this takes a minute) …");
    let compiled = compile(&folder)?;
    let mut drifted = Vec::new();
    for (name, artifact) in compiled {
        let path = folder.join("abi").join(format!("{name}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&artifact)?);
        if !check {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("wrote contracts/abi/{name}.json");
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            drifted.push(format!("contracts/abi/{name}.json"));
        }
    }
    if !drifted.is_empty() {
        bail!("{} differ from the sources: run `cargo xtask contracts` and commit them", drifted.join(", "));
    }
    Ok(())
}

fn compile(folder: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let profile = ReleaseProfile::read(&folder.join("foundry.toml"))?;
    let solc = Solc::new(folder.join("tools/solc")).context("contracts/tools/solc does not run: is node installed?")?;
    let project = project(folder, &profile)?.build(SolcCompiler::Specific(solc))?;
    let files = ARTIFACTS.map(|name| folder.join(format!("src/{name}.sol")));
    let output = project.compile_files(files.clone())?;
    if output.has_compiler_errors() {
        bail!("{output}");
    }
    ARTIFACTS
        .into_iter()
        .zip(files)
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
        .collect()
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
