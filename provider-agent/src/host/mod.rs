//! Runs workers. The rest of the agent knows this much of it: [`WorkerHost::load`] makes a [`Module`] of an
//! artifact's bytes, [`WorkerHost::start`] makes a [`Worker`] of a module, [`Worker::handle`] answers a request.
//!
//! Layout: `engine` (settings and the interrupting thread), `module` (compiling, loading, linking), `cache` (compiled code on
//! disk), `gate` (who may run), `bucket` (the CPU that was bought), `meter` (CPU and memory used), `state` (what one
//! instance can reach), `runner` (one deal's requests), `error` · `isolation` (mechanisms and their states), `sandbox` (what a
//! process gives up), `process` (workers and compilers in processes of their own).
//!
//! With `isolation.mode = "process"` the agent parses and runs nothing of a stranger: artifacts are compiled in a process that
//! may die of it, and each deal's worker runs in a process that can reach nothing but the agent's socket. `in-process`
//! does all of this here: limits on memory, CPU and time hold, but a flaw in the engine would expose the agent.

mod bucket;
mod cache;
mod engine;
mod error;
mod gate;
mod isolation;
mod meter;
mod module;
#[cfg(target_os = "linux")]
mod process;
mod runner;
#[cfg(target_os = "linux")]
mod sandbox;
mod state;
mod worker;

use std::{
    collections::HashMap,
    io,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use common::{feature::FeatureSet, ids::Digest};
use thiserror::Error;
use tokio::sync::Semaphore;
use wasmtime::Engine;

use self::{
    bucket::CpuSource,
    cache::{CompiledCache, CompiledCode},
    engine::Ticker,
    module::Linked,
    runner::Runner,
};
pub use self::{
    error::{BodyCut, ServeError},
    isolation::{Mechanism, MechanismState, Report},
    worker::{Worker, WorkerBody, WorkerSpec},
};
use crate::{
    config::{HostLimits, Isolation, IsolationMode},
    domain::replica::{Cause, Failure},
};

/// Features that this host has; an offer must not promise others.
pub const HOST_FEATURES: FeatureSet = FeatureSet::EMPTY;

/// The host itself cannot work; no artifact is to blame.
#[derive(Debug, Error)]
pub enum HostError {
    /// A file, thread or process.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The engine.
    #[error("{what}: {detail}")]
    Engine {
        /// What was tried.
        what: &'static str,
        /// The engine's words.
        detail: String,
    },
    /// The program for the processes of workers is none.
    #[error(
        "workers cannot have processes of their own ({detail}): set isolation.program to `wharfage`, or for \
         development isolation.mode to in-process"
    )]
    NoProcesses {
        /// What happened instead.
        detail: String,
    },
    /// Mechanisms that the operator requires are missing.
    #[error("isolation.required names what this machine does not have: {missing}")]
    IsolationMissing {
        /// Each with its reason.
        missing: String,
    },
}

impl HostError {
    fn io<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what: format!("{what} {}", path.display()), source }
    }

    fn fault(what: &'static str, error: &wasmtime::Error) -> Self {
        Self::Engine { what, detail: format!("{error:#}") }
    }
}

/// Runs this process as one of an agent's sandboxes, if its arguments say so, and returns its exit code; `None` when it is an
/// ordinary start. A program that hosts workers calls this first thing, while there is no thread but the first.
pub fn run_if_sandboxed() -> Option<ExitCode> {
    #[cfg(target_os = "linux")]
    return process::child::run_if_asked();
    #[cfg(not(target_os = "linux"))]
    None
}

/// A compiled component, of which instances can be made.
pub struct Module {
    made: Made,
}

enum Made {
    /// For this process.
    Linked(Arc<Linked>),
    /// For a process of its own.
    #[cfg(target_os = "linux")]
    Code(CompiledCode),
}

/// Where compiling and running is done.
enum Place {
    Here {
        engine: Engine,
        linker: Box<wasmtime::component::Linker<state::InstanceState>>,
        ticker: Ticker,
    },
    #[cfg(target_os = "linux")]
    Processes {
        spawner: process::spawn::Spawner,
        empty: std::path::PathBuf,
    },
}

struct Inner {
    place: Place,
    cache: Arc<CompiledCache>,
    limits: HostLimits,
    required: Vec<Mechanism>,
    report: Report,
    /// Deals with the same artifact share its code.
    loaded: Mutex<HashMap<Digest, Weak<Module>>>,
    /// One compilation at a time: it takes all cores and much memory.
    compiling: Semaphore,
}

/// Makes workers of artifacts. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHost {
    inner: Arc<Inner>,
}

impl WorkerHost {
    /// Opens the cache of compiled code in `data_dir` and tries what stands between workers and this machine.
    ///
    /// # Errors
    /// When workers cannot run as `isolation` asks, or a mechanism that it requires is missing.
    pub async fn new(data_dir: &Path, limits: HostLimits, isolation: &Isolation) -> Result<Self, HostError> {
        let (place, report) = match isolation.mode {
            IsolationMode::InProcess => (here(&limits)?, Report::inactive("isolation.mode is in-process")),
            IsolationMode::Process => processes(data_dir, isolation).await?,
        };
        let required = &isolation.required;
        let missing: Vec<_> = report.missing(required).map(|(one, why)| format!("{} ({why})", one.name())).collect();
        if !missing.is_empty() {
            return Err(HostError::IsolationMissing { missing: missing.join(", ") });
        }
        let cache_bytes = limits.compiled_cache_mib.saturating_mul(1 << 20);
        let cache = match &place {
            Place::Here { engine, .. } => CompiledCache::open(data_dir, engine, cache_bytes)?,
            #[cfg(target_os = "linux")]
            Place::Processes { .. } => CompiledCache::open(data_dir, &engine::for_compiling()?, cache_bytes)?,
        };
        let (loaded, compiling) = (Mutex::default(), Semaphore::new(1));
        let (cache, required) = (Arc::new(cache), required.clone());
        Ok(Self { inner: Arc::new(Inner { place, cache, limits, required, report, loaded, compiling }) })
    }

    /// What stands between workers and this machine.
    pub fn report(&self) -> &Report {
        &self.inner.report
    }

    /// Compiles an artifact, or takes what was compiled before. `bytes` must have the digest already: they are parsed.
    pub async fn load(&self, digest: Digest, bytes: Vec<u8>) -> Result<Arc<Module>, Failure> {
        let _one_at_a_time = self.inner.compiling.acquire().await;
        let known = self.loaded().get(&digest).and_then(Weak::upgrade);
        if let Some(module) = known {
            return Ok(module);
        }
        let made = match &self.inner.place {
            Place::Here { .. } => {
                let host = self.clone();
                let made = tokio::task::spawn_blocking(move || host.make_here(digest, &bytes)).await;
                made.unwrap_or_else(|panic| Err(Failure::new(Cause::HostFault, format!("the compiler died: {panic}"))))?
            }
            #[cfg(target_os = "linux")]
            Place::Processes { spawner, empty } => self.make_code(spawner, empty, digest, bytes).await?,
        };
        let module = Arc::new(Module { made });
        let mut loaded = self.loaded();
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(digest, Arc::downgrade(&module));
        Ok(module)
    }

    /// A worker that answers requests with instances of `module`. A first instance is made here, to see that it can be.
    pub async fn start(&self, module: Arc<Module>, spec: WorkerSpec) -> Result<Worker, Failure> {
        let lacking = spec.features.without(HOST_FEATURES);
        if lacking.0 != 0 {
            let names = lacking.names().join(", ");
            return Err(Failure::new(
                Cause::FeatureMissing,
                format!("the offer requires {names}, which this host lacks"),
            ));
        }
        let spec = spec.for_runner(self.inner.limits.clone());
        match (&module.made, &self.inner.place) {
            (Made::Linked(linked), _) => {
                let runner = Runner::new(linked.clone(), spec, CpuSource::Turns);
                runner.probe().await.map_err(|error| Failure::new(Cause::StartFailed, error.to_string()))?;
                Ok(Worker::from(runner))
            }
            #[cfg(target_os = "linux")]
            (Made::Code(code), Place::Processes { spawner, empty }) => {
                let start = process::remote::start_of(spec, empty.clone());
                let remote = process::remote::Remote::start(spawner, code, start).await?;
                let missing: Vec<_> =
                    remote.report().missing(&self.inner.required).map(|(one, _)| one.name()).collect();
                if missing.is_empty() {
                    return Ok(Worker::from(remote));
                }
                let detail =
                    format!("the worker's process lacks {}, which isolation.required names", missing.join(", "));
                Err(Failure::new(Cause::HostFault, detail))
            }
            #[cfg(target_os = "linux")]
            (Made::Code(_), Place::Here { .. }) => {
                Err(Failure::new(Cause::HostFault, "the module belongs to another host"))
            }
        }
    }

    fn make_here(&self, digest: Digest, bytes: &[u8]) -> Result<Made, Failure> {
        let Inner { place, cache, .. } = self.inner.as_ref();
        let Place::Here { engine, linker, ticker } = place else {
            return Err(Failure::new(Cause::HostFault, "workers have processes of their own"));
        };
        let known = cache.find(digest).and_then(|code| code.read().ok());
        let component = match known.and_then(|code| module::load(engine, &code).ok()) {
            Some(component) => component,
            None => {
                let component = module::compile(engine, bytes)?;
                keep(cache, digest, &component);
                component
            }
        };
        let pre = module::link(linker, &component)?;
        Ok(Made::Linked(Arc::new(Linked { pre, ticker: ticker.clone() })))
    }

    #[cfg(target_os = "linux")]
    async fn make_code(
        &self,
        spawner: &process::spawn::Spawner,
        empty: &Path,
        digest: Digest,
        bytes: Vec<u8>,
    ) -> Result<Made, Failure> {
        let fault = |error: io::Error| Failure::new(Cause::HostFault, format!("compiled code cannot be kept: {error}"));
        let cache = self.inner.cache.clone();
        let find = cache.clone();
        let known = tokio::task::spawn_blocking(move || find.find(digest)).await.map_err(io::Error::other);
        if let Some(code) = known.map_err(fault)? {
            return Ok(Made::Code(code));
        }
        module::require_component(&bytes)?;
        let draft = cache.draft(digest).map_err(fault)?;
        let output = draft.file().try_clone().map_err(fault)?;
        process::compiler::compile(spawner, &self.inner.limits, empty.to_owned(), bytes, output).await?;
        let kept = tokio::task::spawn_blocking(move || cache.keep(digest, draft)).await.map_err(io::Error::other);
        kept.and_then(|kept| kept).map(Made::Code).map_err(fault)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<Module>>> {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn here(limits: &HostLimits) -> Result<Place, HostError> {
    let engine = engine::build(limits.max_live_instances)?;
    let linker =
        state::linker(&engine).map_err(|error| HostError::fault("the host's interfaces cannot be linked", &error))?;
    let ticker = Ticker::start(&engine)?;
    Ok(Place::Here { engine, linker: Box::new(linker), ticker })
}

#[cfg(target_os = "linux")]
async fn processes(data_dir: &Path, isolation: &Isolation) -> Result<(Place, Report), HostError> {
    let empty = data_dir.join("empty");
    std::fs::create_dir_all(&empty).map_err(HostError::io("make", &empty))?;
    // For those who are nobody, too: there is nothing in it.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(&empty, everybody).map_err(HostError::io("open to everybody", &empty))?;
    let empty = std::path::absolute(&empty).map_err(HostError::io("name", &empty))?;
    let spawner = process::spawn::Spawner::start(isolation.program.clone())?;
    let report = process::remote::look(&spawner, &empty).await;
    let report = report.map_err(|detail| HostError::NoProcesses { detail })?;
    for (mechanism, why) in report.missing(&Mechanism::ALL) {
        tracing::warn!(mechanism = mechanism.name(), why, "workers are not isolated by this");
    }
    Ok((Place::Processes { spawner, empty }, report))
}

#[cfg(not(target_os = "linux"))]
async fn processes(_: &Path, _: &Isolation) -> Result<(Place, Report), HostError> {
    Err(HostError::NoProcesses { detail: "this needs Linux".to_owned() })
}

/// Keeps compiled code for the next start. Losing it costs time only, so that failures are logged and no more.
fn keep(cache: &CompiledCache, digest: Digest, component: &wasmtime::component::Component) {
    let kept = component.serialize().map_err(io::Error::other).and_then(|code| {
        let draft = cache.draft(digest)?;
        io::Write::write_all(&mut draft.file(), &code)?;
        cache.keep(digest, draft)
    });
    if let Err(error) = kept {
        tracing::warn!(%error, %digest, "compiled code was not kept");
    }
}
