//! Network namespaces: found through processes, entered by the helper's thread,
//! and left at once, for a thread in one keeps it alive.

use std::{
    fs,
    fs::File,
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

/// The calling thread's own.
const OWN: &str = "/proc/thread-self/ns/net";
/// How long the list of namespaces that can be seen is believed.
const AGE_MAX: Duration = Duration::from_secs(1);
/// How many threads of a process are looked at for one in a namespace.
const THREADS_MAX: usize = 256;
/// Longest time that a list which may lack some is believed.
const CUT_AGE_MAX: Duration = Duration::from_millis(100);
/// Most namespaces that are listed; a machine with more gets no answer that needs all.
const SEEN_MAX: usize = 1024;

/// The attempt that is asked about, for which only its process knows the way into
/// its namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptRef {
    pub(crate) process: Option<ProcessKey>,
    pub(crate) tid: Option<u32>,
    /// Random bits of its network namespace: another one may have its number by now.
    pub(crate) netns_mix: u16,
    /// When it ended, `CLOCK_BOOTTIME` nanoseconds.
    pub(crate) at_ns: u64,
}

impl AttemptRef {
    /// About this attempt.
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

    /// Says whether an answer of then, for a namespace with these bits, holds for it.
    pub(super) fn is_of(&self, at_ns: u64, netns_mix: u16) -> bool {
        // Of a call that failed there are none.
        self.netns_mix == netns_mix && (netns_mix != 0 || self.was_there_at(at_ns))
    }

    /// Its process had begun by then; of an unknown one that is believed.
    pub(super) fn was_there_at(&self, at_ns: u64) -> bool {
        self.process.is_none_or(|it| it.started_ns <= at_ns)
    }
}

/// A way into a namespace.
#[derive(Debug, Clone)]
enum NetnsHandle {
    /// Through a process that is in it.
    Process(u32),
    /// Through a file that is mounted (`ip netns add`, container runtimes).
    Mounted(PathBuf),
}

impl NetnsHandle {
    fn path(&self) -> PathBuf {
        match self {
            Self::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::Mounted(path) => path.clone(),
        }
    }

    /// As `nsenter` takes it; `None` of a path that a shell would not take as it stands.
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

/// Enters network namespaces for the thread that made it.
pub(super) struct Namespaces {
    home: File,
    home_inode: u32,
    /// Those of other processes, and those that are mounted, each with a way in.
    seen: Vec<(u32, NetnsHandle)>,
    /// The reason why these may not be all.
    unseen: Option<Undiagnosed>,
    seen_at: Option<Instant>,
    /// Likewise, `CLOCK_BOOTTIME` nanoseconds.
    seen_ns: u64,
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
            unseen: None,
            seen_at: None,
            seen_ns: 0,
            is_stranded: false,
        })
    }

    /// Acts in the namespace of this inode number.
    ///
    /// # Errors
    /// When there is no way into it, or the act failed.
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
            .known(netns, about)
            .or_else(|| of_attempt(netns, about));
        let (namespace, _) = match known {
            Some(found) => found,
            None => self.of_others(netns, about, until)?,
        };
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|_| Undiagnosed::NoAccess)?;
        drop(namespace);
        let result = act();
        self.is_stranded = setns(&self.home, CloneFlags::CLONE_NEWNET).is_err();
        result.map_err(|error| reason(&error))
    }

    /// The thread's own, which stays.
    pub(super) fn is_home(&self, netns: u32) -> bool {
        netns == self.home_inode
    }

    /// The thread could not get home. It must end then: a thread in a
    /// namespace keeps it alive.
    pub(super) fn is_stranded(&self) -> bool {
        self.is_stranded
    }

    /// Every namespace of the machine as of the attempt's end, this one first: one may have
    /// been made since the last look.
    ///
    /// # Errors
    /// When not all could be looked for.
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

    /// Looks for namespaces anew when next asked.
    pub(super) fn forget(&mut self) {
        self.seen_at = None;
    }

    /// The namespaces that were found, this one first.
    pub(super) fn seen(&mut self, until: Instant) -> Vec<u32> {
        self.look_around(until);
        let others = self.seen.iter().map(|(netns, _)| *netns);
        [self.home_inode].into_iter().chain(others).collect()
    }

    /// The options of `nsenter` for the namespace; `None` of the thread's own.
    ///
    /// # Errors
    /// When no way into it is known.
    pub(super) fn door(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Option<String>, Undiagnosed> {
        if self.is_home(netns) {
            return Ok(None);
        }
        // A process that outlives the attempt is of more use, so its own comes last.
        let found = match self.of_others(netns, about, until) {
            Ok((_, door)) => door,
            Err(reason) => of_attempt(netns, about).ok_or(reason)?.1,
        };
        found.options().map(Some).ok_or(Undiagnosed::NoAccess)
    }

    /// Through any other process in it that was there before the attempt ended:
    /// after a namespace's end its inode number may be another's.
    fn of_others(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<(File, NetnsHandle), Undiagnosed> {
        self.look_around(until);
        let unknown = self.unseen.unwrap_or(Undiagnosed::NoAccess);
        self.known(netns, about).ok_or(unknown)
    }

    /// Likewise, of those that were found lately.
    fn known(&self, netns: u32, about: &AttemptRef) -> Option<(File, NetnsHandle)> {
        let (_, door) = self.seen.iter().find(|(inode, _)| *inode == netns)?;
        let file = open(&door.path(), netns)?;
        let before = match door {
            NetnsHandle::Process(pid) => started_ticks(*pid)? <= about.at_ns / TICK_NS,
            // What is mounted stays until it is unmounted.
            NetnsHandle::Mounted(_) => true,
        };
        before.then(|| (file, door.clone()))
    }

    fn look_around(&mut self, until: Instant) {
        let now = Instant::now();
        // A look that was cut short is not believed for long.
        let age_max = if self.unseen.is_some() {
            CUT_AGE_MAX
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
                        self.note(found, NetnsHandle::Process(pid))?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !may_look() => {
                    return Err(Undiagnosed::NoAccess);
                }
                // It is gone by now, or of those that nobody may look at (a sandbox's init).
                Err(_) => {}
            }
        }
        let mounts = fs::read("/proc/thread-self/mountinfo").map_err(|error| reason(&error))?;
        for (found, path) in mounted(&String::from_utf8_lossy(&mounts)) {
            self.note(found, NetnsHandle::Mounted(path))?;
        }
        Ok(())
    }

    /// Adds one. A mount outlives every process, a short-lived client above all.
    fn note(&mut self, netns: u32, door: NetnsHandle) -> Result<(), Undiagnosed> {
        if netns == self.home_inode {
            return Ok(());
        }
        let mut seen = self.seen.iter_mut();
        if let Some((_, known)) = seen.find(|(inode, _)| *inode == netns) {
            if matches!(
                (&*known, &door),
                (NetnsHandle::Process(_), NetnsHandle::Mounted(_))
            ) {
                *known = door;
            }
            return Ok(());
        }
        if self.seen.len() >= SEEN_MAX {
            return Err(Undiagnosed::Incomplete);
        }
        self.seen.push((netns, door));
        Ok(())
    }
}

/// The capability to look at other users' processes (`ptrace_may_access`).
fn may_look() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).unwrap_or(false)
}

/// The namespaces that `/proc/PID/mountinfo` tells of: `... net:[4026532001] PATH ... - nsfs`.
fn mounted(mountinfo: &str) -> impl Iterator<Item = (u32, PathBuf)> + '_ {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let found = number(Path::new(fields.next()?))?;
        Some((found, PathBuf::from(fields.next()?)))
    })
}

/// The reason that an error of the system gives.
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

/// Through the thread that called connect, its process if that is still this one, or
/// another of its threads: each can be in a namespace of its own.
fn of_attempt(netns: u32, about: &AttemptRef) -> Option<(File, NetnsHandle)> {
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
        let about = AttemptRef {
            process: None,
            tid: None,
            netns_mix: 0,
            at_ns: 0,
        };
        let until = Instant::now() + Duration::from_secs(10);
        let own = namespaces.home_inode;
        assert_eq!(namespaces.inside(own, &about, until, || Ok(5)), Ok(5));
        let none = namespaces.inside(1, &about, until, || Ok(5));
        assert_eq!(
            none,
            Err(Undiagnosed::NoAccess),
            "there is no such namespace"
        );
        assert_eq!(namespaces.all(&about, until).unwrap()[0], own);
        assert_eq!(namespaces.door(own, &about, until), Ok(None));
        assert_eq!(number(Path::new("net:[123]")), Some(123));
    }

    #[test]
    fn a_look_that_was_cut_short_says_so() {
        let mut namespaces = Namespaces::new().unwrap();
        let about = AttemptRef {
            process: None,
            tid: None,
            netns_mix: 0,
            at_ns: 0,
        };
        let late = Instant::now();
        assert_eq!(namespaces.all(&about, late), Err(Undiagnosed::NoTime));
        assert_eq!(namespaces.seen(late), [namespaces.home_inode]);
        std::thread::sleep(CUT_AGE_MAX);
        let until = Instant::now() + Duration::from_secs(10);
        assert!(namespaces.all(&about, until).is_ok());
        // Of an attempt that ended after the look it is not known.
        let after = AttemptRef {
            at_ns: clock::boot_ns(),
            ..about
        };
        let late = Instant::now();
        assert_eq!(namespaces.all(&after, late), Err(Undiagnosed::NoTime));
    }

    #[test]
    fn what_is_mounted_comes_first() {
        let mut namespaces = Namespaces::new().unwrap();
        for door in [
            NetnsHandle::Process(7),
            NetnsHandle::Mounted("/a".into()),
            NetnsHandle::Process(8),
        ] {
            namespaces.note(1, door).unwrap();
        }
        let options: Vec<_> = namespaces.seen.iter().map(|(_, it)| it.options()).collect();
        assert_eq!(options, [Some("--net=/a".to_owned())]);
    }

    #[test]
    fn mounted_namespaces() {
        let mounts = "30 23 0:26 / /sys rw - sysfs sysfs rw\n\
                      77 30 0:4 net:[4026532001] /run/netns/a rw shared:7 - nsfs nsfs rw\n";
        let found: Vec<_> = mounted(mounts).collect();
        assert_eq!(found, [(4_026_532_001, "/run/netns/a".into())]);
        let options = |path: &str| NetnsHandle::Mounted(path.into()).options();
        assert_eq!(
            options("/run/netns/a"),
            Some("--net=/run/netns/a".to_owned())
        );
        assert_eq!(options("/run/netns/a;b"), None);
        assert_eq!(
            NetnsHandle::Process(812).options(),
            Some("-t 812 -n".to_owned())
        );
    }
}
