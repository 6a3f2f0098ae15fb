//! Fail-over between endpoints, below the JSON-RPC client: each request goes to the endpoint that answered last, then to
//! the others in their order. A JSON-RPC *error answer* is an answer; only rate limits are asked elsewhere.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use alloy::{
    rpc::json_rpc::{ErrorPayload, RequestPacket, ResponsePacket, ResponsePayload, RpcError},
    transports::{BoxTransport, TransportError, TransportErrorKind, TransportFut, http},
};
use tower::Service;
use tracing::warn;

/// How long one endpoint may take to answer one request.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a later endpoint is preferred before the first is tried again.
const PREFERENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct FailOver {
    endpoints: Arc<[Endpoint]>,
    preferred: Arc<Mutex<Preferred>>,
    timeout: Duration,
}

pub(crate) struct Endpoint {
    /// Scheme and host only: paths and queries of endpoints often are secrets.
    pub(crate) name: String,
    pub(crate) transport: BoxTransport,
}

/// The endpoint that answered last.
struct Preferred {
    index: usize,
    since: Instant,
}

impl Preferred {
    fn first(&self, now: Instant) -> usize {
        if self.is_over(now) { 0 } else { self.index }
    }

    fn answered(&mut self, index: usize, now: Instant) {
        // An answer does not prolong a preference: the first endpoint gets its chance once in that time.
        if index != self.index || self.is_over(now) {
            *self = Self { index, since: now };
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PREFERENCE
    }
}

impl FailOver {
    pub(crate) fn new(endpoints: Vec<Endpoint>, timeout: Duration) -> Self {
        let preferred = Preferred { index: 0, since: Instant::now() };
        Self { endpoints: endpoints.into(), preferred: Arc::new(Mutex::new(preferred)), timeout }
    }

    fn preferred(&self) -> MutexGuard<'_, Preferred> {
        self.preferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(self, request: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let first = self.preferred().first(Instant::now());
        let mut last = Err(TransportErrorKind::custom_str("there is no endpoint"));
        let order = self.endpoints.iter().enumerate().cycle().skip(first).take(self.endpoints.len());
        for (index, endpoint) in order {
            let mut transport = endpoint.transport.clone();
            let answer = tokio::time::timeout(self.timeout, transport.call(request.clone())).await;
            let answer = answer.unwrap_or_else(|_| Err(TransportErrorKind::custom_str("no answer in time")));
            match why_elsewhere(&answer) {
                None => {
                    self.preferred().answered(index, Instant::now());
                    return answer;
                }
                Some(problem) => warn!(endpoint = endpoint.name, problem, "RPC endpoint failed"),
            }
            last = answer.map_err(without_url);
        }
        last
    }
}

/// Why another endpoint shall be asked, if it shall.
fn why_elsewhere(answer: &Result<ResponsePacket, TransportError>) -> Option<String> {
    match answer {
        Ok(packet) => packet.responses().iter().find_map(|response| match &response.payload {
            ResponsePayload::Failure(error) if is_rate_limit(error) => Some(error.message.to_string()),
            _ => None,
        }),
        Err(RpcError::ErrorResp(error)) => is_rate_limit(error).then(|| error.message.to_string()),
        Err(RpcError::SerError(_)) => None,
        Err(error) => Some(short(error)),
    }
}

/// The error without the URL that it may quote.
fn short(error: &TransportError) -> String {
    match error {
        RpcError::Transport(TransportErrorKind::HttpError(error)) => format!("HTTP status {}", error.status),
        RpcError::Transport(TransportErrorKind::HttpErrorWithRetryAfter { error, .. }) => {
            format!("HTTP status {}", error.status)
        }
        RpcError::Transport(TransportErrorKind::Custom(error)) => {
            let timed_out = error.to_string().contains("no answer in time");
            if timed_out { "no answer in time" } else { "cannot connect" }.to_owned()
        }
        RpcError::DeserError { .. } => "the answer is no JSON-RPC".to_owned(),
        _ => "no usable answer".to_owned(),
    }
}

/// The error without the URL that the HTTP client puts into it.
fn without_url(error: TransportError) -> TransportError {
    match error {
        RpcError::Transport(TransportErrorKind::Custom(source)) => {
            let source = match source.downcast::<http::reqwest::Error>() {
                Ok(error) => Box::new(error.without_url()),
                Err(other) => other,
            };
            RpcError::Transport(TransportErrorKind::Custom(source))
        }
        other => other,
    }
}

fn is_rate_limit(error: &ErrorPayload) -> bool {
    // Some nodes use the rate limit's code to say that a range has too many logs.
    error.is_retry_err() && !crate::logs::means_too_many(&error.message)
}

impl Service<RequestPacket> for FailOver {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        // Each endpoint's HTTP client is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_endpoint_gets_its_chance_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut preferred = Preferred { index: 0, since: start };
        preferred.answered(1, at(0));
        assert_eq!((preferred.first(at(1)), preferred.first(at(59))), (1, 1));
        preferred.answered(1, at(59));
        assert_eq!(preferred.first(at(60)), 0);
        // It is still down: the other one answers for another minute.
        preferred.answered(1, at(60));
        assert_eq!((preferred.first(at(61)), preferred.first(at(119)), preferred.first(at(120))), (1, 1, 0));
        // It is back.
        preferred.answered(0, at(120));
        assert_eq!((preferred.first(at(121)), preferred.first(at(500))), (0, 0));
    }
}
