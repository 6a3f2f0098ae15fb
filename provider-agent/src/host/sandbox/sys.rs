//! The system calls that have no safe form.

#![expect(unsafe_code, reason = "system calls without a safe form, each with its reason")]

use std::{io, mem::MaybeUninit, time::Duration};

use rustix::thread::UnshareFlags;

/// Which of the two that a fork leaves behind this one is.
pub(crate) enum Forked {
    /// The one that called; with the other's process id.
    Parent(i32),
    Child,
}

/// Namespaces of its own for this process, which must have a single thread.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the table of file descriptors is not among what is unshared, and there is one thread only.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }?)
}

/// Doubles this process, which must have a single thread.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: with a single thread no lock can be held by a thread that the child does not have.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// How a process ended, and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
}

/// Takes a child's end, if it has ended.
pub(crate) fn try_reap(pid: i32) -> io::Result<Option<Ended>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writing, and zeroes are a valid `rusage`, whether it is written to or not.
    let (reaped, usage) = unsafe {
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (reaped, usage.assume_init())
    };
    match reaped {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ => {
            let cpu = time(usage.ru_utime).saturating_add(time(usage.ru_stime));
            Ok(Some(Ended { status, cpu }))
        }
    }
}

fn time(value: libc::timeval) -> Duration {
    let micros = u64::try_from(value.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(value.tv_sec).unwrap_or(0)).saturating_add(Duration::from_micros(micros))
}

/// Asks for the attention of a tracer, which a process in a sandbox must not.
pub(crate) fn trace_me() -> io::Result<()> {
    // SAFETY: without pointers; whatever happens, this process is a test of its own sandbox and ends soon.
    let outcome = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
