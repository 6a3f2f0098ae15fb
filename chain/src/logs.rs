//! `eth_getLogs` over ranges that a node may find too large.

use alloy::rpc::types::{Filter, Log};

use crate::{error::ChainError, rpc::Rpc};

/// The logs of `from..=to` that `filter` selects, in chain order; none when `from` is above `to`.
///
/// The whole range is asked for first. A part that the node calls too large is halved, and parts grow again by a quarter
/// with each answer: limits are on blocks with some nodes and on logs with others, and no node tells which.
pub(crate) async fn in_range(rpc: &Rpc, filter: &Filter, from: u64, to: u64) -> Result<Vec<Log>, ChainError> {
    let mut logs = Vec::new();
    // Blocks behind the first one of each part.
    let mut span = to.saturating_sub(from);
    let mut next = Some(from);
    while let Some(first) = next.filter(|first| *first <= to) {
        let last = first.saturating_add(span).min(to);
        let part = filter.clone().from_block(first).to_block(last);
        match rpc.request::<_, Vec<Log>>("eth_getLogs", (part,)).await {
            Ok(found) => {
                logs.extend(found);
                next = last.checked_add(1);
                span = span.saturating_add(span.div_euclid(4)).saturating_add(1);
            }
            Err(error) if !too_many(&error) => return Err(error),
            Err(_) if first == last => return Err(ChainError::TooManyLogs { block: first }),
            Err(_) => span = last.saturating_sub(first).div_euclid(2),
        }
    }
    logs.retain(|log| !log.removed);
    logs.sort_by_key(|log| (log.block_number, log.log_index));
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
