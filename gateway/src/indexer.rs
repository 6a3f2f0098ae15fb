//! What is read of the indexer's API.

use std::time::Duration;

use common::{
    deal::DealState,
    epoch::{Epoch, EpochSchedule},
    ids::{DealId, OfferHash},
};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::sync::OnceCell;

use crate::domain::table::{Deployment, Endpoint, Replica};

/// Longest that one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of one answer: a page of 500 deployments with 100 replicas each and long endpoints fits.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Most deployments that are routed. More than one machine should serve; the rest is found by asking one at a time.
const MAX_DEPLOYMENTS: usize = 200_000;
/// Deployments asked for at a time.
const PAGE: &str = "500";

/// The indexer could not be asked, or its answer could not be understood. The remedy is to try again later.
#[derive(Debug, Error)]
pub(crate) enum IndexerError {
    #[error("the indexer did not answer")]
    Unreachable(#[source] reqwest::Error),
    #[error("the indexer answered {status}")]
    Refused { status: StatusCode },
    #[error("an answer of the indexer is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
    #[error("an answer of the indexer is not what it should be")]
    NotUnderstood(#[source] serde_json::Error),
    #[error("{url:?} is no base URL")]
    InvalidUrl { url: String },
}

/// Reads deployments from the indexer.
pub(crate) struct Indexer {
    http: reqwest::Client,
    base: Url,
    schedule: OnceCell<EpochSchedule>,
    allow_private_endpoints: bool,
}

/// All live deployments.
pub(crate) struct Deployments {
    /// The routable ones.
    pub(crate) live: Vec<Deployment>,
    /// Entries, whole deployments or single replicas, that could not be used.
    pub(crate) unusable: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    as_of_block: Option<AsOf>,
    items: Vec<serde_json::Value>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct AsOf {
    timestamp: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Single {
    as_of_block: Option<AsOf>,
    #[serde(flatten)]
    item: Item,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    developer_offer: OfferHash,
    #[serde(default)]
    end_epoch: Option<Epoch>,
    #[serde(default)]
    cancelled: bool,
    deals: Vec<ItemDeal>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemDeal {
    id: DealId,
    endpoint: String,
    state: DealState,
    unfunded_since: Option<Epoch>,
    end_epoch: Epoch,
}

#[derive(Deserialize)]
struct Market {
    schedule: EpochSchedule,
}

impl Indexer {
    pub(crate) fn new(base: &str, allow_private_endpoints: bool) -> Result<Self, IndexerError> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(IndexerError::Unreachable)?;
        let invalid = || IndexerError::InvalidUrl { url: base.to_owned() };
        // With a slash at the end, so that paths are appended to it.
        let base = Url::parse(&format!("{}/", base.trim_end_matches('/'))).map_err(|_| invalid())?;
        Ok(Self { http, base, schedule: OnceCell::new(), allow_private_endpoints })
    }

    /// All deployments with a deal that has not ended.
    pub(crate) async fn live_deployments(&self) -> Result<Deployments, IndexerError> {
        let mut found = Deployments { live: Vec::new(), unusable: 0 };
        let mut cursor: Option<String> = None;
        while found.live.len() < MAX_DEPLOYMENTS {
            let mut url = self.url("v1/deployments")?;
            url.query_pairs_mut().append_pair("live", "true").append_pair("limit", PAGE);
            if let Some(cursor) = &cursor {
                url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let page: Page = self.get(url).await?.ok_or(IndexerError::Refused { status: StatusCode::NOT_FOUND })?;
            let epoch = self.epoch(page.as_of_block).await;
            for item in page.items {
                // What strangers wrote on the chain must not cost the others their routes.
                match serde_json::from_value::<Item>(item) {
                    Ok(item) => found.live.push(self.deployment(item, epoch, &mut found.unusable)),
                    Err(error) => {
                        tracing::warn!(%error, "a deployment of the indexer was not understood");
                        found.unusable = found.unusable.saturating_add(1);
                    }
                }
            }
            // A cursor that does not move would never end.
            if page.next_cursor.is_none() || page.next_cursor == cursor {
                break;
            }
            cursor = page.next_cursor;
        }
        Ok(found)
    }

    /// One deployment, live or not; `None` when the indexer knows of no such offer.
    pub(crate) async fn deployment_of(&self, offer: OfferHash) -> Result<Option<Deployment>, IndexerError> {
        let url = self.url(&format!("v1/deployments/{offer}"))?;
        let Some(single) = self.get::<Single>(url).await? else { return Ok(None) };
        let epoch = self.epoch(single.as_of_block).await;
        Ok(Some(self.deployment(single.item, epoch, &mut 0)))
    }

    fn deployment(&self, item: Item, epoch: Option<Epoch>, unusable: &mut usize) -> Deployment {
        let has_begun = |at: Epoch| epoch.is_some_and(|now| at <= now);
        let live = item.deals.into_iter().filter(|deal| deal.state != DealState::Ended && !has_begun(deal.end_epoch));
        let mut replicas = Vec::new();
        for deal in live {
            let usable = Endpoint::parse(&deal.endpoint)
                .ok()
                .filter(|to| crate::egress::may_dial(to, self.allow_private_endpoints));
            let Some(endpoint) = usable else {
                tracing::debug!(deal = %deal.id, endpoint = %deal.endpoint, "this endpoint is not dialled");
                *unusable = unusable.saturating_add(1);
                continue;
            };
            // Without a schedule, what is on record counts at once.
            let is_funded = deal.unfunded_since.is_none_or(|since| epoch.is_some() && !has_begun(since));
            replicas.push(Replica { deal: deal.id, endpoint, is_funded });
        }
        let is_over = replicas.is_empty() && (item.cancelled || item.end_epoch.is_some_and(has_begun));
        Deployment { offer: item.developer_offer, replicas, is_over }
    }

    /// The epoch that the indexer's last block lies in; `None` while the schedule is not known.
    async fn epoch(&self, as_of: Option<AsOf>) -> Option<Epoch> {
        let schedule = self.schedule.get_or_try_init(|| async {
            let market: Option<Market> = self.get(self.url("v1/market")?).await?;
            market.map(|market| market.schedule).ok_or(IndexerError::Refused { status: StatusCode::NOT_FOUND })
        });
        match schedule.await {
            Ok(schedule) => Some(schedule.epoch_at(as_of?.timestamp)),
            Err(error) => {
                tracing::debug!(%error, "the market's schedule is not known");
                None
            }
        }
    }

    fn url(&self, path: &str) -> Result<Url, IndexerError> {
        self.base.join(path).map_err(|_| IndexerError::InvalidUrl { url: self.base.to_string() })
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<Option<T>, IndexerError> {
        let mut response = self.http.get(url).send().await.map_err(IndexerError::Unreachable)?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => return Err(IndexerError::Refused { status }),
            _ => (),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(IndexerError::Unreachable)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
                return Err(IndexerError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map(Some).map_err(IndexerError::NotUnderstood)
    }
}
