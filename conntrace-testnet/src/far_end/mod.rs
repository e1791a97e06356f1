//! Far end as a pure function from a packet to its answer.
//!
//! Nothing here waits, reads or writes, and any bytes are safe as input. Anything but a whole TCP
//! packet is ignored.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, IpSlice, PacketBuilder, TcpHeader, TcpOptionElement,
    TcpSlice, icmpv4, icmpv6,
};

use super::{
    FAR_ROUTER_V4, FAR_ROUTER_V6,
    ports::{FarAnswer, IcmpReason, LATE, ThenTo, answer_of},
};

/// Attempts whose SYNs are counted at a time. The table is emptied when full:
/// an attempt forgotten that way is answered a SYN later.
const ATTEMPTS_MAX: usize = 4096;
/// Sequence number of every SYN-ACK. It is constant, because the far end keeps no connections that
/// it would have to distinguish.
const INITIAL_SEQUENCE: u32 = 0x5EED_0000;
const WINDOW: u16 = u16::MAX;
/// Offset of a wrong acknowledgement or sequence number: larger than any SYN.
const WRONG_BY: u32 = 1_000_000;
const HOP_LIMIT: u8 = 64;
const IP_AND_ICMP_BYTES_MAX: usize = 40 + 8;
/// Quote limit of an ICMP error in bytes. With its own headers the error then fits every path (RFC
/// 1812 4.3.2.3, RFC 4443 2.4 c).
const ICMP4_QUOTE_BYTES_MAX: usize = 576 - 20 - 8;
const ICMP6_QUOTE_BYTES_MAX: usize = 1280 - 40 - 8;
/// The TAP device has the default MTU of 1500.
const MSS_V4: u16 = 1460;
const MSS_V6: u16 = 1440;

/// State of the far end between packets.
#[derive(Debug, Default)]
pub struct FarEnd {
    /// SYNs seen so far, for [`FarAnswer::AcceptNth`] and [`FarAnswer::ResetNth`].
    syns: HashMap<FarAttempt, u8>,
}

/// One connection attempt. A retransmitted SYN has the sequence number of the
/// first; a new attempt from the same port has not, and is counted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FarAttempt {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
}

impl FarEnd {
    /// Counts a SYN of `attempt` and returns its number.
    fn count_syn(&mut self, attempt: FarAttempt) -> u8 {
        if self.syns.len() >= ATTEMPTS_MAX && !self.syns.contains_key(&attempt) {
            self.syns.clear();
        }
        let count = self.syns.entry(attempt).or_default();
        *count = count.saturating_add(1);
        *count
    }
}

/// Returns the time that passes before this answer is sent.
#[must_use]
pub(super) fn delay_of(answer: &[u8]) -> Duration {
    let is_late = IpSlice::from_slice(answer).ok().is_some_and(|ip| {
        let segment = TcpSlice::from_slice(ip.payload().payload);
        let is_from = |segment: TcpSlice<'_>| answer_of(segment.source_port());
        ip.payload_ip_number() == IpNumber::TCP
            && segment.is_ok_and(|segment| is_from(segment) == FarAnswer::AcceptLate)
    });
    if is_late { LATE } else { Duration::ZERO }
}

/// Returns the IP packet that answers `packet`, or none.
#[must_use]
pub fn answer(packet: &[u8], state: &mut FarEnd) -> Option<Vec<u8>> {
    let ip = IpSlice::from_slice(packet).ok()?;
    if ip.is_fragmenting_payload() || ip.payload_ip_number() != IpNumber::TCP {
        return None;
    }
    let segment = TcpSlice::from_slice(ip.payload().payload).ok()?;
    let from = SocketAddr::new(ip.source_addr(), segment.source_port());
    let to = SocketAddr::new(ip.destination_addr(), segment.destination_port());
    let reply = if segment.rst() {
        return None;
    } else if segment.syn() && !segment.ack() {
        let attempt = FarAttempt {
            from,
            to,
            sequence: segment.sequence_number(),
        };
        let answer = answer_of(to.port());
        if let FarAnswer::Unreachable(reason) = answer {
            return unreachable(packet, reason, from.ip());
        }
        answer_syn(answer, attempt, state)?
    } else {
        after_syn(to, from, &segment)?
    };
    let answers = match (answer_of(to.port()), to.ip()) {
        (FarAnswer::FromElsewhere, IpAddr::V4(_)) => FAR_ROUTER_V4.into(),
        (FarAnswer::FromElsewhere, IpAddr::V6(_)) => FAR_ROUTER_V6.into(),
        (_, to) => to,
    };
    tcp_packet(answers, from.ip(), reply)
}

/// Returns the segment that answers a SYN, or none.
fn answer_syn(answer: FarAnswer, attempt: FarAttempt, state: &mut FarEnd) -> Option<TcpHeader> {
    let FarAttempt { from, to, sequence } = attempt;
    match answer {
        FarAnswer::Accept | FarAnswer::AcceptLate | FarAnswer::FromElsewhere => {
            Some(syn_ack(to, from, sequence))
        }
        FarAnswer::Reset => Some(refusal(to, from, sequence)),
        FarAnswer::AcceptNth(nth) => {
            (state.count_syn(attempt) >= nth).then(|| syn_ack(to, from, sequence))
        }
        FarAnswer::ResetNth(nth) => {
            (state.count_syn(attempt) >= nth).then(|| refusal(to, from, sequence))
        }
        FarAnswer::Syn(_) => Some(syn(to, from)),
        FarAnswer::WrongSynAck => Some(syn_ack(to, from, sequence.wrapping_sub(WRONG_BY))),
        FarAnswer::WrongReset => Some(refusal(to, from, sequence.wrapping_sub(WRONG_BY))),
        FarAnswer::Unreachable(_) | FarAnswer::Silence => None,
    }
}

fn syn(from: SocketAddr, to: SocketAddr) -> TcpHeader {
    let mut segment = TcpHeader::new(from.port(), to.port(), INITIAL_SEQUENCE, WINDOW);
    segment.syn = true;
    let mss = if from.is_ipv4() { MSS_V4 } else { MSS_V6 };
    // One option always fits; without it the kernel would assume 536 bytes.
    let _ = segment.set_options(&[TcpOptionElement::MaximumSegmentSize(mss)]);
    segment
}

fn syn_ack(from: SocketAddr, to: SocketAddr, sequence: u32) -> TcpHeader {
    let mut reply = syn(from, to);
    reply.ack = true;
    reply.acknowledgment_number = sequence.wrapping_add(1);
    reply
}

fn refusal(from: SocketAddr, to: SocketAddr, sequence: u32) -> TcpHeader {
    let mut reply = TcpHeader::new(from.port(), to.port(), 0, 0);
    reply.rst = true;
    reply.ack = true;
    reply.acknowledgment_number = sequence.wrapping_add(1);
    reply
}

/// Answers a segment other than a SYN without stored state. Its acknowledgement number is the next
/// sequence number that the kernel expects.
fn after_syn(from: SocketAddr, to: SocketAddr, segment: &TcpSlice) -> Option<TcpHeader> {
    if !segment.ack() {
        return None;
    }
    let next = segment.acknowledgment_number();
    let mut reply = TcpHeader::new(from.port(), to.port(), next, WINDOW);
    let answer = answer_of(from.port());
    match (segment.syn(), answer) {
        (true, FarAnswer::Syn(ThenTo::Accept)) => {
            reply.ack = true;
            reply.acknowledgment_number = segment.sequence_number().wrapping_add(1);
        }
        (true, FarAnswer::Syn(ThenTo::Reset)) | (false, FarAnswer::Reset) => reply.rst = true,
        (false, _) if is_open(answer) && segment.fin() => reply.rst = true,
        (false, _) if is_open(answer) => {
            let length = u32::try_from(segment.payload().len()).ok()?;
            if length == 0 {
                return None;
            }
            reply.ack = true;
            reply.acknowledgment_number = segment.sequence_number().wrapping_add(length);
        }
        _ => return None,
    }
    Some(reply)
}

/// Returns true if a connection to a port with this answer is established.
fn is_open(answer: FarAnswer) -> bool {
    matches!(
        answer,
        FarAnswer::Accept | FarAnswer::AcceptNth(_) | FarAnswer::Syn(ThenTo::Accept)
    )
}

/// Returns the router's ICMP error about `packet`, addressed to its sender.
fn unreachable(packet: &[u8], reason: IcmpReason, to: IpAddr) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(IP_AND_ICMP_BYTES_MAX + packet.len());
    match to {
        IpAddr::V4(to) => PacketBuilder::ipv4(FAR_ROUTER_V4.octets(), to.octets(), HOP_LIMIT)
            .icmpv4(icmp4_type(reason))
            .write(&mut bytes, head(packet, ICMP4_QUOTE_BYTES_MAX)),
        IpAddr::V6(to) => PacketBuilder::ipv6(FAR_ROUTER_V6.octets(), to.octets(), HOP_LIMIT)
            .icmpv6(icmp6_type(reason))
            .write(&mut bytes, head(packet, ICMP6_QUOTE_BYTES_MAX)),
    }
    .ok()?;
    Some(bytes)
}

fn head(bytes: &[u8], length_max: usize) -> &[u8] {
    bytes.get(..length_max).unwrap_or(bytes)
}

const fn icmp4_type(reason: IcmpReason) -> Icmpv4Type {
    use icmpv4::DestUnreachableHeader;
    Icmpv4Type::DestinationUnreachable(match reason {
        IcmpReason::Port => DestUnreachableHeader::Port,
        IcmpReason::Host => DestUnreachableHeader::Host,
        IcmpReason::Net => DestUnreachableHeader::Network,
        IcmpReason::AdminProhibited => DestUnreachableHeader::FilterProhibited,
        IcmpReason::TtlExceeded => {
            return Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
        }
    })
}

const fn icmp6_type(reason: IcmpReason) -> Icmpv6Type {
    use icmpv6::DestUnreachableCode;
    Icmpv6Type::DestinationUnreachable(match reason {
        IcmpReason::Port => DestUnreachableCode::Port,
        IcmpReason::Host => DestUnreachableCode::Address,
        IcmpReason::Net => DestUnreachableCode::NoRoute,
        IcmpReason::AdminProhibited => DestUnreachableCode::Prohibited,
        IcmpReason::TtlExceeded => {
            return Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded);
        }
    })
}

fn tcp_packet(from: IpAddr, to: IpAddr, segment: TcpHeader) -> Option<Vec<u8>> {
    let ip = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let packet = ip.tcp_header(segment);
    let mut bytes = Vec::with_capacity(packet.size(0));
    packet.write(&mut bytes, &[]).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
