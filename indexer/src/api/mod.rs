//! The read API: JSON under `/v1/`, each answer with the block that it is true at.
//!
//! Layout: `params` reads requests, `routes` answers them.

mod params;
mod routes;

use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use common::{http::Problem, market::MarketTerms};

use crate::{
    status::Status,
    store::{Listed, Snapshot, Store, StoreError},
    view::{Answer, AsOf, Page},
};

/// What all routes share.
#[derive(Clone)]
struct Api {
    store: Store,
    terms: MarketTerms,
    status: Arc<Status>,
}

/// A [`Problem`] as an error that is cheap to pass on.
struct Refusal(Box<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// A snapshot and the block that answers from it are true at.
struct View {
    snapshot: Snapshot,
    as_of: AsOf,
}

pub(crate) fn router(store: Store, terms: MarketTerms, status: Arc<Status>) -> Router {
    Router::new()
        .route("/v1/status", get(routes::status))
        .route("/v1/market", get(routes::market))
        .route("/v1/provider-offers", get(routes::provider_offers))
        .route("/v1/developer-offers", get(routes::developer_offers))
        .route("/v1/developer-offers/{hash}/deals", get(routes::deals_of_offer))
        .route("/v1/deployments", get(routes::deployments))
        .route("/v1/deployments/{hash}", get(routes::deployment))
        .route("/v1/deals", get(routes::deals))
        .route("/v1/deals/{id}", get(routes::deal))
        .route("/v1/deals/{id}/timeline", get(routes::timeline))
        .route("/v1/providers/{address}", get(routes::provider))
        .route("/v1/balances/{address}", get(routes::balance))
        .route("/v1/events", get(routes::events))
        .route("/v1/totals", get(routes::totals))
        .with_state(Api { store, terms, status })
}

impl Api {
    /// Answers are refused once the chain and the database have parted for good, and before the first block.
    async fn view(&self) -> Result<View, Refusal> {
        if let Some(reason) = self.status.condition().failure() {
            let detail = format!("the indexer stopped and needs its operator: {reason}");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "indexer_stopped", detail).into());
        }
        let snapshot = self.store.snapshot().await.map_err(Problem::internal)?;
        let as_of = snapshot.as_of().ok_or_else(|| {
            let detail = "no block of the market is indexed yet: try again in a moment";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
        })?;
        Ok(View { snapshot, as_of })
    }
}

impl View {
    fn list<T>(&self, found: Result<Listed<T>, StoreError>) -> Result<Json<Page<T>>, Refusal> {
        let Listed { items, next } = found.map_err(Problem::internal)?;
        Ok(Json(Page { as_of_block: self.as_of, items, next_cursor: next }))
    }

    fn one<T>(&self, found: Result<T, StoreError>) -> Result<Json<Answer<T>>, Refusal> {
        let item = found.map_err(Problem::internal)?;
        Ok(Json(Answer { as_of_block: self.as_of, item }))
    }

    fn found<T>(
        &self,
        found: Result<Option<T>, StoreError>,
        missing: impl FnOnce() -> Problem,
    ) -> Result<Json<Answer<T>>, Refusal> {
        let item = found.map_err(Problem::internal)?.ok_or_else(missing)?;
        Ok(Json(Answer { as_of_block: self.as_of, item }))
    }
}
