//! Packets: those that this host drops, and ICMP errors in a socket's queue.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::BtfTracePointContext};
use conntrace_common::{offsets::DROP_REASON_WORDS, record::ORIGIN_ICMP};

use super::{DROP_REASONS, OFFSETS, Typed, global, v4_in_16};

/// Whether drops for this reason are noted.
#[inline(always)]
pub fn is_noted_drop(reason: u32) -> bool {
    let word = (reason / u64::BITS) as usize;
    word < DROP_REASON_WORDS && global!(DROP_REASONS[word]) >> (reason % u64::BITS) & 1 != 0
}

/// Address of the socket that a packet belongs to, if that socket is in this
/// state: the key of its attempt. What is no whole socket (a request, TIME_WAIT)
/// has its state in the same place.
#[inline(always)]
pub fn sock_of_packet_in(ctx: &BtfTracePointContext, state: u8) -> Option<u64> {
    let packet: *mut u8 = ctx.arg(0);
    let sock = Typed(packet).follow(global!(OFFSETS.skb_sk));
    if sock.0.is_null() || sock.load::<u8>(global!(OFFSETS.state)) != state {
        return None;
    }
    Some(sock.0 as u64)
}

/// An ICMP error in a socket's error queue (`struct sock_exterr_skb`).
#[derive(Clone, Copy)]
pub struct Icmp {
    pub(super) packet: Typed,
    pub origin: u8,
}

impl Icmp {
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

    /// Source address of the ICMP packet, where `IP_RECVERR` takes it from
    /// (`ip_recv_error`, `ipv6_recv_error`). All zero when it cannot be read.
    #[inline(always)]
    pub fn from(self) -> [u8; 16] {
        let head: u64 = self.packet.load(global!(OFFSETS.skb_head));
        let outer: u16 = self.packet.load(global!(OFFSETS.skb_network_header));
        let header = head + u64::from(outer);
        let v4 = header + u64::from(global!(OFFSETS.iphdr_saddr));
        let v6 = header + u64::from(global!(OFFSETS.ipv6hdr_saddr));
        // SAFETY: the helper reads any address, and fails where there is nothing.
        let read = unsafe {
            if self.origin == ORIGIN_ICMP {
                bpf_probe_read_kernel::<u32>(v4 as *const _).map(v4_in_16)
            } else {
                bpf_probe_read_kernel::<[u8; 16]>(v6 as *const _)
            }
        };
        read.unwrap_or([0; 16])
    }
}
