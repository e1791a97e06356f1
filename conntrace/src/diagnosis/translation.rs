//! Translation of the destination of an attempt that nobody answered, and the rules that judge the
//! place to which it leads.
//!
//! A packet that this machine dropped shows its own translation (`way_drop`). Where none was dropped,
//! connection tracking still has the entry of the SYN, in each namespace that tracks it.

use std::net::SocketAddr;

use super::{
    Case, CauseRule, Code, Evidence, Finding, HostHistory, Undiagnosed,
    place::{self, PathEnd},
    question::{Neighbour, TrackedSyn},
    way::{Flow, Route, RouteOut},
    words,
};
use crate::record::{Label, Remote, ReplyKind};

/// Translation of an attempt's destination by this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Place to which it leads.
    pub to: Remote,
    /// Client of the attempt that was so translated. Another one may be led elsewhere.
    pub client: SocketAddr,
    /// Inode number of the network namespace that has done it, from which the way goes on.
    netns: u32,
}

/// Finds the translation of an attempt that nobody answered: in the client's namespace, then in each
/// one of this machine that its packets come to.
///
/// # Errors
/// The reason why it is unknown.
pub(crate) fn translation(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<Translation>, Undiagnosed> {
    let Some(to) = case.remote.filter(|_| is_unanswered(case)) else {
        return Ok(None);
    };
    let mut at = Hop {
        netns: case.netns,
        client: case.client,
        to,
    };
    let (mut found, mut first) = (None, None);
    for _ in 0..place::NAMESPACES_MAX {
        let remote = socket(at.to);
        if let Some(TrackedSyn {
            client,
            leaves_from,
            leads_to,
        }) = evidence.tracked(at.netns, at.client, remote)?
        {
            let client = *first.get_or_insert(client);
            at.client = Some(leaves_from);
            if leads_to != remote {
                at.to = Remote {
                    addr: leads_to.ip(),
                    port: leads_to.port(),
                };
                found = Some(Translation {
                    to: at.to,
                    client,
                    netns: at.netns,
                });
            }
        }
        match next(case, &at, evidence)? {
            Some(netns) => at.netns = netns,
            None => return Ok(found.filter(|found| found.to != to)),
        }
    }
    Err(Undiagnosed::Incomplete)
}

/// Finds the place on this machine to which an attempt leads that nobody answered; `None` if it leaves
/// the machine.
///
/// # Errors
/// The reason why it is unknown.
pub(crate) fn destination(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<(u32, Remote)>, Undiagnosed> {
    let found = translation(case, evidence)?;
    let case = &found.map_or_else(|| case.clone(), |found| at_place(case, &found));
    let (Some(way), Some(at)) = (case.way(), case.remote) else {
        return Ok(None);
    };
    let netns = match evidence.route(case.netns, way)? {
        Route::Local => Some(case.netns),
        Route::Out(out) if is_within(case.netns, &out, evidence)? => {
            match place::end_of_way(case, out, evidence)? {
                PathEnd::Here(netns) => Some(netns),
                PathEnd::Rewritten | PathEnd::Leaves(..) | PathEnd::Stops => None,
            }
        }
        Route::Out(_) | Route::None(_) => None,
    };
    Ok(netns.map(|netns| (netns, at)))
}

/// A namespace that the SYN comes to, and its ends there.
struct Hop {
    netns: u32,
    /// `None` for the attempt's own.
    client: Option<SocketAddr>,
    to: Remote,
}

/// The namespace of this machine that the SYN comes to next; `None` if it is delivered or leaves.
fn next(case: &Case, at: &Hop, evidence: &mut dyn Evidence) -> Result<Option<u32>, Undiagnosed> {
    let way = case
        .way()
        .filter(|_| at.netns == case.netns && Some(at.to) == case.remote)
        .unwrap_or_else(|| Flow::to(at.to.addr, at.to.port));
    let Route::Out(out) = evidence.route(at.netns, way)? else {
        return Ok(None);
    };
    if !is_within(at.netns, &out, evidence)? {
        return Ok(None);
    }
    // What waits for its neighbour has come no further.
    let neighbour = out.gateway.unwrap_or(at.to.addr);
    match evidence.neighbour(at.netns, out.device.index, neighbour)? {
        Neighbour::Incomplete | Neighbour::Failed => return Ok(None),
        Neighbour::Known | Neighbour::Absent => {}
    }
    let hop = place::next_hop(at.to, at.netns, &out, evidence)?;
    Ok(hop.map(|hop| hop.netns))
}

/// The interface may lead to another namespace of this machine. Of others the next hop is hardly on it,
/// and all namespaces would be asked.
fn is_within(netns: u32, out: &RouteOut, evidence: &mut dyn Evidence) -> Result<bool, Undiagnosed> {
    let link = evidence.link(netns, out.device.index)?;
    let kind = link.and_then(|link| link.kind);
    Ok(kind.is_some_and(|kind| matches!(kind.as_str(), "veth" | "netkit" | "bridge")))
}

/// A SYN left, and neither the other side nor a drop on this machine shows what became of it.
fn is_unanswered(case: &Case) -> bool {
    let label = matches!(case.label, Label::TimedOut | Label::Unreachable);
    let reply = match case.reply {
        ReplyKind::None | ReplyKind::Icmp => true,
        ReplyKind::Local | ReplyKind::SynAck | ReplyKind::Rst => false,
    };
    label
        && reply
        && case.call.is_none()
        && case.drops.is_none()
        && !matches!(case.way_drop, Ok(Some(_)))
}

/// Asks a rule. One that judges the place of the destination is asked about the place to which it is
/// translated.
pub(super) fn look(rule: &CauseRule, case: &Case, evidence: &mut dyn Evidence) -> Finding {
    let is_of_both = matches!(rule.code, Code::AnswersSometimes | Code::ProxyInPath);
    let is_of_place = is_of_both
        || matches!(
            rule.code,
            Code::WrongNetwork
                | Code::HostDown
                | Code::NeighbourUnresolved
                | Code::RemoteFiltered
                | Code::PrivateAddressNotLocal
                | Code::SilentHost
        );
    let translated = match is_of_place {
        true => translation(case, evidence)?,
        false => None,
    };
    let (Some(found), Some(from)) = (translated, case.remote) else {
        return (rule.look)(case, evidence);
    };
    let cause = if is_of_both {
        (rule.look)(case, evidence)?
    } else {
        (rule.look)(&at_place(case, &found), evidence)?
    };
    let words = words::translation(from, found.to);
    Ok(cause.map(|cause| cause.preceded(&words, "translated_to", socket(found.to))))
}

/// The attempt as one from the namespace that translates to the place to which that leads. What was
/// heard of the destination that was asked for is not that place's; only its silence is.
fn at_place(case: &Case, found: &Translation) -> Case {
    let is_own = found.netns == case.netns;
    Case {
        netns: found.netns,
        remote: Some(found.to),
        asked: case.remote,
        // Of another namespace they are no socket's.
        local_addr: case.local_addr.filter(|_| is_own),
        bound_port: case.bound_port.filter(|_| is_own),
        bound_device: case.bound_device.filter(|_| is_own),
        mark: if is_own { case.mark } else { 0 },
        socket_uid: case.socket_uid.filter(|_| is_own),
        heard: HostHistory {
            silent_s: case.heard.silent_s,
            may_be_forgotten: case.heard.may_be_forgotten,
            outwaited: case.heard.outwaited,
            ..HostHistory::default()
        },
        ..case.clone()
    }
}

fn socket(remote: Remote) -> SocketAddr {
    SocketAddr::new(remote.addr, remote.port)
}
