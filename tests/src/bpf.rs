//! BPF programs of a few instructions, which no loader is needed for.
#![expect(unsafe_code, reason = "nix has no bpf system call")]

use std::{
    fs::File,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
};

/// Program type of a cgroup hook on an address.
pub(crate) const CGROUP_SOCK_ADDR: u32 = 18;
/// Program type of a BPF security module.
pub(crate) const LSM: u32 = 29;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;

/// License that some helpers require.
static LICENSE: &std::ffi::CStr = c"GPL";

/// `union bpf_attr` as 32-bit words.
type Attributes = [u32; 32];

/// Loads a program for this attach type, and for this type of the kernel's BTF if not 0.
pub(crate) fn load(
    kind: u32,
    attached: u32,
    to_btf_id: u32,
    instructions: &[u64],
) -> nix::Result<OwnedFd> {
    // Before Linux 5.11 programs count as locked memory; not everyone may have more.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let mut load = Attributes::default();
    load[0] = kind;
    load[1] = u32::try_from(instructions.len()).unwrap();
    put_address(&mut load[2..4], instructions.as_ptr().addr());
    put_address(&mut load[4..6], LICENSE.as_ptr().addr());
    // expected_attach_type, attach_btf_id
    load[17] = attached;
    load[27] = to_btf_id;
    let fd = bpf(PROG_LOAD, &mut load)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup until the cgroup is removed.
pub(crate) fn attach_to_cgroup(cgroup: &File, program: &OwnedFd, attached: u32) -> nix::Result<()> {
    let mut attach = Attributes::default();
    attach[0] = raw(cgroup.as_raw_fd());
    attach[1] = raw(program.as_raw_fd());
    attach[2] = attached;
    bpf(PROG_ATTACH, &mut attach).map(drop)
}

/// Attaches a program to its hook until the returned descriptor is closed.
pub(crate) fn attach(program: &OwnedFd) -> nix::Result<OwnedFd> {
    let mut open = Attributes::default();
    open[2] = raw(program.as_raw_fd());
    let fd = bpf(RAW_TRACEPOINT_OPEN, &mut open)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn put_address(words: &mut [u32], address: usize) {
    let address = u64::try_from(address).unwrap().to_ne_bytes();
    for (word, bytes) in words.iter_mut().zip(address.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
}

fn raw(fd: RawFd) -> u32 {
    u32::try_from(fd).unwrap()
}

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> nix::Result<RawFd> {
    let len = size_of_val(attributes);
    // SAFETY: the attributes are that long, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), len) };
    Errno::result(result).map(|fd| RawFd::try_from(fd).unwrap())
}
