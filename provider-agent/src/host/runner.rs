//! Runs one deal's requests with the engine of this process: gives each a fresh instance, holds it to its limits and says
//! which one it hit.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi_http::{
    Error as WasiHttpError, WasiHttpView,
    p2::{bindings::http::types::Scheme, body::HyperOutgoingBody},
};

use super::{
    BodyCut, ServeError,
    bucket::{CpuShare, CpuSource},
    gate::Gate,
    meter::{CpuMeter, MemoryBudget, MemoryMeter, MemoryRefusal, Metered},
    module::Linked,
    state::InstanceState,
};
use crate::config::HostLimits;

/// Ticks between two looks at a guest's CPU time.
const TICKS: u64 = 1;

/// What a deal's instances are given: sent to the process that runs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunSpec {
    /// Variables that tell a worker who it is.
    pub(crate) environment: Vec<(String, String)>,
    /// Bytes over all memories and tables of all instances.
    pub(crate) memory: u64,
    /// Thousandths of a CPU.
    pub(crate) milli_cpu: u32,
    pub(crate) limits: HostLimits,
}

/// Ends a guest's run from within the callback that looks at its CPU time.
#[derive(Debug, thiserror::Error)]
#[error("used {used_ms} ms of CPU time")]
struct CpuExceeded {
    used_ms: u64,
}

struct Inner {
    module: Arc<Linked>,
    limits: HostLimits,
    environment: Vec<(String, String)>,
    memory: Arc<MemoryBudget>,
    share: Arc<CpuShare>,
    gate: Gate,
    cpu_nanos: AtomicU64,
}

/// Answers requests for one deal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runner {
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

impl Runner {
    pub(crate) fn new(module: Arc<Linked>, spec: RunSpec, source: CpuSource) -> Self {
        let RunSpec { environment, memory, milli_cpu, limits } = spec;
        let share = CpuShare::new(milli_cpu, limits.cpu_burst(), source, std::time::Instant::now());
        let inner = Inner {
            module,
            environment,
            memory: Arc::new(MemoryBudget::new(memory)),
            share: Arc::new(share),
            gate: Gate::new(limits.clone()),
            cpu_nanos: AtomicU64::new(0),
            limits,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Requests that run now.
    pub(crate) fn running(&self) -> usize {
        self.inner.gate.running()
    }

    /// When a request that comes now must be through.
    pub(crate) fn deadline(&self) -> Instant {
        self.inner.limits.deadline()
    }

    /// Memory in use now by all instances, in bytes.
    pub(crate) fn memory_used(&self) -> u64 {
        self.inner.memory.used()
    }

    /// CPU time of requests that have ended since this was last asked.
    pub(crate) fn take_cpu_used(&self) -> Duration {
        Duration::from_nanos(self.inner.cpu_nanos.swap(0, Ordering::Relaxed))
    }

    /// Time that requests have waited since their deal's CPU was used up.
    pub(crate) fn paused(&self) -> Duration {
        self.inner.share.paused()
    }

    /// Refuses all further requests and waits until the running ones have ended, which their deadline bounds.
    pub(crate) async fn close(&self) {
        self.inner.gate.close().await;
    }

    /// Makes an instance and drops it.
    pub(crate) async fn probe(&self) -> Result<(), ServeError> {
        let notes = Notes::default();
        let deadline = self.inner.limits.deadline();
        let mut store = self.store(&notes);
        let module = self.inner.module.clone();
        let instantiate = async move {
            let made = module.pre.instantiate_async(&mut store).await.map(drop);
            (store, made)
        };
        self.held_to_limits(instantiate, deadline, &notes).await
    }

    /// Answers one request. The body of the answer streams; it ends early when a limit is hit after its begin.
    pub(crate) async fn handle<B>(
        &self,
        request: Request<B>,
        deadline: Instant,
    ) -> Result<Response<RunnerBody>, ServeError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let limit = self.inner.limits.max_request_body_bytes;
        if request.body().size_hint().lower() > limit {
            return Err(ServeError::BodyTooLarge { limit });
        }
        let permit = self.inner.gate.admit(deadline).await?;
        let notes = Notes::default();
        let (body_too_large, failure) = (notes.body_too_large.clone(), notes.failure.clone());
        let (answer_sender, answer) = oneshot::channel();
        let mut store = self.store(&notes);
        let request = limited(request, limit, body_too_large.clone());
        let no_answer = |error: wasmtime::Error| ServeError::NoAnswer(format!("{error:#}"));
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request).map_err(no_answer)?;
        let out = store.data_mut().http().new_response_outparam(answer_sender).map_err(no_answer)?;
        let runner = self.clone();
        let run = async move {
            let module = runner.inner.module.clone();
            let call = async move {
                let called = match module.pre.instantiate_async(&mut store).await {
                    Ok(proxy) => proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await,
                    Err(error) => Err(error),
                };
                (store, called)
            };
            let outcome = runner.held_to_limits(call, deadline, &notes).await;
            drop(permit);
            outcome
        };
        // Dropped with this future, when the caller has gone before there was an answer.
        let run = AbortOnDropHandle::new(tokio::spawn(run));
        match answer.await {
            Ok(Ok(response)) => {
                // It goes on by itself while the body streams.
                drop(run.detach());
                Ok(response.map(|body| RunnerBody { body, failure }))
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
            // Lets the runtime look at its sockets before this guest has its next turn.
            Ok(UpdateDeadline::YieldCustom(TICKS, Box::pin(tokio::task::yield_now())))
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
        let running = self.inner.module.ticker.running();
        let mut run = Metered::new(run, notes.cpu.clone(), self.inner.share.clone());
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
        drop((run, ended, running));
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
pub(crate) struct RunnerBody {
    body: HyperOutgoingBody,
    failure: Arc<OnceLock<ServeError>>,
}

impl Body for RunnerBody {
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
