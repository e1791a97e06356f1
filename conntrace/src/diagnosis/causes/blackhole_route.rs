use super::no_route;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, FailedCall, Finding, place, step,
        way::DeadEndKind,
    },
    record::{Errno, Label},
};

/// A route of type blackhole (`ip route add blackhole`), or a policy rule of that action, which a
/// VPN's kill switch, a routing daemon or a container network has set.
///
/// Wrong when the route was set or removed between the call and the look.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::BlackholeRoute,
    labels: &[Label::TimedOut, Label::Unreachable, Label::Failed],
    is: "The route to the destination is of type `blackhole`.",
    means: "the route is of type blackhole",
    recognised: &[
        "Certain: connect returned EINVAL before there was a SYN (--trace-syscalls), or this host's own sending failed with it, and a route or policy rule of type blackhole forbids the way. EINVAL alone proves nothing: a source address that is not assigned gives it too.",
    ],
    reasons: &[
        "A kill switch of a VPN client.",
        "A routing daemon or a container network holds a prefix by it, and the route to a part of it is missing.",
        "An administrator's block of a network.",
    ],
    steps: &[
        step(
            "ip route show table all type blackhole",
            "the routes of that type",
        ),
        step("ip rule", "rules of that action, and the order of tables"),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "EINVAL of connect or of this host's own sending, and a blackhole on the way of this socket",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let by_connect = case.label == Label::Failed && case.call == Some(FailedCall::Connect);
    let by_connect = by_connect && case.errno == Some(Errno::EINVAL);
    let meanwhile = matches!(case.label, Label::TimedOut | Label::Unreachable)
        && case.own_failure == Some(Errno::EINVAL);
    let Some(way) = case.way().filter(|_| by_connect || meanwhile) else {
        return Ok(None);
    };
    if place::no_way(case, evidence)? != Some(Errno::EINVAL) {
        return Ok(None);
    }
    let to = way.to;
    let dead_end = evidence.dead_end(case.netns, way)?;
    let Some(found) = dead_end.filter(|found| found.kind == DeadEndKind::Blackhole) else {
        return Ok(None);
    };
    let (what, fix) = no_route::forbidden(case, to, &found, evidence);
    Ok(Some(Cause::new(
        Code::BlackholeRoute,
        Certainty::Certain,
        &what,
        &fix,
        Facts::new()
            .with("route_errno", Errno::EINVAL.to_string())
            .with("to", to)
            .with("dead_end", found),
    )))
}
