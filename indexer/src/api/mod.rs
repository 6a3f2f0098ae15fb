//! The read API under `/v1/`: JSON, CSV and a live stream, each answer with the block that it is true at.
//!
//! Layout: `operations` is the table of routes, from which both the router and the `openapi` document are made;
//! `params` reads requests; `routes` answers them; `list` says what lists are of, `export` writes them as CSV,
//! `stream` follows events; `outlet` is how the last two reach slow readers.

mod export;
mod list;
mod openapi;
mod operations;
mod outlet;
mod params;
mod routes;
mod stream;

use std::sync::Arc;

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::{event::BlockRef, http::Problem, market::MarketTerms};
use tokio::sync::{Semaphore, watch};

pub use self::openapi::document as openapi;
use self::{
    export::MAX_EXPORTS,
    list::List,
    params::{Format, Wanted},
    stream::MAX_STREAMS,
};
use crate::{
    status::Status,
    store::{Snapshot, Store, StoreError},
    view::{Answer, AsOf, Page, Part},
};

/// What all routes share.
#[derive(Clone)]
struct Api {
    store: Store,
    terms: MarketTerms,
    status: Arc<Status>,
    committed: watch::Receiver<Option<BlockRef>>,
    exports: Arc<Semaphore>,
    streams: Arc<Semaphore>,
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

/// Somebody else has to leave first.
fn busy(code: &'static str, detail: String) -> Response {
    let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
    response
}

pub(crate) fn router(
    store: Store,
    terms: MarketTerms,
    status: Arc<Status>,
    committed: watch::Receiver<Option<BlockRef>>,
) -> Router {
    let (exports, streams) = (Arc::new(Semaphore::new(MAX_EXPORTS)), Arc::new(Semaphore::new(MAX_STREAMS)));
    let api = Api { store, terms, status, committed, exports, streams };
    let routes = operations::all().into_iter();
    routes.fold(Router::new(), |router, operation| router.route(operation.path, operation.handler)).with_state(api)
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

    async fn list<L: List>(&self, list: L, wanted: Wanted) -> Result<Response, Refusal> {
        self.list_in(self.view().await?, list, wanted).await
    }

    async fn list_in<L: List>(&self, mut view: View, list: L, wanted: Wanted) -> Result<Response, Refusal> {
        if wanted.format == Format::Csv {
            return Ok(export::respond(self, view, list, wanted));
        }
        let part = Part { limit: wanted.limit, after: wanted.after, order: wanted.order };
        let found = list.page(&mut view.snapshot, part).await.map_err(Problem::internal)?;
        Ok(Json(Page { as_of_block: view.as_of, items: found.items, next_cursor: found.next }).into_response())
    }
}

impl View {
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
