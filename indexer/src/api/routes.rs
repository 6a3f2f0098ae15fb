//! One function for each route. A route that is asked for one thing answers 404 where the market has never seen it.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use common::{
    deal::DealState,
    epoch::Epoch,
    event::BlockRef,
    http::Problem,
    ids::{Address, DealId, OfferHash},
    resources::Resources,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, Refusal,
    list::{Deployments, DeveloperOffers, ProviderOffers, Providers, Timeline},
    params::{Id, Params, invalid},
};
use crate::{
    kind,
    prices::{Buckets, MAX_BUCKETS, MAX_DEALS, PriceFilter},
    progress::Progress,
    projection::payments::PaymentKind,
    store::{AttestationFilter, DealFilter, EventFilter, PaymentFilter},
    view::{
        Answer, AsOf, BalanceView, DEFAULT_LIMIT, DealView, Deployment, EpochView, MarketView, ProviderView, Totals,
    },
};

type Listing = Result<Response, Refusal>;
type Single<T> = Result<Json<Answer<T>>, Refusal>;

fn unknown(code: &'static str, what: &str, id: impl ToString) -> impl FnOnce() -> Problem {
    let detail = format!("the chain has not seen {what} {} up to this block", id.to_string());
    move || Problem::new(StatusCode::NOT_FOUND, code, detail)
}

/// How the indexer is doing.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusView {
    /// The last committed block; none before the first.
    as_of_block: Option<AsOf>,
    /// The chain's newest block, as far as it is known.
    head_block: Option<BlockRef>,
    /// Blocks up to this height can no longer change.
    finalized_block: Option<u64>,
    /// Whether the database has caught up with the chain and follows it.
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

pub(super) async fn provider_offers(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let list = ProviderOffers(params.take("region")?, params.take("provider")?);
    params.finish()?;
    api.list(list, wanted).await
}

pub(super) async fn developer_offers(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let list = DeveloperOffers(params.take("developer")?);
    params.finish()?;
    api.list(list, wanted).await
}

pub(super) async fn deals_of_offer(State(api): State<Api>, Id(hash): Id<OfferHash>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    params.finish()?;
    let mut view = api.view().await?;
    let offer = view.snapshot.developer_offer(hash).await.map_err(Problem::internal)?;
    offer.ok_or_else(unknown("offer_unknown", "developer offer", hash))?;
    let filter = DealFilter { developer_offer: Some(hash), ..DealFilter::default() };
    api.list_in(view, filter, wanted).await
}

pub(super) async fn deployments(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let developer = params.take("developer")?;
    let live = params.take_one_of("live", &[("true", true), ("false", false)])?.unwrap_or_default();
    params.finish()?;
    api.list(Deployments(developer, live), wanted).await
}

pub(super) async fn deployment(State(api): State<Api>, Id(hash): Id<OfferHash>) -> Single<Deployment> {
    let mut view = api.view().await?;
    let found = view.snapshot.deployment(hash).await;
    view.found(found, unknown("offer_unknown", "developer offer", hash))
}

pub(super) async fn deals(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let states = [("active", DealState::Active), ("ending", DealState::Ending), ("ended", DealState::Ended)];
    let filter = DealFilter {
        state: params.take_one_of("state", &states)?,
        provider: params.take("provider")?,
        developer: params.take("developer")?,
        agent: params.take("agent")?,
        developer_offer: None,
    };
    params.finish()?;
    api.list(filter, wanted).await
}

pub(super) async fn deal(State(api): State<Api>, Id(id): Id<DealId>) -> Single<DealView> {
    let mut view = api.view().await?;
    let found = view.snapshot.deal(id).await;
    view.found(found, unknown("deal_unknown", "deal", id))
}

pub(super) async fn timeline(State(api): State<Api>, Id(id): Id<DealId>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    params.finish()?;
    let mut view = api.view().await?;
    let deal = view.snapshot.deal(id).await.map_err(Problem::internal)?;
    deal.ok_or_else(unknown("deal_unknown", "deal", id))?;
    api.list_in(view, Timeline(id), wanted).await
}

pub(super) async fn providers(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    params.finish()?;
    api.list(Providers, wanted).await
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

pub(super) async fn payments(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let filter = PaymentFilter {
        kind: params.take_one_of("kind", &PaymentKind::NAMES)?,
        deal: params.take("deal")?,
        account: params.take("account")?,
    };
    params.finish()?;
    api.list(filter, wanted).await
}

pub(super) async fn attestations(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let filter = AttestationFilter {
        agent: params.take("agent")?,
        from_epoch: params.take("fromEpoch")?.map(Epoch),
        to_epoch: params.take("toEpoch")?.map(Epoch),
    };
    params.finish()?;
    api.list(filter, wanted).await
}

pub(super) async fn epoch(State(api): State<Api>, Id(epoch): Id<u32>) -> Single<EpochView> {
    let mut view = api.view().await?;
    let found = view.snapshot.epoch(Epoch(epoch), api.terms.schedule).await;
    view.found(found, unknown("epoch_unknown", "a block of epoch", epoch))
}

pub(super) async fn events(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let filter = EventFilter {
        kind: params.take_one_of("kind", &kind::ALL.map(|kind| (kind, kind)))?,
        deal: params.take("deal")?,
        account: params.take("account")?,
        from_block: params.take("fromBlock")?,
        to_block: params.take("toBlock")?,
    };
    params.finish()?;
    api.list(filter, wanted).await
}

pub(super) async fn prices(State(api): State<Api>, mut params: Params) -> Listing {
    let wanted = params.take_part()?;
    let (width, from, to) =
        (params.take("bucketEpochs")?.unwrap_or(1), params.take("fromEpoch")?, params.take("toEpoch")?);
    let region = params.take("region")?;
    let least = Resources {
        milli_cpu: params.take("minMilliCpu")?.unwrap_or(0),
        memory_mib: params.take("minMemoryMib")?.unwrap_or(0),
    };
    let greatest = Resources {
        milli_cpu: params.take("maxMilliCpu")?.unwrap_or(u32::MAX),
        memory_mib: params.take("maxMemoryMib")?.unwrap_or(u32::MAX),
    };
    params.finish()?;
    let (mut view, schedule) = (api.view().await?, api.terms.schedule);
    let buckets = price_buckets(width, from, to, schedule.epoch_at(view.as_of.timestamp))?;
    let most = MAX_DEALS.saturating_add(1);
    let deals = view.snapshot.deals_opened(buckets, schedule, most).await.map_err(Problem::internal)?;
    if deals > MAX_DEALS.into() {
        let detail = format!(
            "more than {MAX_DEALS} deals were opened in these epochs, which is the most that are looked at for an answer: ask \
             for fewer epochs at a time"
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, "too_many_deals", detail).with_field("fromEpoch").into());
    }
    api.list_in(view, PriceFilter { buckets, schedule, region, least, greatest }, wanted).await
}

/// The buckets that are asked for: without a beginning the last ones, without an end up to `now`.
fn price_buckets(width: u32, from: Option<u32>, to: Option<u32>, now: Epoch) -> Result<Buckets, Refusal> {
    if width == 0 {
        return Err(invalid("bucketEpochs", "must be at least 1, got 0"));
    }
    let to = to.map_or(now, Epoch);
    let usual = to.0.saturating_sub(width.saturating_mul(DEFAULT_LIMIT.saturating_sub(1)));
    let from = Epoch(from.unwrap_or(usual));
    let buckets = Buckets::over(width, from, to)
        .ok_or_else(|| invalid("fromEpoch", format!("must not be after toEpoch {to}, got {from}")))?;
    if buckets.count() > MAX_BUCKETS.into() {
        let count = buckets.count();
        let detail = format!(
            "epochs {from} to {to} are {count} buckets of {width}; there are at most {MAX_BUCKETS}: ask for fewer epochs, or \
             for more of them in a bucket"
        );
        return Err(invalid("bucketEpochs", detail));
    }
    Ok(buckets)
}

pub(super) async fn totals(State(api): State<Api>) -> Single<Totals> {
    let mut view = api.view().await?;
    let found = view.snapshot.totals().await;
    view.one(found)
}

pub(super) async fn openapi() -> Response {
    Json(super::openapi::document()).into_response()
}
