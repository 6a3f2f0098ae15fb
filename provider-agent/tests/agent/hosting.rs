//! The host alone: components run, and every limit holds and is named, wherever they run.

use std::{os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    feature::FeatureSet,
    ids::{DealId, Digest},
    resources::Resources,
};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use provider_agent::{
    HostLimits, IsolationMode,
    domain::replica::{Cause, Failure},
    host::{Module, ServeError, Worker, WorkerBody, WorkerHost, WorkerSpec},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::{digest, eventually, guest, isolation};

const DEAL: DealId = DealId([0xd1; 32]);

fn limits() -> HostLimits {
    HostLimits {
        max_live_instances: 32,
        request_timeout_ms: 60_000,
        cpu_ms_per_request: 60_000,
        ..HostLimits::default()
    }
}

/// Each test in the agent's own process, and in one for each worker.
macro_rules! wherever_workers_run {
    ($($test:ident,)*) => {
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::IsolationMode::InProcess).await;
            })*
        }
        #[cfg(target_os = "linux")]
        mod process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::IsolationMode::Process).await;
            })*
        }
    };
}

wherever_workers_run! {
    a_rust_worker_answers_and_knows_who_it_is,
    a_javascript_worker_answers,
    bodies_stream_both_ways_through_less_memory_than_they_have,
    endless_loops_end_at_the_cpu_limit_and_others_are_served_meanwhile,
    a_request_that_takes_too_long_is_ended_whatever_it_does,
    memory_is_limited_to_what_was_bought_and_comes_back,
    a_trap_is_told_and_harms_nobody_else,
    request_bodies_are_limited_by_announcement_and_by_count,
    too_many_requests_are_refused_and_closing_waits_for_those_that_run,
    outgoing_requests_are_refused,
    what_is_no_worker_is_refused_with_its_cause,
    compiled_modules_are_loaded_again_unless_somebody_changed_them,
}

struct Fixture {
    folder: TempDir,
    host: WorkerHost,
}

impl Fixture {
    async fn new(mode: IsolationMode, limits: HostLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = WorkerHost::new(folder.path(), limits, &isolation(mode)).await.unwrap();
        Self { folder, host }
    }

    async fn load(&self, bytes: &[u8]) -> Result<Arc<Module>, Failure> {
        self.host.load(digest(bytes), bytes.to_vec()).await
    }

    async fn start(&self, name: &str, memory_mib: u32) -> Worker {
        let module = self.load(&guest(name)).await.unwrap();
        self.host.start(module, spec(memory_mib)).await.unwrap()
    }
}

fn spec(memory_mib: u32) -> WorkerSpec {
    let size = Resources { milli_cpu: 1_000, memory_mib };
    WorkerSpec { deal: DEAL, region: Some("eu-de-fra1".parse().unwrap()), size, features: FeatureSet::EMPTY }
}

fn get(target: &str) -> Request<Empty<Bytes>> {
    Request::get(target).header("host", "worker.test").body(Empty::new()).unwrap()
}

async fn text(response: Response<WorkerBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn error(worker: &Worker, target: &str) -> ServeError {
    worker.handle(get(target)).await.map(|response| response.status()).unwrap_err()
}

type Chunks = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// A request whose body comes through a channel.
fn streamed(
    target: &str,
) -> (Chunks, Request<impl http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static>) {
    let (sender, mut receiver) = mpsc::channel(4);
    let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let request = Request::post(target).header("host", "worker.test").body(StreamBody::new(stream)).unwrap();
    (sender, request)
}

fn chunk(bytes: &Bytes) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(bytes.clone()))
}

async fn a_rust_worker_answers_and_knows_who_it_is(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let worker = fixture.start("hello", 16).await;
    let response = worker.handle(get("/some/path?x=1")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(text(response).await.contains("/some/path?x=1"));
    let who: serde_json::Value =
        serde_json::from_str(&text(worker.handle(get("/whoami")).await.unwrap()).await).unwrap();
    assert_eq!(who, serde_json::json!({ "deal": DEAL.to_string(), "region": "eu-de-fra1" }));
    eventually("CPU time is told", || async { (worker.take_cpu_used() > Duration::ZERO).then_some(()) }).await;
}

async fn a_javascript_worker_answers(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let worker = fixture.start("hello-js", 64).await;
    assert!(text(worker.handle(get("/js")).await.unwrap()).await.contains("JavaScript! You asked for /js"));
    let request = Request::post("/echo").header("host", "worker.test").body(Full::new(Bytes::from("across"))).unwrap();
    assert_eq!(text(worker.handle(request).await.unwrap()).await, "across");
}

async fn bodies_stream_both_ways_through_less_memory_than_they_have(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let worker = fixture.start("hello", 4).await;
    let (sender, request) = streamed("/echo");
    let response = worker.handle(request).await.unwrap();
    let mut body = response.into_body();
    let mebibyte = Bytes::from(vec![7; 1 << 20]);
    // The first bytes come back before the last ones are sent.
    sender.send(chunk(&mebibyte)).await.unwrap();
    let mut received = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    let sending = tokio::spawn(async move {
        for _ in 0..15 {
            sender.send(chunk(&mebibyte)).await.unwrap();
        }
    });
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().into_data().map(|data| data.len()).unwrap_or(0);
    }
    sending.await.unwrap();
    assert_eq!(received, 16 << 20);
}

async fn endless_loops_end_at_the_cpu_limit_and_others_are_served_meanwhile(mode: IsolationMode) {
    let fixture = Fixture::new(mode, HostLimits { cpu_ms_per_request: 300, ..limits() }).await;
    let worker = fixture.start("hello", 64).await;
    // More loops than threads.
    let spinning: Vec<_> = (0..8)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move { error(&worker, "/spin").await })
        })
        .collect();
    assert_eq!(worker.handle(get("/")).await.unwrap().status(), 200);
    for spinning in spinning {
        let error = spinning.await.unwrap();
        let ServeError::CpuLimit { used_ms, limit_ms: 300 } = error else { panic!("{error:?}") };
        assert!(used_ms >= 300, "{used_ms}");
    }
}

async fn a_request_that_takes_too_long_is_ended_whatever_it_does(mode: IsolationMode) {
    let fixture = Fixture::new(mode, HostLimits { request_timeout_ms: 400, ..limits() }).await;
    let worker = fixture.start("hello", 16).await;
    assert_eq!(error(&worker, "/spin").await, ServeError::Deadline { limit_ms: 400 });
    // One that waits for a body that never ends: it had begun to answer, so that its answer is cut off.
    let (sender, request) = streamed("/echo");
    let response = worker.handle(request).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    drop(sender);
}

async fn memory_is_limited_to_what_was_bought_and_comes_back(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let worker = fixture.start("hello", 16).await;
    assert_eq!(text(worker.handle(get("/alloc?mib=8")).await.unwrap()).await, "8 MiB touched\n");
    let refused = error(&worker, "/alloc?mib=64").await;
    let ServeError::MemoryLimit { wanted, limit } = refused.clone() else { panic!("{refused:?}") };
    assert_eq!(limit, 16 << 20);
    assert!(wanted > 64 << 20);
    assert!(refused.to_string().contains(&limit.to_string()), "{refused}");
    eventually("all memory is back", || async { (worker.memory_used() == 0).then_some(()) }).await;
    let too_small = fixture.load(&guest("hello-js")).await.unwrap();
    let failure = fixture.host.start(too_small, spec(1)).await.err().unwrap();
    assert_eq!(failure.cause, Cause::StartFailed);
    assert!(failure.detail.contains("1048576"), "{failure}");
}

async fn a_trap_is_told_and_harms_nobody_else(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let worker = fixture.start("hello", 16).await;
    let trapped = error(&worker, "/trap").await;
    assert!(matches!(&trapped, ServeError::Trapped(why) if why.contains("unreachable")), "{trapped:?}");
    assert_eq!(worker.handle(get("/")).await.unwrap().status(), 200);
}

async fn request_bodies_are_limited_by_announcement_and_by_count(mode: IsolationMode) {
    let fixture = Fixture::new(mode, HostLimits { max_request_body_bytes: 1_000, ..limits() }).await;
    let worker = fixture.start("hello", 16).await;
    let announced = Request::post("/echo").header("host", "w").body(Full::new(Bytes::from(vec![0; 1_001]))).unwrap();
    let refused = worker.handle(announced).await.map(|response| response.status()).unwrap_err();
    assert_eq!(refused, ServeError::BodyTooLarge { limit: 1_000 });
    let (sender, request) = streamed("/echo");
    sender.send(chunk(&Bytes::from(vec![0; 1_001]))).await.unwrap();
    // The worker had begun its answer by then: it is cut off.
    match worker.handle(request).await {
        Err(error) => assert_eq!(error, ServeError::BodyTooLarge { limit: 1_000 }),
        Ok(response) => assert!(response.into_body().collect().await.is_err()),
    }
}

async fn too_many_requests_are_refused_and_closing_waits_for_those_that_run(mode: IsolationMode) {
    let fixture =
        Fixture::new(mode, HostLimits { max_concurrent_requests: 1, max_queued_requests: 0, ..limits() }).await;
    let worker = fixture.start("hello", 16).await;
    let (sender, request) = streamed("/echo");
    let first = worker.handle(request).await.unwrap();
    assert_eq!(worker.running(), 1);
    assert_eq!(error(&worker, "/").await, ServeError::Overloaded { running: 1, waiting: 0 });
    let closing = tokio::spawn({
        let worker = worker.clone();
        async move { worker.close().await }
    });
    sender.send(chunk(&Bytes::from("late"))).await.unwrap();
    drop(sender);
    assert_eq!(text(first).await, "late");
    closing.await.unwrap();
    assert_eq!(error(&worker, "/").await, ServeError::Closed);
}

async fn outgoing_requests_are_refused(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let worker = fixture.start("fetch", 16).await;
    let response = worker.handle(get("/?url=http://127.0.0.1:1/")).await.unwrap();
    let answer = text(response).await;
    assert!(answer.contains("HttpRequestDenied"), "{answer}");
    let module = fixture.load(&guest("fetch")).await.unwrap();
    let features = FeatureSet::named("wasi:http/outgoing-handler").unwrap();
    let failure = fixture.host.start(module, WorkerSpec { features, ..spec(16) }).await.err().unwrap();
    assert_eq!(failure.cause, Cause::FeatureMissing);
    assert!(failure.detail.contains("wasi:http/outgoing-handler"), "{failure}");
}

async fn what_is_no_worker_is_refused_with_its_cause(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let core_module = [0, b'a', b's', b'm', 1, 0, 0, 0];
    let empty_component = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
    let cut_off = guest("hello")[..20_000].to_vec();
    for (bytes, cause, says) in [
        (b"#!/bin/sh\n".to_vec(), Cause::NotAComponent, "not WebAssembly"),
        (vec![], Cause::NotAComponent, "not WebAssembly"),
        (core_module.to_vec(), Cause::NotAComponent, "wasm32-wasip2"),
        (empty_component.to_vec(), Cause::NotAnHttpWorker, "incoming-handler"),
        (cut_off, Cause::CompileFailed, ""),
    ] {
        let failure = fixture.load(&bytes).await.err().unwrap();
        assert_eq!(failure.cause, cause, "{failure}");
        assert!(failure.detail.contains(says), "{failure}");
    }
}

async fn compiled_modules_are_loaded_again_unless_somebody_changed_them(mode: IsolationMode) {
    let fixture = Fixture::new(mode, limits()).await;
    let hello = guest("hello");
    fixture.load(&hello).await.unwrap();
    let engine_folder =
        std::fs::read_dir(fixture.folder.path().join("compiled")).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(engine_folder).unwrap().next().unwrap().unwrap().path();
    let inode = || std::fs::metadata(&file).unwrap().ino();
    let written = inode();

    let again = WorkerHost::new(fixture.folder.path(), limits(), &isolation(mode)).await.unwrap();
    again.load(digest(&hello), hello.clone()).await.unwrap();
    assert_eq!(inode(), written, "nothing was compiled");

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let wary = WorkerHost::new(fixture.folder.path(), limits(), &isolation(mode)).await.unwrap();
    let module = wary.load(digest(&hello), hello).await.unwrap();
    assert_ne!(std::fs::read(&file).unwrap(), bytes, "it was compiled anew");
    let worker = wary.start(module, spec(16)).await.unwrap();
    assert_eq!(worker.handle(get("/")).await.unwrap().status(), 200);
    // A file of another artifact under this name is somebody's change, too.
    let other = file.with_file_name(format!("{}.cwasm", "00".repeat(32)));
    std::fs::copy(&file, &other).unwrap();
    let failure = wary.load(Digest::ZERO, b"not even WebAssembly".to_vec()).await.err().unwrap();
    assert_eq!(failure.cause, Cause::NotAComponent);
}
