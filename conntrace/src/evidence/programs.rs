//! BPF programs that decide on the connects of a cgroup.

use std::{fs::File, io};

use super::cgroup::mount_point;
use crate::sys;

/// Looks at cgroups by their id.
pub(super) struct Programs(Option<File>);

impl Programs {
    /// Opens the cgroup (v2) filesystem.
    pub(super) fn open() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self(mount_point(&mounts).and_then(|path| File::open(path).ok()))
    }

    /// How many are in effect there, those of the cgroups above it included.
    pub(super) fn on_connect(&self, cgroup: u64, v6: bool) -> Option<u32> {
        let mount = self.0.as_ref()?;
        let look = || -> io::Result<u32> {
            let path = sys::path_of(&sys::open_cgroup(mount, cgroup)?)?;
            sys::connect_programs(&File::open(path)?, v6)
        };
        look().ok()
    }
}
