//! When a failed request may be sent to another replica without a risk of doing its work twice.

use http::Method;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made: nothing of the request has left the gateway.
    NotConnected,
    /// The connection broke before an answer: the worker may have run.
    Interrupted,
    /// The agent answered in its own name that it did not run the worker (it does not host the deal, or not now).
    Refused,
}

/// What is left of the request's body after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLeft {
    /// All of it: there is none, or it was kept.
    Whole,
    /// Some of a streamed body was read and is gone.
    Spent,
}

/// Whether another replica may be tried. `POST`, `PATCH` and methods that nobody knows may not be safe to repeat, so
/// they get a second chance only when nothing was sent.
pub fn is_safe(method: &Method, failure: Failure, body: BodyLeft) -> bool {
    match (body, failure) {
        (BodyLeft::Spent, _) => false,
        (BodyLeft::Whole, Failure::NotConnected) => true,
        (BodyLeft::Whole, Failure::Interrupted | Failure::Refused) => is_idempotent(method),
    }
}

/// Methods that mean the same when done twice (RFC 9110, section 9.2.2), `TRACE` left out.
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_repeated_is_retried_only_when_nothing_was_sent() {
        use {BodyLeft::*, Failure::*};
        for (method, failure, body, safe) in [
            (Method::POST, NotConnected, Whole, true),
            (Method::POST, Interrupted, Whole, false),
            (Method::POST, Refused, Whole, false),
            (Method::PATCH, Interrupted, Whole, false),
            (Method::GET, Interrupted, Whole, true),
            (Method::PUT, Refused, Whole, true),
            (Method::PUT, Interrupted, Spent, false),
            (Method::GET, NotConnected, Spent, false),
        ] {
            assert_eq!(is_safe(&method, failure, body), safe, "{method} {failure:?} {body:?}");
        }
    }
}
