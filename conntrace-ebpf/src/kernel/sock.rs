//! Readers of TCP sockets.

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_skc_to_tcp_sock},
    programs::BtfTracePointContext,
};
use conntrace_common::{
    record::{
        AF_INET, AF_INET6, ORIGIN_ICMP, ORIGIN_ICMP6, RawRecord, RawTraffic, SYN_RETRIES_OF_SOCKET,
    },
    shared::store,
};

use super::{
    DEFER_CONNECT_MASK, LACKS_LINEAR_TIMEOUTS, OFFSETS, QueuedIcmp, Struct, at, global, v4_in_16,
};

const IPPROTO_TCP: u16 = 6;

/// Pointer to a socket of any protocol, of which only the fields that all have are read
/// (`struct sock_common`).
#[derive(Clone, Copy)]
pub struct SockCommon {
    sock: Struct,
    /// The same, for the network namespace: see [`KernelSock`].
    tcp: Struct,
}

impl SockCommon {
    /// Returns the tracepoint's socket.
    #[inline(always)]
    pub fn from_arg(ctx: &BtfTracePointContext) -> Self {
        let sock = Struct::typed(ctx.arg(0));
        Self { sock, tcp: sock }
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net = self.tcp.follow::<{ at!(net) }>();
        net.load::<{ at!(net_inum) }, _>()
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.sock.load::<{ at!(family) }, _>()
    }

    /// Returns the destination, in the layout of `RawAttempt::remote_addr`.
    #[inline(always)]
    pub fn remote_addr(self) -> [u8; 16] {
        if self.family() == AF_INET {
            v4_in_16(self.sock.load::<{ at!(daddr) }, _>())
        } else {
            self.sock.load16::<{ at!(v6_daddr) }>()
        }
    }

    /// Returns the destination port in network order.
    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        self.sock.load::<{ at!(dport) }, _>()
    }
}

/// Pointer to a TCP socket.
#[derive(Clone, Copy)]
pub struct KernelSock {
    /// Argument of the tracepoint. Newer verifiers trust it, so that loads need no fault handling.
    pub(super) sock: Struct,
    /// Same address, typed as `struct tcp_sock`. Pointers are loaded through it: verifiers of Linux
    /// 6.x search the whole BTF, up to four times, for each pointer behind one that they trust.
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
        let protocol: u16 = sock.load::<{ at!(protocol) }, _>();
        let family: u16 = sock.load::<{ at!(family) }, _>();
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
        self.sock.load::<{ at!(state) }, _>()
    }

    /// Returns the fields that every socket has.
    #[inline(always)]
    pub fn common(self) -> SockCommon {
        SockCommon {
            sock: self.sock,
            tcp: self.tcp,
        }
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.common().family()
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        self.common().remote_port()
    }

    /// Returns the bound port in host order (`inet_num`); 0 if none.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        self.sock.load::<{ at!(num) }, _>()
    }

    /// Returns the index of the interface that the socket is bound to; 0 if none.
    #[inline(always)]
    pub fn bound_device(self) -> u32 {
        self.sock.load::<{ at!(bound_device) }, _>()
    }

    /// Returns the mark of the socket (`SO_MARK`).
    #[inline(always)]
    pub fn mark(self) -> u32 {
        self.sock.load::<{ at!(mark) }, _>()
    }

    /// Returns the user id of the socket's owner.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        self.sock.load::<{ at!(uid) }, _>()
    }

    /// Returns `inet_sport` in network order.
    #[inline(always)]
    pub fn sport(self) -> u16 {
        self.tcp.load::<{ at!(sport) }, _>()
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        self.common().netns()
    }

    /// Returns a lasting id of the network namespace: its inode number, and 16 random bits that tell
    /// it from a later one with the same number.
    ///
    /// The namespace's cookie would do as well, but before Linux 5.12 it exists only once
    /// requested. Both numbers are read together, because the verifier searches the whole BTF each
    /// time that such a pointer is followed.
    #[inline(always)]
    pub fn netns_for_good(self) -> u64 {
        let net = self.tcp.follow::<{ at!(net) }>();
        let inum: u32 = net.load::<{ at!(net_inum) }, _>();
        let mix: u32 = net.load::<{ at!(hash_mix) }, _>();
        u64::from(mix as u16) << u32::BITS | u64::from(inum)
    }

    /// Returns random bits of the network namespace (`net.hash_mix`).
    #[inline(always)]
    pub fn hash_mix(self) -> u32 {
        let net = self.tcp.follow::<{ at!(net) }>();
        net.load::<{ at!(hash_mix) }, _>()
    }

    /// Returns the destination address of either family as two words; the kernel stores IPv4
    /// v4-mapped here (`sk_daddr_set`).
    #[inline(always)]
    pub fn remote_words_mapped(self) -> [u64; 2] {
        self.sock.load_words::<{ at!(v6_daddr) }>()
    }

    /// Returns the words of destination and local address, in the layout of
    /// `RawAttempt::remote_addr`.
    #[inline(always)]
    pub fn addr_words(self, family: u16) -> [[u64; 2]; 2] {
        if family == AF_INET {
            let remote: u32 = self.sock.load::<{ at!(daddr) }, _>();
            let local: u32 = self.sock.load::<{ at!(rcv_saddr) }, _>();
            [[remote.into(), 0], [local.into(), 0]]
        } else {
            [
                self.sock.load_words::<{ at!(v6_daddr) }>(),
                self.sock.load_words::<{ at!(v6_rcv_saddr) }>(),
            ]
        }
    }

    /// Returns the lower half of the initial sequence number, which is the first unacknowledged one until
    /// an answer comes (`tcp_connect_init`).
    #[inline(always)]
    pub fn isn_end(self) -> u16 {
        let snd_una: u32 = self.tcp.load::<{ at!(snd_una) }, _>();
        snd_una as u16
    }

    /// Returns the last four bytes of the local address of either family.
    #[inline(always)]
    pub fn local_addr_end(self) -> u32 {
        if self.family() == AF_INET {
            self.sock.load::<{ at!(rcv_saddr) }, _>()
        } else {
            let [_, rest] = self.sock.load_words::<{ at!(v6_rcv_saddr) }>();
            (rest >> u32::BITS) as u32
        }
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.sock.load::<{ at!(err) }, _>()
    }

    #[inline(always)]
    pub fn soft_error(self) -> u32 {
        self.sock.load::<{ at!(err_soft) }, _>()
    }

    #[inline(always)]
    pub fn segs_out(self) -> u32 {
        self.tcp.load::<{ at!(segs_out) }, _>()
    }

    /// Returns the number of segments received (`tcp_segs_in`), including those that TCP rejected.
    #[inline(always)]
    pub fn segs_in(self) -> u32 {
        self.tcp.load::<{ at!(segs_in) }, _>()
    }

    #[inline(always)]
    pub fn total_retrans(self) -> u32 {
        self.tcp.load::<{ at!(total_retrans) }, _>()
    }

    /// Returns the number of bytes that the peer acknowledged, the SYN included.
    #[inline(always)]
    pub fn bytes_acked(self) -> u64 {
        self.tcp.load::<{ at!(bytes_acked) }, _>()
    }

    /// Returns the sequence number of the next byte to receive; 0 until the peer's SYN arrived
    /// (`tcp_connect_init`).
    #[inline(always)]
    pub fn rcv_nxt(self) -> u32 {
        self.tcp.load::<{ at!(rcv_nxt) }, _>()
    }

    /// Returns the hash of a connected socket's addresses and ports (`sk_hash`).
    #[inline(always)]
    pub fn connection_hash(self) -> u32 {
        self.sock.load::<{ at!(connection_hash) }, _>()
    }

    /// Returns the number of segments with data that were sent.
    #[inline(always)]
    pub fn data_segs_out(self) -> u32 {
        self.tcp.load::<{ at!(data_segs_out) }, _>()
    }

    /// Returns the address of the network namespace. It is only hashed, never dereferenced.
    #[inline(always)]
    pub fn net(self) -> u64 {
        self.tcp.follow::<{ at!(net) }>().at as u64
    }

    /// Writes the data that the connection carried.
    #[inline(always)]
    pub fn describe_traffic(self, traffic: &mut RawTraffic) {
        let tcp = self.tcp;
        let write_seq: u32 = tcp.load::<{ at!(write_seq) }, _>();
        let snd_una: u32 = tcp.load::<{ at!(snd_una) }, _>();
        let rcv_nxt: u32 = tcp.load::<{ at!(rcv_nxt) }, _>();
        let copied_seq: u32 = tcp.load::<{ at!(copied_seq) }, _>();
        // SAFETY: no preconditions.
        let now = unsafe { bpf_jiffies64() } as u32;
        let segs_in: u32 = tcp.load::<{ at!(data_segs_in) }, _>();
        store(&mut traffic.data_segs_in, segs_in);
        store(&mut traffic.bytes_acked, self.bytes_acked());
        store(
            &mut traffic.bytes_received,
            tcp.load::<{ at!(bytes_received) }, _>(),
        );
        store(&mut traffic.unacked, write_seq.wrapping_sub(snd_una));
        store(&mut traffic.unread, rcv_nxt.wrapping_sub(copied_seq));
        let sent: u32 = tcp.load::<{ at!(sent_jiffies) }, _>();
        let received: u32 = tcp.load::<{ at!(received_jiffies) }, _>();
        store(&mut traffic.sent_ago_jiffies, now.wrapping_sub(sent));
        let received_ago = if segs_in == 0 {
            0
        } else {
            now.wrapping_sub(received)
        };
        store(&mut traffic.received_ago_jiffies, received_ago);
    }

    /// Writes the limits after which the kernel gives the attempt up (`tcp_write_timeout`).
    #[inline(always)]
    pub fn describe_limits(self, record: &mut RawRecord) {
        let net = self.tcp.follow::<{ at!(net) }>();
        let of_netns: u8 = net.load::<{ at!(netns_syn_retries) }, _>();
        let linear: u8 = net.load::<{ at!(linear_timeouts) }, _>();
        let of_socket: u8 = self.tcp.load::<{ at!(syn_retries) }, _>();
        let retries = if of_socket == 0 {
            of_netns
        } else {
            of_socket | SYN_RETRIES_OF_SOCKET
        };
        let user_timeout_ms: u32 = self.tcp.load::<{ at!(user_timeout) }, _>();
        store(&mut record.user_timeout_ms, user_timeout_ms);
        store(&mut record.syn_retries, retries);
        let linear = linear | global!(LACKS_LINEAR_TIMEOUTS);
        store(&mut record.linear_timeouts, linear);
    }

    #[inline(always)]
    pub fn rto_count(self) -> u8 {
        self.tcp.load::<{ at!(rto_count) }, _>()
    }

    /// Returns true if TCP Fast Open holds the SYN back (`tcp_fastopen_defer_connect`).
    #[inline(always)]
    pub fn deferred(self) -> bool {
        let byte: u8 = self.tcp.load::<{ at!(defer_connect) }, _>();
        byte & global!(DEFER_CONNECT_MASK) != 0
    }

    /// Returns the address of the newest error queue entry; 0 if the queue is empty.
    #[inline(always)]
    pub fn newest_error(self) -> u64 {
        let len: u32 = self.sock.load::<{ at!(error_queue_len) }, _>();
        if len == 0 {
            return 0;
        }
        self.tcp.load::<{ at!(error_queue_prev) }, _>()
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
        let packet = self.tcp.follow::<{ at!(error_queue_prev) }>();
        let origin = packet.load_at(global!(OFFSETS.skb_cb) + global!(OFFSETS.ee_origin));
        if origin != ORIGIN_ICMP && origin != ORIGIN_ICMP6 {
            return None;
        }
        Some(QueuedIcmp { packet, origin })
    }
}
