//! From the bytes of an artifact to something that instances can be made of.

use std::path::Path;

use wasmtime::{
    Engine,
    component::{Component, Linker},
};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::{engine::Ticker, state::InstanceState};
use crate::domain::replica::{Cause, Failure};

/// First eight bytes of a component, and of a core module.
const COMPONENT_HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
const CORE_MODULE_HEADER: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];

/// A component that is compiled, loaded and linked.
pub(crate) struct Linked {
    pub(crate) pre: ProxyPre<InstanceState>,
    pub(crate) ticker: Ticker,
}

/// Refuses what no compiler needs to see.
pub(crate) fn require_component(first_bytes: &[u8]) -> Result<(), Failure> {
    if first_bytes.starts_with(&COMPONENT_HEADER) {
        return Ok(());
    }
    let what = if first_bytes.starts_with(&CORE_MODULE_HEADER) {
        "this is a core module, not a component: build for wasm32-wasip2"
    } else {
        "this is not WebAssembly"
    };
    Err(Failure::new(Cause::NotAComponent, what))
}

/// Compiles; `bytes` must have the right digest already.
pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, Failure> {
    require_component(bytes)?;
    Component::from_binary(engine, bytes).map_err(|error| Failure::new(Cause::CompileFailed, format!("{error:#}")))
}

/// Loads compiled code, mapping the file rather than copying it where that can be done. Trusted: this agent must have written
/// the file, which its tag has shown.
pub(crate) fn load_file(engine: &Engine, path: &Path) -> Result<Component, Failure> {
    #[expect(unsafe_code, reason = "the tag has shown that this agent has written these bytes")]
    // SAFETY: the code comes from the same engine, and nobody changes the file: it is only ever replaced.
    let mapped = unsafe { Component::deserialize_file(engine, path) };
    mapped.or_else(|error| {
        // File systems can forbid to map code.
        tracing::debug!(%error, "compiled code is not mapped but read");
        let fault = |detail: String| Failure::new(Cause::HostFault, detail);
        load(engine, &std::fs::read(path).map_err(|error| fault(error.to_string()))?)
    })
}

/// Loads compiled code. Trusted, as above.
pub(crate) fn load(engine: &Engine, code: &[u8]) -> Result<Component, Failure> {
    #[expect(unsafe_code, reason = "the tag has shown that this agent has written these bytes")]
    // SAFETY: the code comes from the same engine.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(|error| Failure::new(Cause::HostFault, format!("compiled code cannot be loaded: {error:#}")))
}

/// Links a component with the host's interfaces, which shows whether it is a worker and what it lacks.
pub(crate) fn link(linker: &Linker<InstanceState>, component: &Component) -> Result<ProxyPre<InstanceState>, Failure> {
    let linked = linker.instantiate_pre(component);
    let linked = linked.map_err(|error| Failure::new(Cause::ImportMissing, format!("{error:#}")))?;
    ProxyPre::new(linked).map_err(|error| {
        Failure::new(Cause::NotAnHttpWorker, format!("export wasi:http/incoming-handler@0.2: {error:#}"))
    })
}
