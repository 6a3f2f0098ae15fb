//! An indexer's answers against the events.
//!
//! Its head moves while it is asked. Each answer names the block that it is true at, so each is judged as of its own
//! block: answers are collected, put in the order of their blocks, and the events are read on from one to the next.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use chain::{ChainError, MarketReader, Rpc};
use common::event::BlockRef;
use futures::{StreamExt, TryStreamExt, stream};
use indexer::view::{AsOf, Cursor, MAX_LIMIT};
use serde_json::{Value, json};

use super::{
    judge::{
        Book, Findings, Subject,
        answers::{Answers, List, Request},
    },
    lists::ListAudit,
    replay::Replay,
};
use crate::client::ApiClient;

/// Requests that are under way at the same time.
const PARALLEL: usize = 8;
/// How often an answer is asked for, where its block is not on the chain: a reorganisation may have taken it away.
pub(super) const TRIES: u32 = 4;
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// How long the node may be behind an indexer.
const NODE_PATIENCE: Duration = Duration::from_secs(15);
/// Pages beyond those that a list should have: the market may grow meanwhile, but not without end.
const MORE_PAGES: usize = 100;

/// What an indexer said about one block.
struct Answer<'a> {
    api: &'a ApiClient,
    request: Request,
    body: Value,
    as_of: AsOf,
    tries: u32,
}

/// Asks, and reads which block the answer is about.
async fn ask(api: &ApiClient, request: Request, tries: u32) -> anyhow::Result<Answer<'_>> {
    let path = request.path();
    let body: Value = api.get(&path).await?;
    let as_of = body.get("asOfBlock").cloned().unwrap_or_default();
    let as_of = serde_json::from_value(as_of)
        .with_context(|| format!("{}{path} does not say which block it is about (asOfBlock)", api.base()))?;
    Ok(Answer { api, request, body, as_of, tries })
}

/// The block that an indexer is at now, if it is one of the chain; what it says of it otherwise is a difference.
pub(super) async fn block_of(api: &ApiClient, rpc: &Rpc, findings: &mut Findings) -> anyhow::Result<Option<BlockRef>> {
    for tries in 1..=TRIES {
        let answer = ask(api, Request::Totals, tries).await?;
        let block = known_block(rpc, answer.as_of.number, api.base()).await?;
        if block.hash == answer.as_of.hash {
            return Ok(Some(block));
        }
        if tries == TRIES {
            not_on_the_chain(findings, &answer, block);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(None)
}

/// The canonical block of this height; waits for a node that is a little behind.
pub(super) async fn known_block(rpc: &Rpc, number: u64, api: &str) -> anyhow::Result<BlockRef> {
    let waiting = async {
        loop {
            if let Some(block) = rpc.block(number).await? {
                return Ok::<_, ChainError>(block);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    if let Ok(block) = tokio::time::timeout(NODE_PATIENCE, waiting).await {
        return Ok(block?);
    }
    let head = rpc.head().await?.number;
    bail!(
        "{api} answers about block {number}, but the node knows blocks up to {head} only: name another node with --rpc"
    )
}

fn not_on_the_chain(findings: &mut Findings, answer: &Answer<'_>, block: BlockRef) {
    let subject = Subject::new(answer.api.base(), "block", answer.as_of.number);
    findings.compare(&subject, &json!({ "hash": block.hash }), &json!({ "hash": answer.as_of.hash }));
}

/// Asks the indexers for everything that they serve and judges it.
pub(super) async fn compare(
    apis: &[ApiClient],
    replay: &mut Replay,
    reader: &MarketReader,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let rpc = reader.rpc();
    let mut waiting: BTreeMap<u64, Vec<Answer<'_>>> = BTreeMap::new();
    for api in apis {
        for answer in ask_all(api, &replay.book).await? {
            waiting.entry(answer.as_of.number).or_default().push(answer);
        }
    }
    while let Some((number, answers)) = waiting.pop_first() {
        let reached = replay.book.block().map_or(0, |block| block.number);
        let block = match number > reached {
            true => {
                known_block(rpc, number, "an indexer").await?;
                replay.advance(number, findings).await?
            }
            false => replay.book.block().context("nothing was read")?,
        };
        let expected = Answers::new(&replay.book, reader.terms());
        for answer in answers {
            let is_at = answer.as_of.number == block.number && answer.as_of.hash == block.hash;
            if is_at {
                let api = answer.api.base();
                findings.compare(&Subject::new(api, "block", number), &as_of(block), &about(answer.as_of));
                expected.judge(api, &answer.request, &answer.body, findings);
            } else if let Some(again) = ask_again(answer, rpc, block, findings).await? {
                waiting.entry(again.as_of.number).or_default().push(again);
            }
        }
    }
    finish_lists(replay, rpc, findings).await
}

/// Reads the lists of history to their ends, and the events as far as the lists go.
async fn finish_lists(replay: &mut Replay, rpc: &Rpc, findings: &mut Findings) -> anyhow::Result<()> {
    loop {
        let reached = replay.book.block().map_or(0, |block| block.number);
        for list in &mut replay.lists {
            list.settle(reached, findings).await?;
        }
        let last = replay.lists.iter().filter_map(ListAudit::read_at).map(|as_of| as_of.number).max();
        let Some(last) = last.filter(|last| *last > reached) else { break };
        known_block(rpc, last, "an indexer").await?;
        replay.advance(last, findings).await?;
    }
    for as_of in replay.lists.iter().filter_map(ListAudit::read_at) {
        if rpc.block(as_of.number).await?.is_none_or(|block| block.hash != as_of.hash) {
            bail!("the chain was reorganised at block {} while it was read: try again", as_of.number);
        }
    }
    Ok(())
}

fn as_of(block: BlockRef) -> Value {
    json!({ "hash": block.hash, "timestamp": block.timestamp })
}

fn about(as_of: AsOf) -> Value {
    json!({ "hash": as_of.hash, "timestamp": as_of.timestamp })
}

/// An answer about a block that is not the chain's, or about an earlier one than was audited, is asked for once more; after
/// some times it is a difference.
async fn ask_again<'a>(
    answer: Answer<'a>,
    rpc: &Rpc,
    read: BlockRef,
    findings: &mut Findings,
) -> anyhow::Result<Option<Answer<'a>>> {
    if rpc.block(read.number).await?.is_none_or(|block| block.hash != read.hash) {
        bail!("the chain was reorganised at block {} while it was read: try again", read.number);
    }
    if answer.tries < TRIES {
        tokio::time::sleep(PAUSE).await;
        return Ok(Some(ask(answer.api, answer.request, answer.tries.saturating_add(1)).await?));
    }
    match rpc.block(answer.as_of.number).await? {
        Some(block) if block.hash == answer.as_of.hash => {
            let subject = Subject::new(answer.api.base(), "block", answer.request.path());
            findings.compare(&subject, &json!({ "atLeast": read.number }), &json!({ "atLeast": block.number }));
        }
        Some(block) => not_on_the_chain(findings, &answer, block),
        None => bail!("the node does not know block {} any more: try again", answer.as_of.number),
    }
    Ok(None)
}

/// Everything that an indexer serves about what the book knows.
async fn ask_all<'a>(api: &'a ApiClient, book: &Book) -> anyhow::Result<Vec<Answer<'a>>> {
    let mut answers = Vec::new();
    for list in List::ALL {
        answers.extend(ask_list(api, list, book).await?);
    }
    let balances = book.accounts().into_iter().map(Request::Balance);
    let providers = book.providers().into_iter().map(Request::Provider);
    let requests = [Request::Totals, Request::Market].into_iter().chain(balances).chain(providers);
    let singles = stream::iter(requests).map(|request| ask(api, request, 1)).buffered(PARALLEL);
    let singles: Vec<_> = singles.try_collect().await?;
    answers.extend(singles);
    Ok(answers)
}

async fn ask_list<'a>(api: &'a ApiClient, list: List, book: &Book) -> anyhow::Result<Vec<Answer<'a>>> {
    let most = usize::try_from(MAX_LIMIT).unwrap_or(usize::MAX);
    let most = book.length_of(list).div_ceil(most).saturating_add(MORE_PAGES);
    let mut pages: Vec<Answer<'a>> = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = ask(api, Request::Page(list, after), 1).await?;
        let next = page.body.get("nextCursor").and_then(Value::as_str).and_then(|text| text.parse::<Cursor>().ok());
        pages.push(page);
        // A cursor that does not move on is a difference, found later; here it must only not be followed for ever.
        match next.filter(|next| after.is_none_or(|after| *next > after)) {
            Some(next) if pages.len() < most => after = Some(next),
            Some(_) => bail!("{} serves more pages than the market has items: {} of a list", api.base(), pages.len()),
            None => return Ok(pages),
        }
    }
}
