//! Lists: each can be answered as a page of JSON or as rows of CSV, from one consistent view.

use std::future::Future;

use common::ids::{Address, DealId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    prices::{PriceBucket, PriceFilter},
    projection::rows::OpenedAt,
    store::{AttestationFilter, DealFilter, EventFilter, Listed, PaymentFilter, Snapshot, StoreError, payment_cursor},
    view::{
        AttestationView, Cursor, DealView, Deployment, DeveloperOfferView, EventView, Part, PaymentView,
        ProviderOfferView, ProviderSummary,
    },
};

/// What a list is of, and where its items come from.
pub(super) trait List: Send + Sync + 'static {
    /// One item.
    type Item: Serialize + JsonSchema + Send + 'static;

    /// Name of the file that the list is exported to.
    const NAME: &'static str;

    /// Columns of the export: paths into the JSON of an item, with dots between names.
    const COLUMNS: &'static [&'static str];

    /// A part of the list.
    fn page(
        &self,
        snapshot: &mut Snapshot,
        part: Part,
    ) -> impl Future<Output = Result<Listed<Self::Item>, StoreError>> + Send;

    /// Where an item stands, so that the list can be continued after it.
    fn place(item: &Self::Item) -> Cursor;
}

/// Provider offers in a region of a provider.
pub(super) struct ProviderOffers(pub(super) Option<common::region::Region>, pub(super) Option<Address>);

/// Developer offers of a developer.
pub(super) struct DeveloperOffers(pub(super) Option<Address>);

/// Deployments of a developer, or only those that are live.
pub(super) struct Deployments(pub(super) Option<Address>, pub(super) bool);

/// All providers.
pub(super) struct Providers;

/// All that happened to a deal.
pub(super) struct Timeline(pub(super) DealId);

impl List for ProviderOffers {
    type Item = ProviderOfferView;
    const NAME: &'static str = "provider-offers";
    const COLUMNS: &'static [&'static str] = &[
        "offerHash",
        "offer.provider",
        "offer.agent",
        "offer.payout",
        "offer.region",
        "offer.capacity.milliCpu",
        "offer.capacity.memoryMib",
        "offer.features",
        "offer.prices.perVcpuEpoch",
        "offer.prices.perGibEpoch",
        "offer.maxEpochs",
        "offer.validUntil",
        "offer.nonce",
        "offer.endpoint",
        "used.milliCpu",
        "used.memoryMib",
        "free.milliCpu",
        "free.memoryMib",
        "cancelled",
        "openedAt.block",
        "openedAt.logIndex",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.provider_offers(self.0, self.1, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        Cursor(item.opened_at)
    }
}

impl List for DeveloperOffers {
    type Item = DeveloperOfferView;
    const NAME: &'static str = "developer-offers";
    const COLUMNS: &'static [&'static str] = &[
        "offerHash",
        "offer.developer",
        "offer.artifact",
        "offer.manifest",
        "offer.size.milliCpu",
        "offer.size.memoryMib",
        "offer.features",
        "offer.regions",
        "offer.minReplicas",
        "offer.replicas",
        "offer.maxPricePerEpoch",
        "offer.epochs",
        "offer.prepaidEpochs",
        "offer.validUntil",
        "offer.nonce",
        "offer.matcher",
        "offer.matcherFee",
        "offer.allow",
        "offer.deny",
        "offer.artifactUrl",
        "updated.version",
        "updated.artifact",
        "updated.manifest",
        "updated.artifactUrl",
        "liveReplicas",
        "endEpoch",
        "cancelled",
        "openedAt.block",
        "openedAt.logIndex",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.developer_offers(self.0, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        Cursor(item.opened_at)
    }
}

impl List for Deployments {
    type Item = Deployment;
    const NAME: &'static str = "deployments";
    const COLUMNS: &'static [&'static str] = &[
        "developerOffer",
        "developer",
        "artifact",
        "artifactVersion",
        "replicas",
        "liveReplicas",
        "endEpoch",
        "cancelled",
        "openedAt.block",
        "openedAt.logIndex",
        "deals",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.deployments(self.0, self.1, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        Cursor(item.opened_at)
    }
}

impl List for DealFilter {
    type Item = DealView;
    const NAME: &'static str = "deals";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "developerOffer",
        "providerOffer",
        "developer",
        "provider",
        "agent",
        "region",
        "endpoint",
        "size.milliCpu",
        "size.memoryMib",
        "pricePerEpoch",
        "oldPrice.perEpoch",
        "oldPrice.until",
        "changes",
        "startEpoch",
        "endEpoch",
        "settledUntil",
        "paidUntil",
        "unfundedSince",
        "state",
        "cause",
        "funded",
        "paid",
        "refunded",
        "locked",
        "bond",
        "openedAt.block",
        "openedAt.logIndex",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.deals(*self, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        Cursor(item.opened_at)
    }
}

impl List for Providers {
    type Item = ProviderSummary;
    const NAME: &'static str = "providers";
    const COLUMNS: &'static [&'static str] = &[
        "provider",
        "free",
        "bonded",
        "earned",
        "deals.active",
        "deals.ending",
        "deals.ended",
        "evictions",
        "offerCount",
        "firstSeenAt.block",
        "firstSeenAt.logIndex",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.providers(part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        Cursor(item.first_seen_at)
    }
}

/// Columns of events: what all of them have, what many have, and all of it as JSON.
const EVENT_COLUMNS: &[&str] = &[
    "blockNumber",
    "blockHash",
    "timestamp",
    "logIndex",
    "txHash",
    "event",
    "dealId",
    "developerOffer",
    "account",
    "agent",
    "epoch",
    "amount",
    "paid",
    "refunded",
    "reason",
    "cause",
    "",
];

const fn event_place(event: &EventView) -> Cursor {
    Cursor(OpenedAt { block: event.block_number, log_index: event.log_index })
}

impl List for EventFilter {
    type Item = EventView;
    const NAME: &'static str = "events";
    const COLUMNS: &'static [&'static str] = EVENT_COLUMNS;

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.events(*self, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        event_place(item)
    }
}

impl List for Timeline {
    type Item = EventView;
    const NAME: &'static str = "timeline";
    const COLUMNS: &'static [&'static str] = EVENT_COLUMNS;

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.timeline(self.0, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        event_place(item)
    }
}

impl List for PaymentFilter {
    type Item = PaymentView;
    const NAME: &'static str = "payments";
    const COLUMNS: &'static [&'static str] = &[
        "blockNumber",
        "blockHash",
        "timestamp",
        "logIndex",
        "part",
        "txHash",
        "kind",
        "from",
        "to",
        "amount",
        "dealId",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.payments(*self, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        payment_cursor(item)
    }
}

impl List for AttestationFilter {
    type Item = AttestationView;
    const NAME: &'static str = "attestations";
    const COLUMNS: &'static [&'static str] = &[
        "blockNumber",
        "blockHash",
        "timestamp",
        "logIndex",
        "txHash",
        "agent",
        "epoch",
        "receiptRoot",
        "rollingHash",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.attestations(*self, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        Cursor(OpenedAt { block: item.logged.block_number, log_index: item.logged.log_index })
    }
}

impl List for PriceFilter {
    type Item = PriceBucket;
    const NAME: &'static str = "prices";
    const COLUMNS: &'static [&'static str] = &[
        "fromEpoch",
        "toEpoch",
        "start",
        "deals",
        "perVcpuEpoch.least",
        "perVcpuEpoch.median",
        "perVcpuEpoch.greatest",
        "perGibEpoch.least",
        "perGibEpoch.median",
        "perGibEpoch.greatest",
        "perReplicaEpoch.least",
        "perReplicaEpoch.median",
        "perReplicaEpoch.greatest",
    ];

    async fn page(&self, snapshot: &mut Snapshot, part: Part) -> Result<Listed<Self::Item>, StoreError> {
        snapshot.prices(*self, part).await
    }

    fn place(item: &Self::Item) -> Cursor {
        item.place()
    }
}
