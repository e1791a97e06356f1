//! Cgroups (v2) for processes of the tests, and a policy for one.
#![expect(unsafe_code, reason = "nix has no bpf system call")]

use std::{
    fs,
    fs::File,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{errno::Errno, libc};

/// A cgroup. Removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A new one of this name, from the root of the cgroup filesystem; `None` if
    /// none can be made here.
    pub fn new(name: &str) -> Option<Self> {
        let path = root()?.join(name);
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Where the one is that this process is in.
    pub fn own_path() -> PathBuf {
        let root = root().expect("cgroup v2 is mounted");
        root.join(own_cgroup().trim_start_matches('/'))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a command in it that does nothing before its stdin is closed. Returns
    /// its process id.
    pub fn run(&self, command: &mut Command) -> u32 {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        fs::write(self.0.join("cgroup.procs"), child.id().to_string()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        child.id()
    }

    /// Denies every connect of its processes, as a container platform's network
    /// policy does: by a BPF program at the cgroup.
    ///
    /// # Errors
    /// When the kernel has no such programs.
    pub fn deny_connects(&self) -> nix::Result<()> {
        for family in [INET4_CONNECT, INET6_CONNECT] {
            self.attach(family, &DENY)?;
        }
        Ok(())
    }

    /// Has an IPv4 connect of its processes run the shortest program there is.
    /// Returns the program, for what the kernel says of its runs.
    ///
    /// # Errors
    /// When the kernel has no such programs.
    pub fn run_empty_program(&self) -> nix::Result<OwnedFd> {
        self.attach(INET4_CONNECT, &ALLOW)
    }

    fn attach(&self, family: u32, program: &'static [u64; 2]) -> nix::Result<OwnedFd> {
        let cgroup = File::open(&self.0).unwrap();
        let program = load(family, program)?;
        let mut attach = [0u32; 32];
        attach[0] = raw(cgroup.as_raw_fd());
        attach[1] = raw(program.as_raw_fd());
        attach[2] = family;
        bpf(PROG_ATTACH, &mut attach)?;
        Ok(program)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// This process's cgroup, as the kernel names it.
pub fn own_cgroup() -> String {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    own.unwrap().to_owned()
}

fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then_some(())?;
        left.split(' ').nth(4).map(PathBuf::from)
    })
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const CGROUP_SOCK_ADDR: u32 = 18;
const INET4_CONNECT: u32 = 10;
const INET6_CONNECT: u32 = 11;

/// `r0 = 0; exit`: not allowed.
static DENY: [u64; 2] = [0xb7, 0x95];
/// `r0 = 1; exit`: allowed.
static ALLOW: [u64; 2] = [1 << 32 | 0xb7, 0x95];
static LICENSE: &std::ffi::CStr = c"MIT";

/// Loads a program for connects of this family; `union bpf_attr` in words.
fn load(family: u32, program: &'static [u64; 2]) -> nix::Result<OwnedFd> {
    let mut load = [0u32; 32];
    load[0] = CGROUP_SOCK_ADDR;
    load[1] = u32::try_from(program.len()).unwrap();
    put_address(&mut load[2..4], program.as_ptr().addr());
    put_address(&mut load[4..6], LICENSE.as_ptr().addr());
    // expected_attach_type
    load[17] = family;
    let fd = bpf(PROG_LOAD, &mut load)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
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

fn bpf(command: libc::c_int, attr: &mut [u32; 32]) -> nix::Result<RawFd> {
    let len = size_of_val(attr);
    // SAFETY: the attributes are that long, and what they point to is static.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), len) };
    Errno::result(result).map(|fd| RawFd::try_from(fd).unwrap())
}
