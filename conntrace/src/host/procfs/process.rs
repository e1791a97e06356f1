//! Facts about a process from /proc, checked to be still the same process.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, Read as _},
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    time::Instant,
};

use super::{
    exe::{TICK_NS, start_ticks},
    proxy_env,
};
use crate::{
    diagnosis::{
        Undiagnosed,
        port_facts::Holding,
        question::{NamedProcess, ProcessKey, ProxyVariable},
    },
    host::{
        attention::{goes_on, visit},
        netns::reason,
    },
    output::event::COMM_JSON_MAX,
    record::sanitize,
    sys,
};

/// Maximum bytes of an environment read.
const ENVIRONMENT_MAX: u64 = 1 << 20;
/// Maximum bytes of a security module's profile read.
const PROFILE_MAX: u64 = 1 << 16;
/// Maximum bytes of a security module's profile in a line.
const PROFILE_JSON_MAX: usize = 256;
/// Maximum number of processes in an answer.
const NAMED_MAX: usize = 3;
/// Number of descriptors after which a search says that it goes on.
const PROGRESS_EVERY: usize = 256;
/// Number of a process's descriptors beyond which other processes are searched first.
const DESCRIPTORS_MAX: usize = 4096;

/// Returns true if the pid still belongs to this process. Checked after a read, it holds for the
/// time before.
pub(crate) fn is_still(process: ProcessKey) -> bool {
    started_ticks(process.pid) == Some(process.started_ns / TICK_NS)
}

/// Returns the start time of the process with this pid, in ticks since boot. `None` also where the
/// pids of /proc are not those of the records.
pub(crate) fn started_ticks(pid: u32) -> Option<u64> {
    let stat = visit(pid, |folder| fs::read(folder.join("stat"))).ok()?;
    start_ticks(&stat)
}

/// Returns the proxy variable that holds this address. Nothing else of the environment leaves the
/// parser.
pub(crate) fn proxy(
    process: ProcessKey,
    remote: SocketAddr,
) -> Result<Option<ProxyVariable>, Undiagnosed> {
    let (environment, is_whole) = read(process, "environ", ENVIRONMENT_MAX)?;
    if environment.is_empty() && !has_memory(process.pid) {
        return Err(Undiagnosed::NoAccess);
    }
    match proxy_env::variable(&environment, remote) {
        None if !is_whole => Err(Undiagnosed::Incomplete),
        found => Ok(found),
    }
}

/// Returns true if the process still has memory. An exiting one gives it up early (`exit_mm`): its
/// files in /proc that read the memory are then empty, without an error.
fn has_memory(pid: u32) -> bool {
    let sizes = visit(pid, |folder| fs::read_to_string(folder.join("statm")));
    sizes.is_ok_and(|sizes| !sizes.starts_with("0 "))
}

/// Returns the profile that confines the process; `None` if it is unconfined.
pub(crate) fn confinement(process: ProcessKey) -> Result<Option<String>, Undiagnosed> {
    let (label, _) = read(process, "attr/current", PROFILE_MAX)?;
    Ok(profile(&label))
}

/// Reads a file of the process, up to `max` bytes, and checks that it is still the same process.
/// The flag is true if the file was read completely.
fn read(process: ProcessKey, name: &str, max: u64) -> Result<(Vec<u8>, bool), Undiagnosed> {
    let bytes = visit(process.pid, |folder| {
        let mut bytes = Vec::new();
        let file = File::open(folder.join(name))?;
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = bytes.map_err(|error| reason(&error))?;
    let is_whole = u64::try_from(bytes.len()).is_ok_and(|len| len < max);
    if is_still(process) {
        Ok((bytes, is_whole))
    } else {
        Err(Undiagnosed::NoAccess)
    }
}

/// Parses a label: `docker-default (enforce)` from `AppArmor`, `system_u:system_r:httpd_t:s0` from
/// `SELinux`. Some modules write nothing, or zeroes.
fn profile(label: &[u8]) -> Option<String> {
    let label = label.split(|&byte| byte == 0 || byte == b'\n').next()?;
    let label = sanitize::bounded(label, PROFILE_JSON_MAX);
    // A profile in complain mode only logs.
    let is_lax = label.contains("unconfined") || label.contains("(complain)");
    let confines = !label.is_empty() && !is_lax && label != "kernel";
    confines.then_some(label)
}

/// Returns the process with its name, for a line.
pub(super) fn named(pid: u32) -> NamedProcess {
    let comm = visit(pid, |folder| fs::read(folder.join("comm"))).unwrap_or_default();
    NamedProcess {
        pid,
        comm: sanitize::bounded(comm.trim_ascii_end(), COMM_JSON_MAX),
    }
}

/// Socket whose holder is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoughtSocket {
    pub(crate) inode: u32,
    /// User that created it. Its processes are searched before those of others.
    pub(crate) uid: u32,
}

/// Search of all processes for those that hold sockets.
struct OwnerSearch<'a> {
    inodes: &'a HashSet<u32>,
    until: Instant,
    /// Pid of each holder found, by inode.
    found: HashMap<u32, u32>,
    /// Processes of which only the first descriptors were searched.
    large: Vec<u32>,
    /// True if a process was left out at which a thread hangs.
    skipped: bool,
}

/// Time ran out before every process was searched.
#[derive(Debug, PartialEq, Eq)]
struct SearchEnded;

impl<'a> OwnerSearch<'a> {
    fn new(inodes: &'a HashSet<u32>, until: Instant) -> Self {
        Self {
            inodes,
            until,
            found: HashMap::new(),
            large: Vec::new(),
            skipped: false,
        }
    }

    /// Searches these processes until all sockets are found. Those with many descriptors come last.
    fn search(&mut self, pids: impl Iterator<Item = u32>) -> Result<(), SearchEnded> {
        for pid in pids {
            if Instant::now() >= self.until {
                return Err(SearchEnded);
            }
            self.descriptors(pid, DESCRIPTORS_MAX)?;
            if self.is_done() {
                return Ok(());
            }
        }
        for pid in std::mem::take(&mut self.large) {
            self.descriptors(pid, usize::MAX)?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.found.len() >= self.inodes.len()
    }

    fn descriptors(&mut self, pid: u32, max: usize) -> Result<(), SearchEnded> {
        let looked = visit(pid, |folder| {
            for (at, descriptor) in fs::read_dir(folder.join("fd"))?.flatten().enumerate() {
                if at >= max {
                    self.large.push(pid);
                    break;
                }
                if Instant::now() >= self.until {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                if at % PROGRESS_EVERY == 0 {
                    goes_on();
                }
                let inode = fs::read_link(descriptor.path()).ok().and_then(|link| {
                    let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                    number.parse().ok()
                });
                if let Some(inode) = inode.filter(|inode| self.inodes.contains(inode)) {
                    self.found.entry(inode).or_insert(pid);
                    if self.is_done() {
                        break;
                    }
                }
            }
            Ok(())
        });
        match looked {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(SearchEnded),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.skipped = true;
                Ok(())
            }
            // The process has exited, or nobody may inspect it.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Finds the holders of sockets, by inode, as far as time allows. Searches the processes `first`
/// first, then those of the users that created the sockets.
pub(crate) fn owners_of(
    sought: &[SoughtSocket],
    first: &[u32],
    until: Instant,
) -> BTreeMap<u32, NamedProcess> {
    let inodes = sought.iter().map(|sock| sock.inode);
    let inodes: HashSet<u32> = inodes.filter(|inode| *inode != 0).collect();
    if inodes.is_empty() {
        return BTreeMap::new();
    }
    let mut search = OwnerSearch::new(&inodes, until);
    let _ = search.search(first.iter().copied());
    if !search.is_done() {
        let is_theirs = |pid: &u32| {
            let uid = visit(*pid, |folder| Ok(fs::metadata(folder)?.uid()));
            uid.is_ok_and(|uid| sought.iter().any(|sock| sock.uid == uid))
        };
        let others = pids().take_while(|_| Instant::now() < until);
        let (likely, rest): (Vec<u32>, Vec<u32>) = others.partition(is_theirs);
        // What was found in time is known, whether or not the search ended early.
        let _ = search.search(likely.into_iter().chain(rest));
    }
    let found = search.found.into_iter();
    found.map(|(inode, pid)| (inode, named(pid))).collect()
}

/// Returns the processes that hold most of these sockets; none if some may be hidden.
pub(crate) fn holdings(inodes: &HashSet<u32>, first: Option<u32>, until: Instant) -> Vec<Holding> {
    if inodes.is_empty() || !sys::proc_shows_all() {
        return Vec::new();
    }
    let mut search = OwnerSearch::new(inodes, until);
    let others = pids().filter(|&pid| Some(pid) != first);
    // The caller often has them all.
    let of_caller = first.map_or(Ok(()), |pid| search.descriptors(pid, usize::MAX));
    // Numbers of a part of the processes could name the wrong ones.
    if of_caller.is_err() || (!search.is_done() && search.search(others).is_err()) || search.skipped
    {
        return Vec::new();
    }
    let mut counts: HashMap<u32, u32> = HashMap::new();
    for pid in search.found.into_values() {
        *counts.entry(pid).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(pid, sockets)| (std::cmp::Reverse(sockets), pid));
    let top = counts.into_iter().take(NAMED_MAX);
    top.map(|(pid, sockets)| Holding {
        process: named(pid),
        sockets,
    })
    .collect()
}

/// Iterates over all pids in /proc.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").ok().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener, os::linux::fs::MetadataExt as _, process::Command, time::Duration,
    };

    use super::*;

    #[test]
    fn finds_the_owner_of_a_socket() {
        use std::os::fd::AsRawFd as _;
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", server.as_raw_fd());
        let inode = u32::try_from(fs::metadata(link).unwrap().st_ino()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let sought = |inode, uid| [SoughtSocket { inode, uid }];
        let own = fs::metadata("/proc/self").unwrap().uid();
        let this = [std::process::id()];
        for (uid, first) in [(own, &[][..]), (12_345, &[]), (own, &this)] {
            let found = owners_of(&sought(inode, uid), first, until);
            assert_eq!(found[&inode].pid, std::process::id());
        }
        assert!(owners_of(&sought(0, own), &[], until).is_empty());
        let past = Instant::now();
        assert!(owners_of(&sought(inode, own), &[std::process::id()], past).is_empty());
        assert!(holdings(&HashSet::from([inode]), None, past).is_empty());
        let holding = holdings(&HashSet::from([inode]), None, until);
        assert_eq!(
            (holding[0].process.pid, holding[0].sockets),
            (std::process::id(), 1)
        );
    }

    /// A process with many descriptors is searched too, after the others.
    #[test]
    fn many_descriptors_are_searched_last() {
        use std::os::fd::AsRawFd as _;
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", server.as_raw_fd());
        let inode = u32::try_from(fs::metadata(link).unwrap().st_ino()).unwrap();
        let inodes = HashSet::from([inode]);
        let mut search = OwnerSearch::new(&inodes, Instant::now() + Duration::from_secs(20));
        search.descriptors(std::process::id(), 1).unwrap();
        assert_eq!((search.found.len(), search.large.len()), (0, 1));
        search.search(std::iter::empty()).unwrap();
        assert_eq!(search.found[&inode], std::process::id());
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_asked() {
        let pid = std::process::id();
        let started_ns = started_ticks(pid).unwrap() * TICK_NS;
        let own = ProcessKey { pid, started_ns };
        let remote = "192.0.2.1:3128".parse().unwrap();
        assert_eq!(proxy(own, remote), Ok(None));
        let earlier = ProcessKey {
            started_ns: started_ns - TICK_NS,
            ..own
        };
        assert_eq!(proxy(earlier, remote), Err(Undiagnosed::NoAccess));
        assert!(confinement(earlier).is_err());
    }

    /// An exited process that was not waited for still exists and keeps its start time, but not its
    /// environment.
    #[test]
    fn what_an_exiting_process_had_is_unknown() {
        let remote = "192.0.2.1:3128".parse().unwrap();
        let of = |pid| ProcessKey {
            pid,
            started_ns: started_ticks(pid).unwrap() * TICK_NS,
        };
        let mut child = Command::new("sleep");
        child.arg("60").env_clear();
        let mut child = child.spawn().unwrap();
        let process = of(child.id());
        // The environment is empty before the program is loaded, and with env_clear also after.
        let exe = || fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        while exe() == std::env::current_exe().unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(proxy(process, remote), Ok(None));
        child.kill().unwrap();
        while has_memory(child.id()) {
            std::thread::yield_now();
        }
        assert!(is_still(process), "nobody has waited for it");
        assert_eq!(proxy(process, remote), Err(Undiagnosed::NoAccess));
        child.wait().unwrap();
    }

    #[test]
    fn profiles() {
        assert_eq!(profile(b"unconfined\n"), None);
        assert_eq!(profile(b""), None);
        let enforced = profile(b"docker-default (enforce)\n");
        assert_eq!(enforced.as_deref(), Some("docker-default (enforce)"));
        assert_eq!(profile(b"u:r:unconfined_t:s0\0"), None);
    }
}
