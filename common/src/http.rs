//! What every HTTP service answers the same way: problems (RFC 9457) and the operator's endpoints.

use std::sync::Arc;

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::telemetry;

/// An error for the caller: `application/problem+json` with a stable code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `https://wharfage.dev/errors#CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Stable, lower-case code such as `insufficient_balance`.
    pub code: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What was wrong and what to do: names the field, the limit and the value.
    pub detail: String,
    /// Field of the request at fault, as in its JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// A problem with a stable `code`.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://wharfage.dev/errors#{code}"),
            code: code.to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
        }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// An error of ours: `error` goes to the log, the caller learns only that it was not them.
    pub fn internal(error: impl std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source())
            .map(|cause| format!(": {cause}"))
            .collect::<String>();
        tracing::error!(error = %format!("{error}{causes}"), "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something failed here; it was logged, try again later",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// Says whether a service can do its work now; the text names what is missing.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What else is to be said of a service that can do its work, by name.
pub type ReadyFacts = Arc<dyn Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync>;

/// `/healthz` (the process answers), `/readyz` (it can do its work: `{"ready":true}`) and `/metrics` (Prometheus text).
pub fn operator_routes(registry: Registry, ready: Readiness) -> Router {
    joint_operator_routes(vec![registry], ready, Arc::new(serde_json::Map::new))
}

/// The same for a process that runs several services, each with a registry of its own, and that has `facts` to add to
/// `/readyz`.
pub fn joint_operator_routes(registries: Vec<Registry>, ready: Readiness, facts: ReadyFacts) -> Router {
    let readyz = move || {
        let (answer, mut facts) = (ready(), facts());
        async move {
            match answer {
                Ok(()) => {
                    facts.insert("ready".to_owned(), true.into());
                    Json(facts).into_response()
                }
                Err(missing) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", missing).into_response(),
            }
        }
    };
    let metrics = move || {
        let text = telemetry::render(&registries);
        async move {
            match text {
                Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
                Err(error) => Problem::internal(error).into_response(),
            }
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}
