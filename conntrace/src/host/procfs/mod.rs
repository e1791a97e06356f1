//! Processes, namespaces and sysctls, read from /proc and the cgroup filesystem.

pub(crate) mod cgroup;
pub(crate) mod exe;
pub(crate) mod port_range;
pub(crate) mod process;
pub(crate) mod proxy_env;
pub(crate) mod sysctl;
pub(crate) mod tun;
