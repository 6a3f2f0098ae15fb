//! The loop: look at the chain, commit the step, say so; wait where there is nothing new.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{event::BlockRef, shutdown::Shutdown};
use tokio::sync::watch;

use crate::{error::IndexerError, metrics::Metrics, source::ChainSource, status::Status, store::Store};

/// Longest wait after failures in a row.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

pub(crate) struct SyncLoop {
    pub(crate) source: ChainSource,
    pub(crate) store: Store,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Metrics,
    pub(crate) committed: watch::Sender<Option<BlockRef>>,
    pub(crate) poll_interval: Duration,
    pub(crate) shutdown: Shutdown,
}

enum Turn {
    /// There may be more at once.
    Advanced,
    /// Nothing new.
    Idle,
}

impl SyncLoop {
    /// Runs until the shutdown, or until an error that trying again cannot help.
    pub(crate) async fn run(mut self) -> Result<(), IndexerError> {
        let result = self.follow().await;
        match &result {
            Ok(()) => self.status.shut_down(),
            Err(error) => {
                self.metrics.stopped_by(error);
                self.status.failed(error.in_full());
            }
        }
        result
    }

    async fn follow(&mut self) -> Result<(), IndexerError> {
        let mut backoff = self.poll_interval;
        while !self.shutdown.is_cancelled() {
            match self.turn().await {
                Ok(turn) => {
                    backoff = self.poll_interval;
                    if matches!(turn, Turn::Idle) {
                        self.pause(self.poll_interval).await;
                    }
                }
                Err(error) if error.is_transient() => {
                    self.metrics.attempt_failed(&error, backoff);
                    self.pause(backoff).await;
                    backoff = backoff.saturating_mul(2).min(MAX_BACKOFF).max(self.poll_interval);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn turn(&mut self) -> Result<Turn, IndexerError> {
        let look = tokio::select! {
            look = self.source.look(&self.store) => look?,
            // Only looking is given up; a commit that has begun is finished.
            () = self.shutdown.cancelled() => return Ok(Turn::Idle),
        };
        self.status.looked(&look);
        self.metrics.looked(&look, self.status.condition().committed);
        self.metrics.logs_read(self.source.reader());
        let Some(step) = look.step else { return Ok(Turn::Idle) };
        let began = Instant::now();
        let checkpoint = self.store.apply(&step).await?;
        self.status.committed(checkpoint, step.input.added());
        self.status.progress().iter().for_each(|progress| self.metrics.progressed(progress));
        self.status.progress_to_tell().iter().for_each(|progress| self.metrics.catching_up(progress));
        self.metrics.step_committed(&step, checkpoint, began.elapsed());
        self.committed.send_replace(checkpoint.block);
        Ok(Turn::Advanced)
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => (),
            () = self.shutdown.cancelled() => (),
        }
    }
}
