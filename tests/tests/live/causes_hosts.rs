//! Causes derived from earlier attempts to a host: a recent answer, on this or another port, or
//! none at all.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::ExitCode,
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Dir, Live, Partner, Recording, TracerProcess, assert_cause, attempt, give_up, in_role_to,
    link_into, live_test, nft, own_netns, remote_of_role, replay, role, run_with_replay,
    say_and_wait, stdout, wait_out, with_nft,
};
use jiff::Timestamp;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// Port that is not similar to [`ports::ACCEPTS`], as [`ports::RESETS`] is.
const OTHER_PORT: u16 = 5432;
/// Far host that never answers, because no other test connects to it.
const SILENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// Address of a server behind a firewall, and its open and filtered ports.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const OPEN: u16 = 8000;
const FILTERED: u16 = 9443;

const CERTAIN: &str = "certain";
const LIKELY: &str = "likely";
const POSSIBLE: &str = "possible";
/// Time after which the kernel side tells another handshake with a host.
const FRESH: Duration = Duration::from_millis(1100);
/// Maximum number of namespaces created until one has the number of an earlier one.
const NAMESPACES: usize = 100;
/// Time that the kernel takes to destroy a namespace.
const GONE_AFTER: Duration = Duration::from_millis(200);

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some("limit") => return limit(),
        Some(_) => return serve(),
        None => {}
    }
    run_with_replay(vec![
        live_test("silent_host_and_its_replay", silent_host_and_its_replay),
        with_nft("filtered_by_the_server", filtered_by_the_server),
        live_test("filtered_after_a_refusal", filtered_after_a_refusal),
        live_test("another_port_works_v4", || {
            another_port_works(FAR_V4.into(), FAR_V4.into());
        }),
        live_test("another_port_works_v6", || {
            another_port_works(FAR_V6.into(), FAR_V6.into());
        }),
        live_test("another_port_works_mapped", || {
            another_port_works(FAR_V4.to_ipv6_mapped().into(), FAR_V4.into());
        }),
        live_test("answered_on_this_port", answered_on_this_port),
        live_test("given_up_before_an_answer_was_due", given_up_early),
        live_test(
            "refusals_leave_the_port_that_works",
            refusals_leave_the_port,
        ),
        live_test("not_of_another_namespace", not_of_another_namespace),
        live_test("not_of_an_earlier_namespace", not_of_an_earlier_namespace),
        live_test("not_of_what_is_filtered_out", not_of_what_is_filtered_out),
    ])
}

fn live() -> std::sync::Arc<Live> {
    Live::get()
}

/// Checks that the evidence dates an event less than 30 s back.
fn assert_just_now(line: &Value, what: &str) {
    let ago_s = line["cause"]["evidence"][what].as_u64();
    assert!(ago_s.is_some_and(|ago_s| ago_s < 30), "{line:#}");
}

/// Plays a server in its own namespace, whose firewall drops packets to another port.
fn serve() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let remote = remote_of_role();
    nft("input", remote, "drop");
    let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, OPEN)).unwrap();
    say_and_wait(&own_netns().to_string());
    ExitCode::SUCCESS
}

/// Plays a server whose firewall accepts one connection and drops all later SYNs.
fn limit() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    nft(
        "input",
        remote_of_role(),
        "tcp flags syn limit rate over 1/hour burst 1 packets drop",
    );
    let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, OPEN)).unwrap();
    say_and_wait(&own_netns().to_string());
    ExitCode::SUCCESS
}

fn filtered_by_the_server() {
    // The server is a namespace of this machine: its rule is known.
    let evidence = json!({
        "port": FILTERED, "handshake_port": OPEN, "drop_reason": "NETFILTER_DROP",
    });
    let server = Partner::start(in_role_to("serve", (SERVER, FILTERED).into()));
    live().expect_cause(2, ("remote_filtered", CERTAIN), &evidence, |_| {
        link_into(server.pid());
        assert_eq!(attempt((SERVER, OPEN)).errno, 0);
        wait_out((SERVER, FILTERED))
    });
    assert!(server.finish().success());
}

fn filtered_after_a_refusal() {
    let evidence = json!({ "port": ports::SILENT, "handshake_port": null });
    let line = live().expect_cause(2, ("remote_filtered", LIKELY), &evidence, |_| {
        attempt((FAR_V4, ports::RESETS));
        wait_out((FAR_V4, ports::SILENT))
    });
    assert_just_now(&line, "reset_seconds_ago");
}

/// A port of the host that works is evidence, not a cause. The socket's address family does not
/// matter.
fn another_port_works(worked: IpAddr, refused: IpAddr) {
    for port in [ports::RESETS, OTHER_PORT] {
        let evidence = json!({ "port": port, "works_port": ports::ACCEPTS });
        let line = live().expect_cause(2, ("nothing_listening", LIKELY), &evidence, |_| {
            assert_eq!(attempt((worked, ports::ACCEPTS)).errno, 0);
            attempt((refused, port))
        });
        assert_just_now(&line, "works_seconds_ago");
    }
}

/// A port that answered recently is not reported as filtered.
fn answered_on_this_port() {
    let server = Partner::start(in_role_to("limit", (SERVER, OPEN).into()));
    // The server is a namespace of this machine: its rule is known, and not if it applied.
    let evidence = json!({ "remote": format!("{SERVER}:{OPEN}"), "drop_reason": "NETFILTER_DROP" });
    let line = live().expect_cause(2, ("local_firewall", LIKELY), &evidence, |_| {
        link_into(server.pid());
        assert_eq!(attempt((SERVER, OPEN)).errno, 0);
        wait_out((SERVER, OPEN))
    });
    assert_just_now(&line, "answered_seconds_ago");
    assert!(server.finish().success());
}

/// One SYN without an answer for 300 ms is too little for a cause.
fn given_up_early() {
    let line = live().last_line(3, |_| {
        assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
        attempt((FAR_V4, ports::RESETS));
        give_up((FAR_V4, ports::SILENT))
    });
    assert!(
        line["cause"].is_null() && line["undiagnosed"].is_null(),
        "{line:#}"
    );
}

/// Later RSTs do not erase the record of the port that works.
fn refusals_leave_the_port() {
    let evidence = json!({ "works_port": ports::ACCEPTS });
    let line = live().expect_cause(4, ("nothing_listening", LIKELY), &evidence, |_| {
        assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
        for _ in 0..3 {
            thread::sleep(FRESH);
            attempt((FAR_V4, ports::RESETS));
        }
    });
    let ago_s = &line["cause"]["evidence"]["works_seconds_ago"];
    assert!(ago_s.as_u64().unwrap() >= 3, "{line:#}");
}

/// Checks that a testnet's first attempt has no evidence from other testnets.
fn assert_knows_nothing() {
    let line = live().last_line(1, |_| attempt((FAR_V4, ports::RESETS)));
    assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
    assert!(
        line["cause"]["evidence"]["works_port"].is_null(),
        "{line:#}"
    );
}

fn not_of_another_namespace() {
    live().last_line(1, |_| {
        assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
        assert_knows_nothing();
    });
}

fn outcomes_of(tracer: &TracerProcess, netns: u32) -> Vec<Value> {
    tracer.lines(|line| line["type"] == "outcome" && line["netns"] == netns)
}

/// A new namespace may get the number of a destroyed one. The records of its hosts must not be
/// reused.
fn not_of_an_earlier_namespace() {
    let tracer = TracerProcess::start(&[]);
    let mut gone = Vec::new();
    for _ in 0..NAMESPACES {
        // Lines that started before this time belong to an earlier namespace.
        let began = format!("{:.9}", Timestamp::now());
        let (netns, is_later) = conntrace_testnet::run("namespace", |testnet| {
            let is_later = gone.contains(&testnet.netns);
            if is_later {
                attempt((FAR_V4, ports::RESETS));
                tracer.wait_for_endings_since(&began, testnet.netns, 1);
            } else {
                assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
            }
            (testnet.netns, is_later)
        })
        .unwrap();
        if is_later {
            let line = outcomes_of(&tracer, netns).pop().unwrap();
            assert!(
                line["cause"]["evidence"]["works_port"].is_null(),
                "{line:#}"
            );
            return;
        }
        gone.push(netns);
        thread::sleep(GONE_AFTER);
    }
    panic!("no namespace has the number of one before");
}

/// Attempts that no filter passes leave no record of a host, and a cause claims nothing of them.
fn not_of_what_is_filtered_out() {
    let tracer = TracerProcess::start(&["--port", &ports::SILENT.to_string()]);
    let began = format!("{:.9}", Timestamp::now());
    let netns = conntrace_testnet::run("filtered", |testnet| {
        assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
        attempt((FAR_V4, ports::RESETS));
        give_up((FAR_V4, ports::SILENT));
        wait_out((FAR_V4, ports::SILENT));
        tracer.wait_for_endings_since(&began, testnet.netns, 2);
        testnet.netns
    });
    let lines = outcomes_of(&tracer, netns.unwrap());
    let [given_up, waited_out] = lines.as_slice() else {
        panic!("{lines:#?}")
    };
    assert!(given_up["cause"].is_null(), "{given_up:#}");
    assert_eq!(waited_out["cause"]["code"], "silent_host");
    let why = waited_out["cause"]["why"].as_str().unwrap();
    assert!(why.contains("no traced attempt"), "{why}");
}

/// An attempt without an answer records its host as silent, and each further one extends that time.
/// Handshakes are only counted here. A replay prints the same lines.
fn silent_host_and_its_replay() {
    let dir = Dir::new("causes-hosts");
    let recording = conntrace_testnet::run("silent", |testnet| {
        let recording = Recording::start(&dir.0, &["--netns", &testnet.netns.to_string()]);
        give_up((SILENT_V4, ports::SILENT));
        wait_out((SILENT_V4, ports::SILENT));
        assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
        attempt((FAR_V4, ports::RESETS));
        wait_out((FAR_V4, ports::SILENT));
        thread::sleep(FRESH);
        wait_out((SILENT_V4, ports::SILENT));
        recording.wait_for("\"type\":\"outcome\"", 5);
        recording
    });
    let (lines, errors) = recording.unwrap().stop();
    assert_eq!(errors, "");
    let outcomes = lines
        .lines()
        .filter(|line| line.contains("\"type\":\"outcome\""));
    let mut outcomes: Vec<Value> = outcomes
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // One that waits for its cause is overtaken by others.
    outcomes.sort_by(|one, other| one["time"].as_str().cmp(&other["time"].as_str()));
    assert!(outcomes[0]["cause"].is_null(), "{:#}", outcomes[0]);
    let works = json!({ "works_port": ports::ACCEPTS });
    assert_cause(&outcomes[2], ("nothing_listening", LIKELY), &works);
    let port = json!({ "handshake_port": ports::ACCEPTS });
    assert_cause(&outcomes[3], ("remote_filtered", LIKELY), &port);
    for (at, seconds) in [(1, 1..2), (4, 3..30)] {
        let silent = json!({ "addr": SILENT_V4 });
        assert_cause(&outcomes[at], ("silent_host", POSSIBLE), &silent);
        let silent_s = outcomes[at]["cause"]["evidence"]["silent_seconds"].as_u64();
        assert!(
            silent_s.is_some_and(|s| seconds.contains(&s)),
            "{silent_s:?}"
        );
    }
    let replayed = replay(&fs::read(dir.file("recording")).unwrap(), &[]);
    assert_eq!(stdout(&replayed), lines);
}
