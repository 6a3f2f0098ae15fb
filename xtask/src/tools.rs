//! Programs that the tasks start, and where things are.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder of the Solidity sources.
pub(crate) fn contracts_dir() -> PathBuf {
    root().join("contracts")
}

/// Installs the pinned Solidity tools and libraries, unless they are there already.
pub(crate) fn install_node_packages() -> anyhow::Result<()> {
    install_packages_of(&contracts_dir())
}

/// Installs what a folder's lock file names, unless it is there already.
pub(crate) fn install_packages_of(folder: &Path) -> anyhow::Result<()> {
    // npm keeps a copy of the lock file that it last installed from.
    let installed = folder.join("node_modules/.wharfage-installed.json");
    let wanted = std::fs::read(folder.join("package-lock.json"))
        .with_context(|| format!("{} has no package-lock.json", folder.display()))?;
    if std::fs::read(&installed).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    // Install scripts would only link binaries that are run by their paths here. Not `npm ci`: it insists on the
    // optional packages of every platform being in the lock file.
    let install = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(install).current_dir(folder)).context("npm is needed: install Node.js 20 or newer")?;
    std::fs::write(&installed, wanted).context("cannot mark the packages as installed")
}

/// The binary `name` (`forge`, `anvil`, `cast`) of the pinned Foundry. The npm shim is not used: it is a Node parent
/// that orphans its child when killed.
pub(crate) fn foundry(name: &str) -> anyhow::Result<PathBuf> {
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let path = contracts_dir().join(format!("node_modules/@foundry-rs/{name}-{os}-{arch}/bin/{name}"));
    if !path.is_file() {
        bail!("{} is missing: delete contracts/node_modules and try again", path.display());
    }
    Ok(path)
}

/// Cargo, as from a shell. `cargo xtask` gives its child the variables of the package `xtask`; build scripts that watch
/// them (`ring`'s does) would make this cargo compile everything above them anew.
pub(crate) fn cargo() -> Command {
    const ABOUT_THE_PACKAGE: [&str; 3] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ABOUT_THE_PACKAGE.iter().any(|start| name.starts_with(start))) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program with its output passed through; fails when it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Runs a program, shows its standard output line by line and gives each line to `see`. Says whether it succeeded.
pub(crate) fn run_watched(command: &mut Command, mut see: impl FnMut(&str)) -> anyhow::Result<bool> {
    let shown = shown(command);
    println!("$ {shown}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
    let output = child.stdout.take().context("the child's output is not captured")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read the child's output")?;
        println!("{line}");
        see(&line);
    }
    Ok(child.wait().with_context(|| format!("cannot wait for {shown}"))?.success())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
