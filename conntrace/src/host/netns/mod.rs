//! Network namespaces: found through processes and mounts, and entered by the calling thread. It
//! leaves at once, because a thread inside keeps a namespace alive.

mod elsewhere;
mod list;
mod listened;

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Instant,
};

use nix::sched::{CloneFlags, setns};

use self::list::{NetnsList, NetnsPath};
pub(super) use self::{
    elsewhere::{FoundElsewhere, OtherNamespaces},
    list::ListAge,
    listened::{KnownPort, ListenedPorts},
};
use super::{
    attention::{Subject, look_at, visit},
    netlink,
    procfs::{
        exe::TICK_NS,
        process::{is_still, started_ticks},
    },
};
use crate::{
    diagnosis::{Undiagnosed, question::ProcessKey},
    record::Attempt,
};

/// Network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// Maximum number of a process's threads searched for one in a namespace.
const THREADS_MAX: usize = 256;
/// The attempt a question is about. Its process leads into its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttemptRef {
    pub(crate) process: Option<ProcessKey>,
    pub(crate) tid: Option<u32>,
    /// Random bits that identify its network namespace: the inode number can be reused.
    pub(crate) netns_mix: u16,
    /// End of the attempt, `CLOCK_BOOTTIME` nanoseconds.
    pub(crate) at_ns: u64,
    /// Address and port of the client, if they are known.
    pub(crate) client: Option<SocketAddr>,
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
            client: attempt.client(),
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

/// Enters network namespaces on the thread that created this.
pub(super) struct Namespaces {
    home: File,
    home_inode: u32,
    /// Shared with other threads.
    list: NetnsList,
    listened: ListenedPorts,
    is_stranded: bool,
}

impl Namespaces {
    /// Opens the calling thread's namespace; usable on this thread only.
    pub(super) fn new() -> io::Result<Self> {
        Self::with(NetnsList::shared())
    }

    fn with(list: NetnsList) -> io::Result<Self> {
        let home = File::open(OWN)?;
        Ok(Self {
            home_inode: inode(&home).ok_or(io::ErrorKind::InvalidData)?,
            home,
            list,
            listened: ListenedPorts::shared(),
            is_stranded: false,
        })
    }

    /// Runs `act` in the namespace with this inode number. Its requests stop at `until`.
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
            return netlink::bounded(until, act).map_err(|error| reason(&error));
        }
        if let Some(reason) = self.list.refused(netns) {
            return Err(reason);
        }
        let (namespace, _) = self.open(netns, about, until)?;
        self.enter(netns, &namespace, until, act)
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

    /// Returns the ports that are listened on, as last looked at.
    pub(super) fn listened(&self) -> ListenedPorts {
        self.listened.clone()
    }

    /// Returns a process in the namespace; `None` if none is known.
    pub(super) fn process_of(&self, netns: u32) -> Option<u32> {
        self.list.process_of(netns)
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
        let lasting = open_first(netns, self.list.paths(netns, false), |path| {
            is_before(path, about)
        });
        let (_, path) = match lasting {
            Some(found) => found,
            None => self.open_by_search(netns, about, until)?,
        };
        path.options().map(Some).ok_or(Undiagnosed::NoAccess)
    }

    /// Opens the namespace: by the list, by the caller, or by a search.
    fn open(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<(File, NetnsPath), Undiagnosed> {
        if let Some(found) = self.open_listed_before(netns, about) {
            return Ok(found);
        }
        if let Some(found) = open_by_caller(netns, about) {
            if let NetnsPath::Process(pid) = found.1 {
                self.list.learn(netns, pid);
            }
            return Ok(found);
        }
        self.open_by_search(netns, about, until)
    }

    fn open_by_search(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<(File, NetnsPath), Undiagnosed> {
        let searched = self.list.search_one(about.at_ns, until);
        let found = self.open_listed_before(netns, about);
        let found = found.or_else(|| open_by_caller(netns, about));
        found.ok_or_else(|| searched.err().unwrap_or(Undiagnosed::NoAccess))
    }

    /// Opens the namespace by the list, through a mount or a process that existed before the attempt
    /// ended: an inode number can be reused after the namespace's end.
    fn open_listed_before(&self, netns: u32, about: &AttemptRef) -> Option<(File, NetnsPath)> {
        self.open_listed(netns, |path| is_before(path, about))
    }

    fn open_listed(
        &self,
        netns: u32,
        serves: impl Fn(&NetnsPath) -> bool,
    ) -> Option<(File, NetnsPath)> {
        open_first(netns, self.list.paths(netns, true), serves)
    }

    fn enter<T>(
        &mut self,
        netns: u32,
        namespace: &File,
        until: Instant,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Undiagnosed> {
        let _look = look_at(Subject::Namespace(netns)).map_err(|error| reason(&error))?;
        if setns(namespace, CloneFlags::CLONE_NEWNET).is_err() {
            self.list.refuse(netns, Undiagnosed::NoAccess);
            return Err(Undiagnosed::NoAccess);
        }
        let result = netlink::bounded(until, act);
        self.is_stranded = setns(&self.home, CloneFlags::CLONE_NEWNET).is_err();
        result.map_err(|error| reason(&error))
    }
}

/// Opens the namespace by the first of these paths that still leads there and serves.
fn open_first(
    netns: u32,
    paths: Vec<NetnsPath>,
    serves: impl Fn(&NetnsPath) -> bool,
) -> Option<(File, NetnsPath)> {
    let mut paths = paths.into_iter();
    paths.find_map(|path| {
        let file = match &path {
            NetnsPath::Process(pid) => {
                let open = |folder: &Path| Ok(open(&folder.join("ns/net"), netns));
                visit(*pid, open).ok()??
            }
            NetnsPath::Mounted(path) => open(path, netns)?,
        };
        // Asked afterwards: until then another process can have got the pid.
        serves(&path).then_some((file, path))
    })
}

/// Returns true if the path led into a namespace before the attempt ended.
fn is_before(path: &NetnsPath, about: &AttemptRef) -> bool {
    match path {
        NetnsPath::Process(pid) => {
            started_ticks(*pid).is_some_and(|ticks| ticks <= about.at_ns / TICK_NS)
        }
        // A mount stays until it is unmounted.
        NetnsPath::Mounted(_) => true,
    }
}

/// Maps a system error to the reason why an answer is unknown.
pub(super) fn reason(error: &io::Error) -> Undiagnosed {
    use io::ErrorKind::{NotFound, PermissionDenied, ResourceBusy, TimedOut, Unsupported};
    let (kind, errno) = (error.kind(), error.raw_os_error());
    if matches!(kind, PermissionDenied | NotFound) || errno == Some(libc::ESRCH) {
        Undiagnosed::NoAccess
    } else if matches!(kind, TimedOut | ResourceBusy) {
        Undiagnosed::NoTime
    } else if kind == Unsupported || errno == Some(libc::EPROTONOSUPPORT) {
        Undiagnosed::Unsupported
    } else {
        Undiagnosed::Incomplete
    }
}

/// Opens the namespace through the thread that called connect, its process or another of its
/// threads: each can be in a different one. The pid must still belong to the process.
fn open_by_caller(netns: u32, about: &AttemptRef) -> Option<(File, NetnsPath)> {
    let process = about.process?;
    let found = visit(process.pid, |folder| {
        let tasks = folder.join("task");
        let first = about.tid.into_iter().chain([process.pid]);
        let others = fs::read_dir(&tasks)?.flatten();
        let others = others.filter_map(|task| task.file_name().to_str()?.parse().ok());
        let mut all = first.chain(others.take(THREADS_MAX));
        let found = all.find_map(|tid: u32| {
            let path = tasks.join(tid.to_string()).join("ns/net");
            Some((open(&path, netns)?, NetnsPath::Process(tid)))
        });
        Ok(found)
    });
    found.ok()?.filter(|_| is_still(process))
}

/// Opens the namespace at this path, if its inode number matches.
fn open(path: &Path, netns: u32) -> Option<File> {
    let file = File::open(path).ok()?;
    (inode(&file)? == netns).then_some(file)
}

fn inode(file: &File) -> Option<u32> {
    u32::try_from(file.metadata().ok()?.ino()).ok()
}

#[cfg(test)]
mod tests;
