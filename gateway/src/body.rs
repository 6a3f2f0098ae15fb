//! Bodies on their way through: a client's, kept or streamed with a limit, and an agent's, counted and with a deadline.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::Sleep;

use crate::{domain::retry::BodyLeft, health::InFlight};

/// Why a body stopped half way.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    /// More than the limit was sent.
    #[error("the body is longer than its limit")]
    TooLarge,
    /// The overall time is up.
    #[error("the exchange took longer than its limit")]
    OutOfTime,
    /// The other side went away.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// A second attempt asked for a body that was streamed to the first.
    #[error("the body was already streamed")]
    Spent,
}

/// A client's body, ready for one or several attempts.
pub(crate) enum RequestBody {
    /// Small and complete.
    Kept(Bytes),
    /// Passed on as it comes; only the first attempt that touches it gets it.
    Streamed(Arc<Slot>),
}

/// A stream that nobody has touched yet, or what became of it.
pub(crate) struct Slot {
    untouched: Mutex<Option<Incoming>>,
    hint: SizeHint,
    limit: u64,
    exceeded: AtomicBool,
}

impl RequestBody {
    /// Keeps a body whose announced length is at most `keep` bytes, and streams others.
    pub(crate) async fn prepare(body: Incoming, keep: u64, limit: u64) -> Result<Self, BodyError> {
        let hint = body.size_hint();
        match hint.exact() {
            Some(length) if length > limit => Err(BodyError::TooLarge),
            Some(length) if length <= keep => {
                // The connection ends the body at the announced length.
                let collected = body.collect().await.map_err(BodyError::Broken)?;
                Ok(Self::Kept(collected.to_bytes()))
            }
            _ => {
                let untouched = Mutex::new(Some(body));
                Ok(Self::Streamed(Arc::new(Slot { untouched, hint, limit, exceeded: AtomicBool::new(false) })))
            }
        }
    }

    /// The body of one attempt.
    pub(crate) fn attempt(&self) -> Body {
        match self {
            Self::Kept(bytes) => Body::from(bytes.clone()),
            Self::Streamed(slot) => Body::new(Stream { slot: Arc::clone(slot), body: None, left: slot.limit }),
        }
    }

    /// Whether another attempt would have all of it.
    pub(crate) fn left(&self) -> BodyLeft {
        match self {
            Self::Kept(_) => BodyLeft::Whole,
            Self::Streamed(slot) if slot.lock().is_some() => BodyLeft::Whole,
            Self::Streamed(_) => BodyLeft::Spent,
        }
    }

    /// Whether the client sent more than the limit.
    pub(crate) fn exceeded_limit(&self) -> bool {
        matches!(self, Self::Streamed(slot) if slot.exceeded.load(Ordering::Acquire))
    }

    /// Whether it is passed on as it comes.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self, Self::Streamed(_))
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Incoming>> {
        self.untouched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Stream {
    slot: Arc<Slot>,
    body: Option<Incoming>,
    left: u64,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.body.is_none() {
            this.body = this.slot.lock().take();
        }
        let Some(body) = &mut this.body else { return Poll::Ready(Some(Err(BodyError::Spent))) };
        let frame = match std::task::ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(error)))),
            None => return Poll::Ready(None),
        };
        let length = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        let Some(left) = this.left.checked_sub(length) else {
            this.slot.exceeded.store(true, Ordering::Release);
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        };
        this.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        self.slot.hint
    }
}

/// An agent's answer: its replica counts as busy until the last byte is through.
pub(crate) struct Answer {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    _in_flight: InFlight,
}

impl Answer {
    pub(crate) fn new(body: Incoming, deadline: tokio::time::Instant, in_flight: InFlight) -> Self {
        Self { body, deadline: Box::pin(tokio::time::sleep_until(deadline)), _in_flight: in_flight }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(BodyError::OutOfTime)));
        }
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
