use std::mem::offset_of;

use conntrace_common::record::{
    AF_INET, AF_INET6, FLAG_DEFERRED, FLAG_HEARD, FLAG_ICMP, KIND_CONNECTS, KIND_ENDING,
    KIND_STALL, ORIGIN_ICMP, ORIGIN_ICMP6, RECORD_VERSION, RawRecord, STATE_CLOSE,
    STATE_ESTABLISHED, STATE_SYN_SENT,
};
use nix::errno::Errno as E;
use proptest::{prelude::*, sample::select};

use crate::record::{
    decode::tests::{put, refused},
    history::{COMPLETE_SIZE, RawComplete},
    *,
};

const PATIENCE_MS: u64 = 200;

/// Attempt that the application closes after 50 ms: one SYN, no answer.
pub(crate) fn unanswered() -> Attempt {
    let mut attempt = decode(&refused()).unwrap();
    attempt.error = None;
    attempt.heard = false;
    lasts_ms(&mut attempt, 50);
    attempt
}

pub(crate) fn errno(known: E) -> Option<Errno> {
    Some(Errno(known as i32))
}

/// ICMPv4 error, as in the error queue.
pub(crate) fn icmp4(icmp_type: u8, code: u8, known: E) -> Option<IcmpError> {
    Some(IcmpError {
        version: IcmpVersion::V4,
        icmp_type,
        code,
        errno: errno(known),
        from: Some([10, 0, 0, 1].into()),
    })
}

/// ICMPv6 error, as in the error queue.
pub(crate) fn icmp6(icmp_type: u8, code: u8, known: E) -> Option<IcmpError> {
    Some(IcmpError {
        version: IcmpVersion::V6,
        from: Some([0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
        ..icmp4(icmp_type, code, known)?
    })
}

fn lasts_ms(attempt: &mut Attempt, ms: u64) {
    attempt.at_ns = attempt.since_ns + ms * 1_000_000;
}

fn retransmits(attempt: &mut Attempt, times: u8, ms: u64) {
    attempt.syn_retransmitted = times.into();
    attempt.syn_sent = 1 + attempt.syn_retransmitted;
    attempt.rto_count = times;
    lasts_ms(attempt, ms);
}

/// Adds an ICMP error that found the socket unlocked and ended the attempt.
fn ended_by(attempt: &mut Attempt, icmp: Option<IcmpError>) {
    attempt.icmp = icmp;
    attempt.error = icmp.and_then(|icmp| icmp.errno);
}

/// Adds an ICMP error that found the socket locked.
fn noted(attempt: &mut Attempt, icmp: Option<IcmpError>) {
    attempt.icmp = icmp;
    attempt.soft_error = icmp.and_then(|icmp| icmp.errno);
}

/// Makes the attempt one whose connect failed before its SYN.
fn unsent(attempt: &mut Attempt) {
    attempt.syn_sent = 0;
    attempt.local_port = None;
    lasts_ms(attempt, 0);
}

/// Adds fields left over from an earlier attempt on the same socket.
fn stale(attempt: &mut Attempt) {
    noted(attempt, icmp4(3, 1, E::EHOSTUNREACH));
    attempt.error = errno(E::ECONNREFUSED);
    attempt.syn_retransmitted = 3;
    attempt.rto_count = 3;
    attempt.heard = true;
}

fn verdict(attempt: &Attempt) -> String {
    let Some(verdict) = label(attempt, PATIENCE_MS) else {
        return "goes on".to_owned();
    };
    let errno = match verdict.errno {
        None => "-".to_owned(),
        Some(errno) => errno.to_string(),
    };
    let by = match verdict.timeout_by {
        None => "",
        Some(TimeoutBy::Kernel) => " by kernel",
        Some(TimeoutBy::Application) => " by application",
    };
    format!("{} {errno}{by}", verdict.label.as_str())
}

/// Test case: name, changes to [`unanswered`], and the expected label, errno and `timeout_by`.
type LabelCase = (&'static str, fn(&mut Attempt), &'static str);

#[rustfmt::skip]
const ENDINGS: &[LabelCase] = &[
    // A stall is not an ending.
    ("the first retransmission", |a| { a.moment = RecordKind::Stalled; retransmits(a, 1, 1020) }, "goes on"),

    // Rule 1.
    ("handshake", |a| a.moment = RecordKind::Established, "established -"),
    ("handshake after retransmissions and a soft error", |a| {
        a.moment = RecordKind::Established;
        noted(a, icmp4(3, 1, E::EHOSTUNREACH));
        retransmits(a, 2, 3070);
    }, "established -"),

    // Rule 2.
    ("port exhaustion", unsent, "port_exhausted EADDRNOTAVAIL"),
    ("port exhaustion, after a long search", |a| { unsent(a); lasts_ms(a, 1000) }, "port_exhausted EADDRNOTAVAIL"),
    ("port exhaustion, with a failed attempt's leftovers", |a| { stale(a); unsent(a) }, "port_exhausted EADDRNOTAVAIL"),
    ("4-tuple in use", |a| { a.port_bound = true; a.syn_sent = 0 }, "address_unavailable EADDRNOTAVAIL"),
    ("4-tuple in use, with a failed attempt's leftovers", |a| {
        stale(a);
        a.port_bound = true;
        a.syn_sent = 0;
    }, "address_unavailable EADDRNOTAVAIL"),
    ("no SYN although a port was found", |a| a.syn_sent = 0, "failed -"),

    // Rule 3: RST.
    ("RST, or own REJECT with tcp-reset", |a| { a.error = errno(E::ECONNREFUSED); a.heard = true }, "refused ECONNREFUSED"),
    ("RST after a retransmission", |a| {
        a.error = errno(E::ECONNREFUSED);
        a.heard = true;
        retransmits(a, 1, 1020);
    }, "refused ECONNREFUSED"),
    ("RST after a simultaneous open", |a| { a.error = errno(E::ECONNRESET); a.heard = true }, "refused ECONNRESET"),
    // Rule 3: ICMP, socket not locked (or locked, and the second one a second later).
    ("v4 net unreachable", |a| ended_by(a, icmp4(3, 0, E::ENETUNREACH)), "unreachable ENETUNREACH"),
    ("v4 host unreachable", |a| ended_by(a, icmp4(3, 1, E::EHOSTUNREACH)), "unreachable EHOSTUNREACH"),
    ("v4 protocol unreachable", |a| ended_by(a, icmp4(3, 2, E::ENOPROTOOPT)), "unreachable ENOPROTOOPT"),
    ("v4 port unreachable", |a| ended_by(a, icmp4(3, 3, E::ECONNREFUSED)), "refused ECONNREFUSED"),
    ("v4 administratively prohibited", |a| ended_by(a, icmp4(3, 13, E::EHOSTUNREACH)), "unreachable EHOSTUNREACH"),
    ("v4 TTL exceeded", |a| ended_by(a, icmp4(11, 0, E::EHOSTUNREACH)), "unreachable EHOSTUNREACH"),
    ("v4 port unreachable, the second one", |a| {
        noted(a, icmp4(3, 3, E::ECONNREFUSED));
        a.error = a.soft_error;
        retransmits(a, 1, 1020);
    }, "refused ECONNREFUSED"),
    ("v6 no route", |a| ended_by(a, icmp6(1, 0, E::ENETUNREACH)), "unreachable ENETUNREACH"),
    ("v6 administratively prohibited is no local denial", |a| ended_by(a, icmp6(1, 1, E::EACCES)), "unreachable EACCES"),
    ("v6 address unreachable", |a| ended_by(a, icmp6(1, 3, E::EHOSTUNREACH)), "unreachable EHOSTUNREACH"),
    ("v6 port unreachable", |a| ended_by(a, icmp6(1, 4, E::ECONNREFUSED)), "refused ECONNREFUSED"),
    ("v6 parameter problem", |a| ended_by(a, icmp6(4, 1, E::EPROTO)), "unreachable EPROTO"),
    ("v6 administratively prohibited, nothing queued", |a| a.error = errno(E::EACCES), "unreachable EACCES"),
    // Rule 3: timers and the rest.
    ("neighbour failure", |a| {
        ended_by(a, icmp4(3, 1, E::EHOSTUNREACH));
        a.rto_count = 3;
        lasts_ms(a, 3070);
    }, "unreachable EHOSTUNREACH"),
    ("SYN retries exhausted, also by own OUTPUT drop or MD5 mismatch", |a| {
        a.error = errno(E::ETIMEDOUT);
        retransmits(a, 6, 131_000);
    }, "timed_out ETIMEDOUT by kernel"),
    ("SYN retries exhausted, a soft error replaces ETIMEDOUT", |a| {
        ended_by(a, icmp4(3, 1, E::EHOSTUNREACH));
        a.soft_error = a.error;
        retransmits(a, 6, 131_000);
    }, "unreachable EHOSTUNREACH"),
    ("TCP_USER_TIMEOUT", |a| { a.error = errno(E::ETIMEDOUT); retransmits(a, 1, 1520) }, "timed_out ETIMEDOUT by kernel"),
    ("ss -K", |a| a.error = errno(E::ECONNABORTED), "aborted ECONNABORTED"),
    ("ss -K after an ICMP error", |a| {
        noted(a, icmp4(3, 1, E::EHOSTUNREACH));
        a.error = errno(E::ECONNABORTED);
    }, "aborted ECONNABORTED"),

    // Rule 4: ICMP, socket locked, the application closes before the second one.
    ("v4 port unreachable, closed early", |a| noted(a, icmp4(3, 3, E::ECONNREFUSED)), "refused ECONNREFUSED"),
    ("v4 host unreachable, closed early", |a| noted(a, icmp4(3, 1, E::EHOSTUNREACH)), "unreachable EHOSTUNREACH"),
    ("v6 port unreachable, closed early", |a| noted(a, icmp6(1, 4, E::ECONNREFUSED)), "refused ECONNREFUSED"),
    ("v6 administratively prohibited, closed early", |a| noted(a, icmp6(1, 1, E::EACCES)), "unreachable EACCES"),
    ("queued only: SO_ERROR was read", |a| a.icmp = icmp4(3, 3, E::ECONNREFUSED), "refused ECONNREFUSED"),
    ("soft error only, port unreachable", |a| a.soft_error = errno(E::ECONNREFUSED), "refused ECONNREFUSED"),
    ("soft error only, host unreachable", |a| a.soft_error = errno(E::EHOSTUNREACH), "unreachable EHOSTUNREACH"),
    ("soft error only, v6 prohibited", |a| a.soft_error = errno(E::EACCES), "unreachable EACCES"),
    ("port unreachable, closed after patience", |a| {
        noted(a, icmp4(3, 3, E::ECONNREFUSED));
        retransmits(a, 1, 1020);
    }, "refused ECONNREFUSED"),
    ("path MTU discovery, closed early", |a| a.soft_error = errno(E::EMSGSIZE), "cancelled -"),
    ("path MTU discovery, closed after patience", |a| {
        a.soft_error = errno(E::EMSGSIZE);
        lasts_ms(a, 1001);
    }, "timed_out - by application"),

    // Rules 5 and 6: close, exit, SIGKILL, shutdown and AF_UNSPEC are indistinguishable.
    ("closed early", |_| {}, "cancelled -"),
    ("closed at once", |a| lasts_ms(a, 0), "cancelled -"),
    ("closed just before patience is over", |a| lasts_ms(a, PATIENCE_MS - 1), "cancelled -"),
    ("closed as patience is over", |a| lasts_ms(a, PATIENCE_MS), "timed_out - by application"),
    ("poll gives up after 1 s, no retransmission yet", |a| lasts_ms(a, 1001), "timed_out - by application"),
    ("closed within patience but after a retransmission", |a| retransmits(a, 1, 150), "timed_out - by application"),
    // TCP Fast Open: connect returned 0, the SYN waits for the first write.
    ("fast open, closed before a write", |a| { a.deferred = true; a.syn_sent = 0 }, "cancelled -"),
    ("fast open from a bound port, closed before a write", |a| {
        a.deferred = true;
        a.port_bound = true;
        a.syn_sent = 0;
    }, "cancelled -"),
];

#[test]
fn endings() {
    let failed: Vec<_> = ENDINGS
        .iter()
        .filter_map(|(name, change, expected)| {
            let mut attempt = unanswered();
            change(&mut attempt);
            let got = verdict(&attempt);
            (got != *expected).then(|| format!("{name}: {got}, not {expected}"))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn names_are_those_in_the_lines() {
    for label in Label::ALL {
        assert_eq!(serde_json::to_value(label).unwrap(), label.as_str());
    }
}

#[test]
fn only_what_is_no_failure_is_hidden() {
    let hidden = Label::ALL.into_iter().filter(|label| label.is_hidden());
    assert!(hidden.eq([Label::Established, Label::Cancelled]));
}

/// Generates records that decode: random bytes, except in fields with few valid values.
fn attempts() -> impl Strategy<Value = Attempt> {
    let noise = proptest::array::uniform::<_, COMPLETE_SIZE>(any::<u8>());
    let moment = prop_oneof![
        4 => Just((KIND_ENDING, STATE_CLOSE)),
        1 => Just((KIND_ENDING, STATE_ESTABLISHED)),
        1 => Just((KIND_STALL, STATE_SYN_SENT)),
        1 => Just((KIND_CONNECTS, STATE_SYN_SENT)),
    ];
    let flags = 0..=(FLAG_HEARD | FLAG_ICMP | FLAG_DEFERRED);
    let family = prop_oneof![Just(AF_INET), Just(AF_INET6)];
    let origin = prop_oneof![Just(ORIGIN_ICMP), Just(ORIGIN_ICMP6)];
    let times = (0..u64::MAX / 2, 0..1_000_000_000_u64);
    let ports = (0..3_u16, 0..3_u16);
    let syns = (0..3_u32, 0..3_u32);
    let errnos = (errnos(), errnos(), errnos());
    (
        noise, moment, flags, family, origin, times, ports, syns, errnos,
    )
        .prop_map(
            |(mut bytes, (kind, state), flags, family, origin, times, ports, syns, errnos)| {
                let (started_ns, lasted_ns) = times;
                let mut set = |at, value: &[u8]| put(&mut bytes, at, value);
                set(offset_of!(RawRecord, kind), &[kind]);
                set(offset_of!(RawRecord, state), &[state]);
                set(offset_of!(RawRecord, version), &[RECORD_VERSION]);
                set(offset_of!(RawRecord, flags), &[flags]);
                set(offset_of!(RawRecord, icmp_origin), &[origin]);
                set(offset_of!(RawComplete, way_drop.packet), &[flags % 3]);
                for (at, value) in [
                    (offset_of!(RawRecord, attempt.family), family),
                    (offset_of!(RawRecord, attempt.bound_port), ports.0),
                    (offset_of!(RawRecord, local_port), ports.1),
                ] {
                    set(at, &value.to_ne_bytes());
                }
                for (at, value) in [
                    (offset_of!(RawRecord, syns_or_connects), syns.0),
                    (offset_of!(RawRecord, syn_retransmitted), syns.1),
                    (offset_of!(RawRecord, error), errnos.0),
                    (offset_of!(RawRecord, soft_error), errnos.1),
                ] {
                    set(at, &value.to_ne_bytes());
                }
                let icmp_errno = u16::try_from(errnos.2).unwrap();
                let at = offset_of!(RawRecord, icmp_errno);
                set(at, &icmp_errno.to_ne_bytes());
                for (at, value) in [
                    (
                        offset_of!(RawRecord, attempt.opening.started_ns),
                        started_ns,
                    ),
                    (offset_of!(RawRecord, at_ns), started_ns + lasted_ns),
                ] {
                    set(at, &value.to_ne_bytes());
                }
                decode(&bytes).unwrap()
            },
        )
}

#[test]
fn a_call_that_failed_is_labelled_by_its_errno() {
    let label_of = |moment, port_bound| {
        let attempt = Attempt {
            moment,
            syn_sent: 0,
            port_bound,
            ..unanswered()
        };
        let verdict = label(&attempt, 0).unwrap();
        assert_eq!(verdict.timeout_by, None);
        (verdict.label, verdict.errno.unwrap())
    };
    for (known, expected) in [
        (E::ENETUNREACH, Label::Unreachable),
        (E::EHOSTUNREACH, Label::Unreachable),
        (E::EPERM, Label::Denied),
        (E::EACCES, Label::Denied),
        (E::EADDRNOTAVAIL, Label::AddressUnavailable),
        (E::EINVAL, Label::Failed),
    ] {
        let errno = Errno(known as i32);
        assert_eq!(
            label_of(RecordKind::ConnectFailed(errno), true),
            (expected, errno)
        );
    }
    for (known, port_bound, expected) in [
        (E::EADDRINUSE, false, Label::PortExhausted),
        (E::EADDRINUSE, true, Label::AddressUnavailable),
        (E::EADDRNOTAVAIL, true, Label::AddressUnavailable),
        (E::ENOMEM, true, Label::Failed),
    ] {
        let errno = Errno(known as i32);
        let moment = RecordKind::BindFailed(errno);
        assert_eq!(label_of(moment, port_bound), (expected, errno));
    }
}

/// Generates 0, an errno known to the rules, or any other, each often enough.
fn errnos() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        select(vec![
            E::ECONNREFUSED,
            E::ECONNRESET,
            E::ETIMEDOUT,
            E::ECONNABORTED,
            E::EMSGSIZE,
            E::EHOSTUNREACH
        ])
        .prop_map(|known| known as u32),
        1..4096_u32,
    ]
}

fn lasted_ms(attempt: &Attempt) -> u64 {
    (attempt.at_ns - attempt.since_ns) / 1_000_000
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn each_moment_has_its_labels(attempt in attempts(), patience_ms: u64) {
        let label = label(&attempt, patience_ms).map(|verdict| verdict.label);
        match attempt.moment {
            RecordKind::Stalled | RecordKind::Connects(_) => prop_assert_eq!(label, None),
            RecordKind::Established => prop_assert_eq!(label, Some(Label::Established)),
            RecordKind::Closed | RecordKind::ConnectFailed(_) | RecordKind::BindFailed(_) => {
                prop_assert!(label.is_some_and(|label| label != Label::Established));
            }
        }
    }

    #[test]
    fn a_timeout_says_who_gave_up(attempt in attempts(), patience_ms in 0..400_u64) {
        let Some(verdict) = label(&attempt, patience_ms) else { return Ok(()) };
        prop_assert_eq!(verdict.label == Label::TimedOut, verdict.timeout_by.is_some());
        match verdict.timeout_by {
            None => {}
            Some(TimeoutBy::Kernel) => prop_assert_eq!(verdict.errno, Some(Errno::ETIMEDOUT)),
            Some(TimeoutBy::Application) => {
                prop_assert_eq!(verdict.errno, None);
                prop_assert!(attempt.syn_retransmitted > 0 || lasted_ms(&attempt) >= patience_ms);
            }
        }
    }

    #[test]
    fn what_ended_it_is_what_the_application_is_told(mut attempt in attempts(), error in 1..4096) {
        attempt.moment = RecordKind::Closed;
        attempt.syn_sent += 1;
        attempt.error = Some(Errno(error));
        let verdict = label(&attempt, PATIENCE_MS).unwrap();
        prop_assert_eq!(verdict.errno, attempt.error);
        prop_assert_ne!(verdict.label, Label::Cancelled);
    }

    #[test]
    fn without_a_syn_only_the_port_counts(mut attempt in attempts()) {
        attempt.syn_sent = 0;
        attempt.deferred = false;
        let mut clean = attempt.clone();
        clean.error = None;
        clean.soft_error = None;
        clean.icmp = None;
        clean.syn_retransmitted = 0;
        clean.at_ns = clean.since_ns;
        prop_assert_eq!(label(&attempt, PATIENCE_MS), label(&clean, PATIENCE_MS));
    }

    #[test]
    fn patience_only_tells_cancelled_from_timed_out(attempt in attempts(), less in 0..1000_u64, more in 0..1000_u64) {
        let (hasty, patient) = (label(&attempt, less), label(&attempt, less + more));
        if hasty != patient {
            prop_assert_eq!(hasty, Some(Verdict::timed_out(TimeoutBy::Application, None)));
            prop_assert_eq!(patient, Some(Verdict::new(Label::Cancelled, None)));
        }
    }
}
