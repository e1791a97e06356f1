use crate::{
    diagnosis::{Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, step, words},
    record::{Errno, Label},
};

/// The application chose a source address that this host does not have. It has moved away
/// (failover, DHCP), or was copied from another host's configuration.
///
/// Wrong when the address came or went between the call and the look.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::SourceNotLocal,
    labels: &[Label::AddressUnavailable],
    is: "The source address is not assigned to this host.",
    means: "the source address is not assigned to this host",
    recognised: &[
        "Certain: bind or connect returned EADDRNOTAVAIL (--trace-syscalls), and the address that was chosen is no address of the process's network namespace.",
    ],
    reasons: &[
        "The address has moved to another host (failover), or DHCP gave another one.",
        "A configuration was copied from another host.",
        "The application started before the interface had its address.",
    ],
    steps: &[
        step("ip -br addr", "the addresses there are"),
        step(
            "sysctl net.ipv4.ip_nonlocal_bind net.ipv6.ip_nonlocal_bind",
            "1 lets applications bind to addresses that are not there (yet); nobody answers connections from there until they are",
        ),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "no interface of the namespace has the address (RTM_GETADDR), and no route of type local covers it",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    // A port that was taken is not the fault here.
    if case.label != Label::AddressUnavailable
        || case.call.is_none()
        || case.errno == Some(Errno::EADDRINUSE)
    {
        return Ok(None);
    }
    let Some(source) = case.local_addr else {
        return Ok(None);
    };
    if evidence.is_own(case.netns, source)? {
        return Ok(None);
    }
    let list = words::command(case, "ip -br addr", evidence);
    Ok(Some(Cause::new(
        Code::SourceNotLocal,
        Certainty::Certain,
        &format!("{source} is not assigned to any interface of the process's network namespace"),
        &format!(
            "let the application bind to an address that {list} lists, or to none, which leaves the \
             choice to the route"
        ),
        Facts::new()
            .with("source", source)
            .with("errno", case.errno.as_ref().map(Errno::to_string)),
    )))
}
