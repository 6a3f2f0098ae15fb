//! The HTTP server: bounded connections, bounded headers, and an end that waits for what runs.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use common::shutdown::Shutdown;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Time for sending a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Beside the headers: request line, and room for the parser.
const BUFFER_SLACK: usize = 16 << 10;
/// Pause after the system refused a connection: it is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    pub(crate) max_connections: usize,
    pub(crate) max_header_bytes: usize,
}

/// A listener that is bound, so that a port that is taken is noticed before anything else begins.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop`; open connections end with it.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, stop: Shutdown) {
    let connections = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        // Above the limit callers wait in the system's queue.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => (),
                        () = connection(stream, router, limits.max_header_bytes) => (),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, max_header_bytes: usize) {
    // Answers are mostly small.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(max_header_bytes.saturating_add(BUFFER_SLACK))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
