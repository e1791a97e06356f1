//! Properties of the lines of any attempts, of which some are equal but for their numbers.

use std::net::IpAddr;

use jiff::SignedDuration;
use proptest::{option, prelude::*, sample::select};

use super::*;
use crate::{
    diagnosis::{Cause, Certainty, Code, DiagnosisResult, Facts, Undiagnosed},
    output::{
        event::{
            AttemptLine, Container, Runtime, outcome, stall,
            tests::{at, refused},
        },
        known_cases::KnownCase,
    },
    record::{
        Attempt, Caller, Drops, Errno, IcmpError, IcmpVersion, Label, Limits, Remote, Seen,
        TimeoutBy, Verdict,
    },
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        r#"(\PC|[\u{1b}\u{7f}\u{9b}\u{202e}\n"\\漢é1]){0,30}"#,
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u16; 8]>().prop_map(IpAddr::from),
    ]
}

fn comm() -> impl Strategy<Value = Comm> {
    prop_oneof![
        any::<[u8; 16]>(),
        Just(*b"1111111111111111"),
        Just(*b"curl\0\0\0\0\0\0\0\0\0\0\0\0"),
    ]
    .prop_map(Comm::of)
}

fn errno() -> impl Strategy<Value = Errno> {
    prop_oneof![1..140, Just(Errno::ETIMEDOUT.0), Just(4000)].prop_map(Errno)
}

fn caller() -> impl Strategy<Value = Caller> {
    let base = refused().caller.unwrap();
    (any::<bool>(), comm(), comm(), any::<u32>()).prop_map(move |(has_tid, comm, leader, uid)| {
        Caller {
            tid: has_tid.then_some(0),
            comm,
            leader_comm: leader,
            uid,
            ..base.clone()
        }
    })
}

fn icmp() -> impl Strategy<Value = IcmpError> {
    (any::<(u8, u8)>(), option::of(address())).prop_map(|((icmp_type, code), from)| IcmpError {
        version: IcmpVersion::V4,
        icmp_type,
        code,
        errno: None,
        from,
    })
}

prop_compose! {
    fn limits()(
        user_timeout_ms in option::of(0u32..3),
        syn_retries in 1u8..8,
        is_of_socket: bool,
        linear_timeouts in option::of(0u8..6),
    ) -> Limits {
        Limits { user_timeout_ms, syn_retries, is_of_socket, linear_timeouts }
    }
}

prop_compose! {
    fn attempt()(
        caller in option::of(caller()),
        remote in option::of((address(), any::<u16>())),
        local_addr in option::of(address()),
        has_port in any::<bool>(),
        (syn_sent, syn_retransmitted) in (0u32..3, 0u32..3),
        (error, icmp) in (option::of(errno()), option::of(icmp())),
        (heard, dropped) in any::<(bool, bool)>(),
        limits in option::of(limits()),
        seen in select(
            &[Seen::Whole, Seen::JoinedLate, Seen::EndingRecovered, Seen::Untracked][..]
        ),
    ) -> Attempt {
        Attempt {
            caller,
            remote: remote.map(|(addr, port)| Remote { addr, port }),
            local_addr,
            local_port: has_port.then_some(0),
            syn_sent,
            syn_retransmitted,
            error,
            icmp,
            heard,
            limits,
            drops: dropped.then_some(Drops { count: 1, reason: 3 }),
            seen,
            ..refused()
        }
    }
}

prop_compose! {
    fn verdict()(
        label in select(&Label::ALL[..]),
        errno in option::of(errno()),
        timeout_by in select(
            &[None, Some(TimeoutBy::Kernel), Some(TimeoutBy::Application)][..]
        ),
    ) -> Verdict {
        Verdict { label, errno, timeout_by }
    }
}

prop_compose! {
    fn diagnosed()(
        cause in option::of((text(), text(), text())),
        undiagnosed in option::of(select(&Undiagnosed::ALL[..])),
    ) -> DiagnosisResult {
        let cause = cause.map(|(why, fix, fact)| {
            let facts = Facts::new().with("fact", fact);
            Cause::new(Code::ALL[0], Certainty::Likely, &why, &fix, facts)
        });
        DiagnosisResult {
            cause: cause.map(|cause| Arc::new(cause.into())),
            undiagnosed,
            translated_to: None,
        }
    }
}

prop_compose! {
    fn owner()(
        (exe, cgroup) in (option::of(text()), option::of(text())),
        container in option::of((text(), text())),
    ) -> Owner {
        Owner {
            exe: exe.map(Into::into),
            cgroup: cgroup.map(Into::into),
            container: container.map(|(id, name)| Container {
                id: Some(id.into()),
                name: Some(name.into()),
                runtime: Some(Runtime::Docker),
                ..Container::default()
            }),
        }
    }
}

/// Everything that lines of equal failures share.
type Shared = (Attempt, Option<Verdict>, Owner, DiagnosisResult);

fn shared() -> impl Strategy<Value = Shared> {
    (attempt(), option::of(verdict()), owner(), diagnosed())
}

/// Numbers that one attempt has alone.
type Own = (i64, (u64, u32), u64, (u32, u32, u16), u64);

fn own() -> impl Strategy<Value = Own> {
    let elapsed_us = prop_oneof![
        0u64..2_000,
        999_000u64..1_001_000,
        0u64..1_000_000_000_000_000
    ];
    let later_ms = prop_oneof![0i64..5, 0i64..90_000, -2_000i64..0];
    let suppressed = prop_oneof![Just(0), any::<u64>()];
    (
        later_ms,
        any::<(u64, u32)>(),
        elapsed_us,
        any::<(u32, u32, u16)>(),
        suppressed,
    )
}

/// Builds the line of an attempt with these numbers.
fn line(
    (attempt, verdict, owner, diagnosed): &Shared,
    (_, (since_ns, serial), elapsed_us, (pid, tid, port), suppressed): &Own,
    now: jiff::Timestamp,
) -> AttemptLine {
    let mut attempt = attempt.clone();
    (attempt.since_ns, attempt.serial) = (since_ns / 2, *serial);
    attempt.at_ns = attempt.since_ns + elapsed_us * 1000;
    if let Some(caller) = &mut attempt.caller {
        caller.pid = *pid;
        caller.tid = caller.tid.map(|_| *tid);
    }
    attempt.local_port = attempt.local_port.map(|_| *port);
    let started = now - SignedDuration::from_micros(i64::try_from(elapsed_us % 5_000_000).unwrap());
    let (times, owner, host) = ((started, now), owner.clone(), "wéb\u{9b}-1".into());
    let mut line = match verdict {
        Some(verdict) => outcome(&attempt, verdict, times, owner, diagnosed.clone(), &host),
        None => stall(&attempt, times, owner, &host),
    };
    line.numbers.suppressed = *suppressed;
    line
}

/// Builds lines of a few cases.
fn lines() -> impl Strategy<Value = Vec<AttemptLine>> {
    let cases = prop::collection::vec(shared(), 1..4);
    let order = prop::collection::vec((any::<prop::sample::Index>(), own()), 1..24);
    (cases, order).prop_map(|(cases, order)| {
        let mut now = at();
        let one = |(case, own): &(prop::sample::Index, Own)| {
            now += SignedDuration::from_millis(own.0);
            line(case.get(&cases), own, now)
        };
        order.iter().map(one).collect()
    })
}

/// Renders lines without a memory of equal ones.
fn rendered(mut format: impl Format, lines: &[AttemptLine]) -> String {
    let mut out = Vec::new();
    for attempt in lines {
        format.render(&attempt.line(), &mut out).unwrap();
    }
    format.finish(&mut out);
    String::from_utf8(out).unwrap()
}

/// Renders lines as the worker does.
fn written(format: &mut impl Format, lines: &[AttemptLine]) -> String {
    let mut out = Vec::new();
    for attempt in lines {
        format.attempt(attempt, &mut out).unwrap();
    }
    format.finish(&mut out);
    String::from_utf8(out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn json_of_a_template_is_the_same(lines in lines()) {
        let mut json = Json::default();
        prop_assert_eq!(written(&mut json, &lines), rendered(Json::default(), &lines));
        // Otherwise this test would compare nothing.
        for attempt in &lines {
            let known = json.templates.find(&attempt.facts);
            prop_assert!(!matches!(known, KnownCase::Kept(_, None)), "no template: {:?}", attempt);
        }
    }

    #[test]
    fn text_of_a_known_case_is_the_same(lines in lines(), width in option::of(80u16..200)) {
        let text = || Text::for_terminal(width, true, true);
        prop_assert_eq!(written(&mut text(), &lines), rendered(text(), &lines));
    }
}

/// Equal failures differ in every number, and are written from a template.
#[test]
fn a_third_equal_failure_has_a_template() {
    let case = (
        refused(),
        Some(Verdict {
            label: Label::Refused,
            errno: None,
            timeout_by: None,
        }),
        Owner::default(),
        DiagnosisResult::default(),
    );
    let line = |n: u16| {
        line(
            &case,
            &(0, (n.into(), n.into()), n.into(), (7, 8, n), 0),
            at(),
        )
    };
    let mut json = Json::default();
    written(&mut json, &[line(1), line(2)]);
    let known = json.templates.find(&line(3).facts);
    assert!(matches!(known, KnownCase::Kept(_, Some(_))), "{known:?}");
}
