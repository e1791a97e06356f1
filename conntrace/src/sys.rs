//! System calls that no crate wraps.
#![expect(unsafe_code, reason = "a raw system call")]

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use tokio::io::unix::AsyncFd;

/// Lets the event loop watch a descriptor for readability.
///
/// # Errors
/// When the kernel cannot watch it.
pub(crate) fn watch<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: an owner that lends its descriptor keeps it open as long as it
    // lives, and the event loop forgets it before it drops the owner.
    unsafe { AsyncFd::register(owner) }.map_err(io::Error::from)
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

/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// `struct bpf_prog_info` up to and with `recursion_misses`, which lies at 208.
const INFO_LEN: u32 = 208 + 8;

/// The part of `union bpf_attr` that this command reads.
#[repr(C)]
struct InfoRequest {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// How many runs of a loaded BPF program the kernel skipped, because it was
/// already active on that CPU. 0 where the kernel does not count them (before
/// Linux 5.12).
///
/// # Errors
/// When the descriptor is of no BPF program.
pub(crate) fn skipped_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = [0u64; INFO_LEN as usize / size_of::<u64>()];
    let mut request = InfoRequest {
        fd: program.as_raw_fd().cast_unsigned(),
        info_len: INFO_LEN,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the request has the layout of the union's part, and the kernel writes
    // at most `info_len` bytes, which `info` has. All lengths in `info` are 0, so
    // that no address in it is written to.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET_INFO_BY_FD,
            &raw mut request,
            size_of::<InfoRequest>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info.last().copied().unwrap_or(0))
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
    // SAFETY: the request has the layout of the union's part. Without room for ids
    // the kernel writes into the request only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_QUERY,
            &raw mut request,
            size_of::<ProgramsRequest>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request.prog_count)
}

/// Where an open file lies.
///
/// # Errors
/// When /proc is not mounted.
pub(crate) fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
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
