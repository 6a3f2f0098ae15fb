//! Finds anvil, or fetches the pinned one through npm into an ignored folder.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use tokio::process::Command;

/// The version that the project is tested with.
pub(crate) const ANVIL_VERSION: &str = "1.7.1";

/// Path of an anvil: `WHARFAGE_ANVIL`, one on the PATH, one fetched before, or one fetched now.
pub(crate) async fn find_anvil(tools_dir: &Path, progress: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("WHARFAGE_ANVIL") {
        let path = PathBuf::from(named);
        if !path.is_file() {
            bail!("WHARFAGE_ANVIL names {}, which is no file: correct it or unset it", path.display());
        }
        return Ok(path);
    }
    if let Some(path) = on_path("anvil") {
        return Ok(path);
    }
    let fetched = fetched_anvil(tools_dir)?;
    if !fetched.is_file() {
        progress(&format!("fetching anvil {ANVIL_VERSION} through npm into {}", tools_dir.display()));
        fetch_anvil(tools_dir).await?;
    }
    if !fetched.is_file() {
        bail!(
            "npm installed @foundry-rs/anvil {ANVIL_VERSION}, but {} is missing: install Foundry yourself \
             (https://getfoundry.sh) and put anvil on the PATH",
            fetched.display()
        );
    }
    Ok(fetched)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// npm ships one package for each platform; its shim is a Node parent that orphans anvil when killed, so the binary
/// itself is run.
fn fetched_anvil(tools_dir: &Path) -> anyhow::Result<PathBuf> {
    let os = match std::env::consts::OS {
        "linux" => "linux",
        "macos" => "darwin",
        other => bail!("no prebuilt anvil for {other}: install Foundry and put anvil on the PATH"),
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no prebuilt anvil for {other}: install Foundry and put anvil on the PATH"),
    };
    Ok(tools_dir.join(format!("node_modules/@foundry-rs/anvil-{os}-{arch}/bin/anvil")))
}

async fn fetch_anvil(tools_dir: &Path) -> anyhow::Result<()> {
    let Some(npm) = on_path("npm") else {
        bail!(
            "neither anvil nor npm is on the PATH: install Node.js 20 or newer (it brings npm, which fetches anvil \
             {ANVIL_VERSION}), or install Foundry (https://getfoundry.sh)"
        );
    };
    tokio::fs::create_dir_all(tools_dir).await.with_context(|| format!("cannot create {}", tools_dir.display()))?;
    let output = Command::new(npm)
        .args(["install", "--prefix"])
        .arg(tools_dir)
        .args(["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .arg(format!("@foundry-rs/anvil@{ANVIL_VERSION}"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run npm")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("npm could not fetch anvil {ANVIL_VERSION} ({}): {}", output.status, said.trim());
    }
    Ok(())
}
