//! Guests that mean harm, each generated: the offender gets its named error, and nobody else notices.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{feature::FeatureSet, ids::DealId, resources::Resources};
use http::Request;
use http_body_util::{BodyExt, Empty};
use provider_agent::{
    HostLimits, IsolationMode,
    domain::replica::{Cause, Failure},
    host::{Module, ServeError, Worker, WorkerHost, WorkerSpec},
};
use tempfile::TempDir;

use crate::support::{digest, eventually, guest, isolation};

/// A worker made of one core module, which must export `handle`.
fn component(core_module: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $module {core_module})
            (core instance $instance (instantiate $module))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $instance "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wat::parse_str(text).unwrap()
}

/// `(func (export "handle") …)` with this body.
fn handler(body: &str) -> String {
    format!(r#"(func (export "handle") (param i32 i32) {body})"#)
}

struct Fixture {
    host: WorkerHost,
    _folder: TempDir,
}

impl Fixture {
    async fn new(limits: HostLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = WorkerHost::new(folder.path(), limits, &isolation(IsolationMode::Process)).await.unwrap();
        Self { host, _folder: folder }
    }

    async fn load(&self, bytes: &[u8]) -> Result<Arc<Module>, Failure> {
        self.host.load(digest(bytes), bytes.to_vec()).await
    }

    async fn try_start(&self, bytes: &[u8], size: Resources) -> Result<Worker, Failure> {
        let spec = WorkerSpec { deal: DealId([9; 32]), region: None, size, features: FeatureSet::EMPTY };
        self.host.start(self.load(bytes).await?, spec).await
    }

    async fn start(&self, bytes: &[u8], size: Resources) -> Worker {
        self.try_start(bytes, size).await.unwrap()
    }
}

fn limits() -> HostLimits {
    HostLimits {
        max_live_instances: 8,
        request_timeout_ms: 60_000,
        cpu_ms_per_request: 60_000,
        ..HostLimits::default()
    }
}

const fn size(milli_cpu: u32, memory_mib: u32) -> Resources {
    Resources { milli_cpu, memory_mib }
}

async fn call(worker: &Worker, target: &str) -> Result<Vec<u8>, ServeError> {
    let request = Request::get(target).header("host", "worker.test").body(Empty::<Bytes>::new()).unwrap();
    let response = worker.handle(request).await?;
    Ok(response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn neighbour_is_well(neighbour: &Worker) {
    assert!(String::from_utf8(call(neighbour, "/").await.unwrap()).unwrap().contains("Hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_at_the_start_ends_at_the_cpu_limit() {
    let fixture = Fixture::new(HostLimits { cpu_ms_per_request: 200, ..limits() }).await;
    let neighbour = fixture.start(&guest("hello"), size(1_000, 16)).await;
    let looping = component(&format!("(func $start (loop br 0)) (start $start) {}", handler("")));
    let failure = fixture.try_start(&looping, size(1_000, 16)).await.err().unwrap();
    assert_eq!(failure.cause, Cause::StartFailed);
    assert!(failure.detail.contains("cpu_ms_per_request is 200"), "{failure}");
    neighbour_is_well(&neighbour).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_in_every_phase() {
    let fixture = Fixture::new(limits()).await;
    let at_start = component(&format!("(func $start unreachable) (start $start) {}", handler("")));
    let failure = fixture.try_start(&at_start, size(1_000, 16)).await.err().unwrap();
    assert_eq!(failure.cause, Cause::StartFailed);
    assert!(failure.detail.contains("unreachable"), "{failure}");
    // Data that does not fit makes the instance fail before its first instruction.
    let in_data = component(&format!(r#"(memory 1) (data (i32.const 65535) "beyond") {}"#, handler("")));
    let failure = fixture.try_start(&in_data, size(1_000, 16)).await.err().unwrap();
    assert_eq!(failure.cause, Cause::StartFailed);
    assert!(failure.detail.contains("out of bounds"), "{failure}");
    for (body, says) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds"),
    ] {
        let worker = fixture.start(&component(&format!("(memory 1) {}", handler(body))), size(1_000, 16)).await;
        let error = call(&worker, "/").await.unwrap_err();
        assert!(matches!(&error, ServeError::Trapped(why) if why.contains(says)), "{error:?}");
    }
    // Calls without end.
    let deep = r#"(func $deep (export "handle") (param i32 i32) (call $deep (local.get 0) (local.get 1)))"#;
    let worker = fixture.start(&component(deep), size(1_000, 16)).await;
    let error = call(&worker, "/").await.unwrap_err();
    assert!(matches!(&error, ServeError::Trapped(why) if why.contains("stack")), "{error:?}");
    let silent = fixture.start(&component(&handler("")), size(1_000, 16)).await;
    assert!(matches!(call(&silent, "/").await.unwrap_err(), ServeError::NoAnswer(_)));
}

/// Each memory alone is far below what was bought.
#[tokio::test(flavor = "multi_thread")]
async fn many_memories_get_together_what_was_bought() {
    const MEMORIES: usize = 32;
    let fixture = Fixture::new(limits()).await;
    let neighbour = fixture.start(&guest("hello"), size(1_000, 16)).await;
    let growing = |pages: usize| {
        let mut module = String::new();
        let mut body = String::new();
        for memory in 0..MEMORIES {
            write!(module, "(memory $m{memory} 1)").unwrap();
            let grow = format!("(memory.grow $m{memory} (i32.const {pages}))");
            write!(body, "(if (i32.eq {grow} (i32.const -1)) (then unreachable))").unwrap();
        }
        component(&format!("{module} {}", handler(&body)))
    };
    // 32 memories of 17 pages are 34 MiB.
    let greedy = fixture.start(&growing(16), size(1_000, 16)).await;
    let error = call(&greedy, "/").await.unwrap_err();
    let ServeError::MemoryLimit { wanted, limit } = error else { panic!("{error:?}") };
    assert_eq!(limit, 16 << 20);
    assert!(wanted > limit && wanted <= limit + (1 << 20), "{wanted}");
    // 32 of 8 are 16 MiB: exactly what was bought. It then ends without an answer.
    let modest = fixture.start(&growing(7), size(1_000, 16)).await;
    assert!(matches!(call(&modest, "/").await.unwrap_err(), ServeError::NoAnswer(_)));
    eventually("all is back", || async { (modest.memory_used() == 0).then_some(()) }).await;
    neighbour_is_well(&neighbour).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_count_as_memory() {
    let fixture = Fixture::new(limits()).await;
    let mut module = String::new();
    let mut body = String::new();
    for table in 0..16 {
        write!(module, "(table $t{table} 1 funcref)").unwrap();
        let grow = format!("(table.grow $t{table} (ref.null func) (i32.const 99999))");
        write!(body, "(if (i32.eq {grow} (i32.const -1)) (then unreachable))").unwrap();
    }
    // 16 tables of 100,000 elements are 12.2 MiB.
    let tables = component(&format!("{module} {}", handler(&body)));
    let greedy = fixture.start(&tables, size(1_000, 4)).await;
    let error = call(&greedy, "/").await.unwrap_err();
    assert!(matches!(error, ServeError::MemoryLimit { limit, .. } if limit == 4 << 20), "{error:?}");
    let roomy = fixture.start(&tables, size(1_000, 16)).await;
    assert!(matches!(call(&roomy, "/").await.unwrap_err(), ServeError::NoAnswer(_)));
}

/// Many locals that are live over many branches: what the compiler has to keep track of grows with their product.
fn compile_bomb(locals: usize, branches: usize) -> Vec<u8> {
    let mut body = String::new();
    for branch in 0..branches {
        let local = 2 + branch % locals;
        write!(body, "(block (br_if 0 (local.get {local})) (local.set {local} (i32.const {branch})))").unwrap();
    }
    let mut sum = String::new();
    for local in 0..locals {
        write!(sum, "(local.set 2 (i32.add (local.get 2) (local.get {})))", 2 + local).unwrap();
    }
    let declared = format!("(local{})", " i32".repeat(locals));
    component(&format!(
        r#"(func (export "handle") (param i32 i32) {declared} (loop {body} (br_if 0 (local.get 2))) {sum})"#
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_bomb_ends_at_the_compilers_limits_and_harms_nobody() {
    let small = HostLimits { compile_memory_mib: 512, compile_cpu_seconds: 20, ..limits() };
    let fixture = Fixture::new(small).await;
    let neighbour = fixture.start(&guest("hello"), size(1_000, 16)).await;
    let bomb = compile_bomb(4_000, 11_000);
    assert!(bomb.len() < 200_000, "{} bytes", bomb.len());
    let loading = fixture.load(&bomb);
    let serving = async {
        for _ in 0..50 {
            neighbour_is_well(&neighbour).await;
        }
    };
    let (loaded, ()) = tokio::join!(loading, serving);
    let failure = loaded.err().unwrap();
    assert_eq!(failure.cause, Cause::CompileLimit, "{failure}");
    let named = ["compile_memory_mib of 512", "compile_cpu_seconds of 20"];
    assert!(named.iter().any(|name| failure.detail.contains(name)), "{failure}");
    // The next one is compiled as if nothing had been.
    let next = fixture.start(&component(&handler("unreachable")), size(1_000, 16)).await;
    assert!(matches!(call(&next, "/").await.unwrap_err(), ServeError::Trapped(_)));
    neighbour_is_well(&neighbour).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_without_time_or_room_says_so() {
    let bomb = compile_bomb(4_000, 11_000);
    let fixture = Fixture::new(HostLimits { compile_cpu_seconds: 1, compile_memory_mib: 65_536, ..limits() }).await;
    let failure = fixture.load(&bomb).await.err().unwrap();
    assert_eq!(failure.cause, Cause::CompileLimit);
    assert!(failure.detail.contains("compile_cpu_seconds of 1"), "{failure}");
    let wall = HostLimits { compile_timeout_seconds: 1, compile_memory_mib: 65_536, ..limits() };
    let fixture = Fixture::new(wall).await;
    let failure = fixture.load(&bomb).await.err().unwrap();
    assert_eq!(failure.cause, Cause::HostFault);
    assert!(failure.detail.contains("compile_timeout_seconds of 1"), "{failure}");
    // JavaScript brings its engine: tens of MiB of code.
    let fixture = Fixture::new(HostLimits { max_code_mib: 1, ..limits() }).await;
    let failure = fixture.load(&guest("hello-js")).await.err().unwrap();
    assert_eq!(failure.cause, Cause::CompileLimit);
    assert!(failure.detail.contains("max_code_mib of 1"), "{failure}");
}

/// CPU time of a process and its children so far, as the kernel counts it, in ticks of 10 ms.
fn kernel_cpu(process: u32) -> Duration {
    crate::isolation::family(process).into_iter().map(crate::isolation::cpu_of).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_deal_gets_the_cpu_that_it_bought_and_a_light_one_goes_on() {
    const MILLI_CPU: u32 = 50;
    let burst = Duration::from_millis(200);
    let fixture = Fixture::new(HostLimits { cpu_burst_ms: 200, ..limits() }).await;
    let light = fixture.start(&guest("hello"), size(1_000, 16)).await;
    let endless = fixture.start(&guest("hello"), size(MILLI_CPU, 16)).await;
    let process = endless.process_id().unwrap();
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let endless = endless.clone();
            tokio::spawn(async move { call(&endless, "/spin").await })
        })
        .collect();
    eventually("it runs", || async { (endless.running() == 4).then_some(()) }).await;
    eventually("it is made to wait", || async { (endless.paused() > Duration::ZERO).then_some(()) }).await;
    let (began, before) = (std::time::Instant::now(), kernel_cpu(process));
    let mut answers = 0;
    // Long enough that all that it might use beyond its share would show.
    while began.elapsed() < Duration::from_secs(4) {
        neighbour_is_well(&light).await;
        answers += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let used = kernel_cpu(process).saturating_sub(before);
    let bought = began.elapsed() * MILLI_CPU / 1_000;
    // The kernel counts in ticks: of two processes, at two times.
    let ticks = Duration::from_millis(40);
    assert!(used <= bought + burst + ticks, "{used:?} were used, {bought:?} bought");
    assert!(answers > 0);
    spinning.iter().for_each(tokio::task::JoinHandle::abort);
}
