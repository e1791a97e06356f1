//! Readers of packets: dropped ones, and ICMP errors in a socket's error queue.

use aya_ebpf::programs::BtfTracePointContext;
use conntrace_common::{hash::words_of, offsets::DROP_REASON_WORDS, record::ORIGIN_ICMP};

use super::{DROP_REASONS, OFFSETS, Struct, global, v4_in_16};

/// Returns true if drops for this reason are recorded.
#[inline(always)]
pub fn is_noted_drop(reason: u32) -> bool {
    let word = (reason / u64::BITS) as usize;
    word < DROP_REASON_WORDS && global!(DROP_REASONS[word]) >> (reason % u64::BITS) & 1 != 0
}

/// Returns the address of a packet's socket, the key of its attempt, if the socket is in this
/// state. Request and TIME_WAIT sockets have their state at the same offset.
///
/// A packet that has reached another network namespace is ignored: over veth it keeps its socket
/// until `ip_rcv_core`.
#[inline(always)]
pub fn sock_of_packet_in(ctx: &BtfTracePointContext, state: u8) -> Option<u64> {
    let packet: *mut u8 = ctx.arg(0);
    let sock = Struct::typed(packet).follow(global!(OFFSETS.skb_sk));
    if sock.is_null() || sock.load::<u8>(global!(OFFSETS.state)) != state {
        return None;
    }
    let device = Struct::typed(packet).follow(global!(OFFSETS.skb_dev));
    if !device.is_null() {
        let here = sock.follow(global!(OFFSETS.net));
        if device.follow(global!(OFFSETS.dev_net)).at != here.at {
            return None;
        }
    }
    Some(sock.at as u64)
}

/// ICMP error in a socket's error queue (`struct sock_exterr_skb`).
#[derive(Clone, Copy)]
pub struct QueuedIcmp {
    pub(super) packet: Struct,
    pub origin: u8,
}

impl QueuedIcmp {
    #[inline(always)]
    fn load<T: Copy>(self, member: u32) -> T {
        self.packet.load(global!(OFFSETS.skb_cb) + member)
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
        let header = header(self.packet, global!(OFFSETS.skb_network_header));
        if self.origin == ORIGIN_ICMP {
            v4_in_16(header.load(global!(OFFSETS.iphdr_saddr)))
        } else {
            header.load16(global!(OFFSETS.ipv6hdr_saddr))
        }
    }
}

/// Returns the header of a packet whose distance from the start of the buffer is in `member`.
#[inline(always)]
fn header(packet: Struct, member: u32) -> Struct {
    let head: u64 = packet.load(global!(OFFSETS.skb_head));
    let distance: u16 = packet.load(member);
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
        let [icmp_type, code]: [u8; 2] =
            header(packet, global!(OFFSETS.skb_transport_header)).load(0);
        let outer = header(packet, global!(OFFSETS.skb_network_header));
        Self {
            from: words_of(outer.load16(global!(OFFSETS.ipv6hdr_saddr))),
            errno,
            icmp_type,
            code,
            reserved: 0,
        }
    }
}
