//! What the market's transactions cost, beside the best of the existing markets on EVM chains and beside the ceilings.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use super::write;
use crate::{contracts, tools};

/// A figure: its key, what it is, the best of the existing markets, and the most that it may be.
struct Figure {
    key: &'static str,
    what: &'static str,
    /// Whole transactions with a plain ERC-20; `None` where no existing market has the like.
    best_existing: Option<u64>,
    ceiling: u64,
}

const FIGURES: [Figure; 10] = [
    figure("register_provider_gas", "register a provider and its first capacity", Some(52_527), 60_000),
    figure("open_first_replica_gas", "demand to first replica, both signed", Some(350_431), 150_000),
    figure("open_next_replica_gas", "each further replica in the same match", Some(350_431), 75_000),
    figure("attest_gas", "attest an epoch, any number of deals", None, 40_000),
    figure("settle_one_gas", "settle one deal, 1 epoch", Some(61_494), 55_000),
    figure("settle_one_1000_epochs_gas", "settle one deal, 1,000 epochs", Some(61_494), 55_000),
    figure("settle_batch10_each_gas", "settle ten deals at once, each", None, 15_000),
    figure("deposit_again_gas", "deposit again", Some(56_078), 50_000),
    figure("withdraw_gas", "withdraw", Some(61_031), 45_000),
    figure("cancel_gas", "cancel a deal", Some(73_773), 60_000),
];

const fn figure(key: &'static str, what: &'static str, best_existing: Option<u64>, ceiling: u64) -> Figure {
    Figure { key, what, best_existing, ceiling }
}

/// Measures the bytecode in `contracts/abi/` anew, prints the table and writes `target/bench/gas.json` with every figure of
/// the snapshot.
pub(crate) fn run() -> anyhow::Result<()> {
    tools::install_node_packages()?;
    tools::run(&mut contracts::measure_gas(false)?)?;
    let measured = contracts::gas_snapshot()?;
    println!("\n{}", table(&measured)?);
    let figures: Map<String, Value> = measured.iter().map(|(key, gas)| (key.clone(), Value::from(*gas))).collect();
    println!("wrote {}", write("gas", &figures)?.display());
    Ok(())
}

fn table(measured: &BTreeMap<String, u64>) -> anyhow::Result<String> {
    let mut lines =
        vec![format!("{:<44} {:>14} {:>10} {:>10}", "gas, whole transaction", "best existing", "ceiling", "here")];
    for Figure { key, what, best_existing, ceiling } in FIGURES {
        let gas = *measured.get(key).with_context(|| format!("the gas tests record no {key}"))?;
        ensure!(gas > 0, "{key} is 0: nothing was measured");
        let best = best_existing.map_or_else(|| "-".to_owned(), thousands);
        let over = if gas > ceiling { "  over the ceiling" } else { "" };
        lines.push(format!("{what:<44} {best:>14} {:>10} {:>10}{over}", thousands(ceiling), thousands(gas)));
    }
    Ok(lines.join("\n"))
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len().saturating_sub(place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let written = [0, 12, 999, 1_000, 52_527, 1_234_567].map(thousands);
        assert_eq!(written, ["0", "12", "999", "1,000", "52,527", "1,234,567"]);
    }

    #[test]
    fn a_figure_that_was_not_measured_or_is_over_its_ceiling_is_told() {
        let mut measured: BTreeMap<String, u64> = FIGURES.iter().map(|figure| (figure.key.to_owned(), 1)).collect();
        measured.insert("attest_gas".to_owned(), 40_001);
        let text = table(&measured).unwrap();
        assert_eq!(text.lines().filter(|line| line.ends_with("over the ceiling")).count(), 1);
        measured.remove("withdraw_gas");
        assert!(table(&measured).unwrap_err().to_string().contains("withdraw_gas"));
    }
}
