//! Two-phase shutdown: the first signal asks services to stop taking work and finish what they promised; the second
//! one ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled when a service shall stop taking work.
pub type Shutdown = CancellationToken;

/// A token that is cancelled by the first Ctrl-C or SIGTERM. The second one exits the process with code 130.
pub fn on_signals() -> std::io::Result<Shutdown> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = Shutdown::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        token.cancel();
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        std::process::exit(130);
    });
    Ok(shutdown)
}
