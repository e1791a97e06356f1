use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, denied,
        question::{AttachedProgram, BpfProgram},
        step,
    },
    record::{Errno, Label},
};

/// A BPF program on the process's cgroup forbids the connect, such as a container platform's
/// network policy, or Cilium's load balancer of sockets for a service without a backend.
///
/// Wrong when such a program is there, but something else said EPERM, such as a seccomp filter.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::CgroupPolicy,
    labels: &[Label::Denied],
    is: "A BPF program on the cgroup forbids the connection.",
    means: "a program on the cgroup forbids it",
    recognised: &[
        "Likely: connect returned EPERM (--trace-syscalls), and BPF programs on the process's cgroup, or above it, decide on connects. `evidence.programs` names them, and the cgroup to which each is attached.",
    ],
    reasons: &[
        "A network policy of the container platform.",
        "A service's own restriction, by whoever attached the program.",
        "The Kubernetes service has no ready pod, where Cilium replaces kube-proxy (cil_sock4_connect).",
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
        step(
            "kubectl get endpointslices -A",
            "services without endpoints, where the program is Cilium's",
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
    if programs.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = programs.iter().take(3).map(named).collect();
    let names = names.join(", ");
    let (why, fix) = if programs.iter().all(is_balancer) {
        (
            format!(
                "connect to {remote} returned EPERM, and Cilium's load balancer of sockets decides on \
                 connects: {names}. It forbids them to a service without a backend, which is no \
                 permission of the process"
            ),
            format!(
                "`kubectl get endpointslices -A` shows services without endpoints: start the pods of \
                 the one at {remote}, or mend their readiness"
            ),
        )
    } else {
        let decide = if programs.len() == 1 {
            "a BPF program on the process's cgroup or above it decides"
        } else {
            "BPF programs on the process's cgroup or above it decide"
        };
        (
            format!("connect to {remote} returned EPERM, and {decide} on connects: {names}"),
            format!(
                "find who attached it with `bpftool cgroup tree`, and have {remote} allowed there \
                 (network policy of the container platform)"
            ),
        )
    };
    Ok(Some(Cause::new(
        Code::CgroupPolicy,
        Certainty::Likely,
        &why,
        &fix,
        Facts::new()
            .with("programs", &programs)
            .with("remote", remote),
    )))
}

/// Cilium's programs, of whose names the kernel keeps 15 bytes.
fn is_balancer(attached: &AttachedProgram) -> bool {
    let name = &attached.program.name;
    name.starts_with("cil_sock4_c") || name.starts_with("cil_sock6_c")
}

/// `deny (id 12, attached to cgroup /system.slice)`
fn named(attached: &AttachedProgram) -> String {
    let BpfProgram { id, name } = &attached.program;
    let at = attached.cgroup.as_ref();
    let at = at.map(|at| format!("attached to cgroup {at}"));
    match (name.as_str(), at) {
        ("", Some(at)) => format!("id {id}, {at}"),
        ("", None) => format!("id {id}"),
        (name, Some(at)) => format!("{name} (id {id}, {at})"),
        (name, None) => format!("{name} (id {id})"),
    }
}
