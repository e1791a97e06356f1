//! Readers of TCP sockets.

use aya_ebpf::{helpers::generated::bpf_skc_to_tcp_sock, programs::BtfTracePointContext};
use conntrace_common::record::{AF_INET, AF_INET6, ORIGIN_ICMP, ORIGIN_ICMP6};

use super::{DEFER_CONNECT_MASK, OFFSETS, QueuedIcmp, Struct, global, v4_in_16};

const IPPROTO_TCP: u16 = 6;

/// Pointer to a TCP socket.
#[derive(Clone, Copy)]
pub struct KernelSock {
    /// Argument of the tracepoint. Newer verifiers trust it, so that loads need no fault handling.
    pub(super) sock: Struct,
    /// Same address, typed as `struct tcp_sock`.
    tcp: Struct,
}

impl KernelSock {
    /// Returns the tracepoint's socket. `None` for protocols other than TCP, such as an MPTCP parent,
    /// and for request and TIME_WAIT sockets (`bpf_skc_to_tcp_sock`).
    #[inline(always)]
    pub fn from_arg(ctx: &BtfTracePointContext) -> Option<Self> {
        let sock: *mut u8 = ctx.arg(0);
        // SAFETY: the helper checks its argument.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sock.cast()) };
        if tcp.is_null() {
            return None;
        }
        Some(Self {
            sock: Struct::typed(sock),
            tcp: Struct::typed(tcp.cast_const().cast()),
        })
    }

    /// Returns the full socket at this address; `None` for protocols other than TCP.
    #[inline(always)]
    pub(super) fn at(address: u64) -> Option<Self> {
        let sock = Struct::at(address);
        let protocol: u16 = sock.load(global!(OFFSETS.protocol));
        let family: u16 = sock.load(global!(OFFSETS.family));
        let internet = family == AF_INET || family == AF_INET6;
        (internet && protocol == IPPROTO_TCP).then_some(Self { sock, tcp: sock })
    }

    /// Returns the socket's address, the key of its attempt. It is only compared, never
    /// dereferenced.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.sock.at as u64
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        self.sock.load(global!(OFFSETS.state))
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.sock.load(global!(OFFSETS.family))
    }

    #[inline(always)]
    pub fn remote_addr(self, family: u16) -> [u8; 16] {
        self.addr(family, global!(OFFSETS.daddr), global!(OFFSETS.v6_daddr))
    }

    #[inline(always)]
    pub fn local_addr(self, family: u16) -> [u8; 16] {
        self.addr(
            family,
            global!(OFFSETS.rcv_saddr),
            global!(OFFSETS.v6_rcv_saddr),
        )
    }

    #[inline(always)]
    fn addr(self, family: u16, v4: u32, v6: u32) -> [u8; 16] {
        if family == AF_INET {
            v4_in_16(self.sock.load(v4))
        } else {
            self.sock.load16(v6)
        }
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        self.sock.load(global!(OFFSETS.dport))
    }

    /// Returns the bound port in host order (`inet_num`); 0 if none.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        self.sock.load(global!(OFFSETS.num))
    }

    /// Returns the index of the interface that the socket is bound to; 0 if none.
    #[inline(always)]
    pub fn bound_device(self) -> u32 {
        self.sock.load(global!(OFFSETS.bound_device))
    }

    /// Returns the mark of the socket (`SO_MARK`).
    #[inline(always)]
    pub fn mark(self) -> u32 {
        self.sock.load(global!(OFFSETS.mark))
    }

    /// Returns the user id of the socket's owner.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        self.sock.load(global!(OFFSETS.uid))
    }

    /// Returns `inet_sport` in network order.
    #[inline(always)]
    pub fn sport(self) -> u16 {
        self.tcp.load(global!(OFFSETS.sport))
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net = self.sock.follow(global!(OFFSETS.net));
        net.load(global!(OFFSETS.net_inum))
    }

    /// Returns a lasting id of the network namespace: its inode number, and random bits that tell
    /// it from a later one with the same number.
    ///
    /// The namespace's cookie would do as well, but before Linux 5.12 it exists only once
    /// requested. Both numbers are read together, because the verifier searches the whole BTF each
    /// time that such a pointer is followed.
    #[inline(always)]
    pub fn netns_for_good(self) -> u64 {
        let net = self.sock.follow(global!(OFFSETS.net));
        let inum: u32 = net.load(global!(OFFSETS.net_inum));
        let mix: u32 = net.load(global!(OFFSETS.hash_mix));
        u64::from(mix) << u32::BITS | u64::from(inum)
    }

    /// Returns the destination address of either family; the kernel stores IPv4 v4-mapped here
    /// (`sk_daddr_set`).
    #[inline(always)]
    pub fn remote_addr_mapped(self) -> [u8; 16] {
        self.sock.load16(global!(OFFSETS.v6_daddr))
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.sock.load(global!(OFFSETS.err))
    }

    #[inline(always)]
    pub fn soft_error(self) -> u32 {
        self.sock.load(global!(OFFSETS.err_soft))
    }

    #[inline(always)]
    pub fn segs_out(self) -> u32 {
        self.tcp.load(global!(OFFSETS.segs_out))
    }

    /// Returns the number of segments received (`tcp_segs_in`), including those that TCP rejected.
    #[inline(always)]
    pub fn segs_in(self) -> u32 {
        self.tcp.load(global!(OFFSETS.segs_in))
    }

    #[inline(always)]
    pub fn total_retrans(self) -> u32 {
        self.tcp.load(global!(OFFSETS.total_retrans))
    }

    #[inline(always)]
    pub fn rto_count(self) -> u8 {
        self.tcp.load(global!(OFFSETS.rto_count))
    }

    /// Returns true if TCP Fast Open holds the SYN back (`tcp_fastopen_defer_connect`).
    #[inline(always)]
    pub fn deferred(self) -> bool {
        let byte: u8 = self.tcp.load(global!(OFFSETS.defer_connect));
        byte & global!(DEFER_CONNECT_MASK) != 0
    }

    /// Returns the address of the newest error queue entry; 0 if the queue is empty.
    #[inline(always)]
    pub fn newest_error(self) -> u64 {
        let len: u32 = self.sock.load(global!(OFFSETS.error_queue_len));
        if len == 0 {
            return 0;
        }
        self.sock.load(global!(OFFSETS.error_queue_prev))
    }

    /// Returns the newest error queue entry, if it differs from `before` and is an ICMP error
    /// (`ip_icmp_error`, `ipv6_icmp_error`). The queue also holds transmit timestamps and zero-copy
    /// notifications.
    #[inline(always)]
    pub fn icmp_since(self, before: u64) -> Option<QueuedIcmp> {
        let newest = self.newest_error();
        if newest == 0 || newest == before {
            return None;
        }
        let packet = self.sock.follow(global!(OFFSETS.error_queue_prev));
        let origin = packet.load(global!(OFFSETS.skb_cb) + global!(OFFSETS.ee_origin));
        if origin != ORIGIN_ICMP && origin != ORIGIN_ICMP6 {
            return None;
        }
        Some(QueuedIcmp { packet, origin })
    }
}
