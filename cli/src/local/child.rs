//! Child processes that never outlive us: they end with a signal when we end them, and by the kernel when we are
//! killed.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::Context;
use tokio::process::{Child, Command};

/// A child process with a name for messages.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    name: String,
    child: Child,
}

/// How long a child may take to finish its work after the first signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl ChildProcess {
    /// Starts `command`; everything it prints goes to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot share the log file")?;
        command.stdin(Stdio::null()).stdout(Stdio::from(file)).stderr(Stdio::from(errors)).kill_on_drop(true);
        die_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// An error if the process has ended by itself; `log` is where its words are.
    pub(crate) fn ensure_running(&mut self, log: &Path) -> anyhow::Result<()> {
        match self.child.try_wait().context("cannot ask for a child's state")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended by itself ({status}): see {}", self.name, log.display()),
        }
    }

    /// Ends the process at once, as a crash or a power cut would.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks the process to finish, and ends it when it takes too long.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.id().and_then(|id| i32::try_from(id).ok()) {
            terminate(pid);
            if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(name = %self.name, "did not finish in time and is killed");
        }
        self.kill().await
    }
}

#[expect(unsafe_code, reason = "kill(2) has no safe form in std; the pid is that of a child not yet waited for")]
fn terminate(pid: i32) {
    // SAFETY: a plain system call without memory arguments.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

/// A group of its own keeps the terminal's Ctrl-C from the child, so that we end the children in the right order.
fn die_with_parent(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    request_parent_death_signal(command);
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "prctl(2) must run in the child between fork and exec")]
fn request_parent_death_signal(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe, and the closure neither allocates nor takes locks.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died between fork and prctl; the signal would never come then.
            if u32::try_from(libc::getppid()).ok() != Some(parent) {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}
