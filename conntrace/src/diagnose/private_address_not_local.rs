use super::{Case, Evidence, host_down::may_be, place};
use crate::{
    event::{self, Cause, Certainty, Code},
    reply::ReplyKind,
    wire::{Icmp, IcmpVersion},
};

/// Timed out, unreachable: an internal address is used from another network. The
/// destination is private, no interface of this host is in its network, and the
/// packets go to the default gateway.
///
/// Wrong where the private networks of an organisation are routed: then the host
/// behind the gateway may simply be down or filtered. From a private address that
/// is as good a guess, so the cause is only possible.
pub(super) fn rule(case: &Case, evidence: &mut dyn Evidence) -> Option<Cause> {
    let answered = match case.reply {
        ReplyKind::None => false,
        ReplyKind::Icmp => case.icmp.as_ref().is_some_and(is_net_unreachable),
        ReplyKind::SynAck | ReplyKind::Rst | ReplyKind::Local => return None,
    };
    let to = case.remote?.addr;
    if !may_be(case) || answered != (case.reply == ReplyKind::Icmp) || !place::is_private(to) {
        return None;
    }
    // It is at the end of this very route.
    if case.heard.handshake.is_some() || case.heard.reset_ago_s.is_some() {
        return None;
    }
    let out = place::way_out(case, evidence)?;
    if out.prefix_len != 0 {
        return None;
    }
    let gateway = out.gateway?;
    let from_private = case.local_addr.is_none_or(place::is_private);
    let certainty = if from_private {
        Certainty::Possible
    } else {
        Certainty::Likely
    };
    let device = &out.device.name;
    Some(Cause::new(
        Code::PrivateAddressNotLocal,
        certainty,
        &format!(
            "{to} is a private address, no network of this host has it, and it is looked for behind \
             the default gateway {gateway} on {device}"
        ),
        &format!(
            "use the public address of that server, or connect this host to its network (VPN, \
             peering: a route for {to} other than the default one)"
        ),
        event::Facts::new()
            .with("gateway", gateway)
            .with("device", device)
            .with("source", case.local_addr)
            .with("from", case.icmp.and_then(|icmp| icmp.from)),
    ))
}

fn is_net_unreachable(icmp: &Icmp) -> bool {
    match icmp.version {
        IcmpVersion::V4 => icmp.icmp_type == 3 && matches!(icmp.code, 0 | 6),
        IcmpVersion::V6 => (icmp.icmp_type, icmp.code) == (1, 0),
    }
}
