//! The engine: what guests may use of WebAssembly, how instances are allocated, and the clock that interrupts them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::HostError;

/// How often running guests are interrupted to look at their CPU time, and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Stack that a guest may use; the rest of the fiber's stack is for host calls.
const GUEST_STACK_BYTES: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 1 << 20;
/// Components of other languages than Rust consist of several core modules, each with tables of its own.
const CORE_INSTANCES_PER_COMPONENT: u32 = 20;
/// How many memories hold what was bought is nobody's business: their sum is limited.
const MEMORIES_PER_COMPONENT: u32 = 64;
const TABLES_PER_COMPONENT: u32 = 20;
/// Slots for the mean component, not for the largest: reserving address space takes time at the start.
const MEAN_CORE_INSTANCES: u32 = 8;
const MEAN_MEMORIES: u32 = 2;
const MEAN_TABLES: u32 = 8;
/// Empty slots that stay warm for the next instance; more only hold memory.
const WARM_SLOTS: u32 = 4;
const MAX_TABLE_ELEMENTS: usize = 100_000;
const MAX_INSTANCE_BYTES: usize = 4 << 20;
/// Left mapped in a slot when an instance is gone: spares page faults for the next.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;
const TICKER_STACK_BYTES: usize = 64 << 10;

/// An engine whose instances come from a pool.
pub(crate) fn build(max_live_instances: u32) -> Result<Engine, HostError> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(max_live_instances)));
    let engine = Engine::new(&config).or_else(|error| {
        // Address space is limited on some machines; instances then cost more, and nothing else changes.
        tracing::warn!(%error, "instances cannot be pooled, allocating them one by one");
        Engine::new(&base_config())
    });
    engine.map_err(|error| HostError::fault("the WebAssembly engine cannot be set up", &error))
}

/// An engine that compiles for those of [`build`], and runs nothing.
pub(crate) fn for_compiling() -> Result<Engine, HostError> {
    Engine::new(&base_config()).map_err(|error| HostError::fault("the WebAssembly compiler cannot be set up", &error))
}

fn base_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .cranelift_opt_level(OptLevel::Speed)
        // Their results differ between machines.
        .wasm_relaxed_simd(false)
        .wasm_memory64(false);
    config
}

fn pool(max_live_instances: u32) -> PoolingAllocationConfig {
    let slots =
        |per_instance: u32, one_component: u32| max_live_instances.saturating_mul(per_instance).max(one_component);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_live_instances)
        .total_stacks(max_live_instances)
        .total_core_instances(slots(MEAN_CORE_INSTANCES, CORE_INSTANCES_PER_COMPONENT))
        .total_memories(slots(MEAN_MEMORIES, MEMORIES_PER_COMPONENT))
        .total_tables(slots(MEAN_TABLES, TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_memories_per_module(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    pool
}

/// Interrupts an engine's guests from a thread of the operating system, since guests can keep every thread of the runtime
/// busy. It sleeps while no guest runs, and ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Ticker {
    shared: Arc<Ticks>,
}

struct Ticks {
    running: Arc<AtomicUsize>,
    thread: thread::Thread,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> Result<Self, HostError> {
        let engine = engine.weak();
        let running = Arc::new(AtomicUsize::new(0));
        let seen = Arc::downgrade(&running);
        let tick = move || {
            while let (Some(running), Some(engine)) = (seen.upgrade(), engine.upgrade()) {
                let is_idle = running.load(Ordering::Acquire) == 0;
                if !is_idle {
                    engine.increment_epoch();
                }
                drop((running, engine));
                if is_idle { thread::park() } else { thread::sleep(TICK) }
            }
        };
        let thread = thread::Builder::new().name("wasm-ticks".to_owned()).stack_size(TICKER_STACK_BYTES).spawn(tick);
        let thread = thread
            .map_err(|source| HostError::Io { what: "start the thread that interrupts workers".to_owned(), source })?;
        Ok(Self { shared: Arc::new(Ticks { running, thread: thread.thread().clone() }) })
    }

    /// A guest begins to run; it may be interrupted until this is dropped.
    pub(crate) fn running(&self) -> Running {
        if self.shared.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.shared.thread.unpark();
        }
        Running(self.shared.clone())
    }
}

/// Kept while a guest runs.
pub(crate) struct Running(Arc<Ticks>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        // The thread finds the count gone, and ends.
        self.running = Arc::default();
        self.thread.unpark();
    }
}
