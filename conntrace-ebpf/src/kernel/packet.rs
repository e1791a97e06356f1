//! Readers of packets: dropped ones, and ICMP errors in a socket's error queue.

use aya_ebpf::programs::BtfTracePointContext;
use conntrace_common::{hash::words_of, record::ORIGIN_ICMP};

use super::{OFFSETS, Struct, Word, at, global, v4_in_16};

/// Socket of a dropped packet.
pub enum SockOfPacket {
    /// Socket in the wanted state, in the namespace of the drop: its address, the key of its attempt.
    Here(u64),
    /// None of these.
    Other,
}

/// Returns the socket of the tracepoint's packet, if it is in this state. Request and TIME_WAIT sockets have their state at the same offset.
///
/// A packet that has reached another network namespace is not its socket's any more: over veth it keeps its socket
/// until `ip_rcv_core`.
#[inline(always)]
pub fn sock_of_packet_in(ctx: &BtfTracePointContext, state: u8) -> SockOfPacket {
    let packet: *mut u8 = ctx.arg(0);
    let sock = Struct::typed(packet).follow::<{ at!(skb_sk) }>();
    if sock.is_null() || sock.load::<{ at!(state) }, u8>() != state {
        return SockOfPacket::Other;
    }
    let device = Struct::typed(packet).follow::<{ at!(skb_dev) }>();
    if !device.is_null() {
        let here = sock.follow::<{ at!(net) }>();
        if device.follow::<{ at!(dev_net) }>().at != here.at {
            return SockOfPacket::Other;
        }
    }
    SockOfPacket::Here(sock.at as u64)
}

/// ICMP error in a socket's error queue (`struct sock_exterr_skb`).
#[derive(Clone, Copy)]
pub struct QueuedIcmp {
    pub(super) packet: Struct,
    pub origin: u8,
}

impl QueuedIcmp {
    #[inline(always)]
    fn load<T: Word>(self, member: u32) -> T {
        self.packet.load_at(global!(OFFSETS.skb_cb) + member)
    }

    #[inline(always)]
    pub fn errno(self) -> u32 {
        self.load(global!(OFFSETS.ee_errno))
    }

    #[inline(always)]
    pub fn icmp_type(self) -> u8 {
        self.load(global!(OFFSETS.ee_type))
    }

    #[inline(always)]
    pub fn code(self) -> u8 {
        self.load(global!(OFFSETS.ee_code))
    }

    /// Returns the source address of the ICMP packet, as `IP_RECVERR` reports it (`ip_recv_error`,
    /// `ipv6_recv_error`); all zero if it cannot be read.
    #[inline(always)]
    pub fn from(self) -> [u8; 16] {
        let header = header::<{ at!(skb_network_header) }>(self.packet);
        if self.origin == ORIGIN_ICMP {
            v4_in_16(header.load::<{ at!(iphdr_saddr) }, _>())
        } else {
            header.load16::<{ at!(ipv6hdr_saddr) }>()
        }
    }
}

/// Returns the header of a packet whose distance from the start of the buffer is in the member
/// with this index.
#[inline(always)]
pub(super) fn header<const INDEX: usize>(packet: Struct) -> Struct {
    let head: u64 = packet.load::<{ at!(skb_head) }, _>();
    let distance: u16 = packet.load::<INDEX, _>();
    Struct::at(head + u64::from(distance))
}

/// ICMPv6 error that `icmpv6_rcv` delivered to a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Icmp6Error {
    /// Source address of the ICMP packet. Two words, because the compiler would copy bytes with
    /// memmove.
    pub from: [u64; 2],
    /// Errno that the kernel derives from it.
    pub errno: u32,
    pub icmp_type: u8,
    pub code: u8,
    /// Padding, always zero.
    pub reserved: u16,
}

impl Icmp6Error {
    /// Reads the error from the packet at this address.
    #[inline(always)]
    pub fn of_packet(address: u64, errno: u32) -> Self {
        let packet = Struct::at(address);
        let [icmp_type, code]: [u8; 2] = header::<{ at!(skb_transport_header) }>(packet).read(0);
        let outer = header::<{ at!(skb_network_header) }>(packet);
        Self {
            from: words_of(outer.load16::<{ at!(ipv6hdr_saddr) }>()),
            errno,
            icmp_type,
            code,
            reserved: 0,
        }
    }
}
