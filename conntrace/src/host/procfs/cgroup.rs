//! Paths of cgroups by id, without walking the tree.

use std::{
    os::unix::ffi::OsStrExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    host::cache::Cache,
    output::event::{Container, PATH_JSON_MAX, Runtime},
    record::sanitize,
    sys::CgroupRoot,
};

/// Lifetime of a path: a cgroup can be renamed, but rarely is.
const AGE_MAX: Duration = Duration::from_secs(60);
const LEN_MAX: usize = 4096;

/// Path of a cgroup, and the container that it tells.
#[derive(Debug, Clone)]
pub(crate) struct CgroupPath {
    pub(crate) path: Arc<str>,
    pub(crate) container: Option<Container>,
}

#[derive(Debug)]
pub(crate) struct Cgroups {
    root: Option<&'static CgroupRoot>,
    paths: Cache<u64, Option<CgroupPath>>,
}

impl Cgroups {
    /// Opens the root of the cgroup v2 hierarchy; without it every path is unknown.
    pub(crate) fn open() -> Self {
        Self {
            root: CgroupRoot::get().ok(),
            paths: Cache::new(AGE_MAX, LEN_MAX),
        }
    }

    /// Returns the path from the hierarchy's root, and its container; `None` if the cgroup no longer
    /// exists.
    pub(crate) fn find(&mut self, id: u64, now: Instant) -> Option<CgroupPath> {
        let root = self.root?;
        self.paths.get(id, now, || {
            let path = root.path(id).ok()?;
            let path = sanitize::bounded(path.as_os_str().as_bytes(), PATH_JSON_MAX);
            Some(CgroupPath {
                container: container(&path),
                path: path.into(),
            })
        })
    }
}

/// Number of hexadecimal digits of a container's id.
const ID_LEN: usize = 64;

/// Parses the container from a cgroup's path. Docker, Podman, containerd and CRI-O put its id into
/// the path. Of nested containers the innermost is returned. Runtimes that name cgroups otherwise
/// (LXC, systemd-nspawn, Garden) are not recognised.
fn container(path: &str) -> Option<Container> {
    let mut parent = "";
    let mut found = None;
    for component in path.split('/') {
        if let Some((id, runtime)) = container_in(component, parent) {
            found = Some(Container {
                id: Some(id.into()),
                runtime,
                ..Container::default()
            });
        }
        parent = component;
    }
    found
}

/// Parses id and runtime from a component of a path, such as `docker-ID.scope`. A component that
/// only contains an id can belong to a monitor (`crio-conmon-ID.scope`), a health check
/// (`ID.service`) or a pod, whose processes are in no container.
fn container_in<'a>(component: &'a str, parent: &str) -> Option<(&'a str, Option<Runtime>)> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (before, id) = name.split_at_checked(name.len().checked_sub(ID_LEN)?)?;
    let is_digit = |byte: u8| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase();
    if !id.bytes().all(is_digit) {
        return None;
    }
    let runtime = match before {
        // Podman's pods; its containers have a prefix.
        "" if parent == "libpod_parent" => return None,
        // The kubelet's folders are the same for all runtimes.
        "" => (parent == "docker").then_some(Runtime::Docker),
        _ => Some(runtime(before)?),
    };
    Some((id, runtime))
}

/// Recognises the runtime by what its name of a cgroup has before the id. A colon instead of the
/// hyphen comes from a name for systemd that was taken for a path (`SLICE:cri-containerd:ID`).
fn runtime(before: &str) -> Option<Runtime> {
    let name = match before.strip_suffix('-') {
        Some(name) => name,
        None => before.strip_suffix(':')?.rsplit_once(':')?.1,
    };
    match name {
        "docker" => Some(Runtime::Docker),
        "libpod" | "libpod-payload" => Some(Runtime::Podman),
        "cri-containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::Crio),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3350ade4226f0adcd9e4e9545d7c2a16a5aa362d12315f2a88e2024cea1246cf";
    /// Id of an outer container or a pod.
    const OUTER: &str = "65a1b6ad09655b3f1475ede1aa0061a97c0d1ada9f2b2acac959afbc92094463";

    /// Paths as the runtimes make them; `ID` and `OUTER` stand for ids.
    const CONTAINERS: [(&str, Option<Runtime>); 48] = {
        use Runtime::{Containerd, Crio, Docker, Podman};
        [
            // Docker with systemd, with cgroupfs, with a slice for its containers, rootless.
            ("/system.slice/docker-ID.scope", Some(Docker)),
            ("/system.slice/docker-ID.scope/init.scope", Some(Docker)),
            ("/docker/ID", Some(Docker)),
            ("/docker/ID/init.scope", Some(Docker)),
            ("/docker/ID/system.slice/nginx.service", Some(Docker)),
            ("/machine.slice/docker-ID.scope", Some(Docker)),
            ("/web.slice/web-prod.slice/docker-ID.scope", Some(Docker)),
            ("/system.slice:docker:ID", Some(Docker)),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
                Some(Docker),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/docker/ID",
                Some(Docker),
            ),
            // Docker below a parent of another name: GitHub's jobs, Amazon's tasks.
            ("/actions_job/ID", None),
            ("/ecs/5a0d5ceddf6c44c1928d367a815d890f/ID", None),
            ("/ecs/55091c13-b8cf-4801-b527-f4601742204d/ID", None),
            // Podman with systemd, crun's own cgroup in it, pods, Quadlet, cgroupfs, rootless.
            ("/machine.slice/libpod-ID.scope", Some(Podman)),
            ("/machine.slice/libpod-ID.scope/container", Some(Podman)),
            (
                "/machine.slice/libpod-ID.scope/container/init.scope",
                Some(Podman),
            ),
            (
                "/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope",
                Some(Podman),
            ),
            (
                "/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope/container",
                Some(Podman),
            ),
            (
                "/system.slice/nginx.service/libpod-payload-ID",
                Some(Podman),
            ),
            (
                "/system.slice/nginx.service/libpod-payload-ID/container",
                Some(Podman),
            ),
            ("/libpod_parent/libpod-ID", Some(Podman)),
            ("/libpod_parent/OUTER/libpod-ID", Some(Podman)),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                Some(Podman),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                Some(Podman),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_OUTER.slice/libpod-ID.scope",
                Some(Podman),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service/libpod-payload-ID",
                Some(Podman),
            ),
            // containerd by nerdctl, with systemd, rootless, and with cgroupfs.
            ("/system.slice/nerdctl-ID.scope", Some(Containerd)),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-ID.scope",
                Some(Containerd),
            ),
            ("/default/ID", None),
            ("/k8s.io/ID", None),
            // Kubernetes, systemd driver.
            (
                "/kubepods.slice/kubepods-pod9508fe66_7675_4003_b7c9_d83e9f8f85e5.slice/cri-containerd-ID.scope",
                Some(Containerd),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
                Some(Containerd),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/crio-ID.scope",
                Some(Crio),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/crio-ID.scope/container",
                Some(Crio),
            ),
            (
                "/kubepods.slice/kubepods-pod1.slice/docker-ID.scope",
                Some(Docker),
            ),
            (
                "/kubepods-besteffort-pod72f7f152_440c_66ac_9084_e0fc1d8a910c.slice:cri-containerd:ID",
                Some(Containerd),
            ),
            (
                "/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID",
                Some(Containerd),
            ),
            ("/kubepods-burstable-pod1.slice:docker:ID", Some(Docker)),
            // Kubernetes, cgroupfs driver.
            ("/kubepods/pod74c13223-5a00-11e9-b385-42010a80018d/ID", None),
            (
                "/kubepods/burstable/pod3d6beaa3004913efb68ce073d73494b0/ID",
                None,
            ),
            ("/kubepods/besteffort/pod1/crio-ID", Some(Crio)),
            (
                "/kubelet/kubepods/besteffort/pod0ec90011-b5ae-4efc-8a54-d9fc34119605/ID",
                None,
            ),
            // kind and others that run nodes as containers.
            (
                "/docker/OUTER/kubelet/kubepods/burstable/pod69dd939498054a211c3461b2a9cc8d26/ID",
                None,
            ),
            (
                "/docker/OUTER/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod96dd7de3.slice/cri-containerd-ID.scope",
                Some(Containerd),
            ),
            (
                "/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-ID.scope",
                Some(Containerd),
            ),
            (
                "/machine.slice/libpod-OUTER.scope/container/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-ID.scope",
                Some(Containerd),
            ),
            ("/kubepods/besteffort/pod1/OUTER/docker/ID", Some(Docker)),
            ("/lxc/101/ns/system.slice/docker-ID.scope", Some(Docker)),
        ]
    };

    #[test]
    fn containers() {
        for (form, runtime) in CONTAINERS {
            let path = form.replace("OUTER", OUTER).replace("ID", ID);
            let expected = Container {
                id: Some(ID.into()),
                runtime,
                ..Container::default()
            };
            assert_eq!(container(&path), Some(expected), "{path}");
        }
    }

    /// Processes of the host, of pods as such, and containers without an id.
    #[test]
    fn no_containers() {
        for form in [
            "/",
            "/init.scope",
            "/system.slice/docker.service",
            "/user.slice/user-1000.slice/session-1.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/crio-conmon-ID.scope",
            "/kubepods/burstable/pod1/crio-conmon-ID",
            "/libpod_parent/conmon",
            "/libpod_parent/OUTER/conmon",
            "/machine.slice/machine-libpod_pod_OUTER.slice",
            "/system.slice/nginx.service/runtime",
            "/system.slice/ID.service",
            "/system.slice/ID-3a5f.service",
            "/system.slice/run-containerd-io.containerd.runtime.v2.task-k8s.io-ID-rootfs.mount",
            "/kubepods.slice/kubepods-pod9508fe66_7675_4003_b7c9_d83e9f8f85e5.slice",
            "/kubepods/burstable/pod3d6beaa3004913efb68ce073d73494b0",
            "/ecs/34dc0b5e626f2c5c4c5170e34b10e765-1234567890",
            "/system.slice/garden.service/garden/6f265890-5165-7fab-6b52-18d1",
            "/lxc.payload.web/system.slice/nginx.service",
            "/lxc.monitor.web",
            "/machine.slice/systemd-nspawn@web.service/payload",
            "/machine.slice/machine-web.scope",
            "/x/my-docker-ID",
            "/x/:ID",
            "/x/docker-ID0",
            "/x/docker-é3350",
        ] {
            let path = form.replace("OUTER", OUTER).replace("ID", ID);
            assert_eq!(container(&path), None, "{path}");
        }
        let shouted = format!("/docker/{}", ID.to_uppercase());
        assert_eq!(container(&shouted), None);
        // The id would begin within a character.
        let cut = ID.strip_prefix('3').unwrap();
        assert_eq!(container(&format!("/docker/é{cut}")), None);
    }
}
