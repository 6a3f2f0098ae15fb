//! The live stream, over a real market and real reorganizations: what a reader has is always what the lists say.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::Request,
};
use chain::calls;
use common::shutdown::Shutdown;
use futures::StreamExt;
use indexer::Indexer;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{api::ok, openapi, scene::Scene};

/// A reader that does what the documentation says.
struct Reader {
    query: String,
    body: Option<BodyDataStream>,
    text: String,
    last_id: Option<String>,
    events: Vec<Value>,
    reorgs: Vec<u64>,
}

impl Reader {
    fn new(query: &str) -> Self {
        let query = query.to_owned();
        Self { query, body: None, text: String::new(), last_id: None, events: Vec::new(), reorgs: Vec::new() }
    }

    /// Connects, as a browser does when a connection broke.
    async fn connect(&mut self, router: &Router) {
        let mut request = Request::get(format!("/v1/stream?{}", self.query));
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        self.text.clear();
        self.body = Some(response.into_body().into_data_stream());
    }

    /// Next message: its name and its data. Everything that it says is done.
    async fn next(&mut self) -> (String, Value) {
        let message = loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.text = rest;
                if !message.starts_with(':') {
                    break message;
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.body.as_mut().unwrap().next()).await;
            let chunk = chunk.expect("nothing was sent").expect("the stream ended").unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        };
        let field = |name: &str| {
            let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("no {name} in {message}")).to_owned()
        };
        let (name, data): (String, Value) = (field("event"), serde_json::from_str(&field("data")).unwrap());
        openapi::message_fits(&name, &data);
        self.last_id = Some(field("id"));
        match name.as_str() {
            "event" => self.events.push(data.clone()),
            "reorg" => {
                let from = data["fromBlock"].as_u64().unwrap();
                self.events.retain(|event| event["blockNumber"].as_u64().unwrap() < from);
                self.reorgs.push(from);
            }
            _ => assert_eq!(name, "block"),
        }
        (name, data)
    }

    /// Reads until everything up to the chain's head was sent.
    async fn catch_up(&mut self, scene: &Scene) {
        let head = json!(scene.head().await.hash);
        while self.next().await.1["asOfBlock"]["hash"] != head {}
    }

    /// Whether it has what a list has, in its order, and nothing twice.
    async fn agrees(&mut self, scene: &Scene, indexer: &Indexer, list: &str) {
        scene.agrees(indexer).await;
        self.catch_up(scene).await;
        assert_eq!(json!(self.events), ok(&indexer.router(), list).await["items"]);
    }
}

const ALL: &str = "/v1/events?limit=500";

#[tokio::test]
async fn a_reader_follows_through_reorganizations() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let mut reader = Reader::new("cursor=0-0");
    reader.connect(&router).await;
    reader.agrees(&scene, &indexer, ALL).await;
    scene.open().await;
    reader.agrees(&scene, &indexer, ALL).await;
    scene.bill().await;
    scene.bill().await;
    reader.agrees(&scene, &indexer, ALL).await;
    assert_eq!(reader.reorgs, [0_u64; 0]);
    let opened = reader.events.iter().find(|event| event["event"] == "provider_offer_opened").unwrap();
    let opened = opened["blockNumber"].as_u64().unwrap();
    for depth in [1, 4, 12] {
        scene.market.anvil.reorg(depth).await;
        reader.agrees(&scene, &indexer, ALL).await;
    }
    assert_eq!(reader.reorgs.len(), 3);
    assert!(reader.reorgs[2] <= opened, "{:?} {opened}", reader.reorgs);
    scene.open().await;
    scene.bill().await;
    reader.agrees(&scene, &indexer, ALL).await;
}

#[tokio::test]
async fn a_reader_resumes_after_anything() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("indexer.db");
    let indexer = scene.indexer(&database, &Shutdown::new()).await.unwrap();
    scene.open().await;
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let mut reader = Reader::new("cursor=0-0");
    // The connection breaks after every message.
    let head = json!(scene.head().await.hash);
    loop {
        reader.connect(&router).await;
        if reader.next().await.1["asOfBlock"]["hash"] == head {
            break;
        }
    }
    assert_eq!(json!(reader.events), ok(&router, ALL).await["items"]);
    scene.bill().await;
    reader.connect(&router).await;
    reader.agrees(&scene, &indexer, ALL).await;
    // The server stops; what the reader saw last is reorganized away, and something else is there.
    drop((router, indexer));
    reader.body = None;
    scene.market.anvil.reorg(3).await;
    scene
        .developer
        .send(&calls::withdraw(scene.market.market, crate::scene::atoms(5), scene.developer.address()))
        .await
        .unwrap();
    scene.market.anvil.mine(70).await;
    let indexer = scene.indexer(&database, &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    assert!(indexer.store().checkpoint().await.unwrap().finalized.is_some());
    reader.connect(&indexer.router()).await;
    reader.agrees(&scene, &indexer, ALL).await;
    assert_eq!(reader.reorgs.len(), 1);
    assert_eq!(reader.events.last().unwrap()["event"], "withdrawn");
    // A reorganization of blocks that the reader has not seen is none of its business.
    reader.body = None;
    scene.market.anvil.mine(2).await;
    scene.market.anvil.reorg(1).await;
    reader.connect(&indexer.router()).await;
    reader.agrees(&scene, &indexer, ALL).await;
    assert_eq!(reader.reorgs.len(), 1);
    // Without a place, it begins now.
    let mut late = Reader::new("");
    late.connect(&indexer.router()).await;
    late.catch_up(&scene).await;
    assert_eq!(late.events, [Value::Null; 0]);
    scene
        .developer
        .send(&calls::withdraw(scene.market.market, crate::scene::atoms(6), scene.developer.address()))
        .await
        .unwrap();
    scene.agrees(&indexer).await;
    late.catch_up(&scene).await;
    assert_eq!((late.events.len(), late.events[0]["amount"].as_str()), (1, Some("6")));
}

#[tokio::test]
async fn a_reader_gets_what_it_asked_for() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.open().await;
    scene.market.next_epoch().await;
    scene.bill().await;
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let (developer, provider) = (scene.developer.address(), scene.providers[0].address());
    for filter in [
        format!("deal={}", scene.deal(1)),
        "kind=deal_settled".to_owned(),
        "kind=withdrawn".to_owned(),
        format!("account={developer}"),
        format!("account={provider}&kind=deal_settled"),
        format!("account={provider}&deal={}", scene.deal(1)),
    ] {
        let mut reader = Reader::new(&format!("cursor=0-0&{filter}"));
        reader.connect(&router).await;
        reader.agrees(&scene, &indexer, &format!("{ALL}&{filter}")).await;
    }
    let mut reader = Reader::new(&format!("cursor=0-0&account={}", scene.providers[0].address()));
    reader.connect(&router).await;
    reader.catch_up(&scene).await;
    let names: Vec<_> = reader.events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["deposited", "provider_offer_opened", "deal_opened", "attested", "deal_settled"]);
}

#[tokio::test]
async fn streams_are_limited_and_end_with_the_indexer() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &shutdown).await.unwrap();
    scene.agrees(&indexer).await;
    let router = indexer.router();
    let mut readers = Vec::new();
    for _ in 0..64 {
        let mut reader = Reader::new("");
        reader.connect(&router).await;
        readers.push(reader);
    }
    let request = || Request::get("/v1/stream").body(Body::empty()).unwrap();
    let refused = router.clone().oneshot(request()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "10"));
    let body = axum::body::to_bytes(refused.into_body(), 10_000).await.unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["code"], "too_many_streams");
    openapi::fits("/v1/stream", 503, "application/problem+json", &problem);
    readers.pop();
    while router.clone().oneshot(request()).await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    indexer.stopped().await.unwrap();
    for mut reader in readers {
        let mut body = reader.body.take().unwrap();
        let ended = async { while body.next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("a stream went on");
    }
}
