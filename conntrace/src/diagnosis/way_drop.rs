//! Packets of an attempt that this machine dropped in whatever namespace, after they had lost their
//! socket: where it was, and the rules that may have dropped them.

use std::net::SocketAddr;

use super::{
    Case, Evidence, Facts, Undiagnosed,
    firewall_facts::{Direction, Firewall, FirewallPacket, Match, MatchingRule, PacketEnd},
    place,
    way::{Flow, Route},
    words,
};
use crate::record::{Attempt, DropUnknown, Label, Remote, WayDrop, WayPacket};

/// Reason of a packet that met no socket.
const NO_SOCKET: &str = "NO_SOCKET";

/// Time in nanoseconds within which a refusal follows the drop of its SYN: less than that between two
/// SYNs.
const REFUSED_WITHIN_NS: u64 = 100_000_000;

/// Packets of an attempt that this machine dropped after they had lost their socket, in whatever
/// namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaseWayDrop {
    /// Kind of the packets.
    pub packet: WayPacket,
    /// Reason: a number of this kernel's `enum skb_drop_reason`.
    pub reason: u16,
    /// Inode number of the network namespace that dropped them.
    pub netns: u32,
    /// Index of the packet's interface in that namespace.
    pub device: Option<u32>,
    /// Other end, as the dropped packet had it: after the translations before the drop.
    pub server: Remote,
    /// Destination before its translation in that namespace, if connection tracking knew it.
    pub asked: Option<Remote>,
    /// Every SYN was dropped so, or an answer was.
    pub all: bool,
    /// The drop came after the attempt had ended.
    pub is_late: bool,
}

impl CaseWayDrop {
    pub(super) fn of(attempt: &Attempt, label: Label) -> Result<Option<Self>, DropUnknown> {
        let found = attempt.way_drop?;
        // What is refused is so for its last SYN: one that was dropped long before was another.
        let is_last = |drop: &WayDrop| {
            label != Label::Refused
                || attempt.at_ns.saturating_sub(drop.last_ns) < REFUSED_WITHIN_NS
        };
        let is_all = |drop: &WayDrop| match drop.packet {
            WayPacket::Syn => u32::from(drop.count) >= attempt.syn_sent,
            WayPacket::SynAck => true,
        };
        Ok(found.filter(is_last).map(|drop| Self {
            packet: drop.packet,
            reason: drop.reason,
            netns: drop.netns,
            device: drop.device,
            server: drop.server,
            asked: drop.asked,
            all: is_all(&drop),
            is_late: drop.last_ns > attempt.at_ns,
        }))
    }
}

/// Returns the drop, with the kernel's name for its reason.
pub(super) fn named(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<(CaseWayDrop, String)>, Undiagnosed> {
    let Ok(Some(drop)) = case.way_drop else {
        return Ok(None);
    };
    let reason = evidence.drop_reason(drop.reason)?;
    Ok(Some((drop, reason)))
}

/// Returns the drop of a SYN that met no socket: the place to which the way led.
pub(super) fn met_no_socket(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<CaseWayDrop>, Undiagnosed> {
    let found = named(case, evidence)?;
    let found = found.filter(|(drop, reason)| drop.packet == WayPacket::Syn && reason == NO_SOCKET);
    Ok(found.map(|(drop, _)| drop))
}

/// Returns the drop of a SYN-ACK that met no socket in the client's own namespace.
pub(super) fn answer_without_socket(
    case: &Case,
    evidence: &mut dyn Evidence,
) -> Result<Option<CaseWayDrop>, Undiagnosed> {
    let found = named(case, evidence)?;
    let found = found.filter(|(drop, reason)| {
        drop.packet == WayPacket::SynAck && reason == NO_SOCKET && drop.netns == case.netns
    });
    Ok(found.map(|(drop, _)| drop))
}

/// Returns the rules of the drop's namespace that may have ended the packet's way so.
pub(super) fn rules(
    case: &Case,
    drop: &CaseWayDrop,
    ending: PacketEnd,
    evidence: &mut dyn Evidence,
) -> Result<Firewall, Undiagnosed> {
    let way_to = |to: Remote| Flow::to(to.addr, to.port);
    let packet_device = device_name(drop, evidence);
    let mut packet = FirewallPacket {
        direction: Direction::Delivered,
        remote: socket(drop.server),
        local: case.local_addr,
        local_port: case.bound_port,
        device: packet_device.clone(),
        leaves_by: None,
        asked: drop.asked.map(socket),
        mark: None,
        uid: None,
    };
    let is_own = drop.netns == case.netns;
    let mut is_known = true;
    match (
        drop.packet,
        evidence.route(drop.netns, way_to(drop.server))?,
    ) {
        (WayPacket::Syn, Route::Local) => {}
        (WayPacket::Syn, Route::Out(out)) => {
            packet.direction = Direction::Forwarded;
            // At `postrouting` the packet has the interface that it leaves by. That of a bridge may
            // be a port of it or the bridge itself, unless it is routed there.
            let kind = evidence.link(drop.netns, out.device.index)?;
            let is_bridge = kind.is_some_and(|link| link.kind.as_deref() == Some("bridge"));
            let may_be_port = is_bridge && !is_on_way(case, drop, evidence)?;
            if may_be_port || drop.device == Some(out.device.index) {
                packet.device = None;
            }
            packet.leaves_by = Some(out.device.name);
        }
        (WayPacket::Syn, Route::None(_)) => {
            // By another rule than is asked for it may have been forwarded.
            packet.direction = Direction::Forwarded;
            is_known = false;
        }
        (WayPacket::SynAck, _) if is_own => packet.direction = Direction::In,
        (WayPacket::SynAck, Route::Local) => {
            packet.direction = Direction::OutBack;
            packet.device = None;
        }
        (WayPacket::SynAck, Route::Out(_) | Route::None(_)) => {
            packet.direction = Direction::ForwardedBack;
            packet.device = None;
        }
    }
    let mut rules = by_this_way(drop.netns, packet, ending, evidence)?;
    rules.complete &= is_known;
    Ok(rules)
}

/// The rules that the packet meets on its way. The interface by which it leaves is that of the route
/// without the packet's source and own interface: what depends on it is no certainty.
fn by_this_way(
    netns: u32,
    mut packet: FirewallPacket,
    ending: PacketEnd,
    evidence: &mut dyn Evidence,
) -> Result<Firewall, Undiagnosed> {
    let mut rules = evidence.firewall(netns, packet.clone(), ending)?;
    if packet.leaves_by.take().is_none() {
        return Ok(rules);
    }
    let sure = evidence.firewall(netns, packet, ending)?;
    let is_sure = |rule: &MatchingRule| {
        let mut others = sure.found.iter();
        rule.matches == Match::Fully
            && others.any(|other| other.matches == Match::Fully && is_same(rule, other))
    };
    if rules.found.first().is_some_and(is_sure) {
        // By whatever way no other one may have ended it.
        rules.found.truncate(1);
        return Ok(rules);
    }
    for rule in &mut rules.found {
        rule.matches = Match::Possibly;
    }
    // By another way another rule may have.
    let others = sure.found.into_iter();
    let others: Vec<_> = others
        .filter(|other| !rules.found.iter().any(|rule| is_same(rule, other)))
        .collect();
    rules.found.extend(others);
    Ok(rules)
}

/// The same rule, or policy of the same chain.
pub(super) fn is_same(one: &MatchingRule, other: &MatchingRule) -> bool {
    (one.handle, &one.family, &one.table, &one.chain)
        == (other.handle, &other.family, &other.table, &other.chain)
}

/// Returns true if the namespace of the drop is known to be on the way: the client's own, or that of
/// its next hop. Of others, what they dropped may be a copy of the packet.
pub(super) fn is_on_way(
    case: &Case,
    drop: &CaseWayDrop,
    evidence: &mut dyn Evidence,
) -> Result<bool, Undiagnosed> {
    if drop.netns == case.netns {
        return Ok(true);
    }
    let (Some(out), Some(to)) = (place::way_out(case, evidence)?, case.remote) else {
        return Ok(false);
    };
    let next = out.gateway.unwrap_or(to.addr);
    Ok(evidence.owner(case.netns, out.device.index, next)? == Some(drop.netns))
}

/// Returns the name of the packet's interface, if it is known.
pub(super) fn device_name(drop: &CaseWayDrop, evidence: &mut dyn Evidence) -> Option<String> {
    let link = evidence.link(drop.netns, drop.device?).ok()??;
    Some(link.name)
}

/// `SYN` or `SYN-ACK`.
pub(super) fn packet(drop: &CaseWayDrop) -> &'static str {
    match drop.packet {
        WayPacket::Syn => "SYN",
        WayPacket::SynAck => "SYN-ACK",
    }
}

/// `the client's own network namespace`, or `network namespace 4026532008 of this machine`.
pub(super) fn place(case: &Case, netns: u32) -> String {
    if netns == case.netns {
        "the client's own network namespace".to_owned()
    } else {
        format!("network namespace {netns} of this machine")
    }
}

/// `10.96.0.50:80 is translated on its way to 10.244.0.6:8080; `, or nothing where it is not.
pub(super) fn translation(case: &Case, drop: &CaseWayDrop) -> String {
    match (case.remote, translated(case, drop)) {
        (Some(from), Some(to)) => words::translation(from, to),
        (None, _) | (_, None) => String::new(),
    }
}

/// Returns the destination that the packet had, where it differs from that of the attempt.
fn translated(case: &Case, drop: &CaseWayDrop) -> Option<Remote> {
    let remote = case.remote?;
    // The source of an answer is translated back on its way.
    let is_known = drop.packet == WayPacket::Syn || drop.asked == Some(remote);
    (is_known && drop.server != remote).then_some(drop.server)
}

/// Returns the facts of the drop.
pub(super) fn facts(
    case: &Case,
    drop: &CaseWayDrop,
    reason: &str,
    evidence: &mut dyn Evidence,
) -> Facts {
    Facts::new()
        .with("drop_reason", reason)
        .with("packet", packet(drop))
        .with("netns", drop.netns)
        .with("device", device_name(drop, evidence))
        .with("remote", case.remote_socket())
        .with("translated_to", translated(case, drop).map(socket))
        .with("all_dropped", drop.all)
}

/// A command as it can be run on this host, in the namespace of the drop.
pub(super) fn command(drop: &CaseWayDrop, text: &str, evidence: &mut dyn Evidence) -> String {
    words::command_in(drop.netns, text, evidence)
}

fn socket(remote: Remote) -> SocketAddr {
    SocketAddr::new(remote.addr, remote.port)
}
