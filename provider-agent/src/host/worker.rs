//! One deal's worker: admits a request, gives it a fresh instance, holds it to its limits and says which one it hit.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use common::{feature::FeatureSet, ids::DealId, region::Region, resources::Resources};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi_http::{
    Error as WasiHttpError, WasiHttpView,
    p2::{bindings::http::types::Scheme, body::HyperOutgoingBody},
};

use super::{
    Module,
    meter::{CpuMeter, MemoryBudget, MemoryMeter, MemoryRefusal, Metered},
    state::InstanceState,
};
use crate::config::HostLimits;

/// Ticks between two looks at a guest's CPU time.
const TICKS: u64 = 1;

/// Whom a worker serves, and what was bought for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSpec {
    /// The deal.
    pub deal: DealId,
    /// Where this machine stands, if it says.
    pub region: Option<Region>,
    /// Memory is enforced over all instances together. CPU is limited for each request; the share that was bought is not
    /// enforced yet.
    pub size: Resources,
    /// What the developer offer requires.
    pub features: FeatureSet,
}

/// Why a request was not answered by the worker. The text names limit and value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServeError {
    /// Too many requests run and wait.
    #[error(
        "{running} requests of this deal run and {waiting} wait, which is the limit (max_concurrent_requests, max_queued_requests)"
    )]
    Overloaded {
        /// Limit of running ones.
        running: usize,
        /// Limit of waiting ones.
        waiting: usize,
    },
    /// Other requests of the deal hold its memory.
    #[error("other requests of this deal hold {held} of its {limit} bytes of memory")]
    MemoryBusy {
        /// Bytes that others hold.
        held: u64,
        /// Bytes bought.
        limit: u64,
    },
    /// The machine has no room for another instance.
    #[error("this host runs as many instances as it can (max_live_instances): {0}")]
    HostFull(String),
    /// The request's body is too large.
    #[error("the request body exceeds max_request_body_bytes of {limit} bytes")]
    BodyTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The worker used more CPU time than one request may.
    #[error("the worker used {used_ms} ms of CPU time, cpu_ms_per_request is {limit_ms}")]
    CpuLimit {
        /// Milliseconds used.
        used_ms: u64,
        /// Milliseconds allowed.
        limit_ms: u64,
    },
    /// The worker had not begun to answer in time.
    #[error("the worker did not finish within request_timeout_ms of {limit_ms} ms")]
    Deadline {
        /// Milliseconds allowed.
        limit_ms: u64,
    },
    /// The worker wanted more memory than was bought, and failed without.
    #[error("the worker wanted {wanted} bytes of memory, the deal has {limit}")]
    MemoryLimit {
        /// Bytes in use and wanted.
        wanted: u64,
        /// Bytes bought.
        limit: u64,
    },
    /// The worker trapped.
    #[error("the worker trapped: {0}")]
    Trapped(String),
    /// The worker returned without an answer, or with an error code in its place.
    #[error("the worker gave no answer: {0}")]
    NoAnswer(String),
    /// The deal is over.
    #[error("the worker is stopping")]
    Closed,
}

/// Ends a guest's run from within the callback that looks at its CPU time.
#[derive(Debug, Error)]
#[error("used {used_ms} ms of CPU time")]
struct CpuExceeded {
    used_ms: u64,
}

struct Inner {
    module: Arc<Module>,
    limits: HostLimits,
    environment: Vec<(String, String)>,
    memory: Arc<MemoryBudget>,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    cpu_nanos: AtomicU64,
}

/// Answers requests for one deal. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

/// What is noted about one request while it runs.
#[derive(Default)]
struct Notes {
    cpu: Arc<CpuMeter>,
    memory: Arc<MemoryRefusal>,
    body_too_large: Arc<AtomicBool>,
    failure: Arc<OnceLock<ServeError>>,
}

type Outcome = Result<(), ServeError>;

impl Worker {
    pub(super) fn new(module: Arc<Module>, spec: WorkerSpec, limits: HostLimits) -> Self {
        let region = spec.region.map(|region| region.to_string()).unwrap_or_default();
        let environment =
            vec![("WHARFAGE_DEAL".to_owned(), spec.deal.to_string()), ("WHARFAGE_REPLICA_REGION".to_owned(), region)];
        let memory = u64::from(spec.size.memory_mib).saturating_mul(1 << 20);
        let inner = Inner {
            module,
            environment,
            memory: Arc::new(MemoryBudget::new(memory)),
            running: Arc::new(Semaphore::new(limits.max_concurrent_requests)),
            waiting: AtomicUsize::new(0),
            cpu_nanos: AtomicU64::new(0),
            limits,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Requests that run now.
    pub fn running(&self) -> usize {
        self.inner.limits.max_concurrent_requests.saturating_sub(self.inner.running.available_permits())
    }

    /// Memory in use now by all instances, in bytes.
    pub fn memory_used(&self) -> u64 {
        self.inner.memory.used()
    }

    /// CPU time of requests that have ended since this was last asked.
    pub fn take_cpu_used(&self) -> Duration {
        Duration::from_nanos(self.inner.cpu_nanos.swap(0, Ordering::Relaxed))
    }

    /// Refuses all further requests and waits until the running ones have ended, which their deadline bounds.
    pub async fn close(&self) {
        let all = u32::try_from(self.inner.limits.max_concurrent_requests).unwrap_or(u32::MAX);
        if let Ok(permits) = self.inner.running.acquire_many(all).await {
            permits.forget();
        }
        self.inner.running.close();
    }

    /// Makes an instance and drops it.
    pub(super) async fn probe(&self) -> Result<(), ServeError> {
        let notes = Notes::default();
        let deadline = deadline_after(self.inner.limits.request_timeout());
        let mut store = self.store(&notes);
        let module = self.inner.module.clone();
        let instantiate = async move {
            let made = module.pre.instantiate_async(&mut store).await.map(drop);
            (store, made)
        };
        self.held_to_limits(instantiate, deadline, &notes).await
    }

    /// Answers one request. The body of the answer streams; it ends early when a limit is hit after its begin.
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<WorkerBody>, ServeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let deadline = deadline_after(self.inner.limits.request_timeout());
        let limit = self.inner.limits.max_request_body_bytes;
        if request.body().size_hint().lower() > limit {
            return Err(ServeError::BodyTooLarge { limit });
        }
        let permit = self.admit(deadline).await?;
        let notes = Notes::default();
        let (body_too_large, failure) = (notes.body_too_large.clone(), notes.failure.clone());
        let (answer_sender, answer) = oneshot::channel();
        let mut store = self.store(&notes);
        let request = limited(request, limit, body_too_large.clone());
        let no_answer = |error: wasmtime::Error| ServeError::NoAnswer(format!("{error:#}"));
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request).map_err(no_answer)?;
        let out = store.data_mut().http().new_response_outparam(answer_sender).map_err(no_answer)?;
        let worker = self.clone();
        let run = async move {
            let module = worker.inner.module.clone();
            let call = async move {
                let called = match module.pre.instantiate_async(&mut store).await {
                    Ok(proxy) => proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await,
                    Err(error) => Err(error),
                };
                (store, called)
            };
            let outcome = worker.held_to_limits(call, deadline, &notes).await;
            drop(permit);
            outcome
        };
        // Dropped with this future, when the caller has gone before there was an answer.
        let run = AbortOnDropHandle::new(tokio::spawn(run));
        match answer.await {
            Ok(Ok(response)) => {
                // It goes on by itself while the body streams.
                drop(run.detach());
                Ok(response.map(|body| WorkerBody { body, failure }))
            }
            Ok(Err(_)) if body_too_large.load(Ordering::Relaxed) => Err(ServeError::BodyTooLarge { limit }),
            Ok(Err(code)) => Err(ServeError::NoAnswer(format!("{code:?}"))),
            Err(_) => Err(match run.await {
                Ok(Ok(())) => ServeError::NoAnswer("it returned without one".to_owned()),
                Ok(Err(error)) => error,
                Err(panic) => ServeError::NoAnswer(panic.to_string()),
            }),
        }
    }

    async fn admit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ServeError> {
        let limits = &self.inner.limits;
        if let Ok(permit) = self.inner.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        if self.inner.running.is_closed() {
            return Err(ServeError::Closed);
        }
        let _waiting =
            Waiting::begin(&self.inner.waiting, limits.max_queued_requests).ok_or(ServeError::Overloaded {
                running: limits.max_concurrent_requests,
                waiting: limits.max_queued_requests,
            })?;
        let acquired = tokio::time::timeout_at(deadline, self.inner.running.clone().acquire_owned()).await;
        match acquired {
            Ok(permit) => permit.map_err(|_| ServeError::Closed),
            Err(_) => Err(ServeError::Deadline { limit_ms: limits.request_timeout_ms }),
        }
    }

    fn store(&self, notes: &Notes) -> Store<InstanceState> {
        let Inner { module, limits, environment, memory, .. } = self.inner.as_ref();
        let meter = MemoryMeter::new(memory.clone(), notes.memory.clone());
        let state = InstanceState::new(environment, limits.max_header_bytes, meter);
        let mut store = Store::new(module.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(InstanceState::max_host_call_bytes());
        let (cpu, limit) = (notes.cpu.clone(), limits.cpu_per_request());
        store.epoch_deadline_callback(move |_| {
            let used = cpu.spent_in_turn();
            if used > limit {
                return Err(wasmtime::Error::new(CpuExceeded { used_ms: millis(used) }));
            }
            Ok(UpdateDeadline::Yield(TICKS))
        });
        store.set_epoch_deadline(TICKS);
        store
    }

    /// Runs a guest to its end or to the first limit. `run` gives the store back, as the answer's body ends when the store
    /// is dropped: by then it must be known whether it ends early.
    async fn held_to_limits<F>(&self, run: F, deadline: Instant, notes: &Notes) -> Outcome
    where
        F: Future<Output = (Store<InstanceState>, wasmtime::Result<()>)>,
    {
        let mut run = Metered::new(run, notes.cpu.clone());
        let ended = tokio::time::timeout_at(deadline, &mut run).await;
        let cpu = u64::try_from(notes.cpu.spent().as_nanos()).unwrap_or(u64::MAX);
        self.inner.cpu_nanos.fetch_add(cpu, Ordering::Relaxed);
        let outcome = match &ended {
            Ok((_, Ok(()))) => Ok(()),
            Ok((_, Err(error))) => Err(self.explain(error, notes)),
            Err(_) => Err(ServeError::Deadline { limit_ms: self.inner.limits.request_timeout_ms }),
        };
        if let Err(error) = &outcome {
            tracing::debug!(%error, "a request failed in the worker");
            // The first failure is the only one.
            let _ = notes.failure.set(error.clone());
        }
        drop((run, ended));
        outcome
    }

    /// Which limit an error comes from: a guest that was refused something mostly traps for another reason on its face.
    fn explain(&self, error: &wasmtime::Error, notes: &Notes) -> ServeError {
        let limits = &self.inner.limits;
        if let Some(exceeded) = error.downcast_ref::<CpuExceeded>() {
            return ServeError::CpuLimit { used_ms: exceeded.used_ms, limit_ms: limits.cpu_ms_per_request };
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return ServeError::HostFull(error.root_cause().to_string());
        }
        if notes.body_too_large.load(Ordering::Relaxed) {
            return ServeError::BodyTooLarge { limit: limits.max_request_body_bytes };
        }
        if let Some((wanted, others)) = notes.memory.get() {
            let limit = self.inner.memory.limit();
            // It would have fitted alone: worth another try.
            if others > 0 && wanted.saturating_sub(others) <= limit {
                return ServeError::MemoryBusy { held: others, limit };
            }
            return ServeError::MemoryLimit { wanted, limit };
        }
        let why = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), Trap::to_string);
        ServeError::Trapped(why)
    }
}

/// Counts a waiting request for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let more = |waiting: usize| waiting.checked_add(1).filter(|waiting| *waiting <= limit);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn deadline_after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The request with a body that fails beyond `limit` bytes, and notes that it did.
fn limited<B>(
    request: Request<B>,
    limit: u64,
    too_large: Arc<AtomicBool>,
) -> Request<impl Body<Data = Bytes, Error = WasiHttpError> + Send>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    request.map(|body| {
        Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).map_err(move |error| {
            if error.is::<LengthLimitError>() {
                too_large.store(true, Ordering::Relaxed);
                return WasiHttpError::HttpRequestBodySize(Some(limit));
            }
            WasiHttpError::ConnectionTerminated
        })
    })
}

/// The body of a worker's answer. It fails at its end when the worker failed before it was through.
pub struct WorkerBody {
    body: HyperOutgoingBody,
    failure: Arc<OnceLock<ServeError>>,
}

/// An answer that ended before it was complete.
#[derive(Debug, Error)]
pub enum BodyCut {
    /// The worker hit a limit or trapped.
    #[error("the worker's answer was cut off")]
    Worker(#[source] ServeError),
    /// The worker ended its answer with an error.
    #[error("the worker gave its answer up: {0}")]
    GivenUp(String),
}

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(BodyCut::GivenUp(format!("{error:?}")))),
            None => self.failure.get().map(|failure| Err(BodyCut::Worker(failure.clone()))),
        };
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
