//! Registers the provider's signed offer with a matcher, and does it again now and then: a matcher may have lost it.

use std::time::Duration;

use common::{http::Problem, shutdown::Shutdown};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::sync::watch;

use crate::{config::SignedProviderOffer, follow::ChainView, metrics::Metrics};

const AGAIN_AFTER: Duration = Duration::from_secs(60);
const RETRY_AFTER: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Where and what to register.
pub(crate) struct Registrar {
    pub(crate) matcher_url: String,
    pub(crate) offer: SignedProviderOffer,
    pub(crate) metrics: Metrics,
}

/// How one attempt ended.
enum Outcome {
    Registered,
    /// The matcher said no; trying again soon is of no use.
    Refused(String),
    Failed(String),
}

impl Registrar {
    /// Registers as soon as the chain is known, until `stop`.
    pub(crate) async fn run(self, mut views: watch::Receiver<Option<ChainView>>, stop: Shutdown) {
        let work = async {
            let known = views.wait_for(Option::is_some).await;
            let chain_id = known.ok().and_then(|view| view.as_ref().map(|view| view.terms().chain_id));
            let Some(chain_id) = chain_id else { return };
            let client = Client::builder().no_proxy().timeout(TIMEOUT).build().unwrap_or_default();
            loop {
                let pause = self.observe(self.register(&client, chain_id).await);
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => (),
            () = work => (),
        }
    }

    fn observe(&self, outcome: Outcome) -> Duration {
        let (label, pause) = match outcome {
            Outcome::Registered => ("ok", AGAIN_AFTER),
            Outcome::Refused(problem) => {
                tracing::error!(problem, "the matcher refused the provider offer");
                ("refused", AGAIN_AFTER)
            }
            Outcome::Failed(problem) => {
                tracing::warn!(problem, "the provider offer was not registered, trying again");
                ("failed", RETRY_AFTER)
            }
        };
        self.metrics.registrations.with_label_values(&[label]).inc();
        pause
    }

    async fn register(&self, client: &Client, chain_id: u64) -> Outcome {
        let SignedProviderOffer { offer, signature } = &self.offer;
        let url = format!("{}/v1/provider-offers", self.matcher_url);
        let body = json!({ "chainId": chain_id, "offer": offer, "signature": signature });
        let response = match client.post(url).json(&body).send().await {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let status = response.status();
        if status.is_success() {
            return Outcome::Registered;
        }
        let is_short = response.content_length().is_some_and(|length| length <= MAX_ANSWER_BYTES as u64);
        let problem = if is_short { response.json::<Problem>().await.ok() } else { None };
        let problem =
            problem.map_or_else(|| status.to_string(), |problem| format!("{}: {}", problem.code, problem.detail));
        match status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::Failed(problem),
            status if status.is_client_error() => Outcome::Refused(problem),
            _ => Outcome::Failed(problem),
        }
    }
}
