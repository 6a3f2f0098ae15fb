//! Starts processes, from one thread: a process whose parent has asked for it dies with the *thread* that started it.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use tokio::{runtime::Handle, sync::oneshot};

use crate::host::HostError;

/// First argument of a process that is not the program itself but one of its sandboxes.
pub(crate) const SANDBOXED: &str = "sandboxed";

type Job = Box<dyn FnOnce() + Send>;

/// Starts processes, which all end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Spawner {
    program: Arc<Path>,
    jobs: mpsc::Sender<Job>,
}

/// What a process is given beside its arguments.
pub(crate) struct Streams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Option<std::fs::File>,
}

impl Spawner {
    /// Within a runtime. `program` is what runs; this very program unless another is named.
    pub(crate) fn start(program: Option<PathBuf>) -> Result<Self, HostError> {
        let program = match program {
            Some(program) => program,
            // Not its path: that may belong to another version by the time it is used.
            None => PathBuf::from("/proc/self/exe"),
        };
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job());
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(work)
            .map_err(|source| HostError::Io { what: "start the thread that starts processes".to_owned(), source })?;
        Ok(Self { program: program.into(), jobs })
    }

    /// A process with these arguments, and nothing in its environment but `variables`.
    pub(crate) fn command(&self, arguments: &[&str], variables: &[(&str, String)], streams: Streams) -> Command {
        let mut command = Command::new(self.program.as_ref());
        command.arg(SANDBOXED).args(arguments).env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(streams.stdin).stderr(Stdio::piped());
        command.stdout(streams.stdout.map_or_else(Stdio::null, Stdio::from));
        // The terminal's signals are for the agent.
        command.process_group(0);
        command
    }

    /// Does something on the thread that starts processes, within the runtime of the caller.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        start: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, started) = oneshot::channel();
        let runtime = Handle::current();
        let job = move || {
            let _in_runtime = runtime.enter();
            // Where nobody waits any more, what was started is dropped here.
            let _ = sender.send(start());
        };
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }
}

/// How a process ended, in words: `status` is that of the process, or of one that stood for it.
pub(crate) fn ending(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().or_else(|| status.code().and_then(crate::host::sandbox::signal_of_exit));
    match (signal, status.code()) {
        (Some(libc::SIGSYS), _) => "it made a system call that is forbidden to it (seccomp)".to_owned(),
        (Some(libc::SIGKILL), _) => {
            "it was killed (SIGKILL: by somebody, or by the system for lack of memory)".to_owned()
        }
        (Some(libc::SIGSEGV), _) => "it crashed (SIGSEGV)".to_owned(),
        (Some(libc::SIGABRT), _) => "it gave up (SIGABRT)".to_owned(),
        (Some(signal), _) => format!("it was ended by signal {signal}"),
        (None, Some(code)) => format!("it exited with code {code}"),
        (None, None) => status.to_string(),
    }
}
