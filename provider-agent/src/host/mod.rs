//! Runs workers. The rest of the agent knows this much of it: [`WorkerHost::load`] makes a [`Module`] of an
//! artifact's bytes, [`WorkerHost::start`] makes a [`Worker`] of a module, [`Worker::handle`] answers a request.
//!
//! Layout: `engine` (settings and the interrupting thread), `cache` (compiled modules on disk), `meter` (CPU and
//! memory used), `state` (what one instance can reach), `worker` (one request).
//!
//! Workers run in this process, each request in a fresh instance. What that means: limits on memory, CPU and time hold,
//! and an instance sees nothing of another; but a flaw in the engine would expose the agent, and compiling a hostile
//! artifact takes the agent's memory. Children with limits of their own belong behind this same interface.

mod cache;
mod engine;
mod meter;
mod state;
mod worker;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use common::{feature::FeatureSet, ids::Digest};
use thiserror::Error;
use tokio::sync::Semaphore;
use wasmtime::{
    Engine,
    component::{Component, Linker},
};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

pub use self::worker::{ServeError, Worker, WorkerBody, WorkerSpec};
use self::{cache::CompiledCache, state::InstanceState};
use crate::{
    config::HostLimits,
    domain::replica::{Cause, Failure},
};

/// Features that this host has; an offer must not promise others.
pub const HOST_FEATURES: FeatureSet = FeatureSet::EMPTY;

/// First eight bytes of a component, and of a core module.
const COMPONENT_HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
const CORE_MODULE_HEADER: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];

/// The host itself cannot work; no artifact is to blame.
#[derive(Debug, Error)]
pub enum HostError {
    /// A file or thread.
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
}

impl HostError {
    fn io<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what: format!("{what} {}", path.display()), source }
    }

    fn fault(what: &'static str, error: &wasmtime::Error) -> Self {
        Self::Engine { what, detail: format!("{error:#}") }
    }
}

/// A component, compiled and linked, of which instances can be made.
pub struct Module {
    pre: ProxyPre<InstanceState>,
}

struct Inner {
    engine: Engine,
    linker: Linker<InstanceState>,
    cache: CompiledCache,
    limits: HostLimits,
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
    /// Sets the engine up and opens the cache of compiled modules in `data_dir`. Linux and other Unix systems only.
    pub fn new(data_dir: &Path, limits: HostLimits) -> Result<Self, HostError> {
        let engine = engine::build(limits.max_live_instances)?;
        let cache = CompiledCache::open(data_dir, &engine)?;
        let linker = state::linker(&engine)
            .map_err(|error| HostError::fault("the host's interfaces cannot be linked", &error))?;
        let (loaded, compiling) = (Mutex::default(), Semaphore::new(1));
        Ok(Self { inner: Arc::new(Inner { engine, linker, cache, limits, loaded, compiling }) })
    }

    /// Compiles an artifact, or loads what was compiled before. `bytes` must have the digest already: they are parsed.
    pub async fn load(&self, digest: Digest, bytes: Vec<u8>) -> Result<Arc<Module>, Failure> {
        let permit = self.inner.compiling.acquire().await;
        let known = self.loaded().get(&digest).and_then(Weak::upgrade);
        if let Some(module) = known {
            return Ok(module);
        }
        let host = self.clone();
        let made = tokio::task::spawn_blocking(move || host.make_module(digest, &bytes)).await;
        drop(permit);
        let module =
            made.unwrap_or_else(|panic| Err(Failure::new(Cause::HostFault, format!("the compiler died: {panic}"))))?;
        let module = Arc::new(module);
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
        let worker = Worker::new(module, spec, self.inner.limits.clone());
        worker.probe().await.map_err(|error| Failure::new(Cause::StartFailed, error.to_string()))?;
        Ok(worker)
    }

    fn make_module(&self, digest: Digest, bytes: &[u8]) -> Result<Module, Failure> {
        require_component(bytes)?;
        let Inner { engine, linker, cache, .. } = self.inner.as_ref();
        let component = match cache.load(engine, digest) {
            Some(component) => component,
            None => {
                let compiled = Component::from_binary(engine, bytes);
                let component = compiled.map_err(|error| Failure::new(Cause::CompileFailed, format!("{error:#}")))?;
                cache.keep(digest, &component);
                component
            }
        };
        let linked = linker.instantiate_pre(&component);
        let linked = linked.map_err(|error| Failure::new(Cause::ImportMissing, format!("{error:#}")))?;
        let pre = ProxyPre::new(linked);
        let pre = pre.map_err(|error| {
            Failure::new(Cause::NotAnHttpWorker, format!("export wasi:http/incoming-handler@0.2: {error:#}"))
        })?;
        Ok(Module { pre })
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<Module>>> {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn require_component(bytes: &[u8]) -> Result<(), Failure> {
    if bytes.starts_with(&COMPONENT_HEADER) {
        return Ok(());
    }
    let what = if bytes.starts_with(&CORE_MODULE_HEADER) {
        "this is a core module, not a component: build for wasm32-wasip2"
    } else {
        "this is not WebAssembly"
    };
    Err(Failure::new(Cause::NotAComponent, what))
}
