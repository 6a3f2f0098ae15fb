//! Answers about offers that nobody has signed: what to sign, whether it is valid, who would host it, why nobody would.

use axum::{Json, extract::State};
use common::{
    http::Problem,
    ids::{Address, OfferHash},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
};
use indexer::view::AsOf;
use matching::explain::{Explanation, QuotedReplica};
use serde::{Deserialize, Serialize};

use super::{
    Api,
    request::{self, Body},
    submit,
};
use crate::view::Present;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct Draft<T> {
    /// Checked where it is given.
    chain_id: Option<u64>,
    offer: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TypedData {
    offer_hash: OfferHash,
    /// For `eth_signTypedData_v4`.
    typed_data: serde_json::Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Valid {
    valid: bool,
    offer_hash: OfferHash,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Quote {
    matchable: bool,
    /// Whether the operator has stopped new matches for now.
    matching_paused: bool,
    /// Who would host now, cheapest first; empty when the offer cannot start.
    replicas: Vec<QuotedReplica>,
    /// What they cost together in one epoch.
    price_per_epoch: Atoms,
    /// What is locked of the developer's free balance at the match.
    lock: Atoms,
    /// Why some replica would have no host, and what would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
    as_of_block: AsOf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    matching_paused: bool,
    #[serde(flatten)]
    explanation: Explanation,
    as_of_block: AsOf,
}

pub(super) async fn developer_typed_data(State(api): State<Api>, body: Body) -> Result<Json<TypedData>, Problem> {
    let offer: DeveloperOffer = draft(&api, body)?;
    let least_prepaid = api.parts.views.terms.min_prepaid_epochs;
    offer.validate(least_prepaid).map_err(|error| request::invalid_offer(&error))?;
    let domain = api.parts.views.domain;
    Ok(Json(TypedData { offer_hash: domain.developer_offer_hash(&offer), typed_data: domain.typed_data(&offer) }))
}

pub(super) async fn provider_typed_data(State(api): State<Api>, body: Body) -> Result<Json<TypedData>, Problem> {
    let offer: ProviderOffer = draft(&api, body)?;
    offer.validate().map_err(|error| request::invalid_offer(&error))?;
    let domain = api.parts.views.domain;
    Ok(Json(TypedData {
        offer_hash: domain.provider_offer_hash(&offer),
        typed_data: domain.provider_typed_data(&offer),
    }))
}

pub(super) async fn validate(State(api): State<Api>, body: Body) -> Result<Json<Valid>, Problem> {
    let offer: DeveloperOffer = draft(&api, body)?;
    submit::check_developer_offer(&api, &offer).await?;
    Ok(Json(Valid { valid: true, offer_hash: api.parts.views.domain.developer_offer_hash(&offer) }))
}

pub(super) async fn quote(State(api): State<Api>, body: Body) -> Result<Json<Quote>, Problem> {
    let (hash, offer) = demanded(&api, body)?;
    let quoted = move |present: &mut Present, as_of_block| {
        let demand = present.demand_of(hash, offer);
        let matching_paused = present.market.state().matching_paused;
        let engine = present.market.engine();
        let replicas = engine.quote(&demand);
        let sum = |part: fn(&QuotedReplica) -> Atoms| -> Atoms {
            let total: Result<Atoms, _> = replicas.iter().map(part).sum();
            total.unwrap_or(Atoms::MAX)
        };
        let is_whole = replicas.len() >= usize::from(demand.offer.replicas);
        Quote {
            matchable: !replicas.is_empty(),
            matching_paused,
            price_per_epoch: sum(|replica| replica.ask),
            lock: sum(|replica| replica.lock),
            explanation: (!is_whole).then(|| engine.explain(&demand)),
            replicas,
            as_of_block,
        }
    };
    api.ask(quoted).await.map(Json)
}

pub(super) async fn explain(State(api): State<Api>, body: Body) -> Result<Json<Explained>, Problem> {
    let (hash, offer) = demanded(&api, body)?;
    let explained = move |present: &mut Present, as_of_block| {
        let demand = present.demand_of(hash, offer);
        let explanation = present.market.engine().explain(&demand);
        Explained { matching_paused: present.market.state().matching_paused, explanation, as_of_block }
    };
    api.ask(explained).await.map(Json)
}

fn draft<T: for<'de> Deserialize<'de>>(api: &Api, body: Body) -> Result<T, Problem> {
    let draft: Draft<T> = request::json(body)?;
    draft.chain_id.map_or(Ok(()), |chain_id| submit::check_chain_id(api, chain_id))?;
    Ok(draft.offer)
}

/// The offer of a draft with its hash; one without a developer is checked as if somebody had signed it.
fn demanded(api: &Api, body: Body) -> Result<(OfferHash, DeveloperOffer), Problem> {
    let offer: DeveloperOffer = draft(api, body)?;
    let mut checked = offer.clone();
    if checked.developer.is_zero() {
        checked.developer = Address([0xff; 20]);
    }
    let least_prepaid = api.parts.views.terms.min_prepaid_epochs;
    checked.validate(least_prepaid).map_err(|error| request::invalid_offer(&error))?;
    Ok((api.parts.views.domain.developer_offer_hash(&offer), offer))
}
