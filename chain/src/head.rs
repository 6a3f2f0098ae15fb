//! Watching for new blocks by polling: it works with every endpoint and survives each of them.

use std::time::Duration;

use common::{event::BlockRef, shutdown::Shutdown};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use crate::rpc::Rpc;

/// Watches the head of a chain.
#[derive(Debug, Clone, Copy)]
pub struct HeadWatcher;

impl HeadWatcher {
    /// Asks for the latest block every `every` until shutdown, or until nobody holds the receiver any more. The value is
    /// `None` until the first answer, changes when the head's hash does, and stays while no endpoint answers.
    pub fn spawn(rpc: Rpc, every: Duration, shutdown: Shutdown) -> watch::Receiver<Option<BlockRef>> {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => (),
                () = sender.closed() => (),
                () = poll(&rpc, every, &sender) => (),
            }
        });
        receiver
    }
}

async fn poll(rpc: &Rpc, every: Duration, sender: &watch::Sender<Option<BlockRef>>) {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match rpc.head().await {
            Ok(head) => {
                sender.send_if_modified(|known| {
                    let is_new = known.is_none_or(|known| known.hash != head.hash);
                    if is_new {
                        *known = Some(head);
                    }
                    is_new
                });
            }
            Err(error) => warn!(%error, "the head of the chain cannot be read"),
        }
    }
}
