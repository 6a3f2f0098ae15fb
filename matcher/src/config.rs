//! How a matcher is run.

use std::path::PathBuf;

use common::offer::MAX_REPLICAS;
use indexer::store::Location;

use crate::{batch, error::MatcherError, relay::FeePolicy, store::OfferLimits};

/// How a matcher is run. [`MatcherConfig::new`] has sane values for all limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatcherConfig {
    /// Folder for the artifacts and, where no other is named, the database; made when it is missing.
    pub data_dir: PathBuf,
    /// The database; `matcher.db` in the data folder where none is named. On PostgreSQL several processes may share one:
    /// one of them matches, and another goes on when it is gone. Its tables are in a schema of their own, `matcher`, so
    /// that the indexer's can be in the same database. The processes need a data folder in common for the artifacts.
    pub database: Option<Location>,
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
    /// Most gas that one match transaction may need, below what a block may have and the 16,777,216 of EIP-7825. At least
    /// 9,781,000, so that an offer for 100 replicas fits.
    pub max_gas_per_match: u64,
    /// Most transactions that are sent and not mined: a burst of offers clears in so many at a time. At least 1.
    pub max_in_flight: usize,
    /// Most wei that are paid for a unit of gas. While the base fee is above it nothing new is sent. At least 1.
    pub max_fee_per_gas: u64,
    /// Blocks after which a transaction that is not mined is sent again at a higher fee. At least 1.
    pub reprice_after_blocks: u64,
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
            database: None,
            max_gas_per_match: 10_000_000,
            max_in_flight: 8,
            max_fee_per_gas: 500_000_000_000,
            // The fee that a transaction begins with outlasts five full blocks in a row.
            reprice_after_blocks: 6,
        }
    }

    /// Refuses values that nothing could be matched with.
    pub(crate) fn check(&self) -> Result<(), MatcherError> {
        let in_flight = u64::try_from(self.max_in_flight).unwrap_or(u64::MAX);
        for (field, value, least) in [
            ("max_gas_per_match", self.max_gas_per_match, batch::gas_of_replicas(MAX_REPLICAS.into())),
            ("max_in_flight", in_flight, 1),
            ("max_fee_per_gas", self.max_fee_per_gas, 1),
            ("reprice_after_blocks", self.reprice_after_blocks, 1),
        ] {
            if value < least {
                return Err(MatcherError::Config { field, least, value });
            }
        }
        Ok(())
    }

    /// Where the database is.
    pub(crate) fn location(&self) -> Location {
        self.database.clone().unwrap_or_else(|| Location::Sqlite(self.data_dir.join("matcher.db")))
    }

    pub(crate) fn fees(&self) -> FeePolicy {
        FeePolicy { max_fee_per_gas: self.max_fee_per_gas.into(), reprice_after_blocks: self.reprice_after_blocks }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_limits_are_in_range_and_what_could_match_nothing_is_refused() {
        let usual = MatcherConfig::new("data", "http://localhost");
        usual.check().unwrap();
        let refused = |config: MatcherConfig| config.check().unwrap_err().to_string();
        let small = MatcherConfig { max_gas_per_match: 9_780_999, ..usual.clone() };
        assert_eq!(refused(small), "max_gas_per_match must be at least 9781000, got 9780999: raise it");
        assert!(refused(MatcherConfig { max_in_flight: 0, ..usual.clone() }).starts_with("max_in_flight must"));
        assert!(refused(MatcherConfig { max_fee_per_gas: 0, ..usual.clone() }).starts_with("max_fee_per_gas must"));
        assert!(refused(MatcherConfig { reprice_after_blocks: 0, ..usual }).starts_with("reprice_after_blocks must"));
    }
}
