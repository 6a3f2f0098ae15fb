//! An indexer and agents on real sockets that behave as a test tells them, and a gateway in front of them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use common::{http::Problem, ids::OfferHash, shutdown::Shutdown};
use gateway::{Gateway, GatewayConfig};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

/// Waits until `holds`, up to a minute: no test depends on how fast a machine is.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A server whose connections all break when it is dropped, as when a process is killed.
pub struct Server {
    pub addr: SocketAddr,
    _alive: DropGuard,
}

impl Server {
    pub async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let alive = CancellationToken::new();
        let token = alive.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(Ok((stream, _))) = token.run_until_cancelled(listener.accept()).await {
                let router = router.clone();
                let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    router.clone().oneshot(request.map(Body::new))
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            connections.shutdown().await;
        });
        Self { addr, _alive: alive.drop_guard() }
    }
}

/// An indexer with the deployments that a test gives it.
pub struct Indexer {
    pub server: Server,
    pub data: Arc<Mutex<IndexerData>>,
}

#[derive(Default)]
pub struct IndexerData {
    /// By hash; `false` for those that are only found by their hash.
    pub deployments: Vec<(Value, bool)>,
    pub now: u64,
}

impl Indexer {
    pub async fn start(deployments: Vec<Value>) -> Self {
        let deployments = deployments.into_iter().map(|item| (item, true)).collect();
        let data = Arc::new(Mutex::new(IndexerData { deployments, now: 0 }));
        let router = Router::new()
            .route("/v1/deployments", get(list))
            .route("/v1/deployments/{hash}", get(single))
            .route("/v1/market", get(|| async { Json(json!({ "schedule": { "genesis": 0, "length": 60 } })) }))
            .with_state(Arc::clone(&data));
        Self { server: Server::start(router).await, data }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.addr)
    }
}

fn as_of(data: &IndexerData) -> Value {
    json!({ "number": 1, "hash": "0x00", "timestamp": data.now, "final": true })
}

/// Two deployments a page, so that cursors are followed.
async fn list(
    State(data): State<Arc<Mutex<IndexerData>>>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let data = data.lock().unwrap();
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let live: Vec<_> = data.deployments.iter().filter(|(_, is_live)| *is_live).map(|(item, _)| item).collect();
    let items: Vec<_> = live.iter().skip(from).take(2).collect();
    let next = (live.len() > from + 2).then(|| (from + 2).to_string());
    Json(json!({ "asOfBlock": as_of(&data), "items": items, "nextCursor": next }))
}

async fn single(State(data): State<Arc<Mutex<IndexerData>>>, Path(hash): Path<String>) -> Response {
    let data = data.lock().unwrap();
    let found = data.deployments.iter().find(|(item, _)| item["developerOffer"] == hash);
    let Some((item, _)) = found else {
        return Problem::new(StatusCode::NOT_FOUND, "unknown_offer", "no such offer").into_response();
    };
    let mut item = item.clone();
    item["asOfBlock"] = as_of(&data);
    Json(item).into_response()
}

/// What an agent does with requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// The worker answers.
    Works,
    /// The agent refuses in its own name.
    Refuses(u16),
    /// The worker never answers.
    Hangs,
}

/// An agent with one worker.
pub struct Agent {
    pub server: Server,
    pub state: Arc<AgentState>,
}

pub struct AgentState {
    pub mood: Mutex<Mood>,
    pub status: Mutex<&'static str>,
    /// Requests that reached the worker, by method.
    pub seen: Mutex<Vec<(Method, String, HeaderMap)>>,
    pub in_flight: AtomicUsize,
    /// What the next answers of `/stream` send; closing ends them.
    pub chunks: Mutex<Option<mpsc::Receiver<Bytes>>>,
    /// Where `/upload` reports each chunk that arrives.
    pub uploads: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
}

impl Agent {
    pub async fn start() -> Self {
        let state = Arc::new(AgentState {
            mood: Mutex::new(Mood::Works),
            status: Mutex::new("ready"),
            seen: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            chunks: Mutex::default(),
            uploads: Mutex::default(),
        });
        let router = Router::new()
            .route("/status/{deal}", get(status))
            .route("/d/{deal}/", any(worker))
            .route("/d/{deal}/{*path}", any(worker))
            .with_state(Arc::clone(&state));
        Self { server: Server::start(router).await, state }
    }

    pub fn set(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    pub fn count(&self, method: Method) -> usize {
        self.state.seen.lock().unwrap().iter().filter(|(seen, ..)| *seen == method).count()
    }

    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }
}

async fn status(State(agent): State<Arc<AgentState>>) -> Json<Value> {
    Json(json!({ "state": *agent.status.lock().unwrap() }))
}

async fn worker(State(agent): State<Arc<AgentState>>, request: Request) -> Response {
    let path = request.uri().to_string();
    let deal = path.split('/').nth(2).unwrap().to_owned();
    agent.in_flight.fetch_add(1, Ordering::SeqCst);
    agent.seen.lock().unwrap().push((request.method().clone(), path.clone(), request.headers().clone()));
    let mood = *agent.mood.lock().unwrap();
    match mood {
        Mood::Works => (),
        Mood::Refuses(status) => {
            let status = StatusCode::from_u16(status).unwrap();
            let problem = Problem::new(status, "agent_says_no", "not here").into_response();
            return ([(header::RETRY_AFTER, "7")], problem).into_response();
        }
        Mood::Hangs => std::future::pending().await,
    }
    let body = if path.ends_with("/stream") {
        let chunks = agent.chunks.lock().unwrap().take().unwrap();
        Body::from_stream(futures::stream::unfold(chunks, |mut chunks| async {
            Some((Ok::<_, std::io::Error>(chunks.recv().await?), chunks))
        }))
    } else if path.ends_with("/upload") {
        let uploads = agent.uploads.lock().unwrap().clone().unwrap();
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { break };
            uploads.send(frame.into_data().unwrap()).unwrap();
        }
        Body::from("received")
    } else {
        let bytes = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Body::from(if bytes.is_empty() { Bytes::from(path) } else { bytes })
    };
    let mut response = body.into_response();
    response.headers_mut().insert("x-wharfage-deal", deal.parse().unwrap());
    response.headers_mut().insert("keep-alive", "timeout=5".parse().unwrap());
    response
}

pub fn offer(byte: u8) -> OfferHash {
    OfferHash([byte; 32])
}

/// A deployment as the indexer lists it. Deal ids are the offer's byte and the place of the agent.
pub fn deployment(offer: OfferHash, endpoints: &[String]) -> Value {
    let deal = |at: usize, endpoint: &String| {
        let mut id = offer.0;
        id[31] = u8::try_from(at).unwrap();
        json!({
            "id": OfferHash(id), "provider": format!("0x{at:040}"), "region": "eu-de-fra1", "endpoint": endpoint,
            "state": "active", "unfundedSince": null, "startEpoch": 1, "endEpoch": 100, "pricePerEpoch": "123",
        })
    };
    json!({
        "developerOffer": offer, "developer": format!("0x{:040}", 1), "artifact": offer, "replicas": endpoints.len(),
        "liveReplicas": endpoints.len(), "endEpoch": 100, "cancelled": false,
        "deals": endpoints.iter().enumerate().map(|(at, endpoint)| deal(at, endpoint)).collect::<Vec<_>>(),
    })
}

/// A gateway with two agents behind it that host deployment `0x11…`.
pub struct Setup {
    pub gateway: Gateway,
    pub shutdown: Shutdown,
    pub indexer: Indexer,
    pub agents: Vec<Agent>,
    pub client: reqwest::Client,
    pub base: String,
    _stop: DropGuard,
}

/// Settings of tests: a refresh only when asked for would be best, so it is rare unless a test wants it.
pub fn config(indexer_url: String) -> GatewayConfig {
    let mut config = GatewayConfig::new("127.0.0.1:0".parse().unwrap(), indexer_url);
    config.allow_private_endpoints = true;
    config.domain = Some("run.test".to_owned());
    config.refresh_interval_ms = 100;
    config
}

pub async fn setup() -> Setup {
    setup_with(|_| ()).await
}

pub async fn setup_with(change: impl FnOnce(&mut GatewayConfig)) -> Setup {
    let agents = vec![Agent::start().await, Agent::start().await];
    let endpoints: Vec<_> = agents.iter().map(Agent::url).collect();
    let indexer = Indexer::start(vec![deployment(offer(0x11), &endpoints)]).await;
    let mut config = config(indexer.url());
    change(&mut config);
    let shutdown = Shutdown::new();
    let gateway = Gateway::start(config, shutdown.clone()).await.unwrap();
    let base = format!("http://{}", gateway.local_addr());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let stop = shutdown.clone().drop_guard();
    let setup = Setup { gateway, shutdown, indexer, agents, client, base, _stop: stop };
    eventually("the gateway is ready", || async { setup.status("/readyz").await == StatusCode::OK }).await;
    setup
}

impl Setup {
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// URL below the deployment of `offer`.
    pub fn at(&self, offer: OfferHash, path: &str) -> String {
        self.url(&format!("/d/{offer}{path}"))
    }

    pub async fn get(&self, url: String) -> reqwest::Response {
        self.client.get(url).send().await.unwrap()
    }

    pub async fn status(&self, path: &str) -> StatusCode {
        self.get(self.url(path)).await.status()
    }

    /// The problem that a request ends with.
    pub async fn problem(&self, request: reqwest::RequestBuilder) -> (Problem, HeaderMap) {
        let response = request.send().await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{response:?}");
        let status = response.status();
        let problem: Problem = response.json().await.unwrap();
        assert_eq!(problem.status, status.as_u16());
        (problem, headers)
    }

    /// Value of a metric's line, such as `wharfage_gateway_retries_total`.
    pub async fn metric(&self, line: &str) -> String {
        let text = self.get(self.url("/metrics")).await.text().await.unwrap();
        let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in {text}")).to_owned()
    }

    /// Adds or replaces deployments; the next refresh sees them.
    pub fn list(&self, deployment: Value, is_live: bool) {
        let mut data = self.indexer.data.lock().unwrap();
        data.deployments.retain(|(item, _)| item["developerOffer"] != deployment["developerOffer"]);
        data.deployments.push((deployment, is_live));
    }

    /// Waits until the table has been read again after this call.
    pub async fn refreshed(&self, deployments: &str) {
        eventually("the table is refreshed", || async {
            self.metric("wharfage_gateway_deployments").await == deployments
        })
        .await;
    }
}
