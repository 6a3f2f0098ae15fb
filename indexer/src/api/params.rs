//! What callers may ask: query parameters and ids in paths, each checked and named when it is wrong.

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, request::Parts},
};
use common::http::Problem;

use super::Refusal;
use crate::view::{DEFAULT_LIMIT, MAX_LIMIT, Order, Part};

/// Most query parameters of a request.
const MAX_PARAMETERS: usize = 16;

fn invalid(name: &str, detail: impl Display) -> Refusal {
    let name: String = name.chars().take(40).collect();
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", format!("{name}: {detail}")).with_field(name).into()
}

/// The query parameters that nobody has asked for yet.
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(params): Query<Vec<(String, String)>> = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", rejection.body_text()))?;
        if params.len() > MAX_PARAMETERS {
            let detail = format!("at most {MAX_PARAMETERS} query parameters are taken, got {}", params.len());
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail).into());
        }
        Ok(Self(params))
    }
}

impl Params {
    /// Takes parameter `name`, if it is there.
    pub(super) fn take<T>(&mut self, name: &str) -> Result<Option<T>, Refusal>
    where
        T: FromStr<Err: Display>,
    {
        self.take_text(name).map(|text| text.parse().map_err(|error| invalid(name, error))).transpose()
    }

    /// Takes parameter `name`, which must be one of `words`.
    pub(super) fn take_one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(text) = self.take_text(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let wanted = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let got = || text.chars().take(40).collect::<String>();
        found.map(Some).ok_or_else(|| invalid(name, format!("must be one of {}, got {:?}", wanted(), got())))
    }

    /// Takes what says which part of a list is wanted.
    pub(super) fn take_part(&mut self) -> Result<Part, Refusal> {
        let limit: u32 = self.take("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(invalid("limit", format!("must be 1 to {MAX_LIMIT}, got {limit}")));
        }
        let order = self.take_one_of("order", &[("asc", Order::Asc), ("desc", Order::Desc)])?.unwrap_or_default();
        Ok(Part { limit, after: self.take("cursor")?, order })
    }

    /// Refuses whatever is left: a filter that is misspelled must not answer with everything.
    pub(super) fn finish(self, known: &str) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(name, format!("is not a parameter here; there are {known}"))),
        }
    }

    fn take_text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// An id in the path.
pub(super) struct Id<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Id<T>
where
    S: Send + Sync,
    T: FromStr<Err: Display>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let refused = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_id", detail);
        let Path(text): Path<String> =
            Path::from_request_parts(parts, state).await.map_err(|rejection| refused(rejection.body_text()))?;
        Ok(Self(text.parse().map_err(|error: T::Err| refused(error.to_string()))?))
    }
}
