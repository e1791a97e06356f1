use super::no_route;
use crate::{
    diagnosis::{
        Case, Cause, CauseRule, Certainty, Code, Evidence, Facts, Finding, denied, place,
        way::DeadEndKind, words,
    },
    record::Errno,
};

/// Denied: a route of type prohibit (`ip route add prohibit`), which some VPN
/// clients and hosting panels set as a kill switch, or a policy rule that prohibits.
///
/// Wrong when the route was set or removed between the call and the look.
pub(crate) const RULE: CauseRule = CauseRule {
    code: Code::ProhibitRoute,
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
