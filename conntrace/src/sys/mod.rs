//! System calls that no crate wraps.
#![expect(unsafe_code, reason = "a raw system call")]

mod backlog;
mod cgroup;
pub(crate) mod proc_file;

pub(crate) use backlog::Backlog;
pub(crate) use cgroup::mount_point as cgroup_mount_point;

use std::{
    fs,
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
    path::PathBuf,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Random bits of the kernel's (`getrandom`).
///
/// # Errors
/// When it has none, which no kernel that runs BPF programs has.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes as many bytes as there are.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(filled) == Ok(bytes.len()) {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `FILEID_KERNFS`: a handle that is a kernfs node's 64-bit id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with a kernfs id in it.
#[repr(C)]
struct KernfsHandle {
    handle_bytes: u32,
    handle_type: i32,
    id: [u8; 8],
}

/// Opens the cgroup with this id (`bpf_get_current_cgroup_id`) on the cgroup
/// filesystem that `mount` lies on. Needs `CAP_DAC_READ_SEARCH`.
///
/// # Errors
/// `ESTALE` when the cgroup is gone.
pub(crate) fn open_cgroup(mount: &File, id: u64) -> io::Result<OwnedFd> {
    let mut handle = KernfsHandle {
        handle_bytes: 8,
        handle_type: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the handle has the layout of `struct file_handle`, and as many
    // bytes behind its header as it says.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The system call bpf.
///
/// # Safety
/// The request must have the layout of what the command reads and writes of `union
/// bpf_attr`, and whatever it points to the size that it says.
unsafe fn bpf<T>(command: libc::c_long, request: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's.
    let done = unsafe {
        let request = std::ptr::from_mut(request);
        libc::syscall(libc::SYS_bpf, command, request, size_of::<T>())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// The part of `union bpf_attr` that this command reads.
#[repr(C)]
struct InfoRequest {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// Words of what the kernel tells of a program or link.
fn info<const WORDS: usize>(of: BorrowedFd<'_>) -> io::Result<[u32; WORDS]> {
    let mut info = [0; WORDS];
    let mut request = InfoRequest {
        fd: of.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of_val(&info)).map_err(io::Error::other)?,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes, which `info` has. All lengths
    // in `info` are 0, so that no address in it is written to.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut request) }?;
    Ok(info)
}

/// How many runs of a loaded BPF program the kernel skipped, because it was
/// already active on that CPU. 0 where the kernel does not count them (before
/// Linux 5.12).
///
/// # Errors
/// When the descriptor is of no BPF program.
pub(crate) fn skipped_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    // `struct bpf_prog_info` up to and with `recursion_misses`, which lies at 208.
    let info: [u32; 54] = info(program)?;
    let [.., low, high] = info;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// `BPF_PROG_GET_FD_BY_ID`, `BPF_LINK_GET_FD_BY_ID`, `BPF_LINK_GET_NEXT_ID`.
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_GET_NEXT_ID: libc::c_long = 31;

/// The part of `union bpf_attr` that these commands read and write.
#[repr(C)]
struct IdRequest {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The id after this one of a link of a program to a hook; none after the last.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, and when the kernel has no links (before Linux 5.8).
pub(crate) fn next_link(after: u32) -> io::Result<Option<u32>> {
    let mut request = IdRequest {
        id: after,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: there is no address in it.
    match unsafe { bpf(LINK_GET_NEXT_ID, &mut request) } {
        Ok(_) => Ok(Some(request.next_id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let mut request = IdRequest {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: there is no address in it.
    let fd = unsafe { bpf(command, &mut request) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_LINK_TYPE_TRACING`, and `BPF_LSM_MAC` of such.
const LINK_OF_FUNCTION: u32 = 2;
const OF_SECURITY: u32 = 27;

/// How a program is attached.
pub(crate) enum ProgramAttachment {
    /// To a hook of security, known by its type's id (0 before Linux 5.13).
    Security { hook: u32, program: u32 },
    /// In another way.
    Otherwise,
}

/// What this link is of.
///
/// # Errors
/// When there is none of this id any more.
pub(crate) fn attached(link: u32) -> io::Result<ProgramAttachment> {
    let link = open_by_id(LINK_GET_FD_BY_ID, link)?;
    // `struct bpf_link_info`: type, id, prog_id, padding, attach_type, target_obj_id,
    // target_btf_id, the last three of such links only.
    let info: [u32; 8] = info(link.as_fd())?;
    Ok(match info {
        [LINK_OF_FUNCTION, _, program, _, OF_SECURITY, _, hook, _] => {
            ProgramAttachment::Security { hook, program }
        }
        _ => ProgramAttachment::Otherwise,
    })
}

/// The name of a loaded BPF program.
///
/// # Errors
/// When there is none of this id any more.
pub(crate) fn program_name(id: u32) -> io::Result<Vec<u8>> {
    let program = open_by_id(PROG_GET_FD_BY_ID, id)?;
    // `struct bpf_prog_info` up to and with `name`, which lies at 64.
    let info: [u32; 20] = info(program.as_fd())?;
    let [.., a, b, c, d] = info;
    let name = [a, b, c, d].map(u32::to_ne_bytes).concat();
    let end = name.iter().position(|&byte| byte == 0);
    Ok(name
        .get(..end.unwrap_or(name.len()))
        .unwrap_or_default()
        .to_vec())
}

/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_long = 16;
/// `BPF_F_QUERY_EFFECTIVE`: those of the cgroups above it as well.
const QUERY_EFFECTIVE: u32 = 1;
/// `BPF_CGROUP_INET4_CONNECT`, `BPF_CGROUP_INET6_CONNECT`.
const CONNECT: [u32; 2] = [10, 11];

/// The part of `union bpf_attr` that this command reads and writes.
#[repr(C)]
struct ProgramsRequest {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    padding: u32,
}

/// How many BPF programs decide on the connects of a cgroup, an open folder.
///
/// # Errors
/// When the kernel has no such programs, or refuses.
pub(crate) fn connect_programs(cgroup: &File, v6: bool) -> io::Result<u32> {
    let [v4_type, v6_type] = CONNECT;
    let mut request = ProgramsRequest {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: if v6 { v6_type } else { v4_type },
        query_flags: QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: 0,
        prog_count: 0,
        padding: 0,
    };
    // SAFETY: without room for ids the kernel writes into the request only.
    unsafe { bpf(PROG_QUERY, &mut request) }?;
    Ok(request.prog_count)
}

/// Where an open file lies.
///
/// # Errors
/// When /proc is not mounted.
pub(crate) fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// What tells a file from every other one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileStatus {
    /// Its inode number.
    pub(crate) inode: u64,
    /// Its device as `stat` has it: on btrfs, and on overlayfs over several filesystems,
    /// not the superblock's.
    pub(crate) device: (u32, u32),
    /// When its inode last changed: seconds of wall time, and nanoseconds.
    pub(crate) changed: (i64, u32),
    /// The id of the mount through which it was opened, as in `/proc/PID/mountinfo`.
    pub(crate) mount: u64,
}

/// What the kernel knows of an open file, which may have been opened with `O_PATH`. No
/// server of a network or FUSE filesystem is asked: it might not answer.
///
/// # Errors
/// Before Linux 5.8, which tells no mount.
pub(crate) fn status(file: BorrowedFd<'_>) -> io::Result<FileStatus> {
    let wanted = libc::STATX_INO | libc::STATX_CTIME | libc::STATX_MNT_ID;
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty string, and the kernel writes at most one `statx`.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            wanted,
            status.as_mut_ptr(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of its bytes are initialised, and any are valid.
    let status = unsafe { status.assume_init() };
    if status.stx_mask & wanted != wanted {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(FileStatus {
        inode: status.stx_ino,
        device: (status.stx_dev_major, status.stx_dev_minor),
        changed: (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec),
        mount: status.stx_mnt_id,
    })
}

/// `NS_GET_NSTYPE` of `linux/nsfs.h`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Whether this file of a namespace is one of a network namespace.
pub(crate) fn is_network_namespace(file: &File) -> bool {
    // SAFETY: it takes no argument and writes nowhere.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Gives freed memory back to the system; only glibc keeps so much of it.
pub(crate) fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Positions in a BPF ring buffer, shared with the kernel: `consumer_pos` and `producer_pos` of
/// `struct bpf_ringbuf`, a page each.
#[derive(Debug)]
pub(crate) struct RingPositions {
    pages: NonNull<u8>,
    page_size: usize,
}

// SAFETY: the pages are only read, by atomic loads, and stay mapped as long as this lives.
unsafe impl Send for RingPositions {}
// SAFETY: likewise.
unsafe impl Sync for RingPositions {}

impl RingPositions {
    /// Maps the two pages, to read them.
    ///
    /// # Errors
    /// When this is no ring buffer, or there is no memory.
    pub(crate) fn of(ring: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: it takes no pointer.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_size = usize::try_from(page_size).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses the address, so that nothing is mapped over.
        let pages = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * page_size,
                libc::PROT_READ,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                0,
            )
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = NonNull::new(pages.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pages, page_size })
    }

    /// Number of bytes that were reserved and not read yet.
    pub(crate) fn waiting(&self) -> usize {
        let position = |page: usize| {
            // SAFETY: each page begins with an `unsigned long`, which the kernel and the reader
            // change atomically.
            let position = unsafe {
                let at = self.pages.add(page * self.page_size);
                at.cast::<AtomicUsize>().as_ref()
            };
            position.load(Ordering::Acquire)
        };
        // The reader never overtakes: read first, it is behind the other.
        let consumer = position(0);
        position(1).wrapping_sub(consumer)
    }
}

impl Drop for RingPositions {
    fn drop(&mut self) {
        // SAFETY: both pages are this one's, and nobody else has a reference to them.
        unsafe {
            libc::munmap(self.pages.as_ptr().cast(), 2 * self.page_size);
        }
    }
}
