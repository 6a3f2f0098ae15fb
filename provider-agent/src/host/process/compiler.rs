//! Has artifacts compiled by a process that may die of them.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::spawn::{Spawner, Streams, ending};
use crate::{
    config::HostLimits,
    domain::replica::{Cause, Failure},
    host::sandbox::{
        ProcessLimits,
        sys::{self, Ended},
    },
};

/// What a compiling process says when it refuses an artifact: a [`Failure`] stands in its standard error then.
pub(super) const REFUSED_EXIT: u8 = 3;
/// Between two looks at a compiling process.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Of what it says, so much is kept.
const MAX_WORDS: usize = 16 << 10;
/// More threads need more memory than they save time.
const MAX_THREADS: usize = 4;
const OPEN_FILES: u64 = 16;

/// What a compiling process is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) limits: ProcessLimits,
    pub(super) artifact_bytes: usize,
    /// An empty folder.
    pub(super) empty: PathBuf,
}

/// What became of a process.
struct End {
    ended: Ended,
    timed_out: bool,
    /// Largest address space that was seen.
    peak_bytes: u64,
    words: String,
}

/// Compiles `artifact`, which has the right digest, into `output`. Nothing of the artifact is parsed here.
pub(crate) async fn compile(
    spawner: &Spawner,
    limits: &HostLimits,
    empty: PathBuf,
    artifact: Vec<u8>,
    output: File,
) -> Result<(), Failure> {
    let fault = |error: io::Error| Failure::new(Cause::HostFault, format!("the compiler cannot be started: {error}"));
    let (input, feed) = io::pipe().map_err(fault)?;
    let mebi = |count: u64| count.saturating_mul(1 << 20);
    let process = ProcessLimits {
        memory_bytes: Some(mebi(limits.compile_memory_mib)),
        cpu_seconds: Some(limits.compile_cpu_seconds),
        file_bytes: mebi(limits.max_code_mib),
        open_files: OPEN_FILES,
    };
    let task = Task { limits: process, artifact_bytes: artifact.len(), empty };
    let task = serde_json::to_string(&task).map_err(|error| fault(error.into()))?;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    // Each arena of the allocator takes 64 MiB of address space.
    let variables = [("RAYON_NUM_THREADS", threads.to_string()), ("MALLOC_ARENA_MAX", "2".to_owned())];
    let streams = Streams { stdin: Stdio::from(input), stdout: Some(output) };
    let mut command = spawner.command(&["compile", &task], &variables, streams);
    let child = spawner.run(move || command.spawn().map(Compiling)).await.map_err(fault)?;
    let patience = Duration::from_secs(limits.compile_timeout_seconds);
    let end = tokio::task::spawn_blocking(move || attend(child, feed, &artifact, patience)).await;
    let end = end.map_err(io::Error::other).and_then(|end| end).map_err(fault)?;
    judge(&end, limits)
}

/// Killed and taken leave of when it is given up.
struct Compiling(Child);

impl Drop for Compiling {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Feeds the process and waits for its end, which it may be helped to.
fn attend(mut child: Compiling, mut feed: io::PipeWriter, artifact: &[u8], patience: Duration) -> io::Result<End> {
    let began = Instant::now();
    let pid = i32::try_from(child.0.id()).map_err(io::Error::other)?;
    let errors = child.0.stderr.take();
    let (mut peak_bytes, mut timed_out) = (0, false);
    thread::scope(|scope| {
        let words = scope.spawn(move || errors.map(words).unwrap_or_default());
        // Where it died early the pipe is broken, and its end tells why.
        let feeding = scope.spawn(move || feed.write_all(artifact));
        let ended = loop {
            peak_bytes = address_space_peak(pid).unwrap_or(0).max(peak_bytes);
            if let Some(ended) = sys::try_reap(pid)? {
                break ended;
            }
            if began.elapsed() >= patience && !timed_out {
                timed_out = true;
                child.0.kill()?;
            }
            thread::sleep(LOOK_EVERY);
        };
        let _ = feeding.join();
        Ok(End { ended, timed_out, peak_bytes, words: words.join().unwrap_or_default() })
    })
}

fn words(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let limit = u64::try_from(MAX_WORDS).unwrap_or(u64::MAX);
    // What cannot be read is not needed to tell how it ended.
    let _ = (&mut from).take(limit).read_to_end(&mut kept);
    let _ = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

fn address_space_peak(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// What the end of the process says about the artifact.
fn judge(end: &End, limits: &HostLimits) -> Result<(), Failure> {
    let status = ExitStatus::from_raw(end.ended.status);
    if status.success() {
        return Ok(());
    }
    let limit = |name: &str, limit: u64, used: String| {
        Err(Failure::new(Cause::CompileLimit, format!("compiling the artifact exceeds {name} of {limit}: {used}")))
    };
    let cpu = format!("it had used {:.1} s of CPU time", end.ended.cpu.as_secs_f64());
    if end.timed_out {
        let detail = format!(
            "compiling did not end within compile_timeout_seconds of {}: {cpu}, so the machine is busy or the limit too low",
            limits.compile_timeout_seconds
        );
        return Err(Failure::new(Cause::HostFault, detail));
    }
    let refusal = status.code() == Some(i32::from(REFUSED_EXIT));
    let refusal = refusal.then(|| serde_json::from_str::<Failure>(end.words.trim()).ok()).flatten();
    if is_out_of_memory(&end.words) {
        let peak = end.peak_bytes.checked_div(1 << 20).unwrap_or(0);
        let last = end.words.lines().next_back().unwrap_or_default();
        let used = refusal.map_or_else(|| last.to_owned(), |failure| failure.detail);
        let used = format!("{peak} MiB of addresses were in use when more was wanted ({used})");
        return limit("compile_memory_mib", limits.compile_memory_mib, used);
    }
    if let Some(failure) = refusal {
        return Err(failure);
    }
    match status.signal() {
        Some(libc::SIGXCPU) => limit("compile_cpu_seconds", limits.compile_cpu_seconds, cpu),
        Some(libc::SIGKILL) if end.ended.cpu.as_secs() >= limits.compile_cpu_seconds => {
            limit("compile_cpu_seconds", limits.compile_cpu_seconds, cpu)
        }
        Some(libc::SIGXFSZ) => limit("max_code_mib", limits.max_code_mib, "its code is larger".to_owned()),
        // Somebody outside has done it.
        Some(libc::SIGKILL | libc::SIGTERM) => {
            Err(Failure::new(Cause::HostFault, format!("the compiler ended: {}", ending(status))))
        }
        _ => {
            let words: String = end.words.trim().chars().take(500).collect();
            Err(Failure::new(Cause::CompileFailed, format!("the compiler ended: {}; {words}", ending(status))))
        }
    }
}

fn is_out_of_memory(words: &str) -> bool {
    ["memory allocation of", "Cannot allocate memory", "os error 12", "Resource temporarily unavailable"]
        .iter()
        .any(|sign| words.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: i32, words: &str) -> End {
        let ended = Ended { status, cpu: Duration::from_secs(7) };
        End { ended, timed_out: false, peak_bytes: 900 << 20, words: words.to_owned() }
    }

    #[test]
    fn each_end_has_its_cause_and_limits_their_names() {
        let limits = HostLimits { compile_cpu_seconds: 7, ..HostLimits::default() };
        let refused = serde_json::to_string(&Failure::new(Cause::ImportMissing, "of x")).unwrap();
        let out = "memory allocation of 512 bytes failed";
        for (end, cause, says) in [
            (end(libc::SIGXCPU, ""), Cause::CompileLimit, "compile_cpu_seconds of 7: it had used 7.0 s"),
            (end(libc::SIGKILL, ""), Cause::CompileLimit, "compile_cpu_seconds of 7"),
            (end(libc::SIGABRT, out), Cause::CompileLimit, "compile_memory_mib of 2048: 900 MiB"),
            (end(libc::SIGXFSZ, ""), Cause::CompileLimit, "max_code_mib of 256"),
            (End { timed_out: true, ..end(libc::SIGKILL, "") }, Cause::HostFault, "compile_timeout_seconds of 300"),
            (end(libc::SIGTERM, ""), Cause::HostFault, "signal 15"),
            (end(101 << 8, "panicked at x"), Cause::CompileFailed, "panicked at x"),
            (end(3 << 8, &refused), Cause::ImportMissing, "of x"),
        ] {
            let failure = judge(&end, &limits).unwrap_err();
            assert_eq!(failure.cause, cause, "{failure}");
            assert!(failure.detail.contains(says), "{failure}");
        }
        assert!(judge(&end(0, ""), &limits).is_ok());
    }
}
