//! The problems that the gateway answers in its own name. `docs/errors.md` lists the codes.

use common::{http::Problem, ids::OfferHash};
use http::StatusCode;

use crate::{config::Limits, domain::name::Name};

/// A problem with the seconds after which trying again makes sense, if it does.
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    pub(crate) retry_after: Option<u64>,
    /// The code again, as a label for metrics.
    pub(crate) code: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: String) -> Self {
        Self { problem: Problem::new(status, code, detail), retry_after: None, code }
    }

    fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// Codes of all refusals, so that their counters exist from the start.
pub(crate) const CODES: [&str; 16] = [
    "malformed_deployment",
    "unknown_deployment",
    "ambiguous_deployment",
    "deployment_ended",
    "deployment_unfunded",
    "no_healthy_replica",
    "routes_not_loaded",
    "indexer_unreachable",
    "method_not_supported",
    "request_headers_too_large",
    "request_body_too_large",
    "request_body_broken",
    "request_body_timeout",
    "replica_broke_off",
    "replica_timeout",
    "invalid_target",
];

pub(crate) fn malformed_deployment(detail: String) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "malformed_deployment", detail)
}

pub(crate) fn unknown_deployment(name: &Name) -> Refusal {
    let detail = format!("no deployment {name} is known: check the offer hash, or wait until the offer is matched");
    Refusal::new(StatusCode::NOT_FOUND, "unknown_deployment", detail)
}

pub(crate) fn ambiguous_deployment(name: &Name) -> Refusal {
    let detail = format!("more than one deployment begins with {name}: give more digits of the offer hash");
    Refusal::new(StatusCode::CONFLICT, "ambiguous_deployment", detail)
}

pub(crate) fn deployment_ended(offer: OfferHash) -> Refusal {
    let detail = format!("deployment {offer} was cancelled or its term is over: deploy the worker again");
    Refusal::new(StatusCode::GONE, "deployment_ended", detail)
}

pub(crate) fn deployment_unfunded(offer: OfferHash) -> Refusal {
    let detail = format!("deployment {offer} has run out of money: its developer must fund its deals");
    Refusal::new(StatusCode::PAYMENT_REQUIRED, "deployment_unfunded", detail)
}

/// `hosts` is the number of replicas on the market, `asked` how many of them were asked in vain just now.
pub(crate) fn no_healthy_replica(offer: OfferHash, hosts: usize, asked: usize) -> Refusal {
    let detail = match hosts {
        0 => format!("deployment {offer} has no host at the moment: the market is looking for one"),
        _ => format!("none of the {hosts} replicas of deployment {offer} answers ({asked} asked just now): try again"),
    };
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_replica", detail).retry_after(1)
}

pub(crate) fn routes_not_loaded() -> Refusal {
    let detail = "the gateway has just started and has not heard from its indexer: try again".to_owned();
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "routes_not_loaded", detail).retry_after(1)
}

pub(crate) fn indexer_unreachable(name: &Name) -> Refusal {
    let detail = format!("deployment {name} is not among the known routes and the indexer cannot be asked: try again");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "indexer_unreachable", detail).retry_after(5)
}

pub(crate) fn method_not_supported() -> Refusal {
    let detail = "CONNECT is not supported: this is no forward proxy".to_owned();
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_supported", detail)
}

pub(crate) fn headers_too_large(limits: &Limits, size: usize) -> Refusal {
    let limit = limits.max_header_bytes;
    let detail = format!("request headers may have at most {limit} bytes, got {size}: send less");
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_headers_too_large", detail)
}

pub(crate) fn body_too_large(limits: &Limits) -> Refusal {
    let limit = limits.max_body_bytes;
    let detail = format!("request bodies may have at most {limit} bytes, this one is longer: send less at a time");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request_body_too_large", detail)
}

pub(crate) fn body_broken() -> Refusal {
    let detail = "the request's body ended before its announced length: send it whole".to_owned();
    Refusal::new(StatusCode::BAD_REQUEST, "request_body_broken", detail)
}

pub(crate) fn body_timeout(limits: &Limits) -> Refusal {
    let limit = limits.response_timeout_ms;
    let detail = format!("the request's body did not arrive within {limit} ms: send it faster");
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "request_body_timeout", detail)
}

pub(crate) fn replica_broke_off(offer: OfferHash) -> Refusal {
    let detail = format!(
        "a replica of deployment {offer} broke the connection before it answered; the request may have been carried \
         out: check before you send it again"
    );
    Refusal::new(StatusCode::BAD_GATEWAY, "replica_broke_off", detail)
}

pub(crate) fn replica_timeout(offer: OfferHash, limit_ms: u64) -> Refusal {
    let detail =
        format!("no replica of deployment {offer} answered within {limit_ms} ms; the request may still be under way");
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "replica_timeout", detail)
}

pub(crate) fn invalid_target() -> Refusal {
    let detail = "the request's target is no path that can be passed on".to_owned();
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_target", detail)
}

/// For paths that are neither a deployment's nor the operator's.
pub(crate) fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here: deployments are at /d/{offer hash}/, or at their own host names",
    )
}
