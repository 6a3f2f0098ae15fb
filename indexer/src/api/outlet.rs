//! A bounded way to somebody who reads at their own speed, for answers that take long: who does not read is dropped,
//! and nothing is kept for them beyond a few items.

use std::{task::Poll, time::Duration};

use futures::{Stream, stream};
use tokio::{sync::mpsc, time::timeout};

/// The reader is gone, or so slow that it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// The writing end.
pub(super) struct Outlet<T> {
    sender: mpsc::Sender<T>,
    patience: Duration,
}

/// Both ends; `buffer` items may wait for the reader, each for `patience` before it is given up.
pub(super) fn outlet<T>(buffer: usize, patience: Duration) -> (Outlet<T>, impl Stream<Item = T>) {
    let (sender, mut receiver) = mpsc::channel(buffer);
    let items = stream::poll_fn(move |context| -> Poll<Option<T>> { receiver.poll_recv(context) });
    (Outlet { sender, patience }, items)
}

impl<T> Outlet<T> {
    /// Waits until the reader has room.
    pub(super) async fn send(&self, item: T) -> Result<(), Gone> {
        match timeout(self.patience, self.sender.send(item)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Waits until the reader is gone.
    pub(super) async fn gone(&self) {
        self.sender.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn who_does_not_read_is_given_up_and_gets_no_more_than_fits() {
        let (out, items) = outlet(2, Duration::from_millis(1));
        assert_eq!((out.send(1).await, out.send(2).await), (Ok(()), Ok(())));
        assert_eq!(out.send(3).await, Err(Gone));
        drop(out);
        assert_eq!(items.collect::<Vec<_>>().await, [1, 2]);
    }

    #[tokio::test]
    async fn who_left_is_noticed() {
        let (out, items) = outlet(1, Duration::from_secs(3_600));
        drop(items);
        assert_eq!(out.send(1).await, Err(Gone));
        out.gone().await;
    }
}
