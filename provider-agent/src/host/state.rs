//! What one instance can reach: clocks, randomness, its own environment, the request. No file, no socket, no other host.

use http::Response;
use wasmtime::{
    Engine,
    component::{Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::meter::MemoryMeter;

/// Handles to host objects (streams, header maps …) that one instance may hold.
const MAX_RESOURCES: usize = 4_096;
/// Bytes that a guest may hand over in one host call.
const MAX_HOST_CALL_BYTES: usize = 4 << 20;
/// Bytes of randomness in one call.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

pub(crate) struct InstanceState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    egress: NoEgress,
    pub(crate) memory: MemoryMeter,
}

impl InstanceState {
    pub(crate) fn new(environment: &[(String, String)], max_header_bytes: usize, memory: MemoryMeter) -> Self {
        let wasi = WasiCtx::builder()
            .envs(environment)
            .max_random_size(MAX_RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut http = WasiHttpCtx::new();
        // The engine counts what a header takes in its memory, which is more than its bytes.
        http.set_field_size_limit(max_header_bytes.saturating_mul(2));
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self { wasi, http, table, egress: NoEgress, memory }
    }

    pub(crate) const fn max_host_call_bytes() -> usize {
        MAX_HOST_CALL_BYTES
    }
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for InstanceState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.egress }
    }
}

/// Everything that is linked. What is not granted (files, sockets) is linked all the same, as components made by common toolchains
/// import it without using it.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// Refuses every outgoing request: the one place where a policy for them will stand.
struct NoEgress;

type Ending = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = Box<dyn Future<Output = Result<(Response<WasiBody>, Ending), Error>> + Send>;

impl WasiHttpHooks for NoEgress {
    fn send_request(&mut self, _: http::Request<WasiBody>, _: Option<RequestOptions>, _: Ending) -> Answer {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}
