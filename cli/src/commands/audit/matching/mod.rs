//! `wharfage audit matching`: every match that anybody made, held against the engine.
//!
//! Layout: [`::matching::replay`] judges, without I/O; here its blocks are read, with who sent the transactions; `offers`
//! reads what a matcher says it accepted, `report` says what was found.

mod offers;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use ::matching::replay::{Replay, SignedOffers};
use anyhow::{Context, ensure};
use chain::MarketReader;
use clap::Args;
use common::{
    event::{BlockRef, MarketBlock, MarketEvent},
    ids::{Address, TxHash},
};

use self::report::{Collected, Report, Scope};
use super::{
    BlockChoice, ContractArgs, DIFFERENT, block_at,
    judge::report::AuditedBlock,
    replay::{Feed, contradiction},
};
use crate::output::{AuditFailed, Output, UsageError};

/// Options of `wharfage audit matching`.
#[derive(Debug, Args)]
#[command(
    after_help = "All blocks are replayed from the chain's events. Each replica that was placed is held against the choice of the
matching engine, and named where a provider offer that had been there was cheaper, or an earlier demand lost its host.

Exit codes: 0 nobody was favoured, 1 somebody was, 2 it could not be done.

Examples:
  wharfage audit matching
  wharfage audit matching --market 0x5f…a3 --rpc https://node.example --grace-blocks 5
  wharfage audit matching --offers https://matcher.example --all
  wharfage audit matching --offers accepted.json --json"
)]
pub(crate) struct MatchingArgs {
    #[command(flatten)]
    contract: ContractArgs,
    /// Web API to ask for the contract's address
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Last block to judge: latest, finalized, or a number; without it the last final block, where the node knows one
    #[arg(long, value_name = "BLOCK")]
    block: Option<BlockChoice>,
    /// What is younger than so many blocks is a race and held against nobody; the block before a match always is
    #[arg(long, value_name = "N", default_value_t = 2)]
    grace_blocks: u64,
    /// Signed offers that a matcher accepted, of its web API or of a file: then they count from their acceptance on
    #[arg(long, value_name = "URL|FILE")]
    offers: Option<String>,
    /// Show every match, not only those that favoured somebody
    #[arg(long)]
    all: bool,
    /// Most findings to show; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// What is to be judged, and how.
#[derive(Debug)]
struct Settings {
    block: Option<BlockChoice>,
    grace_blocks: u64,
    all: bool,
    limit: usize,
    /// Where signed offers are told of.
    offers: Option<String>,
}

/// Judges and answers. Whatever keeps it from being done is one kind of failure.
pub(super) async fn run(args: MatchingArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let report = audit(args, output).await.map_err(AuditFailed)?;
    output.answer(&serde_json::to_value(&report)?, &report.lines());
    Ok(if report.is_fair() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

async fn audit(args: MatchingArgs, output: &Output) -> anyhow::Result<Report> {
    let reader = args.contract.reader(args.api.as_ref(), output).await?;
    let MatchingArgs { block, grace_blocks, all, limit, offers, .. } = args;
    examine(&reader, Settings { block, grace_blocks, all, limit, offers }, output).await
}

async fn examine(reader: &MarketReader, settings: Settings, output: &Output) -> anyhow::Result<Report> {
    let signed = match &settings.offers {
        Some(source) => offers::read(source, reader.domain()).await?,
        None => SignedOffers::default(),
    };
    let signed_offers = signed.provider.len().saturating_add(signed.developer.len());
    let finalized = reader.rpc().finalized().await?;
    let block = last_block(reader, settings.block, finalized).await?;
    let terms = reader.terms();
    let mut collected = Collected::new(settings.limit, settings.all);
    let mut feed = Feed::new(reader.clone(), *output);
    let mut replay = Replay::new(*terms, settings.grace_blocks, signed);
    while let Some(blocks) = feed.window(block.number).await? {
        judge(reader, blocks, &mut replay, &mut collected).await?;
    }
    let reached = replay.state().as_of;
    ensure!(
        reached.is_some_and(|reached| reached.hash == block.hash),
        "the chain was reorganised at block {} while it was read: try again",
        block.number
    );
    let scope = Scope {
        market: terms.market,
        chain_id: terms.chain_id,
        judged_block: AuditedBlock { block, is_final: finalized.is_some_and(|last| block.number <= last) },
        from_block: terms.deployed_at_block,
        events: feed.events(),
        grace_blocks: settings.grace_blocks,
        signed_offers,
    };
    Ok(Report::new(scope, replay.finish(), collected))
}

/// Adds a window of blocks.
async fn judge(
    reader: &MarketReader,
    blocks: Vec<MarketBlock>,
    replay: &mut Replay,
    collected: &mut Collected,
) -> anyhow::Result<()> {
    let before = replay.state().as_of.map_or(0, |block| block.number);
    let parents = parents(reader, &blocks, before).await?;
    let senders = senders(reader, &blocks).await?;
    for block in &blocks {
        let parent = block.block.number.checked_sub(1).and_then(|number| parents.get(&number));
        for block in parent.into_iter().chain([block]) {
            let judged = replay.block(block, &senders).with_context(|| contradiction(block))?;
            collected.add(judged);
        }
    }
    Ok(())
}

/// The parents of blocks with matches that are not among the blocks, as they have no events: a matcher planned by their
/// time. What was read `before` is not needed again.
async fn parents(
    reader: &MarketReader,
    blocks: &[MarketBlock],
    before: u64,
) -> anyhow::Result<BTreeMap<u64, MarketBlock>> {
    let known: BTreeSet<u64> = blocks.iter().map(|block| block.block.number).collect();
    let matched = blocks.iter().filter(|block| block.events.iter().any(|placed| opens_deal(&placed.event)));
    let parents = matched.filter_map(|block| block.block.number.checked_sub(1));
    let missing: Vec<u64> = parents.filter(|parent| *parent > before && !known.contains(parent)).collect();
    let found = reader.rpc().blocks(&missing).await?;
    let block = |block: BlockRef| (block.number, MarketBlock { block, events: Vec::new() });
    Ok(found.into_iter().flatten().map(block).collect())
}

/// Who sent the transactions that opened deals.
async fn senders(reader: &MarketReader, blocks: &[MarketBlock]) -> anyhow::Result<BTreeMap<TxHash, Address>> {
    let events = blocks.iter().flat_map(|block| &block.events);
    let opening = events.filter(|placed| opens_deal(&placed.event)).map(|placed| placed.tx_hash);
    let transactions: Vec<TxHash> = opening.collect::<BTreeSet<_>>().into_iter().collect();
    let senders = reader.rpc().senders(&transactions).await?;
    Ok(transactions.into_iter().zip(senders).filter_map(|(tx, sender)| Some((tx, sender?))).collect())
}

const fn opens_deal(event: &MarketEvent) -> bool {
    matches!(event, MarketEvent::DealOpened(_))
}

async fn last_block(
    reader: &MarketReader,
    choice: Option<BlockChoice>,
    finalized: Option<u64>,
) -> anyhow::Result<BlockRef> {
    let first = reader.terms().deployed_at_block;
    let block = match (choice, finalized) {
        (Some(BlockChoice::Number(number)), _) => block_at(reader, number).await?,
        (Some(BlockChoice::Finalized), Some(last)) => block_at(reader, last).await?,
        (Some(BlockChoice::Finalized), None) => {
            let detail = "the node knows no final block: choose --block latest, or a number";
            return Err(UsageError(detail.to_owned()).into());
        }
        // A chain that began just now has nothing final that matters.
        (None, Some(last)) if last >= first => block_at(reader, last).await?,
        (None | Some(BlockChoice::Latest), _) => reader.rpc().head().await?,
    };
    let number = block.number;
    ensure!(number >= first, UsageError(format!("block {number} lies before the market's first, {first}")));
    Ok(block)
}
