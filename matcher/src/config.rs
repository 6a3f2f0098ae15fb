//! How a matcher is run.

use std::path::PathBuf;

use common::offer::MAX_REPLICAS;

use crate::{error::MatcherError, store::OfferLimits};

/// Gas of one fill, signatures of unknown offers included: the contract's ceiling for a first replica is 150,000, each
/// further one takes half of that.
const GAS_PER_FILL: u64 = 140_000;
/// Gas of the transaction itself.
const GAS_BASE: u64 = 100_000;

/// How a matcher is run. [`MatcherConfig::new`] has sane values for all limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatcherConfig {
    /// Folder for the database and the artifacts; made when it is missing.
    pub data_dir: PathBuf,
    /// Where the web API is reached, without a trailing slash: the base of artifact URLs.
    pub public_url: String,
    /// Largest artifact, in bytes.
    pub max_artifact_bytes: u64,
    /// Most bytes of all artifacts together.
    pub max_artifact_store_bytes: u64,
    /// Most signed offers that wait, of each kind.
    pub max_open_offers: usize,
    /// Most signed offers of one account that wait, of each kind.
    pub max_open_offers_per_account: usize,
    /// Most gas that one match transaction may need. At least 14,100,000, so that an offer for 100 replicas fits; nodes
    /// that follow EIP-7825 take at most 16,777,216.
    pub match_gas_budget: u64,
}

impl MatcherConfig {
    /// The usual limits.
    pub fn new(data_dir: impl Into<PathBuf>, public_url: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            public_url: public_url.into(),
            max_artifact_bytes: 64 << 20,
            max_artifact_store_bytes: 16 << 30,
            max_open_offers: 100_000,
            max_open_offers_per_account: 1_000,
            match_gas_budget: 15_000_000,
        }
    }

    /// Fills that fit into one transaction.
    pub(crate) fn max_fills(&self) -> Result<usize, MatcherError> {
        let fills = self.match_gas_budget.saturating_sub(GAS_BASE).div_euclid(GAS_PER_FILL);
        if fills < u64::from(MAX_REPLICAS) {
            let least = GAS_PER_FILL.saturating_mul(u64::from(MAX_REPLICAS)).saturating_add(GAS_BASE);
            return Err(MatcherError::Config { field: "match_gas_budget", least, value: self.match_gas_budget });
        }
        Ok(usize::try_from(fills).unwrap_or(usize::MAX))
    }

    pub(crate) const fn offer_limits(&self) -> OfferLimits {
        OfferLimits { open: self.max_open_offers, open_per_owner: self.max_open_offers_per_account }
    }

    /// The address of an artifact in our content store.
    pub(crate) fn artifact_url(&self, digest: &str) -> String {
        format!("{}{digest}", self.artifact_base())
    }

    /// What addresses of our content store begin with.
    pub(crate) fn artifact_base(&self) -> String {
        format!("{}/v1/artifacts/", self.public_url.trim_end_matches('/'))
    }
}
