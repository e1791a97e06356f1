//! Network namespaces: found through processes, entered by the helper's thread,
//! and left at once, for a thread in one keeps it alive.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

use super::{
    exe::TICK_NS,
    process::{is_still, pids, started_ticks},
};
use crate::{diagnose::ask::Process, wire::Attempt};

/// The calling thread's own.
const OWN: &str = "/proc/thread-self/ns/net";
/// How long the list of namespaces that can be seen is believed.
const AGE_MAX: Duration = Duration::from_secs(1);
/// How many threads of a process are looked at for one in a namespace.
const THREADS_MAX: usize = 256;
/// How many namespaces are looked into at most.
const SEEN_MAX: usize = 64;

/// The attempt that is asked about, for which only its process knows the way into
/// its namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) process: Option<Process>,
    pub(crate) tid: Option<u32>,
    /// When it ended, `CLOCK_BOOTTIME` nanoseconds.
    pub(crate) at_ns: u64,
}

impl About {
    /// About this attempt.
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let caller = attempt.caller.as_ref();
        Self {
            process: caller.map(|caller| Process {
                pid: caller.pid,
                started_ns: caller.started_ns,
            }),
            tid: caller.and_then(|caller| caller.tid),
            at_ns: attempt.at_ns,
        }
    }

    /// Whether its process had begun by then; of an unknown one that is believed.
    pub(super) fn was_there_at(&self, at_ns: u64) -> bool {
        self.process.is_none_or(|it| it.started_ns <= at_ns)
    }
}

/// Enters network namespaces for the thread that made it.
pub(super) struct Namespaces {
    home: File,
    home_inode: u32,
    /// Those of other processes, each with one that is in it.
    seen: Vec<(u32, u32)>,
    seen_at: Option<Instant>,
    is_stranded: bool,
}

impl Namespaces {
    /// For the calling thread, and no other.
    pub(super) fn new() -> io::Result<Self> {
        let home = File::open(OWN)?;
        Ok(Self {
            home_inode: inode(&home).ok_or(io::ErrorKind::InvalidData)?,
            home,
            seen: Vec::new(),
            seen_at: None,
            is_stranded: false,
        })
    }

    /// Acts in the namespace of this inode number; `None` if there is no way into
    /// it, or the act failed.
    pub(super) fn inside<T>(
        &mut self,
        netns: u32,
        about: &About,
        until: Instant,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Option<T> {
        if self.is_home(netns) {
            return act().ok();
        }
        let namespace = of_attempt(netns, about).or_else(|| self.of_others(netns, about, until))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).ok()?;
        drop(namespace);
        let result = act().ok();
        self.is_stranded = setns(&self.home, CloneFlags::CLONE_NEWNET).is_err();
        result
    }

    /// Whether it is the thread's own, which stays.
    pub(super) fn is_home(&self, netns: u32) -> bool {
        netns == self.home_inode
    }

    /// Whether the thread could not get home. It must end then: a thread in a
    /// namespace keeps it alive.
    pub(super) fn is_stranded(&self) -> bool {
        self.is_stranded
    }

    /// Every namespace that can be seen, this one first.
    pub(super) fn seen(&mut self, until: Instant) -> Vec<u32> {
        self.look_around(until);
        let others = self.seen.iter().map(|(netns, _)| *netns);
        [self.home_inode].into_iter().chain(others).collect()
    }

    /// Through any other process in it that was there before the attempt ended:
    /// after a namespace's end its inode number may be another's.
    fn of_others(&mut self, netns: u32, about: &About, until: Instant) -> Option<File> {
        self.look_around(until);
        let (_, pid) = self.seen.iter().find(|(inode, _)| *inode == netns)?;
        let file = open(Path::new(&format!("/proc/{pid}/ns/net")), netns)?;
        let before = started_ticks(*pid)? <= about.at_ns / TICK_NS;
        before.then_some(file)
    }

    fn look_around(&mut self, until: Instant) {
        let now = Instant::now();
        if self.seen_at.is_some_and(|at| now < at + AGE_MAX) {
            return;
        }
        self.seen_at = Some(now);
        self.seen.clear();
        for pid in pids() {
            if Instant::now() >= until || self.seen.len() >= SEEN_MAX {
                return;
            }
            let link = fs::read_link(format!("/proc/{pid}/ns/net"));
            let Some(found) = link.ok().and_then(|link| number(&link)) else {
                continue;
            };
            if found != self.home_inode && !self.seen.iter().any(|(inode, _)| *inode == found) {
                self.seen.push((found, pid));
            }
        }
    }
}

/// Through the thread that called connect, its process if that is still this one, or
/// another of its threads: each can be in a namespace of its own.
fn of_attempt(netns: u32, about: &About) -> Option<File> {
    let process = about.process?;
    let tasks = PathBuf::from(format!("/proc/{}/task", process.pid));
    let first = about.tid.into_iter().chain([process.pid]);
    let first = first.map(|tid| tasks.join(tid.to_string()));
    let others = fs::read_dir(&tasks).into_iter().flatten().flatten();
    let others = others.take(THREADS_MAX).map(|task| task.path());
    let mut all = first.chain(others);
    let file = all.find_map(|task| open(&task.join("ns/net"), netns))?;
    is_still(process).then_some(file)
}

/// The namespace at this path, if it is the one of this number.
fn open(path: &Path, netns: u32) -> Option<File> {
    let file = File::open(path).ok()?;
    (inode(&file)? == netns).then_some(file)
}

fn inode(file: &File) -> Option<u32> {
    u32::try_from(file.metadata().ok()?.ino()).ok()
}

/// `net:[4026531840]`
fn number(link: &Path) -> Option<u32> {
    let number = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_needs_no_way() {
        let mut namespaces = Namespaces::new().unwrap();
        let about = About {
            process: None,
            tid: None,
            at_ns: 0,
        };
        let until = Instant::now() + Duration::from_secs(10);
        let own = namespaces.home_inode;
        assert_eq!(namespaces.inside(own, &about, until, || Ok(5)), Some(5));
        let none = namespaces.inside(1, &about, until, || Ok(5));
        assert_eq!(none, None, "there is no such namespace");
        assert_eq!(namespaces.seen(until)[0], own);
        assert_eq!(number(Path::new("net:[123]")), Some(123));
    }
}
