//! One attempt at one replica.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{config::Limits, egress::PolicyResolver, headers::DEAL_HEADER};

/// How long an unused connection to an agent is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Unused connections kept for each agent.
const IDLE_PER_AGENT: usize = 64;

/// Seconds of `Retry-After` up to which an agent is merely busy: leaving it alone for longer than it asks for would make
/// an overload worse.
const MOMENT: u64 = 1;

/// Speaks HTTP/1.1 to agents.
#[derive(Clone)]
pub(crate) struct Upstream {
    client: Client<HttpConnector<PolicyResolver>, Body>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection was made; nothing was sent.
    NotConnected,
    /// The connection broke, or what came was no HTTP.
    Interrupted,
}

/// Who speaks in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The worker, or the agent about a worker that ran.
    Worker,
    /// The agent: it did not run the worker, and somebody else may. `is_fault` says that it should have.
    Agent { is_fault: bool },
}

impl Upstream {
    pub(crate) fn new(limits: &Limits, allow_private: bool) -> Self {
        let mut connector = HttpConnector::new_with_resolver(PolicyResolver::new(allow_private));
        connector.set_connect_timeout(Some(Duration::from_millis(limits.connect_timeout_ms)));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_AGENT)
            .build(connector);
        Self { client }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        self.client.request(request).await.map_err(|error| {
            tracing::debug!(error = ?error, "an agent did not answer");
            if error.is_connect() { SendError::NotConnected } else { SendError::Interrupted }
        })
    }

    /// The body at `uri` if the answer is 200 and not longer than `limit` bytes.
    pub(crate) async fn get_small(&self, uri: Uri, limit: usize) -> Option<Bytes> {
        let response = self.send(Request::get(uri).body(Body::empty()).ok()?).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        Some(Limited::new(response.into_body(), limit).collect().await.ok()?.to_bytes())
    }
}

/// Tells an agent's refusal from a worker's answer, which may well have the same status: agents mark what comes from a
/// worker with the deal's header, and speak for themselves in problems.
pub(crate) fn speaker<B>(response: &Response<B>) -> Speaker {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_problem = content_type.is_some_and(|kind| kind.starts_with("application/problem+json"));
    if response.headers().contains_key(&DEAL_HEADER) || !is_problem {
        return Speaker::Worker;
    }
    match response.status() {
        // Over or without money: true, and no fault of the agent.
        StatusCode::GONE | StatusCode::PAYMENT_REQUIRED => Speaker::Agent { is_fault: false },
        StatusCode::NOT_FOUND => Speaker::Agent { is_fault: true },
        StatusCode::SERVICE_UNAVAILABLE => Speaker::Agent { is_fault: retry_after(response) > MOMENT },
        // Limits exceeded, traps: the worker was at fault, or the request.
        _ => Speaker::Worker,
    }
}

/// Seconds until the agent wants to be asked again; for ever when it does not say.
fn retry_after<B>(response: &Response<B>) -> u64 {
    let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_speak_in_problems_and_workers_are_marked() {
        let answer = |status: u16, kind: &str, deal: bool| {
            let mut builder = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
            if deal {
                builder = builder.header(DEAL_HEADER, "0x01");
            }
            speaker(&builder.body(()).unwrap())
        };
        let problem = "application/problem+json";
        for (status, kind, deal, wanted) in [
            (200, "text/plain", true, Speaker::Worker),
            (404, "text/plain", false, Speaker::Worker),
            (503, problem, true, Speaker::Worker),
            (503, problem, false, Speaker::Agent { is_fault: true }),
            (404, "application/problem+json; charset=utf-8", false, Speaker::Agent { is_fault: true }),
            (410, problem, false, Speaker::Agent { is_fault: false }),
            (402, problem, false, Speaker::Agent { is_fault: false }),
            (502, problem, false, Speaker::Worker),
        ] {
            assert_eq!(answer(status, kind, deal), wanted, "{status} {kind} {deal}");
        }
        let busy =
            Response::builder().status(503).header(header::CONTENT_TYPE, problem).header(header::RETRY_AFTER, "1");
        assert_eq!(speaker(&busy.body(()).unwrap()), Speaker::Agent { is_fault: false });
    }
}
