//! Which program a process runs.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::cache::Cache;
use crate::{
    event::PATH_JSON_MAX,
    text,
    wire::{Caller, Comm},
};

/// How long a path is believed: a process can exec another program.
const AGE_MAX: Duration = Duration::from_secs(1);
const LEN_MAX: usize = 4096;

/// `/proc/PID/stat` counts in hundredths of a second (`USER_HZ`), on every
/// architecture Linux has today.
pub(super) const TICK_NS: u64 = 10_000_000;

/// A process, told from a later one with the same pid by its start, and from
/// itself before an exec by its name.
type Key = (u32, u64, Comm);

#[derive(Debug)]
pub(super) struct Exes {
    paths: Cache<Key, Option<Arc<str>>>,
}

impl Exes {
    pub(super) fn new() -> Self {
        Self {
            paths: Cache::new(AGE_MAX, LEN_MAX),
        }
    }

    /// Path of the caller's program; `None` when it is gone, is a kernel thread,
    /// its pid has become another's, or it has another name by now: after an exec
    /// the path would be the next program's.
    pub(super) fn path(&mut self, caller: &Caller, now: Instant) -> Option<Arc<str>> {
        let key = (caller.pid, caller.started_ns, caller.leader_comm);
        self.paths.get(key, now, || read_exe(caller))
    }
}

fn read_exe(caller: &Caller) -> Option<Arc<str>> {
    let process = format!("/proc/{}", caller.pid);
    let process = Path::new(&process);
    let exe = fs::read_link(process.join("exe")).ok()?;
    // Looked at last: if it is still the same process now, it was so before.
    let stat = fs::read(process.join("stat")).ok()?;
    // Not the name in stat, which has line ends and backslashes escaped.
    let name = fs::read(process.join("comm")).ok()?;
    let same = start_ticks(&stat)? == caller.started_ns / TICK_NS
        && name.strip_suffix(b"\n")? == caller.leader_comm.as_bytes();
    if !same {
        return None;
    }
    Some(text::bounded(exe.as_os_str().as_bytes(), PATH_JSON_MAX).into())
}

/// Field 22 of `/proc/PID/stat`: when the process started, in ticks since boot.
/// Field 2 is the name in parentheses and can hold any byte.
pub(super) fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(pid: u32, started_ns: u64) -> Caller {
        Caller {
            pid,
            tid: Some(pid),
            uid: 0,
            cgroup_id: Some(1),
            started_ns,
            exe: None,
            comm: Comm([0; 16]),
            leader_comm: Comm([0; 16]),
        }
    }

    fn own_name() -> Comm {
        let mut name = fs::read("/proc/self/comm").unwrap();
        name.pop();
        name.resize(16, 0);
        Comm(name.try_into().unwrap())
    }

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let stat = b"7 (x) 1 2) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks(b"7 (x"), None);
        assert_eq!(start_ticks(b"7 (x) R 1"), None);
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_asked() {
        let pid = std::process::id();
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap();
        let started_ns = start_ticks(&stat).unwrap() * TICK_NS + 1;
        let now = Instant::now();
        let of_this = Caller {
            leader_comm: own_name(),
            ..caller(pid, started_ns)
        };
        let own = Exes::new().path(&of_this, now);
        assert_eq!(own.as_deref(), std::env::current_exe().unwrap().to_str());
        let before_exec = caller(pid, started_ns);
        assert_eq!(Exes::new().path(&before_exec, now), None);
        let other = Caller {
            started_ns: started_ns + TICK_NS,
            ..of_this
        };
        assert_eq!(Exes::new().path(&other, now), None);
        assert_eq!(Exes::new().path(&caller(u32::MAX, 1), now), None);
    }
}
