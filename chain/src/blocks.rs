//! A market's events, block by block, and whether they are all of them.
//!
//! A node that leaves out logs gives no error. What tells is the bloom in the block's header: where it has the market's
//! address and an event's topic, but no such log came, the block's receipts are read. They settle it: their logs make up
//! the bloom, or the node leaves out logs there as well. A bloom that is too full tells nothing and is not asked; a
//! stranger's log that sets the same bits costs one request and stops nothing. Chains that leave their blooms empty are
//! read as nodes tell them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use alloy::primitives::{B256, Bloom, BloomInput};
use common::{
    event::{MarketBlock, PlacedEvent},
    ids::BlockHash,
};
use serde::Deserialize;
use tracing::warn;

use crate::{
    convert::outward,
    decode::TOPICS,
    error::ChainError,
    logs::{self, GET_LOGS, RawLog},
    market::MarketReader,
    rpc::Header,
};

/// Blocks whose logs are asked for by hash in one batch.
const BATCH: usize = 50;

/// Bits set, of 2,048, up to which a bloom tells something about a block without events: at a quarter, one block in 200
/// looks by accident as if it had some.
const TELLING_BITS: u32 = 512;
/// The same for the events that are missing beside others: at a tenth, one block in 50.
const TELLING_BITS_BESIDE_OTHERS: u32 = 205;

/// Whether logs are compared with the blooms of all blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCheck {
    /// All headers are fetched; a node that leaves out logs is found out.
    EveryBlock,
    /// Only the headers of blocks with events are fetched.
    Trust,
}

/// Some blocks of the canonical chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What the first block of the range, which may be left out of `blocks`, follows.
    pub parent_hash: BlockHash,
    /// Blocks that have events, and always the last one of the range, in order.
    pub blocks: Vec<MarketBlock>,
}

type LogsByBlock = BTreeMap<u64, Vec<RawLog>>;

/// The logs in a receipt.
#[derive(Debug, Deserialize)]
struct ReceiptLogs {
    logs: Vec<RawLog>,
}

impl MarketReader {
    /// Blocks of `from..=to` that have events of the market, and always the block `to`, in order.
    ///
    /// # Errors
    /// [`ChainError::BlockGone`] when the chain changed meanwhile, or `to` is above the node's head: try again.
    /// [`ChainError::TooManyLogs`] when the node refuses the logs of even one block.
    pub async fn blocks(&self, from: u64, to: u64) -> Result<Vec<MarketBlock>, ChainError> {
        Ok(self.window(from, to, LogCheck::Trust).await?.blocks)
    }

    /// Like [`MarketReader::blocks`], with what the range follows.
    ///
    /// # Errors
    /// Those of [`MarketReader::blocks`], and [`ChainError::LogsMissing`].
    pub async fn window(&self, from: u64, to: u64, check: LogCheck) -> Result<Window, ChainError> {
        // The hash of `to` fixes all blocks before it: unchanged after the logs were read means that they belong to it.
        let before = match check {
            LogCheck::EveryBlock => self.headers(from..=to).await?,
            LogCheck::Trust => self.headers([to]).await?,
        };
        let found = logs::in_range(self.rpc(), &self.filter(), (from, to), &self.log_stats).await?;
        let mut logs = by_block(found.logs);
        let headers = match check {
            LogCheck::EveryBlock => before,
            LogCheck::Trust => {
                let numbers: BTreeSet<u64> = logs.keys().copied().chain([from.min(to), to]).collect();
                let headers = self.headers(numbers).await?;
                require(headers.last().map(Header::hash) == before.last().map(Header::hash), to)?;
                headers
            }
        };
        if check == LogCheck::EveryBlock {
            let last = self.headers([to]).await?;
            require(are_linked(&headers) && last.last().map(Header::hash) == headers.last().map(Header::hash), to)?;
            self.complete(&headers, &mut logs, &found.by).await?;
        }
        let parent_hash = headers.first().map_or(BlockHash::ZERO, |first| first.block_ref().parent_hash);
        let mut blocks = Vec::with_capacity(logs.len().saturating_add(1));
        for header in headers {
            let of_block = logs.remove(&header.number()).unwrap_or_default();
            if !of_block.is_empty() || header.number() == to {
                blocks.push(self.block(&header, of_block)?);
            }
        }
        Ok(Window { parent_hash, blocks })
    }

    /// The canonical blocks `from..=to`, as many of them as there are, each named by its hash and linked to the one before:
    /// blocks of two forks are never mixed, whatever happens to the chain meanwhile.
    ///
    /// # Errors
    /// [`ChainError::BlockGone`] when the chain changed meanwhile; [`ChainError::LogsMissing`].
    pub async fn linked_blocks(&self, from: u64, to: u64) -> Result<Vec<MarketBlock>, ChainError> {
        let numbers: Vec<u64> = (from..=to).collect();
        let found = self.rpc().headers(&numbers).await?;
        let headers: Vec<Header> = found.into_iter().map_while(|header| header).collect();
        let Some(last) = headers.last() else { return Ok(Vec::new()) };
        require(are_linked(&headers), last.number())?;
        let (mut logs, by) = match self.logs_by_hash(&headers).await {
            // Nodes refuse blocks that they have dropped meanwhile.
            Err(error) if !error.is_transient() => {
                self.require_canonical(last).await?;
                return Err(error);
            }
            found => found?,
        };
        self.require_canonical(last).await?;
        self.complete(&headers, &mut logs, &by).await?;
        let mut logs_of = |header: &Header| logs.remove(&header.number()).unwrap_or_default();
        headers.iter().map(|header| self.block(header, logs_of(header))).collect()
    }

    /// The logs of these blocks, and the places of the endpoints that gave them.
    async fn logs_by_hash(&self, headers: &[Header]) -> Result<(LogsByBlock, BTreeSet<usize>), ChainError> {
        let market = outward::address(self.terms().market);
        let strange = "its logs are not those that it was asked for";
        let (mut logs, mut by) = (LogsByBlock::new(), BTreeSet::new());
        for headers in headers.chunks(BATCH) {
            let filters: Vec<_> = headers.iter().map(|header| (self.filter().at_block_hash(header.hash()),)).collect();
            let flaw = |answers: &[Vec<RawLog>], _: Option<u64>| {
                let is_asked_for = |header: &Header, log: &RawLog| {
                    let number = log.block_number.map(|number| number.to());
                    log.address == market && log.block_hash == Some(header.hash()) && number == Some(header.number())
                };
                let mut pairs = headers.iter().zip(answers);
                let all = pairs.all(|(header, logs)| logs.iter().all(|log| is_asked_for(header, log)));
                (!all).then_some(strange)
            };
            let answers = self.rpc().batch_by(GET_LOGS, &filters, flaw).await?;
            if flaw(&answers.values, None).is_some() {
                return Err(ChainError::invalid_answer(GET_LOGS, strange));
            }
            by.insert(answers.by);
            logs.extend(by_block(logs::tidy(answers.values.into_iter().flatten().collect(), &self.log_stats)?));
        }
        Ok((logs, by))
    }

    async fn require_canonical(&self, header: &Header) -> Result<(), ChainError> {
        let now = self.headers([header.number()]).await?;
        require(now.first().is_some_and(|now| now.hash() == header.hash()), header.number())
    }

    async fn headers(&self, numbers: impl IntoIterator<Item = u64>) -> Result<Vec<Header>, ChainError> {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let headers = self.rpc().headers(&numbers).await?;
        headers
            .into_iter()
            .zip(numbers)
            .map(|(header, number)| header.ok_or(ChainError::BlockGone { number }))
            .collect()
    }

    fn block(&self, header: &Header, logs: Vec<RawLog>) -> Result<MarketBlock, ChainError> {
        let block = header.block_ref();
        let events: Vec<PlacedEvent> = self.decode(&logs)?;
        require(events.iter().all(|event| event.block_hash == block.hash), block.number)?;
        Ok(MarketBlock { block, events })
    }

    /// Adds what a node left out of `logs`.
    ///
    /// # Errors
    /// [`ChainError::LogsMissing`] where another endpoint can be asked, or where even the receipts are not whole.
    async fn complete(
        &self,
        headers: &[Header],
        logs: &mut LogsByBlock,
        by: &BTreeSet<usize>,
    ) -> Result<(), ChainError> {
        let address = outward::address(self.terms().market);
        let market = Bloom::from(BloomInput::Raw(address.as_slice()));
        let doubtful = headers.iter().filter(|header| {
            let found = logs.get(&header.number()).map_or(&[][..], Vec::as_slice);
            header.logs_bloom.is_some_and(|bloom| is_doubtful(&bloom, &market, found))
        });
        let doubtful: Vec<&Header> = doubtful.collect();
        let mut is_distrusted = false;
        for header in doubtful {
            is_distrusted |= self.complete_by_receipts(header, logs).await?;
            if is_distrusted && self.rpc().blame(by, "it leaves out logs") {
                return Err(ChainError::LogsMissing { block: header.number() });
            }
        }
        if is_distrusted {
            // There is nobody else: nothing that it said of these blocks is believed.
            for header in headers.iter().filter(|header| header.logs_bloom.is_some_and(|bloom| bloom.contains(&market)))
            {
                self.complete_by_receipts(header, logs).await?;
            }
        }
        Ok(())
    }

    /// Replaces a block's logs by those of its receipts; whether there were others.
    async fn complete_by_receipts(&self, header: &Header, logs: &mut LogsByBlock) -> Result<bool, ChainError> {
        let block = header.number();
        let Some(all) = self.logs_of_receipts(header).await? else { return Ok(false) };
        let known = logs.get(&block).map_or(0, Vec::len);
        if all.len() <= known {
            return Ok(false);
        }
        let missing = all.len().saturating_sub(known);
        self.log_stats.missing.fetch_add(u64::try_from(missing).unwrap_or(u64::MAX), Ordering::Relaxed);
        warn!(block, missing, "an RPC endpoint left out logs; they were read from the block's receipts");
        logs.insert(block, all);
        Ok(true)
    }

    /// The market's logs by the block's receipts; none where the node does not give receipts.
    async fn logs_of_receipts(&self, header: &Header) -> Result<Option<Vec<RawLog>>, ChainError> {
        let bloom = header.logs_bloom.unwrap_or_default();
        let is_whole = |receipts: &Vec<ReceiptLogs>| {
            let logs = || receipts.iter().flat_map(|receipt| &receipt.logs);
            let topics = logs().flat_map(|log| &log.topics).map(B256::as_slice);
            // Each but once: the logs of a block repeat few of them, and each costs a hash.
            let hashed: BTreeSet<&[u8]> = logs().map(|log| log.address.as_slice()).chain(topics).collect();
            let mut found = Bloom::ZERO;
            for input in hashed {
                found.accrue(BloomInput::Raw(input));
            }
            found.contains(&bloom)
        };
        let flaw = |answers: &[Option<Vec<ReceiptLogs>>], _: Option<u64>| {
            let whole = answers.iter().all(|answer| answer.as_ref().is_some_and(is_whole));
            (!whole).then_some("its receipts lack logs that are in the block's bloom")
        };
        let answer = match self.rpc().batch("eth_getBlockReceipts", &[(header.hash(),)], flaw).await {
            Err(ChainError::Refused { transient: false, message, .. }) => {
                let block = header.number();
                warn!(
                    block,
                    message, "a block may have events that the RPC endpoint does not show, and gives no receipts"
                );
                return Ok(None);
            }
            answer => answer?.into_iter().next().flatten(),
        };
        let receipts = answer.ok_or(ChainError::BlockGone { number: header.number() })?;
        if !is_whole(&receipts) {
            return Err(ChainError::LogsMissing { block: header.number() });
        }
        let address = outward::address(self.terms().market);
        let logs = receipts.into_iter().flat_map(|receipt| receipt.logs).filter(|log| log.address == address).collect();
        Ok(Some(logs::tidy(logs, &self.log_stats)?))
    }
}

/// Whether each block follows the one before.
fn are_linked(headers: &[Header]) -> bool {
    headers.iter().zip(headers.iter().skip(1)).all(|(block, next)| next.follows(block))
}

/// Whether a block seems to have more events than were found.
fn is_doubtful(bloom: &Bloom, market: &Bloom, found: &[RawLog]) -> bool {
    let bits: u32 = bloom.data().iter().map(|byte| byte.count_ones()).sum();
    let limit = if found.is_empty() { TELLING_BITS } else { TELLING_BITS_BESIDE_OTHERS };
    if bits > limit || !bloom.contains(market) {
        return false;
    }
    let is_explained =
        |(topic, bits): &(_, Bloom)| !bloom.contains(bits) || found.iter().any(|log| log.topics.first() == Some(topic));
    has_gap(found) || !TOPICS.iter().all(is_explained)
}

/// Whether between two logs of one transaction there is another one: the market calls nobody between its own events.
fn has_gap(logs: &[RawLog]) -> bool {
    logs.iter().zip(logs.iter().skip(1)).any(|(log, next)| {
        log.transaction_hash == next.transaction_hash
            && log
                .log_index
                .zip(next.log_index)
                .is_some_and(|(index, next)| next.to::<u64>() > index.to::<u64>().saturating_add(1))
    })
}

fn by_block(logs: Vec<RawLog>) -> LogsByBlock {
    let mut blocks = LogsByBlock::new();
    for log in logs {
        blocks.entry(log.block_number.unwrap_or_default().to()).or_default().push(log);
    }
    blocks
}

const fn require(holds: bool, number: u64) -> Result<(), ChainError> {
    if holds { Ok(()) } else { Err(ChainError::BlockGone { number }) }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::*;

    #[test]
    fn a_bloom_without_its_events_is_doubtful_unless_it_is_full() {
        let address = Address::repeat_byte(7);
        let market = Bloom::from(BloomInput::Raw(address.as_slice()));
        let mut bloom = Bloom::ZERO;
        assert!(!is_doubtful(&bloom, &market, &[]));
        bloom.accrue_raw_log(address, &[]);
        assert!(!is_doubtful(&bloom, &market, &[]), "an address alone is no event");
        bloom.accrue_raw_log(address, &[TOPICS[3].0]);
        assert!(is_doubtful(&bloom, &market, &[]));
        bloom.accrue_raw_log(Address::repeat_byte(9), &[]);
        assert!(is_doubtful(&bloom, &market, &[]));
        assert!(!is_doubtful(&Bloom::repeat_byte(0xff), &market, &[]), "everything may be in a full one");
    }
}
