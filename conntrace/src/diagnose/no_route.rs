use super::{Call, Case, Evidence, place};
use crate::{
    errno::Errno,
    event::{self, Cause, Certainty, Code},
    label::Label,
};

/// Unreachable: this host has no route there, or one of type unreachable. The
/// interface or the VPN is down, the default route is missing, or there is no
/// IPv6 here.
///
/// Wrong when the routes changed between the call and the look.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    if case.label != Label::Unreachable || case.call != Some(Call::Connect) {
        return None;
    }
    let errno = Errno(place::no_way(case, evidence)?);
    let what = match errno {
        Errno::ENETUNREACH => "this host has no route to",
        Errno::EHOSTUNREACH => "this host has a route of type unreachable to",
        _ => return None,
    };
    let to = case.remote?.addr;
    let family = if to.is_ipv4() { "" } else { " -6" };
    Some(Cause::new(
        Code::NoRoute,
        Certainty::Certain,
        &format!("{what} {to}"),
        &format!(
            "look at `ip{family} route show` and at what should have set the route (interface, \
             DHCP, VPN); by hand: `ip{family} route add {to} via GATEWAY`"
        ),
        event::Facts::new()
            .with("route_errno", errno.to_string())
            .with("to", to),
    ))
}
