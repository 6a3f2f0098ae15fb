//! HTTP: `/d/{dealId}/…` goes to the worker, `/status` tells how replicas are.
//!
//! What a worker answers carries `x-wharfage-deal`; what the agent says itself does not, and is a problem with a code.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::PathAndQuery},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use common::{
    epoch::Epoch,
    http::Problem,
    ids::{Address, DealId, Digest, OfferHash},
    region::Region,
};
use http_body_util::BodyExt;
use serde::Serialize;
use tokio_util::task::TaskTracker;

use crate::{
    book::Book,
    config::{HostLimits, IsolationMode},
    domain::{receipts::Served, replica::ReplicaState},
    host::{Mechanism, Report, ServeError, Worker},
    metrics::Metrics,
    replicas::{Replicas, Snapshot},
};

/// Header that marks a worker's answer.
pub const DEAL_HEADER: HeaderName = HeaderName::from_static("x-wharfage-deal");
/// Where the answering machine stands.
pub const REGION_HEADER: HeaderName = HeaderName::from_static("x-wharfage-region");

/// Most deals that `/status` lists.
const MAX_LISTED: usize = 1_000;

/// What the ingress needs.
pub(crate) struct Ingress {
    pub(crate) agent: Address,
    pub(crate) market: Address,
    pub(crate) region: Option<Region>,
    pub(crate) limits: HostLimits,
    pub(crate) isolation: IsolationStatus,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) book: Arc<Book>,
    pub(crate) metrics: Metrics,
    /// Set when no further request shall begin.
    pub(crate) is_draining: AtomicBool,
    /// Requests whose answers are not through yet.
    pub(crate) in_flight: TaskTracker,
}

/// Why the agent itself answers: code, status, words, and seconds after which to try again.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None }
    }

    fn unavailable(code: &'static str, detail: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    fn unknown_deal(text: &str) -> Self {
        let text: String = text.chars().take(80).collect();
        let detail = format!("this agent hosts no deal {text:?}: the path is /d/ and 0x with 64 hex digits");
        Self::new(StatusCode::NOT_FOUND, "unknown_deal", detail)
    }

    /// What a replica that is not ready says; `None` when it is.
    fn of_state(state: &ReplicaState) -> Option<Self> {
        match state {
            ReplicaState::Ready => None,
            ReplicaState::Paused => Some(Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "deal_unfunded",
                "the deal's money has ended; it goes on when somebody funds it",
            )),
            ReplicaState::Draining | ReplicaState::Stopped => {
                Some(Self::new(StatusCode::GONE, "deal_ended", "the deal is over; deploy again"))
            }
            ReplicaState::Failed { failure } => Some(Self::unavailable("worker_failed", failure.to_string(), 60)),
            ReplicaState::Backoff { failure, .. } => {
                Some(Self::unavailable("worker_starting", format!("it is tried again after {failure}"), 5))
            }
            state => Some(Self::unavailable("worker_starting", format!("the worker is {}", state.name()), 1)),
        }
    }
}

impl From<ServeError> for Refusal {
    fn from(error: ServeError) -> Self {
        let detail = error.to_string();
        match error {
            ServeError::Overloaded { .. } | ServeError::MemoryBusy { .. } => Self::unavailable("overloaded", detail, 1),
            ServeError::HostFull(_) => Self::unavailable("host_full", detail, 1),
            ServeError::BodyTooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail),
            ServeError::CpuLimit { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "cpu_limit", detail),
            ServeError::Deadline { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", detail),
            ServeError::MemoryLimit { .. } => Self::new(StatusCode::BAD_GATEWAY, "memory_limit", detail),
            ServeError::Trapped(_) => Self::new(StatusCode::BAD_GATEWAY, "worker_trapped", detail),
            ServeError::NoAnswer(_) => Self::new(StatusCode::BAD_GATEWAY, "no_answer", detail),
            ServeError::Died(_) => Self::unavailable("worker_died", detail, 2),
            ServeError::Closed => Self::new(StatusCode::GONE, "deal_ended", detail),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Problem::new(self.status, self.code, self.detail).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The routes; operator's routes are added elsewhere.
pub(crate) fn routes(ingress: Arc<Ingress>) -> Router {
    Router::new()
        .route("/d/{*path}", any(invoke))
        .route("/status", get(status))
        .route("/status/{deal}", get(deal_status))
        .with_state(ingress)
}

async fn invoke(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    let began = Instant::now();
    let answered = ingress.answer(request).await;
    ingress.metrics.request_seconds.observe(began.elapsed().as_secs_f64());
    let outcome = answered.as_ref().map_or_else(|refusal| refusal.code, |_| "answered");
    ingress.metrics.requests.with_label_values(&[outcome]).inc();
    answered.unwrap_or_else(IntoResponse::into_response)
}

impl Ingress {
    async fn answer(&self, mut request: Request) -> Result<Response, Refusal> {
        let (deal, uri) = split(request.uri())?;
        let worker = self.worker(deal)?;
        let (held, limit) = (header_bytes(request.headers()), self.limits.max_header_bytes);
        if held > limit {
            let detail = format!("the headers have {held} bytes, max_header_bytes is {limit}");
            return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail));
        }
        // Held until the last byte of the answer is through.
        let token = self.in_flight.token();
        *request.uri_mut() = uri;
        // HTTP/1.0 knows no host, workers expect one.
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
        let method = request.method().clone();
        let target = request.uri().to_string();
        let answered = worker.handle(request).await;
        let status = answered.as_ref().map_or(StatusCode::BAD_GATEWAY, axum::http::Response::status).as_u16();
        self.book.add(deal, Served { method: method.as_str(), target: &target, status });
        let response = answered?.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &token;
                frame
            }))
        });
        Ok(self.marked(response, deal))
    }

    fn worker(&self, deal: DealId) -> Result<Worker, Refusal> {
        if self.is_draining.load(Ordering::Relaxed) {
            return Err(Refusal::unavailable("shutting_down", "this agent is stopping", 5));
        }
        let cell = self.replicas.get(deal).ok_or_else(|| Refusal::unknown_deal(&deal.to_string()))?;
        let (state, worker) = cell.serving();
        if let Some(refusal) = Refusal::of_state(&state) {
            return Err(refusal);
        }
        worker.ok_or_else(|| Refusal::unavailable("worker_starting", "the worker is starting", 1))
    }

    /// The agent's headers replace whatever the worker has put there.
    fn marked(&self, mut response: Response, deal: DealId) -> Response {
        let headers = response.headers_mut();
        headers.remove(&REGION_HEADER);
        let region = self.region.map(|region| region.to_string());
        for (name, text) in [(DEAL_HEADER, Some(deal.to_string())), (REGION_HEADER, region)] {
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Deal, and the rest as the worker sees it: `/d/0x…/a/b?c` is `/a/b?c`.
fn split(uri: &Uri) -> Result<(DealId, Uri), Refusal> {
    let path = uri.path().strip_prefix("/d/").unwrap_or_default();
    let (deal, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let id = deal.parse().map_err(|_| Refusal::unknown_deal(deal))?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    let target = PathAndQuery::try_from(target).map_err(|_| Refusal::unknown_deal(deal))?;
    Ok((id, Uri::from(target)))
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().fold(0, |sum, (name, value)| sum.saturating_add(name.as_str().len()).saturating_add(value.len()))
}

/// What stands between workers and this machine, as tried at the start.
#[derive(Clone, Serialize)]
pub(crate) struct IsolationStatus {
    pub(crate) mode: IsolationMode,
    pub(crate) required: Vec<Mechanism>,
    pub(crate) mechanisms: Report,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    agent: Address,
    market: Address,
    region: Option<Region>,
    draining: bool,
    isolation: IsolationStatus,
    /// At most the first 1,000.
    deals: Vec<DealStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DealStatus {
    deal_id: DealId,
    /// With cause and detail where it failed.
    #[serde(flatten)]
    state: ReplicaState,
    developer_offer: OfferHash,
    artifact: Digest,
    start_epoch: Epoch,
    end_epoch: Epoch,
    settled_until: Epoch,
    paid_until: Epoch,
    running_requests: usize,
    memory_bytes: u64,
    /// Milliseconds that requests have waited since the CPU that was bought was used up, summed over them.
    paused_ms: u64,
    /// The worker's process, where it has one of its own.
    process_id: Option<u32>,
}

impl From<Snapshot> for DealStatus {
    fn from(snapshot: Snapshot) -> Self {
        let deal = &snapshot.assignment.deal;
        Self {
            deal_id: deal.id,
            developer_offer: deal.developer_offer,
            artifact: snapshot.assignment.offer.artifact,
            start_epoch: deal.start_epoch,
            end_epoch: deal.end_epoch,
            settled_until: deal.settled_until,
            paid_until: deal.paid_until,
            running_requests: snapshot.worker.as_ref().map_or(0, Worker::running),
            memory_bytes: snapshot.worker.as_ref().map_or(0, Worker::memory_used),
            paused_ms: snapshot.worker.as_ref().map_or(0, paused_ms),
            process_id: snapshot.worker.as_ref().and_then(Worker::process_id),
            state: snapshot.state,
        }
    }
}

fn paused_ms(worker: &Worker) -> u64 {
    u64::try_from(worker.paused().as_millis()).unwrap_or(u64::MAX)
}

async fn status(State(ingress): State<Arc<Ingress>>) -> Json<Status> {
    let cells = ingress.replicas.all();
    Json(Status {
        agent: ingress.agent,
        market: ingress.market,
        region: ingress.region,
        draining: ingress.is_draining.load(Ordering::Relaxed),
        isolation: ingress.isolation.clone(),
        deals: cells.iter().take(MAX_LISTED).map(|cell| cell.snapshot().into()).collect(),
    })
}

async fn deal_status(State(ingress): State<Arc<Ingress>>, Path(deal): Path<String>) -> Response {
    let cell = deal.parse().ok().and_then(|deal| ingress.replicas.get(deal));
    match cell {
        Some(cell) => Json(DealStatus::from(cell.snapshot())).into_response(),
        None => Refusal::unknown_deal(&deal).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::replica::{Cause, Failure},
        metrics::REQUEST_OUTCOMES,
    };

    #[test]
    fn the_worker_sees_what_stands_behind_the_deal() {
        let deal = DealId([0xab; 32]);
        for (behind, seen) in [("", "/"), ("/", "/"), ("/a/b", "/a/b"), ("/a%2Fb?x=1&y", "/a%2Fb?x=1&y"), ("?q", "/?q")]
        {
            let (id, uri) = split(&format!("http://host/d/{deal}{behind}").parse().unwrap()).ok().unwrap();
            assert_eq!((id, uri.to_string()), (deal, seen.to_owned()));
        }
        for wrong in ["/d/", "/d/0x12/a", "/d/deal/a"] {
            assert_eq!(split(&wrong.parse().unwrap()).err().unwrap().code, "unknown_deal");
        }
    }

    #[test]
    fn every_refusal_has_a_counter() {
        let failure = Failure::new(Cause::NotAComponent, "x");
        let states = [
            ReplicaState::Assigned,
            ReplicaState::Paused,
            ReplicaState::Stopped,
            ReplicaState::Failed { failure: failure.clone() },
            ReplicaState::Backoff { failure, until: 0 },
        ];
        let errors = [
            ServeError::Overloaded { running: 1, waiting: 1 },
            ServeError::MemoryBusy { held: 1, limit: 1 },
            ServeError::HostFull(String::new()),
            ServeError::BodyTooLarge { limit: 1 },
            ServeError::CpuLimit { used_ms: 1, limit_ms: 1 },
            ServeError::Deadline { limit_ms: 1 },
            ServeError::MemoryLimit { wanted: 1, limit: 1 },
            ServeError::Trapped(String::new()),
            ServeError::NoAnswer(String::new()),
            ServeError::Died(String::new()),
            ServeError::Closed,
        ];
        let refusals = states.iter().filter_map(Refusal::of_state).chain(errors.map(Refusal::from));
        for refusal in refusals {
            assert!(REQUEST_OUTCOMES.contains(&refusal.code), "{}", refusal.code);
            let row = format!("\n| `{}` | {} |", refusal.code, refusal.status.as_u16());
            assert!(section("Agent").contains(&row), "docs/errors.md lacks {row}");
        }
        for code in REQUEST_OUTCOMES.iter().filter(|code| **code != "answered") {
            assert!(section("Agent").contains(&format!("\n| `{code}` |")), "docs/errors.md lacks {code}");
        }
    }

    fn section(name: &str) -> &'static str {
        let text = include_str!("../../docs/errors.md");
        text.split("\n## ").find(|section| section.lines().next() == Some(name)).unwrap()
    }

    #[test]
    fn every_cause_is_documented_with_whether_it_is_tried_again() {
        let rows = section("Agent causes").lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Cause::ALL.len());
        for cause in Cause::ALL {
            let again = if cause.may_pass() { "yes" } else { "no" };
            let row = format!("\n| `{}` | {again} |", cause.code());
            assert!(section("Agent causes").contains(&row), "docs/errors.md lacks {row}");
        }
    }
}
