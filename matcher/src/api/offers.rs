//! Shows offers, signed or known to the chain.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use common::{
    http::Problem,
    ids::{Address, DealId, OfferHash, TxHash},
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
};
use indexer::view::AsOf;
use matching::{explain::Explanation, feasible, market, snapshot::Supply};
use serde::{Deserialize, Serialize};

use super::{Api, request};
use crate::{
    store::{Kind, StoredOffer, TxStatus},
    view::{OfferStatus, Present},
};

/// Most transactions that are listed of one offer: the latest.
const MAX_TRANSACTIONS: u32 = 20;
/// Most waiting offers of one answer.
const MAX_LISTED: usize = 500;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownDeveloperOffer {
    offer_hash: OfferHash,
    offer: DeveloperOffer,
    status: OfferStatus,
    /// Why some replica has no host, and what would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
    /// Block since which the explanation says the same, counts apart, as far as the matcher has noted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    explained_since_block: Option<u64>,
    /// Whether the operator has stopped new matches for now.
    matching_paused: bool,
    /// All deals there ever were.
    deals: Vec<DealId>,
    /// Match transactions of this matcher, latest first.
    transactions: Vec<ShownTransaction>,
    as_of_block: AsOf,
}

#[derive(Serialize)]
pub(super) struct ShownTransaction {
    hash: TxHash,
    status: TxStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownProviderOffer {
    offer_hash: OfferHash,
    offer: ProviderOffer,
    /// `open`, or why nobody can be placed: `cancelled`, `expired`.
    status: &'static str,
    /// What deals hold of it.
    used: Resources,
    /// Deals that have not ended.
    deals: Vec<DealId>,
    as_of_block: AsOf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    as_of_block: AsOf,
    items: Vec<WaitingOffer>,
    /// To be passed as `after` for what follows; none at the end of the list.
    next_after: Option<u64>,
}

/// An offer that only this matcher knows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WaitingOffer {
    /// Order of acceptance, over both kinds.
    sequence: u64,
    kind: Kind,
    offer_hash: OfferHash,
    owner: Address,
    /// Block that was indexed last when it was accepted.
    accepted_block: u64,
}

#[derive(Deserialize)]
pub(super) struct WaitingPage {
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn developer_offer(
    State(api): State<Api>,
    Path(hash): Path<String>,
) -> Result<Json<ShownDeveloperOffer>, Problem> {
    shown_developer_offer(&api, request::id(&hash, "invalid_hash")?).await.map(Json)
}

/// How an offer stands now.
pub(super) async fn shown_developer_offer(api: &Api, hash: OfferHash) -> Result<ShownDeveloperOffer, Problem> {
    let known = move |present: &mut Present, _| present.demand(hash).map(|demand| demand.offer.clone());
    let offer = match api.ask(known).await? {
        Some(offer) => offer,
        None => match api.parts.store.signed_offer(hash).await.map_err(Problem::internal)? {
            Some(StoredOffer::Developer(signed)) => signed.offer,
            _ => return Err(unknown(Kind::Developer, hash)),
        },
    };
    let transactions = api.parts.store.matches_of(hash, MAX_TRANSACTIONS).await.map_err(Problem::internal)?;
    let transactions =
        transactions.into_iter().map(|tx| ShownTransaction { hash: tx.prepared.hash, status: tx.status }).collect();
    let kept = api.parts.store.kept_explanation(hash).await.map_err(Problem::internal)?;
    let shown = move |present: &mut Present, as_of_block| {
        let demand = present.demand_of(hash, offer.clone());
        let status = present.status(&demand);
        let is_open = !matches!(status, OfferStatus::Placed | OfferStatus::Matching | OfferStatus::Ended);
        let explanation = is_open.then(|| present.market.engine().explain(&demand));
        let kept = kept.filter(|kept| explanation.as_ref().is_some_and(|explanation| kept.says(explanation)));
        ShownDeveloperOffer {
            offer_hash: hash,
            offer,
            status,
            explanation,
            explained_since_block: kept.map(|kept| kept.since_block),
            matching_paused: present.market.state().matching_paused,
            deals: present.market.deals_of_demand(hash).collect(),
            transactions,
            as_of_block,
        }
    };
    api.ask(shown).await
}

pub(super) async fn provider_offer(
    State(api): State<Api>,
    Path(hash): Path<String>,
) -> Result<Json<ShownProviderOffer>, Problem> {
    let hash: OfferHash = request::id(&hash, "invalid_hash")?;
    let known = move |present: &mut Present, as_of_block| {
        let known = present.market.state().provider_offers.get(&hash)?;
        Some(shown_provider_offer(present, hash, known.offer.clone(), as_of_block))
    };
    if let Some(shown) = api.ask(known).await? {
        return Ok(Json(shown));
    }
    let Some(StoredOffer::Provider(signed)) = api.parts.store.signed_offer(hash).await.map_err(Problem::internal)?
    else {
        return Err(unknown(Kind::Provider, hash));
    };
    let shown = move |present: &mut Present, as_of| shown_provider_offer(present, hash, signed.offer, as_of);
    api.ask(shown).await.map(Json)
}

fn shown_provider_offer(
    present: &Present,
    hash: OfferHash,
    offer: ProviderOffer,
    as_of_block: AsOf,
) -> ShownProviderOffer {
    let market = &present.market;
    let supply = Supply::new(hash, offer.clone(), Vec::new(), Default::default());
    let status = match feasible::supply_is_void(market.conditions(), &supply) {
        None => "open",
        Some(common::event::Reason::ProviderOfferExpired) => "expired",
        Some(_) => "cancelled",
    };
    let used = market.state().provider_offers.get(&hash).map(|known| known.used).unwrap_or_default();
    let deals = market.open_deals_of_supply(hash).collect();
    ShownProviderOffer { offer_hash: hash, offer, status, used, deals, as_of_block }
}

pub(super) async fn waiting(State(api): State<Api>, Query(page): Query<WaitingPage>) -> Result<Json<Waiting>, Problem> {
    let after = request::number(page.after.as_deref(), "after", u64::MAX)?.unwrap_or_default();
    let most = u64::try_from(MAX_LISTED).unwrap_or(u64::MAX);
    let limit = request::number(page.limit.as_deref(), "limit", most)?.unwrap_or(100);
    let limit = usize::try_from(limit).unwrap_or(MAX_LISTED);
    let page = move |present: &mut Present, as_of_block| {
        let mut behind = present.market.waiting(after).map(WaitingOffer::from);
        let items: Vec<_> = behind.by_ref().take(limit).collect();
        let next_after = behind.next().and(items.last()).map(|offer| offer.sequence);
        Waiting { as_of_block, items, next_after }
    };
    api.ask(page).await.map(Json)
}

impl From<market::WaitingOffer> for WaitingOffer {
    fn from(offer: market::WaitingOffer) -> Self {
        Self {
            sequence: offer.sequence,
            kind: if offer.is_demand { Kind::Developer } else { Kind::Provider },
            offer_hash: offer.hash,
            owner: offer.owner,
            accepted_block: offer.accepted_block,
        }
    }
}

fn unknown(kind: Kind, hash: OfferHash) -> Problem {
    let detail = format!("no {} offer {hash} is known here or on the chain: check the hash", kind.as_str());
    Problem::new(StatusCode::NOT_FOUND, "offer_unknown", detail)
}
