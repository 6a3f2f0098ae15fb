//! What a process gives up before it touches anything of a stranger.
//!
//! Each step says how it went; none is fatal here, since what is missing is for the operator to judge. Steps that need
//! rights come first, those that take them away last.

mod seccomp;
pub(crate) mod sys;

use std::{fs, io, path::Path};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use rustix::{
    process::{
        DumpableBehavior, Resource, Rlimit, Signal, chroot, getuid, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, UnshareFlags, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use serde::{Deserialize, Serialize};

pub(crate) use self::seccomp::Role;
use self::sys::Forked;
use super::isolation::{Mechanism, Report};

/// The user and group that own nothing.
const NOBODY: u32 = 65_534;
/// Capabilities that the kernel may know of, some to spare.
const CAPABILITIES: u32 = 64;
/// Ends of a process by a signal, as exit codes of the one that stands for it outside.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Limits of a process; what is `None` stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessLimits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<u64>,
    /// Of a file that is written.
    pub(crate) file_bytes: u64,
    pub(crate) open_files: u64,
}

/// What is asked of the sandbox.
pub(crate) struct Request<'a> {
    pub(crate) limits: ProcessLimits,
    pub(crate) role: Role,
    /// An empty folder, which becomes all that there is of the file system.
    pub(crate) empty: &'a Path,
    /// Whether the process goes on as the first one of a process namespace. Such a one ignores the signals of limits.
    pub(crate) own_processes: bool,
    /// Only for looking at what the rest alone refuses.
    pub(crate) without_seccomp: bool,
}

/// Ends this process when the thread that has started it ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Gives up everything that is asked for. With a process namespace what returns is a child of the process that called; the
/// latter lives on to tell how it ended.
pub(crate) fn enter(request: &Request<'_>) -> Report {
    let mut report = Report::default();
    report.note(Mechanism::ResourceLimits, limit(&request.limits).map_err(|error| error.to_string()));
    // The first to be killed when the machine is out of memory.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    namespaces(request, &mut report);
    report.note(Mechanism::NoCapabilities, drop_capabilities().map_err(|error| error.to_string()));
    let no_new = set_no_new_privs(true).map_err(|error| error.to_string());
    report.note(Mechanism::NoNewPrivileges, no_new);
    report.note(Mechanism::Landlock, landlock());
    // Changes of identity have taken both back.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = die_with_parent() {
        tracing::warn!(%error, "this process will not end with its parent");
    }
    let filtered = if request.without_seccomp {
        Err("switched off for this look".to_owned())
    } else {
        seccomp::apply(request.role)
    };
    report.note(Mechanism::Seccomp, filtered);
    report
}

fn limit(limits: &ProcessLimits) -> io::Result<()> {
    let set = |resource, soft: u64, hard: u64| setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) });
    set(Resource::Core, 0, 0)?;
    set(Resource::Fsize, limits.file_bytes, limits.file_bytes)?;
    set(Resource::Nofile, limits.open_files, limits.open_files)?;
    if let Some(bytes) = limits.memory_bytes {
        set(Resource::As, bytes, bytes)?;
    }
    if let Some(seconds) = limits.cpu_seconds {
        // The signal of the first limit names it; who ignores that meets the second.
        set(Resource::Cpu, seconds, seconds.saturating_add(2))?;
    }
    Ok(())
}

/// Namespaces, the empty root, and the user: with the rights of root where there are, and then again without.
fn namespaces(request: &Request<'_>, report: &mut Report) {
    let mut flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if request.own_processes {
        flags |= UnshareFlags::NEWPID;
    }
    let is_root = getuid().is_root();
    // While it can be reached: what comes next may take the right to look into the folders above it.
    let there = rustix::process::chdir(request.empty);
    let as_root = if is_root { sys::unshare(flags) } else { Err(io::ErrorKind::PermissionDenied.into()) };
    let nobody = if is_root { become_nobody() } else { Ok(()) };
    report.note(Mechanism::UnprivilegedUser, nobody.map_err(|error| error.to_string()));
    let (user, rest) = match as_root {
        Ok(()) => (sys::unshare(UnshareFlags::NEWUSER).map_err(|error| error.to_string()), Ok(())),
        Err(_) => {
            let all = sys::unshare(flags | UnshareFlags::NEWUSER).map_err(|error| error.to_string());
            (all.clone(), all)
        }
    };
    // In a user namespace of its own it has the right to do so, and whoever has another root cannot make one.
    let root = there.and_then(|()| chroot("."));
    let root = root.map_err(|error| format!("{} cannot become the root: {error}", request.empty.display()));
    let why = |error: String| format!("the system refuses namespaces: {error}");
    report.note(Mechanism::UserNamespace, user.map_err(why));
    for mechanism in [Mechanism::NetworkNamespace, Mechanism::MountNamespace, Mechanism::IpcNamespace] {
        report.note(mechanism, rest.clone().map_err(why));
    }
    report.note(Mechanism::EmptyRoot, if rest.is_ok() { root } else { Err("needs a mount namespace".to_owned()) });
    let processes = match (request.own_processes, rest) {
        (false, _) => Err("not for processes that end after one task".to_owned()),
        (true, Err(error)) => Err(why(error)),
        (true, Ok(())) => become_first_process().map_err(|error| error.to_string()),
    };
    report.note(Mechanism::PidNamespace, processes);
}

fn become_nobody() -> io::Result<()> {
    let (gid, uid) = (rustix::process::Gid::from_raw(NOBODY), rustix::process::Uid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// The next child is the first process of the new namespace: it goes on, and this one waits for it and ends as it does.
fn become_first_process() -> io::Result<()> {
    match sys::fork()? {
        Forked::Child => Ok(()),
        Forked::Parent(pid) => {
            // It only waits, and needs nothing for that.
            let _ = (drop_capabilities(), die_with_parent());
            let pid = rustix::process::Pid::from_raw(pid);
            let code = loop {
                match rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()) {
                    Ok(Some((_, status))) => {
                        let signal = status.terminating_signal();
                        break signal.map_or_else(
                            || status.exit_status().unwrap_or(1),
                            |signal| SIGNAL_EXIT_BASE.saturating_add(signal),
                        );
                    }
                    Ok(None) | Err(rustix::io::Errno::INTR) => (),
                    Err(_) => break 1,
                }
            };
            std::process::exit(code)
        }
    }
}

/// The signal behind the exit code of a process that stood for another.
pub(crate) const fn signal_of_exit(code: i32) -> Option<i32> {
    if code > SIGNAL_EXIT_BASE { Some(code.saturating_sub(SIGNAL_EXIT_BASE)) } else { None }
}

fn drop_capabilities() -> io::Result<()> {
    for number in 0..CAPABILITIES {
        let Some(bit) = 1_u64.checked_shl(number) else { break };
        // Unknown ones cannot be dropped, and without rights none can: what counts is that the sets below are empty.
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit));
    }
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Nothing at all is allowed: what is needed is open already.
fn landlock() -> Result<(), String> {
    let abi = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| error.to_string())?;
    match (restricted.ruleset, restricted.landlock) {
        (RulesetStatus::FullyEnforced, _) => Ok(()),
        (RulesetStatus::PartiallyEnforced, status) => {
            // Files are what it is for; network and signals came with later kernels, and have other mechanisms here.
            tracing::debug!(?status, "an older Landlock");
            Ok(())
        }
        (_, LandlockStatus::NotImplemented) => Err("this kernel has no Landlock".to_owned()),
        (_, LandlockStatus::NotEnabled) => Err("Landlock is switched off in this kernel".to_owned()),
        (_, status) => Err(format!("Landlock did not take hold: {status:?}")),
    }
}
