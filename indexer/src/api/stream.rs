//! Events as they are committed, over server-sent events: nothing is lost and nothing comes twice, across
//! reorganizations, broken connections and restarts of the server.
//!
//! An id says how far the reader is and on which chain: `BLOCK-LOGINDEX-FINAL-HASH`, where HASH is that of BLOCK, and
//! FINAL the height up to which blocks could no longer change when the id was given. Blocks with events are stored for
//! as long as they are canonical, so a HASH that is not stored at its height was reorganized away. The reader is then
//! told the height from which to drop what it holds, and is sent what stands there now. Within a connection that
//! height is known from the blocks that were sent; for an id from before, it is the one after FINAL, below which
//! nothing can differ.
//!
//! Nothing is remembered of readers between connections, and each connection reads the store at its own pace: the
//! signal that a block was committed carries no data, so it does not matter how many of them one look answers.

use std::{collections::VecDeque, convert::Infallible, fmt, str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response, Sse, sse},
};
use common::{
    event::BlockRef,
    ids::{Address, BlockHash, DealId},
};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use super::{
    Api, Refusal, busy,
    outlet::{Gone, Outlet, outlet},
    params::{Params, invalid},
};
use crate::{
    kind,
    projection::rows::OpenedAt,
    store::{Happened, Snapshot, Store, StoreError},
    view::AsOf,
};

/// Most streams at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// Events that are read at once.
const PAGE: u32 = 200;
/// Messages that wait for a reader.
const BUFFER: usize = 64;
/// How long a message waits for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two signs of life, which proxies want to see.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Blocks that a connection remembers; a fork below them is told as one below all that may change.
const MAX_TRAIL: usize = 1_024;
/// After all events of a block. Log indexes are smaller.
const END: u64 = i64::MAX as u64;

/// Blocks were taken back.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReorgMessage {
    /// Drop everything of blocks from this height on; what stands there now follows.
    from_block: u64,
}

/// All events up to a block were sent.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockMessage {
    /// The block.
    as_of_block: AsOf,
}

/// A block with events on the chain that the reader has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    number: u64,
    hash: BlockHash,
}

/// An id of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    after: OpenedAt,
    /// The chain: height that was final, and hash of the block. None in a cursor of a list, and where all is final.
    seen: Option<(u64, BlockHash)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            OpenedAt { block, log_index: END } => write!(f, "{block}-end")?,
            OpenedAt { block, log_index } => write!(f, "{block}-{log_index}")?,
        }
        self.seen.map_or(Ok(()), |(stable, hash)| write!(f, "-{stable}-{hash}"))
    }
}

impl FromStr for Position {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be the id of an earlier message, or a nextCursor of a list of events";
        let number = |text: &str| text.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
        let mut parts = text.splitn(4, '-');
        let block = parts.next().and_then(number).ok_or(EXPECTED)?;
        let log_index = parts.next().and_then(|text| if text == "end" { Some(END) } else { number(text) });
        let after = OpenedAt { block, log_index: log_index.ok_or(EXPECTED)? };
        let Some(stable) = parts.next() else { return Ok(Self { after, seen: None }) };
        let hash = parts.next().and_then(|text| text.parse().ok());
        Ok(Self { after, seen: Some(number(stable).zip(hash).ok_or(EXPECTED)?) })
    }
}

/// Which events; what is not named does not matter.
struct Filter {
    kind: Option<&'static str>,
    deal: Option<DealId>,
    account: Option<Address>,
}

impl Filter {
    fn lets(&self, happened: &Happened) -> bool {
        let event = &happened.event.event;
        self.kind.is_none_or(|kind| kind == kind::of(event))
            && self.deal.is_none_or(|deal| event.deal_id() == Some(deal))
            && self.account.is_none_or(|account| happened.concerns(account))
    }
}

pub(super) async fn stream(
    State(api): State<Api>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Refusal> {
    let from: Option<Position> = params.take("cursor")?;
    let filter = Filter {
        kind: params.take_one_of("kind", &kind::ALL.map(|kind| (kind, kind)))?,
        deal: params.take("deal")?,
        account: params.take("account")?,
    };
    params.finish()?;
    // A browser that reconnects asks for the same address again, and says in the header how far it came.
    let resumed = headers.get("last-event-id").filter(|id| !id.is_empty());
    let resumed = resumed.map(|id| id.to_str().unwrap_or_default().parse()).transpose();
    let from = resumed.map_err(|error| invalid("Last-Event-ID", error))?.or(from);
    let mut view = api.view().await?;
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        let detail = format!("{MAX_STREAMS} streams are open: try again later, or poll /v1/events");
        return Ok(busy("too_many_streams", detail));
    };
    let follower = Follower::new(&mut view.snapshot, from, filter).await.map_err(common::http::Problem::internal)?;
    drop(view);
    let (out, messages) = outlet(BUFFER, PATIENCE);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(Stop::Failed(error)) = follow(follower, &api.store, api.committed, &out).await {
            tracing::warn!(error, "stream of events broken off");
        }
    });
    let messages = messages.map(Ok::<_, Infallible>);
    let heartbeat = sse::KeepAlive::new().interval(HEARTBEAT).text("alive");
    Ok(Sse::new(messages).keep_alive(heartbeat).into_response())
}

enum Stop {
    /// The reader is gone or does not read, or nothing is committed any more.
    Over,
    Failed(String),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Over
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<axum::Error> for Stop {
    fn from(error: axum::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

async fn follow(
    mut follower: Follower,
    store: &Store,
    mut committed: watch::Receiver<Option<BlockRef>>,
    out: &Outlet<sse::Event>,
) -> Result<(), Stop> {
    loop {
        committed.borrow_and_update();
        loop {
            // What is sent was read before: a slow reader holds no connection to the database.
            let (messages, is_behind) = follower.look(&mut store.snapshot().await?).await?;
            for message in messages {
                out.send(message).await?;
            }
            if !is_behind {
                break;
            }
        }
        tokio::select! {
            changed = committed.changed() => changed.map_err(|_| Stop::Over)?,
            () = out.gone() => return Err(Stop::Over),
        }
    }
}

/// One reader's way along the chain.
struct Follower {
    filter: Filter,
    after: OpenedAt,
    /// Blocks that the reader has seen, oldest first; the last is that of `after`, unless all up to it is final.
    trail: VecDeque<Mark>,
    /// What the reader has seen up to this height can no longer change.
    stable: u64,
    told: Option<BlockHash>,
}

impl Follower {
    /// From a position, or else from what is committed now.
    async fn new(snapshot: &mut Snapshot, from: Option<Position>, filter: Filter) -> Result<Self, StoreError> {
        let finalized = snapshot.checkpoint().finalized.unwrap_or_default();
        let (after, seen) = match from {
            Some(Position { after, seen }) => (after, seen),
            None => match snapshot.last_event().await? {
                Some((place, hash)) => (place, Some((finalized, hash))),
                None => (OpenedAt { block: finalized, log_index: END }, None),
            },
        };
        let trail = seen.map(|(_, hash)| Mark { number: after.block, hash }).into_iter().collect();
        Ok(Self { filter, after, trail, stable: seen.map_or(finalized, |(stable, _)| stable), told: None })
    }

    /// What the reader has to be told next, and whether there is more.
    async fn look(&mut self, snapshot: &mut Snapshot) -> Result<(Vec<sse::Event>, bool), Stop> {
        if let Some(from_block) = self.forked(snapshot).await? {
            return Ok((vec![self.message("reorg", &ReorgMessage { from_block })?], true));
        }
        // Everything seen lies on the stored chain, so as much of it is final as of that.
        self.stable = snapshot.checkpoint().finalized.unwrap_or_default().max(self.stable);
        let found = snapshot.happened_after(self.after, PAGE).await?;
        let is_behind = u32::try_from(found.len()).is_ok_and(|found| found >= PAGE);
        let mut messages = Vec::new();
        for happened in found {
            let event = &happened.event;
            self.after = OpenedAt { block: event.block_number, log_index: event.log_index };
            self.mark(Mark { number: event.block_number, hash: event.block_hash });
            if self.filter.lets(&happened) {
                messages.push(self.message("event", event)?);
            }
        }
        if let Some(as_of_block) = snapshot.as_of().filter(|as_of| !is_behind && self.told != Some(as_of.hash)) {
            messages.push(self.message("block", &BlockMessage { as_of_block })?);
            self.told = Some(as_of_block.hash);
        }
        Ok((messages, is_behind))
    }

    /// Goes back to the last block seen that is still stored; the height after it, where that is not the last one seen.
    async fn forked(&mut self, snapshot: &mut Snapshot) -> Result<Option<u64>, StoreError> {
        let mut gone = false;
        while let Some(last) = self.trail.back().copied() {
            if snapshot.block_hash(last.number).await? == Some(last.hash) {
                break;
            }
            self.trail.pop_back();
            gone = true;
        }
        if !gone {
            return Ok(None);
        }
        let block = self.trail.back().map_or(self.stable, |mark| mark.number);
        self.after = OpenedAt { block, log_index: END };
        self.told = None;
        Ok(Some(block.saturating_add(1)))
    }

    fn mark(&mut self, mark: Mark) {
        if self.trail.back() == Some(&mark) {
            return;
        }
        self.trail.push_back(mark);
        // The last one stays: ids name it.
        let stable = self.stable;
        while self.trail.len() > 1
            && (self.trail.len() > MAX_TRAIL || self.trail.front().is_some_and(|first| first.number <= stable))
        {
            self.trail.pop_front();
        }
    }

    fn message<T: Serialize>(&self, name: &str, data: &T) -> Result<sse::Event, axum::Error> {
        let seen = self.trail.back().map(|mark| (self.stable, mark.hash));
        let position = Position { after: self.after, seen };
        sse::Event::default().id(position.to_string()).event(name).json_data(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let (hash, place) = (BlockHash([7; 32]), OpenedAt { block: 12, log_index: 3 });
        for position in [
            Position { after: place, seen: Some((4, hash)) },
            Position { after: OpenedAt { log_index: END, ..place }, seen: Some((0, hash)) },
            Position { after: OpenedAt { log_index: END, ..place }, seen: None },
            Position { after: place, seen: None },
        ] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for text in
            ["", "1", "1-", "x-1", "1-2-3", "1-2-3-0x12", "1--2", "end-1", "1-2-end-0x12", "99999999999999999999-1"]
        {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
