mod longest;
mod order;
mod words;

use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::Value;

use super::*;
use crate::{
    diagnosis::{Cause, Certainty, Code, DiagnosisResult, Facts, Undiagnosed},
    record::{self, Attempt, Caller, Comm, Label, RecordKind, Verdict},
};

/// Byte that takes the most bytes when escaped.
const WORST: u8 = 1;

/// Time of the sample lines.
pub(crate) fn at() -> Timestamp {
    "2026-11-22T08:30:00.123456789Z".parse().unwrap()
}

fn owner() -> Owner {
    Owner {
        exe: Some("/usr/bin/curl".into()),
        cgroup: Some("/system.slice/app.service".into()),
        container: None,
    }
}

pub(crate) fn refused() -> Attempt {
    record::decode(&record::decode::tests::refused()).unwrap()
}

fn host() -> Arc<str> {
    "web-1".into()
}

fn line(event: Event) -> Line {
    Line::new(event, at(), &host())
}

/// Returns the content of the outcome line of an attempt.
pub(crate) fn outcome(
    attempt: &Attempt,
    verdict: &Verdict,
    owner: Owner,
    diagnosed: DiagnosisResult,
) -> Outcome {
    let times = (at(), at());
    let line = super::outcome(attempt, verdict, times, owner, diagnosed, &host());
    let Event::Outcome(outcome) = line.line().event else {
        panic!("an outcome");
    };
    *outcome
}

/// Returns the content of the stall line of an attempt.
fn stall(attempt: &Attempt) -> Stall {
    let line = super::stall(attempt, (at(), at()), owner(), &host());
    let Event::Stall(stall) = line.line().event else {
        panic!("a stall");
    };
    *stall
}

/// Returns the outcome line of an attempt.
pub(crate) fn outcome_of(attempt: &Attempt, owner: Owner) -> Line {
    let verdict = record::label(attempt, 200).unwrap();
    let outcome = outcome(attempt, &verdict, owner, DiagnosisResult::default());
    line(Event::Outcome(Box::new(outcome)))
}

/// Returns a line of `curl` being refused.
pub(crate) fn outcome_line() -> Line {
    outcome_of(&refused(), owner())
}

/// Returns the stall line of the same attempt.
pub(crate) fn stall_line() -> Line {
    let mut attempt = refused();
    attempt.moment = RecordKind::Stalled;
    (attempt.error, attempt.heard) = (None, false);
    (attempt.syn_sent, attempt.syn_retransmitted) = (2, 1);
    attempt.at_ns = attempt.since_ns + 1_023_456_789;
    line(Event::Stall(Box::new(stall(&attempt))))
}

pub(crate) fn start_line() -> Line {
    let hook = |name: &'static str, reason: Option<String>| HookState {
        name: name.into(),
        kind: "tp_btf".into(),
        attached: reason.is_none(),
        reason,
    };
    line(Event::Start(Start {
        version: "0.1.0".into(),
        boot_id: Some("5e0a1c6e-3f0e-4d0a-9c4b-0d6b1f2a3c4d".to_owned()),
        kernel: "6.18.5".to_owned(),
        tier: "tracepoint".into(),
        pid: 77,
        hooks: vec![
            hook("inet_sock_set_state", None),
            hook("tcp_destroy_sock", Some("no such tracepoint".to_owned())),
        ],
        coverage: Coverage {
            established: true,
            rst: true,
            kernel_timeout: true,
            app_timeout: true,
            port_exhausted: true,
            tuple_in_use: true,
            aborted: true,
            stall: true,
            icmp: true,
            local_drop: false,
            drops_elsewhere: false,
            translations: false,
            icmp6_detail: false,
            no_route: false,
            local_denial: false,
            bind_exhausted: false,
        },
        limits: Vec::new(),
    }))
}

/// Returns port usage at half of the default range.
pub(crate) fn port_use() -> PortUse {
    PortUse {
        netns: 7,
        local: [10, 0, 0, 2].into(),
        remote: ([10, 0, 0, 5], 5432).into(),
        range: (32_768, 60_999),
        reserved: 32,
        used: 14_100,
        reusable: 0,
        states: States {
            established: 90,
            time_wait: 14_010,
            ..States::default()
        },
    }
}

pub(crate) fn port_pressure_line() -> Line {
    let pressure = port_pressure(50, &port_use());
    line(Event::PortPressure(Box::new(pressure)))
}

/// Returns a line of relief, with most of the used ports reusable.
pub(crate) fn port_relief_line() -> Line {
    let found = PortUse {
        used: 12,
        reusable: 9000,
        states: States {
            established: 12,
            time_wait: 9000,
            ..States::default()
        },
        ..port_use()
    };
    line(Event::PortPressure(Box::new(port_pressure(0, &found))))
}

pub(crate) fn loss_line() -> Line {
    line(Event::Loss(Loss {
        lost: BTreeMap::from([("ring_full", 3), ("untracked", 1)]),
        undelivered: BTreeMap::from([("stalls", 2)]),
        table: None,
    }))
}

/// Returns a table of attempts that one user fills.
pub(crate) fn table_loss() -> TableLoss {
    TableLoss {
        held: 49_152,
        not_admitted: 1200,
        top: Some(TopHolder {
            uid: 65_534,
            pid: 4242,
            comm: "fill".to_owned(),
            cgroup: Some("/user.slice".into()),
            attempts: 40_000,
            of_process: 19_000,
        }),
    }
}

pub(crate) fn table_line() -> Line {
    line(Event::Loss(Loss {
        table: Some(table_loss()),
        ..Loss::default()
    }))
}

fn caller(attempt: &mut Attempt) -> &mut Caller {
    attempt.caller.as_mut().unwrap()
}

fn top(comm: String, addr: IpAddr) -> Top {
    Top {
        comm: Some(comm),
        remote: Endpoint {
            addr: Some(addr),
            port: Some(5432),
        },
        label: Label::Refused,
        count: 5,
    }
}

fn totals(top: Vec<Top>) -> Totals {
    Totals {
        attempts: 12,
        outcomes: BTreeMap::from([
            (Label::TimedOut, 1),
            (Label::Refused, 5),
            (Label::Established, 4),
        ]),
        in_flight: 1,
        lost: Lost {
            ring_full: 1,
            ..Lost::default()
        },
        undiagnosed: BTreeMap::from([(Undiagnosed::NoTime, 2)]),
        top,
        ..Totals::default()
    }
}

pub(crate) fn summary_line() -> Line {
    line(Event::Summary(totals(vec![top(
        "curl".to_owned(),
        [10, 0, 0, 5].into(),
    )])))
}

pub(crate) fn stop_line() -> Line {
    line(Event::Stop(Stop {
        reason: "SIGTERM".into(),
        totals: totals(Vec::new()),
    }))
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).unwrap()
}

#[test]
fn an_outcome() {
    assert_snapshot!(json(&outcome_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"outcome","label":"refused","errno":"ECONNREFUSED","message":"curl[4242] 10.0.0.2:43210 -> 10.0.0.5:5432 refused after 0.31 ms: RST","process":{"pid":4242,"tid":4243,"comm":"curl","leader_comm":"curl","exe":"/usr/bin/curl","uid":0,"cgroup":"/system.slice/app.service"},"container":null,"remote":{"addr":"10.0.0.5","port":5432,"name":null,"nat":null,"asked":null},"cause":null,"undiagnosed":null,"local":{"addr":"10.0.0.2","port":43210},"netns":7,"started":"2026-11-22T08:30:00.123456789Z","elapsed_us":310,"syn":{"sent":1,"retransmitted":0},"reply":{"kind":"rst","icmp_type":null,"icmp_code":null,"from":null},"timeout_by":null,"suppressed":0,"seen":"whole","attempt_id":"3e8-1093","schema":1}"#);
}

#[test]
fn a_stall() {
    assert_snapshot!(json(&stall_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"stall","message":"curl[4242] 10.0.0.2:43210 -> 10.0.0.5:5432 no answer after 1.02 s: SYN sent again","process":{"pid":4242,"tid":4243,"comm":"curl","leader_comm":"curl","exe":"/usr/bin/curl","uid":0,"cgroup":"/system.slice/app.service"},"container":null,"remote":{"addr":"10.0.0.5","port":5432,"name":null,"nat":null,"asked":null},"local":{"addr":"10.0.0.2","port":43210},"netns":7,"started":"2026-11-22T08:30:00.123456789Z","elapsed_us":1023456,"syn":{"sent":2,"retransmitted":1},"reply":{"kind":"none","icmp_type":null,"icmp_code":null,"from":null},"timeout_by":null,"suppressed":0,"seen":"whole","attempt_id":"3e8-1093","schema":1}"#);
}

#[test]
fn the_start() {
    assert_snapshot!(json(&start_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"start","version":"0.1.0","boot_id":"5e0a1c6e-3f0e-4d0a-9c4b-0d6b1f2a3c4d","kernel":"6.18.5","tier":"tracepoint","pid":77,"hooks":[{"name":"inet_sock_set_state","kind":"tp_btf","attached":true,"reason":null},{"name":"tcp_destroy_sock","kind":"tp_btf","attached":false,"reason":"no such tracepoint"}],"coverage":{"established":true,"rst":true,"kernel_timeout":true,"app_timeout":true,"port_exhausted":true,"tuple_in_use":true,"aborted":true,"stall":true,"icmp":true,"local_drop":false,"drops_elsewhere":false,"translations":false,"icmp6_detail":false,"no_route":false,"local_denial":false,"bind_exhausted":false},"limits":[],"schema":1}"#);
}

#[test]
fn port_pressure_and_its_end() {
    assert_snapshot!(json(&port_pressure_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"port_pressure","message":"10.0.0.2 -> 10.0.0.5:5432 uses 14100 of 28200 local ports (50 %): 14010 TIME_WAIT, 90 ESTABLISHED","netns":7,"local":{"addr":"10.0.0.2","port":null},"remote":{"addr":"10.0.0.5","port":5432},"range":[32768,60999],"reserved":32,"used":14100,"reusable":0,"percent":50,"level":50,"states":{"established":90,"syn_sent":0,"syn_recv":0,"fin_wait1":0,"fin_wait2":0,"time_wait":14010,"close_wait":0,"last_ack":0,"closing":0},"schema":1}"#);
    assert_snapshot!(json(&port_relief_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"port_pressure","message":"10.0.0.2 -> 10.0.0.5:5432 is back at 12 of 28200 local ports (0 %): 9000 TIME_WAIT, 12 ESTABLISHED; 9000 of these can be reused","netns":7,"local":{"addr":"10.0.0.2","port":null},"remote":{"addr":"10.0.0.5","port":5432},"range":[32768,60999],"reserved":32,"used":12,"reusable":9000,"percent":0,"level":0,"states":{"established":12,"syn_sent":0,"syn_recv":0,"fin_wait1":0,"fin_wait2":0,"time_wait":9000,"close_wait":0,"last_ack":0,"closing":0},"schema":1}"#);
}

#[test]
fn a_loss() {
    assert_snapshot!(json(&loss_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"loss","lost":{"ring_full":3,"untracked":1},"undelivered":{"stalls":2},"table":null,"schema":1}"#);
    assert_snapshot!(json(&table_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"loss","lost":{},"undelivered":{},"table":{"held":49152,"not_admitted":1200,"top":{"uid":65534,"pid":4242,"comm":"fill","cgroup":"/user.slice","attempts":40000,"of_process":19000}},"schema":1}"#);
}

#[test]
fn a_summary() {
    assert_snapshot!(json(&summary_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"summary","attempts":12,"outcomes":{"established":4,"refused":5,"timed_out":1},"in_flight":1,"lost":{"ring_full":1,"untracked":0,"ending_missed":0,"malformed":0},"undelivered":{"output":0,"stalls":0,"disconnects":0},"unrecorded":0,"missed_hooks":0,"suppressed":0,"undiagnosed":{"no_time":2},"disconnects":{},"inspectors_abandoned":0,"top":[{"comm":"curl","remote":{"addr":"10.0.0.5","port":5432},"label":"refused","count":5}],"schema":1}"#);
}

#[test]
fn the_stop() {
    assert_snapshot!(json(&stop_line()), @r#"{"time":"2026-11-22T08:30:00.123456789Z","hostname":"web-1","type":"stop","reason":"SIGTERM","attempts":12,"outcomes":{"established":4,"refused":5,"timed_out":1},"in_flight":1,"lost":{"ring_full":1,"untracked":0,"ending_missed":0,"malformed":0},"undelivered":{"output":0,"stalls":0,"disconnects":0},"unrecorded":0,"missed_hooks":0,"suppressed":0,"undiagnosed":{"no_time":2},"disconnects":{},"inspectors_abandoned":0,"top":[],"schema":1}"#);
}

#[test]
fn any_task_name_survives() {
    let check = |comm: &[u8], expected: &str| {
        let mut attempt = refused();
        let mut padded = [0; 16];
        padded[..comm.len()].copy_from_slice(comm);
        caller(&mut attempt).comm = Comm(padded);
        let text = json(&outcome_of(&attempt, owner()));
        assert!(!text.contains(char::is_control), "{text}");
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["process"]["comm"], expected);
        let message = parsed["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("{expected}[4242] ")),
            "{message}"
        );
    };
    check(b"", "");
    check(b"two\nlines\r\n", "two\nlines\r\n");
    check(br#"","label":"x"#, r#"","label":"x"#);
    check(br"C:\new\u0000", r"C:\new\u0000");
    check(b"\x1b[2J\x1b]0;hi\x07", "\u{1b}[2J\u{1b}]0;hi\u{7}");
    check(b"ok\xc3\x28\xf0\x9f\x98", "ok\u{fffd}(\u{fffd}");
    check("größer".as_bytes(), "größer");
    check(&[WORST; 16], &"\u{1}".repeat(16));
    check(&[0xff; 16], &"\u{fffd}".repeat(16));
}

#[test]
fn a_time_has_nine_digits() {
    let check = |nanoseconds, expected| {
        let time = Time(Timestamp::from_nanosecond(nanoseconds).unwrap());
        assert_eq!(serde_json::to_value(time).unwrap(), expected);
    };
    check(0, "1970-01-01T00:00:00.000000000Z");
    check(1, "1970-01-01T00:00:00.000000001Z");
    check(1_500_000_000, "1970-01-01T00:00:01.500000000Z");
    check(-1, "1969-12-31T23:59:59.999999999Z");
}

/// The schema covers every line and label. Lines are validated against it by a test of the binary.
#[test]
fn the_schema_names_every_line_and_label() {
    let schema = serde_json::to_value(json_schema()).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let text = schema.to_string();
    for line in [
        outcome_line(),
        stall_line(),
        start_line(),
        loss_line(),
        table_line(),
        summary_line(),
        stop_line(),
    ] {
        let line = serde_json::to_value(line).unwrap();
        let line_type = &line["type"];
        assert!(
            text.contains(&format!(r#""const":{line_type}"#)),
            "{line_type}"
        );
        for field in line.as_object().unwrap().keys() {
            assert!(text.contains(&format!(r#""{field}":"#)), "{field}");
        }
    }
    for label in Label::ALL {
        assert!(
            text.contains(&format!(r#""{}""#, label.as_str())),
            "{label:?}"
        );
    }
}
