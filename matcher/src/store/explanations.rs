//! What stands in the way of waiting offers, and since when.

use common::ids::OfferHash;
use indexer::store::db::Statement;
use matching::explain::Explanation;
use serde_json::Value;
use sqlx::FromRow;

use super::{
    Store, StoreError,
    convert::{from_json, id, signed, to_json, unsigned},
};

/// What an explanation comes to. How many provider offers fail which check changes with every offer that comes or goes, and
/// says nothing new.
const ESSENCE: [&str; 6] = ["matchable", "blocked", "liveReplicas", "placeableReplicas", "goalReplicas", "suggestions"];

/// An explanation that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptExplanation {
    /// Whose it is.
    pub developer_offer: OfferHash,
    /// As the API answers it.
    pub explanation: Value,
    /// Block at which it first said what it says.
    pub since_block: u64,
    /// Block at which it was last found.
    pub seen_block: u64,
}

impl KeptExplanation {
    /// Whether another one says the same.
    pub fn says(&self, other: &Explanation) -> bool {
        serde_json::to_value(other).is_ok_and(|other| says_the_same(&self.explanation, &other))
    }
}

/// Whether two explanations come to the same.
pub fn says_the_same(left: &Value, right: &Value) -> bool {
    ESSENCE.iter().all(|part| left.get(part) == right.get(part))
}

#[derive(FromRow)]
struct Row {
    developer_offer: String,
    explanation: String,
    since_block: i64,
    seen_block: i64,
}

impl Store {
    /// Keeps explanations that were found as of `block`; says how many say what those before did not.
    pub async fn keep_explanations(&self, found: &[(OfferHash, Explanation)], block: u64) -> Result<usize, StoreError> {
        let mut tx = self.write().await?;
        let mut changed = 0_usize;
        for (hash, explanation) in found {
            let known: Option<Row> = tx.fetch_optional(one(*hash)).await?;
            let known = known.map(KeptExplanation::try_from).transpose()?;
            let known = known.filter(|known| known.says(explanation));
            changed = changed.saturating_add(usize::from(known.is_none()));
            // A reorganization may have taken the block away at which it was noted.
            let since = known.map_or(block, |known| known.since_block.min(block));
            let keep = "INSERT INTO explanations (developer_offer, explanation, since_block, seen_block)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (developer_offer) DO UPDATE SET explanation = $2, since_block = $3, seen_block = $4";
            let keep = Statement::new(keep)
                .bind(hash.to_string())
                .bind(to_json("explanations.explanation", explanation)?)
                .bind(signed("explanations.since_block", since)?)
                .bind(signed("explanations.seen_block", block)?);
            tx.execute(keep).await?;
        }
        tx.commit().await?;
        Ok(changed)
    }

    /// What was kept of an offer.
    pub async fn kept_explanation(&self, offer: OfferHash) -> Result<Option<KeptExplanation>, StoreError> {
        let row: Option<Row> = self.row(one(offer)).await?;
        row.map(TryInto::try_into).transpose()
    }

    /// What was kept, in the order of the hashes, from behind one on.
    pub async fn kept_explanations(
        &self,
        after: Option<OfferHash>,
        limit: u32,
    ) -> Result<Vec<KeptExplanation>, StoreError> {
        let page = "SELECT * FROM explanations WHERE developer_offer > $1 ORDER BY developer_offer LIMIT $2";
        let after = after.map_or_else(String::new, |after| after.to_string());
        let rows: Vec<Row> = self.rows(Statement::new(page).bind(after).bind(i64::from(limit))).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Forgets those of offers that do not wait any more.
    pub async fn drop_explanations(&self, offers: &[OfferHash]) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        for offer in offers {
            let drop = Statement::new("DELETE FROM explanations WHERE developer_offer = $1").bind(offer.to_string());
            tx.execute(drop).await?;
        }
        Ok(tx.commit().await?)
    }
}

fn one(offer: OfferHash) -> Statement {
    Statement::new("SELECT * FROM explanations WHERE developer_offer = $1").bind(offer.to_string())
}

impl TryFrom<Row> for KeptExplanation {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            developer_offer: id("explanations.developer_offer", &row.developer_offer)?,
            explanation: from_json("explanations.explanation", &row.explanation)?,
            since_block: unsigned("explanations.since_block", row.since_block)?,
            seen_block: unsigned("explanations.seen_block", row.seen_block)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use matching::samples::hash;

    use super::*;
    use crate::store::testing::databases;

    fn explanation(considered: usize, placeable_replicas: usize) -> Explanation {
        Explanation {
            matchable: false,
            replicas: 2,
            min_replicas: 2,
            live_replicas: 0,
            placeable_replicas,
            considered,
            counted: considered,
            blocked: None,
            reasons: Vec::new(),
            goal_replicas: 2,
            suggestions: Vec::new(),
            summary: format!("none of {considered}"),
        }
    }

    #[tokio::test]
    async fn since_moves_when_it_says_something_else_and_the_counts_follow() {
        for database in databases().await {
            let store = database.open().await;
            let offer = hash(1, 1);
            let keep = async |considered, placeable, block| {
                store.keep_explanations(&[(offer, explanation(considered, placeable))], block).await.unwrap()
            };
            let kept = async || {
                let kept = store.kept_explanation(offer).await.unwrap().unwrap();
                (kept.explanation["considered"].as_u64().unwrap(), kept.since_block, kept.seen_block)
            };
            assert_eq!(store.kept_explanation(offer).await.unwrap(), None);
            assert_eq!((keep(3, 0, 10).await, kept().await), (1, (3, 10, 10)));
            assert_eq!((keep(4, 0, 12).await, kept().await), (0, (4, 10, 12)));
            assert_eq!((keep(4, 1, 14).await, kept().await), (1, (4, 14, 14)));
            // The chain is shorter now.
            assert_eq!((keep(4, 1, 13).await, kept().await), (0, (4, 13, 13)));
            // It is there after a restart, and until its offer does not wait any more.
            let again = database.open().await;
            assert_eq!(again.kept_explanation(offer).await.unwrap().unwrap().since_block, 13);
            again.drop_explanations(&[offer, hash(1, 2)]).await.unwrap();
            assert_eq!(store.kept_explanation(offer).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn all_that_were_kept_can_be_read_in_parts() {
        for database in databases().await {
            let store = database.open().await;
            let mut offers: Vec<OfferHash> = (0..5).map(|number| hash(1, number)).collect();
            let found: Vec<_> = offers.iter().map(|offer| (*offer, explanation(0, 0))).collect();
            assert_eq!(store.keep_explanations(&found, 1).await.unwrap(), 5);
            offers.sort_unstable();
            let (mut read, mut after) = (Vec::new(), None);
            loop {
                let page = store.kept_explanations(after, 2).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.developer_offer);
                read.extend(page.iter().map(|kept| kept.developer_offer));
            }
            assert_eq!(read, offers);
        }
    }
}
