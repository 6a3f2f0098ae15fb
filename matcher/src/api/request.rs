//! Reads requests, and says what is wrong with them.

use std::str::FromStr;

use axum::{body::Bytes, extract::rejection::BytesRejection, http::StatusCode};
use common::{http::Problem, offer::InvalidOffer};
use serde::de::DeserializeOwned;

use super::MAX_BODY_BYTES;

/// The body of a request, as it arrived or not.
pub(super) type Body = Result<Bytes, BytesRejection>;

/// The JSON body. Names the field that does not fit.
pub(super) fn json<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("the body exceeds the limit of {MAX_BODY_BYTES} bytes: send one offer at a time");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail);
        }
        Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "the body broke off: send the request again")
    })?;
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let read: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| unreadable(&error))?;
    reader.end().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is more than one JSON value: {error}"))
    })?;
    Ok(read)
}

fn unreadable(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let (path, inner) = (error.path().to_string(), error.inner());
    if !inner.is_data() {
        let detail = format!("the body is not JSON: {inner}; send an object such as {{\"offer\": {{…}}}}");
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_json", detail);
    }
    let text = inner.to_string();
    let code = if text.contains("unknown region") { "unknown_region" } else { "invalid_offer" };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, format!("{path}: {text}")).with_field(path)
}

/// An offer with a field outside its limits.
pub(super) fn invalid_offer(error: &InvalidOffer) -> Problem {
    let detail = format!("offer.{error}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_offer", detail)
        .with_field(format!("offer.{}", error.field()))
}

/// An id in the path.
pub(super) fn id<T>(text: &str, code: &'static str) -> Result<T, Problem>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Problem::new(StatusCode::BAD_REQUEST, code, format!("{error}")))
}

/// A whole number in the query.
pub(super) fn number(text: Option<&str>, field: &'static str, most: u64) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let value = text.parse::<u64>().ok().filter(|value| *value <= most);
    let given: String = text.chars().take(40).collect();
    let wrong = || {
        let detail = format!("{field} must be a whole number up to {most}, got {given:?}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail).with_field(field)
    };
    value.map(Some).ok_or_else(wrong)
}
