//! Behaviour of the far end, chosen by the destination port.

use std::time::Duration;

/// Reason of a router on the far side for not delivering a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpReason {
    /// Port unreachable: `ICMPv4` 3/3, `ICMPv6` 1/4. The application gets ECONNREFUSED.
    Port,
    /// `ICMPv4` 3/1, `ICMPv6` 1/3 (address unreachable): EHOSTUNREACH.
    Host,
    /// `ICMPv4` 3/0, `ICMPv6` 1/0 (no route): ENETUNREACH.
    Net,
    /// Prohibited by an administrator: `ICMPv4` 3/13 (EHOSTUNREACH), `ICMPv6` 1/1 (EACCES).
    AdminProhibited,
    /// Hop limit exceeded: `ICMPv4` 11/0, `ICMPv6` 3/0. The application gets EHOSTUNREACH.
    TtlExceeded,
}

/// Answer of the far end to a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarAnswer {
    /// Answers with a SYN-ACK. The connection acknowledges all data and discards it. It is reset
    /// when the near side closes, so that no `TIME_WAIT` is left.
    Accept,
    /// Answers with a RST.
    Reset,
    /// Answers with an ICMP error of the far router, [`FAR_ROUTER_V4`](super::FAR_ROUTER_V4) or
    /// [`FAR_ROUTER_V6`](super::FAR_ROUTER_V6). If it arrives while the socket is locked (once in
    /// 24,000 connects), the kernel keeps it as a soft error. The SYN sent again after 1 s then
    /// ends the attempt.
    Unreachable(IcmpReason),
    /// Never answers.
    Silence,
    /// Ignores all SYNs of an attempt before the n-th, then behaves as [`FarAnswer::Accept`]. The
    /// kernel sends the second SYN after 1 s.
    AcceptNth(u8),
    /// Ignores all SYNs of an attempt before the n-th, then answers with a RST.
    ResetNth(u8),
    /// Answers with a SYN (simultaneous open), then reacts to the SYN-ACK.
    Syn(ThenTo),
    /// Answers with a SYN-ACK for another SYN. The kernel resets it and sends its SYN again at once
    /// (`TCP_TIMEOUT_MIN`), but only the first time.
    WrongSynAck,
    /// Answers with a SYN-ACK from the address of the far router.
    FromElsewhere,
    /// Answers with a SYN-ACK after [`LATE`].
    AcceptLate,
    /// Answers with a RST for another SYN. The kernel ignores it, except that it sends its SYN
    /// again at once the first time.
    WrongReset,
}

/// Reaction of the far end to the SYN-ACK that answers its SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThenTo {
    /// Acknowledges, then behaves as [`FarAnswer::Accept`].
    Accept,
    /// Answers with a RST: the application gets ECONNRESET.
    Reset,
    /// Does not answer.
    Silence,
}

/// Port of [`FarAnswer::Accept`].
pub const ACCEPTS: u16 = 80;
/// Port of [`FarAnswer::Reset`], as any port without a name of its own.
pub const RESETS: u16 = 81;
/// Port of [`FarAnswer::Silence`].
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
/// Port of [`FarAnswer::AcceptNth`] with n = 2.
pub const ACCEPTS_SECOND_SYN: u16 = 88;
/// Port of [`FarAnswer::Syn`], then an acknowledgement.
pub const SYN_THEN_ACCEPTS: u16 = 89;
/// Port of [`FarAnswer::Syn`], then a RST.
pub const SYN_THEN_RESETS: u16 = 90;
/// Port of [`FarAnswer::Syn`], then nothing.
pub const SYN_THEN_SILENT: u16 = 91;
/// Port of [`FarAnswer::WrongSynAck`].
pub const WRONG_SYN_ACK: u16 = 92;
/// Port of [`FarAnswer::WrongReset`].
pub const WRONG_RESET: u16 = 93;
/// Port of [`FarAnswer::ResetNth`] with n = 2.
pub const RESETS_SECOND_SYN: u16 = 94;

/// Port of [`FarAnswer::FromElsewhere`].
pub const FROM_ELSEWHERE: u16 = 95;
/// Port of [`FarAnswer::AcceptLate`].
pub const ACCEPTS_LATE: u16 = 96;
/// Time that passes before the late answer.
pub const LATE: Duration = Duration::from_millis(400);

/// Returns the answer of every far address to a SYN to `port`.
#[must_use]
pub const fn answer_of(port: u16) -> FarAnswer {
    match port {
        ACCEPTS => FarAnswer::Accept,
        SILENT => FarAnswer::Silence,
        PORT_UNREACHABLE => FarAnswer::Unreachable(IcmpReason::Port),
        HOST_UNREACHABLE => FarAnswer::Unreachable(IcmpReason::Host),
        NET_UNREACHABLE => FarAnswer::Unreachable(IcmpReason::Net),
        ADMIN_PROHIBITED => FarAnswer::Unreachable(IcmpReason::AdminProhibited),
        TTL_EXCEEDED => FarAnswer::Unreachable(IcmpReason::TtlExceeded),
        ACCEPTS_SECOND_SYN => FarAnswer::AcceptNth(2),
        SYN_THEN_ACCEPTS => FarAnswer::Syn(ThenTo::Accept),
        SYN_THEN_RESETS => FarAnswer::Syn(ThenTo::Reset),
        SYN_THEN_SILENT => FarAnswer::Syn(ThenTo::Silence),
        WRONG_SYN_ACK => FarAnswer::WrongSynAck,
        WRONG_RESET => FarAnswer::WrongReset,
        RESETS_SECOND_SYN => FarAnswer::ResetNth(2),
        FROM_ELSEWHERE => FarAnswer::FromElsewhere,
        ACCEPTS_LATE => FarAnswer::AcceptLate,
        _ => FarAnswer::Reset,
    }
}
