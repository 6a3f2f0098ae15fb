//! Which artifacts stand in the content store, and what they need of a host.

use common::{feature::FeatureSet, ids::Digest};
use indexer::store::db::Statement;

use super::{
    Store, StoreError,
    convert::{from_json, signed, to_json, unsigned},
};

/// What is known of a stored artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredArtifact {
    /// Its SHA-256 digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What its imports need.
    pub features: FeatureSet,
}

impl Store {
    /// Enters an artifact; entering it again changes nothing.
    pub async fn add_artifact(&self, artifact: StoredArtifact, time: u64) -> Result<(), StoreError> {
        let add =
            "INSERT INTO artifacts (digest, size, features, stored_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let add = Statement::new(add)
            .bind(artifact.digest.to_string())
            .bind(signed("artifacts.size", artifact.size)?)
            .bind(to_json("artifacts.features", &artifact.features)?)
            .bind(signed("artifacts.stored_at", time)?);
        self.change(add).await
    }

    /// One artifact.
    pub async fn artifact(&self, digest: Digest) -> Result<Option<StoredArtifact>, StoreError> {
        let one = Statement::new("SELECT size, features FROM artifacts WHERE digest = $1").bind(digest.to_string());
        let row: Option<(i64, String)> = self.row(one).await?;
        let read = |(size, features): (i64, String)| {
            Ok(StoredArtifact {
                digest,
                size: unsigned("artifacts.size", size)?,
                features: from_json("artifacts.features", &features)?,
            })
        };
        row.map(read).transpose()
    }

    /// Bytes of all artifacts together.
    pub async fn artifact_bytes(&self) -> Result<u64, StoreError> {
        let sum = Statement::new("SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM artifacts");
        let (sum,): (i64,) = self.pool.read().await?.fetch_one(sum).await?;
        unsigned("artifacts.size", sum)
    }
}
