//! The life of one replica.
//!
//! ```text
//! Assigned → Fetching → Verified → Compiling → Starting → Ready ⇄ Paused
//!     ↑         └──────────┴───────────┴──────────┴→ Backoff or Failed
//!     └── Backoff (its time has come; also from Ready and Paused, when the worker's process ended)
//! any of these → Draining → Stopped
//! ```

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// First wait after a failure that may pass, in seconds; it doubles with each further one.
const BACKOFF_FIRST_SECONDS: u64 = 2;
/// Longest wait between two attempts, in seconds.
const BACKOFF_LONGEST_SECONDS: u64 = 300;
/// A failure this long ago, in seconds, no longer makes the next wait longer.
const FAILURE_FORGOTTEN_SECONDS: u64 = 2 * BACKOFF_LONGEST_SECONDS;

/// Why a replica is not ready. The code is stable: it is shown to callers and counted in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No source of the artifact answered with it.
    ArtifactUnavailable,
    /// What the sources gave has another SHA-256 digest.
    DigestMismatch,
    /// The artifact is larger than this agent takes.
    ArtifactTooLarge,
    /// Not WebAssembly, or a core module.
    NotAComponent,
    /// The component does not export `wasi:http/incoming-handler`.
    NotAnHttpWorker,
    /// The component imports something that this host does not have.
    ImportMissing,
    /// The developer offer requires a feature that this host does not have.
    FeatureMissing,
    /// The compiler refused the component.
    CompileFailed,
    /// The component does not even start within the memory that was bought, or traps when it starts.
    StartFailed,
    /// Compiling the artifact takes more memory, CPU time or room than this agent gives it.
    CompileLimit,
    /// The worker's process ended.
    WorkerDied,
    /// Something on the provider's side failed: disk, memory, the compiler's thread.
    HostFault,
}

impl Cause {
    /// All causes, for metrics that exist at zero.
    pub const ALL: [Self; 12] = [
        Self::ArtifactUnavailable,
        Self::DigestMismatch,
        Self::ArtifactTooLarge,
        Self::NotAComponent,
        Self::NotAnHttpWorker,
        Self::ImportMissing,
        Self::FeatureMissing,
        Self::CompileFailed,
        Self::StartFailed,
        Self::CompileLimit,
        Self::WorkerDied,
        Self::HostFault,
    ];

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ArtifactUnavailable => "artifact_unavailable",
            Self::DigestMismatch => "digest_mismatch",
            Self::ArtifactTooLarge => "artifact_too_large",
            Self::NotAComponent => "not_a_component",
            Self::NotAnHttpWorker => "not_an_http_worker",
            Self::ImportMissing => "import_missing",
            Self::FeatureMissing => "feature_missing",
            Self::CompileFailed => "compile_failed",
            Self::StartFailed => "start_failed",
            Self::CompileLimit => "compile_limit",
            Self::WorkerDied => "worker_died",
            Self::HostFault => "host_fault",
        }
    }

    /// Whether another attempt may succeed. What follows from the bytes of the artifact alone never changes, as the
    /// digest fixes the bytes.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::ArtifactUnavailable | Self::DigestMismatch | Self::WorkerDied | Self::HostFault)
    }
}

/// A failure with its cause and what exactly was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{}: {detail}", cause.code())]
pub struct Failure {
    /// Stable code.
    pub cause: Cause,
    /// For people: names the limit and the value.
    pub detail: String,
}

impl Failure {
    /// A failure; `detail` names the limit and the value.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplicaState {
    /// A deal names this agent; nothing was done yet.
    Assigned,
    /// The artifact is being fetched.
    Fetching,
    /// The artifact is here and has the right digest.
    Verified,
    /// It is compiled, or the compiled form is loaded.
    Compiling,
    /// A first instance is made, to see that it can be.
    Starting,
    /// It answers requests.
    Ready,
    /// Unfunded: the module is kept, requests are refused.
    Paused,
    /// The deal is over; running requests end.
    Draining,
    /// The deal is over and nothing of it runs.
    Stopped,
    /// It failed and is tried again.
    Backoff {
        /// What failed.
        failure: Failure,
        /// Second (since 1970) of the next attempt.
        until: u64,
    },
    /// It failed for good.
    Failed {
        /// What failed.
        failure: Failure,
    },
}

impl ReplicaState {
    /// All names, for metrics that exist at zero.
    pub const NAMES: [&'static str; 11] = [
        "assigned",
        "fetching",
        "verified",
        "compiling",
        "starting",
        "ready",
        "paused",
        "draining",
        "stopped",
        "backoff",
        "failed",
    ];

    /// The state's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Fetching => "fetching",
            Self::Verified => "verified",
            Self::Compiling => "compiling",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Backoff { .. } => "backoff",
            Self::Failed { .. } => "failed",
        }
    }

    /// What it failed of, if it did.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Backoff { failure, .. } | Self::Failed { failure } => Some(failure),
            _ => None,
        }
    }

    const fn can_fail(&self) -> bool {
        matches!(self, Self::Fetching | Self::Verified | Self::Compiling | Self::Starting | Self::Ready | Self::Paused)
    }
}

/// What happens to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaEvent {
    /// It is being brought up.
    Begin,
    /// The artifact is here and verified.
    Verified,
    /// Compilation began.
    Compiling,
    /// The module is loaded.
    Starting,
    /// It can answer.
    Ready,
    /// Bringing it up failed at `now` (seconds since 1970), or its process ended then.
    Failed {
        /// What failed.
        failure: Failure,
        /// Seconds since 1970.
        now: u64,
    },
    /// The money ended.
    Pause,
    /// There is money again.
    Resume,
    /// The deal is over.
    Drain,
    /// Nothing runs any more.
    Stopped,
}

/// An event that cannot happen in the state that the replica is in: the caller's plan is out of date.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a replica that is {state} cannot take {event:?}")]
pub struct IllegalEvent {
    state: &'static str,
    event: ReplicaEvent,
}

/// A replica's state with what it needs to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    state: ReplicaState,
    failures_in_a_row: u32,
    /// Second (since 1970) of the last failure.
    last_failure: Option<u64>,
}

impl Default for Replica {
    fn default() -> Self {
        Self { state: ReplicaState::Assigned, failures_in_a_row: 0, last_failure: None }
    }
}

impl Replica {
    /// Where it stands.
    pub const fn state(&self) -> &ReplicaState {
        &self.state
    }

    /// Moves on, or leaves everything as it was.
    pub fn apply(&mut self, event: ReplicaEvent) -> Result<(), IllegalEvent> {
        let failed_at = if let ReplicaEvent::Failed { now, .. } = event { Some(now) } else { None };
        let next = self.next(&event).ok_or(IllegalEvent { state: self.state.name(), event })?;
        if let Some(now) = failed_at {
            // Being ready for a moment proves nothing: a worker that crashes at once would be started without end.
            self.failures_in_a_row = self.failures_before(now).saturating_add(1);
            self.last_failure = Some(now);
        }
        self.state = next;
        Ok(())
    }

    fn next(&self, event: &ReplicaEvent) -> Option<ReplicaState> {
        use ReplicaEvent as E;
        use ReplicaState as S;
        match (&self.state, event) {
            (S::Assigned | S::Backoff { .. }, E::Begin) => Some(S::Fetching),
            (S::Fetching, E::Verified) => Some(S::Verified),
            (S::Verified, E::Compiling) => Some(S::Compiling),
            (S::Compiling, E::Starting) => Some(S::Starting),
            (S::Starting, E::Ready) | (S::Paused, E::Resume) => Some(S::Ready),
            (S::Ready, E::Pause) => Some(S::Paused),
            (state, E::Failed { failure, now }) if state.can_fail() => Some(self.failed(failure, *now)),
            // Where nothing was begun there is nothing to drain.
            (S::Assigned | S::Backoff { .. } | S::Failed { .. } | S::Draining, E::Stopped) => Some(S::Stopped),
            (S::Stopped | S::Draining, _) => None,
            (_, E::Drain) => Some(S::Draining),
            _ => None,
        }
    }

    fn failures_before(&self, now: u64) -> u32 {
        let is_recent = |last: u64| now.saturating_sub(last) < FAILURE_FORGOTTEN_SECONDS;
        if self.last_failure.is_some_and(is_recent) { self.failures_in_a_row } else { 0 }
    }

    fn failed(&self, failure: &Failure, now: u64) -> ReplicaState {
        let failure = failure.clone();
        if !failure.cause.may_pass() {
            return ReplicaState::Failed { failure };
        }
        let doubled = 1_u64.checked_shl(self.failures_before(now)).unwrap_or(u64::MAX);
        let wait = BACKOFF_FIRST_SECONDS.saturating_mul(doubled).min(BACKOFF_LONGEST_SECONDS);
        ReplicaState::Backoff { failure, until: now.saturating_add(wait) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure(cause: Cause) -> Failure {
        Failure::new(cause, "because")
    }

    fn brought_up() -> Replica {
        let mut replica = Replica::default();
        for event in [
            ReplicaEvent::Begin,
            ReplicaEvent::Verified,
            ReplicaEvent::Compiling,
            ReplicaEvent::Starting,
            ReplicaEvent::Ready,
        ] {
            replica.apply(event).unwrap();
        }
        replica
    }

    #[test]
    fn it_comes_up_pauses_resumes_and_stops() {
        let mut replica = brought_up();
        for (event, state) in [
            (ReplicaEvent::Pause, "paused"),
            (ReplicaEvent::Resume, "ready"),
            (ReplicaEvent::Drain, "draining"),
            (ReplicaEvent::Stopped, "stopped"),
        ] {
            replica.apply(event).unwrap();
            assert_eq!(replica.state().name(), state);
        }
    }

    #[test]
    fn a_failure_that_may_pass_is_tried_again_ever_later() {
        let mut replica = Replica::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            replica.apply(ReplicaEvent::Begin).unwrap();
            replica.apply(ReplicaEvent::Failed { failure: failure(Cause::ArtifactUnavailable), now: 1_000 }).unwrap();
            let ReplicaState::Backoff { until, .. } = replica.state() else { panic!("{replica:?}") };
            waits.push(until - 1_000);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn a_worker_that_dies_is_started_again_ever_later_until_it_was_well_for_long() {
        let mut replica = brought_up();
        let mut waits = Vec::new();
        let mut now = 1_000;
        for pause in [0, 1, 1, FAILURE_FORGOTTEN_SECONDS, 1] {
            now += pause;
            replica.apply(ReplicaEvent::Failed { failure: failure(Cause::WorkerDied), now }).unwrap();
            let ReplicaState::Backoff { until, .. } = *replica.state() else { panic!("{replica:?}") };
            waits.push(until - now);
            for event in [
                ReplicaEvent::Begin,
                ReplicaEvent::Verified,
                ReplicaEvent::Compiling,
                ReplicaEvent::Starting,
                ReplicaEvent::Ready,
            ] {
                replica.apply(event).unwrap();
            }
        }
        assert_eq!(waits, [2, 4, 8, 2, 4]);
    }

    #[test]
    fn a_failure_of_the_artifact_itself_is_final() {
        let mut replica = Replica::default();
        replica.apply(ReplicaEvent::Begin).unwrap();
        replica.apply(ReplicaEvent::Verified).unwrap();
        replica.apply(ReplicaEvent::Failed { failure: failure(Cause::NotAComponent), now: 0 }).unwrap();
        assert_eq!(replica.state().failure().unwrap().cause, Cause::NotAComponent);
        assert!(replica.apply(ReplicaEvent::Begin).is_err());
    }

    fn any_event() -> impl Strategy<Value = ReplicaEvent> {
        prop_oneof![
            Just(ReplicaEvent::Begin),
            Just(ReplicaEvent::Verified),
            Just(ReplicaEvent::Compiling),
            Just(ReplicaEvent::Starting),
            Just(ReplicaEvent::Ready),
            Just(ReplicaEvent::Pause),
            Just(ReplicaEvent::Resume),
            Just(ReplicaEvent::Drain),
            Just(ReplicaEvent::Stopped),
            proptest::sample::select(Cause::ALL.to_vec())
                .prop_map(|cause| ReplicaEvent::Failed { failure: failure(cause), now: 5 }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_a_stopped_replica_stays_stopped_and_ready_needs_every_step(
            events in proptest::collection::vec(any_event(), 0..60)
        ) {
            let mut replica = Replica::default();
            let mut stopped = false;
            for event in events {
                let before = replica.clone();
                match replica.apply(event) {
                    Err(_) => prop_assert_eq!(&replica, &before),
                    Ok(()) if replica.state() == &ReplicaState::Ready => {
                        prop_assert!(matches!(before.state(), ReplicaState::Starting | ReplicaState::Paused));
                    }
                    Ok(()) => (),
                }
                prop_assert!(!stopped || replica.state() == &ReplicaState::Stopped);
                stopped |= replica.state() == &ReplicaState::Stopped;
            }
        }
    }
}
