//! Processes and settings that /proc shows to this process.

use std::{fs, io, path::Path, sync::OnceLock};

use caps::{CapSet, Capability};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::proc_file;

/// Link to the initial pid namespace (`PROC_PID_INIT_INO`), the same on every kernel.
const INITIAL: &str = "pid:[4026531836]";
/// Flag of a kernel thread in `/proc/PID/stat` (`PF_KTHREAD`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Pids in /proc, compared with those that the kernel side records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProcPids {
    /// The same: those of the initial pid namespace.
    Same,
    /// Those of another pid namespace. A pid there stands for another process.
    Other,
    /// Unknown, because no procfs is mounted at /proc.
    NoProc,
    /// Unknown for this reason.
    Unknown(String),
}

/// Contents of /proc, as found at the first look.
#[derive(Debug)]
pub(crate) struct ProcView {
    /// Pid namespace of /proc.
    pub(crate) pids: ProcPids,
    /// Mount option that hides other users' processes; `None` if there is none.
    pub(crate) hidepid: Option<String>,
    /// True if this process may inspect others, hidden ones included (`CAP_SYS_PTRACE`).
    pub(crate) may_inspect: bool,
    /// True if sysctls are there. The mount option `subset=pid` hides them.
    pub(crate) has_sysctls: bool,
}

impl ProcView {
    /// Returns the contents of /proc, found out at the first call.
    pub(crate) fn get() -> &'static Self {
        static VIEW: OnceLock<ProcView> = OnceLock::new();
        VIEW.get_or_init(|| Self {
            pids: pids(),
            hidepid: hidepid(&proc_file::read("/proc/self/mountinfo").unwrap_or_default()),
            may_inspect: caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE)
                .unwrap_or(false),
            has_sysctls: Path::new("/proc/sys/kernel").exists(),
        })
    }

    fn shows_all(&self) -> bool {
        self.pids == ProcPids::Same && self.may_inspect
    }
}

/// Returns true if a pid in /proc and the same pid in a record stand for the same process.
/// Otherwise nothing may be read by pid, and no pid from /proc may be in a line.
pub(crate) fn proc_pids_are_global() -> bool {
    ProcView::get().pids == ProcPids::Same
}

/// Returns true if /proc lists every process of the host, and this process may inspect them.
/// Otherwise a search through all of them proves no absence.
pub(crate) fn proc_shows_all() -> bool {
    ProcView::get().shows_all()
}

fn pids() -> ProcPids {
    if !statfs("/proc").is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC) {
        return ProcPids::NoProc;
    }
    let own = fs::read_link("/proc/self/ns/pid");
    let own = own.map(|link| link.to_string_lossy().into_owned());
    let status = proc_file::read("/proc/self/status").unwrap_or_default();
    let second = || proc_file::read("/proc/2/stat").unwrap_or_default();
    compare(own, &String::from_utf8_lossy(&status), second)
}

/// Compares the pid namespace of /proc with the initial one, from the link `/proc/self/ns/pid`,
/// `/proc/self/status`, and the `stat` of pid 2.
fn compare(own: io::Result<String>, status: &str, second: impl Fn() -> Vec<u8>) -> ProcPids {
    let own = match own {
        Ok(own) => own,
        // In a namespace that /proc does not show, the own process has no pid there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return ProcPids::Other,
        Err(error) => return ProcPids::Unknown(format!("/proc/self/ns/pid: {error}")),
    };
    // A pid for each namespace, from that of /proc down to the process's own (`proc_task_name`).
    let levels = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map_or(0, |pids| pids.split_ascii_whitespace().count());
    let is_same = match levels {
        0 => return ProcPids::Unknown("/proc/self/status has no NSpid".to_owned()),
        1 => own == INITIAL,
        // /proc is that of an outer namespace, as with the host's /proc mounted in a container.
        // Only the initial one has kernel threads, and the second process is always one.
        _ => is_kernel_thread(&second()),
    };
    if is_same {
        ProcPids::Same
    } else {
        ProcPids::Other
    }
}

/// Returns true for the `stat` of a kernel thread. Its name can hold any byte.
fn is_kernel_thread(stat: &[u8]) -> bool {
    let flags = || {
        let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let rest = str::from_utf8(stat.get(after_name..)?).ok()?;
        rest.split_ascii_whitespace().nth(6)?.parse::<u32>().ok()
    };
    flags().is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// Finds the option that hides processes in `/proc/PID/mountinfo`. Of mounts over one another the
/// last one counts.
fn hidepid(mountinfo: &[u8]) -> Option<String> {
    let mountinfo = String::from_utf8_lossy(mountinfo);
    let options = mountinfo.lines().rev().find_map(|line| {
        let (left, right) = line.split_once(" - proc ")?;
        (left.split(' ').nth(4) == Some("/proc")).then_some(right)
    })?;
    let hides = |option: &&str| {
        option.starts_with("hidepid=") && !["hidepid=0", "hidepid=off"].contains(option)
    };
    options.split([' ', ',']).find(hides).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KTHREADD: &[u8] = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0\n";
    const SHELL: &[u8] = b"2 (a) S 9) S 1 1 1 0 -1 4194560 0 0 0 0 0 0\n";

    #[test]
    fn pid_namespaces() {
        let of = |own: &str, pids: &str, second: &[u8]| {
            let status = format!("Name:\tx\nNSpid:\t{pids}\nVmRSS:\t1\n");
            compare(Ok(own.to_owned()), &status, || second.to_vec())
        };
        let inner = "pid:[4026532001]";
        assert_eq!(of(INITIAL, "812", b""), ProcPids::Same);
        assert_eq!(of(inner, "7", SHELL), ProcPids::Other);
        // The host's /proc in a container, and the outer container's in an inner one.
        assert_eq!(of(inner, "812\t7", KTHREADD), ProcPids::Same);
        assert_eq!(of(inner, "812\t7", SHELL), ProcPids::Other);
        assert_eq!(of(inner, "812\t7", b""), ProcPids::Other);
        let absent = Err(io::ErrorKind::NotFound.into());
        assert_eq!(compare(absent, "", Vec::new), ProcPids::Other);
        for unknown in [
            compare(Err(io::ErrorKind::PermissionDenied.into()), "", Vec::new),
            compare(Ok(INITIAL.to_owned()), "", Vec::new),
        ] {
            assert!(matches!(unknown, ProcPids::Unknown(_)), "{unknown:?}");
        }
    }

    #[test]
    fn hidden_processes() {
        let plain = "22 27 0:21 / /proc rw,relatime - proc proc rw\n";
        assert_eq!(hidepid(plain.as_bytes()), None);
        assert_eq!(hidepid(b""), None);
        for option in ["hidepid=invisible", "hidepid=2", "hidepid=ptraceable"] {
            let over = format!("{plain}33 22 0:40 / /proc rw - proc proc rw,gid=4,{option}\n");
            assert_eq!(hidepid(over.as_bytes()).as_deref(), Some(option));
        }
        let off = b"33 22 0:40 / /proc rw - proc proc rw,hidepid=off\n";
        assert_eq!(hidepid(off), None);
    }

    #[test]
    fn only_a_complete_view_proves_absence() {
        let view = |pids, hidepid: Option<&str>, may_inspect| ProcView {
            pids,
            hidepid: hidepid.map(str::to_owned),
            may_inspect,
            has_sysctls: true,
        };
        assert!(view(ProcPids::Same, None, true).shows_all());
        assert!(view(ProcPids::Same, Some("hidepid=2"), true).shows_all());
        assert!(!view(ProcPids::Same, None, false).shows_all());
        assert!(!view(ProcPids::Other, None, true).shows_all());
    }
}
