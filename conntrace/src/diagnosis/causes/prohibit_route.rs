use super::no_route;
use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, denied, place, step,
        way::DeadEndKind, words,
    },
    record::{Errno, Label},
};

/// A route of type prohibit (`ip route add prohibit`), which some VPN clients and hosting
/// panels set as a kill switch, or a policy rule that prohibits.
///
/// Wrong when the route was set or removed between the call and the look.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::ProhibitRoute,
    labels: &[Label::Denied],
    is: "The route to the destination is of type `prohibit`.",
    means: "the route is of type prohibit",
    recognised: &[
        "Certain: connect returned EACCES before there was a SYN (--trace-syscalls), and so does the kernel's search for a route.",
    ],
    reasons: &[
        "A kill switch of a VPN client.",
        "An administrator's block of a network.",
        "A rule of policy routing with the action prohibit.",
    ],
    steps: &[
        step(
            "ip route show table all type prohibit",
            "the routes of that type",
        ),
        step("ip rule", "rules of that action"),
    ],
    look,
    proofs: &[(
        Certainty::Certain,
        "EACCES of connect, and the same errno of the route for this socket",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    if !denied::by_connect(case, Errno::EACCES) {
        return Ok(None);
    }
    let Some(way) = case.way() else {
        return Ok(None);
    };
    if place::no_way(case, evidence)? != Some(Errno::EACCES) {
        return Ok(None);
    }
    let to = way.to;
    // Without it the errno of the route is proof enough.
    let dead_end = evidence.dead_end(case.netns, way).ok().flatten();
    let dead_end = dead_end.filter(|found| found.kind == DeadEndKind::Prohibit);
    let (what, fix) = match &dead_end {
        Some(found) => no_route::forbidden(case, to, found, evidence),
        None => {
            let list = format!("{} route show table all type prohibit", words::ip(to));
            let list = words::command(case, &list, evidence);
            (
                format!("the route to {to} is of type prohibit"),
                format!(
                    "find it with {list}, and let what set it (a VPN's kill switch, a hosting \
                     panel) allow the destination"
                ),
            )
        }
    };
    Ok(Some(Cause::new(
        Code::ProhibitRoute,
        Certainty::Certain,
        &what,
        &fix,
        Facts::new()
            .with("route_errno", Errno::EACCES.to_string())
            .with("to", to)
            .with("dead_end", dead_end),
    )))
}
