//! Packets of an attempt that this machine dropped in whatever namespace, after they had lost their
//! socket: where it was, and the rules that may have dropped them.

use std::net::SocketAddr;

use super::{
    Case, CaseWayDrop, Evidence, Facts, Undiagnosed,
    firewall_facts::{Direction, Firewall, FirewallPacket, PacketEnd},
    way::{Flow, Route},
    words,
};
use crate::record::{Remote, WayPacket};

/// Reason of a packet that met no socket.
const NO_SOCKET: &str = "NO_SOCKET";

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
    let way_to = |to: Remote| Flow {
        to: to.addr,
        from: None,
        device: None,
        mark: 0,
        uid: None,
        port: to.port,
    };
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
    match (drop.packet, evidence.route(drop.netns, way_to(drop.server))?) {
        (WayPacket::Syn, Route::Local) => {}
        (WayPacket::Syn, Route::Out(out)) => {
            packet.direction = Direction::Forwarded;
            // At `postrouting` the packet has the interface that it leaves by. That of a bridge may
            // be a port of it or the bridge itself.
            let kind = evidence.link(drop.netns, out.device.index)?;
            let is_bridge = kind.is_some_and(|link| link.kind.as_deref() == Some("bridge"));
            if is_bridge || drop.device == Some(out.device.index) {
                packet.device = None;
            }
            packet.leaves_by = Some(out.device.name);
        }
        (WayPacket::Syn, Route::None(_)) => packet.direction = Direction::Arriving,
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
    evidence.firewall(drop.netns, packet, ending)
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

/// `10.96.0.50:80 is translated here to 10.244.0.6:8080; `, or nothing where it is not.
pub(super) fn translation(case: &Case, drop: &CaseWayDrop) -> String {
    match translated(case, drop) {
        Some((from, to)) => format!("{from} is translated here to {to}; "),
        None => String::new(),
    }
}

/// Returns the destination of the attempt and the one that the packet had, where they differ.
pub(super) fn translated(case: &Case, drop: &CaseWayDrop) -> Option<(SocketAddr, SocketAddr)> {
    let remote = case.remote?;
    // The source of an answer is translated back on its way.
    let is_known = drop.packet == WayPacket::Syn || drop.asked == Some(remote);
    (is_known && drop.server != remote).then(|| (socket(remote), socket(drop.server)))
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
        .with("translated_to", translated(case, drop).map(|(_, to)| to))
        .with("all_dropped", drop.all)
}

/// A command as it can be run on this host, in the namespace of the drop.
pub(super) fn command(drop: &CaseWayDrop, text: &str, evidence: &mut dyn Evidence) -> String {
    words::command_in(drop.netns, text, evidence)
}

fn socket(remote: Remote) -> SocketAddr {
    SocketAddr::new(remote.addr, remote.port)
}
