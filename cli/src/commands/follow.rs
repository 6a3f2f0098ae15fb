//! Follows a deployment from its offer until every replica answers through the gateway.

use std::{collections::BTreeSet, time::Duration};

use common::{
    deal::DealState,
    ids::{Address, DealId, OfferHash},
    money::Atoms,
    region::Region,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::{GatewayArgs, Market, PAUSE};
use crate::{client::ClientError, explanation, output::Output};

/// Requests to the gateway between two looks at the market.
const BURST: usize = 8;
/// Longest that one of these requests may take: a worker may be slow, or its gateway gone.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A replica as the market lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replica {
    pub(crate) id: DealId,
    pub(crate) provider: Address,
    pub(crate) region: Region,
    pub(crate) endpoint: String,
    pub(crate) state: DealState,
    pub(crate) unfunded_since: Option<u32>,
    pub(crate) end_epoch: u32,
    pub(crate) price_per_epoch: Atoms,
}

/// A deployment as the market lists it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    pub(crate) deals: Vec<Replica>,
}

/// What a deployment has come to.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// `placed`, `partly_placed` …
    pub(crate) status: String,
    /// Live replicas.
    pub(crate) replicas: Vec<Replica>,
    /// Deals that have answered through the gateway.
    pub(crate) answered: BTreeSet<DealId>,
    /// Match transactions with their state.
    pub(crate) transactions: Value,
}

/// Where to look and for how long.
pub(crate) struct Follower<'a> {
    pub(crate) market: &'a Market,
    pub(crate) gateway: &'a GatewayArgs,
    pub(crate) output: &'a Output,
    pub(crate) patience: Duration,
    /// Path that is asked for to see that the workers answer.
    pub(crate) path: &'a str,
}

impl Deployment {
    /// Replicas that have not ended.
    pub(crate) fn live(self) -> Vec<Replica> {
        self.deals.into_iter().filter(|deal| deal.state != DealState::Ended).collect()
    }
}

impl Market {
    /// The deployment of `offer`; without deals while the chain does not know the offer.
    pub(crate) async fn deployment(&self, offer: OfferHash) -> Result<Deployment, ClientError> {
        match self.api.get(&format!("/v1/deployments/{offer}")).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(Deployment::default()),
            answer => answer,
        }
    }
}

impl Follower<'_> {
    /// Waits until `wanted` replicas have a host and each of them has answered.
    pub(crate) async fn until_answered(&self, offer: OfferHash, wanted: usize) -> anyhow::Result<Followed> {
        let mut seen = Seen::default();
        let following = async {
            loop {
                let followed = self.look(offer, &mut seen).await?;
                let all_answered = followed.replicas.iter().all(|replica| followed.answered.contains(&replica.id));
                if followed.replicas.len() >= wanted && all_answered {
                    return Ok::<_, anyhow::Error>(followed);
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(self.patience, following).await {
            Ok(followed) => followed,
            Err(_) => anyhow::bail!(
                "after {} s {}; the offer stands: look again with `wharfage status {offer}`",
                self.patience.as_secs(),
                seen.so_far(wanted)
            ),
        }
    }

    async fn look(&self, offer: OfferHash, seen: &mut Seen) -> anyhow::Result<Followed> {
        let shown = self.market.api.developer_offer(offer).await?;
        let status = shown.get("status").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let replicas = self.market.deployment(offer).await?.live();
        if seen.status != status {
            self.output.progress(&format!("the offer is {}", status.replace('_', " ")));
            if status == "waiting" {
                let why = shown.get("explanation").map(explanation::lines).unwrap_or_default();
                why.iter().for_each(|line| self.output.progress(&format!("  {line}")));
            }
            seen.status.clone_from(&status);
        }
        for replica in &replicas {
            if seen.hosts.insert(replica.id) {
                let Replica { provider, region, price_per_epoch, .. } = replica;
                self.output.progress(&format!("  {provider} in {region} hosts it for {price_per_epoch} an epoch"));
            }
        }
        if !replicas.is_empty() {
            self.ask(offer, seen).await;
        }
        let transactions = shown.get("transactions").cloned().unwrap_or_default();
        Ok(Followed { status, replicas, answered: seen.answered.clone(), transactions })
    }

    /// Sends a few requests and notes who answers them.
    async fn ask(&self, offer: OfferHash, seen: &mut Seen) {
        let client = match reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build() {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "no HTTP client"),
        };
        let url = self.gateway.url_of(offer, self.path);
        for _ in 0..BURST {
            let Some(deal) = deal_of_answer(&client, &url).await else { return };
            if seen.answered.insert(deal) {
                self.output.progress(&format!("  deal {deal} answers through the gateway"));
            }
        }
    }
}

async fn deal_of_answer(client: &reqwest::Client, url: &str) -> Option<DealId> {
    let response =
        client.get(url).send().await.inspect_err(|error| tracing::debug!(%error, "no answer of the gateway"));
    response.ok()?.headers().get("x-wharfage-deal")?.to_str().ok()?.parse().ok()
}

/// What has been told already.
#[derive(Default)]
struct Seen {
    status: String,
    hosts: BTreeSet<DealId>,
    answered: BTreeSet<DealId>,
}

impl Seen {
    fn so_far(&self, wanted: usize) -> String {
        match self.hosts.len() {
            0 => format!("the offer is {} and no replica has a host", self.status.replace('_', " ")),
            hosts => format!("{hosts} of {wanted} replicas have a host and {} have answered", self.answered.len()),
        }
    }
}
