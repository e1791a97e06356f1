//! Finds the mount point of cgroup v2.

use std::path::PathBuf;

/// Finds the mount point in `/proc/PID/mountinfo`: `... MOUNT_POINT ... - cgroup2 ...`.
pub(crate) fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then_some(())?;
        left.split(' ').nth(4).map(PathBuf::from)
    })
}
