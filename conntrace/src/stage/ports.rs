//! What the far end does with a connection, chosen by the port it goes to.

/// Why a router on the far side says it cannot deliver a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpReason {
    /// `ICMPv4` 3/3, `ICMPv6` 1/4: the application is told ECONNREFUSED.
    Port,
    /// `ICMPv4` 3/1, `ICMPv6` 1/3 (address unreachable): EHOSTUNREACH.
    Host,
    /// `ICMPv4` 3/0, `ICMPv6` 1/0 (no route): ENETUNREACH.
    Net,
    /// `ICMPv4` 3/13: EHOSTUNREACH; `ICMPv6` 1/1: EACCES.
    AdminProhibited,
    /// `ICMPv4` 11/0, `ICMPv6` 3/0: EHOSTUNREACH.
    TtlExceeded,
}

/// What the far end does with a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A SYN-ACK. The connection then acknowledges and forgets whatever is sent,
    /// and is reset when the near side closes, so that no `TIME_WAIT` is left.
    Accept,
    /// A RST.
    Reset,
    /// An ICMP error from the far router, [`FAR_ROUTER_V4`](super::FAR_ROUTER_V4)
    /// or [`FAR_ROUTER_V6`](super::FAR_ROUTER_V6). Should it come while the socket
    /// is locked (seen once in 24,000 connects), the kernel keeps it as a soft
    /// error, and the SYN sent again after 1 s ends the attempt.
    Unreachable(IcmpReason),
    /// Nothing, ever.
    Silence,
    /// Nothing before the n-th SYN of an attempt, then as [`Answer::Accept`].
    /// The kernel sends the second SYN after 1 s.
    AcceptNth(u8),
}

/// Port of [`Answer::Accept`].
pub const ACCEPTS: u16 = 80;
/// Port of [`Answer::Reset`], as any port without a name of its own.
pub const RESETS: u16 = 81;
/// Port of [`Answer::Silence`].
pub const SILENT: u16 = 82;
/// Port of [`IcmpReason::Port`].
pub const PORT_UNREACHABLE: u16 = 83;
/// Port of [`IcmpReason::Host`].
pub const HOST_UNREACHABLE: u16 = 84;
/// Port of [`IcmpReason::Net`].
pub const NET_UNREACHABLE: u16 = 85;
/// Port of [`IcmpReason::AdminProhibited`].
pub const ADMIN_PROHIBITED: u16 = 86;
/// Port of [`IcmpReason::TtlExceeded`].
pub const TTL_EXCEEDED: u16 = 87;
/// Port of [`Answer::AcceptNth`] with n = 2.
pub const ACCEPTS_SECOND_SYN: u16 = 88;

/// What the far end does with a SYN to `port`, at every far address.
#[must_use]
pub const fn answer_of(port: u16) -> Answer {
    match port {
        ACCEPTS => Answer::Accept,
        SILENT => Answer::Silence,
        PORT_UNREACHABLE => Answer::Unreachable(IcmpReason::Port),
        HOST_UNREACHABLE => Answer::Unreachable(IcmpReason::Host),
        NET_UNREACHABLE => Answer::Unreachable(IcmpReason::Net),
        ADMIN_PROHIBITED => Answer::Unreachable(IcmpReason::AdminProhibited),
        TTL_EXCEEDED => Answer::Unreachable(IcmpReason::TtlExceeded),
        ACCEPTS_SECOND_SYN => Answer::AcceptNth(2),
        _ => Answer::Reset,
    }
}
