//! Running conntrace that writes its lines to a file, and its resource use.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use conntrace_tests::conntrace;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use serde_json::Value;

/// Running agent. Dropping it kills it and deletes its lines.
pub(crate) struct TracedAgent {
    child: Child,
    lines: PathBuf,
}

impl TracedAgent {
    /// Starts it and waits until it is live.
    pub(crate) fn start(options: &[&str]) -> Self {
        let lines = temporary("lines");
        let child = conntrace()
            .args(["--format", "json", "--summary", "0"])
            .args(options)
            .stdout(File::create(&lines).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut traced = Self { child, lines };
        while traced.bytes() == 0 {
            let ended = traced.child.try_wait().unwrap();
            assert!(ended.is_none(), "conntrace does not start: {ended:?}");
            thread::sleep(Duration::from_millis(2));
        }
        traced
    }

    /// Returns the tier that its start line has.
    pub(crate) fn tier(&self) -> String {
        let mut lines = BufReader::new(File::open(&self.lines).unwrap()).lines();
        // Its first bytes need not be the whole line.
        let line = lines.next().unwrap().unwrap();
        let start: Value = serde_json::from_str(&line).unwrap();
        start["tier"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the number of bytes written.
    pub(crate) fn bytes(&self) -> u64 {
        fs::metadata(&self.lines).unwrap().len()
    }

    /// Counts the lines that contain this text.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines = BufReader::new(File::open(&self.lines).unwrap()).lines();
        lines
            .filter(|line| line.as_ref().unwrap().contains(text))
            .count()
    }

    /// Ends the agent and returns its stop line.
    pub(crate) fn stop(&mut self) -> Value {
        interrupt(&self.child, Signal::SIGTERM);
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&last_line(&self.lines)).unwrap()
    }
}

impl Drop for TracedAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.lines);
    }
}

/// Path of a file in memory that belongs to this process. A disk's write speed must not affect the
/// results.
pub(crate) fn temporary(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("conntrace-bench-{}-{name}", std::process::id()))
}

pub(crate) fn interrupt(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn last_line(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(len.saturating_sub(16_384)))
        .unwrap();
    BufReader::new(file).lines().last().unwrap().unwrap()
}

/// Sums the losses in a stop line over all reasons.
pub(crate) fn lost(stop: &Value) -> u64 {
    counted(&stop["lost"])
}

/// Sums a stop line's counts over all reasons.
pub(crate) fn counted(by_reason: &Value) -> u64 {
    let counts = by_reason.as_object().unwrap().values();
    counts.map(|count| count.as_u64().unwrap()).sum()
}

/// Reads the CPU time of all threads of a process in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which can hold anything: utime and stime are fields 14 and 15.
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = [11, 12]
        .map(|at: usize| fields[at].parse::<f64>().unwrap())
        .iter()
        .sum();
    ticks / sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as f64
}

/// Counts how often its threads have gone to sleep, which equals the number of wakeups.
pub(crate) fn wakeups(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            number(
                &task.unwrap().path().join("status"),
                "voluntary_ctxt_switches:",
            )
        })
        .sum()
}

/// Reads the kernel memory of its maps in MB.
pub(crate) fn maps_mb(pid: u32) -> f64 {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let path = entry.unwrap().path();
        if let Some(id) = field(&path, "map_id:") {
            maps.insert(id, field(&path, "memlock:").unwrap());
        }
    }
    maps.values().sum::<u64>() as f64 / 1e6
}

fn number(path: &Path, name: &str) -> u64 {
    field(path, name).unwrap()
}

/// Reads the number after this name in a file of /proc, or none if the name is not found.
pub(crate) fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
