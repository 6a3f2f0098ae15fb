//! What can stand between a worker's process and the machine, and what of it does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One mechanism of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Limits of the process: no files written, few open, no core dumps; memory and CPU of the compiler.
    ResourceLimits,
    /// The process runs as nobody when the agent runs as root.
    UnprivilegedUser,
    /// User ids of its own: what it might become there is nothing outside.
    UserNamespace,
    /// Network interfaces of its own, of which there are none.
    NetworkNamespace,
    /// Mounts of its own.
    MountNamespace,
    /// Shared memory and message queues of its own.
    IpcNamespace,
    /// Processes of its own: it sees no other.
    PidNamespace,
    /// The file system begins and ends at an empty folder.
    EmptyRoot,
    /// Every capability is dropped, for good.
    NoCapabilities,
    /// No program that it could start would have more rights.
    NoNewPrivileges,
    /// No file can be opened and no address connected to, as the kernel's Landlock sees to.
    Landlock,
    /// System calls beyond the few that are needed end the process.
    Seccomp,
}

impl Mechanism {
    /// All mechanisms.
    pub const ALL: [Self; 12] = [
        Self::ResourceLimits,
        Self::UnprivilegedUser,
        Self::UserNamespace,
        Self::NetworkNamespace,
        Self::MountNamespace,
        Self::IpcNamespace,
        Self::PidNamespace,
        Self::EmptyRoot,
        Self::NoCapabilities,
        Self::NoNewPrivileges,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// The name in configurations and in `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResourceLimits => "resource-limits",
            Self::UnprivilegedUser => "unprivileged-user",
            Self::UserNamespace => "user-namespace",
            Self::NetworkNamespace => "network-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::IpcNamespace => "ipc-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::EmptyRoot => "empty-root",
            Self::NoCapabilities => "no-capabilities",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

/// Whether a mechanism is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MechanismState {
    /// Whether it is.
    pub active: bool,
    /// Why it is not, or what of it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Each mechanism with its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report(pub BTreeMap<Mechanism, MechanismState>);

impl Report {
    /// A report in which nothing is active, for the reason given.
    pub fn inactive(why: &str) -> Self {
        let state = MechanismState { active: false, why: Some(why.to_owned()) };
        Self(Mechanism::ALL.into_iter().map(|mechanism| (mechanism, state.clone())).collect())
    }

    /// Whether a mechanism is active.
    pub fn is_active(&self, mechanism: Mechanism) -> bool {
        self.0.get(&mechanism).is_some_and(|state| state.active)
    }

    /// Those that are not active, each with its reason.
    pub fn missing<'a>(&'a self, wanted: &'a [Mechanism]) -> impl Iterator<Item = (Mechanism, &'a str)> {
        let why = |mechanism| self.0.get(&mechanism).and_then(|state: &MechanismState| state.why.as_deref());
        let wanted = wanted.iter().copied().filter(|mechanism| !self.is_active(*mechanism));
        wanted.map(move |mechanism| (mechanism, why(mechanism).unwrap_or("nothing is known of it")))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn note(&mut self, mechanism: Mechanism, outcome: Result<(), String>) {
        let state = MechanismState { active: outcome.is_ok(), why: outcome.err() };
        self.0.insert(mechanism, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_configurations() {
        for mechanism in Mechanism::ALL {
            assert_eq!(serde_json::to_value(mechanism).unwrap(), mechanism.name());
        }
        let report = Report::inactive("this is a test");
        assert_eq!(report.missing(&Mechanism::ALL).count(), Mechanism::ALL.len());
        assert_eq!(report.missing(&[Mechanism::Seccomp]).next(), Some((Mechanism::Seccomp, "this is a test")));
    }
}
