//! Lines of maximum length.

use super::*;
use crate::{
    capture::{HookProgram, PROGRAMS},
    commands::doctor::worst_limits,
    diagnosis::cause,
    record::{Errno, Remote, label::tests::icmp6, sanitize},
};

/// Returns text that takes the given number of bytes in JSON.
fn longest(json_len_max: usize) -> Arc<str> {
    let text = sanitize::bounded(&[WORST; 4096], json_len_max);
    // The rest of the room is too small for an escaped character.
    format!("{text}{}", "x".repeat(json_len_max % 6)).into()
}

fn longest_cause() -> Cause {
    let sentence = longest(cause::SENTENCE_JSON_MAX);
    // The evidence also holds the fact's name, quotes and braces.
    let fact = longest(cause::EVIDENCE_JSON_MAX - r#"{"fact":""}"#.len());
    let facts = Facts::new().with("fact", &*fact);
    let longest = Cause::new(
        Code::PrivateAddressNotLocal,
        Certainty::Possible,
        &sentence,
        &sentence,
        facts,
    );
    assert_eq!(longest.why, &*sentence);
    assert!(!longest.evidence.is_empty());
    longest
}

/// Returns an attempt with the longest value of each field.
fn longest_attempt() -> Attempt {
    let addr = IpAddr::from([0xffff; 8]);
    let mut attempt = refused();
    attempt.since_ns = u64::MAX / 2;
    attempt.at_ns = u64::MAX;
    *caller(&mut attempt) = Caller {
        pid: u32::MAX,
        tid: Some(u32::MAX),
        uid: u32::MAX,
        comm: Comm([WORST; 16]),
        leader_comm: Comm([WORST; 16]),
        ..caller(&mut attempt).clone()
    };
    (attempt.serial, attempt.netns) = (u32::MAX, u32::MAX);
    attempt.local_addr = Some(addr);
    attempt.remote = Some(Remote {
        addr,
        port: u16::MAX,
    });
    (attempt.syn_sent, attempt.syn_retransmitted) = (u32::MAX, u32::MAX);
    (attempt.error, attempt.heard) = (None, false);
    attempt.icmp = icmp6(255, 255, nix::errno::Errno::ENOPROTOOPT);
    attempt
}

fn longest_owner() -> Owner {
    let name = || Some(longest(NAME_JSON_MAX));
    Owner {
        exe: Some(longest(PATH_JSON_MAX)),
        cgroup: Some(longest(PATH_JSON_MAX)),
        container: Some(Container {
            id: name(),
            name: name(),
            runtime: Some(Runtime::Containerd),
            pod: name(),
            namespace: name(),
        }),
    }
}

/// Returns an outcome with the longest value of each field.
fn longest_outcome() -> Outcome {
    let attempt = longest_attempt();
    // No real attempt ends like this: each field has its longest value.
    let verdict = Verdict {
        label: Label::AddressUnavailable,
        errno: Some(Errno(i32::MIN)),
        timeout_by: Some(crate::record::TimeoutBy::Application),
    };
    let diagnosed = DiagnosisResult {
        cause: Some(Arc::new(longest_cause().into())),
        undiagnosed: Some(Undiagnosed::Unsupported),
        translated_to: None,
    };
    let mut outcome = outcome(&attempt, &verdict, longest_owner(), diagnosed);
    let remote = &mut outcome.subject.remote;
    let end = remote.endpoint();
    (remote.nat, remote.asked) = (Some(end), Some(end));
    let name = longest(NAME_JSON_MAX);
    // The message repeats the name, with the address in parentheses.
    outcome.subject.message += &format!("{name} ()");
    outcome.subject.remote.name = Some(name);
    let limit = record::EarlyLimit::LinearTimeouts(u8::MAX);
    outcome.subject.message += &format!(", early because {limit}");
    outcome.details.suppressed = u64::MAX;
    outcome.details.seen = record::Seen::JoinedLate;
    outcome
}

fn longest_totals() -> Totals {
    let comm = sanitize::bounded(&[WORST; 16], COMM_JSON_MAX);
    Totals {
        attempts: u64::MAX,
        outcomes: Label::ALL.map(|label| (label, u64::MAX)).into(),
        in_flight: u64::MAX,
        lost: Lost {
            ring_full: u64::MAX,
            untracked: u64::MAX,
            ending_missed: u64::MAX,
            malformed: u64::MAX,
        },
        undelivered: Undelivered {
            output: u64::MAX,
            stalls: u64::MAX,
            disconnects: u64::MAX,
        },
        unrecorded: u64::MAX,
        missed_hooks: u64::MAX,
        suppressed: u64::MAX,
        undiagnosed: Undiagnosed::ALL.map(|reason| (reason, u64::MAX)).into(),
        disconnects: BTreeMap::new(),
        inspectors_abandoned: u64::MAX,
        top: vec![top(comm, IpAddr::from([0xffff; 8])); 10],
    }
}

fn longest_loss() -> Loss {
    let totals = longest_totals();
    Loss {
        lost: totals.lost.by_reason().into(),
        undelivered: totals.undelivered.by_kind().into(),
        table: Some(TableLoss {
            held: u64::MAX,
            not_admitted: u64::MAX,
            top: Some(TopHolder {
                uid: u32::MAX,
                pid: u32::MAX,
                comm: sanitize::bounded(&[WORST; 16], COMM_JSON_MAX),
                cgroup: Some(longest(PATH_JSON_MAX)),
                attempts: u64::MAX,
                of_process: u64::MAX,
            }),
        }),
    }
}

/// Returns a start in which no hook is attached, each with the longest reason.
fn longest_start() -> Start {
    let hook = |program: &HookProgram| HookState {
        name: program.id.name().into(),
        kind: "kprobe_multi".into(),
        attached: false,
        reason: Some(longest(REASON_JSON_MAX).to_string()),
    };
    Start {
        version: "100.100.100".into(),
        boot_id: Some("5e0a1c6e-3f0e-4d0a-9c4b-0d6b1f2a3c4d".to_owned()),
        // Maximum length (`__NEW_UTS_LEN`).
        kernel: "6".repeat(64),
        tier: "tracepoint".into(),
        pid: u32::MAX,
        hooks: PROGRAMS.iter().map(hook).collect(),
        coverage: Coverage::default(),
        limits: worst_limits(),
    }
}

/// Every external string is at its limit, with every character escaped.
#[test]
fn the_longest_lines_fit() {
    let outcome = longest_outcome();
    let stalled = Stall {
        subject: outcome.subject.clone(),
        details: outcome.details.clone(),
    };
    for (event, len_min) in [
        (Event::Start(longest_start()), 6000),
        (Event::Outcome(Box::new(outcome)), 7500),
        (Event::Stall(Box::new(stalled)), 4000),
        (Event::Loss(longest_loss()), 1500),
        (Event::Summary(longest_totals()), 3000),
        (
            Event::Stop(Stop {
                reason: longest(PATH_JSON_MAX).to_string().into(),
                totals: longest_totals(),
            }),
            3500,
        ),
    ] {
        let mut line = line(event);
        line.hostname = longest(HOST_JSON_MAX);
        let len = json(&line).len() + "\n".len();
        // Otherwise the longest lines would not be the longest.
        assert!((len_min..=LINE_LEN_MAX).contains(&len), "{len} bytes");
    }
}
