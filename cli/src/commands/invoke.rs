//! `wharfage invoke`: one request to a deployment.

use std::{path::Path, time::Duration};

use anyhow::Context;
use clap::Args;
use common::{http::Problem, ids::OfferHash};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::{amount, connection::GatewayArgs};
use crate::{client::ClientError, output::Output};

/// Options of `wharfage invoke`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage invoke 0x4f…c1 /whoami
  wharfage invoke 0x4f…c1 /echo -X POST -d 'hello' -H 'content-type: text/plain'
  wharfage invoke 0x4f…c1 /upload -X PUT -d @picture.png --include")]
pub(crate) struct InvokeArgs {
    /// The developer offer's hash
    offer: OfferHash,
    /// Path and query
    #[arg(default_value = "/")]
    path: String,
    /// Method; GET, or POST when there is data
    #[arg(long, short = 'X', value_name = "METHOD")]
    request: Option<Method>,
    /// Body; @FILE takes it from a file
    #[arg(long, short, value_name = "TEXT")]
    data: Option<String>,
    /// Header, such as 'accept: text/plain'; repeat for more
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Show status and headers too
    #[arg(long, short)]
    include: bool,
    /// Longest wait for the whole answer
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = amount::span)]
    timeout: Duration,
    #[command(flatten)]
    gateway: GatewayArgs,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{text:?} is no header: write it as 'name: value'");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    Ok((name.trim().parse().map_err(|_| wrong())?, value.trim().parse().map_err(|_| wrong())?))
}

pub(crate) async fn run(args: InvokeArgs, output: &Output) -> anyhow::Result<()> {
    let body = args.data.as_deref().map(body).transpose()?;
    let usual = if body.is_some() { Method::POST } else { Method::GET };
    let url = args.gateway.url_of(args.offer, &args.path);
    let unreachable = |source| ClientError::Unreachable { url: args.gateway.gateway.clone(), source };
    let client = reqwest::Client::builder().timeout(args.timeout).build().map_err(unreachable)?;
    let mut request = client.request(args.request.unwrap_or(usual), url);
    for (name, value) in args.headers {
        request = request.header(name, value);
    }
    let request = request.body(body.unwrap_or_default());
    let sent = request.send().await.map_err(unreachable);
    let response = sent.context("the gateway does not answer (--gateway names another)")?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(unreachable).context("the answer broke off")?;
    if let Some(problem) = problem(&headers, &body) {
        return Err(ClientError::Refused(Box::new(problem)).into());
    }
    if output.is_json() {
        let body = String::from_utf8_lossy(&body);
        output.answer(&json!({ "status": status.as_u16(), "headers": as_json(&headers), "body": body }), &[]);
        return Ok(());
    }
    if args.include {
        let mut lines = vec![status.to_string()];
        lines.extend(
            headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))),
        );
        lines.push(String::new());
        output.answer(&Value::Null, &lines);
    }
    output.raw(&body).context("cannot write the answer")
}

fn body(data: &str) -> anyhow::Result<Vec<u8>> {
    match data.strip_prefix('@') {
        Some(file) => std::fs::read(Path::new(file)).with_context(|| format!("cannot read {file}")),
        None => Ok(data.as_bytes().to_vec()),
    }
}

/// What gateway or agent say in their own name; a worker's answer, whatever its status, is the answer.
fn problem(headers: &HeaderMap, body: &[u8]) -> Option<Problem> {
    let is_workers = headers.contains_key("x-wharfage-deal");
    (!is_workers).then(|| serde_json::from_slice(body).ok()).flatten()
}

fn as_json(headers: &HeaderMap) -> Value {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_typed_as_in_http() {
        let (name, value) = header("Accept: text/plain; q=1").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("accept", "text/plain; q=1"));
        assert!(header("accept").unwrap_err().contains("name: value"));
    }

    #[test]
    fn a_workers_error_is_an_answer_and_the_gateways_is_not() {
        let status = axum::http::StatusCode::NOT_FOUND;
        let body = serde_json::to_vec(&Problem::new(status, "unknown_deployment", "no such")).unwrap();
        assert_eq!(problem(&HeaderMap::new(), &body).unwrap().code, "unknown_deployment");
        let marked =
            HeaderMap::from_iter([(HeaderName::from_static("x-wharfage-deal"), HeaderValue::from_static("0x"))]);
        assert!(problem(&marked, &body).is_none());
        assert!(problem(&HeaderMap::new(), b"plain").is_none());
    }
}
