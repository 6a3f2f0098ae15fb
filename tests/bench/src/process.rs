//! What one process cost, by its own account.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Cost of a whole process, start and end included.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Between the first request and the last commit.
    pub(crate) seconds: f64,
    /// Of all threads, user and system.
    pub(crate) cpu_seconds: f64,
    /// Most memory that it held at a time.
    pub(crate) peak_mib: f64,
    /// Events that it has stored.
    pub(crate) events: u64,
}

impl Cost {
    /// Of this process so far.
    pub(crate) fn so_far(seconds: f64, events: u64) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u32 = peak.trim().trim_end_matches(" kB").parse()?;
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(spent).context("CPU time is negative")?;
        Ok(Self { seconds, cpu_seconds: cpu.as_secs_f64(), peak_mib: f64::from(kib) / 1024.0, events })
    }
}

/// Runs this program with `arguments` and reads its cost off its last line.
pub(crate) async fn run(arguments: &[String]) -> anyhow::Result<Cost> {
    run_program(&std::env::current_exe().context("cannot find this program")?, arguments).await
}

/// Runs a program that says what it cost in its last line.
pub(crate) async fn run_program(program: &Path, arguments: &[String]) -> anyhow::Result<Cost> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
    let output = command.spawn().context("cannot start a contestant")?.wait_with_output().await?;
    ensure!(output.status.success(), "contestant {arguments:?} failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().context("a contestant said nothing")?;
    serde_json::from_str(line).with_context(|| format!("a contestant said {line:?}"))
}
