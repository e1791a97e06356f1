//! List of the machine's network namespaces, shared by the threads that look at them.
//!
//! A namespace is known by a process inside it or by a mount. The list is kept: attempts add to it,
//! and all of /proc is read only for a question that needs a newer or a complete list.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};

use super::reason;
use crate::{
    diagnosis::Undiagnosed,
    host::{attention::visit, procfs::process::pids},
    record::clock,
    sys,
};

/// Maximum number of namespaces listed. Beyond it, questions about all namespaces stay unanswered.
const LISTED_MAX: usize = 8192;
/// Maximum number of processes of a namespace that are kept.
const PROCESSES_MAX: usize = 2;
/// Time for which a namespace that could not be entered is not tried again.
const REFUSED_MAX: Duration = Duration::from_secs(1);
/// Time for which a complete list is kept, as a multiple of the time that its search took. At most
/// [`KEPT_MAX_NS`].
const KEPT_TIMES: u64 = 8;
/// Maximum time for which a complete list is kept, and what was found by it, in nanoseconds.
pub(super) const KEPT_MAX_NS: u64 = 800_000_000;
/// Time between two searches of /proc for one namespace, at least. A user who makes attempts from
/// namespaces that end at once would otherwise cause one for each.
const SEARCH_GAP: Duration = Duration::from_millis(100);

/// A path into a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetnsPath {
    /// Through a process inside it, by pid.
    Process(u32),
    /// Through a mounted file (`ip netns add`, container runtimes).
    Mounted(Arc<Path>),
}

impl NetnsPath {
    /// Returns the options for `nsenter`; `None` if a shell would interpret the path.
    pub(super) fn options(&self) -> Option<String> {
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

/// Paths into a namespace.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct NetnsPaths {
    mount: Option<Arc<Path>>,
    /// Processes found by a search.
    processes: Vec<u32>,
    /// Last caller of an attempt from there. It may be gone soon.
    caller: Option<u32>,
}

/// Age that a list of all namespaces may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum ListAge {
    /// It is as of the attempt's end: a namespace may have been created before then.
    Current,
    /// It may be older by eight times as long as its search took, 0.8 s at most.
    Kept,
}

/// Namespaces of the machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AllNamespaces {
    /// Their numbers, in ascending order.
    pub(super) numbers: Vec<u32>,
    /// Reason why there may be others; `None` if there are none.
    pub(super) missed: Option<Undiagnosed>,
    /// Time as of which they are known, `CLOCK_BOOTTIME` nanoseconds.
    pub(super) as_of_ns: u64,
}

/// List of namespaces. Its lock is never held during a look.
#[derive(Debug, Clone, Default)]
pub(super) struct NetnsList(Arc<Mutex<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    known: HashMap<u32, NetnsPaths>,
    /// Namespaces that could not be entered, with the reason, and since when.
    refused: HashMap<u32, (Instant, Undiagnosed)>,
    /// Start of the last search that saw all of /proc, `CLOCK_BOOTTIME` nanoseconds.
    complete_ns: u64,
    /// Duration of that search, in nanoseconds.
    took_ns: u64,
    /// Reason why the last search is incomplete.
    unseen: Option<Undiagnosed>,
    /// Time of the last search for one namespace.
    sought: Option<Instant>,
}

impl NetnsList {
    /// Returns the list that the threads of this program share.
    pub(super) fn shared() -> Self {
        static SHARED: LazyLock<NetnsList> = LazyLock::new(NetnsList::default);
        SHARED.clone()
    }

    /// Returns the known paths into a namespace. A mount comes first: it outlives short-lived
    /// processes. Callers of attempts come last, and only `with_callers`.
    pub(super) fn paths(&self, netns: u32, with_callers: bool) -> Vec<NetnsPath> {
        let listed = self.lock();
        let Some(paths) = listed.known.get(&netns) else {
            return Vec::new();
        };
        let mount = paths.mount.iter().cloned().map(NetnsPath::Mounted);
        let caller = paths.caller.filter(|_| with_callers);
        let processes = paths.processes.iter().copied().chain(caller);
        mount.chain(processes.map(NetnsPath::Process)).collect()
    }

    /// Returns a process in the namespace; `None` if none is known.
    pub(super) fn process_of(&self, netns: u32) -> Option<u32> {
        self.lock().known.get(&netns)?.processes.first().copied()
    }

    /// Notes the caller of an attempt from a namespace.
    pub(super) fn learn(&self, netns: u32, pid: u32) {
        let mut listed = self.lock();
        if listed.known.len() < LISTED_MAX || listed.known.contains_key(&netns) {
            listed.known.entry(netns).or_default().caller = Some(pid);
        }
    }

    /// Notes that a namespace could not be entered.
    pub(super) fn refuse(&self, netns: u32, reason: Undiagnosed) {
        let now = Instant::now();
        let mut listed = self.lock();
        listed
            .refused
            .retain(|_, (at, _)| now.saturating_duration_since(*at) < REFUSED_MAX);
        if listed.refused.len() < LISTED_MAX {
            listed.refused.insert(netns, (now, reason));
        }
    }

    /// Returns the reason why the namespace could not be entered within the last second.
    pub(super) fn refused(&self, netns: u32) -> Option<Undiagnosed> {
        let (at, reason) = *self.lock().refused.get(&netns)?;
        (at.elapsed() < REFUSED_MAX).then_some(reason)
    }

    /// Returns every namespace known. The list is made anew if it is older than `since_ns`
    /// (`CLOCK_BOOTTIME` nanoseconds) by more than `age` allows.
    pub(super) fn all(&self, since_ns: u64, age: ListAge, until: Instant) -> AllNamespaces {
        let began_ns = clock::boot_ns();
        let mut searched = Ok(());
        if self.lock().is_older_than(since_ns, age) {
            searched = self.search(until);
        }
        let listed = self.lock();
        // Another thread's search may have ended well that began too early.
        let is_old = listed.is_older_than(since_ns, age);
        let reason = searched.err().or(listed.unseen);
        let mut numbers: Vec<_> = listed.known.keys().copied().collect();
        numbers.sort_unstable();
        AllNamespaces {
            numbers,
            missed: is_old.then(|| reason.unwrap_or(Undiagnosed::Incomplete)),
            // A search that missed some was made now all the same.
            as_of_ns: if is_old { began_ns } else { listed.complete_ns },
        }
    }

    /// Searches for a namespace that is not listed, or is no longer where it was. Does nothing if
    /// the list is not older than `since_ns`.
    ///
    /// # Errors
    /// Fails when it may not have been found.
    pub(super) fn search_one(&self, since_ns: u64, until: Instant) -> Result<(), Undiagnosed> {
        let mut listed = self.lock();
        if listed.complete_ns >= since_ns {
            return Ok(());
        }
        if listed.sought.is_some_and(|at| at.elapsed() < SEARCH_GAP) {
            return Err(Undiagnosed::Incomplete);
        }
        listed.sought = Some(Instant::now());
        drop(listed);
        self.search(until)
    }

    /// Lists the namespaces of all processes and mounts.
    ///
    /// # Errors
    /// Fails when some may be missing. Those that were found are listed.
    pub(super) fn search(&self, until: Instant) -> Result<(), Undiagnosed> {
        let began_ns = clock::boot_ns();
        let mut found = Listed::default();
        let outcome = found.find_all(until);
        let mut listed = self.lock();
        listed.unseen = outcome.err();
        if outcome.is_ok() {
            // Another thread's search may have begun later.
            if listed.complete_ns < began_ns {
                listed.complete_ns = began_ns;
                listed.took_ns = clock::boot_ns().saturating_sub(began_ns);
                listed.known = found.known;
            }
        } else {
            for (netns, paths) in found.known {
                if listed.known.len() < LISTED_MAX || listed.known.contains_key(&netns) {
                    listed.known.insert(netns, paths);
                }
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn is_older_than(&self, since_ns: u64, age: ListAge) -> bool {
        let kept_ns = match age {
            ListAge::Current => 0,
            ListAge::Kept => self.took_ns.saturating_mul(KEPT_TIMES).min(KEPT_MAX_NS),
        };
        self.complete_ns.saturating_add(kept_ns) < since_ns
    }

    fn find_all(&mut self, until: Instant) -> Result<(), Undiagnosed> {
        let mut outcome = if sys::proc_shows_all() {
            Ok(())
        } else {
            Err(Undiagnosed::NoAccess)
        };
        for pid in pids() {
            if Instant::now() >= until {
                return Err(Undiagnosed::NoTime);
            }
            match visit(pid, |folder| fs::read_link(folder.join("ns/net"))) {
                Ok(link) => {
                    if let Some(found) = number(&link) {
                        self.add(found, NetnsPath::Process(pid))?;
                    }
                }
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && !may_inspect_others() =>
                {
                    return Err(Undiagnosed::NoAccess);
                }
                // A thread hangs at it. The namespaces of the others are of use all the same.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    outcome = Err(Undiagnosed::NoTime);
                }
                // The process has exited, or nobody may inspect it (a sandbox's init).
                Err(_) => {}
            }
        }
        let mounts = fs::read("/proc/thread-self/mountinfo").map_err(|error| reason(&error))?;
        for (found, path) in mounted(&String::from_utf8_lossy(&mounts)) {
            self.add(found, NetnsPath::Mounted(path.into()))?;
        }
        outcome
    }

    fn add(&mut self, netns: u32, path: NetnsPath) -> Result<(), Undiagnosed> {
        if self.known.len() >= LISTED_MAX && !self.known.contains_key(&netns) {
            return Err(Undiagnosed::Incomplete);
        }
        let paths = self.known.entry(netns).or_default();
        match path {
            NetnsPath::Mounted(path) => {
                paths.mount.get_or_insert(path);
            }
            // The first ones found have lived longest, by their pids.
            NetnsPath::Process(pid) if paths.processes.len() < PROCESSES_MAX => {
                paths.processes.push(pid);
            }
            NetnsPath::Process(_) => {}
        }
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

/// Parses a link such as `net:[4026531840]`.
pub(super) fn number(link: &Path) -> Option<u32> {
    let number = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_comes_first() {
        let list = NetnsList::default();
        for path in [
            NetnsPath::Process(7),
            NetnsPath::Mounted(Path::new("/a").into()),
            NetnsPath::Process(8),
            NetnsPath::Process(9),
        ] {
            list.lock().add(1, path).unwrap();
        }
        list.learn(1, 5);
        let options = |with_callers| {
            let paths = list.paths(1, with_callers);
            paths
                .iter()
                .map(|path| path.options().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(options(true), ["--net=/a", "-t 7 -n", "-t 8 -n", "-t 5 -n"]);
        assert_eq!(options(false), ["--net=/a", "-t 7 -n", "-t 8 -n"]);
        assert_eq!((list.process_of(1), list.process_of(2)), (Some(7), None));
    }

    #[test]
    fn mounted_namespaces() {
        let mounts = "30 23 0:26 / /sys rw - sysfs sysfs rw\n\
                      77 30 0:4 net:[4026532001] /run/netns/a rw shared:7 - nsfs nsfs rw\n";
        let found: Vec<_> = mounted(mounts).collect();
        assert_eq!(found, [(4_026_532_001, "/run/netns/a".into())]);
        let options = |path: &str| NetnsPath::Mounted(Path::new(path).into()).options();
        assert_eq!(
            options("/run/netns/a").as_deref(),
            Some("--net=/run/netns/a")
        );
        assert_eq!(options("/run/netns/a;b"), None);
        assert_eq!(number(Path::new("net:[123]")), Some(123));
    }

    #[test]
    fn a_search_that_was_cut_short_says_so() {
        let list = NetnsList::default();
        let late = Instant::now();
        let all = |since_ns, until| {
            let all = list.all(since_ns, ListAge::Current, until);
            (all.numbers, all.missed)
        };
        assert_eq!(all(1, late), (vec![], Some(Undiagnosed::NoTime)));
        let until = Instant::now() + Duration::from_secs(10);
        let (numbers, missed) = all(1, until);
        assert!(!numbers.is_empty() && missed.is_none());
        // The list is newer than the attempt, and serves without a search.
        assert_eq!(all(1, late).1, None);
        // It is older, and there is no time to renew it: what is known stays known.
        let (known, missed) = all(clock::boot_ns(), late);
        assert_eq!(
            (known.len(), missed),
            (numbers.len(), Some(Undiagnosed::NoTime))
        );
        // Where it may be, a list that is little older serves.
        let complete_ns = list.lock().complete_ns;
        let kept = list.all(complete_ns + 1, ListAge::Kept, late);
        assert_eq!((kept.missed, kept.as_of_ns), (None, complete_ns));
        let began_ns = clock::boot_ns();
        let kept = list.all(complete_ns + KEPT_MAX_NS + 1, ListAge::Kept, late);
        assert_eq!(kept.missed, Some(Undiagnosed::NoTime));
        // What is found all the same is as of now, or its answer would have expired at once.
        assert!(kept.as_of_ns >= began_ns);
        assert_eq!(list.search_one(clock::boot_ns(), until), Ok(()));
        let again = list.search_one(clock::boot_ns(), until);
        assert_eq!(again, Err(Undiagnosed::Incomplete), "so soon");
        std::thread::sleep(SEARCH_GAP);
        assert_eq!(list.search_one(clock::boot_ns(), until), Ok(()));
    }

    #[test]
    fn a_full_list_is_incomplete() {
        let mut listed = Listed::default();
        for netns in 0..LISTED_MAX {
            let netns = u32::try_from(netns).unwrap();
            listed.add(netns, NetnsPath::Process(1)).unwrap();
        }
        assert_eq!(listed.add(0, NetnsPath::Process(2)), Ok(()));
        let one_more = listed.add(u32::MAX, NetnsPath::Process(1));
        assert_eq!(one_more, Err(Undiagnosed::Incomplete));
    }

    #[test]
    fn a_refusal_is_remembered() {
        let list = NetnsList::default();
        list.refuse(5, Undiagnosed::NoAccess);
        assert_eq!(list.refused(5), Some(Undiagnosed::NoAccess));
        assert_eq!(list.refused(6), None);
    }
}
