//! The root of the cgroup v2 hierarchy, to whose nodes the ids of cgroups belong.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::MetadataExt as _,
        },
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::{path_of, proc_file};

/// Id and inode number of the hierarchy's root on every kernel (`cgroup_setup_root`).
const ROOT_ID: u64 = 1;
/// Type of a handle that is a kernfs node's 64-bit id (`FILEID_KERNFS`).
const FILEID_KERNFS: i32 = 0xfe;
/// Flag of `open_tree` that makes a mount which is visible nowhere (`OPEN_TREE_CLONE`).
const CLONE: libc::c_int = 1;
/// End of a path whose file was deleted meanwhile (`d_path`).
const DELETED: &[u8] = b" (deleted)";

/// File handle of the kernel (`struct file_handle`) that holds a kernfs id.
#[repr(C)]
struct KernfsHandle {
    handle_bytes: u32,
    handle_type: i32,
    id: [u8; 8],
}

/// Root of the cgroup v2 hierarchy.
#[derive(Debug)]
pub(crate) struct CgroupRoot {
    dir: File,
    /// Path of the directory as the kernel names it; `/` on a mount that is visible nowhere.
    path: PathBuf,
    is_own_mount: bool,
}

/// Reason why the root of the cgroup v2 hierarchy cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupGap {
    /// No cgroup v2 filesystem is mounted.
    #[error("no cgroup v2 filesystem is mounted")]
    NotMounted,
    /// Every mount shows a part of the hierarchy only, as in a private cgroup namespace. The error
    /// is that of leaving the part.
    #[error("the cgroup v2 mount shows only the own part of the hierarchy: {0}")]
    OnlyPart(io::Error),
    /// A mount cannot be read, or the list of mounts.
    #[error("the cgroup v2 filesystem cannot be read: {0}")]
    Unreadable(io::Error),
}

impl CgroupGap {
    /// Returns the setting that opens the root to this process.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NotMounted => {
                "mount -t cgroup2 none DIRECTORY on the host; in a container: mount the host's \
                 /sys/fs/cgroup into it"
            }
            Self::OnlyPart(_) => {
                "mount the host's /sys/fs/cgroup into its container (hostPath), or grant \
                 CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH"
            }
            Self::Unreadable(_) => "mount the host's /sys/fs/cgroup, and /proc, into its container",
        }
    }
}

impl CgroupRoot {
    /// Returns the root, opened at the first call. That call needs `CAP_DAC_READ_SEARCH` and
    /// `CAP_SYS_ADMIN` if every mount shows a part of the hierarchy only.
    ///
    /// # Errors
    /// When no mount leads to the root.
    pub(crate) fn get() -> Result<&'static Self, &'static CgroupGap> {
        static ROOT: OnceLock<Result<CgroupRoot, CgroupGap>> = OnceLock::new();
        ROOT.get_or_init(Self::find).as_ref()
    }

    fn find() -> Result<Self, CgroupGap> {
        let mounts = proc_file::read("/proc/self/mountinfo").map_err(CgroupGap::Unreadable)?;
        let mut gap = CgroupGap::NotMounted;
        let mut parts = Vec::new();
        for path in mount_points(&mounts) {
            match open_mount(&path) {
                Ok(dir) if is_root(&dir) => return Self::new(dir, false),
                Ok(part) => parts.push(part),
                Err(error) => gap = CgroupGap::Unreadable(error),
            }
        }
        for part in &parts {
            match leave_part(part) {
                Ok(dir) => return Self::new(dir, true),
                Err(error) => gap = CgroupGap::OnlyPart(error),
            }
        }
        Err(gap)
    }

    fn new(dir: File, is_own_mount: bool) -> Result<Self, CgroupGap> {
        Ok(Self {
            path: path_of(&dir).map_err(CgroupGap::Unreadable)?,
            dir,
            is_own_mount,
        })
    }

    /// Returns the path of the cgroup with this id (`bpf_get_current_cgroup_id`) from the root.
    /// Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `ESTALE` when the cgroup no longer exists.
    pub(crate) fn path(&self, id: u64) -> io::Result<PathBuf> {
        let cgroup = open_by_id(&self.dir, id, libc::O_PATH)?;
        let path = path_of(&cgroup)?;
        let below = path.strip_prefix(&self.path).map_err(io::Error::other)?;
        if below.as_os_str().as_bytes().ends_with(DELETED) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Path::new("/").join(below))
    }

    /// Opens the directory of the cgroup with this id. Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// `ESTALE` when the cgroup no longer exists.
    pub(crate) fn open(&self, id: u64) -> io::Result<File> {
        open_by_id(&self.dir, id, libc::O_RDONLY | libc::O_DIRECTORY).map(File::from)
    }

    /// Returns a path by which this process, and no other, can open a cgroup.
    pub(crate) fn join(&self, below: &str) -> PathBuf {
        let root = format!("/proc/self/fd/{}", self.dir.as_raw_fd());
        Path::new(&root).join(below.trim_start_matches('/'))
    }

    /// Returns the place where the root is mounted; `None` if conntrace mounted it for itself.
    pub(crate) fn mount_point(&self) -> Option<&Path> {
        (!self.is_own_mount).then_some(&*self.path)
    }
}

/// Returns true if controllers of cgroup v1 are in use (`/proc/PID/cgroup` lists them by name). A
/// container can then have cgroups of its own in v1 only.
pub(crate) fn has_v1_controllers(cgroups: &str) -> bool {
    let controllers = cgroups.lines().filter_map(|line| line.split(':').nth(1));
    let mut named = controllers.filter(|it| !it.is_empty() && !it.starts_with("name="));
    named.next().is_some()
}

/// Finds the mount points in `/proc/PID/mountinfo`: `... MOUNT_POINT ... - cgroup2 ...`.
fn mount_points(mountinfo: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    lines.filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let point = fields.nth(4)?;
        // Optional fields are in between.
        fields.find(|&field| field == b"-")?;
        (fields.next()? == b"cgroup2").then(|| unescaped(point))
    })
}

/// Decodes a path of mountinfo, in which the kernel writes some bytes as `\040` (`mangle_path`).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.split_first_chunk().filter(|_| first == b'\\');
        let decoded = digits.and_then(|(digits, after)| Some((octal(*digits)?, after)));
        let (byte, next) = decoded.unwrap_or((first, after));
        path.push(byte);
        rest = next;
    }
    OsString::from_vec(path).into()
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    let is_octal = |digit: &u8| (b'0'..=b'7').contains(digit);
    let digits = digits.iter().all(is_octal).then_some(digits)?;
    u8::from_str_radix(str::from_utf8(&digits).ok()?, 8).ok()
}

/// Opens a mounted cgroup v2 filesystem. Another one may be mounted over it.
fn open_mount(path: &Path) -> io::Result<File> {
    let dir = File::open(path)?;
    if fstatfs(&dir)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(dir)
}

/// Returns true for the root of the hierarchy. That mountinfo shows `/` does not prove it: this is
/// also the root of the reader's cgroup namespace (`cgroup_show_path`).
fn is_root(dir: &File) -> bool {
    dir.metadata().is_ok_and(|found| found.ino() == ROOT_ID)
}

/// Opens the root of the hierarchy through a mount that shows a part of it. A handle leads to any
/// node of the filesystem, but outside of a mount it has no path. The root gets a mount of its own,
/// which is visible nowhere and ends with its last descriptor. An existing mount is copied, because
/// a new one would change the options of the hierarchy (`apply_cgroup_root_flags`).
fn leave_part(part: &File) -> io::Result<File> {
    let root = open_by_id(part, ROOT_ID, libc::O_PATH)?;
    let mounted = clone_mount(&root)?;
    let root = File::open(format!("/proc/self/fd/{}", mounted.as_raw_fd()))?;
    if is_root(&root) {
        Ok(root)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Copies the mount of an open directory into one that has this directory as its root and is
/// visible nowhere (from Linux 5.2). Needs `CAP_SYS_ADMIN`.
fn clone_mount(dir: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    // SAFETY: the path is an empty string, and no memory is written.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), c"".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the cgroup with this id on the filesystem that `mount` lies on.
fn open_by_id(mount: &File, id: u64, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut handle = KernfsHandle {
        handle_bytes: 8,
        handle_type: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the handle has the layout of `struct file_handle`, followed by `handle_bytes`
    // bytes.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            flags | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn mounts() {
        let mountinfo = b"30 23 0:26 / /sys rw - sysfs sysfs rw\n\
            31 30 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/cpu rw shared:9 master:1 - cgroup cgroup rw,cpu\n\
            33 30 0:27 /a /mnt/a\\040b\\134c rw shared:2 - cgroup2 none rw\n\
            34 30 0:27 / /mnt/\xff\xfe rw - cgroup2 none rw\n\
            35 30 0:29 / /cgroup2 rw - ext4 /dev/cgroup2 rw\n\
            nonsense\n";
        let found: Vec<_> = mount_points(mountinfo).collect();
        let bytes = |path: &'static [u8]| PathBuf::from(OsStr::from_bytes(path));
        assert_eq!(
            found,
            [
                bytes(b"/sys/fs/cgroup"),
                bytes(b"/mnt/a b\\c"),
                bytes(b"/mnt/\xff\xfe"),
            ]
        );
    }

    #[test]
    fn escapes() {
        for (written, meant) in [
            (&b"/a\\011\\012b"[..], &b"/a\t\nb"[..]),
            (b"/a\\134040", b"/a\\040"),
            (b"/a\\", b"/a\\"),
            (b"/a\\04", b"/a\\04"),
            (b"/a\\999", b"/a\\999"),
            (b"/a\\777", b"/a\\777"),
            (b"", b""),
        ] {
            let meant = Path::new(OsStr::from_bytes(meant));
            assert_eq!(unescaped(written), meant, "{written:?}");
        }
    }

    #[test]
    fn v1_controllers() {
        assert!(!has_v1_controllers("0::/a\n"));
        assert!(!has_v1_controllers("1:name=systemd:/a\n0::/a\n"));
        assert!(has_v1_controllers(
            "4:memory:/a\n1:name=systemd:/a\n0::/a\n"
        ));
        assert!(!has_v1_controllers("nonsense"));
    }
}
