//! Which artifacts stand in the content store, and what they need of a host.

use common::{feature::FeatureSet, ids::Digest};

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
        sqlx::query(
            "INSERT INTO artifacts (digest, size, features, stored_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(artifact.digest.to_string())
        .bind(signed("artifacts.size", artifact.size)?)
        .bind(to_json("artifacts.features", &artifact.features)?)
        .bind(signed("artifacts.stored_at", time)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// One artifact.
    pub async fn artifact(&self, digest: Digest) -> Result<Option<StoredArtifact>, StoreError> {
        let row: Option<(i64, String)> = sqlx::query_as("SELECT size, features FROM artifacts WHERE digest = ?")
            .bind(digest.to_string())
            .fetch_optional(&self.pool)
            .await?;
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
        let (sum,): (i64,) =
            sqlx::query_as("SELECT COALESCE(SUM(size), 0) FROM artifacts").fetch_one(&self.pool).await?;
        unsigned("artifacts.size", sum)
    }
}
