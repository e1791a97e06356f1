//! Paths of cgroups by id, without walking the tree.

use std::{
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    host::cache::Cache,
    output::event::{Container, PATH_JSON_MAX, Runtime},
    record::sanitize,
    sys::{self, proc_file},
};

/// Lifetime of a path: a cgroup can be renamed, but rarely is.
const AGE_MAX: Duration = Duration::from_secs(60);
const LEN_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Cgroups {
    mount: Option<(File, PathBuf)>,
    paths: Cache<u64, Option<Arc<str>>>,
}

impl Cgroups {
    /// Opens the cgroup v2 filesystem; without one every path is unknown.
    pub(crate) fn open() -> Self {
        let mounts = proc_file::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount =
            sys::cgroup_mount_point(&mounts).and_then(|path| Some((File::open(&path).ok()?, path)));
        Self {
            mount,
            paths: Cache::new(AGE_MAX, LEN_MAX),
        }
    }

    /// Returns the path below the filesystem's root; `None` if the cgroup no longer exists.
    pub(crate) fn path(&mut self, id: u64, now: Instant) -> Option<Arc<str>> {
        let (mount, root) = self.mount.as_ref()?;
        self.paths.get(id, now, || {
            let found = sys::open_cgroup(mount, id).ok()?;
            let found = sys::path_of(&found).ok()?;
            let below = found.strip_prefix(root).ok()?.as_os_str();
            let path = [b"/", below.as_bytes()].concat();
            Some(sanitize::bounded(&path, PATH_JSON_MAX).into())
        })
    }
}

/// Parses the container from a cgroup's path. Docker, Podman, containerd and CRI-O put its id, 64
/// hexadecimal digits, into the path. Of nested containers the innermost is returned.
pub(crate) fn container(path: &str) -> Option<Container> {
    let mut parent = "";
    let mut found = None;
    for component in path.split('/') {
        if let Some((before, id)) = container_id(component) {
            found = Some(Container {
                id: Some(id.into()),
                runtime: runtime(parent, before),
                ..Container::default()
            });
        }
        parent = component;
    }
    found
}

/// Finds a container id in a path component; returns the text before it and the id.
fn container_id(component: &str) -> Option<(&str, &str)> {
    let id = component
        .rsplit(|c: char| !c.is_ascii_hexdigit() || c.is_ascii_uppercase())
        .find(|run| run.len() == 64)?;
    let (before, _) = component.split_once(id)?;
    Some((before, id))
}

/// Recognises the runtime by its naming of cgroups. Podman, CRI-O and the systemd driver use a
/// prefix; Docker's cgroupfs driver uses the parent's name. The kubelet's folder is the same for
/// all runtimes.
fn runtime(parent: &str, before: &str) -> Option<Runtime> {
    match (parent, before) {
        ("docker", "") | (_, "docker-") => Some(Runtime::Docker),
        (_, "libpod-") => Some(Runtime::Podman),
        (_, "cri-containerd-") => Some(Runtime::Containerd),
        (_, "crio-") => Some(Runtime::Crio),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers() {
        let outer = "f".repeat(64);
        let id = "0123456789abcdef".repeat(4);
        for (path, runtime) in [
            (
                format!("/system.slice/docker-{id}.scope"),
                Some(Runtime::Docker),
            ),
            (format!("/docker/{id}"), Some(Runtime::Docker)),
            (format!("/docker/{id}/init.scope"), Some(Runtime::Docker)),
            (
                format!("/kubepods.slice/kubepods-pod12.slice/cri-containerd-{id}.scope"),
                Some(Runtime::Containerd),
            ),
            (
                format!("/kubepods.slice/kubepods-pod12.slice/crio-{id}.scope"),
                Some(Runtime::Crio),
            ),
            (
                format!("/machine.slice/libpod-{id}.scope/container"),
                Some(Runtime::Podman),
            ),
            (format!("/libpod_parent/libpod-{id}"), Some(Runtime::Podman)),
            (format!("/kubepods/burstable/pod12/{id}"), None),
            (format!("/docker/{outer}/kubepods/pod12/{id}"), None),
            (format!("/x/my-docker-{id}"), None),
        ] {
            let expected = Container {
                id: Some(id.as_str().into()),
                runtime,
                ..Container::default()
            };
            assert_eq!(container(&path), Some(expected), "{path}");
        }
        assert_eq!(container("/system.slice/sshd.service"), None);
        assert_eq!(container(&format!("/x/{id}0")), None);
        assert_eq!(container(&format!("/x/{}", id.to_uppercase())), None);
    }

    #[test]
    fn finds_the_mount() {
        let mounts = "30 23 0:26 / /sys rw - sysfs sysfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        assert_eq!(
            sys::cgroup_mount_point(mounts),
            Some("/sys/fs/cgroup".into())
        );
        assert_eq!(sys::cgroup_mount_point("nonsense"), None);
    }
}
