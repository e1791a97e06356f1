use super::{Case, Evidence, denied, place};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
};

/// Denied: a route of type prohibit (`ip route add prohibit`), which some VPN
/// clients and hosting panels set as a kill switch.
///
/// Wrong when the route was set or removed between the call and the look.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if !denied::by_connect(case, Errno::EACCES) {
        return None;
    }
    let errno = place::no_way(case, evidence)?;
    if Errno(errno) != Errno::EACCES {
        return None;
    }
    let to = case.remote?.addr;
    Some(Cause::new(
        Code::ProhibitRoute,
        Certainty::Certain,
        &format!("the route to {to} is of type prohibit"),
        &format!(
            "find it with `ip route show table all type prohibit` and delete it (`ip route del \
             prohibit PREFIX`), or set a route to {to}"
        ),
        event::Facts::new()
            .with("route_errno", Errno(errno).to_string())
            .with("to", to),
    ))
}
