//! The web API of a market, as its clients use it.

use common::{
    http::Problem,
    ids::{Digest, OfferHash},
    market::MarketTerms,
    offer::DeveloperOffer,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::time::Duration;

/// Time-out of one request; uploads get longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// Why the API gave no good answer.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Nobody answered: wrong address, or the market is not running.
    Unreachable { url: String, source: reqwest::Error },
    /// The market said no and why.
    Refused(Box<Problem>),
    /// An answer that is none of ours.
    Unexpected { url: String, detail: String },
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable { url, .. } => {
                write!(f, "no answer from {url}: start a local market with `wharfage up`, or name another with --api")
            }
            Self::Refused(problem) => write!(f, "{} ({})", problem.detail, problem.code),
            Self::Unexpected { url, detail } => write!(f, "{url} gave an unexpected answer: {detail}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(source),
            Self::Refused(_) | Self::Unexpected { .. } => None,
        }
    }
}

/// A client of one market's web API.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    base: String,
    http: reqwest::Client,
}

impl ApiClient {
    /// A client of the API at `base`, such as `http://127.0.0.1:8080`.
    pub(crate) fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|source| ClientError::Unreachable { url: base.clone(), source })?;
        Ok(Self { base, http })
    }

    /// Where this client asks.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The market's constants.
    pub(crate) async fn market(&self) -> Result<MarketTerms, ClientError> {
        let answer: Value = self.get("/v1/market").await?;
        // The terms may stand beside `asOfBlock`.
        let terms = answer.get("market").filter(|terms| terms.is_object()).unwrap_or(&answer).clone();
        serde_json::from_value(terms).map_err(|error| self.unexpected("/v1/market", error))
    }

    /// Stores an artifact under its digest; says what the store knows of it.
    pub(crate) async fn upload(&self, digest: Digest, bytes: Vec<u8>) -> Result<Value, ClientError> {
        let path = format!("/v1/artifacts/{digest}");
        let request = self.request(Method::PUT, &path).timeout(UPLOAD_TIMEOUT).body(bytes);
        self.answer(&path, request).await
    }

    /// What the offer would get now.
    pub(crate) async fn quote(&self, offer: &DeveloperOffer) -> Result<Value, ClientError> {
        self.post("/v1/quote", &json!({ "offer": offer })).await
    }

    /// Why the offer would match or not, and what would.
    pub(crate) async fn explain(&self, offer: &DeveloperOffer) -> Result<Value, ClientError> {
        self.post("/v1/explain", &json!({ "offer": offer })).await
    }

    /// Submits a signed developer offer.
    pub(crate) async fn submit(
        &self,
        chain_id: u64,
        offer: &DeveloperOffer,
        signature: &[u8],
    ) -> Result<Value, ClientError> {
        let body = json!({ "chainId": chain_id, "offer": offer, "signature": hex::encode_prefixed(signature) });
        self.post("/v1/developer-offers", &body).await
    }

    /// An offer with its status, deals and, while it waits, the explanation.
    pub(crate) async fn developer_offer(&self, hash: OfferHash) -> Result<Value, ClientError> {
        self.get(&format!("/v1/developer-offers/{hash}")).await
    }

    /// Any resource by its path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(path, self.request(Method::GET, path)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.answer(path, self.request(Method::POST, path).json(body)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn answer<T: DeserializeOwned>(&self, path: &str, request: RequestBuilder) -> Result<T, ClientError> {
        let unreachable = |source| ClientError::Unreachable { url: self.base.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.unexpected(path, error));
        }
        Err(serde_json::from_slice::<Problem>(&body).map_or_else(
            |_| self.unexpected(path, describe(status, &body)),
            |problem| ClientError::Refused(Box::new(problem)),
        ))
    }

    fn unexpected(&self, path: &str, detail: impl ToString) -> ClientError {
        ClientError::Unexpected { url: format!("{}{path}", self.base), detail: detail.to_string() }
    }
}

fn describe(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned();
    format!("status {status}, body {text:?}")
}
