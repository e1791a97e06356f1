//! From a cgroup id to its path, without walking the tree.

use std::{
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::cache::Cache;
use crate::{event::PATH_JSON_MAX, proc_file, sys, text};

/// A cgroup can be renamed, but rarely is.
const AGE_MAX: Duration = Duration::from_secs(60);
const LEN_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Cgroups {
    mount: Option<(File, PathBuf)>,
    paths: Cache<u64, Option<Arc<str>>>,
}

impl Cgroups {
    /// Opens the cgroup (v2) filesystem; without one every path is unknown.
    pub(super) fn open() -> Self {
        let mounts = proc_file::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = mount_point(&mounts).and_then(|path| Some((File::open(&path).ok()?, path)));
        Self {
            mount,
            paths: Cache::new(AGE_MAX, LEN_MAX),
        }
    }

    /// Path from the filesystem's root; `None` when the cgroup is gone.
    pub(super) fn path(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        let (mount, root) = self.mount.as_ref()?;
        self.paths.get(id, now, || {
            let found = sys::open_cgroup(mount, id).ok()?;
            let found = sys::path_of(&found).ok()?;
            let below = found.strip_prefix(root).ok()?.as_os_str();
            let path = [b"/", below.as_bytes()].concat();
            Some(text::bounded(&path, PATH_JSON_MAX).into())
        })
    }
}

/// Where cgroup v2 is mounted: `... MOUNT_POINT ... - cgroup2 ...`.
pub(crate) fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then_some(())?;
        left.split(' ').nth(4).map(PathBuf::from)
    })
}

/// The 64 hexadecimal digits that Docker, Podman, containerd and CRI-O put in
/// a container's cgroup path; the innermost, if there are several.
pub(super) fn container_id(path: &str) -> Option<&str> {
    path.rsplit(|c: char| !c.is_ascii_hexdigit() || c.is_ascii_uppercase())
        .find(|run| run.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods.slice/kubepods-pod12.slice/cri-containerd-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(container_id(&path), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_id("/system.slice/sshd.service"), None);
        assert_eq!(container_id(&format!("/x/{id}0")), None);
    }

    #[test]
    fn finds_the_mount() {
        let mounts = "30 23 0:26 / /sys rw - sysfs sysfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount_point("nonsense"), None);
    }
}
