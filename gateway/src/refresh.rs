//! Keeps the routes in step with the indexer. The last good table stays while the indexer is away: workers go on being
//! reachable whatever happens to the rest of the market's services.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::shutdown::Shutdown;
use tokio::{sync::Notify, time::MissedTickBehavior};

use crate::{domain::table::Table, indexer::Indexer, metrics::Metrics};

/// The routes that are in use.
#[derive(Default)]
pub(crate) struct Routes {
    table: RwLock<Arc<Table>>,
    is_loaded: AtomicBool,
    stale: Notify,
}

impl Routes {
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the indexer has answered at least once.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    /// Asks for the next refresh at once: something newer than the table was seen.
    pub(crate) fn refresh_soon(&self) {
        self.stale.notify_one();
    }

    fn replace(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.is_loaded.store(true, Ordering::Release);
    }
}

/// Refreshes `routes` until shutdown.
pub(crate) async fn run(
    routes: Arc<Routes>,
    indexer: Arc<Indexer>,
    metrics: Arc<Metrics>,
    interval: Duration,
    shutdown: Shutdown,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_away = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => (),
            () = routes.stale.notified() => (),
        }
        let Some(answer) = shutdown.run_until_cancelled(indexer.live_deployments()).await else { return };
        match answer {
            Ok(found) => {
                let table = routes.table().succeeded_by(found.live);
                metrics.table_refreshed(&table, found.unusable);
                routes.replace(table);
                was_away = false;
            }
            Err(error) => {
                metrics.refresh_failed(&error, !was_away);
                was_away = true;
            }
        }
    }
}
