//! Path of the executable that a process ran when it called connect.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    host::{AttemptStart, attention::visit, cache::Cache},
    output::event::PATH_JSON_MAX,
    record::{Caller, ExeId, clock, sanitize},
    sys::{self, FileStatus},
};

/// Lifetime of a cached path.
const AGE_MAX: Duration = Duration::from_secs(1);
const LEN_MAX: usize = 4096;
/// Maximum lag of an inode's change time behind the clock. It is that of the kernel's last tick
/// (`ktime_get_coarse_real_ts64`), and there are at least 100 ticks a second.
const TICK: SignedDuration = SignedDuration::from_millis(10);
/// Maximum bytes of a process's mount table read.
const MOUNTS_MAX: u64 = 1 << 20;

/// Length of a tick in `/proc/PID/stat` (`USER_HZ`), in nanoseconds: a hundredth of a second on
/// every architecture.
pub(crate) const TICK_NS: u64 = 10_000_000;

/// Process and executable. The start time distinguishes it from a later process with the same pid.
pub(crate) type ExeKey = (u32, u64, ExeId);

/// Returns the key of a caller's executable.
pub(crate) fn exe_key(caller: &Caller, exe: ExeId) -> ExeKey {
    (caller.pid, caller.started_ns, exe)
}

/// Look for the path of a caller's executable.
#[derive(Debug, Clone)]
pub(crate) struct ExeRequest {
    caller: Caller,
    exe: ExeId,
    began: AttemptStart,
}

impl ExeRequest {
    /// Creates the look for the executable that a caller ran when its attempt began.
    pub(crate) fn new(caller: &Caller, exe: ExeId, began: AttemptStart) -> Self {
        Self {
            caller: caller.clone(),
            exe,
            began,
        }
    }

    /// Returns the process and executable that it is about.
    pub(crate) fn key(&self) -> ExeKey {
        exe_key(&self.caller, self.exe)
    }

    /// Looks. It can hang for as long as the process likes.
    pub(crate) fn look(&self) -> ExeLookup {
        ExeLookup {
            at_ns: clock::boot_ns(),
            found: visit(self.caller.pid, |process| {
                Ok(look_up(process, &self.caller, self.exe))
            })
            .unwrap_or_default(),
        }
    }

    /// Returns the path if this look tells it of the attempt.
    fn answer(&self, lookup: ExeLookup) -> Option<Arc<str>> {
        let found = lookup.found?;
        (found.changed + TICK < self.began.wall).then_some(found.path)
    }
}

/// Cache of executables' paths.
#[derive(Debug)]
pub(crate) struct Exes {
    lookups: Cache<ExeKey, ExeLookup>,
}

/// Result of one look in /proc.
#[derive(Debug, Clone)]
pub(crate) struct ExeLookup {
    /// Start of the look, `CLOCK_BOOTTIME` nanoseconds.
    at_ns: u64,
    found: Option<ExeFile>,
}

/// File with the recorded device and inode number.
#[derive(Debug, Clone)]
struct ExeFile {
    path: Arc<str>,
    /// Last change of the inode (ctime): the inode number has belonged to this file since.
    changed: Timestamp,
}

impl Exes {
    pub(crate) fn new() -> Self {
        Self {
            lookups: Cache::new(AGE_MAX, LEN_MAX),
        }
    }

    /// Returns the path of the executable that the caller ran when the attempt began, or the look
    /// that tells it.
    ///
    /// `None` for a kernel thread, and if the process has exited or run another executable. A file
    /// that changed after the attempt began is not named either: it may be a new file with a reused
    /// inode number.
    pub(crate) fn path(
        &mut self,
        caller: &Caller,
        began: AttemptStart,
        now: Instant,
    ) -> Result<Option<Arc<str>>, Box<ExeRequest>> {
        let Some(exe) = caller.exe else {
            return Ok(None);
        };
        let request = ExeRequest::new(caller, exe, began);
        self.known(&request, now).ok_or_else(|| Box::new(request))
    }

    /// Returns what a cached look tells; `None` if there is none that serves.
    pub(crate) fn known(&mut self, request: &ExeRequest, now: Instant) -> Option<Option<Arc<str>>> {
        let serves = |lookup: &ExeLookup| request.began.boot_ns <= lookup.at_ns;
        let lookup = self.lookups.find(&request.key(), now, serves)?;
        Some(request.answer(lookup))
    }

    /// Caches a look.
    pub(crate) fn put(&mut self, key: ExeKey, lookup: ExeLookup, now: Instant) {
        self.lookups.put(key, now, lookup);
    }
}

fn look_up(process: &Path, caller: &Caller, exe: ExeId) -> Option<ExeFile> {
    // An open descriptor refers to one file, even if the process calls execve meanwhile.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(process.join("exe"))
        .ok()?;
    let file = OwnedFd::from(file);
    let status = sys::status(file.as_fd()).ok()?;
    if !is_it(&status, exe, process, caller) {
        return None;
    }
    let path = sys::path_of(&file).ok()?;
    let (seconds, nanoseconds) = status.changed;
    let changed = Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?;
    // Checked last: if the pid still belongs to the process, it did so before.
    let stat = fs::read(process.join("stat")).ok()?;
    (start_ticks(&stat)? == caller.started_ns / TICK_NS).then(|| ExeFile {
        path: sanitize::bounded(path.as_os_str().as_bytes(), PATH_JSON_MAX).into(),
        changed,
    })
}

/// Compares the process's current executable with the recorded one.
///
/// The kernel side records the superblock's device. `stat` returns the same, except for btrfs and
/// for overlayfs over several filesystems, which have a device per subvolume or layer. For these
/// the device of the mount is compared. Several files can then share an inode number, so the
/// process name must match as well.
fn is_it(status: &FileStatus, exe: ExeId, process: &Path, caller: &Caller) -> bool {
    if status.inode != exe.inode {
        return false;
    }
    kernel_device(status.device) == exe.device
        || (mount_device(process, status.mount) == Some(exe.device)
            && name(process).as_deref() == Some(caller.leader_comm.as_bytes()))
}

/// Encodes a device as the kernel does (`MKDEV`).
fn kernel_device((major, minor): (u32, u32)) -> u32 {
    major << 20 | minor
}

/// Reads the process name from `comm`; the one in `stat` has characters escaped.
fn name(process: &Path) -> Option<Vec<u8>> {
    let mut name = fs::read(process.join("comm")).ok()?;
    (name.pop()? == b'\n').then_some(name)
}

/// Returns the superblock's device for a mount id, if the process sees that mount. `/proc/PID/maps`
/// is not used: a process can hold its memory lock.
fn mount_device(process: &Path, id: u64) -> Option<u32> {
    let mounts = File::open(process.join("mountinfo")).ok()?;
    let mut mounts = BufReader::new(mounts.take(MOUNTS_MAX));
    let mut line = Vec::new();
    while mounts.read_until(b'\n', &mut line).ok()? > 0 {
        if let Some((_, device)) = mount(&line).filter(|&(mount, _)| mount == id) {
            return Some(device);
        }
        line.clear();
    }
    None
}

/// Parses id and device from a line such as `72 66 0:45 / /mnt rw - overlay overlay rw`.
fn mount(line: &[u8]) -> Option<(u64, u32)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut field = |n| str::from_utf8(fields.nth(n)?).ok();
    let id = field(0)?.parse().ok()?;
    let (major, minor) = field(1)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    Some((id, kernel_device(device)))
}

/// Parses field 22 of `/proc/PID/stat`: the process's start, in ticks since boot. Field 2 is the
/// name in parentheses and can hold any byte.
pub(crate) fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::linux::fs::MetadataExt as _;

    use super::*;
    use crate::record::{Comm, clock::WallClock};

    /// Returns this process and its executable, as the kernel side would record them.
    fn own() -> Caller {
        let pid = std::process::id();
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap();
        let exe = fs::metadata("/proc/self/exe").unwrap();
        let (major, minor) = (
            nix::sys::stat::major(exe.st_dev()),
            nix::sys::stat::minor(exe.st_dev()),
        );
        let device = (major.try_into().unwrap(), minor.try_into().unwrap());
        Caller {
            pid,
            tid: Some(pid),
            uid: 0,
            cgroup_id: Some(1),
            started_ns: start_ticks(&stat).unwrap() * TICK_NS + 1,
            comm: Comm([0; 16]),
            leader_comm: Comm([0; 16]),
            exe: Some(ExeId {
                device: kernel_device(device),
                inode: exe.st_ino(),
            }),
        }
    }

    fn began() -> AttemptStart {
        let mut clock = WallClock::default();
        clock.follow().unwrap();
        AttemptStart::new(clock::boot_ns(), &clock)
    }

    /// Looks if no cached look serves.
    fn look(exes: &mut Exes, caller: &Caller, began: AttemptStart) -> Option<Arc<str>> {
        let now = Instant::now();
        match exes.path(caller, began, now) {
            Ok(path) => path,
            Err(request) => {
                exes.put(request.key(), request.look(), now);
                exes.known(&request, now).unwrap()
            }
        }
    }

    fn path(caller: &Caller, began: AttemptStart) -> Option<Arc<str>> {
        look(&mut Exes::new(), caller, began)
    }

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let stat = b"7 (x) 1 2) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks(b"7 (x"), None);
        assert_eq!(start_ticks(b"7 (x) R 1"), None);
    }

    #[test]
    fn mounts() {
        let line = b"72 66 0:45 / /mnt/a\\040b rw,relatime shared:7 - overlay overlay rw\n";
        assert_eq!(mount(line), Some((72, 45)));
        assert_eq!(
            mount(b"1 1 8:2 / / rw - ext4 /dev/sda2 rw\n"),
            Some((1, 8 << 20 | 2))
        );
        for nonsense in [&b"72 66"[..], b"x 66 0:45 /", b"72 66 45 /", b""] {
            assert_eq!(mount(nonsense), None);
        }
    }

    #[test]
    fn the_own_mount_has_the_own_device() {
        // /proc has the same device in both, whatever filesystem holds this executable.
        let proc = OwnedFd::from(File::open("/proc/self/stat").unwrap());
        let status = sys::status(proc.as_fd()).unwrap();
        let device = mount_device(Path::new("/proc/self"), status.mount);
        assert_eq!(device, Some(kernel_device(status.device)));
        assert_eq!(mount_device(Path::new("/proc/self"), u64::MAX), None);
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_asked() {
        let own = own();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(path(&own, began()).as_deref(), exe.to_str());
        let later = Caller {
            started_ns: own.started_ns + TICK_NS,
            ..own.clone()
        };
        assert_eq!(path(&later, began()), None);
        let none = Caller {
            pid: u32::MAX,
            ..own
        };
        assert_eq!(path(&none, began()), None);
    }

    #[test]
    fn another_file_is_not_named() {
        let own = own();
        let exe = own.exe.unwrap();
        let others = [
            None,
            Some(ExeId {
                inode: exe.inode + 1,
                ..exe
            }),
            Some(ExeId {
                device: exe.device ^ 1,
                ..exe
            }),
        ];
        for exe in others {
            assert_eq!(
                path(&Caller { exe, ..own.clone() }, began()),
                None,
                "{exe:?}"
            );
        }
    }

    #[test]
    fn a_file_that_changed_since_is_not_named() {
        let own = own();
        let status = fs::metadata("/proc/self/exe").unwrap();
        let nanoseconds = i32::try_from(status.st_ctime_nsec()).unwrap();
        let changed = Timestamp::new(status.st_ctime(), nanoseconds).unwrap();
        let at = |wall| AttemptStart { wall, ..began() };
        assert_eq!(path(&own, at(changed + TICK)), None);
        let later = changed + TICK + SignedDuration::from_nanos(1);
        assert!(path(&own, at(later)).is_some());
    }

    #[test]
    fn a_look_serves_only_attempts_that_began_before_it() {
        let own = own();
        let mut exes = Exes::new();
        let early = began();
        assert!(look(&mut exes, &own, early).is_some());
        assert!(exes.path(&own, early, Instant::now()).is_ok());
        let late = began();
        let request = exes.path(&own, late, Instant::now()).unwrap_err();
        // A look that began before the attempt is no answer to it.
        exes.put(
            request.key(),
            ExeLookup {
                at_ns: late.boot_ns - 1,
                found: None,
            },
            Instant::now(),
        );
        assert_eq!(exes.known(&request, Instant::now()), None);
        exes.put(request.key(), request.look(), Instant::now());
        assert!(exes.known(&request, Instant::now()).unwrap().is_some());
    }
}
