//! The engine: what guests may use of WebAssembly, how instances are allocated, and the clock that interrupts them.

use std::{thread, time::Duration};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::HostError;

/// How often running guests are interrupted to look at their CPU time, and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Stack that a guest may use; the rest of the fiber's stack is for host calls.
const GUEST_STACK_BYTES: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 1 << 20;
/// Components of other languages than Rust consist of several core modules, each with tables of its own.
const CORE_INSTANCES_PER_COMPONENT: u32 = 20;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 20;
/// Slots for the mean component, not for the largest: reserving address space takes time at the start.
const MEAN_CORE_INSTANCES: u32 = 8;
const MEAN_MEMORIES: u32 = 2;
const MEAN_TABLES: u32 = 8;
const MAX_TABLE_ELEMENTS: usize = 100_000;
const MAX_INSTANCE_BYTES: usize = 4 << 20;
/// Left mapped in a slot when an instance is gone: spares page faults for the next.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// An engine and its interrupting thread, which ends with the engine.
pub(crate) fn build(max_live_instances: u32) -> Result<Engine, HostError> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(max_live_instances)));
    let engine = Engine::new(&config).or_else(|error| {
        // Address space is limited on some machines; instances then cost more, and nothing else changes.
        tracing::warn!(%error, "instances cannot be pooled, allocating them one by one");
        Engine::new(&base_config())
    });
    let engine = engine.map_err(|error| HostError::fault("the WebAssembly engine cannot be set up", &error))?;
    start_ticking(&engine)?;
    Ok(engine)
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
    let slots = |per_instance: u32| max_live_instances.saturating_mul(per_instance);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_live_instances)
        .total_stacks(max_live_instances)
        .total_core_instances(slots(MEAN_CORE_INSTANCES))
        .total_memories(slots(MEAN_MEMORIES))
        .total_tables(slots(MEAN_TABLES))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    pool
}

/// A thread of the operating system, since guests can keep every thread of the runtime busy.
fn start_ticking(engine: &Engine) -> Result<(), HostError> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    let thread = thread::Builder::new().name("wasm-ticks".to_owned()).spawn(tick);
    thread
        .map(drop)
        .map_err(|source| HostError::Io { what: "start the thread that interrupts workers".to_owned(), source })
}
