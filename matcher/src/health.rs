//! Whether the loop does its work, and which part it has among the processes that share a database.

use std::sync::{Arc, Mutex, PoisonError};

use common::http::{Readiness, ReadyFacts};
use serde::Serialize;

use crate::error::MatcherError;

/// What the last round came to.
#[derive(Debug, Default)]
pub(crate) struct Health {
    last: Mutex<Option<Result<(), String>>>,
    role: Mutex<Option<Role>>,
}

/// A process's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Nobody else can have its database.
    Alone,
    /// It plans and sends.
    Leader,
    /// It answers the API, and another one plans and sends.
    Follower,
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

    pub(crate) fn stands(&self, role: Role) {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = Some(role);
    }

    /// `matcherRole`, as soon as it is known.
    pub(crate) fn facts(self: &Arc<Self>) -> ReadyFacts {
        let health = Arc::clone(self);
        Arc::new(move || {
            let role = *health.role.lock().unwrap_or_else(PoisonError::into_inner);
            role.map(|role| ("matcherRole".to_owned(), serde_json::json!(role))).into_iter().collect()
        })
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
