//! A real indexer behind a server that can lie, or let the market move on with each request.

use std::{path::Path, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use chain::{TxSender, calls};
use common::{event::BlockRef, ids::Address, shutdown::Shutdown};
use indexer::{Indexer, IndexerConfig};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use super::scene::{Scene, atoms};
use crate::client::ApiClient;

/// Changes an answer to a path.
pub(super) type Lie = fn(&str, &mut Value);

#[derive(Clone)]
struct Server {
    truth: Router,
    lie: Lie,
    /// Rows of history in a page at most, whatever is asked for.
    page: Option<u32>,
    /// Withdraws an atom before each answer.
    mover: Option<(TxSender, Address)>,
    committed: watch::Receiver<Option<BlockRef>>,
}

pub(super) struct LyingIndexer {
    indexer: Indexer,
    mover: (TxSender, Address),
}

impl LyingIndexer {
    /// An indexer of the scene's market that has read all of it.
    pub(super) async fn start(scene: &Scene, folder: &Path) -> Self {
        let mut config = IndexerConfig::new(folder.join("indexer.db").into());
        config.poll_interval = Duration::from_millis(20);
        let indexer = Indexer::start(scene.market.reader.clone(), config, Shutdown::new()).await.unwrap();
        let head = scene.market.anvil.rpc().head().await.unwrap();
        reach(indexer.subscribe(), head.number).await;
        Self { indexer, mover: (scene.developer.clone(), scene.market.market) }
    }

    /// A client of a server that tells this lie.
    pub(super) async fn telling(&self, lie: Lie) -> ApiClient {
        self.serve(lie, None, None).await
    }

    /// The same in pages of five rows, as far as history goes.
    pub(super) async fn telling_in_pages(&self, lie: Lie) -> ApiClient {
        self.serve(lie, Some(5), None).await
    }

    /// A client of a server whose market moves on with each request.
    pub(super) async fn moving(&self) -> ApiClient {
        self.serve(|_, _| (), Some(5), Some(self.mover.clone())).await
    }

    async fn serve(&self, lie: Lie, page: Option<u32>, mover: Option<(TxSender, Address)>) -> ApiClient {
        let server = Server { truth: self.indexer.router(), lie, page, mover, committed: self.indexer.subscribe() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(server);
        tokio::spawn(async move { axum::serve(listener, router).await });
        ApiClient::new(&url).unwrap()
    }
}

async fn reach(mut committed: watch::Receiver<Option<BlockRef>>, number: u64) {
    let reached = committed.wait_for(|block| block.is_some_and(|block| block.number >= number));
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the indexer never got there").unwrap();
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    if let Some((sender, market)) = &server.mover {
        let receipt = sender.send(&calls::withdraw(*market, atoms(1), sender.address())).await.unwrap();
        reach(server.committed.clone(), receipt.block).await;
    }
    let path = request.uri().path().to_owned();
    let mut request = request;
    if let Some(page) = server.page.filter(|_| ["/v1/payments", "/v1/attestations"].contains(&path.as_str())) {
        let asked = request.uri().to_string().replace("limit=500", &format!("limit={page}"));
        *request.uri_mut() = asked.parse().unwrap();
    }
    let (head, body) = server.truth.oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 10_000_000).await.unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    (server.lie)(&path, &mut body);
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = head.status;
    response
}
