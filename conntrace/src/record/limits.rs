//! Derives why the kernel gave an attempt up early.

use std::fmt;

use super::{Attempt, Errno, Seen};

/// Number of SYN retransmissions that the kernel allows by default (`TCP_SYN_RETRIES`).
const SYN_RETRIES: u8 = 6;
/// Number of further ones that come without a longer wait by default (`TCP_SYN_LINEAR_TIMEOUTS`).
const LINEAR_TIMEOUTS: u8 = 4;

/// Limits after which the kernel gives an attempt up, as they were when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Time in milliseconds (`TCP_USER_TIMEOUT`); `None` if the socket has none.
    pub user_timeout_ms: Option<u32>,
    /// Number of SYN retransmissions.
    pub syn_retries: u8,
    /// True if that number is the socket's own (`TCP_SYNCNT`), false if it is that of its network
    /// namespace (`net.ipv4.tcp_syn_retries`).
    pub is_of_socket: bool,
    /// Number of further ones, which come without a longer wait
    /// (`net.ipv4.tcp_syn_linear_timeouts`); `None` before Linux 6.5.
    pub linear_timeouts: Option<u8>,
}

/// Setting for which the kernel gave an attempt up earlier than it does by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EarlyLimit {
    /// Time in milliseconds that the socket allows (`TCP_USER_TIMEOUT`).
    UserTimeout(u32),
    /// Number of SYN retransmissions that the socket allows (`TCP_SYNCNT`).
    SynCount(u8),
    /// Number of SYN retransmissions that the network namespace allows.
    SynRetries(u8),
    /// Number of further ones that the network namespace allows.
    LinearTimeouts(u8),
}

impl fmt::Display for EarlyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserTimeout(ms) => write!(f, "the socket's option TCP_USER_TIMEOUT is {ms} ms"),
            Self::SynCount(retries) => write!(f, "the socket's option TCP_SYNCNT is {retries}"),
            Self::SynRetries(retries) => write!(
                f,
                "net.ipv4.tcp_syn_retries is {retries} here, by default {SYN_RETRIES}"
            ),
            Self::LinearTimeouts(timeouts) => write!(
                f,
                "net.ipv4.tcp_syn_linear_timeouts is {timeouts} here, by default {LINEAR_TIMEOUTS}"
            ),
        }
    }
}

/// Returns the setting for which the kernel gave the attempt up early (`tcp_write_timeout`); `None`
/// if there is none, or if it is not certain which one it was.
#[must_use]
pub fn early_limit(attempt: &Attempt) -> Option<EarlyLimit> {
    let limits = attempt.limits?;
    // The socket may have been set otherwise since an ending that was recovered.
    if attempt.error != Some(Errno::ETIMEDOUT) || attempt.seen == Seen::EndingRecovered {
        return None;
    }
    match limits.user_timeout_ms {
        // A time of its own takes the place of that which the retransmissions would last, but not of
        // their number.
        Some(ms) if attempt.rto_count < certainly_allowed(attempt, &limits) => {
            has_lasted(attempt, ms).then_some(EarlyLimit::UserTimeout(ms))
        }
        Some(_) if attempt.rto_count < allowed(&limits) => None,
        Some(_) | None => early_number(&limits),
    }
}

/// Returns the setting by which the number of retransmissions is lower than by default.
fn early_number(limits: &Limits) -> Option<EarlyLimit> {
    let retries = limits.syn_retries;
    if retries < SYN_RETRIES {
        return Some(if limits.is_of_socket {
            EarlyLimit::SynCount(retries)
        } else {
            EarlyLimit::SynRetries(retries)
        });
    }
    let linear = limits.linear_timeouts?;
    (retries == SYN_RETRIES && linear < LINEAR_TIMEOUTS)
        .then_some(EarlyLimit::LinearTimeouts(linear))
}

/// Number of timer runs from which on the kernel gives up in `TCP_SYN_SENT`.
fn allowed(limits: &Limits) -> u8 {
    let linear = limits.linear_timeouts.unwrap_or(0);
    limits.syn_retries.saturating_add(linear)
}

/// Number of timer runs up to which it does not give up in any state. In `TCP_SYN_RECV`, after the
/// peer's SYN, there are no further ones.
fn certainly_allowed(attempt: &Attempt, limits: &Limits) -> u8 {
    if attempt.heard {
        limits.syn_retries
    } else {
        allowed(limits)
    }
}

/// Returns true if the attempt is not known to have lasted less than this time. The kernel's own
/// clock has a resolution of one millisecond.
fn has_lasted(attempt: &Attempt, ms: u32) -> bool {
    let lasted_ms = attempt.at_ns.saturating_sub(attempt.since_ns) / 1_000_000;
    !attempt.seen.from_beginning() || lasted_ms.saturating_add(2) >= u64::from(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::label::tests::unanswered;

    const LIMITS: Limits = Limits {
        user_timeout_ms: None,
        syn_retries: 6,
        is_of_socket: false,
        linear_timeouts: Some(4),
    };

    /// An attempt that the kernel gave up after this time and so many runs of its timer.
    fn given_up(lasted_ms: u64, rto_count: u8, limits: Limits) -> Attempt {
        Attempt {
            error: Some(Errno::ETIMEDOUT),
            since_ns: 5,
            at_ns: 5 + lasted_ms * 1_000_000,
            rto_count,
            limits: Some(limits),
            ..unanswered()
        }
    }

    fn user_timeout(ms: u32) -> Limits {
        Limits {
            user_timeout_ms: Some(ms),
            ..LIMITS
        }
    }

    fn of_socket(syn_retries: u8) -> Limits {
        Limits {
            syn_retries,
            is_of_socket: true,
            ..LIMITS
        }
    }

    #[test]
    fn a_socket_with_a_time_of_its_own() {
        let limit = Some(EarlyLimit::UserTimeout(2500));
        assert_eq!(early_limit(&given_up(2506, 3, user_timeout(2500))), limit);
        // Before the first run of the timer the kernel does not look at it.
        let short = Some(EarlyLimit::UserTimeout(10));
        assert_eq!(early_limit(&given_up(1021, 1, user_timeout(10))), short);
        // Set only later, or of another ending.
        assert_eq!(early_limit(&given_up(900, 0, user_timeout(2500))), None);
    }

    #[test]
    fn retransmissions_that_ran_out_before_that_time() {
        let long = user_timeout(500_000);
        assert_eq!(early_limit(&given_up(131_000, 10, long)), None);
        let both = Limits {
            user_timeout_ms: Some(500_000),
            ..of_socket(2)
        };
        let count = Some(EarlyLimit::SynCount(2));
        assert_eq!(early_limit(&given_up(11_000, 6, both)), count);
    }

    #[test]
    fn a_socket_with_a_number_of_its_own() {
        // Two SYNs were sent again within the time that one would last (Linux 6.5).
        let attempt = given_up(3070, 2, of_socket(1));
        assert_eq!(early_limit(&attempt), Some(EarlyLimit::SynCount(1)));
        for more in [6, 20] {
            assert_eq!(early_limit(&given_up(131_000, 10, of_socket(more))), None);
        }
    }

    #[test]
    fn settings_of_the_namespace() {
        let of_netns = |syn_retries, linear_timeouts| {
            early_limit(&given_up(
                7000,
                2,
                Limits {
                    syn_retries,
                    linear_timeouts,
                    ..LIMITS
                },
            ))
        };
        assert_eq!(of_netns(2, Some(4)), Some(EarlyLimit::SynRetries(2)));
        assert_eq!(of_netns(2, None), Some(EarlyLimit::SynRetries(2)));
        assert_eq!(of_netns(6, Some(0)), Some(EarlyLimit::LinearTimeouts(0)));
        for (retries, linear) in [(6, Some(4)), (6, None), (6, Some(9)), (8, Some(0))] {
            assert_eq!(of_netns(retries, linear), None, "{retries} {linear:?}");
        }
    }

    #[test]
    fn the_peers_syn_ends_the_further_ones() {
        let crossed = |rto_count| Attempt {
            heard: true,
            ..given_up(70_000, rto_count, user_timeout(60_000))
        };
        let limit = Some(EarlyLimit::UserTimeout(60_000));
        assert_eq!(early_limit(&crossed(5)), limit);
        assert_eq!(early_limit(&crossed(6)), None);
    }

    #[test]
    fn endings_that_prove_nothing() {
        let early = given_up(2506, 3, user_timeout(2500));
        for attempt in [
            Attempt {
                error: Some(Errno::EHOSTUNREACH),
                ..early.clone()
            },
            Attempt {
                seen: Seen::EndingRecovered,
                ..early.clone()
            },
            Attempt {
                limits: None,
                ..early.clone()
            },
        ] {
            assert_eq!(early_limit(&attempt), None);
        }
        // Its beginning is unknown, but the timer has not run too often.
        let joined = Attempt {
            seen: Seen::JoinedLate,
            ..given_up(300, 3, user_timeout(2500))
        };
        assert_eq!(early_limit(&joined), Some(EarlyLimit::UserTimeout(2500)));
    }
}
