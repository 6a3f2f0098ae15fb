//! What the processes do that the agent starts: compile one artifact, run one deal's worker, or look at their own sandbox.

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::Notify, time::Instant};

use super::{
    compiler::{REFUSED_EXIT, Task},
    protocol::{self, Control, FAILURE_HEADER, FromWorker, Start, TIMEOUT_HEADER, ToWorker, Usage},
    spawn::SANDBOXED,
};
use crate::{
    config::HostLimits,
    domain::replica::{Cause, Failure},
    host::{
        BodyCut, HostError, ServeError,
        bucket::{CpuSource, process_cpu},
        engine::{self, Ticker},
        isolation::Report,
        module::{self, Linked},
        runner::{Runner, RunnerBody},
        sandbox::{self, ProcessLimits, Role, sys},
        state,
    },
};

/// Between two reports of what was used.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Beside the headers: request line, and room for the parser.
const BUFFER_SLACK: usize = 16 << 10;
/// Instances that still end while their requests are through.
const ENDING_INSTANCES: u32 = 8;
/// Descriptors beside those of requests.
const OTHER_FILES: u64 = 32;

/// Does what the arguments of this process say, if it is one of those that an agent starts; `None` otherwise. The first thing
/// that a program which can be such a process does: there must be no other thread yet.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        [first, "worker"] if first == SANDBOXED => Some(code(worker())),
        [first, "compile", task] if first == SANDBOXED => Some(compile(task)),
        [first, "look", ref rest @ ..] if first == SANDBOXED => Some(code(look(rest))),
        _ => None,
    }
}

fn code(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The agent reads what stands there.
fn complain(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

fn compile(task: &str) -> ExitCode {
    let outcome = try_compile(task);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&serde_json::to_string(&failure).unwrap_or_default());
            ExitCode::from(REFUSED_EXIT)
        }
    }
}

fn try_compile(task: &str) -> Result<(), Failure> {
    let fault = |error: io::Error| Failure::new(Cause::HostFault, error.to_string());
    let task: Task = serde_json::from_str(task).map_err(|error| fault(error.into()))?;
    sandbox::die_with_parent().map_err(fault)?;
    // Not by way of standard output's buffer, as the code is one piece.
    let mut output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned().map_err(fault)?);
    sandbox::enter(&sandbox::Request {
        limits: task.limits,
        role: Role::Compiler,
        empty: &task.empty,
        own_processes: false,
        without_seccomp: false,
    });
    let mut artifact = Vec::with_capacity(task.artifact_bytes);
    io::stdin().read_to_end(&mut artifact).map_err(fault)?;
    let faulty = |error: HostError| Failure::new(Cause::HostFault, error.to_string());
    let engine = engine::for_compiling().map_err(faulty)?;
    let component = module::compile(&engine, &artifact)?;
    drop(artifact);
    let linker = state::linker(&engine).map_err(|error| fault(io::Error::other(error.to_string())))?;
    module::link(&linker, &component)?;
    let compiled = component.serialize().map_err(|error| Failure::new(Cause::CompileFailed, format!("{error:#}")))?;
    output.write_all(&compiled).map_err(fault)
}

fn worker() -> io::Result<()> {
    sandbox::die_with_parent()?;
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let Some((ToWorker::Start(start), Some(code))) = protocol::receive(control.as_fd())? else {
        return Err(io::Error::other("the agent did not say what to start"));
    };
    let threads = threads(start.spec.milli_cpu);
    // Loaded with what rights there are, as the code may be read by the agent's user alone; none of it runs yet.
    let loaded = load(&code, instances(&start.spec.limits));
    let request = sandbox_of_worker(&start);
    let report = sandbox::enter(&request);
    let mut runtime = if threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    // A guest that computes has turns of a tick each: sockets are looked at after each of them.
    let runtime = runtime.enable_all().event_interval(2).build()?;
    runtime.block_on(serve(control, loaded, *start, report))
}

/// As many as one deal can have at once: room for more takes time at the start.
fn instances(limits: &HostLimits) -> u32 {
    let running = u32::try_from(limits.max_concurrent_requests).unwrap_or(u32::MAX);
    limits.max_live_instances.min(running.saturating_add(ENDING_INSTANCES))
}

fn sandbox_of_worker(start: &Start) -> sandbox::Request<'_> {
    let requests = start.spec.limits.max_concurrent_requests.saturating_add(start.spec.limits.max_queued_requests);
    let open_files = u64::try_from(requests).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    sandbox::Request {
        // Where code cannot be mapped, the first contents of memories are kept in a file without a name.
        limits: ProcessLimits { open_files, file_bytes: start.spec.memory, ..ProcessLimits::default() },
        role: Role::Worker,
        empty: &start.empty,
        own_processes: true,
        without_seccomp: false,
    }
}

/// As many as the CPU that was bought can keep busy.
fn threads(milli_cpu: u32) -> usize {
    let cpus = usize::try_from(milli_cpu.div_ceil(1_000)).unwrap_or(usize::MAX);
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    cpus.clamp(1, there)
}

type Loaded = (wasmtime::Engine, wasmtime_wasi_http::p2::bindings::ProxyPre<state::InstanceState>);

fn load(code: &OwnedFd, max_live_instances: u32) -> Result<Loaded, Failure> {
    let fault = |detail: String| Failure::new(Cause::HostFault, detail);
    let engine = engine::build(max_live_instances).map_err(|error| fault(error.to_string()))?;
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    let component = module::load_file(&engine, Path::new(&path))?;
    let linker = state::linker(&engine).map_err(|error| fault(format!("{error:#}")))?;
    let pre = module::link(&linker, &component)?;
    Ok((engine, pre))
}

async fn serve(control: OwnedFd, loaded: Result<Loaded, Failure>, start: Start, report: Report) -> io::Result<()> {
    let control = Arc::new(Control::new(control)?);
    let max_header_bytes = start.spec.limits.max_header_bytes;
    let runner = match runner(loaded, start).await {
        Ok(runner) => runner,
        Err(failure) => return control.send(&FromWorker::Failed(failure), None).await,
    };
    control.send(&FromWorker::Ready(report), None).await?;
    let changed = Arc::new(Notify::new());
    tokio::spawn(report_usage(control.clone(), runner.clone(), changed.clone()));
    changed.notify_one();
    loop {
        // An error, too, means that the agent is of no more use.
        match control.receive::<ToWorker>().await? {
            None => return Ok(()),
            Some((ToWorker::Connection, Some(socket))) => {
                let stream = std::os::unix::net::UnixStream::from(socket);
                stream.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                tokio::spawn(connection(stream, runner.clone(), changed.clone(), max_header_bytes));
            }
            Some((ToWorker::Stop, _)) => {
                runner.close().await;
                return Ok(());
            }
            Some(_) => return Err(io::Error::other("the agent said something that makes no sense here")),
        }
    }
}

async fn runner(loaded: Result<Loaded, Failure>, start: Start) -> Result<Runner, Failure> {
    let (engine, pre) = loaded?;
    let ticker = Ticker::start(&engine).map_err(|error| Failure::new(Cause::HostFault, error.to_string()))?;
    let runner = Runner::new(Arc::new(Linked { pre, ticker }), start.spec, CpuSource::Process);
    runner.probe().await.map_err(|error| Failure::new(Cause::StartFailed, error.to_string()))?;
    Ok(runner)
}

async fn report_usage(control: Arc<Control>, runner: Runner, changed: Arc<Notify>) {
    let mut last = Usage::default();
    loop {
        changed.notified().await;
        // What happens shortly after is in it, too.
        tokio::time::sleep(REPORT_EVERY).await;
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let usage = Usage {
            cpu_nanos: nanos(process_cpu()),
            memory_bytes: runner.memory_used(),
            paused_nanos: nanos(runner.paused()),
        };
        if usage != last && control.send(&FromWorker::Usage(usage), None).await.is_err() {
            return;
        }
        last = usage;
        if runner.running() > 0 {
            changed.notify_one();
        }
    }
}

async fn connection(stream: UnixStream, runner: Runner, changed: Arc<Notify>, max_header_bytes: usize) {
    let service = service_fn(|request| {
        let (runner, changed) = (runner.clone(), changed.clone());
        async move {
            changed.notify_one();
            let answered = answer(&runner, request).await;
            changed.notify_one();
            Ok::<_, Infallible>(answered)
        }
    });
    let served = http1::Builder::new()
        .max_buf_size(max_header_bytes.saturating_add(BUFFER_SLACK))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

type Answer = Either<RunnerBody, http_body_util::combinators::MapErr<Empty<Bytes>, fn(Infallible) -> BodyCut>>;

async fn answer(runner: &Runner, mut request: Request<Incoming>) -> Response<Answer> {
    let left = request.headers_mut().remove(&TIMEOUT_HEADER);
    let left = left.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_millis).unwrap_or_default();
    let now = Instant::now();
    match runner.handle(request, now.checked_add(left).unwrap_or(now)).await {
        Ok(mut response) => {
            response.headers_mut().remove(&FAILURE_HEADER);
            response.map(Either::Left)
        }
        Err(error) => failure(&error),
    }
}

fn failure(error: &ServeError) -> Response<Answer> {
    let no_error: fn(Infallible) -> BodyCut = |never| match never {};
    let mut response = Response::new(Either::Right(Empty::new().map_err(no_error)));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    // JSON escapes what no header may contain, save for characters beyond ASCII, which are bytes that it may.
    let text = serde_json::to_vec(error).unwrap_or_default();
    let value = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("{}"));
    response.headers_mut().insert(FAILURE_HEADER, value);
    response
}

/// `look EMPTY-FOLDER [ATTEMPT [without-seccomp]]`: enters the sandbox of a worker, says as JSON on standard output what of it is
/// active, and then tries what must not be possible. What it gets to do is said, too.
fn look(arguments: &[&str]) -> io::Result<()> {
    let Some((empty, attempt)) = arguments.split_first() else {
        return Err(io::Error::other("look needs an empty folder"));
    };
    sandbox::die_with_parent()?;
    let report = sandbox::enter(&sandbox::Request {
        limits: ProcessLimits { open_files: OTHER_FILES, ..ProcessLimits::default() },
        role: Role::Worker,
        empty: Path::new(empty),
        own_processes: true,
        without_seccomp: attempt.get(1) == Some(&"without-seccomp"),
    });
    let mut output = io::stdout();
    writeln!(output, "{}", serde_json::to_string(&report)?)?;
    output.flush()?;
    let Some(attempt) = attempt.first() else { return Ok(()) };
    let outcome = match *attempt {
        "connect" => std::net::TcpStream::connect("127.0.0.1:9").map(drop),
        "listen" => std::net::TcpListener::bind("127.0.0.1:0").map(drop),
        "read" => std::fs::read("/etc/passwd").map(drop),
        "write" => std::fs::write("/tmp/wharfage-was-here", "x"),
        "list" => std::fs::read_dir("/").map(|entries| complain(&format!("{} entries", entries.count()))),
        "fork" => sys::fork().map(drop),
        "execute" => std::process::Command::new("/bin/true").status().map(drop),
        "trace" => sys::trace_me(),
        "thread" => std::thread::Builder::new().spawn(|| ()).map(drop),
        other => Err(io::Error::other(format!("no such attempt: {other}"))),
    };
    match outcome {
        // Refused where it is attempted, which is as good as an end by the system.
        Err(error) => writeln!(output, "refused: {error}"),
        Ok(()) => writeln!(output, "possible"),
    }
}
