//! Programs that trace while operations are measured: conntrace and its peers.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::operation::refused;

/// Files that hold what the program writes. They are in memory.
const LINES: &str = "/tmp/lines";
const ERRORS: &str = "/tmp/errors";
/// Limit until it is ready, in the guest's time, and for its end.
const READY_MAX: Duration = Duration::from_secs(60);
const END_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Pause after a program is ready.
const SETTLED: Duration = Duration::from_secs(1);
/// Refusals between two looks for a peer's line.
const REFUSALS: usize = 20;
/// Length limit of an error in characters.
const COMPLAINT_MAX: usize = 240;

/// Running program. It is killed when dropped.
pub(crate) struct Traced {
    child: Child,
    pub(crate) pid: Pid,
}

impl Traced {
    /// Starts conntrace with these options and waits until it traces, on this tier.
    pub(crate) fn conntrace(binary: &str, tier: &str, format: &str, more: &[&str]) -> Result<Self> {
        let options = ["--tier", tier, "--format", format, "--summary", "0"];
        let mut traced = Self::start(Command::new(binary).args(options).args(more))?;
        traced.wait(|lines| !lines.is_empty())?;
        let lines = fs::read_to_string(LINES)?;
        // The text format names it in another way.
        let has_tier = lines.contains(&format!("\"tier\":\"{tier}\""));
        ensure!(has_tier || format != "json", "not on tier {tier}: {lines}");
        Ok(traced)
    }

    /// Starts a peer and waits until it shows refusals: lines that contain all of this.
    pub(crate) fn peer(command: &[&str], line: &[&str]) -> Result<Self> {
        let (program, arguments) = command.split_first().context("a program")?;
        let mut traced = Self::start(Command::new(program).args(arguments))?;
        let shows = |shown: &str| line.iter().all(|part| shown.contains(part));
        traced.wait(|lines| {
            for _ in 0..REFUSALS {
                // In its lines it is seen if they are refused.
                let _ = refused();
            }
            lines.lines().any(shows)
        })?;
        Ok(traced)
    }

    fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(LINES)?)
            .stderr(File::create(ERRORS)?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self { child, pid })
    }

    fn wait(&mut self, is_ready: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + READY_MAX;
        while !is_ready(&String::from_utf8_lossy(&fs::read(LINES)?)) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}): {}", complaint());
            }
            if Instant::now() >= until {
                bail!("not ready in {} s: {}", READY_MAX.as_secs(), complaint());
            }
            thread::sleep(POLL);
        }
        thread::sleep(SETTLED);
        Ok(())
    }

    /// Stops its threads, so that only the kernel side is left.
    pub(crate) fn freeze(&self) -> Result<()> {
        Ok(kill(self.pid, Signal::SIGSTOP)?)
    }

    /// Ends it as its user would.
    pub(crate) fn end(mut self) -> Result<()> {
        kill(self.pid, Signal::SIGCONT)?;
        let until = Instant::now() + END_MAX;
        // bpftrace 0.17 keeps waiting after the first one.
        while self.child.try_wait()?.is_none() && Instant::now() < until {
            kill(self.pid, Signal::SIGINT)?;
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the lines that the running program has written.
pub(crate) fn lines() -> Result<usize> {
    Ok(fs::read(LINES)?.split(|&byte| byte == b'\n').count() - 1)
}

/// Size of what it has written, in bytes.
pub(crate) fn written() -> Result<u64> {
    Ok(fs::metadata(LINES)?.len())
}

/// Its standard error as a single line.
fn complaint() -> String {
    let errors = fs::read(Path::new(ERRORS)).unwrap_or_default();
    let errors = String::from_utf8_lossy(&errors);
    let lines: Vec<_> = errors.lines().collect();
    lines.join("; ").chars().take(COMPLAINT_MAX).collect()
}
