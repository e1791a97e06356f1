//! Readers of dropped packets of a TCP handshake (`kfree_skb`), which may have lost their socket.

use aya_ebpf::programs::BtfTracePointContext;
use conntrace_common::{
    offsets::{DROP_REASON_WORDS, POISON},
    record::{AF_INET, AF_INET6},
};

use super::{
    CONNTRACK_OFFSETS, DROP_REASONS, NO_SOCKET, PACKET_DROP_REASONS, Struct, at, global,
    packet::header,
};

/// `ETH_P_IP` and `ETH_P_IPV6` in network order, as a little-endian register holds them.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// Protocol number of TCP.
const TCP: u8 = 6;
/// Flags of a TCP header.
const FIN: u8 = 1 << 0;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;
/// Size of an IPv4 header without options in 32-bit words, and of an IPv6 header in bytes.
const IPV4_WORDS: u8 = 5;
const IPV6_LEN: u32 = 40;
/// Index of loopback in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// Bits of `sk_buff._nfct` that are no part of the address (`NFCT_INFOMASK`).
const CONNTRACK_STATE: u64 = 7;
/// Status bit of an entry whose destination is translated (`IPS_DST_NAT`).
const IS_DNAT: u64 = 1 << 5;

/// Returns true if drops for this reason are recorded for some packet.
#[inline(always)]
pub fn is_noted_drop(reason: u32) -> bool {
    let word = (reason / u64::BITS) as usize;
    word < DROP_REASON_WORDS && global!(PACKET_DROP_REASONS[word]) >> (reason % u64::BITS) & 1 != 0
}

/// Returns true if the reason is a decision of this host about a packet of its own sockets.
#[inline(always)]
pub fn is_decision(reason: u32) -> bool {
    let word = (reason / u64::BITS) as usize;
    word < DROP_REASON_WORDS && global!(DROP_REASONS[word]) >> (reason % u64::BITS) & 1 != 0
}

/// Dropped packet of a handshake. Ports are in network order, addresses in two words, v4-mapped.
pub struct DroppedPacket {
    pub client: [u64; 2],
    pub server: [u64; 2],
    /// Destination before a translation in the namespace of the drop; zero if unknown.
    pub asked: [u64; 2],
    pub client_port: u16,
    pub server_port: u16,
    pub asked_port: u16,
    /// Lower half of the client's initial sequence number.
    pub isn_end: u16,
    /// True for a SYN-ACK.
    pub is_answer: bool,
    pub netns: u32,
    pub device: u32,
}

/// Addresses and ports of a TCP segment, in the order of its header.
struct Segment {
    source: [u64; 2],
    destination: [u64; 2],
    /// Both ports as the first word of a TCP header has them: the source in the lower half.
    ports: u32,
    /// Sequence and acknowledgement number, in network order.
    sequence: u32,
    acknowledged: u32,
    flags: u8,
}

impl DroppedPacket {
    /// Reads the tracepoint's packet. `None` if it is no SYN or SYN-ACK, or only met no listener on
    /// loopback, which the sockets of its namespace tell.
    #[inline(always)]
    pub fn from_arg(ctx: &BtfTracePointContext, reason: u32) -> Option<Self> {
        let packet = Struct::typed(ctx.arg(0));
        let device = packet.follow::<{ at!(skb_dev) }>();
        let index: u32 = if device.is_null() {
            0
        } else {
            device.load::<{ at!(dev_ifindex) }, _>()
        };
        let entry = conntrack_entry(packet);
        if index == LOOPBACK && reason == global!(NO_SOCKET) && !is_translated(entry) {
            return None;
        }
        let segment = segment_of(packet)?;
        if segment.flags & (FIN | SYN | RST) != SYN {
            return None;
        }
        let net = if device.is_null() {
            let sock = packet.follow::<{ at!(skb_sk) }>();
            if sock.is_null() {
                return None;
            }
            sock.follow::<{ at!(net) }>()
        } else {
            device.follow::<{ at!(dev_net) }>()
        };
        let is_answer = segment.flags & ACK != 0;
        let isn_end = if is_answer {
            u32::from_be(segment.acknowledged).wrapping_sub(1) as u16
        } else {
            u32::from_be(segment.sequence) as u16
        };
        let [source_port, destination_port] = [segment.ports as u16, (segment.ports >> 16) as u16];
        let mut dropped = if is_answer {
            Self {
                client: segment.destination,
                server: segment.source,
                client_port: destination_port,
                server_port: source_port,
                asked: [0; 2],
                asked_port: 0,
                isn_end,
                is_answer,
                netns: net.load::<{ at!(net_inum) }, _>(),
                device: index,
            }
        } else {
            Self {
                client: segment.source,
                server: segment.destination,
                client_port: source_port,
                server_port: destination_port,
                asked: [0; 2],
                asked_port: 0,
                isn_end,
                is_answer,
                netns: net.load::<{ at!(net_inum) }, _>(),
                device: index,
            }
        };
        dropped.name_as_asked(entry);
        Some(dropped)
    }

    /// Takes the client and the destination from the packet's entry of connection tracking, if it has
    /// one: those before any translation. The entry of a template has no addresses.
    #[inline(always)]
    fn name_as_asked(&mut self, entry: u64) {
        if entry == 0 {
            return;
        }
        // `struct nf_conntrack_tuple`: address, port and family of the source, then of the
        // destination.
        let original = Struct::at(entry + u64::from(global!(CONNTRACK_OFFSETS.original)));
        let [first, second, third, fourth, fifth]: [u64; 5] = original.read(0);
        let family = (third >> 16) as u16;
        let destination = [third >> 32 | fourth << 32, fourth >> 32 | fifth << 32];
        if family == AF_INET {
            self.client = v4_mapped(first as u32);
            self.asked = v4_mapped((third >> 32) as u32);
        } else if family == AF_INET6 {
            self.client = [first, second];
            self.asked = destination;
        } else {
            return;
        }
        self.client_port = third as u16;
        self.asked_port = (fifth >> 32) as u16;
    }
}

/// Returns the address of the packet's entry of connection tracking; 0 if it has none.
#[inline(always)]
fn conntrack_entry(packet: Struct) -> u64 {
    if global!(CONNTRACK_OFFSETS.entry) == POISON {
        return 0;
    }
    let entry: u64 = packet.load_at(global!(CONNTRACK_OFFSETS.entry));
    entry & !CONNTRACK_STATE
}

/// Returns true if the entry has another destination than was asked for.
#[inline(always)]
fn is_translated(entry: u64) -> bool {
    if entry == 0 {
        return false;
    }
    let status: u64 = Struct::at(entry).read(global!(CONNTRACK_OFFSETS.status));
    status & IS_DNAT != 0
}

/// Reads the headers of a TCP packet; `None` for others, for fragments, and for IPv6 with extension
/// headers.
#[inline(always)]
fn segment_of(packet: Struct) -> Option<Segment> {
    let protocol: u16 = packet.load::<{ at!(skb_protocol) }, _>();
    let ip = header::<{ at!(skb_network_header) }>(packet);
    if protocol == IPV4 {
        let [first, second, third, fourth, fifth]: [u64; 5] = ip.read(0);
        // The offset of a fragment is in the lower 13 bits of bytes 6 and 7.
        let is_first = (first >> 48) as u16 & 0x1fff_u16.to_be() == 0;
        if (second >> 8) as u8 != TCP || !is_first {
            return None;
        }
        let words = first as u8 & 0xf;
        let [source, destination] = [second >> 32, third].map(|addr| v4_mapped(addr as u32));
        if words != IPV4_WORDS {
            return Some(tcp_of(ip, u32::from(words) * 4, source, destination));
        }
        return Some(Segment {
            source,
            destination,
            ports: (third >> 32) as u32,
            sequence: fourth as u32,
            acknowledged: (fourth >> 32) as u32,
            flags: (fifth >> 8) as u8,
        });
    }
    if protocol != IPV6 {
        return None;
    }
    let [first, from, from_rest, to, to_rest]: [u64; 5] = ip.read(0);
    if (first >> 48) as u8 != TCP {
        return None;
    }
    Some(tcp_of(ip, IPV6_LEN, [from, from_rest], [to, to_rest]))
}

/// Reads the TCP header at this distance from the IP header.
#[inline(always)]
fn tcp_of(ip: Struct, at: u32, source: [u64; 2], destination: [u64; 2]) -> Segment {
    let [first, second]: [u64; 2] = ip.read(at);
    Segment {
        source,
        destination,
        ports: first as u32,
        sequence: (first >> 32) as u32,
        acknowledged: second as u32,
        flags: (second >> 40) as u8,
    }
}

/// Returns the words of an IPv4 address, v4-mapped.
#[inline(always)]
fn v4_mapped(addr: u32) -> [u64; 2] {
    [0, 0xffff_0000 | u64::from(addr) << 32]
}
