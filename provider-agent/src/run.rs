//! Wires an agent, and ends it in two phases: no new requests, then nothing at all.

use std::{
    fs::{File, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chain::{ChainError, Key};
use common::{
    clock::SharedClock,
    http::{Readiness, operator_routes},
    ids::Address,
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
};
use tokio_util::task::TaskTracker;

use crate::{
    artifacts::Artifacts,
    billing::Biller,
    book::Book,
    config::{AgentConfig, ConfigError},
    follow::{FollowError, Follower},
    host::{HostError, WorkerHost},
    ingress::{self, Ingress, IsolationStatus},
    metrics::Metrics,
    register::Registrar,
    replicas::Replicas,
    seen::Seen,
    server::{self, ServerLimits},
    store::{Store, StoreError},
    supervisor::Supervisor,
};

/// Intervals without a good look at the chain after which the agent calls itself not ready. Workers go on all the same.
const STALE_AFTER_LOOKS: u32 = 20;
/// How often, and how long apart, the data folder is asked for.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Epochs of requests that are taken over at a restart.
const RESUMED_EPOCHS: u32 = 2;

/// Why an agent did not start, or ended.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A field of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The offer names another agent.
    #[error(
        "offer.agent is {named}, but the agent's key is that of {actual}: use the key that the offer names, or sign another offer"
    )]
    OtherKey {
        /// What the offer says.
        named: Address,
        /// What the key says.
        actual: Address,
    },
    /// The data folder cannot be used.
    #[error("the data folder {path} cannot be used")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent uses the data folder.
    #[error("the data folder {path} is in use by another agent: stop it, or set another data_dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: is another program using the port? Set another `listen` address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host of workers.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Metrics that contradict each other.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
    /// The list of endpoints.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The chain is not the one that is configured.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A flaw of the agent itself.
    #[error("the part of the agent that follows the chain has died: start it again and report this")]
    Crashed(#[source] JoinError),
}

/// Runs an agent until `shutdown`, or until it turns out that it cannot run at all. `key` is the hot key that
/// attests; it can move no money of the provider.
///
/// When the future is dropped everything ends at once, as in a crash; a later run with the same data folder goes on.
pub async fn run(config: AgentConfig, key: Key, clock: SharedClock, shutdown: Shutdown) -> Result<(), AgentError> {
    Agent::start(config, key, clock, shutdown).await?.stopped().await
}

/// An agent that runs.
pub struct Agent {
    address: SocketAddr,
    ingress: Arc<Ingress>,
    store: Store,
    supervisor: Arc<Supervisor>,
    follower: JoinHandle<Option<Result<(), FollowError>>>,
    biller: JoinHandle<Option<()>>,
    drain_timeout: Duration,
    shutdown: Shutdown,
    /// Stops looking at the chain and billing.
    work: Shutdown,
    /// Ends everything; also when this agent is dropped.
    _life: tokio_util::sync::DropGuard,
    _lock: File,
}

impl Agent {
    /// Opens the data folder, listens, and starts what was known before; the chain is reached in the background.
    pub async fn start(
        config: AgentConfig,
        key: Key,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Result<Self, AgentError> {
        config.validate()?;
        let agent = key.address();
        if let Some(named) = config.offer.as_ref().map(|signed| signed.offer.agent).filter(|named| *named != agent) {
            return Err(AgentError::OtherKey { named, actual: agent });
        }
        let lock = lock_data_dir(&config.data_dir).await?;
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let life = Shutdown::new();
        let work = life.child_token();
        let guard = life.clone().drop_guard();
        let store = Store::open(&config.data_dir).await?;
        let metrics = Metrics::new()?;
        let supervisor = Arc::new(supervisor(&config, &store, &metrics, &clock, life.clone()).await?);
        let follower = Follower::new(&config, key, supervisor.clone())?;
        let parts = (store.clone(), supervisor.replicas.clone(), metrics.clone(), clock.clone());
        let biller = Biller::new(agent, parts, config.reorg_margin_blocks);
        let biller = tokio::spawn(within(life.clone(), biller.run(follower.views(), work.clone())));
        if let (Some(offer), Some(matcher_url)) = (config.offer.clone(), config.matcher_url.clone()) {
            let registrar = Registrar { matcher_url, offer, metrics: metrics.clone() };
            tokio::spawn(registrar.run(follower.views(), work.clone()));
        }
        let ingress = Arc::new(ingress(agent, &config, &supervisor));
        let ready = readiness(ingress.clone(), supervisor.seen.clone(), clock, &config);
        let router = ingress::routes(ingress.clone()).merge(operator_routes(metrics.registry.clone(), ready));
        let limits = ServerLimits {
            max_connections: config.limits.max_connections,
            max_header_bytes: config.limits.max_header_bytes,
        };
        tokio::spawn(server::serve(listener, router, limits, life.clone()));
        let follower = tokio::spawn(within(life.clone(), follower.run(work.clone())));
        let drain_timeout = Duration::from_millis(config.limits.drain_timeout_ms);
        tracing::info!(%agent, %address, "the agent listens");
        Ok(Self {
            address,
            ingress,
            store,
            supervisor,
            follower,
            biller,
            drain_timeout,
            shutdown,
            work,
            _life: guard,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for shutdown, and then for everything to end: requests that run may finish, within `drain_timeout_ms`.
    pub async fn stopped(mut self) -> Result<(), AgentError> {
        let followed = tokio::select! {
            () = self.shutdown.cancelled() => None,
            followed = &mut self.follower => Some(followed),
        };
        match followed {
            Some(Ok(Some(Err(error)))) => return Err(error.into()),
            Some(Err(panic)) => return Err(AgentError::Crashed(panic)),
            None | Some(Ok(_)) => (),
        }
        tracing::info!("the agent stops: no new requests");
        self.ingress.is_draining.store(true, Ordering::Relaxed);
        self.ingress.in_flight.close();
        if tokio::time::timeout(self.drain_timeout, self.ingress.in_flight.wait()).await.is_err() {
            tracing::warn!(left = self.ingress.in_flight.len(), "requests did not end in drain_timeout_ms");
        }
        self.work.cancel();
        // A transaction that is being sent is recorded already; what is not finished here is finished at the next start.
        if tokio::time::timeout(self.drain_timeout, &mut self.biller).await.is_err() {
            self.biller.abort();
        }
        self.supervisor.write_served(self.supervisor.seen.epoch()).await?;
        self.store.close().await;
        tracing::info!("the agent has stopped");
        Ok(())
    }
}

/// `work`, for as long as `life` lasts: `None` when it was cut off.
async fn within<T>(life: Shutdown, work: impl Future<Output = T>) -> Option<T> {
    life.run_until_cancelled(work).await
}

async fn supervisor(
    config: &AgentConfig,
    store: &Store,
    metrics: &Metrics,
    clock: &SharedClock,
    life: Shutdown,
) -> Result<Supervisor, AgentError> {
    let in_data_dir = |source| AgentError::DataDir { path: config.data_dir.clone(), source };
    let stores = config.matcher_url.iter().chain(&config.content_stores).cloned().collect();
    let artifacts = Artifacts::open(&config.data_dir, stores, &config.limits).map_err(in_data_dir)?;
    let host = WorkerHost::new(&config.data_dir, config.limits.clone(), &config.isolation).await?;
    for (mechanism, state) in &host.report().0 {
        metrics.isolation.with_label_values(&[mechanism.name()]).set(i64::from(state.active));
    }
    let replicas = Arc::new(Replicas::default());
    for assignment in store.assignments().await? {
        replicas.assign(assignment);
    }
    let known_epoch = store.epoch().await?.unwrap_or_default();
    let pages = store.requests_between(known_epoch.minus(RESUMED_EPOCHS), known_epoch).await?;
    Ok(Supervisor {
        host,
        artifacts,
        replicas,
        book: Arc::new(Book::resume(known_epoch, pages)),
        store: store.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        region: config.region(),
        seen: Arc::new(Seen::before_restart(known_epoch)),
        fresh_within: stale_after(config),
        life,
        unwritten: Default::default(),
    })
}

fn ingress(agent: Address, config: &AgentConfig, supervisor: &Supervisor) -> Ingress {
    Ingress {
        agent,
        market: config.market,
        region: config.region(),
        limits: config.limits.clone(),
        isolation: IsolationStatus {
            mode: config.isolation.mode,
            required: config.isolation.required.clone(),
            mechanisms: supervisor.host.report().clone(),
        },
        replicas: supervisor.replicas.clone(),
        book: supervisor.book.clone(),
        metrics: supervisor.metrics.clone(),
        is_draining: AtomicBool::new(false),
        in_flight: TaskTracker::new(),
    }
}

/// Age from which on what was read of the chain no longer counts as the present.
fn stale_after(config: &AgentConfig) -> Duration {
    config.poll_interval().saturating_mul(STALE_AFTER_LOOKS)
}

/// Not ready before the chain was read, when it has not been read for a while, and when stopping.
fn readiness(ingress: Arc<Ingress>, seen: Arc<Seen>, clock: SharedClock, config: &AgentConfig) -> Readiness {
    let stale_after = stale_after(config);
    Arc::new(move || {
        if ingress.is_draining.load(Ordering::Relaxed) {
            return Err("the agent is stopping".to_owned());
        }
        match seen.age(clock.now()) {
            None => Err("the chain was not reached yet".to_owned()),
            Some(age) if age <= stale_after => Ok(()),
            Some(age) => Err(format!("the chain could not be read for {} s", age.as_secs())),
        }
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AgentError> {
    server::bind(address).await.map_err(|source| AgentError::Listen { address, source })
}

/// Waits a little for a predecessor that is just ending.
async fn lock_data_dir(path: &Path) -> Result<File, AgentError> {
    let unusable = |source| AgentError::DataDir { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(unusable)?;
    let file = File::create(path.join("lock")).map_err(unusable)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
    }
    Err(AgentError::InUse { path: path.to_owned() })
}
