//! Facts about a process from /proc, checked to be still the same process.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Read as _,
    net::SocketAddr,
    time::Instant,
};

use super::{
    exe::{TICK_NS, start_ticks},
    proxy_env,
};
use crate::{
    diagnosis::{
        Undiagnosed,
        question::{Holding, NamedProcess, ProcessKey, ProxyVariable},
    },
    host::netns::reason,
    output::event::COMM_JSON_MAX,
    record::sanitize,
};

/// Maximum bytes of an environment read.
const ENVIRONMENT_MAX: u64 = 1 << 20;
/// Maximum bytes of a security module's profile read.
const PROFILE_MAX: u64 = 1 << 16;
/// Maximum bytes of a security module's profile in a line.
const PROFILE_JSON_MAX: usize = 256;
/// Maximum number of processes in an answer.
const NAMED_MAX: usize = 3;

/// Returns true if the pid still belongs to this process. Checked after a read, it holds for the
/// time before.
pub(crate) fn is_still(process: ProcessKey) -> bool {
    started_ticks(process.pid) == Some(process.started_ns / TICK_NS)
}

/// Returns the start time of the process with this pid, in ticks since boot.
pub(crate) fn started_ticks(pid: u32) -> Option<u64> {
    start_ticks(&fs::read(format!("/proc/{pid}/stat")).ok()?)
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
    let sizes = fs::read_to_string(format!("/proc/{pid}/statm"));
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
    let read = || {
        let mut bytes = Vec::new();
        let file = File::open(format!("/proc/{}/{name}", process.pid))?;
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|error| reason(&error))?;
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
fn named(pid: u32) -> NamedProcess {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    NamedProcess {
        pid,
        comm: sanitize::bounded(comm.trim_ascii_end(), COMM_JSON_MAX),
    }
}

/// Finds the owners of sockets: a map from inode to pid. `None` if the time ran out before every
/// process was searched.
pub(crate) fn owners(
    inodes: &HashSet<u32>,
    first: Option<u32>,
    until: Instant,
) -> Option<HashMap<u32, u32>> {
    let mut found = HashMap::new();
    let others = pids().filter(|&pid| Some(pid) != first);
    for pid in first.into_iter().chain(others) {
        if found.len() >= inodes.len() {
            break;
        }
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if Instant::now() >= until {
                return None;
            }
            let inode = fs::read_link(descriptor.path()).ok().and_then(|link| {
                let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                number.parse().ok()
            });
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    Some(found)
}

/// Finds the owner of one socket; searches the process `first` first.
pub(crate) fn owner(inode: u32, first: Option<u32>, until: Instant) -> Option<NamedProcess> {
    if inode == 0 {
        return None;
    }
    let found = owners(&HashSet::from([inode]), first, until)?;
    found.get(&inode).copied().map(named)
}

/// Returns the processes that hold most of these sockets.
pub(crate) fn holdings(inodes: &HashSet<u32>, first: Option<u32>, until: Instant) -> Vec<Holding> {
    let mut counts: HashMap<u32, u32> = HashMap::new();
    for pid in owners(inodes, first, until)
        .unwrap_or_default()
        .into_values()
    {
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
        assert_eq!(owner(inode, None, until).unwrap().pid, std::process::id());
        assert_eq!(owner(0, None, until), None);
        assert_eq!(owners(&HashSet::from([inode]), None, Instant::now()), None);
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
