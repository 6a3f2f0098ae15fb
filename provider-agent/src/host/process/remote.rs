//! One deal's worker as the agent sees it: a process, a control socket, and sockets for requests.

use std::{
    error::Error as StdError,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::UnixStream,
    process::{Child, ChildStderr},
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    protocol::{self, Control, FAILURE_HEADER, FromWorker, Start, TIMEOUT_HEADER, ToWorker, Usage},
    spawn::{Spawner, Streams, ending},
};
use crate::{
    config::HostLimits,
    domain::replica::{Cause, Failure},
    host::{BodyCut, ServeError, cache::CompiledCode, gate::Gate, isolation::Report, runner::RunSpec},
};

/// How long the process may be silent beyond a request's deadline, which it sees to itself.
const GRACE: Duration = Duration::from_secs(1);
/// How long after the loss of a connection the end of the process is waited for, to tell why.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Time for looking at the sandbox.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);
/// Of a line that the process says about itself, so much is kept.
const MAX_LINE_BYTES: u64 = 1 << 10;

type AnyError = Box<dyn StdError + Send + Sync>;
type RequestBody = UnsyncBoxBody<Bytes, AnyError>;
type Connection = SendRequest<RequestBody>;

/// What a worker is started with; `empty` is an empty folder.
pub(crate) fn start_of(spec: RunSpec, empty: PathBuf) -> Start {
    Start { spec, empty }
}

/// Has a process enter the sandbox of a worker, and say what of it holds.
pub(crate) async fn look(spawner: &Spawner, empty: &Path) -> Result<Report, String> {
    let empty = empty.to_str().ok_or("the data folder's name is no UTF-8")?;
    let streams = Streams { stdin: Stdio::null(), stdout: None };
    let mut command = spawner.command(&["look", empty], &[], streams);
    command.stdout(Stdio::piped());
    let spawned = spawner.run(move || {
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).spawn()
    });
    let looked = async { spawned.await?.wait_with_output().await };
    let output = tokio::time::timeout(LOOK_PATIENCE, looked).await;
    let output = output.map_err(|_| "the process does not end")?.map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: String = words.trim().chars().take(300).collect();
        format!("{} {words}", ending(output.status)).trim_end().to_owned()
    })
}

struct Inner {
    limits: HostLimits,
    gate: Gate,
    control: Arc<Control>,
    idle: Mutex<Vec<Connection>>,
    usage: Arc<Mutex<Usage>>,
    /// CPU time that was told already.
    taken_cpu: AtomicU64,
    ended: watch::Receiver<Option<String>>,
    process_id: u32,
    report: Report,
    /// Ends with this worker, and the process with it.
    _attending: AbortOnDropHandle<()>,
}

/// A worker in a process of its own. Cheap to clone; the process ends with the last clone.
#[derive(Clone)]
pub(crate) struct Remote {
    inner: Arc<Inner>,
}

impl Remote {
    /// Starts a process and waits until it can answer.
    pub(crate) async fn start(spawner: &Spawner, code: &CompiledCode, start: Start) -> Result<Self, Failure> {
        let limits = start.spec.limits.clone();
        let patience = Duration::from_millis(limits.start_timeout_ms);
        let began = tokio::time::timeout(patience, Self::begin(spawner, code, start));
        began.await.unwrap_or_else(|_| {
            let limit = limits.start_timeout_ms;
            Err(Failure::new(
                Cause::HostFault,
                format!("the worker did not start within start_timeout_ms of {limit} ms"),
            ))
        })
    }

    async fn begin(spawner: &Spawner, code: &CompiledCode, start: Start) -> Result<Self, Failure> {
        let fault = |error: io::Error| Failure::new(Cause::HostFault, format!("the worker's process: {error}"));
        let limits = start.spec.limits.clone();
        let (here, there) = protocol::pair().map_err(fault)?;
        let streams = Streams { stdin: Stdio::from(there), stdout: None };
        // One arena of the allocator is enough for what is done beside the guest.
        let variables = [("MALLOC_ARENA_MAX", "1".to_owned())];
        let command = spawner.command(&["worker"], &variables, streams);
        let spawned = spawner.run(move || {
            let mut command = tokio::process::Command::from(command);
            command.kill_on_drop(true).spawn()
        });
        let mut child = spawned.await.map_err(fault)?;
        let process_id = child.id().unwrap_or_default();
        let words = child.stderr.take().map(|stderr| tokio::spawn(last_words(stderr)));
        let control = Arc::new(Control::new(here).map_err(fault)?);
        control.send(&ToWorker::Start(Box::new(start)), Some(code.file().as_fd())).await.map_err(fault)?;
        let report = match control.receive::<FromWorker>().await {
            Ok(Some((FromWorker::Ready(report), _))) => report,
            Ok(Some((FromWorker::Failed(failure), _))) => return Err(failure),
            Ok(Some(_)) => return Err(fault(io::Error::other("it said something that makes no sense"))),
            Ok(None) | Err(_) => {
                let why = end_of(&mut child, words).await;
                return Err(Failure::new(
                    Cause::WorkerDied,
                    format!("the worker's process ended as it started: {why}"),
                ));
            }
        };
        let usage = Arc::new(Mutex::new(Usage::default()));
        let (sender, ended) = watch::channel(None);
        let (listened, noted) = (control.clone(), usage.clone());
        let attending = tokio::spawn(async move {
            while let Ok(Some((message, _))) = listened.receive::<FromWorker>().await {
                if let FromWorker::Usage(now) = message {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
            }
            let why = end_of(&mut child, words).await;
            // What it held is free.
            noted.lock().unwrap_or_else(PoisonError::into_inner).memory_bytes = 0;
            sender.send_replace(Some(why));
        });
        let inner = Inner {
            gate: Gate::new(limits.clone()),
            limits,
            control,
            idle: Mutex::default(),
            usage,
            taken_cpu: AtomicU64::new(0),
            ended,
            process_id,
            report,
            _attending: AbortOnDropHandle::new(attending),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn running(&self) -> usize {
        self.inner.gate.running()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.inner.process_id
    }

    pub(crate) fn report(&self) -> &Report {
        &self.inner.report
    }

    fn usage(&self) -> Usage {
        *self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn memory_used(&self) -> u64 {
        self.usage().memory_bytes
    }

    pub(crate) fn paused(&self) -> Duration {
        Duration::from_nanos(self.usage().paused_nanos)
    }

    pub(crate) fn take_cpu_used(&self) -> Duration {
        let now = self.usage().cpu_nanos;
        Duration::from_nanos(now.saturating_sub(self.inner.taken_cpu.swap(now, Ordering::Relaxed)))
    }

    /// Waits until the process has ended, and says why.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "nobody attends to it any more".to_owned(),
        }
    }

    /// Refuses all further requests, waits for the running ones and lets the process end.
    pub(crate) async fn close(&self) {
        self.inner.gate.close().await;
        if self.inner.control.send(&ToWorker::Stop, None).await.is_ok() {
            // Otherwise it is killed with the last of this worker.
            let _ = tokio::time::timeout(self.inner.limits.request_timeout(), self.ended()).await;
        }
    }

    /// Answers one request. The body of the answer streams; it ends early when a limit is hit after its begin.
    pub(crate) async fn handle<B>(&self, request: Request<B>) -> Result<Response<RemoteBody>, ServeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<AnyError>,
    {
        let deadline = self.inner.limits.deadline();
        let limit = self.inner.limits.max_request_body_bytes;
        if request.body().size_hint().lower() > limit {
            return Err(ServeError::BodyTooLarge { limit });
        }
        let permit = self.inner.gate.admit(deadline).await?;
        let mut connection = self.connection().await?;
        let too_large = Arc::new(AtomicBool::new(false));
        let request = request.map(|body| limited(body, limit, too_large.clone()));
        let request = prepared(request, deadline.saturating_duration_since(Instant::now()));
        let last = deadline.checked_add(GRACE).unwrap_or(deadline);
        let response = match tokio::time::timeout_at(last, connection.send_request(request)).await {
            Err(_) => return Err(ServeError::Deadline { limit_ms: self.inner.limits.request_timeout_ms }),
            Ok(Err(_)) if too_large.load(Ordering::Relaxed) => return Err(ServeError::BodyTooLarge { limit }),
            Ok(Err(error)) => return Err(self.lost(&error).await),
            Ok(Ok(response)) => response,
        };
        if let Some(failure) = response.headers().get(FAILURE_HEADER) {
            let known = serde_json::from_slice(failure.as_bytes());
            self.give_back(connection);
            return Err(known.unwrap_or_else(|error| ServeError::NoAnswer(format!("its process said: {error}"))));
        }
        let (remote, last) = (self.clone(), Box::pin(tokio::time::sleep_until(last)));
        Ok(response.map(|body| RemoteBody { body, connection: Some(connection), remote, last, _permit: permit }))
    }

    /// An idle connection, or a new one.
    async fn connection(&self) -> Result<Connection, ServeError> {
        {
            let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|connection| !connection.is_closed());
            if let Some(ready) = idle.iter().rposition(SendRequest::is_ready) {
                return Ok(idle.swap_remove(ready));
            }
        }
        match self.connect().await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(self.lost(error.as_ref()).await),
        }
    }

    async fn connect(&self) -> Result<Connection, AnyError> {
        let (here, there) = UnixStream::pair()?;
        self.inner.control.send(&ToWorker::Connection, Some(there.as_fd())).await?;
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(here)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a worker ended early");
            }
        });
        Ok(sender)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.inner.limits.max_concurrent_requests {
            idle.push(connection);
        }
    }

    /// Why a connection ended: mostly as its process did.
    async fn lost(&self, error: &(dyn StdError + Send + Sync + 'static)) -> ServeError {
        match tokio::time::timeout(END_PATIENCE, self.ended()).await {
            Ok(why) => ServeError::Died(why),
            Err(_) => {
                let first: &(dyn StdError + 'static) = error;
                let chain = std::iter::successors(Some(first), |error| (*error).source());
                ServeError::NoAnswer(chain.map(ToString::to_string).collect::<Vec<_>>().join(": "))
            }
        }
    }
}

/// A body that fails beyond `limit` bytes, and notes that it did.
fn limited<B>(body: B, limit: u64, too_large: Arc<AtomicBool>) -> impl Body<Data = Bytes, Error = AnyError> + Send
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<AnyError>,
{
    Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).map_err(move |error| {
        if error.is::<LengthLimitError>() {
            too_large.store(true, Ordering::Relaxed);
        }
        error
    })
}

/// The request as it goes to the process: nothing in it concerns the connection that it came by.
fn prepared<B>(request: Request<B>, left: Duration) -> Request<RequestBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<AnyError>,
{
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        parts.headers.entry(header::HOST).or_insert(authority);
    }
    // An absolute target would be sent as such.
    if let Some(target) = parts.uri.path_and_query().cloned() {
        parts.uri = Uri::from(target);
    }
    parts.version = Version::HTTP_11;
    let hop_by_hop = [header::CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT];
    hop_by_hop.iter().for_each(|name| drop(parts.headers.remove(name)));
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    parts.headers.insert(TIMEOUT_HEADER, HeaderValue::from(left));
    Request::from_parts(parts, body.map_err(Into::into).boxed_unsync())
}

/// The last line that a process has said about itself: what a crash says comes last.
async fn last_words(stderr: ChildStderr) -> String {
    let mut reader = BufReader::new(stderr);
    let mut last = String::new();
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
                if !text.is_empty() {
                    tracing::debug!(text, "a worker's process says");
                    last = text;
                }
            }
        }
    }
}

/// Sees to it that a process has ended, and says why it did.
async fn end_of(child: &mut Child, words: Option<tokio::task::JoinHandle<String>>) -> String {
    let waited = match tokio::time::timeout(END_PATIENCE, child.wait()).await {
        Ok(waited) => waited,
        Err(_) => match child.kill().await {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    let ended = waited.map_or_else(|error| error.to_string(), ending);
    let words = match words {
        Some(words) => tokio::time::timeout(END_PATIENCE, words).await.ok().and_then(Result::ok).unwrap_or_default(),
        None => String::new(),
    };
    if words.is_empty() { ended } else { format!("{ended}: {words}") }
}

/// The body of an answer; its connection goes back when it is through.
pub(crate) struct RemoteBody {
    body: Incoming,
    connection: Option<Connection>,
    remote: Remote,
    last: Pin<Box<tokio::time::Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Body for RemoteBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(None) => {
                if let Some(connection) = self.connection.take() {
                    self.remote.give_back(connection);
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            // The process gives an answer up by breaking its connection.
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyCut::GivenUp(error.to_string())))),
            Poll::Pending => self.last.as_mut().poll(cx).map(|()| {
                let limit_ms = self.remote.inner.limits.request_timeout_ms;
                Some(Err(BodyCut::Worker(ServeError::Deadline { limit_ms })))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RemoteBody {
    fn drop(&mut self) {
        // Whoever sees that nothing is left does not ask once more.
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            self.remote.give_back(connection);
        }
    }
}
