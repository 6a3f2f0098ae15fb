//! Whether the loop does its work.

use std::sync::{Arc, Mutex, PoisonError};

use common::http::Readiness;

use crate::error::MatcherError;

/// What the last round came to.
#[derive(Debug, Default)]
pub(crate) struct Health {
    last: Mutex<Option<Result<(), String>>>,
}

impl Health {
    pub(crate) fn round_done(&self) {
        self.set(Ok(()));
    }

    pub(crate) fn round_failed(&self, error: &MatcherError) {
        self.set(Err(format!("the last matching round failed: {}", error.in_full())));
    }

    pub(crate) fn stopped(&self) {
        self.set(Err("the matcher has stopped".to_owned()));
    }

    fn set(&self, outcome: Result<(), String>) {
        // A panic while it was held cannot have left half a value.
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    pub(crate) fn readiness(self: &Arc<Self>) -> Readiness {
        let health = Arc::clone(self);
        Arc::new(move || {
            let last = health.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            last.unwrap_or_else(|| Err("the matcher has not looked at the market yet".to_owned()))
        })
    }
}
