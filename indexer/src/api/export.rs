//! Lists as CSV (RFC 4180): rows of one consistent view, written as they are read, to the end of the list or to the
//! limit.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Api, View, busy,
    list::List,
    outlet::{Gone, Outlet, outlet},
    params::Wanted,
};
use crate::view::{MAX_LIMIT, Part};

/// Most rows of an export.
pub(super) const MAX_ROWS: u32 = 100_000;
/// Most exports at a time: each holds a connection to the database.
pub(super) const MAX_EXPORTS: usize = 4;
/// How long an export may take.
const LONGEST: Duration = Duration::from_secs(120);
/// How long a reader may leave a page unread.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pages that wait for the reader.
const BUFFER: usize = 2;

type Chunk = Result<Bytes, io::Error>;

/// Answers with rows of `list`.
pub(super) fn respond<L: List>(api: &Api, view: View, list: L, wanted: Wanted) -> Response {
    let Ok(permit) = Arc::clone(&api.exports).try_acquire_owned() else {
        return busy("too_many_exports", format!("{MAX_EXPORTS} exports are being read at once: try again soon"));
    };
    let as_of = view.as_of;
    let (out, chunks) = outlet(BUFFER, PATIENCE);
    tokio::spawn(async move {
        let _permit = permit;
        let end = timeout(LONGEST, write(view, list, wanted, &out)).await;
        let failure = match end {
            Ok(Ok(())) => return,
            Ok(Err(Stop::Gone)) => "the reader was given up".to_owned(),
            Ok(Err(Stop::Failed(failure))) => failure,
            Err(_) => format!("an export may take {} s", LONGEST.as_secs()),
        };
        tracing::warn!(reason = failure, list = L::NAME, "export broken off");
        // A broken transfer is the only way to say that rows are missing.
        let _ = out.send(Err(io::Error::other(failure))).await;
    });
    let number = |value: u64| HeaderValue::from(value);
    let mut response = Response::new(Body::from_stream(chunks));
    let file = format!("attachment; filename=\"wharfage-{}-{}.csv\"", L::NAME, as_of.number);
    let is_final = if as_of.is_final { "true" } else { "false" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    headers.insert(HeaderName::from_static("x-as-of-block"), number(as_of.number));
    headers.insert(HeaderName::from_static("x-final"), HeaderValue::from_static(is_final));
    headers.insert(HeaderName::from_static("x-row-limit"), number(wanted.limit.into()));
    // Both are made of letters, digits and hyphens.
    for (name, text) in
        [(HeaderName::from_static("x-as-of-block-hash"), as_of.hash.to_string()), (header::CONTENT_DISPOSITION, file)]
    {
        if let Ok(text) = HeaderValue::from_str(&text) {
            headers.insert(name, text);
        }
    }
    response
}

enum Stop {
    Gone,
    Failed(String),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

async fn write<L: List>(mut view: View, list: L, wanted: Wanted, out: &Outlet<Chunk>) -> Result<(), Stop> {
    let failed = |error: &dyn std::error::Error| Stop::Failed(error.to_string());
    let names = L::COLUMNS.iter().map(|path| if path.is_empty() { "json" } else { path });
    let mut rows = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    rows.write_record(names.chain(["cursor"])).map_err(|error| failed(&error))?;
    let (mut after, mut left) = (wanted.after, wanted.limit);
    loop {
        let part = Part { limit: left.min(MAX_LIMIT), after, order: wanted.order };
        let page = list.page(&mut view.snapshot, part).await.map_err(|error| failed(&error))?;
        for item in &page.items {
            let json = serde_json::to_value(item).map_err(|error| failed(&error))?;
            let cursor = serde_json::to_value(L::place(item)).map_err(|error| failed(&error))?;
            let cells = L::COLUMNS.iter().map(|path| cell(&json, path)).chain([cell(&cursor, "")]);
            rows.write_record(cells).map_err(|error| failed(&error))?;
        }
        let written = rows.into_inner().map_err(|error| failed(&error))?;
        out.send(Ok(written.into())).await?;
        left = left.saturating_sub(part.limit);
        after = page.next;
        if after.is_none() || left == 0 {
            return Ok(());
        }
        rows = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    }
}

/// What stands at `path`: texts as they are, nothing for null and for what is missing, the rest as JSON.
fn cell(item: &Value, path: &str) -> String {
    let found = path.split('.').filter(|name| !name.is_empty()).try_fold(item, |value, name| value.get(name));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_is_what_stands_at_its_path() {
        let item = json!({ "a": { "b": "x,\"y\"" }, "n": 7, "none": null, "list": ["p", 1] });
        let cells = ["a.b", "n", "none", "list", "a.missing.deeper", "a"].map(|path| cell(&item, path));
        assert_eq!(cells, ["x,\"y\"", "7", "", "[\"p\",1]", "", r#"{"b":"x,\"y\""}"#]);
        assert_eq!(cell(&item, ""), item.to_string());
    }
}
