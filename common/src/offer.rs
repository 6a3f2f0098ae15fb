//! Offers: what providers sell and developers want. Field for field the EIP-712 structs of the contract.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    epoch::Epoch,
    feature::FeatureSet,
    ids::{Address, Digest},
    money::Atoms,
    region::Region,
    resources::{Prices, Resources},
};

/// Most regions that a developer offer may name.
pub const MAX_REGIONS: usize = 16;
/// Most replicas of one developer offer.
pub const MAX_REPLICAS: u16 = 100;
/// Most entries of an allow or a deny list.
pub const MAX_LISTED_PROVIDERS: usize = 32;
/// Longest artifact URL and endpoint, in bytes.
pub const MAX_URL_BYTES: usize = 512;

/// A provider offer's milli-CPU and MiB stay below this.
pub const CAPACITY_LIMIT: u32 = 1 << 30;
/// A replica's milli-CPU and MiB stay below this.
pub const SIZE_LIMIT: u32 = 1 << 20;
/// Most epochs that an offer may lock ahead.
pub const MAX_PREPAID_EPOCHS: u32 = 65_535;

/// What a provider sells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderOffer {
    /// Account that signs; its free balance carries the bonds.
    pub provider: Address,
    /// Hot key that attests; it can move no money.
    pub agent: Address,
    /// Account that payments are credited to.
    pub payout: Address,
    /// Where the machine stands; at least continent and country.
    pub region: Region,
    /// What is for sale.
    pub capacity: Resources,
    /// Host capabilities that are switched on.
    pub features: FeatureSet,
    /// What it costs.
    pub prices: Prices,
    /// Longest term of a deal in epochs; 0 for no limit.
    pub max_epochs: u32,
    /// Last second (since 1970) at which the offer may be matched.
    pub valid_until: u64,
    /// Void when below the provider's nonce floor; makes equal offers distinct.
    pub nonce: u64,
    /// Base URL of the agent's ingress, without a trailing slash.
    pub endpoint: String,
}

/// What a developer wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeveloperOffer {
    /// Account that signs and pays.
    pub developer: Address,
    /// SHA-256 digest of the Wasm component.
    pub artifact: Digest,
    /// SHA-256 digest of the manifest; zero for none.
    #[serde(default)]
    pub manifest: Digest,
    /// Per replica.
    pub size: Resources,
    /// Host capabilities that the worker imports.
    pub features: FeatureSet,
    /// Acceptable places; empty for anywhere.
    pub regions: Vec<Region>,
    /// Fewest replicas worth starting with; at least 1.
    pub min_replicas: u16,
    /// Replicas wanted, each at another provider.
    pub replicas: u16,
    /// Most that one replica may cost for one epoch.
    pub max_price_per_epoch: Atoms,
    /// Term in epochs, counted from the first match.
    pub epochs: u32,
    /// Epochs locked ahead for each replica.
    pub prepaid_epochs: u32,
    /// Last second (since 1970) at which replicas may be placed.
    pub valid_until: u64,
    /// Void when below the developer's nonce floor; makes equal offers distinct.
    pub nonce: u64,
    /// Only this account may match the offer; zero for anyone.
    #[serde(default)]
    pub matcher: Address,
    /// Paid for each replica placed, to the account that sends the match.
    #[serde(default)]
    pub matcher_fee: Atoms,
    /// Providers that may host; empty for any.
    #[serde(default)]
    pub allow: Vec<Address>,
    /// Providers that may not host.
    #[serde(default)]
    pub deny: Vec<Address>,
    /// Where the artifact may be fetched: a hint, the digest is the truth.
    pub artifact_url: String,
}

/// A field of an offer outside its limits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidOffer {
    /// A number outside its range.
    #[error("{field} must be {limit}, got {value}")]
    OutOfRange {
        /// Name of the field as in JSON.
        field: &'static str,
        /// What is allowed.
        limit: String,
        /// What was given.
        value: String,
    },
    /// A list or text that is too long.
    #[error("{field} may have at most {limit} {unit}, got {value}")]
    TooLong {
        /// Name of the field as in JSON.
        field: &'static str,
        /// Most allowed.
        limit: usize,
        /// What is counted.
        unit: &'static str,
        /// What was given.
        value: usize,
    },
}

impl InvalidOffer {
    /// Name of the field at fault, as in JSON.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::OutOfRange { field, .. } | Self::TooLong { field, .. } => field,
        }
    }
}

fn require(holds: bool, field: &'static str, limit: impl ToString, value: impl ToString) -> Result<(), InvalidOffer> {
    if holds {
        return Ok(());
    }
    Err(InvalidOffer::OutOfRange { field, limit: limit.to_string(), value: value.to_string() })
}

/// An amount of CPU or memory: something, below its limit.
fn within(value: u32, limit: u32, field: &'static str) -> Result<(), InvalidOffer> {
    require((1..limit).contains(&value), field, format!("1 to {}", limit.saturating_sub(1)), value)
}

fn at_most(value: usize, limit: usize, field: &'static str, unit: &'static str) -> Result<(), InvalidOffer> {
    if value <= limit { Ok(()) } else { Err(InvalidOffer::TooLong { field, limit, unit, value }) }
}

impl ProviderOffer {
    /// Price of one replica of this size for one epoch; `None` when it exceeds what money can represent.
    pub fn ask(&self, size: Resources) -> Option<Atoms> {
        self.prices.ask(size).ok()
    }

    /// Checks what the contract calls *malformed*, and names the field.
    pub fn validate(&self) -> Result<(), InvalidOffer> {
        require(!self.provider.is_zero(), "provider", "a non-zero account", self.provider)?;
        require(!self.agent.is_zero(), "agent", "a non-zero account", self.agent)?;
        require(!self.payout.is_zero(), "payout", "a non-zero account", self.payout)?;
        require(self.region.names_country(), "region", "at least continent and country", self.region)?;
        within(self.capacity.milli_cpu, CAPACITY_LIMIT, "capacity.milliCpu")?;
        within(self.capacity.memory_mib, CAPACITY_LIMIT, "capacity.memoryMib")?;
        at_most(self.endpoint.len(), MAX_URL_BYTES, "endpoint", "bytes")
    }
}

impl DeveloperOffer {
    /// Checks what the contract calls *malformed*, and names the field. `min_prepaid_epochs` is the market's.
    pub fn validate(&self, min_prepaid_epochs: u32) -> Result<(), InvalidOffer> {
        require(!self.developer.is_zero(), "developer", "a non-zero account", self.developer)?;
        require(!self.artifact.is_zero(), "artifact", "a SHA-256 digest", self.artifact)?;
        within(self.size.milli_cpu, SIZE_LIMIT, "size.milliCpu")?;
        within(self.size.memory_mib, SIZE_LIMIT, "size.memoryMib")?;
        let (price, most) = (self.max_price_per_epoch, Atoms::MAX_PRICE);
        require(price <= most, "maxPricePerEpoch", format!("at most {} atoms", most.get()), price.get())?;
        require(
            (1..=MAX_REPLICAS).contains(&self.replicas),
            "replicas",
            format!("1 to {MAX_REPLICAS}"),
            self.replicas,
        )?;
        let min_is_valid = (1..=self.replicas).contains(&self.min_replicas);
        require(min_is_valid, "minReplicas", format!("1 to replicas ({})", self.replicas), self.min_replicas)?;
        require(self.epochs > 0, "epochs", "at least 1", self.epochs)?;
        let least = min_prepaid_epochs.min(self.epochs);
        let prepaid_is_valid = (least..=MAX_PREPAID_EPOCHS).contains(&self.prepaid_epochs);
        let limit = format!("{least} to {MAX_PREPAID_EPOCHS}");
        require(prepaid_is_valid, "prepaidEpochs", limit, self.prepaid_epochs)?;
        at_most(self.regions.len(), MAX_REGIONS, "regions", "entries")?;
        at_most(self.allow.len(), MAX_LISTED_PROVIDERS, "allow", "entries")?;
        at_most(self.deny.len(), MAX_LISTED_PROVIDERS, "deny", "entries")?;
        at_most(self.artifact_url.len(), MAX_URL_BYTES, "artifactUrl", "bytes")
    }

    /// Epochs that are billed when the term ends before `end` and billing starts with `start`.
    pub fn remaining_epochs(&self, start: Epoch, end: Option<Epoch>) -> u32 {
        end.map_or(self.epochs, |end| end.since(start))
    }
}
