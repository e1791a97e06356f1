use crate::{
    diagnosis::{
        Case, Cause, CauseInfo, Certainty, Code, Evidence, Facts, Finding, Undiagnosed, place,
        step, way::Link, words,
    },
    record::{Label, ReplyKind},
};

/// The index of every namespace's loopback interface.
const LOOPBACK: u32 = 1;

/// The interface that the packets leave by is down or has no carrier, or it is loopback that is
/// down. The other side is not at fault.
///
/// Certain if sending failed meanwhile. Wrong when the link went down or came back between the
/// attempt and the look.
pub(crate) const CAUSE: CauseInfo = CauseInfo {
    code: Code::OwnLinkDown,
    labels: &[Label::TimedOut, Label::Unreachable],
    is: "This host's own interface is down.",
    means: "this host's own interface is down",
    recognised: &[
        "Certain: the interface by which the packets should leave is down or has no carrier, or it is loopback and down; and this host could not send, or dropped every SYN.",
        "Possible: the interface is down now, but SYNs may have left before.",
    ],
    reasons: &[
        "A cable, a switch port or a virtual machine's adapter is disconnected.",
        "The interface was set down, or nothing has set it up yet.",
        "A new network namespace, in which loopback is down until somebody sets it up.",
        "The other end of a veth pair is down or gone.",
    ],
    steps: &[
        step(
            "ip -br link",
            "DOWN: it is set down; LOWERLAYERDOWN or NO-CARRIER: nothing is connected to it",
        ),
        step(
            "ip link set DEVICE up",
            "sets it up, for loopback: ip link set lo up",
        ),
        step(
            "ethtool DEVICE",
            "Link detected: no, where the cable or the other end is at fault",
        ),
    ],
    look,
    proofs: &[
        (
            Certainty::Certain,
            "the interface of the way is down or has no carrier (IFF_UP, IFF_LOWER_UP), and this \
             host's own sending failed, or it dropped every SYN",
        ),
        (
            Certainty::Possible,
            "the interface of the way is down or has no carrier now",
        ),
    ],
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
    let of_program = matches!(link.kind.as_deref(), Some("tun" | "tap"));
    let state = match (link.up, of_program) {
        (true, true) => "has no carrier: no program serves it",
        (true, false) => "has no carrier: its cable, switch port or other end is down",
        (false, _) => "is down",
    };
    let up = words::command(case, &format!("ip link set {name} up"), evidence);
    let fix = if link.up {
        let show = words::command(case, &format!("ip -br link show {name}"), evidence);
        let other_end = if of_program {
            format!("start the program that serves {name} (VPN client, hypervisor)")
        } else {
            format!("bring up the other end of {name} (cable, switch port, peer)")
        };
        format!("{other_end}; {show} shows LOWER_UP then")
    } else {
        format!("{up}, and let the network configuration do so at boot")
    };
    // SYNs may have left before, or by another way that a firewall's mark leads.
    let (certainty, way) = if is_witnessed(case) {
        (
            Certainty::Certain,
            "this host's own interface towards the destination,",
        )
    } else {
        (
            Certainty::Possible,
            "by which the route to the destination leads, now",
        )
    };
    Ok(Some(Cause::new(
        Code::OwnLinkDown,
        certainty,
        &format!("{name}, {way} {state}"),
        &fix,
        Facts::new()
            .with("device", name)
            .with("up", link.up)
            .with("carrier", link.carrier),
    )))
}

/// This host itself could not send.
fn is_witnessed(case: &Case) -> bool {
    let failed = case.own_failure.is_some()
        || case.call.is_some()
        || (case.label == Label::Unreachable && case.reply == ReplyKind::Local);
    failed || case.drops.is_some_and(|drops| drops.all)
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
