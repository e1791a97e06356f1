use super::{Case, Evidence, denied};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
};

/// Denied: a BPF program on the process's cgroup forbids the connect, such as a
/// container platform's network policy or systemd's `SocketBindDeny`.
///
/// Wrong when such a program is there, but something else said EPERM, such as a
/// seccomp filter.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    // What a program that returns 0 makes of connect (`inet_stream_connect`).
    if !denied::by_connect(case, Errno::EPERM) {
        return None;
    }
    let remote = case.remote_socket()?;
    let programs = evidence.connect_programs(case.cgroup?, remote.is_ipv6())?;
    if programs == 0 {
        return None;
    }
    let they = if programs == 1 {
        "a BPF program on the process's cgroup or above it decides".to_owned()
    } else {
        format!("{programs} BPF programs on the process's cgroup or above it decide")
    };
    Some(Cause::new(
        Code::CgroupPolicy,
        Certainty::Likely,
        &format!("connect to {remote} returned EPERM, and {they} on connects"),
        &format!(
            "find the policy with `bpftool cgroup tree` and have {remote} allowed in it (network \
             policy of the container platform)"
        ),
        event::Facts::new()
            .with("programs", programs)
            .with("remote", remote),
    ))
}
