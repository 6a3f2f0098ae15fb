//! The system calls that are left to a process. Whatever is not listed ends it.
//!
//! Two filters, as each has one answer for what it lists: the first lets the listed calls through and kills at all others, the
//! second refuses a few of them with an error that libraries know to live with. The kernel takes the stricter answer.

use std::collections::BTreeMap;

use libc::{
    CLONE_THREAD, PR_SET_NAME, PR_SET_VMA, SYS_brk, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep,
    SYS_clone, SYS_clone3, SYS_close, SYS_dup, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2,
    SYS_exit, SYS_exit_group, SYS_fcntl, SYS_fstat, SYS_futex, SYS_getpid, SYS_getrandom, SYS_getsockopt, SYS_gettid,
    SYS_ioctl, SYS_lseek, SYS_madvise, SYS_membarrier, SYS_memfd_create, SYS_mmap, SYS_mprotect, SYS_mremap,
    SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_prlimit64, SYS_read,
    SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto,
    SYS_set_robust_list, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socketpair, SYS_statx, SYS_sysinfo,
    SYS_tgkill, SYS_uname, SYS_write, SYS_writev,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Asks for what the kernel has said at the start of the process, such as where its clock is.
const PR_GET_AUXV: u32 = 0x4155_5856;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers a deal's requests.
    Worker,
    /// Compiles one artifact.
    Compiler,
}

/// Threads, memory, time, and the files that are open already.
const BOTH: &[i64] = &[
    SYS_brk,
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_close,
    SYS_exit,
    SYS_exit_group,
    SYS_fstat,
    SYS_futex,
    SYS_getpid,
    SYS_getrandom,
    SYS_gettid,
    SYS_lseek,
    SYS_madvise,
    SYS_membarrier,
    SYS_mmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_nanosleep,
    SYS_pread64,
    SYS_read,
    SYS_readv,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_getaffinity,
    SYS_sched_yield,
    SYS_set_robust_list,
    SYS_sigaltstack,
    SYS_sysinfo,
    SYS_uname,
    SYS_write,
    SYS_writev,
];

/// Sockets that are handed over, and waiting for them.
const WORKER: &[i64] = &[
    SYS_dup,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_fcntl,
    SYS_getsockopt,
    SYS_memfd_create,
    SYS_ppoll,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_setsockopt,
    SYS_shutdown,
];

#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// What libraries try and can do without.
const REFUSED: &[i64] = &[SYS_clone3, SYS_openat, SYS_readlinkat, SYS_newfstatat, SYS_statx, SYS_prlimit64];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters this thread, and those that it will start.
pub(super) fn apply(role: Role) -> Result<(), String> {
    let filters = programs(role).map_err(|error| error.to_string())?;
    // The first to be applied must not forbid the second.
    filters.iter().try_for_each(|program| apply_filter(program)).map_err(|error| error.to_string())
}

fn programs(role: Role) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let mut refused: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    refused.insert(SYS_ioctl, vec![only(1, SeccompCmpOp::Ne, libc::FIONBIO)?]);
    let refusing = SeccompFilter::new(refused, SeccompAction::Allow, enosys, arch)?;
    let killing = SeccompFilter::new(allowed(role)?, SeccompAction::KillProcess, SeccompAction::Allow, arch)?;
    Ok([refusing.try_into()?, killing.try_into()?])
}

fn allowed(role: Role) -> Result<Rules, seccompiler::BackendError> {
    let lists: &[&[i64]] = match role {
        Role::Worker => &[BOTH, WORKER, OLDER, REFUSED],
        Role::Compiler => &[BOTH, REFUSED],
    };
    let mut rules: Rules = lists.iter().flat_map(|list| list.iter()).map(|call| (*call, Vec::new())).collect();
    rules.insert(SYS_ioctl, Vec::new());
    if role == Role::Worker {
        // The runtime wakes itself by one. What it connects is in this process alone.
        let local = u64::from(libc::AF_UNIX.unsigned_abs());
        rules.insert(SYS_socketpair, vec![only(0, SeccompCmpOp::Eq, local)?]);
    }
    // A thread, never a process.
    let thread = u64::from(CLONE_THREAD.unsigned_abs());
    rules.insert(SYS_clone, vec![only(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    let names = [PR_SET_NAME.unsigned_abs(), PR_SET_VMA.unsigned_abs(), PR_GET_AUXV];
    let named: Result<Vec<_>, _> = names.map(|name| only(0, SeccompCmpOp::Eq, u64::from(name))).into_iter().collect();
    rules.insert(SYS_prctl, named?);
    // Of signals only the one of an abort, to itself.
    let abort = only(2, SeccompCmpOp::Eq, u64::from(libc::SIGABRT.unsigned_abs()))?;
    rules.insert(SYS_tgkill, vec![abort]);
    Ok(rules)
}

fn only(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_can_be_made_and_neither_lets_sockets_or_programs_through() {
        for role in [Role::Worker, Role::Compiler] {
            programs(role).unwrap();
            let allowed = allowed(role).unwrap();
            for call in [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_execve, libc::SYS_ptrace] {
                assert!(!allowed.contains_key(&call), "{call}");
            }
        }
    }
}
