//! One request from its arrival to its answer.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::IntoResponse};
use common::http::Problem;
use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::{
    api::{self, Refusal},
    body::{Answer, BodyError, RequestBody},
    config::Limits,
    domain::{
        name::{Name, Target, target},
        pick,
        retry::{self, Failure},
        table::{Deployment, Found, Replica},
    },
    headers,
    health::{Entry, Health},
    lookup::Lookup,
    metrics::{ANSWERED, Metrics, REFUSED_BY_AGENT},
    proxy::{SendError, Speaker, Upstream, speaker},
    refresh::Routes,
};

/// Everything that a request needs.
pub(crate) struct Service {
    pub(crate) domain: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) routes: Arc<Routes>,
    pub(crate) lookup: Lookup,
    pub(crate) health: Arc<Health>,
    pub(crate) upstream: Upstream,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) operator: Router,
}

/// A request on its way to a deployment.
struct Exchange<'a> {
    deployment: &'a Deployment,
    parts: &'a Parts,
    path_and_query: &'a str,
    body: RequestBody,
    started: Instant,
}

/// What became of one attempt.
enum Attempt {
    /// An answer for the client.
    Answered(Response<Body>),
    /// No answer; `instead` is for the client if nobody else is asked.
    Failed { failure: Failure, instead: Instead },
    /// No answer, and nobody else may be asked.
    Refused(Refusal),
}

/// What the client gets when an attempt has failed and was the last one.
enum Instead {
    Refusal(Refusal),
    AgentsWord(Response<Body>),
}

impl Service {
    /// Answers a request of `client`.
    pub(crate) async fn handle(self: Arc<Self>, client: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let host = request.uri().host().or_else(|| request.headers().get(header::HOST)?.to_str().ok());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let (name, path_and_query) = match target(host, path, self.domain.as_deref()) {
            Target::Operator if request.method() != Method::CONNECT => return self.operator(request).await,
            Target::Operator => return self.refuse(api::method_not_supported(), started),
            Target::Malformed(detail) => return self.refuse(api::malformed_deployment(detail), started),
            Target::Deployment { name, path_and_query } => (name, path_and_query),
        };
        match self.route(client, request, &name, &path_and_query, started).await {
            Ok(response) => response,
            Err(refusal) => self.refuse(refusal, started),
        }
    }

    async fn operator(&self, request: Request<Incoming>) -> Response<Body> {
        // The router never fails: what it does not know it answers with its fallback.
        match self.operator.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn refuse(&self, refusal: Refusal, started: Instant) -> Response<Body> {
        self.metrics.request_finished(refusal.code, started.elapsed());
        let mut response = refusal.problem.into_response();
        if let Some(seconds) = refusal.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    async fn route(
        &self,
        client: IpAddr,
        request: Request<Incoming>,
        name: &Name,
        path_and_query: &str,
        started: Instant,
    ) -> Result<Response<Body>, Refusal> {
        let header_bytes = headers::size(request.headers());
        if header_bytes > self.limits.max_header_bytes {
            return Err(api::headers_too_large(&self.limits, header_bytes));
        }
        let deployment = self.deployment(name).await?;
        if deployment.replicas.is_empty() {
            return Err(if deployment.is_over {
                api::deployment_ended(deployment.offer)
            } else {
                api::no_healthy_replica(deployment.offer, 0, 0)
            });
        }
        let (mut parts, body) = request.into_parts();
        headers::for_agent(&mut parts.headers, client);
        let body = self.prepare(body).await?;
        let exchange = Exchange { deployment: &deployment, parts: &parts, path_and_query, body, started };
        self.forward(&exchange).await
    }

    /// The deployment of that name: from the table, or else from the indexer.
    async fn deployment(&self, name: &Name) -> Result<Arc<Deployment>, Refusal> {
        let offer = match self.routes.table().find(name) {
            Found::Live(deployment) => return Ok(deployment),
            Found::Ambiguous => return Err(api::ambiguous_deployment(name)),
            Found::Gone(offer) => offer,
            Found::Unknown if !self.routes.is_loaded() => return Err(api::routes_not_loaded()),
            Found::Unknown => name.whole().ok_or_else(|| api::unknown_deployment(name))?,
        };
        match self.lookup.find(offer).await {
            Ok(Some(deployment)) => {
                if !deployment.replicas.is_empty() {
                    self.routes.refresh_soon();
                }
                Ok(deployment)
            }
            Ok(None) => Err(api::unknown_deployment(name)),
            Err(error) => {
                tracing::debug!(%error, %name, "a deployment could not be looked up");
                Err(api::indexer_unreachable(name))
            }
        }
    }

    async fn prepare(&self, body: Incoming) -> Result<RequestBody, Refusal> {
        let patience = Duration::from_millis(self.limits.response_timeout_ms);
        let preparing = RequestBody::prepare(body, self.limits.max_kept_body_bytes, self.limits.max_body_bytes);
        match tokio::time::timeout(patience, preparing).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyError::TooLarge)) => Err(api::body_too_large(&self.limits)),
            Ok(Err(_)) => Err(api::body_broken()),
            Err(_) => Err(api::body_timeout(&self.limits)),
        }
    }

    /// Asks replicas until one answers, as long as asking another one is safe.
    async fn forward(&self, exchange: &Exchange<'_>) -> Result<Response<Body>, Refusal> {
        let deployment = exchange.deployment;
        let mut asked: Vec<&Replica> = Vec::new();
        let mut last = None;
        while asked.len() < self.limits.max_attempts {
            let Some((replica, entry)) = self.choose(deployment, &asked) else { break };
            if !asked.is_empty() {
                self.metrics.request_retried(replica);
            }
            asked.push(replica);
            let (failure, instead) = match self.attempt(exchange, replica, &entry).await {
                Attempt::Answered(response) => {
                    self.metrics.request_finished(ANSWERED, exchange.started.elapsed());
                    return Ok(response);
                }
                Attempt::Refused(refusal) => return Err(refusal),
                Attempt::Failed { failure, instead } => (failure, instead),
            };
            last = Some(instead);
            if !retry::is_safe(&exchange.parts.method, failure, exchange.body.left()) {
                break;
            }
        }
        match last {
            Some(Instead::AgentsWord(response)) => {
                self.metrics.request_finished(REFUSED_BY_AGENT, exchange.started.elapsed());
                Ok(response)
            }
            Some(Instead::Refusal(refusal)) => Err(refusal),
            None if !deployment.has_funded() => Err(api::deployment_unfunded(deployment.offer)),
            None => Err(api::no_healthy_replica(deployment.offer, deployment.replicas.len(), 0)),
        }
    }

    /// The next replica to ask: healthy and not asked before.
    fn choose<'d>(&self, deployment: &'d Deployment, asked: &[&Replica]) -> Option<(&'d Replica, Arc<Entry>)> {
        let mut candidates: Vec<_> = deployment
            .candidates()
            .filter(|replica| !asked.iter().any(|asked| asked.deal == replica.deal))
            .map(|replica| (replica, self.health.entry(replica.deal)))
            .filter(|(_, entry)| self.health.is_healthy(entry))
            .collect();
        let loads: Vec<usize> = candidates.iter().map(|(_, entry)| entry.in_flight()).collect();
        let chosen = pick::two_choices(&loads, |below| fastrand::usize(..below))?;
        (chosen < candidates.len()).then(|| candidates.swap_remove(chosen))
    }

    async fn attempt(&self, exchange: &Exchange<'_>, replica: &Replica, entry: &Arc<Entry>) -> Attempt {
        let offer = exchange.deployment.offer;
        let Some(request) = exchange.request(replica) else { return Attempt::Refused(api::invalid_target()) };
        let in_flight = entry.begin();
        // A long upload may take its time; only the whole exchange is limited then.
        let limit_ms = match exchange.body.is_streamed() {
            true => self.limits.overall_timeout_ms,
            false => self.limits.response_timeout_ms,
        };
        let left = Duration::from_millis(limit_ms).saturating_sub(exchange.started.elapsed());
        let asked_at = Instant::now();
        let sent = tokio::time::timeout(left, self.upstream.send(request)).await;
        if exchange.body.exceeded_limit() {
            return Attempt::Refused(api::body_too_large(&self.limits));
        }
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return self.failed(exchange, replica, entry, &error),
            Err(_) => return Attempt::Refused(api::replica_timeout(offer, limit_ms)),
        };
        let speaker = speaker(&response);
        let (mut parts, body) = response.into_parts();
        headers::for_client(&mut parts.headers, exchange.started.elapsed(), asked_at.elapsed());
        let overall = Duration::from_millis(self.limits.overall_timeout_ms);
        let deadline = exchange.started.checked_add(overall).unwrap_or(exchange.started);
        let response = Response::from_parts(parts, Body::new(Answer::new(body, deadline.into(), in_flight)));
        match speaker {
            Speaker::Worker => {
                self.health.succeeded(entry);
                Attempt::Answered(response)
            }
            Speaker::Agent { is_fault } => {
                if is_fault {
                    self.health.failed(replica, entry);
                }
                Attempt::Failed { failure: Failure::Refused, instead: Instead::AgentsWord(response) }
            }
        }
    }

    fn failed(&self, exchange: &Exchange<'_>, replica: &Replica, entry: &Entry, error: &SendError) -> Attempt {
        let offer = exchange.deployment.offer;
        match error {
            SendError::NotConnected => {
                self.health.failed(replica, entry);
                let refusal = api::no_healthy_replica(offer, exchange.deployment.replicas.len(), 1);
                Attempt::Failed { failure: Failure::NotConnected, instead: Instead::Refusal(refusal) }
            }
            SendError::Interrupted => {
                self.health.failed(replica, entry);
                let refusal = api::replica_broke_off(offer);
                Attempt::Failed { failure: Failure::Interrupted, instead: Instead::Refusal(refusal) }
            }
        }
    }
}

impl Exchange<'_> {
    /// The request as `replica`'s agent gets it; `None` when its target cannot be written as a URL.
    fn request(&self, replica: &Replica) -> Option<Request<Body>> {
        let path = format!("/d/{}{}", replica.deal, self.path_and_query);
        let mut request = Request::builder()
            .method(self.parts.method.clone())
            .uri(replica.endpoint.uri(&path).ok()?)
            .body(self.body.attempt())
            .ok()?;
        *request.headers_mut() = self.parts.headers.clone();
        Some(request)
    }
}

/// The operator's endpoints with an answer for everything else.
pub(crate) fn operator(metrics: &Metrics, ready: common::http::Readiness) -> Router {
    common::http::operator_routes(metrics.registry().clone(), ready)
        .fallback(|| async { Problem::into_response(api::not_found()) })
}
