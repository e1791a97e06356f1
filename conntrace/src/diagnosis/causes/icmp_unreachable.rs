use super::admin_prohibited;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed, step, words,
    },
    record::{Errno, IcmpError, IcmpVersion, Label, ReplyKind},
};

/// A router, or the destination, said that it cannot deliver. It has no route, or packets go in
/// circles.
///
/// Wrong only when the ICMP error was forged; a firewall can say so in a router's words. Of
/// IPv6 the kernel may have kept no more than the errno.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::IcmpUnreachable,
    labels: &[Label::Unreachable],
    is: "A router cannot deliver the packets.",
    means: "a router says that it cannot deliver",
    recognised: &[
        "Certain: an ICMP error came that says so; `evidence` has its type, code and sender. Of IPv6 the kernel may have kept no more than the errno.",
    ],
    reasons: &[
        "The router has no route: a network was withdrawn, or a VPN behind it is down.",
        "Packets go in circles (time exceeded).",
        "The protocol is not taken there.",
    ],
    steps: &[
        step("traceroute -n ADDR", "where the way ends"),
        step(
            "ip route get ADDR",
            "on this host and on `evidence.from`: the route in use",
        ),
    ],
    look,
    proofs: &[
        (Certainty::Certain, "the ICMP error, with its sender"),
        (
            Certainty::Likely,
            "the errno of an ICMPv6 error, of which the kernel keeps no more",
        ),
    ],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let answered = case.label == Label::Unreachable && case.reply == ReplyKind::Icmp;
    let Some(to) = case.remote.filter(|_| answered).map(|remote| remote.addr) else {
        return Ok(None);
    };
    let Some(icmp) = case.icmp else {
        return of_errno(case, evidence);
    };
    if admin_prohibited::is_prohibition(&icmp) {
        return Ok(None);
    }
    let Some(from) = icmp.from else {
        return Err(Undiagnosed::Incomplete);
    };
    let said = meaning(&icmp);
    let (what, fix) = if from == to {
        (
            format!("{to} itself, or what answers in its name, will not deliver: {said}"),
            format!(
                "look at what stands for {to}: a user-mode network (slirp4netns, passt) that \
                 forbids its host, or a gateway without a way further"
            ),
        )
    } else {
        let trace = words::command(case, &format!("traceroute -n -q 1 -w 1 {to}"), evidence);
        (
            format!("the router {from} says that it cannot deliver to {to}: {said}"),
            format!("look at the route to {to} on {from}; {trace} shows where the way ends"),
        )
    };
    Ok(Some(Cause::new(
        Code::IcmpUnreachable,
        Certainty::Certain,
        &what,
        &fix,
        facts(case),
    )))
}

/// Of IPv4 the application has read the error itself: its sender is not known.
fn of_errno(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let (Some(errno), Some(to)) = (case.errno, case.remote.map(|remote| remote.addr)) else {
        return Ok(None);
    };
    if to.is_ipv4() {
        return Err(Undiagnosed::Incomplete);
    }
    if errno == Errno::EACCES {
        return Ok(None);
    }
    let trace = words::command(case, &format!("traceroute -n -q 1 -w 1 {to}"), evidence);
    Ok(Some(Cause::new(
        Code::IcmpUnreachable,
        Certainty::Likely,
        &format!("an ICMPv6 error of an unknown sender says that {to} cannot be reached ({errno})"),
        &format!("{trace} shows where the way ends, and who says so"),
        facts(case),
    )))
}

fn facts(case: &Case) -> Facts {
    Facts::new()
        .with("from", case.icmp.and_then(|icmp| icmp.from))
        .with("icmp_type", case.icmp.map(|icmp| icmp.icmp_type))
        .with("icmp_code", case.icmp.map(|icmp| icmp.code))
        .with("errno", case.errno.as_ref().map(Errno::to_string))
}

fn meaning(icmp: &IcmpError) -> String {
    let known = match (icmp.version, icmp.icmp_type, icmp.code) {
        (IcmpVersion::V4, 3, 0) | (IcmpVersion::V6, 1, 0) => "no route",
        (IcmpVersion::V4, 3, 1) | (IcmpVersion::V6, 1, 3) => "host unreachable",
        (IcmpVersion::V4, 3, 2) => "protocol unreachable",
        (IcmpVersion::V4, 11, 0) | (IcmpVersion::V6, 3, 0) => {
            "the packet was passed on too often (a loop?)"
        }
        _ => return format!("ICMP type {} code {}", icmp.icmp_type, icmp.code),
    };
    known.to_owned()
}
