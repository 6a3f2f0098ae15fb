//! Symbolic proofs of the contracts with Halmos, which is installed into `target/` once.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail, ensure};

use crate::tools;

/// What the proofs said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    passed: usize,
    /// Lines that say that something does not hold, or was not looked at as a whole.
    doubts: Vec<String>,
}

impl Verdict {
    /// `[PASS] check_X() (paths: 3, …)`, `[FAIL] …`, `[TIMEOUT] …`, `[ERROR] …`, `WARNING … loop …`
    fn see(&mut self, line: &str) {
        let plain = plain(line);
        let line = plain.trim();
        if line.starts_with("[PASS]") {
            self.passed = self.passed.saturating_add(1);
        } else if ["[FAIL]", "[TIMEOUT]", "[ERROR]", "WARNING", "ERROR"].iter().any(|word| line.starts_with(word)) {
            self.doubts.push(line.to_owned());
        }
    }
}

/// The line without the colours that Halmos gives it.
fn plain(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// Runs all proofs, or those whose names match the regular expression `only`.
pub(crate) fn run(only: Option<&str>) -> anyhow::Result<()> {
    tools::install_node_packages()?;
    let forge = tools::foundry("forge")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = forge.parent().map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    let mut halmos = Command::new(install()?);
    halmos
        .current_dir(tools::contracts_dir())
        .env("PATH", std::env::join_paths(folders)?)
        // A build of its own: Halmos needs the syntax tree, and tests that are not linked at run time.
        .env("FOUNDRY_TEST", "test/proofs")
        .env("FOUNDRY_OUT", "out/proofs")
        .env("FOUNDRY_CACHE_PATH", "cache/proofs")
        .env("FOUNDRY_DYNAMIC_TEST_LINKING", "false")
        // Milliseconds for one question: answers take seconds, but a busy machine is no reason for a proof to fail.
        .args(["--solver-timeout-assertion", "1200000"])
        .args(["--match-contract", "Proof$", "--forge-build-out", "out/proofs", "--no-status"]);
    if let Some(only) = only {
        halmos.args(["--match-test", only]);
    }
    let mut verdict = Verdict::default();
    let green = tools::run_watched(&mut halmos, |line| verdict.see(line))?;
    ensure!(verdict.doubts.is_empty(), "not proved:\n{}", verdict.doubts.join("\n"));
    ensure!(green, "Halmos failed");
    ensure!(verdict.passed > 0, "no proof was run");
    println!("{} proofs hold", verdict.passed);
    Ok(())
}

/// The pinned Halmos in a Python environment of its own; says where its program is.
fn install() -> anyhow::Result<PathBuf> {
    let wanted = tools::contracts_dir().join("test/proofs/requirements.txt");
    let text = std::fs::read(&wanted).with_context(|| format!("{} is missing", wanted.display()))?;
    let folder = tools::root().join("target/halmos");
    let (program, mark) = (folder.join("bin/halmos"), folder.join("installed-requirements.txt"));
    if program.is_file() && std::fs::read(&mark).is_ok_and(|installed| installed == text) {
        return Ok(program);
    }
    let python = ["python3.13", "python3.12", "python3.11", "python3"].into_iter().find(|name| is_recent(name));
    let Some(python) = python else { bail!("Halmos needs Python 3.11 or newer: install it and try again") };
    tools::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    tools::run(Command::new(folder.join("bin/python")).args(install).arg(&wanted)).context("cannot install Halmos")?;
    std::fs::write(&mark, text).context("cannot mark Halmos as installed")?;
    Ok(program)
}

fn is_recent(python: &str) -> bool {
    let check = "import sys; sys.exit(sys.version_info < (3, 11))";
    Command::new(python).args(["-c", check]).output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn a_proof_that_did_not_look_at_everything_is_a_doubt() {
        let mut verdict = Verdict::default();
        verdict.see("[PASS] check_Something(uint256) (paths: 5, time: 1.2s, bounds: [])");
        verdict.see("Running 3 tests for test/proofs/WordsProof.sol:WordsProof");
        assert_eq!(verdict, Verdict { passed: 1, doubts: Vec::new() });
        verdict.see("WARNING  check_Something(uint256): paths have not been fully explored due to the loop bound: 2");
        verdict.see("\u{20}[FAIL] check_Other() (paths: 1)");
        verdict.see("\u{1b}[33m[TIMEOUT]\u{1b}[0m check_Third() (paths: 1)");
        assert_eq!(verdict.doubts.len(), 3);
    }
}
