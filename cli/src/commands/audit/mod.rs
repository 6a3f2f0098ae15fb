//! `wharfage audit`: everything that the market says, held against the chain's events.
//!
//! Layout: `replay` reads the events, `contract` the storage, `api` what indexers serve, `lists` what they list of all that
//! happened; [`judge`] has what is compared with what and the report, without I/O; [`matching`] is the audit of the
//! matchers. Every amount is recomputed from events alone; no database is involved.

mod api;
mod contract;
mod judge;
mod lists;
mod matching;
mod replay;
#[cfg(test)]
mod tests;

use std::{process::ExitCode, str::FromStr};

use anyhow::{Context, ensure};
use chain::{ChainError, MarketReader, ReadAtError, Rpc, at::means_state_is_gone};
use clap::{Args, Subcommand};
use common::{event::BlockRef, ids::Address};

use self::{
    contract::ContractAudit,
    judge::{
        Findings,
        report::{AuditedBlock, Report, Scope},
    },
    lists::ListAudit,
    replay::Replay,
};
use super::connection::{DEFAULT_API, EndpointArgs, RpcArgs};
use crate::{
    client::ApiClient,
    output::{AuditFailed, Output, UsageError},
};

/// There are differences.
const DIFFERENT: u8 = 1;

/// At which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockChoice {
    Latest,
    Finalized,
    Number(u64),
}

impl FromStr for BlockChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            "finalized" => Ok(Self::Finalized),
            number => number
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("must be latest, finalized or a block's number, got {number:?}")),
        }
    }
}

/// Options of `wharfage audit`.
#[derive(Debug, Args)]
#[command(
    after_help = "All balances, deals, capacities and attestations are recomputed from the chain's events, without a database,
and compared with the contract's storage at one block; with --api, also with what an indexer serves. The table says how
many of each were compared; each difference is printed.

Exit codes: 0 everything is equal, 1 there are differences, 2 it could not be done.

`wharfage audit matching` replays the matches instead and shows whom a matcher favoured.

Examples:
  wharfage audit
  wharfage audit --market 0x5f…a3 --rpc https://archive.example --block 21000000
  wharfage audit --api http://127.0.0.1:8080 --api https://indexer.example
  wharfage audit --block latest --json",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    what: Option<AuditCommand>,
    #[command(flatten)]
    contract: ContractArgs,
    /// Block to audit: latest, finalized, or a number; without it the last final block, where the node knows one and has
    /// its storage
    #[arg(long, value_name = "BLOCK", conflicts_with = "api")]
    block: Option<BlockChoice>,
    /// Compare with this indexer too, at its block; may be given several times
    #[arg(long, value_name = "URL")]
    api: Vec<String>,
    /// Most differences to print; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// Audits of something else than balances.
#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Replay every match and show whom a matcher favoured
    Matching(Box<matching::MatchingArgs>),
}

/// Which contract on which chain.
#[derive(Debug, Args)]
struct ContractArgs {
    /// The Market contract; without it the address is asked of the first --api, or else of WHARFAGE_API
    #[arg(long, value_name = "ADDRESS", env = "WHARFAGE_MARKET")]
    market: Option<Address>,
    /// Block to begin with, not after the contract's first; without it that one is searched
    #[arg(long, value_name = "N")]
    from_block: Option<u64>,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    endpoints: EndpointArgs,
}

/// Audits and answers. Whatever keeps it from being done is one kind of failure.
pub(crate) async fn run(args: AuditArgs, output: &Output) -> anyhow::Result<ExitCode> {
    if let Some(AuditCommand::Matching(args)) = args.what {
        return matching::run(*args, output).await;
    }
    let report = audit(&args, output).await.map_err(AuditFailed)?;
    output.answer(&serde_json::to_value(&report)?, &report.lines());
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

async fn audit(args: &AuditArgs, output: &Output) -> anyhow::Result<Report> {
    let reader = args.contract.reader(args.api.first(), output).await?;
    let apis = args.api.iter().map(|url| ApiClient::new(url)).collect::<Result<Vec<_>, _>>()?;
    examine(&reader, &apis, args.block, args.limit, output).await
}

impl ContractArgs {
    /// Reads the contract, whose address is that of the options or else of this web API's.
    async fn reader(&self, api: Option<&String>, output: &Output) -> anyhow::Result<MarketReader> {
        let rpc = self.endpoints.client(&self.rpc)?;
        let market = match self.market {
            Some(market) => market,
            None => market_of(api, output).await?,
        };
        Ok(connect(rpc, market, self.from_block, output).await?)
    }
}

/// Only where the contract is. What it says is read from the chain.
async fn market_of(api: Option<&String>, output: &Output) -> anyhow::Result<Address> {
    let from_environment = std::env::var("WHARFAGE_API").ok();
    let url = api.cloned().or(from_environment).unwrap_or_else(|| DEFAULT_API.to_owned());
    let named = ApiClient::new(&url)?.market().await;
    let market = named.context("which market? name its contract with --market")?.market;
    output.progress(&format!("note: auditing {market}, the contract that {url} names; --market names another"));
    Ok(market)
}

/// Reads the market's constants. Where its first block cannot be searched, all blocks are read: never too few.
async fn connect(
    rpc: Rpc,
    market: Address,
    from_block: Option<u64>,
    output: &Output,
) -> Result<MarketReader, ChainError> {
    match MarketReader::connect(rpc.clone(), market, from_block).await {
        Err(ChainError::Refused { message, .. }) if from_block.is_none() && means_state_is_gone(&message) => {
            output.progress(&format!(
                "note: the node does not have old states ({message}): reading events from block 0; --from-block saves that"
            ));
            MarketReader::connect(rpc, market, Some(0)).await
        }
        other => other,
    }
}

/// Audits at the block that was chosen, or with indexers at the lowest one that they are at.
async fn examine(
    reader: &MarketReader,
    apis: &[ApiClient],
    choice: Option<BlockChoice>,
    limit: usize,
    output: &Output,
) -> anyhow::Result<Report> {
    let mut findings = Findings::new(limit);
    let (apis, lowest) = on_the_chain(reader, apis, &mut findings).await?;
    let finalized = reader.rpc().finalized().await?;
    let block = match lowest {
        Some(block) => block,
        None => block_to_audit(reader, choice, finalized, output).await?,
    };
    let terms = reader.terms();
    let lists = apis.iter().flat_map(|api| ListAudit::all(api, reader.rpc(), block.number)).collect();
    let mut replay = replayed(reader, block, lists, &mut findings, output).await?;
    let at = reader.at(block);
    let now = terms.schedule.epoch_at(block.timestamp);
    let contract = ContractAudit { book: &replay.book, at: &at, now, findings: &mut findings };
    let money = contract.run(output).await?;
    api::compare(&apis, &mut replay, reader, &mut findings).await?;
    let scope = Scope {
        market: terms.market,
        chain_id: terms.chain_id,
        audited_block: AuditedBlock { block, is_final: finalized.is_some_and(|last| block.number <= last) },
        from_block: terms.deployed_at_block,
        to_block: replay.book.block().map_or(block.number, |block| block.number),
        events: replay.book.events,
        money,
    };
    Ok(Report::new(scope, findings))
}

/// Indexers that are at a block of the chain, and the lowest of their blocks.
async fn on_the_chain(
    reader: &MarketReader,
    apis: &[ApiClient],
    findings: &mut Findings,
) -> anyhow::Result<(Vec<ApiClient>, Option<BlockRef>)> {
    let mut on_the_chain = Vec::new();
    let mut lowest: Option<BlockRef> = None;
    for api in apis {
        if let Some(block) = api::block_of(api, reader.rpc(), findings).await? {
            lowest = Some(lowest.filter(|lowest| lowest.number <= block.number).unwrap_or(block));
            on_the_chain.push(api.clone());
        }
    }
    Ok((on_the_chain, lowest))
}

/// The market's events up to `block`.
async fn replayed(
    reader: &MarketReader,
    block: BlockRef,
    lists: Vec<ListAudit>,
    findings: &mut Findings,
    output: &Output,
) -> anyhow::Result<Replay> {
    let (number, first) = (block.number, reader.terms().deployed_at_block);
    ensure!(number >= first, UsageError(format!("block {number} lies before the market's first, {first}")));
    // Asked before all events are read, as nodes forget old storage.
    reader.at(block).matching_paused().await?;
    let mut replay = Replay::new(reader.clone(), lists, *output);
    let reached = replay.advance(number, findings).await?;
    ensure!(reached.hash == block.hash, "the chain was reorganised at block {number} while it was read: try again");
    Ok(replay)
}

async fn block_to_audit(
    reader: &MarketReader,
    choice: Option<BlockChoice>,
    finalized: Option<u64>,
    output: &Output,
) -> anyhow::Result<BlockRef> {
    let head = reader.rpc().head().await?;
    match choice {
        Some(BlockChoice::Latest) => Ok(head),
        Some(BlockChoice::Number(number)) => block_at(reader, number).await,
        Some(BlockChoice::Finalized) => {
            let none = || UsageError("the node knows no final block: choose --block latest, or a number".to_owned());
            block_at(reader, finalized.ok_or_else(none)?).await
        }
        None => {
            // A chain that began just now has nothing final that matters.
            let last = finalized.filter(|last| *last >= reader.terms().deployed_at_block).unwrap_or(head.number);
            let block = block_at(reader, last).await?;
            match reader.at(block).matching_paused().await {
                Err(ReadAtError::StateGone { .. }) => {
                    output.progress(
                        "note: the node does not have the storage of the last final block: auditing its head",
                    );
                    Ok(head)
                }
                _ => Ok(block),
            }
        }
    }
}

async fn block_at(reader: &MarketReader, number: u64) -> anyhow::Result<BlockRef> {
    let block = reader.rpc().block(number).await?;
    block.ok_or_else(|| UsageError(format!("the node knows no block {number}, which is above its head")).into())
}
