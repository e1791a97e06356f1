//! Wrappers of system calls for which no crate has one.
#![expect(unsafe_code, reason = "a raw system call")]

mod backlog;
mod cgroup;
mod missed_answers;
mod missed_drops;
pub(crate) mod proc_file;
mod proc_view;
mod shared_pages;

pub(crate) use backlog::Backlog;
pub(crate) use cgroup::{CgroupGap, CgroupRoot, has_v1_controllers};
pub(crate) use missed_answers::MissedAnswers;
pub(crate) use missed_drops::MissedDrops;
pub(crate) use proc_view::{ProcPids, ProcView, proc_pids_are_global, proc_shows_all};
pub(crate) use shared_pages::{ReaderState, RingPositions, SharedPages};

use std::{
    fs::{self, File},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

/// Reads 64 random bits from the kernel (`getrandom`).
///
/// # Errors
/// When the kernel has no random numbers, which does not happen on one that runs BPF programs.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes at most `bytes.len()` bytes.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(filled) == Ok(bytes.len()) {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Calls the system call bpf.
///
/// # Safety
/// The request must have the layout of the part of `union bpf_attr` that the command reads and
/// writes. Memory that it points to must have the size given in the request.
unsafe fn bpf<T>(command: libc::c_long, request: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller guarantees the layout and the sizes.
    let done = unsafe {
        let request = std::ptr::from_mut(request);
        libc::syscall(libc::SYS_bpf, command, request, size_of::<T>())
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

/// Command `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
struct InfoRequest {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// Reads the first words of `struct bpf_prog_info` or `struct bpf_link_info`.
fn info<const WORDS: usize>(of: BorrowedFd<'_>) -> io::Result<[u32; WORDS]> {
    let mut info = [0; WORDS];
    let mut request = InfoRequest {
        fd: of.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of_val(&info)).map_err(io::Error::other)?,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes, which `info` has. All lengths in `info`
    // are 0, so that the kernel follows no address in it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut request) }?;
    Ok(info)
}

/// Returns the number of runs of a BPF program that the kernel skipped because the program was
/// already active on that CPU. Always 0 before Linux 5.12, which does not count them.
///
/// # Errors
/// When the descriptor is not a BPF program.
pub(crate) fn skipped_runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    // `struct bpf_prog_info` up to and including `recursion_misses` at offset 208.
    let info: [u32; 54] = info(program)?;
    let [.., low, high] = info;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Commands `BPF_PROG_GET_FD_BY_ID`, `BPF_LINK_GET_FD_BY_ID` and `BPF_LINK_GET_NEXT_ID`.
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_GET_NEXT_ID: libc::c_long = 31;

/// Part of `union bpf_attr` that the commands on ids read and write.
#[repr(C)]
struct IdRequest {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Returns the next BPF link id after this one; `None` after the last.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, and when the kernel has no links (before Linux 5.8).
pub(crate) fn next_link(after: u32) -> io::Result<Option<u32>> {
    let mut request = IdRequest {
        id: after,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: the request contains no address.
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
    // SAFETY: the request contains no address.
    let fd = unsafe { bpf(command, &mut request) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Link type `BPF_LINK_TYPE_TRACING`, and its attach type `BPF_LSM_MAC`.
const LINK_OF_FUNCTION: u32 = 2;
const OF_SECURITY: u32 = 27;

/// Attachment of a BPF program.
pub(crate) enum ProgramAttachment {
    /// Attachment to an LSM hook: BTF id of the hook (0 before Linux 5.13), and program id.
    Security { hook: u32, program: u32 },
    /// Attachment of any other type.
    Otherwise,
}

/// Returns the attachment that a link stands for.
///
/// # Errors
/// When no object has this id any more.
pub(crate) fn attached(link: u32) -> io::Result<ProgramAttachment> {
    let link = open_by_id(LINK_GET_FD_BY_ID, link)?;
    // `struct bpf_link_info`: type, id, prog_id, padding, attach_type, target_obj_id,
    // target_btf_id. Only tracing links have the last three.
    let info: [u32; 8] = info(link.as_fd())?;
    Ok(match info {
        [LINK_OF_FUNCTION, _, program, _, OF_SECURITY, _, hook, _] => {
            ProgramAttachment::Security { hook, program }
        }
        _ => ProgramAttachment::Otherwise,
    })
}

/// Returns the name of a loaded BPF program.
///
/// # Errors
/// When no object has this id any more.
pub(crate) fn program_name(id: u32) -> io::Result<Vec<u8>> {
    let program = open_by_id(PROG_GET_FD_BY_ID, id)?;
    // `struct bpf_prog_info` up to and including `name` at offset 64.
    let info: [u32; 20] = info(program.as_fd())?;
    let [.., a, b, c, d] = info;
    let name = [a, b, c, d].map(u32::to_ne_bytes).concat();
    let end = name.iter().position(|&byte| byte == 0);
    Ok(name
        .get(..end.unwrap_or(name.len()))
        .unwrap_or_default()
        .to_vec())
}

/// Command `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_long = 16;
/// Flag that includes the programs of parent cgroups (`BPF_F_QUERY_EFFECTIVE`).
const QUERY_EFFECTIVE: u32 = 1;
/// Maximum number of programs in a list; one cgroup has no more of its own (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;
/// Attach types `BPF_CGROUP_INET4_CONNECT` and `BPF_CGROUP_INET6_CONNECT`.
const CONNECT: [u32; 2] = [10, 11];

/// Part of `union bpf_attr` that `BPF_PROG_QUERY` reads and writes.
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

/// Programs of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfCgroup {
    /// Those in effect there, wherever above they are attached.
    InEffect,
    /// Those attached to this very one.
    Attached,
}

/// Lists the ids of the BPF programs that decide on the connects of a cgroup, given as an open
/// directory.
///
/// # Errors
/// When the kernel has no cgroup BPF programs, or refuses to list them, and when they are too many.
pub(crate) fn connect_programs(cgroup: &File, v6: bool, which: OfCgroup) -> io::Result<Vec<u32>> {
    let [v4_type, v6_type] = CONNECT;
    let mut ids = vec![0_u32; PROGRAMS_MAX];
    let mut request = ProgramsRequest {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: if v6 { v6_type } else { v4_type },
        query_flags: match which {
            OfCgroup::InEffect => QUERY_EFFECTIVE,
            OfCgroup::Attached => 0,
        },
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `prog_count` ids to `prog_ids`, and `ids` holds as many
    // and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut request) }?;
    let count = usize::try_from(request.prog_count).map_err(io::Error::other)?;
    ids.truncate(count);
    Ok(ids)
}

/// Returns the path of an open file.
///
/// # Errors
/// When /proc is not mounted.
pub(crate) fn path_of(fd: &impl AsRawFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Identity of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileStatus {
    /// Inode number of the file.
    pub(crate) inode: u64,
    /// Device as in `stat`. On btrfs, and on overlayfs over several filesystems, this is not the
    /// superblock's device.
    pub(crate) device: (u32, u32),
    /// Time of the last inode change (ctime): seconds of wall time, and nanoseconds.
    pub(crate) changed: (i64, u32),
    /// Id of the mount through which the file was opened, as in `/proc/PID/mountinfo`.
    pub(crate) mount: u64,
}

/// Reads the status of an open file, also of one opened with `O_PATH`. It does not ask the
/// server of a network or FUSE filesystem, which might not answer.
///
/// # Errors
/// Before Linux 5.8, which does not report the mount id.
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
    // SAFETY: all bytes are initialised, and every bit pattern is valid.
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

/// Request `NS_GET_NSTYPE` of `linux/nsfs.h`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Returns true if the file is a network namespace.
pub(crate) fn is_network_namespace(file: &File) -> bool {
    // SAFETY: the request takes no argument and writes no memory.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Size in bytes from which a buffer has a mapping of its own.
#[cfg(target_env = "gnu")]
const LARGE_BUFFER: libc::c_int = 256 << 10;

/// Makes all threads allocate from one arena, and each large buffer in a mapping of its own. glibc
/// gives each thread an arena, and never returns the free end of one to the system. It also raises
/// the size of a large buffer with every one that is freed.
pub(crate) fn limit_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BUFFER);
    }
}

/// Returns the memory of this program's code to the system: most of it is for the start. Code that
/// runs again is mapped again, from the page cache or the file.
pub(crate) fn release_code() {
    let here = release_code as *const () as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let code = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let is_it = (start..end).contains(&here) && rest.starts_with("r-xp ");
        is_it.then_some((start, end))
    });
    if let Some((start, end)) = code {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: nobody writes to a mapping without write permission, so that each page is as the
        // file has it, and is read from there when it is used again.
        unsafe { libc::madvise(start, end - start.addr(), libc::MADV_DONTNEED) };
    }
}

/// Returns freed memory to the system. Only glibc keeps enough of it to matter.
pub(crate) fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
