//! How an offer fares, as server-sent events: first how it stands, then whenever its status or what stands in its way
//! becomes other. Nothing is remembered of readers: who connects again begins with how it stands.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response, Sse, sse},
};
use common::{http::Problem, ids::OfferHash};
use futures::{Stream, stream};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Api, later, offers::shown_developer_offer, request};
use crate::store::says_the_same;

/// Most streams at a time.
pub(super) const MAX_STREAMS: usize = 256;
/// Time between two signs of life, which proxies want to see.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn developer_offer(State(api): State<Api>, Path(hash): Path<String>) -> Result<Response, Problem> {
    let hash: OfferHash = request::id(&hash, "invalid_hash")?;
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        let detail = format!("{MAX_STREAMS} streams are open, which is the limit: try again later, or poll the offer");
        return Ok(later(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)));
    };
    // Before the first look: what changes behind it is told.
    let news = api.parts.views.news();
    // So that an offer that nobody knows is an answer and not a stream.
    let first = shown(&api, hash).await?;
    let follower = Follower { api, hash, news, told: None, first: Some(first), _permit: permit };
    let heartbeat = sse::KeepAlive::new().interval(HEARTBEAT).text("alive");
    Ok(Sse::new(follower.messages()).keep_alive(heartbeat).into_response())
}

async fn shown(api: &Api, hash: OfferHash) -> Result<Value, Problem> {
    let shown = shown_developer_offer(api, hash).await?;
    serde_json::to_value(shown).map_err(Problem::internal)
}

/// One reader.
struct Follower {
    api: Api,
    hash: OfferHash,
    news: watch::Receiver<u64>,
    /// The last message.
    told: Option<Value>,
    first: Option<Value>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// It is read only as fast as the reader takes it: who is slow skips what was in between.
    fn messages(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut follower| async {
            let now = follower.changed().await?;
            let message = sse::Event::default().event("offer").json_data(&now).ok()?;
            follower.told = Some(now);
            Some((Ok(message), follower))
        })
    }

    /// Waits until there is something to tell; none when nothing will come any more.
    async fn changed(&mut self) -> Option<Value> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            self.news.changed().await.ok()?;
            // A database or chain that is away is asked again with the next news.
            let Ok(now) = shown(&self.api, self.hash).await else { continue };
            if self.told.as_ref().is_none_or(|told| !is_the_same(told, &now)) {
                return Some(now);
            }
        }
    }
}

/// Whether there is nothing new to a reader of the one before.
fn is_the_same(told: &Value, now: &Value) -> bool {
    let same = |part: &str| told.get(part) == now.get(part);
    let explained = told.get("explanation").zip(now.get("explanation"));
    let explains = explained.map_or_else(|| same("explanation"), |(told, now)| says_the_same(told, now));
    same("status") && same("deals") && same("matchingPaused") && explains
}
