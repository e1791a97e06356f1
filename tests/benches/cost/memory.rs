//! Memory of the agent, in proportion (PSS) and its own. Resident memory would count the ring
//! twice, which is mapped twice.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::measured::Figure;

/// Memory in MB (10^6 bytes).
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) pss_mb: f64,
    pub(crate) private_mb: f64,
}

impl Memory {
    /// Reads it, or none if the process has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let mb = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kilobytes * 1024.0 / 1e6)
        };
        Some(Self {
            pss_mb: mb("Pss:")?,
            private_mb: mb("Private_Clean:")? + mb("Private_Dirty:")?,
        })
    }

    /// The highest of both.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            pss_mb: self.pss_mb.max(other.pss_mb),
            private_mb: self.private_mb.max(other.private_mb),
        }
    }

    /// Rows of both, after this name.
    pub(crate) fn rows(self, name: &str) -> [Figure; 2] {
        [("PSS", self.pss_mb), ("private", self.private_mb)]
            .map(|(kind, mb)| Figure::number(format!("{name}, {kind}"), "MB", 1, mb))
    }
}

/// Thread that looks at the memory of a process again and again, and keeps the most.
pub(crate) struct MemoryWatch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Memory>,
}

impl MemoryWatch {
    pub(crate) fn start(pid: u32, every: Duration) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut most = Memory::default();
            while !told.load(Ordering::Relaxed) {
                most = most.max(Memory::of(pid).unwrap_or_default());
                thread::sleep(every);
            }
            most.max(Memory::of(pid).unwrap_or_default())
        });
        Self { ended, thread }
    }

    /// Returns the most that was seen.
    pub(crate) fn most(self) -> Memory {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
