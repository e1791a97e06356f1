use super::{Case, Evidence, Finding, Rule, place, way::Link, words};
use crate::{
    event::{self, Cause, Certainty, Code, Undiagnosed},
    label::Label,
    reply::ReplyKind,
};

/// The index of every namespace's loopback interface.
const LOOPBACK: u32 = 1;

/// Timed out, unreachable: the interface that the packets leave by is down or has no carrier,
/// or it is loopback that is down. The other side is not at fault.
///
/// Wrong when the link went down or came back between the attempt and the look.
pub(super) const RULE: Rule = Rule {
    code: Code::OwnLinkDown,
    look,
    proofs: &[(
        Certainty::Certain,
        "the interface of the way is down or has no carrier (IFF_UP, IFF_LOWER_UP)",
    )],
};

fn look(case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let label = matches!(case.label, Label::TimedOut | Label::Unreachable);
    if !label || case.reply == ReplyKind::Icmp {
        return Ok(None);
    }
    let Some(link) = link(case, evidence)?.filter(|link| !place::can_send(Some(link))) else {
        return Ok(None);
    };
    let name = &link.name;
    let state = if link.up {
        "has no carrier: its cable, switch port or other end is down"
    } else {
        "is down"
    };
    let up = words::command(case, &format!("ip link set {name} up"), evidence);
    let fix = if link.up {
        let show = words::command(case, &format!("ip -br link show {name}"), evidence);
        format!(
            "bring up the other end of {name} (cable, switch port, peer); {show} shows LOWER_UP then"
        )
    } else {
        format!("{up}, and let the network configuration do so at boot")
    };
    Ok(Some(Cause::new(
        Code::OwnLinkDown,
        Certainty::Certain,
        &format!("{name}, this host's own interface towards the destination, {state}"),
        &fix,
        event::Facts::new()
            .with("device", name)
            .with("up", link.up)
            .with("carrier", link.carrier),
    )))
}

/// The interface that the attempt needs: the one it is bound to, loopback for its addresses,
/// else the way's.
fn link(case: &Case, evidence: &mut dyn Evidence) -> Result<Option<Link>, Undiagnosed> {
    let to_loopback = case.remote.is_some_and(|to| to.addr.is_loopback());
    let device = match case.bound_device {
        Some(device) => device,
        None if to_loopback => LOOPBACK,
        None => match place::way_out(case, evidence)? {
            Some(out) => out.device.index,
            None => return Ok(None),
        },
    };
    evidence.link(case.netns, device)
}
