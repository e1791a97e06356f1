//! Cgroups (v2) for processes of the tests, and a policy for one.
use std::{
    fs,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::bpf;

/// Cgroup that is removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Returns the missing requirement if no cgroup can be created here.
    pub fn lacks() -> Option<&'static str> {
        root().is_none().then_some("needs cgroup v2")
    }

    /// A new one of this name, from the root of the cgroup filesystem.
    pub fn new(name: impl AsRef<Path>) -> Self {
        let path = root().expect("cgroup v2 is mounted").join(name);
        // One that a killed test left: of no use, and mostly not there.
        let _ = fs::remove_dir(&path);
        fs::create_dir(&path).expect("root can make a cgroup");
        Self(path)
    }

    /// Returns the path of the root cgroup.
    pub fn root_path() -> PathBuf {
        root().expect("cgroup v2 is mounted")
    }

    /// Returns the path of this process's own cgroup.
    pub fn own_path() -> PathBuf {
        Self::root_path().join(own_cgroup().trim_start_matches('/'))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a command in the cgroup that does nothing before its stdin is closed. Returns its
    /// process id.
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

    /// Attaches the shortest possible program to every IPv4 connect of its processes. Returns the
    /// program, because the kernel counts its runs.
    ///
    /// # Errors
    /// When the kernel has no such programs.
    pub fn run_empty_program(&self) -> nix::Result<OwnedFd> {
        self.attach(INET4_CONNECT, &ALLOW)
    }

    fn attach(&self, family: u32, program: &[u64]) -> nix::Result<OwnedFd> {
        let cgroup = File::open(&self.0).unwrap();
        let program = bpf::load(bpf::CGROUP_SOCK_ADDR, family, 0, program)?;
        bpf::attach_to_cgroup(&cgroup, &program, family)?;
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

const INET4_CONNECT: u32 = 10;
const INET6_CONNECT: u32 = 11;

/// Program that denies: `r0 = 0; exit`.
static DENY: [u64; 2] = [0xb7, 0x95];
/// Program that allows: `r0 = 1; exit`.
static ALLOW: [u64; 2] = [1 << 32 | 0xb7, 0x95];
