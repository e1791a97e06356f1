use crate::{
    diagnosis::{Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, denied, step},
    record::{Errno, Label},
};

/// A BPF program on the process's cgroup forbids the connect, such as a container platform's
/// network policy.
///
/// Wrong when such a program is there, but something else said EPERM, such as a seccomp filter.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::CgroupPolicy,
    labels: &[Label::Denied],
    is: "A BPF program on the cgroup forbids the connection.",
    means: "a program on the cgroup forbids it",
    recognised: &[
        "Likely: connect returned EPERM (--trace-syscalls), and BPF programs on the process's cgroup, or above it, decide on connects.",
    ],
    reasons: &[
        "A network policy of the container platform.",
        "A service's own restriction, by whoever attached the program.",
    ],
    steps: &[
        step(
            "bpftool cgroup tree",
            "the programs (cgroup_inet4_connect, cgroup_inet6_connect) and where they are attached",
        ),
        step(
            "kubectl get networkpolicy -A",
            "the policies, where this is a Kubernetes node",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Likely,
        "EPERM of connect, and a program that decides on connects of this cgroup",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    // The errno of a program that returns 0 (`inet_stream_connect`).
    if !denied::by_connect(case, Errno::EPERM) {
        return Ok(None);
    }
    let (Some(remote), Some(cgroup)) = (case.remote_socket(), case.cgroup) else {
        return Ok(None);
    };
    let programs = evidence.connect_programs(cgroup, remote.is_ipv6())?;
    let they = match programs {
        0 => return Ok(None),
        1 => "a BPF program on the process's cgroup or above it decides".to_owned(),
        many => format!("{many} BPF programs on the process's cgroup or above it decide"),
    };
    Ok(Some(Cause::new(
        Code::CgroupPolicy,
        Certainty::Likely,
        &format!("connect to {remote} returned EPERM, and {they} on connects"),
        &format!(
            "find the policy with `bpftool cgroup tree` and have {remote} allowed in it (network \
             policy of the container platform)"
        ),
        Facts::new()
            .with("programs", programs)
            .with("remote", remote),
    )))
}
