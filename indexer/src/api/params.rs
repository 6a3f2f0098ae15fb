//! What callers may ask: query parameters and ids in paths, each checked and named when it is wrong.

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use common::http::Problem;

use super::{Refusal, export::MAX_ROWS};
use crate::view::{Cursor, DEFAULT_LIMIT, MAX_LIMIT, Order};

/// Most query parameters of a request.
const MAX_PARAMETERS: usize = 16;

pub(super) fn invalid(name: &str, detail: impl Display) -> Refusal {
    let name: String = name.chars().take(40).collect();
    Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", format!("{name}: {detail}")).with_field(name).into()
}

/// How a list is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A page.
    Json,
    /// Rows up to the end of the list or to the limit.
    Csv,
}

/// Which part of a list, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) format: Format,
    /// Items at most: 1 to [`MAX_LIMIT`], or to [`MAX_ROWS`] for CSV.
    pub(super) limit: u32,
    pub(super) after: Option<Cursor>,
    pub(super) order: Order,
}

/// The query parameters that nobody has asked for yet.
pub(super) struct Params {
    left: Vec<(String, String)>,
    /// All that were asked for.
    known: Vec<&'static str>,
    /// What the caller's headers prefer.
    preferred: Format,
}

/// Whether the first format that is named and known is CSV.
fn preferred(headers: &HeaderMap) -> Format {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let names = accepted.split(',').filter_map(|part| part.split(';').next()).map(str::trim);
    let known = names.filter_map(|name| match name {
        "text/csv" => Some(Format::Csv),
        "application/json" => Some(Format::Json),
        _ => None,
    });
    known.into_iter().next().unwrap_or(Format::Json)
}

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
        Ok(Self { left: params, known: Vec::new(), preferred: preferred(&parts.headers) })
    }
}

impl Params {
    /// Takes parameter `name`, if it is there.
    pub(super) fn take<T>(&mut self, name: &'static str) -> Result<Option<T>, Refusal>
    where
        T: FromStr<Err: Display>,
    {
        self.take_text(name).map(|text| text.parse().map_err(|error| invalid(name, error))).transpose()
    }

    /// Takes parameter `name`, which must be one of `words`.
    pub(super) fn take_one_of<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.take_text(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let wanted = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let got = || text.chars().take(40).collect::<String>();
        found.map(Some).ok_or_else(|| invalid(name, format!("must be one of {}, got {:?}", wanted(), got())))
    }

    /// Takes what says which part of a list is wanted, and how.
    pub(super) fn take_part(&mut self) -> Result<Wanted, Refusal> {
        let format = self.take_one_of("format", &[("json", Format::Json), ("csv", Format::Csv)])?;
        let format = format.unwrap_or(self.preferred);
        let (default, most) = match format {
            Format::Json => (DEFAULT_LIMIT, MAX_LIMIT),
            Format::Csv => (MAX_ROWS, MAX_ROWS),
        };
        let limit: u32 = self.take("limit")?.unwrap_or(default);
        if !(1..=most).contains(&limit) {
            return Err(invalid("limit", format!("must be 1 to {most}, got {limit}")));
        }
        let order = self.take_one_of("order", &[("asc", Order::Asc), ("desc", Order::Desc)])?.unwrap_or_default();
        Ok(Wanted { format, limit, after: self.take("cursor")?, order })
    }

    /// Refuses whatever is left: a filter that is misspelled must not answer with everything.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(invalid(name, format!("is not a parameter here; there are {}", self.known.join(", "))))
            }
        }
    }

    fn take_text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let at = self.left.iter().position(|(known, _)| known == name)?;
        Some(self.left.swap_remove(at).1)
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
