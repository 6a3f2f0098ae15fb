//! Everything that can fail, in one command: Solidity first, since its artifacts feed the rest, then all Rust tests,
//! the end-to-end ones among them.

use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::{contracts, tools};

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Formatting, drift, unit, fuzz and invariant tests and the gas snapshot of the contracts.
    Solidity,
    /// All Rust tests, end to end included; builds the sample workers first.
    Rust,
}

/// Sums of what the test runners reported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub(crate) fn run(only: Option<Part>) -> anyhow::Result<()> {
    tools::install_node_packages()?;
    let mut totals = Totals::default();
    let mut broken = Vec::new();
    if only.is_none_or(|part| part == Part::Solidity) {
        broken.extend(solidity(&mut totals)?);
    }
    if only.is_none_or(|part| part == Part::Rust) {
        broken.extend(rust(&mut totals)?);
    }
    println!();
    let Totals { passed, failed, skipped } = totals;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if passed == 0 {
        bail!("no test was run");
    }
    if !broken.is_empty() || failed > 0 {
        bail!("not green: {}", broken.join(", "));
    }
    Ok(())
}

fn solidity(totals: &mut Totals) -> anyhow::Result<Vec<&'static str>> {
    let forge = tools::foundry("forge")?;
    let folder = tools::contracts_dir();
    let forge = |args: &[&str]| {
        let mut command = Command::new(&forge);
        command.args(args).current_dir(&folder);
        command
    };
    let mut broken = Vec::new();
    tools::run(&mut forge(&["fmt", "--check"]))?;
    if let Err(error) = contracts::artifacts(true) {
        eprintln!("{error:#}");
        broken.push("committed artifacts");
    }
    if !tools::run_watched(&mut forge(&["test"]), |line| totals.see_forge(line))? {
        broken.push("forge test");
    }
    if !tools::run_watched(&mut contracts::measure_gas(true)?, |line| totals.see_forge(line))? {
        broken.push("gas snapshot");
    }
    Ok(broken)
}

fn rust(totals: &mut Totals) -> anyhow::Result<Vec<&'static str>> {
    let guests = tools::root().join("tests/guests");
    tools::run(Command::new("bash").arg(guests.join("build.sh"))).context("the sample workers cannot be built")?;
    // With the release profile of the product itself, so that everything is built once.
    let mut cargo = tools::cargo();
    cargo.args(["test", "--release", "--workspace", "--no-fail-fast"]).env("WHARFAGE_ANVIL", tools::foundry("anvil")?);
    let green = tools::run_watched(&mut cargo, |line| totals.see_cargo(line))?;
    Ok(if green { Vec::new() } else { vec!["cargo test"] })
}

impl Totals {
    /// `test result: ok. 12 passed; 0 failed; 0 ignored; …`
    fn see_cargo(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.add(counts, [" passed", " failed", " ignored"]);
        }
    }

    /// `Ran 9 test suites in 1.2s (3.4s CPU time): 80 tests passed, 0 failed, 0 skipped (80 total tests)`
    fn see_forge(&mut self, line: &str) {
        if line.starts_with("Ran ") && line.contains(" total tests)") {
            self.add(line, [" tests passed", " failed", " skipped"]);
        }
    }

    fn add(&mut self, line: &str, [passed, failed, skipped]: [&str; 3]) {
        self.passed = self.passed.saturating_add(count_before(line, passed));
        self.failed = self.failed.saturating_add(count_before(line, failed));
        self.skipped = self.skipped.saturating_add(count_before(line, skipped));
    }
}

/// The number that stands right before `word`; 0 where there is none.
fn count_before(line: &str, word: &str) -> u64 {
    let before = line.find(word).and_then(|at| line.get(..at)).unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn totals_are_read_off_the_runners_closing_lines() {
        let mut totals = Totals::default();
        totals
            .see_cargo("test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        totals.see_cargo("running 12 tests");
        totals.see_forge(
            "Ran 9 test suites in 1.20s (3.40s CPU time): 80 tests passed, 3 failed, 0 skipped (83 total tests)",
        );
        totals.see_forge("Ran 3 tests for test/Escrow.t.sol:EscrowTest");
        assert_eq!(totals, Totals { passed: 92, failed: 4, skipped: 2 });
    }
}
