//! Failed calls of bind, filters on them, and hosts where they cannot be traced. They are traced by
//! hooked kernel functions, or else by `--trace-syscalls`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::{self, ExitCode},
    sync::Arc,
};

use conntrace_testnet::{self, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, ports};
use conntrace_tests::{
    Dir, LinesFile, Live, Recording, TracerProcess, Uring, assert_adds_up, attempt, attempt_on,
    bound, is_root, lacks_functions, lacks_tracefs, lacks_uring_bind, live_test, matching, nft,
    replay, run_with_replay, stdout, tcp, unless, unless_all, with_nft, without_tracefs,
};
use nix::{errno::Errno, sys::signal::Signal};
use serde_json::{Value, json};

const TRACE: &str = "--trace-syscalls";
/// Text that every outcome line contains.
const OUTCOME: &str = "\"type\":\"outcome\"";

/// Address outside every network of the testnet.
const ELSEWHERE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ELSEWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
const PORT: u16 = 5432;
const BOUND_PORT: u16 = 45_678;

pub(crate) fn main() -> ExitCode {
    let tracefs = lacks_tracefs();
    let mut tests = vec![
        live_test("is_covered", is_covered),
        live_test("filtered", filtered),
        live_test("port_in_use", port_in_use),
        live_test("port_in_use_by_time_wait", port_in_use_by_time_wait),
        live_test("port_in_use_is_not_printed", port_in_use_is_not_printed),
        with_nft("unwanted_attempt", unwanted_attempt),
        live_test("recorded", recorded),
        live_test("without_tracefs", degraded),
    ];
    let families: [(&str, IpAddr, IpAddr); 3] = [
        ("v4", FAR_LOCAL_V4.into(), ELSEWHERE_V4.into()),
        ("v6", FAR_LOCAL_V6.into(), ELSEWHERE_V6.into()),
        (
            "mapped",
            FAR_LOCAL_V4.to_ipv6_mapped().into(),
            ELSEWHERE_V4.to_ipv6_mapped().into(),
        ),
    ];
    let functions = is_root().then(|| lacks_functions(None)).flatten();
    let exhausted = live_test("bind_exhausted_io_uring", bind_exhausted_io_uring);
    tests.push(unless(functions.or_else(lacks_uring_bind), exhausted));
    for (family, local, host) in families {
        tests.extend([
            live_test(&format!("bind_exhausted_{family}"), move || {
                bind_exhausted(unspecified(local));
            }),
            live_test(&format!("bind_exhausted_address_{family}"), move || {
                bind_exhausted(local);
            }),
            live_test(&format!("bind_not_local_{family}"), move || {
                bind_not_local(SocketAddr::new(host, 0));
                bind_not_local(SocketAddr::new(host, BOUND_PORT));
            }),
        ]);
    }
    run_with_replay(unless_all(tracefs.as_deref(), tests))
}

fn live() -> Arc<Live> {
    Live::with(&[TRACE])
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn is_covered() {
    let start = live().tracer().lines(|line| line["type"] == "start");
    let [start] = start.as_slice() else {
        panic!("{start:#?}")
    };
    for key in ["no_route", "local_denial", "bind_exhausted"] {
        assert_eq!(start["coverage"][key], true, "{start:#}");
    }
}

/// Both ports of the range are bound, so that a further bind fails; connect is never called.
fn bind_exhausted(local: IpAddr) {
    let live = live();
    let scene = live.play(|testnet| {
        testnet
            .set_sysctl("net/ipv4/ip_local_port_range", "40000 40001")
            .unwrap();
        let local = SocketAddr::new(local, 0);
        let sockets = [tcp(local), tcp(local), tcp(local)];
        let bound = sockets.each_ref().map(|socket| socket.bind(&local.into()));
        let [Ok(()), Ok(()), Err(error)] = bound else {
            panic!("{bound:?}")
        };
        assert_eq!(error.raw_os_error(), Some(Errno::EADDRINUSE as i32));
    });
    let line = &live.endings(&scene, 1)[0];
    let addr = (!local.to_canonical().is_unspecified()).then(|| local.to_canonical());
    assert_unconnected(line, "port_exhausted", "EADDRINUSE");
    assert_eq!(line["local"], json!({ "addr": addr, "port": null }));
}

/// A bind by `io_uring` makes no system call.
fn bind_exhausted_io_uring() {
    let live = live();
    let scene = live.play(|testnet| {
        testnet
            .set_sysctl("net/ipv4/ip_local_port_range", "40000 40001")
            .unwrap();
        let local = SocketAddr::from((FAR_LOCAL_V4, 0));
        let mut uring = Uring::new().unwrap();
        let sockets = [tcp(local), tcp(local), tcp(local)];
        let bound = sockets.each_ref().map(|socket| uring.bind(socket, local));
        assert_eq!(bound, [0, 0, Errno::EADDRINUSE as i32]);
    });
    let line = &live.endings(&scene, 1)[0];
    assert_unconnected(line, "port_exhausted", "EADDRINUSE");
    assert_eq!(line["process"]["pid"], process::id(), "{line:#}");
}

fn bind_not_local(local: SocketAddr) {
    let live = live();
    let scene = live.play(|_| {
        let error = tcp(local).bind(&local.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EADDRNOTAVAIL as i32));
    });
    let line = &live.endings(&scene, 1)[0];
    assert_unconnected(line, "address_unavailable", "EADDRNOTAVAIL");
    let port = (local.port() != 0).then_some(local.port());
    assert_eq!(
        line["local"],
        json!({ "addr": local.ip().to_canonical(), "port": port })
    );
}

/// Another process's server has the port, on every address.
fn port_in_use() {
    let evidence = json!({ "address": FAR_LOCAL_V4, "port": BOUND_PORT });
    let line = live().expect_cause(1, ("port_in_use", "certain"), &evidence, |_| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, BOUND_PORT)).unwrap();
        bind_taken();
        listener
    });
    assert_unconnected(&line, "address_unavailable", "EADDRINUSE");
    let local = json!({ "addr": FAR_LOCAL_V4, "port": BOUND_PORT });
    assert_eq!(line["local"], local, "{line:#}");
    let why = line["cause"]["why"].as_str().unwrap();
    let who = format!(
        "[{}], which listens on 0.0.0.0:{BOUND_PORT},",
        process::id()
    );
    assert!(why.contains(&who), "{why}");
}

/// A connection from the port has ended, and its socket remains for a minute.
fn port_in_use_by_time_wait() {
    let evidence = json!({ "port": BOUND_PORT });
    let line = live().expect_cause(2, ("port_in_use", "likely"), &evidence, |_| {
        let server = TcpListener::bind((FAR_LOCAL_V4, PORT)).unwrap();
        // The kernel tells of bound sockets whatever port is asked for.
        let _other = bound((Ipv4Addr::UNSPECIFIED, BOUND_PORT + 1).into());
        let client = bound((FAR_LOCAL_V4, BOUND_PORT).into());
        assert_eq!(attempt_on(&client, (FAR_LOCAL_V4, PORT)).errno, 0);
        let accepted = server.accept().unwrap();
        drop(client);
        drop(accepted);
        bind_taken();
    });
    let why = line["cause"]["why"].as_str().unwrap();
    assert!(why.contains("in TIME_WAIT"), "{why}");
    let fix = line["cause"]["fix"].as_str().unwrap();
    assert!(fix.contains("SO_REUSEADDR"), "{fix}");
}

fn bind_taken() {
    let local = SocketAddr::from((FAR_LOCAL_V4, BOUND_PORT));
    let error = tcp(local).bind(&local.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EADDRINUSE as i32));
}

/// Most that find their port taken are servers. Their outcomes are counted.
fn port_in_use_is_not_printed() {
    for (options, printed) in [
        (["--summary", "0"].as_slice(), 0),
        (&["--all"], 1),
        (&["--label", "address_unavailable"], 1),
    ] {
        let options = [&[TRACE], options].concat();
        let dir = Dir::new("taken");
        let file = LinesFile::new(&dir.0);
        let run = conntrace_testnet::run("taken", |testnet| {
            let netns = testnet.netns.to_string();
            let agent = file.run(&[&options[..], &["--netns", &netns]].concat());
            let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, BOUND_PORT)).unwrap();
            bind_taken();
            agent.stop(Signal::SIGTERM);
        });
        run.unwrap();
        let lines = file.lines();
        assert_eq!(matching(&lines, OUTCOME), printed, "{options:?}: {lines}");
        let stop: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(stop["outcomes"]["address_unavailable"], 1, "{stop:#}");
        assert_adds_up(&stop);
    }
}

fn assert_unconnected(line: &Value, label: &str, errno: &str) {
    assert_eq!(line["label"], label, "{line:#}");
    assert_eq!(line["errno"], errno, "{line:#}");
    assert_eq!(
        line["remote"],
        json!({ "addr": null, "port": null, "name": null, "nat": null, "asked": null }),
        "{line:#}"
    );
    assert_eq!(line["process"]["pid"], process::id(), "{line:#}");
    assert_eq!(
        line["syn"],
        json!({ "sent": 0, "retransmitted": 0 }),
        "{line:#}"
    );
}

/// Filters on the remote side exclude failed binds; filters on the caller do not.
fn filtered() {
    let pid = process::id().to_string();
    let elsewhere = ELSEWHERE_V4.to_string();
    for (options, expected) in [
        (["--port", "5432"], ["unreachable"].as_slice()),
        (["--port", "5433"], &[]),
        (["--to", &elsewhere], &["unreachable"]),
        (["--to", "2001:db8::/32"], &[]),
        (["--pid", &pid], &["unreachable", "address_unavailable"]),
        (["--pid", "1"], &[]),
    ] {
        let tracer = TracerProcess::start(&[&[TRACE], options.as_slice()].concat());
        conntrace_testnet::run("filtered", |_| {
            attempt((ELSEWHERE_V4, PORT));
            let local = SocketAddr::from((ELSEWHERE_V4, 0));
            tcp(local).bind(&local.into()).unwrap_err();
        })
        .unwrap();
        let lines = tracer.stop();
        let ours = |line: &&Value| line["process"]["comm"] == "filtered";
        let labels: Vec<_> = lines
            .iter()
            .filter(ours)
            .map(|line| &line["label"])
            .collect();
        assert_eq!(labels, expected, "{options:?}");
        assert_adds_up(lines.last().unwrap());
    }
}

/// The kernel connects to its own address where 0.0.0.0 was asked for. A filter lets the call pass and
/// not its attempt, which fails with an errno that a call before any SYN can have as well.
fn unwanted_attempt() {
    for tier in ["full", "kprobe", "tracepoint"] {
        let tracer = TracerProcess::start(&[TRACE, "--tier", tier, "--to", "0.0.0.0/32"]);
        conntrace_testnet::run("unwanted", |_| {
            let own = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
            nft("input", own, "reject with icmp type prot-unreachable");
            let refused = attempt((Ipv4Addr::UNSPECIFIED, PORT));
            assert_eq!(refused.errno, Errno::ENOPROTOOPT as i32);
        })
        .unwrap();
        let lines = tracer.stop();
        let outcomes = lines.iter().filter(|line| line["type"] == "outcome");
        assert_eq!(outcomes.count(), 0, "{tier}: {lines:#?}");
        assert_adds_up(lines.last().unwrap());
    }
}

/// A recording of failed binds replays to the same lines.
fn recorded() {
    let dir = Dir::new("syscalls");
    let recording = Recording::start(&dir.0, &[TRACE, "--comm", "recorded"]);
    conntrace_testnet::run("recorded", |_| {
        attempt((ELSEWHERE_V4, PORT));
        let local = SocketAddr::from((ELSEWHERE_V4, 0));
        tcp(local).bind(&local.into()).unwrap_err();
    })
    .unwrap();
    let (lines, errors) = recording.stop();
    assert_eq!(errors, "");
    assert_eq!(matching(&lines, OUTCOME), 2, "{lines}");
    let replayed = replay(&fs::read(dir.file("recording")).unwrap(), &[]);
    assert_eq!(stdout(&replayed), lines);
}

/// Without tracefs all else is traced as before, and the start line reports the missing hooks.
fn degraded() {
    let dir = Dir::new("no-tracefs");
    // Tracing by hooked functions does not need tracefs, so the test selects tracepoints.
    let options = [TRACE, "--tier", "tracepoint", "--comm", "degraded"];
    let recording = without_tracefs(|| Recording::start(&dir.0, &options));
    conntrace_testnet::run("degraded", |_| {
        attempt((ELSEWHERE_V4, PORT));
        attempt((FAR_V4, ports::RESETS));
    })
    .unwrap();
    let (lines, errors) = recording.stop();
    assert_eq!(matching(&errors, "mount -t tracefs"), 4, "{errors}");
    assert_eq!(matching(&lines, OUTCOME), 1, "{lines}");
    let start: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let hooks = start["hooks"].as_array().unwrap();
    for hook in hooks.iter().filter(|hook| hook["kind"] == "tracepoint") {
        assert_eq!(hook["attached"], false);
        let reason = hook["reason"].as_str().unwrap();
        assert!(reason.contains("mount -t tracefs"), "{reason}");
    }
    for key in ["no_route", "local_denial", "bind_exhausted"] {
        assert_eq!(start["coverage"][key], false, "{start:#}");
    }
}
