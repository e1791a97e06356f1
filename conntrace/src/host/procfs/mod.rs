//! What /proc and the cgroup filesystem say of processes, namespaces and sysctls.

pub(crate) mod cgroup;
pub(crate) mod exe;
pub(crate) mod port_range;
pub(crate) mod process;
pub(crate) mod proxy_env;
pub(crate) mod sysctl;
