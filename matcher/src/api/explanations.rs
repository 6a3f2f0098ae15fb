//! What stands in the way of the offers that wait, all of them.

use axum::{
    Json,
    extract::{Query, State},
};
use common::{http::Problem, ids::OfferHash};
use indexer::view::AsOf;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Api, request};
use crate::{store::KeptExplanation, view::Present};

/// Most explanations of one answer.
const MAX_LISTED: u32 = 200;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanations {
    as_of_block: AsOf,
    items: Vec<Item>,
    /// To be passed as `after` for what follows; none at the end of the list.
    next_after: Option<OfferHash>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    offer_hash: OfferHash,
    /// Block since which it says the same, counts apart.
    since_block: u64,
    /// Block at which it was last found.
    seen_block: u64,
    explanation: Value,
}

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, Query(page): Query<Page>) -> Result<Json<Explanations>, Problem> {
    let after = page.after.as_deref().map(|after| request::id(after, "invalid_hash")).transpose()?;
    let limit = request::number(page.limit.as_deref(), "limit", u64::from(MAX_LISTED))?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(100);
    let as_of_block = api.ask(|_: &mut Present, as_of| as_of).await?;
    let more = limit.saturating_add(1);
    let mut kept = api.parts.store.kept_explanations(after, more).await.map_err(Problem::internal)?;
    let has_more = kept.len() > limit as usize;
    kept.truncate(limit as usize);
    let next_after = kept.last().filter(|_| has_more).map(|last| last.developer_offer);
    Ok(Json(Explanations { as_of_block, items: kept.into_iter().map(Item::from).collect(), next_after }))
}

impl From<KeptExplanation> for Item {
    fn from(kept: KeptExplanation) -> Self {
        let KeptExplanation { developer_offer, explanation, since_block, seen_block } = kept;
        Self { offer_hash: developer_offer, since_block, seen_block, explanation }
    }
}
