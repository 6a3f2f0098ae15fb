//! What was compared and what differs, for people and for programs.

use std::{collections::BTreeMap, fmt::Display};

use common::{event::BlockRef, ids::Address};
use indexer::view::WideAtoms;
use serde::Serialize;
use serde_json::Value;

use super::diff::{Mismatch, mismatches};

/// The name under which comparisons with the contract's storage are counted.
pub(in super::super) const CONTRACT: &str = "contract";

/// One thing that is compared.
#[derive(Debug, Clone)]
pub(in super::super) struct Subject<'a> {
    /// [`CONTRACT`], or the URL of an indexer.
    pub(in super::super) against: &'a str,
    /// Its kind.
    pub(in super::super) what: &'static str,
    /// Which one.
    pub(in super::super) id: String,
}

impl<'a> Subject<'a> {
    pub(in super::super) fn new(against: &'a str, what: &'static str, id: impl Display) -> Self {
        Self { against, what, id: id.to_string() }
    }
}

/// One field that is not what the events add up to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Difference {
    pub(in super::super) against: String,
    pub(in super::super) what: &'static str,
    pub(in super::super) id: String,
    /// Dotted path; empty for the thing as a whole.
    pub(in super::super) field: String,
    pub(in super::super) from_events: Value,
    pub(in super::super) found: Value,
}

/// How many things of a kind were compared, and how many of their fields differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Tally {
    pub(in super::super) compared: u64,
    pub(in super::super) differences: u64,
}

/// Counts everything and keeps the first differences.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Findings {
    limit: usize,
    tallies: BTreeMap<(String, &'static str), Tally>,
    kept: Vec<Difference>,
    total: u64,
}

impl Findings {
    /// Keeps `limit` differences.
    pub(in super::super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Compares one thing.
    pub(in super::super) fn compare(&mut self, subject: &Subject<'_>, expected: &Value, found: &Value) {
        self.compared(subject);
        for Mismatch { field, expected, found } in mismatches(expected, found) {
            self.differs(subject, field, expected, found);
        }
    }

    /// Counts one thing as compared.
    pub(in super::super) fn compared(&mut self, subject: &Subject<'_>) {
        let tally = self.tally(subject);
        tally.compared = tally.compared.saturating_add(1);
    }

    /// Notes a difference of a thing that was counted.
    pub(in super::super) fn differs(
        &mut self,
        subject: &Subject<'_>,
        field: impl Into<String>,
        from_events: Value,
        found: Value,
    ) {
        let tally = self.tally(subject);
        tally.differences = tally.differences.saturating_add(1);
        self.total = self.total.saturating_add(1);
        if self.kept.len() < self.limit {
            self.kept.push(Difference {
                against: subject.against.to_owned(),
                what: subject.what,
                id: subject.id.clone(),
                field: field.into(),
                from_events,
                found,
            });
        }
    }

    fn tally(&mut self, subject: &Subject<'_>) -> &mut Tally {
        self.tallies.entry((subject.against.to_owned(), subject.what)).or_default()
    }
}

/// Where the contract's tokens are, by its own storage. `held = free + locked + bonds + surplus`, unless some are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Money {
    /// Sum of free balances.
    pub(in super::super) free: WideAtoms,
    /// Sum of locks.
    pub(in super::super) locked: WideAtoms,
    /// Sum of bonds.
    pub(in super::super) bonds: WideAtoms,
    /// The sum of the three.
    pub(in super::super) owed: WideAtoms,
    /// Tokens of the contract, by the token.
    pub(in super::super) held: WideAtoms,
    /// What it holds and owes nobody: tokens that somebody sent it without a deposit.
    pub(in super::super) surplus: WideAtoms,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct ComparedRow {
    against: String,
    what: &'static str,
    #[serde(flatten)]
    tally: Tally,
}

/// The block that was audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct AuditedBlock {
    #[serde(flatten)]
    pub(in super::super) block: BlockRef,
    #[serde(rename = "final")]
    pub(in super::super) is_final: bool,
}

/// The answer of the command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Report {
    /// Whether everything is as the events say.
    equal: bool,
    market: Address,
    chain_id: u64,
    audited_block: AuditedBlock,
    /// First block that was read.
    from_block: u64,
    /// Last block that was read: an indexer may have answered for later ones than the audited one.
    to_block: u64,
    events: u64,
    money: Money,
    compared: Vec<ComparedRow>,
    /// Differences in all; `differences` holds the first ones.
    difference_count: u64,
    differences: Vec<Difference>,
}

/// What was audited.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Scope {
    pub(in super::super) market: Address,
    pub(in super::super) chain_id: u64,
    pub(in super::super) audited_block: AuditedBlock,
    pub(in super::super) from_block: u64,
    pub(in super::super) to_block: u64,
    pub(in super::super) events: u64,
    pub(in super::super) money: Money,
}

impl Report {
    pub(in super::super) fn new(scope: Scope, findings: Findings) -> Self {
        let row = |((against, what), tally): ((String, &'static str), Tally)| ComparedRow { against, what, tally };
        Self {
            equal: findings.total == 0,
            market: scope.market,
            chain_id: scope.chain_id,
            audited_block: scope.audited_block,
            from_block: scope.from_block,
            to_block: scope.to_block,
            events: scope.events,
            money: scope.money,
            compared: findings.tallies.into_iter().map(row).collect(),
            difference_count: findings.total,
            differences: findings.kept,
        }
    }

    /// Whether nothing differs.
    pub(in super::super) const fn is_equal(&self) -> bool {
        self.equal
    }

    /// For people.
    pub(in super::super) fn lines(&self) -> Vec<String> {
        let AuditedBlock { block, is_final } = self.audited_block;
        let finality = if is_final { "final" } else { "not final" };
        let (from, to, events) = (self.from_block, self.to_block, self.events);
        let mut lines = vec![
            format!("market {} on chain {}", self.market, self.chain_id),
            format!("block {} ({finality}) {}, {events} events of blocks {from} to {to}", block.number, block.hash),
            String::new(),
            format!("{:<28} {:<22} {:>10} {:>12}", "against", "what", "compared", "differences"),
        ];
        let row = |row: &ComparedRow| {
            let Tally { compared, differences } = row.tally;
            format!("{:<28} {:<22} {compared:>10} {differences:>12}", row.against, row.what)
        };
        lines.extend(self.compared.iter().map(row));
        let Money { free, locked, bonds, held, surplus, .. } = self.money;
        lines.push(String::new());
        lines.push(format!(
            "atoms held {} = free {} + locked {} + bonds {} + surplus {}",
            held.0, free.0, locked.0, bonds.0, surplus.0
        ));
        lines.extend(self.differences.iter().map(difference_line));
        let shown = u64::try_from(self.differences.len()).unwrap_or(u64::MAX);
        let hidden = self.difference_count.saturating_sub(shown);
        if hidden > 0 {
            lines.push(format!("… and {hidden} more (--limit)"));
        }
        lines.push(match self.difference_count {
            0 => "equal: everything is what the chain's events add up to".to_owned(),
            count => format!("NOT equal: {count} differences"),
        });
        lines
    }
}

fn difference_line(difference: &Difference) -> String {
    let Difference { against, what, id, field, from_events, found } = difference;
    let field = if field.is_empty() { "(the whole)" } else { field };
    format!("DIFFERENT {what} {id} {field}: {from_events} from events, {found} from {against}")
}

#[cfg(test)]
mod tests {
    use common::ids::BlockHash;
    use serde_json::json;

    use super::*;

    fn report(findings: Findings) -> Report {
        let hash = BlockHash::ZERO;
        let block = BlockRef { number: 7, hash, parent_hash: hash, timestamp: 9 };
        let audited_block = AuditedBlock { block, is_final: true };
        let scope = Scope {
            market: Address::ZERO,
            chain_id: 1,
            audited_block,
            from_block: 2,
            to_block: 7,
            events: 3,
            money: Money::default(),
        };
        Report::new(scope, findings)
    }

    #[test]
    fn every_difference_is_counted_and_the_first_are_shown() {
        let mut findings = Findings::new(2);
        for id in 0..3 {
            let subject = Subject::new(CONTRACT, "account", id);
            findings.compare(&subject, &json!({ "free": "1" }), &json!({ "free": "2" }));
        }
        findings.compare(&Subject::new("http://a", "deal", 1), &json!({ "locked": "1" }), &json!({ "locked": "1" }));
        let report = report(findings);
        let shown = serde_json::to_value(&report).unwrap();
        assert_eq!((&shown["equal"], &shown["differenceCount"]), (&json!(false), &json!(3)));
        assert_eq!(shown["differences"].as_array().unwrap().len(), 2);
        assert_eq!(
            shown["compared"],
            json!([
                { "against": "contract", "what": "account", "compared": 3, "differences": 3 },
                { "against": "http://a", "what": "deal", "compared": 1, "differences": 0 },
            ])
        );
        assert_eq!((&shown["auditedBlock"]["number"], &shown["auditedBlock"]["final"]), (&json!(7), &json!(true)));
        let lines = report.lines().join("\n");
        assert!(lines.contains(r#"DIFFERENT account 0 free: "1" from events, "2" from contract"#), "{lines}");
        assert!(lines.contains("… and 1 more") && lines.ends_with("NOT equal: 3 differences"), "{lines}");
    }

    #[test]
    fn equality_is_said() {
        let report = report(Findings::new(1));
        assert!(report.lines().last().unwrap().starts_with("equal"));
        assert_eq!(serde_json::to_value(&report).unwrap()["equal"], true);
    }
}
