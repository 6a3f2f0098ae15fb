//! Logs as nodes give them, and `eth_getLogs` over ranges that a node may find too large.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use alloy::{
    primitives::{Address, B256, Bytes, U64},
    rpc::types::Filter,
};
use serde::Deserialize;
use tracing::warn;

use crate::{error::ChainError, rpc::Rpc};

pub(crate) const GET_LOGS: &str = "eth_getLogs";

/// A log. Only what is needed of it, read in one pass: logs are most of what is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawLog {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    pub(crate) block_number: Option<U64>,
    pub(crate) block_hash: Option<B256>,
    pub(crate) transaction_hash: Option<B256>,
    pub(crate) log_index: Option<U64>,
    #[serde(default)]
    removed: bool,
}

/// What was learned while logs were read.
#[derive(Debug)]
pub(crate) struct LogStats {
    /// Blocks behind the first one that a node gave the logs of at once, after it had refused more.
    span: AtomicU64,
    /// Logs that a node gave twice.
    pub(crate) repeated: AtomicU64,
    /// Logs that a node left out.
    pub(crate) missing: AtomicU64,
}

impl Default for LogStats {
    fn default() -> Self {
        Self { span: AtomicU64::new(u64::MAX), repeated: AtomicU64::new(0), missing: AtomicU64::new(0) }
    }
}

/// Logs in chain order, each once, and the places of the endpoints that gave them.
pub(crate) struct Found {
    pub(crate) logs: Vec<RawLog>,
    pub(crate) by: BTreeSet<usize>,
}

/// The logs of `from..=to` that `filter` selects, in chain order; none when `from` is above `to`.
///
/// As much of the range as the node is known to take is asked for first. A part that it calls too large is halved, and
/// parts grow again by a quarter with each answer: limits are on blocks with some nodes and on logs with others, and no
/// node tells which.
pub(crate) async fn in_range(
    rpc: &Rpc,
    filter: &Filter,
    (from, to): (u64, u64),
    stats: &LogStats,
) -> Result<Found, ChainError> {
    let (mut logs, mut by) = (Vec::new(), BTreeSet::new());
    // Blocks behind the first one of each part.
    let mut span = to.saturating_sub(from).min(stats.span.load(Ordering::Relaxed));
    let mut next = Some(from);
    while let Some(first) = next.filter(|first| *first <= to) {
        let last = first.saturating_add(span).min(to);
        match part(rpc, filter, first, last).await {
            Ok(found) => {
                logs.extend(found.logs);
                by.extend(found.by);
                next = last.checked_add(1);
                span = span.saturating_add(span.div_euclid(4)).saturating_add(1);
                let known = stats.span.load(Ordering::Relaxed);
                if known != u64::MAX {
                    stats.span.store(known.max(span), Ordering::Relaxed);
                }
            }
            Err(error) if !too_many(&error) => return Err(error),
            Err(_) if first == last => return Err(ChainError::TooManyLogs { block: first }),
            Err(_) => {
                span = last.saturating_sub(first).div_euclid(2);
                stats.span.store(span, Ordering::Relaxed);
            }
        }
    }
    Ok(Found { logs: tidy(logs, stats)?, by })
}

async fn part(rpc: &Rpc, filter: &Filter, first: u64, last: u64) -> Result<Found, ChainError> {
    let asked = filter.clone().from_block(first).to_block(last);
    let is_asked_for = |log: &RawLog| {
        let block = log.block_number.map(|number| number.to::<u64>());
        block.is_some_and(|block| (first..=last).contains(&block)) && asked.address.matches(&log.address)
    };
    let strange = "its logs are not those that it was asked for";
    let flaw =
        |answers: &[Vec<RawLog>], _: Option<u64>| (!answers.iter().flatten().all(is_asked_for)).then_some(strange);
    let answers = rpc.batch_by(GET_LOGS, &[(&asked,)], flaw).await?;
    if flaw(&answers.values, None).is_some() {
        return Err(ChainError::invalid_answer(GET_LOGS, strange));
    }
    Ok(Found { logs: answers.values.into_iter().flatten().collect(), by: BTreeSet::from([answers.by]) })
}

/// Logs in chain order, each once.
pub(crate) fn tidy(mut logs: Vec<RawLog>, stats: &LogStats) -> Result<Vec<RawLog>, ChainError> {
    logs.retain(|log| !log.removed);
    logs.sort_by_key(|log| (log.block_number, log.log_index, log.block_hash));
    let before = logs.len();
    logs.dedup();
    let repeated = before.saturating_sub(logs.len());
    if repeated > 0 {
        stats.repeated.fetch_add(u64::try_from(repeated).unwrap_or(u64::MAX), Ordering::Relaxed);
        warn!(repeated, "an RPC endpoint gave logs twice");
    }
    let same_place =
        |(log, next): (&RawLog, &RawLog)| (log.block_hash, log.log_index) == (next.block_hash, next.log_index);
    if logs.iter().zip(logs.iter().skip(1)).any(same_place) {
        return Err(ChainError::invalid_answer(GET_LOGS, "two different logs at one place"));
    }
    Ok(logs)
}

fn too_many(error: &ChainError) -> bool {
    matches!(error, ChainError::Refused { message, .. } if means_too_many(message))
}

/// Whether a node's error says that a range has too many blocks or logs. There is no code for it; these are the words of
/// the public providers and the common clients.
pub(crate) fn means_too_many(message: &str) -> bool {
    const WORDS: [&str; 12] = [
        "query returned more than",
        "too many results",
        "too many logs",
        "too many blocks",
        "block range",
        "blocks range",
        "range is too",
        "range too large",
        "response size",
        "max results",
        "maximum result",
        "limited to",
    ];
    let message = message.to_ascii_lowercase();
    // A range that reaches beyond a lagging node's head does not become readable by halving it.
    !message.contains("beyond") && WORDS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_too_many_are_known() {
        for message in [
            "query returned more than 10000 results",
            "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range",
            "exceed maximum block range: 5000",
            "block range is too wide",
            "eth_getLogs is limited to a 10,000 range",
        ] {
            assert!(means_too_many(message), "{message}");
        }
        for message in ["rate limit exceeded", "block range extends beyond current head block", "unknown block"] {
            assert!(!means_too_many(message), "{message}");
        }
    }
}
