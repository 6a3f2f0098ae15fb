//! What the read API answers with, and how a caller asks for a part of it.

use std::{borrow::Cow, str::FromStr};

use common::{
    deal::{Deal, DealState},
    epoch::Epoch,
    event::{BlockRef, MarketEvent},
    ids::{Address, BlockHash, DealId, Digest, OfferHash, ReceiptRoot, TxHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    region::Region,
    resources::Resources,
    state::ArtifactVersion,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::projection::{payments::PaymentKind, rows::OpenedAt};

/// Items of a list when the caller names no limit.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most items of a list.
pub const MAX_LIMIT: u32 = 500;

/// The block that an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AsOf {
    /// Height.
    pub number: u64,
    /// Its hash.
    pub hash: BlockHash,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Whether it can no longer be reorganized away.
    #[serde(rename = "final")]
    pub is_final: bool,
}

impl AsOf {
    /// `block`, seen with blocks up to `finalized` being final.
    pub fn new(block: BlockRef, finalized: Option<u64>) -> Self {
        let is_final = finalized.is_some_and(|finalized| block.number <= finalized);
        Self { number: block.number, hash: block.hash, timestamp: block.timestamp, is_final }
    }
}

/// One thing with the block that it is true at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}Answer")]
pub struct Answer<T> {
    /// The block.
    pub as_of_block: AsOf,
    /// The thing.
    #[serde(flatten)]
    pub item: T,
}

/// A part of a list with the block that it is true at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The block.
    pub as_of_block: AsOf,
    /// In order of where they were logged.
    pub items: Vec<T>,
    /// To be passed as `cursor` for what follows; none at the end of the list.
    pub next_cursor: Option<Cursor>,
}

/// Place of an item in a list: text `BLOCK-LOGINDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub OpenedAt);

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('-').and_then(|(block, log)| block.parse::<i64>().ok().zip(log.parse::<i64>().ok()));
        let place = parts.and_then(|(block, log)| u64::try_from(block).ok().zip(u64::try_from(log).ok()));
        place
            .map(|(block, log_index)| Self(OpenedAt { block, log_index }))
            .ok_or_else(|| "cursor must be a nextCursor of an earlier answer".to_owned())
    }
}

macro_rules! text_schema {
    ($name:ident, $description:literal, $pattern:literal) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

text_schema!(Cursor, "Place of an item in a list, as `nextCursor` of an earlier answer.", "^[0-9]+-[0-9]+$");
text_schema!(WideAtoms, "A sum of atoms of the payment token: a whole number in a string.", "^(0|[1-9][0-9]*)$");

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}-{}", self.0.block, self.0.log_index))
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which way a list runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Oldest first.
    #[default]
    Asc,
    /// Newest first.
    Desc,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// The last item that the caller has.
    pub after: Option<Cursor>,
    /// Which way.
    pub order: Order,
}

/// A sum of money that may exceed what one account can hold. JSON: a decimal string of atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WideAtoms(pub u128);

impl Serialize for WideAtoms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WideAtoms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(D::Error::custom)
    }
}

/// The market's constants and its one switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MarketView {
    /// Constants.
    #[serde(flatten)]
    pub terms: MarketTerms,
    /// Epoch of the block that the answer is about.
    pub epoch: Epoch,
    /// Whether new matches are stopped.
    pub matching_paused: bool,
}

/// A provider offer that the chain knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderOfferView {
    /// Its id.
    pub offer_hash: OfferHash,
    /// Its terms.
    pub offer: ProviderOffer,
    /// What deals hold of it.
    pub used: Resources,
    /// What is left.
    pub free: Resources,
    /// Whether its owner voided it, by hash or by nonce floor.
    pub cancelled: bool,
    /// Where it became known.
    pub opened_at: OpenedAt,
}

/// A developer offer that the chain knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeveloperOfferView {
    /// Its id.
    pub offer_hash: OfferHash,
    /// Its terms, as they were signed or posted.
    pub offer: DeveloperOffer,
    /// What its replicas run instead of the offer's artifact, once that was updated.
    pub updated: Option<ArtifactVersion>,
    /// Replicas that have a host.
    pub live_replicas: u16,
    /// First epoch after the term; none before the first match.
    pub end_epoch: Option<Epoch>,
    /// Whether its owner voided it, by hash or by nonce floor.
    pub cancelled: bool,
    /// Where it became known.
    pub opened_at: OpenedAt,
}

/// A developer offer with all its deals, as a gateway needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its id.
    pub developer_offer: OfferHash,
    /// Who pays.
    pub developer: Address,
    /// What runs: the offer's artifact, or that of its last update.
    pub artifact: Digest,
    /// 0 for the offer's own artifact, then the number of the last update.
    pub artifact_version: u32,
    /// Replicas wanted.
    pub replicas: u16,
    /// Replicas that have a host.
    pub live_replicas: u16,
    /// First epoch after the term; none before the first match.
    pub end_epoch: Option<Epoch>,
    /// Whether its owner voided it, by hash or by nonce floor. Its deals go on.
    pub cancelled: bool,
    /// Where the offer became known.
    pub opened_at: OpenedAt,
    /// Its deals, in order of opening.
    pub deals: Vec<DeploymentDeal>,
}

/// One replica of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentDeal {
    /// Its id.
    pub id: DealId,
    /// Who hosts.
    pub provider: Address,
    /// Where.
    pub region: Region,
    /// Base URL of the host's ingress.
    pub endpoint: String,
    /// Where it stands.
    pub state: DealState,
    /// First epoch that was recorded as unfunded, while that lasts.
    pub unfunded_since: Option<Epoch>,
    /// First billed epoch.
    pub start_epoch: Epoch,
    /// First epoch that is no longer billed.
    pub end_epoch: Epoch,
    /// The provider's ask.
    pub price_per_epoch: Atoms,
}

/// A deal with its money and its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DealView {
    /// Where it stands.
    #[serde(flatten)]
    pub deal: Deal,
    /// Everything that was ever locked for it.
    pub funded: Atoms,
    /// Everything that the provider was paid.
    pub paid: Atoms,
    /// Everything that went back to the developer.
    pub refunded: Atoms,
    /// Where its host is.
    pub region: Region,
    /// Base URL of the host's ingress.
    pub endpoint: String,
    /// Where it was opened.
    pub opened_at: OpenedAt,
}

/// Something that happened, with its transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Height.
    pub block_number: u64,
    /// Hash of the block.
    pub block_hash: BlockHash,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Place in the block.
    pub log_index: u64,
    /// The transaction that caused it.
    pub tx_hash: TxHash,
    /// What happened: `event` names it, the other fields are its own.
    #[serde(flatten)]
    pub event: MarketEvent,
}

/// Where something was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logged {
    /// Height.
    pub block_number: u64,
    /// Hash of the block.
    pub block_hash: BlockHash,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Place in the block.
    pub log_index: u64,
    /// The transaction that caused it.
    pub tx_hash: TxHash,
}

/// A movement of money, with its transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentView {
    /// Its event.
    #[serde(flatten)]
    pub logged: Logged,
    /// 0 for the first movement of the event, 1 for the second; there are no more.
    pub part: u8,
    /// What it is for, which says where the money was and where it is then.
    pub kind: PaymentKind,
    /// Whose money it was.
    pub from: Address,
    /// Whose it is then, or for whom it is held.
    pub to: Address,
    /// More than 0.
    pub amount: Atoms,
    /// The deal that it is about, if it is about one.
    pub deal_id: Option<DealId>,
}

/// An agent's word on one epoch, with its transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttestationView {
    /// Who attested.
    pub agent: Address,
    /// The epoch that was served.
    pub epoch: Epoch,
    /// Commitment to the epoch's receipts.
    pub receipt_root: ReceiptRoot,
    /// Commitment to all of the agent's roots so far.
    pub rolling_hash: ReceiptRoot,
    /// Its event.
    #[serde(flatten)]
    pub logged: Logged,
}

/// A billing period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochView {
    /// Its number.
    pub epoch: Epoch,
    /// First second of it, since 1970.
    pub start: u64,
    /// First second after it, since 1970.
    pub end: u64,
    /// Whether it was over at the block that the answer is about.
    pub over: bool,
    /// How many agents attested it.
    pub attestations: u64,
    /// The first of them, in the order in which they did, at most [`MAX_LIMIT`].
    pub attested_by: Vec<Address>,
    /// Payments for hosting in blocks of this epoch, for whichever epochs they are.
    pub hosting_payments: u64,
    /// Their sum.
    pub hosting_paid: WideAtoms,
}

/// A provider as its offers and deals show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSummary {
    /// The provider's account.
    pub provider: Address,
    /// Its free balance.
    pub free: Atoms,
    /// Bonds of its deals.
    pub bonded: WideAtoms,
    /// Everything that its deals were paid.
    pub earned: WideAtoms,
    /// Number of deals in each state.
    pub deals: DealCounts,
    /// Deals that it was evicted from.
    pub evictions: u64,
    /// Number of its offers.
    pub offer_count: u64,
    /// Where its first offer became known.
    pub first_seen_at: OpenedAt,
}

/// A provider with its offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderView {
    /// Its money and its deals.
    #[serde(flatten)]
    pub summary: ProviderSummary,
    /// Its offers, oldest first, at most [`MAX_LIMIT`].
    pub offers: Vec<ProviderOfferView>,
}

/// Number of deals in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DealCounts {
    /// Hosted and billed.
    pub active: u64,
    /// Until an end that is known.
    pub ending: u64,
    /// Over.
    pub ended: u64,
}

/// One account's money inside the market.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalanceView {
    /// The account.
    pub account: Address,
    /// Neither locked nor bonded.
    pub free: Atoms,
    /// Locked for deals that the account pays for.
    pub locked: WideAtoms,
    /// Bonds of deals that the account hosts.
    pub bonded: WideAtoms,
    /// Offers of the account with a smaller nonce are void. A decimal string, as it may be any 64-bit number.
    pub nonce_floor: String,
}

/// All money in the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Sum of free balances.
    pub free: WideAtoms,
    /// Sum of locks.
    pub locked: WideAtoms,
    /// Sum of bonds.
    pub bonds: WideAtoms,
    /// What the contract must hold at least: the sum of the three.
    pub held: WideAtoms,
    /// Everything ever paid to providers.
    pub paid: WideAtoms,
    /// Number of deals in each state.
    pub deals: DealCounts,
}
