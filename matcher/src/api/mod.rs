//! The developers' web API: artifacts, offers, quotes, explanations. JSON in camel case; errors are problems with a
//! stable code that name the field, the limit and the value, and say what to do.
//!
//! Layout: `request` reads bodies, `submit` takes signed offers in, `offers` shows them, `drafts` answers about offers
//! that nobody has signed, `explanations` what stands in the way of those that wait, `stream` how an offer fares, `depth` how much of a size can be had, `artifacts` is the content store.

#![expect(clippy::result_large_err, reason = "a problem is an answer, made once for a refused request")]

mod artifacts;
mod depth;
mod drafts;
mod explanations;
mod offers;
mod request;
mod stream;
mod submit;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use chain::{ChainError, MarketReader};
use common::{clock::SharedClock, http::Problem};
use indexer::view::AsOf;
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use crate::{
    artifacts::ArtifactStore,
    config::MatcherConfig,
    error::MatcherError,
    metrics::Metrics,
    store::Store,
    view::{Present, Views},
};

/// Longest JSON body, in bytes: an offer with full lists and texts takes about 8 KiB.
const MAX_BODY_BYTES: usize = 32 << 10;
/// Longest time that an answer may take, artifacts apart; the chain is asked in some of them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Requests at a time, artifacts apart.
const MAX_REQUESTS: usize = 64;

/// What the API is made of.
pub(crate) struct Parts {
    pub(crate) reader: MarketReader,
    pub(crate) views: Arc<Views>,
    pub(crate) store: Store,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) config: MatcherConfig,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    /// Tells the loop that an offer came in.
    pub(crate) wake: Arc<Notify>,
}

/// What all routes share.
#[derive(Clone)]
pub(crate) struct Api {
    parts: Arc<Parts>,
    requests: Arc<Semaphore>,
    /// One at a time: each holds a large market's offers with room.
    depths: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            depths: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Semaphore::new(stream::MAX_STREAMS)),
        }
    }

    /// Asks about the present market, and says which block it is of.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Present, AsOf) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let answer = move |present: &mut Present| {
            let as_of = present.as_of?;
            Some(question(present, as_of))
        };
        self.parts.views.ask(answer).await.map_err(problem_of)?.ok_or_else(not_ready)
    }

    /// Now, by the later of our clock and the chain's.
    fn now(&self, as_of: AsOf) -> u64 {
        self.parts.clock.unix_seconds().max(as_of.timestamp)
    }
}

pub(crate) fn router(api: Api) -> Router {
    let answers = Router::new()
        .route("/v1/developer-offers", post(submit::developer_offer))
        .route("/v1/provider-offers", post(submit::provider_offer))
        .route("/v1/developer-offers/{hash}", get(offers::developer_offer))
        .route("/v1/developer-offers/{hash}/stream", get(stream::developer_offer))
        .route("/v1/provider-offers/{hash}", get(offers::provider_offer))
        .route("/v1/explanations", get(explanations::list))
        .route("/v1/waiting-offers", get(offers::waiting))
        .route("/v1/typed-data/developer-offer", post(drafts::developer_typed_data))
        .route("/v1/typed-data/provider-offer", post(drafts::provider_typed_data))
        .route("/v1/validate/developer-offer", post(drafts::validate))
        .route("/v1/quote", post(drafts::quote))
        .route("/v1/explain", post(drafts::explain))
        .route("/v1/depth", get(depth::depth))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route_layer(middleware::from_fn_with_state(api.clone(), bounded));
    // Uploads have limits of their own, in bytes and in time.
    let artifacts = Router::new()
        .route("/v1/artifacts/{digest}", put(artifacts::put).get(artifacts::get))
        .layer(DefaultBodyLimit::disable());
    answers.merge(artifacts).with_state(api)
}

/// At most so many requests at a time, each at most so long.
async fn bounded(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Ok(_permit) = api.requests.try_acquire() else {
        let detail = format!("{MAX_REQUESTS} requests are being answered, which is the limit: try again in a moment");
        return later(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
    };
    match timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} s, which is the limit: try again", ANSWER_TIMEOUT.as_secs());
            later(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail))
        }
    }
}

fn not_ready() -> Problem {
    let detail = "no block of the market is indexed yet: try again in a moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
}

/// A problem that passes by itself.
fn later(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// What failed here, not at the caller's.
fn problem_of(error: MatcherError) -> Problem {
    match error {
        MatcherError::Chain(error) => chain_problem(error),
        error => Problem::internal(error),
    }
}

fn chain_problem(error: ChainError) -> Problem {
    if !error.is_transient() {
        return Problem::internal(error);
    }
    tracing::warn!(%error, "the chain could not be asked");
    let detail = "the chain cannot be asked right now, and the request depends on it: try again in a moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "chain_unreachable", detail)
}
