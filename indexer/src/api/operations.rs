//! The table of routes. The router and the OpenAPI document are both made from it, so neither can have what the other
//! lacks.

use axum::routing::{MethodRouter, get};
use common::{
    deal::DealState,
    epoch::Epoch,
    ids::{Address, DealId, OfferHash},
    region::Region,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    Api,
    export::MAX_ROWS,
    list::{Deployments, DeveloperOffers, List, ProviderOffers, Providers, Timeline},
    routes, stream,
};
use crate::{
    kind,
    prices::{MAX_BUCKETS, MAX_DEALS, PriceFilter},
    projection::payments::PaymentKind,
    store::{AttestationFilter, DealFilter, EventFilter, PaymentFilter},
    view::{
        Answer, BalanceView, Cursor, DEFAULT_LIMIT, DealView, Deployment, EpochView, EventView, MAX_LIMIT, MarketView,
        Order, Page, ProviderView, Totals,
    },
};

pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What an operation answers with when all is well.
pub(super) enum Success {
    Json(SchemaOf),
    /// JSON or CSV.
    List(SchemaOf),
    /// Server-sent events: names, and what the data of each is.
    Events([(&'static str, SchemaOf); 3]),
    /// The document itself.
    Document,
}

pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `path`, `query` or `header`.
    pub(super) place: &'static str,
    pub(super) about: &'static str,
    pub(super) schema: SchemaOf,
}

/// Why a request may be refused: status, code, when.
pub(super) type Refused = (u16, &'static str, &'static str);

/// One route.
pub(super) struct Operation {
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Api>,
    pub(super) id: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) success: Success,
    pub(super) refused: Vec<Refused>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn limit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_ROWS })
}

fn positive(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1 })
}

fn format(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["json", "csv"], "default": "json" })
}

fn event_kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": kind::ALL })
}

fn position(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+-([0-9]+|end)(-[0-9]+-0x[0-9a-f]{64})?$" })
}

const BAD_PARAMETER: Refused = (400, "invalid_parameter", "a parameter is unknown, malformed or out of its range");
const BAD_ID: Refused = (400, "invalid_id", "the id in the path is malformed");
const OFFER_UNKNOWN: Refused = (404, "offer_unknown", "the chain has not seen this offer");
const DEAL_UNKNOWN: Refused = (404, "deal_unknown", "the chain has not seen this deal");

impl Operation {
    fn new(path: &'static str, id: &'static str, about: &'static str, handler: MethodRouter<Api>) -> Self {
        let refused = vec![
            (500, "internal", "something failed here; it was logged"),
            (503, "not_ready", "no block is indexed yet"),
            (503, "indexer_stopped", "the indexer stopped for good and needs its operator"),
        ];
        Self { path, handler, id, about, parameters: Vec::new(), success: Success::Document, refused }
    }

    fn one<T: JsonSchema>(mut self) -> Self {
        self.success = Success::Json(schema::<Answer<T>>);
        self
    }

    fn list<L: List>(mut self) -> Self {
        self.success = Success::List(schema::<Page<L::Item>>);
        self.refused.push((503, "too_many_exports", "as many exports as are allowed are being read at once"));
        self.query("limit", LIMIT_ABOUT, limit)
            .query("cursor", "What follows the item with this cursor.", schema::<Cursor>)
            .query("order", "Oldest or newest first.", schema::<Order>)
            .query("format", "The same as an `Accept` header with `text/csv`.", format)
    }

    fn query(mut self, name: &'static str, about: &'static str, schema: SchemaOf) -> Self {
        if !self.refused.contains(&BAD_PARAMETER) {
            self.refused.push(BAD_PARAMETER);
        }
        self.parameters.push(Parameter { name, place: "query", about, schema });
        self
    }

    fn path<T: JsonSchema>(mut self, name: &'static str, about: &'static str) -> Self {
        self.refused.push(BAD_ID);
        self.parameters.push(Parameter { name, place: "path", about, schema: schema::<T> });
        self
    }

    fn refuses(mut self, refused: Refused) -> Self {
        self.refused.push(refused);
        self
    }
}

/// The numbers are [`DEFAULT_LIMIT`], [`MAX_LIMIT`] and [`MAX_ROWS`].
const LIMIT_ABOUT: &str = "Items at most: 1 to 500, 100 by default; for CSV 1 to 100000, which is the default.";
const _: () = assert!(DEFAULT_LIMIT == 100 && MAX_LIMIT == 500 && MAX_ROWS == 100_000, "LIMIT_ABOUT has the numbers");

/// What [`common::parties`] defines.
const ACCOUNT_ABOUT: &str = "Only events that concern this account: that name it as a party, belong to a deal of which it \
     is developer, provider or agent, pay it for hosting, or are about a developer offer of it. An offer names its owner, \
     its agent, its payout account and the one matcher that it admits; lists of allowed and denied providers and what was \
     passed over in a match concern nobody.";

/// All routes.
pub(super) fn all() -> Vec<Operation> {
    [offers_and_deals(), accounts(), history(), service()].into_iter().flatten().collect()
}

fn offers_and_deals() -> Vec<Operation> {
    let new = Operation::new;
    vec![
        new("/v1/provider-offers", "providerOffers", "Supply that the chain knows.", get(routes::provider_offers))
            .list::<ProviderOffers>()
            .query("region", "Only offers in this region.", schema::<Region>)
            .query("provider", "Only offers of this account.", schema::<Address>),
        new("/v1/developer-offers", "developerOffers", "Demand that the chain knows.", get(routes::developer_offers))
            .list::<DeveloperOffers>()
            .query("developer", "Only offers of this account.", schema::<Address>),
        new("/v1/developer-offers/{hash}/deals", "dealsOfOffer", "Deals of one offer.", get(routes::deals_of_offer))
            .path::<OfferHash>("hash", "The developer offer.")
            .list::<DealFilter>()
            .refuses(OFFER_UNKNOWN),
        new("/v1/deployments", "deployments", "Developer offers with their deals.", get(routes::deployments))
            .list::<Deployments>()
            .query("developer", "Only those of this account.", schema::<Address>)
            .query("live", "Only those that have a deal that is not over.", schema::<bool>),
        new("/v1/deployments/{hash}", "deployment", "One developer offer with its deals.", get(routes::deployment))
            .path::<OfferHash>("hash", "The developer offer.")
            .one::<Deployment>()
            .refuses(OFFER_UNKNOWN),
        new("/v1/deals", "deals", "Deals.", get(routes::deals))
            .list::<DealFilter>()
            .query("state", "Where they stand.", schema::<DealState>)
            .query("provider", "Who hosts.", schema::<Address>)
            .query("developer", "Who pays.", schema::<Address>)
            .query("agent", "Whose attestations count.", schema::<Address>),
        new("/v1/deals/{id}", "deal", "One deal with its money.", get(routes::deal))
            .path::<DealId>("id", "The deal.")
            .one::<DealView>()
            .refuses(DEAL_UNKNOWN),
        new("/v1/deals/{id}/timeline", "timeline", "All that happened to a deal.", get(routes::timeline))
            .path::<DealId>("id", "The deal.")
            .list::<Timeline>()
            .refuses(DEAL_UNKNOWN),
    ]
}

fn accounts() -> Vec<Operation> {
    let new = Operation::new;
    vec![
        new("/v1/providers", "providers", "Providers by their first offers.", get(routes::providers))
            .list::<Providers>(),
        new("/v1/providers/{address}", "provider", "One provider with its offers.", get(routes::provider))
            .path::<Address>("address", "The provider's account.")
            .one::<ProviderView>()
            .refuses((404, "provider_unknown", "the account never offered")),
        new("/v1/balances/{address}", "balance", "One account's money.", get(routes::balance))
            .path::<Address>("address", "Any account; one that was never seen holds nothing.")
            .one::<BalanceView>(),
        new("/v1/totals", "totals", "All money in the market.", get(routes::totals)).one::<Totals>(),
    ]
}

fn history() -> Vec<Operation> {
    let new = Operation::new;
    vec![
        new("/v1/payments", "payments", "Every movement of money, with its transaction.", get(routes::payments))
            .list::<PaymentFilter>()
            .query("kind", "What they are for.", schema::<PaymentKind>)
            .query("deal", "The deal that they are about.", schema::<DealId>)
            .query("account", "Whose money it was or is.", schema::<Address>),
        new("/v1/attestations", "attestations", "Agents' words on epochs.", get(routes::attestations))
            .list::<AttestationFilter>()
            .query("agent", "Who attested.", schema::<Address>)
            .query("fromEpoch", "First epoch.", schema::<Epoch>)
            .query("toEpoch", "Last epoch.", schema::<Epoch>),
        new("/v1/epochs/{epoch}", "epoch", "One billing period.", get(routes::epoch))
            .path::<Epoch>("epoch", "Its number.")
            .one::<EpochView>()
            .refuses((404, "epoch_unknown", "no block of the epoch, nor a later one, is indexed yet")),
        prices(),
        new("/v1/events", "events", "All that happened in the market.", get(routes::events))
            .list::<EventFilter>()
            .query("kind", "The event's name.", event_kind)
            .query("deal", "The deal that it belongs to.", schema::<DealId>)
            .query("account", ACCOUNT_ABOUT, schema::<Address>)
            .query("fromBlock", "Lowest height.", schema::<u64>)
            .query("toBlock", "Greatest height.", schema::<u64>),
        follow(),
    ]
}

/// The numbers are [`MAX_BUCKETS`], [`DEFAULT_LIMIT`] and [`MAX_DEALS`].
const PRICES_ABOUT: &str = "What deals were opened at, over time: in each bucket of epochs how many there were, and least, \
     median and greatest of the two asks of their provider offers and of their price. At most 500 buckets, by default the \
     last 100, and at most 50000 deals of any place and size in them.";
const _: () =
    assert!(MAX_BUCKETS == 500 && MAX_DEALS == 50_000 && DEFAULT_LIMIT == 100, "PRICES_ABOUT has the numbers");

fn prices() -> Operation {
    Operation::new("/v1/prices", "prices", PRICES_ABOUT, get(routes::prices))
        .list::<PriceFilter>()
        .query(
            "bucketEpochs",
            "Epochs of a bucket; 1 by default. The first bucket of all begins with epoch 0.",
            positive,
        )
        .query("fromEpoch", "An epoch of the first bucket.", schema::<Epoch>)
        .query("toEpoch", "An epoch of the last bucket; the current one by default.", schema::<Epoch>)
        .query("region", "Only deals hosted in this region.", schema::<Region>)
        .query("minMilliCpu", "Only replicas with at least this CPU.", schema::<u32>)
        .query("maxMilliCpu", "Only replicas with at most this CPU.", schema::<u32>)
        .query("minMemoryMib", "Only replicas with at least this memory.", schema::<u32>)
        .query("maxMemoryMib", "Only replicas with at most this memory.", schema::<u32>)
        .refuses((400, "too_many_deals", "more deals were opened in these epochs than are looked at for an answer"))
}

fn follow() -> Operation {
    let about = "Events as they are committed, over server-sent events. Begins with what is committed after the \
         request, or after the cursor.";
    let mut stream = Operation::new("/v1/stream", "stream", about, get(stream::stream))
        .query("cursor", "Id of the last message that was seen, or a `nextCursor` of `/v1/events`.", position)
        .query("kind", "The event's name.", event_kind)
        .query("deal", "The deal that it belongs to.", schema::<DealId>)
        .query("account", ACCOUNT_ABOUT, schema::<Address>)
        .refuses((503, "too_many_streams", "as many streams as are allowed are open"));
    let about = "Goes before `cursor`; browsers send it when they reconnect.";
    stream.parameters.push(Parameter { name: "Last-Event-ID", place: "header", about, schema: position });
    stream.success = Success::Events([
        ("event", schema::<EventView>),
        ("block", schema::<stream::BlockMessage>),
        ("reorg", schema::<stream::ReorgMessage>),
    ]);
    stream
}

fn service() -> Vec<Operation> {
    let new = Operation::new;
    let mut status = new("/v1/status", "status", "How the indexer is doing.", get(routes::status));
    status.success = Success::Json(schema::<routes::StatusView>);
    status.refused.clear();
    let mut document = new("/v1/openapi.json", "openapi", "This document.", get(routes::openapi));
    document.refused.clear();
    vec![
        new("/v1/market", "market", "The market's constants.", get(routes::market)).one::<MarketView>(),
        status,
        document,
    ]
}
