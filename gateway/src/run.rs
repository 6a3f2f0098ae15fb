//! Binds, serves, shuts down in two phases: take nothing new and finish what is running, then stop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use common::{http::Readiness, shutdown::Shutdown};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{ConfigError, GatewayConfig},
    health::Health,
    indexer::Indexer,
    lookup::Lookup,
    metrics::Metrics,
    proxy::Upstream,
    refresh::{self, Routes},
    service::{self, Service},
};

/// Pause after a failed accept; the usual reason is that no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a gateway cannot run. All of it needs an operator.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A setting is outside its range.
    #[error("wrong setting of the gateway")]
    Config(#[from] ConfigError),
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: stop what listens there, or choose another address")]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The client for the indexer cannot be made.
    #[error("cannot set up the client for the indexer at {url}")]
    Client {
        /// As configured.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The metrics cannot be registered.
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    /// The serving task panicked.
    #[error("the gateway stopped unexpectedly")]
    Stopped(#[source] tokio::task::JoinError),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    local_addr: SocketAddr,
    serving: JoinHandle<()>,
}

/// Runs a gateway until `shutdown` and until running requests are finished.
pub async fn run(config: GatewayConfig, shutdown: Shutdown) -> Result<(), GatewayError> {
    Gateway::start(config, shutdown).await?.stopped().await
}

impl Gateway {
    /// Binds and begins to serve. Routes are loaded in the background; until then deployments answer 503.
    pub async fn start(config: GatewayConfig, shutdown: Shutdown) -> Result<Self, GatewayError> {
        config.validate()?;
        let metrics = Arc::new(Metrics::new()?);
        let indexer = Indexer::new(&config.indexer_url, config.allow_private_endpoints)
            .map_err(|error| GatewayError::Client { url: config.indexer_url.clone(), source: error.into() })?;
        let indexer = Arc::new(indexer);
        let bind_error = |source| GatewayError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind_error)?;
        let local_addr = listener.local_addr().map_err(bind_error)?;
        let routes = Arc::new(Routes::default());
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let upstream = Upstream::new(&config.limits, config.allow_private_endpoints);
        let tasks = TaskTracker::new();
        tasks.spawn(refresh::run(
            Arc::clone(&routes),
            Arc::clone(&indexer),
            Arc::clone(&metrics),
            config.refresh_interval(),
            shutdown.clone(),
        ));
        let probes = Arc::clone(&health).probe_all(
            Arc::clone(&routes),
            upstream.clone(),
            config.probe_interval(),
            shutdown.clone(),
        );
        tasks.spawn(probes);
        let service = Arc::new(Service {
            domain: config.domain.clone(),
            limits: config.limits,
            lookup: Lookup::new(indexer),
            operator: service::operator(&metrics, readiness(&routes, &config.indexer_url, &shutdown)),
            routes,
            health,
            upstream,
            metrics,
        });
        tracing::info!(%local_addr, indexer = config.indexer_url, "gateway is up");
        let serving = tokio::spawn(serve(listener, service, tasks, shutdown));
        Ok(Self { local_addr, serving })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits for the end, which shutdown brings.
    pub async fn stopped(self) -> Result<(), GatewayError> {
        self.serving.await.map_err(GatewayError::Stopped)
    }
}

/// Ready once there are routes. An indexer that is away later on makes nothing worse at once: routes stay.
fn readiness(routes: &Arc<Routes>, indexer_url: &str, shutdown: &Shutdown) -> Readiness {
    let (routes, indexer_url, shutdown) = (Arc::clone(routes), indexer_url.to_owned(), shutdown.clone());
    Arc::new(move || {
        if shutdown.is_cancelled() {
            return Err("shutting down".to_owned());
        }
        match routes.is_loaded() {
            true => Ok(()),
            false => Err(format!("the indexer at {indexer_url} has not answered yet")),
        }
    })
}

async fn serve(listener: TcpListener, service: Arc<Service>, tasks: TaskTracker, shutdown: Shutdown) {
    let drain = Duration::from_millis(service.limits.drain_timeout_ms);
    let slots = Arc::new(Semaphore::new(service.limits.max_connections));
    let abort = CancellationToken::new();
    while let Some((slot, accepted)) = shutdown.run_until_cancelled(next(&listener, &slots)).await {
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = serve_connection(stream, client, Arc::clone(&service), shutdown.clone());
        let abort = abort.clone();
        tasks.spawn(async move {
            abort.run_until_cancelled(connection).await;
            drop(slot);
        });
    }
    // Others shall find the address free, and clients a refused connection rather than a silent one.
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests were cut off by the shutdown");
        abort.cancel();
        tasks.wait().await;
    }
}

type Slot = Option<tokio::sync::OwnedSemaphorePermit>;

async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> (Slot, std::io::Result<(TcpStream, SocketAddr)>) {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    (slot, listener.accept().await)
}

async fn serve_connection(stream: TcpStream, client: SocketAddr, service: Arc<Service>, shutdown: Shutdown) {
    let _connected = service.metrics.connected();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let limits = service.limits;
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.handle(client.ip(), request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        // Twice the limit, so that who is not far above it gets an explanation.
        .max_header_size(limits.max_header_bytes.saturating_mul(2))
        .max_buf_size(limits.max_header_bytes.saturating_mul(2).max(8_192));
    let connection = http.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %client, "a connection ended early");
    }
}
