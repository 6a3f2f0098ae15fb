//! What was found, for people and for programs.

use ::matching::replay::verdict::{Better, JudgedFill, JudgedMatch, LeftWaiting, PassedOver, Summary, Tally, Verdict};
use common::ids::Address;
use serde::Serialize;

use super::super::judge::report::AuditedBlock;

/// Matches that are shown.
#[derive(Debug)]
pub(super) struct Collected {
    limit: usize,
    findings: Vec<JudgedMatch>,
    /// Only where all are to be shown.
    matches: Option<Vec<JudgedMatch>>,
    finding_count: u64,
}

impl Collected {
    pub(super) fn new(limit: usize, all: bool) -> Self {
        Self { limit, findings: Vec::new(), matches: all.then(Vec::new), finding_count: 0 }
    }

    pub(super) fn add(&mut self, judged: Vec<JudgedMatch>) {
        for found in judged.iter().filter(|judged| judged.fills.iter().any(|fill| fill.verdict.is_unfair())) {
            self.finding_count = self.finding_count.saturating_add(1);
            if self.findings.len() < self.limit {
                self.findings.push(found.clone());
            }
        }
        if let Some(matches) = &mut self.matches {
            matches.extend(judged);
        }
    }
}

/// What was judged.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
    pub(super) market: Address,
    pub(super) chain_id: u64,
    pub(super) judged_block: AuditedBlock,
    /// First block that was read.
    pub(super) from_block: u64,
    pub(super) events: u64,
    pub(super) grace_blocks: u64,
    /// Signed offers that a matcher told of. Of others the chain knows from their first match on.
    pub(super) signed_offers: usize,
}

/// One matcher's matches. The zero address stands for matchers whose transactions the node does not have any more.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct MatcherRow {
    matcher: Address,
    #[serde(flatten)]
    tally: Tally,
}

/// The answer of the command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Whether nobody was favoured.
    fair: bool,
    #[serde(flatten)]
    scope: Scope,
    matchers: Vec<MatcherRow>,
    /// How often a demand was left waiting that the engine would have served.
    left_waiting: u64,
    longest_waits: Vec<LeftWaiting>,
    /// Blocks at which more could have been matched than is followed.
    cut_short: u64,
    /// Matches that favoured somebody, in all; `findings` holds the first ones.
    finding_count: u64,
    findings: Vec<JudgedMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<Vec<JudgedMatch>>,
}

impl Report {
    pub(super) fn new(scope: Scope, summary: Summary, collected: Collected) -> Self {
        let Collected { findings, matches, finding_count, .. } = collected;
        let Summary { matchers, left_waiting, longest_waits, cut_short } = summary;
        let matchers = matchers.into_iter().map(|(matcher, tally)| MatcherRow { matcher, tally }).collect();
        Self {
            fair: finding_count == 0,
            scope,
            matchers,
            left_waiting,
            longest_waits,
            cut_short,
            finding_count,
            findings,
            matches,
        }
    }

    /// Whether nobody was favoured.
    pub(super) const fn is_fair(&self) -> bool {
        self.fair
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self.head();
        lines.extend(self.table());
        if let Some(matches) = &self.matches {
            lines.push(String::new());
            lines.extend(matches.iter().flat_map(match_lines));
        }
        lines.push(String::new());
        lines.extend(self.waits());
        lines.extend(self.findings.iter().flat_map(finding_lines));
        let shown = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
        let hidden = self.finding_count.saturating_sub(shown);
        if hidden > 0 {
            lines.push(format!("… and {hidden} more matches (--limit)"));
        }
        lines.push(match self.finding_count {
            0 => "fair: nobody was favoured".to_owned(),
            count => format!("NOT fair: {count} matches favoured somebody"),
        });
        lines
    }

    fn head(&self) -> Vec<String> {
        let Scope { market, chain_id, judged_block, from_block, events, grace_blocks, signed_offers } = &self.scope;
        let AuditedBlock { block, is_final } = judged_block;
        let finality = if *is_final { "final" } else { "not final" };
        let known = match signed_offers {
            0 => "what the chain knew: a signed offer counts from its first match on (--offers)".to_owned(),
            count => format!("what the chain knew, and {count} signed offers from their acceptance on"),
        };
        vec![
            format!("market {market} on chain {chain_id}"),
            format!("block {} ({finality}) {}, {events} events since block {from_block}", block.number, block.hash),
            format!("judged by {known}; grace {grace_blocks} blocks"),
            String::new(),
        ]
    }

    fn table(&self) -> Vec<String> {
        let names = ["matches", "fills", "as engine", "race", "dearer", "tie", "overtaken", "not judged", "fewer"];
        let names: String = names.iter().map(|name| format!(" {name:>10}")).collect();
        let head = format!("{:<42}{names} {:>15} {:>15}", "matcher", "lost an epoch", "lost in terms");
        let row = |MatcherRow { matcher, tally }: &MatcherRow| {
            let counts = [
                tally.matches,
                tally.fills,
                tally.as_engine,
                tally.race,
                tally.dearer,
                tally.tie_broken_otherwise,
                tally.overtaken,
                tally.not_judged,
                tally.fewer_replicas,
            ];
            let counts: String = counts.iter().map(|count| format!(" {count:>10}")).collect();
            let (epoch, term) = (tally.lost_per_epoch.get(), tally.lost_in_term.get());
            format!("{:<42}{counts} {epoch:>15} {term:>15}", matcher.to_string())
        };
        [head].into_iter().chain(self.matchers.iter().map(row)).collect()
    }

    fn waits(&self) -> Vec<String> {
        if self.left_waiting == 0 {
            return Vec::new();
        }
        let head = format!("left waiting though there were hosts: {} times; the longest:", self.left_waiting);
        [head].into_iter().chain(self.longest_waits.iter().map(wait_line)).collect()
    }
}

fn wait_line(wait: &LeftWaiting) -> String {
    let LeftWaiting { demand, developer, matcher, from_block, until_block, blocks } = wait;
    let until = until_block.map_or_else(|| "and still does".to_owned(), |until| format!("until block {until}"));
    let named = matcher.map(|matcher| format!(", only for {matcher}")).unwrap_or_default();
    format!("  demand {demand} of {developer} waited {blocks} blocks, since block {from_block} {until}{named}")
}

fn match_lines(judged: &JudgedMatch) -> Vec<String> {
    let JudgedMatch { block, transaction, matcher, demand, fills, fewer_by, .. } = judged;
    let fewer = if *fewer_by > 0 { format!(", {fewer_by} replicas fewer") } else { String::new() };
    let line = |fill: &JudgedFill| {
        let (ask, verdict) = (fill.ask.get(), fill.verdict.name());
        format!("block {block} {transaction} by {matcher}: {demand} at {} for {ask}: {verdict}{fewer}", fill.supply)
    };
    fills.iter().map(line).collect()
}

fn finding_lines(judged: &JudgedMatch) -> Vec<String> {
    judged.fills.iter().filter_map(|fill| finding_line(judged, fill)).collect()
}

fn finding_line(judged: &JudgedMatch, fill: &JudgedFill) -> Option<String> {
    let JudgedMatch { block, transaction, matcher, demand, .. } = judged;
    let (what, why) = match &fill.verdict {
        Verdict::Dearer { better } => ("DEARER", dearer(better)),
        Verdict::TieBrokenOtherwise { better: Better { supply, provider, since_block, blocks_there, .. } } => {
            let there = format!("there for {blocks_there} blocks (since {since_block})");
            ("TIE", format!("offer {supply} of {provider} asked the same and was registered before, {there}"))
        }
        Verdict::Overtaken { passed_over: PassedOver { demand, developer, since_block, blocks_there } } => {
            let there = format!("there for {blocks_there} blocks (since {since_block})");
            ("OVERTAKEN", format!("demand {demand} of {developer} came before, {there}, and lost this host"))
        }
        Verdict::AsEngine | Verdict::Race | Verdict::NotJudged => return None,
    };
    let (supply, provider, ask) = (fill.supply, fill.provider, fill.ask.get());
    Some(format!(
        "{what} block {block} {transaction} by {matcher}: demand {demand} at offer {supply} of {provider} for {ask}; {why}"
    ))
}

fn dearer(better: &Better) -> String {
    let Better { supply, provider, ask, since_block, blocks_there, lost_per_epoch, lost_in_term } = better;
    let (ask, epoch, term) = (ask.get(), lost_per_epoch.get(), lost_in_term.get());
    format!(
        "offer {supply} of {provider} asked {ask}, there for {blocks_there} blocks (since {since_block}): the developer pays \
         {epoch} atoms more an epoch, {term} in the term"
    )
}
