//! One function for each route. A route that is asked for one thing answers 404 where the market has never seen it.

use axum::{Json, extract::State, http::StatusCode};
use common::{
    deal::DealState,
    event::BlockRef,
    http::Problem,
    ids::{Address, DealId, OfferHash},
};
use serde::Serialize;

use super::{
    Api, Refusal,
    params::{Id, Params},
};
use crate::{
    progress::Progress,
    store::DealFilter,
    view::{
        Answer, AsOf, BalanceView, DealView, Deployment, DeveloperOfferView, EventView, MarketView, Page,
        ProviderOfferView, ProviderView, Totals,
    },
};

type Listing<T> = Result<Json<Page<T>>, Refusal>;
type Single<T> = Result<Json<Answer<T>>, Refusal>;

fn unknown(code: &'static str, what: &str, id: impl ToString) -> impl FnOnce() -> Problem {
    let detail = format!("the chain has not seen {what} {} up to this block", id.to_string());
    move || Problem::new(StatusCode::NOT_FOUND, code, detail)
}

/// How the indexer is doing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusView {
    as_of_block: Option<AsOf>,
    head_block: Option<BlockRef>,
    finalized_block: Option<u64>,
    ready: bool,
    /// What is missing, where it is not ready.
    reason: Option<String>,
    /// How far it is to the head; none before the head is known.
    progress: Option<Progress>,
}

pub(super) async fn status(State(api): State<Api>) -> Json<StatusView> {
    let condition = api.status.condition();
    let reason = api.status.ready().err();
    let finalized = condition.committed.finalized;
    Json(StatusView {
        as_of_block: condition.committed.block.map(|block| AsOf::new(block, finalized)),
        head_block: condition.head,
        finalized_block: finalized,
        ready: reason.is_none(),
        reason,
        progress: api.status.progress(),
    })
}

pub(super) async fn market(State(api): State<Api>) -> Single<MarketView> {
    let mut view = api.view().await?;
    let paused = view.snapshot.matching_paused().await;
    let epoch = api.terms.schedule.epoch_at(view.as_of.timestamp);
    view.one(paused.map(|matching_paused| MarketView { terms: api.terms, epoch, matching_paused }))
}

pub(super) async fn provider_offers(State(api): State<Api>, mut params: Params) -> Listing<ProviderOfferView> {
    let (part, region, provider) = (params.take_part()?, params.take("region")?, params.take("provider")?);
    params.finish("region, provider, limit, cursor, order")?;
    let mut view = api.view().await?;
    let found = view.snapshot.provider_offers(region, provider, part).await;
    view.list(found)
}

pub(super) async fn developer_offers(State(api): State<Api>, mut params: Params) -> Listing<DeveloperOfferView> {
    let (part, developer) = (params.take_part()?, params.take("developer")?);
    params.finish("developer, limit, cursor, order")?;
    let mut view = api.view().await?;
    let found = view.snapshot.developer_offers(developer, part).await;
    view.list(found)
}

pub(super) async fn deals_of_offer(
    State(api): State<Api>,
    Id(hash): Id<OfferHash>,
    mut params: Params,
) -> Listing<DealView> {
    let part = params.take_part()?;
    params.finish("limit, cursor, order")?;
    let mut view = api.view().await?;
    let offer = view.snapshot.developer_offer(hash).await.map_err(Problem::internal)?;
    offer.ok_or_else(unknown("offer_unknown", "developer offer", hash))?;
    let filter = DealFilter { developer_offer: Some(hash), ..DealFilter::default() };
    let found = view.snapshot.deals(filter, part).await;
    view.list(found)
}

pub(super) async fn deployments(State(api): State<Api>, mut params: Params) -> Listing<Deployment> {
    let (part, developer) = (params.take_part()?, params.take("developer")?);
    let live = params.take_one_of("live", &[("true", true), ("false", false)])?.unwrap_or_default();
    params.finish("live, developer, limit, cursor, order")?;
    let mut view = api.view().await?;
    let found = view.snapshot.deployments(developer, live, part).await;
    view.list(found)
}

pub(super) async fn deployment(State(api): State<Api>, Id(hash): Id<OfferHash>) -> Single<Deployment> {
    let mut view = api.view().await?;
    let found = view.snapshot.deployment(hash).await;
    view.found(found, unknown("offer_unknown", "developer offer", hash))
}

pub(super) async fn deals(State(api): State<Api>, mut params: Params) -> Listing<DealView> {
    let part = params.take_part()?;
    let states = [("active", DealState::Active), ("ending", DealState::Ending), ("ended", DealState::Ended)];
    let filter = DealFilter {
        state: params.take_one_of("state", &states)?,
        provider: params.take("provider")?,
        developer: params.take("developer")?,
        agent: params.take("agent")?,
        developer_offer: None,
    };
    params.finish("state, provider, developer, agent, limit, cursor, order")?;
    let mut view = api.view().await?;
    let found = view.snapshot.deals(filter, part).await;
    view.list(found)
}

pub(super) async fn deal(State(api): State<Api>, Id(id): Id<DealId>) -> Single<DealView> {
    let mut view = api.view().await?;
    let found = view.snapshot.deal(id).await;
    view.found(found, unknown("deal_unknown", "deal", id))
}

pub(super) async fn timeline(State(api): State<Api>, Id(id): Id<DealId>, mut params: Params) -> Listing<EventView> {
    let part = params.take_part()?;
    params.finish("limit, cursor, order")?;
    let mut view = api.view().await?;
    let deal = view.snapshot.deal(id).await.map_err(Problem::internal)?;
    deal.ok_or_else(unknown("deal_unknown", "deal", id))?;
    let found = view.snapshot.timeline(id, part).await;
    view.list(found)
}

pub(super) async fn provider(State(api): State<Api>, Id(address): Id<Address>) -> Single<ProviderView> {
    let mut view = api.view().await?;
    let found = view.snapshot.provider(address).await;
    view.found(found, unknown("provider_unknown", "an offer or a deal of provider", address))
}

pub(super) async fn balance(State(api): State<Api>, Id(address): Id<Address>) -> Single<BalanceView> {
    let mut view = api.view().await?;
    let found = view.snapshot.balance(address).await;
    view.one(found)
}

pub(super) async fn events(State(api): State<Api>, mut params: Params) -> Listing<EventView> {
    let part = params.take_part()?;
    params.finish("limit, cursor, order")?;
    let mut view = api.view().await?;
    let found = view.snapshot.events(part).await;
    view.list(found)
}

pub(super) async fn totals(State(api): State<Api>) -> Single<Totals> {
    let mut view = api.view().await?;
    let found = view.snapshot.totals().await;
    view.one(found)
}
