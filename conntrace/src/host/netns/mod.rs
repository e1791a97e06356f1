//! Network namespaces: found through processes and mounts, and entered by the calling thread. It
//! leaves at once, because a thread inside keeps a namespace alive.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, setns};

use super::procfs::{
    exe::TICK_NS,
    process::{is_still, pids, started_ticks},
};
use crate::{
    diagnosis::{Undiagnosed, question::ProcessKey},
    record::{Attempt, clock},
};

/// Network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// Lifetime of the list of namespaces.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Maximum number of a process's threads searched for one in a namespace.
const THREADS_MAX: usize = 256;
/// Lifetime of an incomplete list of namespaces.
const INCOMPLETE_AGE_MAX: Duration = Duration::from_millis(100);
/// Maximum number of namespaces listed. Beyond it, questions about all namespaces stay unanswered.
const SEEN_MAX: usize = 1024;

/// The attempt a question is about. Its process leads into its namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptRef {
    pub(crate) process: Option<ProcessKey>,
    pub(crate) tid: Option<u32>,
    /// Random bits that identify its network namespace: the inode number can be reused.
    pub(crate) netns_mix: u16,
    /// End of the attempt, `CLOCK_BOOTTIME` nanoseconds.
    pub(crate) at_ns: u64,
}

impl AttemptRef {
    /// Takes what identifies the process and the namespace from an attempt.
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let caller = attempt.caller.as_ref();
        Self {
            process: caller.map(|caller| ProcessKey {
                pid: caller.pid,
                started_ns: caller.started_ns,
            }),
            tid: caller.and_then(|caller| caller.tid),
            netns_mix: attempt.netns_mix,
            at_ns: attempt.at_ns,
        }
    }

    /// Returns true if an answer given at `at_ns` for a namespace with these bits applies.
    pub(super) fn is_of(&self, at_ns: u64, netns_mix: u16) -> bool {
        // A failed call has no such bits.
        self.netns_mix == netns_mix && (netns_mix != 0 || self.was_there_at(at_ns))
    }

    /// Returns true if the attempt's process had started by then, or is unknown.
    pub(super) fn was_there_at(&self, at_ns: u64) -> bool {
        self.process.is_none_or(|it| it.started_ns <= at_ns)
    }
}

/// A path into a namespace.
#[derive(Debug, Clone)]
enum NetnsHandle {
    /// Through a process inside it, by pid.
    Process(u32),
    /// Through a mounted file (`ip netns add`, container runtimes).
    Mounted(PathBuf),
}

impl NetnsHandle {
    fn path(&self) -> PathBuf {
        match self {
            Self::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::Mounted(path) => path.clone(),
        }
    }

    /// Returns the options for `nsenter`; `None` if a shell would interpret the path.
    fn options(&self) -> Option<String> {
        match self {
            Self::Process(pid) => Some(format!("-t {pid} -n")),
            Self::Mounted(path) => {
                let path = path.to_str()?;
                let is_plain = |it: char| it.is_ascii_alphanumeric() || "/_-.:".contains(it);
                path.chars().all(is_plain).then(|| format!("--net={path}"))
            }
        }
    }
}

/// Enters network namespaces on the thread that created this.
pub(super) struct Namespaces {
    home: File,
    home_inode: u32,
    /// Namespaces of other processes and mounted ones, each with a path into it.
    seen: Vec<(u32, NetnsHandle)>,
    /// Reason why `seen` may be incomplete.
    unseen: Option<Undiagnosed>,
    seen_at: Option<Instant>,
    /// Time of the listing, `CLOCK_BOOTTIME` nanoseconds.
    seen_ns: u64,
    is_stranded: bool,
}

impl Namespaces {
    /// Opens the calling thread's namespace; usable on this thread only.
    pub(super) fn new() -> io::Result<Self> {
        let home = File::open(OWN)?;
        Ok(Self {
            home_inode: inode(&home).ok_or(io::ErrorKind::InvalidData)?,
            home,
            seen: Vec::new(),
            unseen: None,
            seen_at: None,
            seen_ns: 0,
            is_stranded: false,
        })
    }

    /// Runs `act` in the namespace with this inode number.
    ///
    /// # Errors
    /// Fails when the namespace cannot be entered, or `act` fails.
    pub(super) fn inside<T>(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Undiagnosed> {
        if self.is_home(netns) {
            return act().map_err(|error| reason(&error));
        }
        let known = self
            .open_listed(netns, about)
            .or_else(|| open_by_caller(netns, about));
        let (namespace, _) = match known {
            Some(found) => found,
            None => self.open_by_others(netns, about, until)?,
        };
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|_| Undiagnosed::NoAccess)?;
        drop(namespace);
        let result = act();
        self.is_stranded = setns(&self.home, CloneFlags::CLONE_NEWNET).is_err();
        result.map_err(|error| reason(&error))
    }

    /// Returns true for the thread's own namespace, which outlives every question.
    pub(super) fn is_home(&self, netns: u32) -> bool {
        netns == self.home_inode
    }

    /// Returns true if the thread could not return to its own namespace. It must end then: a thread
    /// inside keeps a namespace alive.
    pub(super) fn is_stranded(&self) -> bool {
        self.is_stranded
    }

    /// Returns every namespace of the machine, the own one first. The list is not older than the
    /// attempt's end: a namespace may have been created since.
    ///
    /// # Errors
    /// Fails when the list may be incomplete.
    pub(super) fn all(
        &mut self,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Vec<u32>, Undiagnosed> {
        if self.seen_ns < about.at_ns {
            self.forget();
        }
        let seen = self.seen(until);
        self.unseen.map_or(Ok(seen), Err)
    }

    /// Discards the list; the next question reads it again.
    pub(super) fn forget(&mut self) {
        self.seen_at = None;
    }

    /// Returns the namespaces found, the own one first.
    pub(super) fn seen(&mut self, until: Instant) -> Vec<u32> {
        self.refresh(until);
        let others = self.seen.iter().map(|(netns, _)| *netns);
        [self.home_inode].into_iter().chain(others).collect()
    }

    /// Returns the options of `nsenter` for the namespace; `None` for the thread's own.
    ///
    /// # Errors
    /// Fails when no path into it is known.
    pub(super) fn nsenter_options(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Option<String>, Undiagnosed> {
        if self.is_home(netns) {
            return Ok(None);
        }
        // A process that outlives the attempt is more useful, so the caller comes last.
        let found = match self.open_by_others(netns, about, until) {
            Ok((_, handle)) => handle,
            Err(reason) => open_by_caller(netns, about).ok_or(reason)?.1,
        };
        found.options().map(Some).ok_or(Undiagnosed::NoAccess)
    }

    /// Opens the namespace through a process that existed before the attempt ended: an inode number
    /// can be reused after the namespace's end.
    fn open_by_others(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<(File, NetnsHandle), Undiagnosed> {
        self.refresh(until);
        let unknown = self.unseen.unwrap_or(Undiagnosed::NoAccess);
        self.open_listed(netns, about).ok_or(unknown)
    }

    /// Opens the namespace if the current list has it.
    fn open_listed(&self, netns: u32, about: &AttemptRef) -> Option<(File, NetnsHandle)> {
        let (_, handle) = self.seen.iter().find(|(inode, _)| *inode == netns)?;
        let file = open(&handle.path(), netns)?;
        let before = match handle {
            NetnsHandle::Process(pid) => started_ticks(*pid)? <= about.at_ns / TICK_NS,
            // A mount stays until it is unmounted.
            NetnsHandle::Mounted(_) => true,
        };
        before.then(|| (file, handle.clone()))
    }

    fn refresh(&mut self, until: Instant) {
        let now = Instant::now();
        // An incomplete list is kept for a shorter time.
        let age_max = if self.unseen.is_some() {
            INCOMPLETE_AGE_MAX
        } else {
            AGE_MAX
        };
        if self.seen_at.is_some_and(|at| now < at + age_max) {
            return;
        }
        self.seen_at = Some(now);
        self.seen_ns = clock::boot_ns();
        self.seen.clear();
        self.unseen = self.find_all(until).err();
    }

    fn find_all(&mut self, until: Instant) -> Result<(), Undiagnosed> {
        for pid in pids() {
            if Instant::now() >= until {
                return Err(Undiagnosed::NoTime);
            }
            match fs::read_link(format!("/proc/{pid}/ns/net")) {
                Ok(link) => {
                    if let Some(found) = number(&link) {
                        self.add(found, NetnsHandle::Process(pid))?;
                    }
                }
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && !may_inspect_others() =>
                {
                    return Err(Undiagnosed::NoAccess);
                }
                // The process has exited, or nobody may inspect it (a sandbox's init).
                Err(_) => {}
            }
        }
        let mounts = fs::read("/proc/thread-self/mountinfo").map_err(|error| reason(&error))?;
        for (found, path) in mounted(&String::from_utf8_lossy(&mounts)) {
            self.add(found, NetnsHandle::Mounted(path))?;
        }
        Ok(())
    }

    /// Adds a namespace to the list. A mount replaces a process: it outlives short-lived ones.
    fn add(&mut self, netns: u32, handle: NetnsHandle) -> Result<(), Undiagnosed> {
        if netns == self.home_inode {
            return Ok(());
        }
        let mut seen = self.seen.iter_mut();
        if let Some((_, known)) = seen.find(|(inode, _)| *inode == netns) {
            if matches!(
                (&*known, &handle),
                (NetnsHandle::Process(_), NetnsHandle::Mounted(_))
            ) {
                *known = handle;
            }
            return Ok(());
        }
        if self.seen.len() >= SEEN_MAX {
            return Err(Undiagnosed::Incomplete);
        }
        self.seen.push((netns, handle));
        Ok(())
    }
}

/// Returns true with the capability to inspect other users' processes (`ptrace_may_access`).
fn may_inspect_others() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).unwrap_or(false)
}

/// Parses the namespaces in `/proc/PID/mountinfo`: `... net:[4026532001] PATH ... - nsfs`.
fn mounted(mountinfo: &str) -> impl Iterator<Item = (u32, PathBuf)> + '_ {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let found = number(Path::new(fields.next()?))?;
        Some((found, PathBuf::from(fields.next()?)))
    })
}

/// Maps a system error to the reason why an answer is unknown.
pub(super) fn reason(error: &io::Error) -> Undiagnosed {
    use io::ErrorKind::{NotFound, PermissionDenied, TimedOut, Unsupported};
    let (kind, errno) = (error.kind(), error.raw_os_error());
    if matches!(kind, PermissionDenied | NotFound) || errno == Some(libc::ESRCH) {
        Undiagnosed::NoAccess
    } else if kind == TimedOut {
        Undiagnosed::NoTime
    } else if kind == Unsupported || errno == Some(libc::EPROTONOSUPPORT) {
        Undiagnosed::Unsupported
    } else {
        Undiagnosed::Incomplete
    }
}

/// Opens the namespace through the thread that called connect, its process or another of its
/// threads: each can be in a different one. The pid must still belong to the process.
fn open_by_caller(netns: u32, about: &AttemptRef) -> Option<(File, NetnsHandle)> {
    let process = about.process?;
    let tasks = PathBuf::from(format!("/proc/{}/task", process.pid));
    let first = about.tid.into_iter().chain([process.pid]);
    let others = fs::read_dir(&tasks).into_iter().flatten().flatten();
    let others = others.filter_map(|task| task.file_name().to_str()?.parse().ok());
    let mut all = first.chain(others.take(THREADS_MAX));
    let found = all.find_map(|tid: u32| {
        let path = tasks.join(tid.to_string()).join("ns/net");
        Some((open(&path, netns)?, NetnsHandle::Process(tid)))
    })?;
    is_still(process).then_some(found)
}

/// Opens the namespace at this path, if its inode number matches.
fn open(path: &Path, netns: u32) -> Option<File> {
    let file = File::open(path).ok()?;
    (inode(&file)? == netns).then_some(file)
}

fn inode(file: &File) -> Option<u32> {
    u32::try_from(file.metadata().ok()?.ino()).ok()
}

/// Parses a link such as `net:[4026531840]`.
fn number(link: &Path) -> Option<u32> {
    let number = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests;
