//! Why attempts fail: each classic reason staged like the real thing, its cause
//! with certainty and evidence.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::ffi::OsStrExt as _,
    process::{self, Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace::stage::{
    self, FAR_DEVICE, FAR_LOCAL_V4, FAR_ROUTER_V4, FAR_V4, FAR_V6, NEAR_DEVICE, NEAR_V4, NEAR_V6,
    Stage, Verdict, ports, set_local_port_range,
};
use conntrace_tests::{
    Dir, LinesFile, Live, Partner, attempt, attempt_on, bound, connect_until_failure, give_up,
    in_role, in_role_to, ip, live_test, remote_of_role, role, run, say_and_wait, tcp, unless,
    with_ip, with_nft,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::{Value, json};

/// No stage has a listener there, unless a test makes one.
const PORT: u16 = 5432;
const SIMILAR_PORT: u16 = 5433;
/// Of listeners in other namespaces.
const CONTAINER_PORTS: [u16; 2] = [6379, 7001];
/// Ports of the far side that have rules of this host's own.
const RULED_PORTS: [u16; 2] = [2000, 2001];
/// The ports of a narrow range.
const RANGE: [u16; 2] = [40_000, 40_009];
const RANGE_LEN: usize = 10;
/// Nobody's, but the default route leads there.
const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
/// Behind a gateway that does not answer.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// Entries of 96 kB in an environment, of which a mebibyte is looked through.
const ENTRIES: usize = 12;

const CERTAIN: &str = "certain";
const LIKELY: &str = "likely";

fn main() -> ExitCode {
    match role().as_deref() {
        Some("connect") => return connect_and_wait(),
        Some("listen") => return listen_elsewhere(),
        Some("wait") => return wait(),
        _ => {}
    }
    run(vec![
        live_test("nothing_listening_here", nothing_listening_here),
        live_test("nothing_listening_far", nothing_listening_far),
        with_ip(
            "nothing_listening_in_a_container",
            nothing_listening_in_a_container,
        ),
        live_test("listening_on_loopback", listening_on_loopback),
        live_test(
            "listening_on_the_other_family",
            listening_on_the_other_family,
        ),
        live_test(
            "listening_in_another_namespace",
            listening_in_another_namespace,
        ),
        live_test("wrong_port", wrong_port),
        live_test("rejected_on_the_way", rejected_on_the_way),
        live_test("rejected_here", rejected_here),
        live_test("proxy_in_path", proxy_in_path),
        with_nft("destination_is_rewritten", destination_is_rewritten),
        live_test("local_firewall_output", local_firewall_output),
        with_nft("local_firewall_input", local_firewall_input),
        live_test("host_down_v4", || host_down(NEAR_V4.into())),
        live_test("host_down_v6", || host_down(NEAR_V6.into())),
        live_test("host_down_says_the_router", host_down_says_the_router),
        with_ip("neighbour_unresolved", neighbour_unresolved),
        with_ip("private_address_unanswered", private_address_unanswered),
        with_ip("private_address_unreachable", private_address_unreachable),
        live_test("icmp_unreachable", icmp_unreachable),
        live_test("admin_prohibited_v4", || {
            admin_prohibited(
                FAR_V4.into(),
                &json!({ "from": FAR_ROUTER_V4, "icmp_code": 13 }),
            );
        }),
        live_test("admin_prohibited_v6", || {
            admin_prohibited(FAR_V6.into(), &json!({ "from": null, "icmp_code": null }));
        }),
        live_test("range_full_of_connections", range_full_of_connections),
        live_test("range_full_of_time_wait", range_full_of_time_wait),
        live_test("ports_held_by_bind", ports_held_by_bind),
        live_test("socket_port_range", socket_port_range),
        live_test("reserved_ports_leave_none", reserved_ports_leave_none),
        live_test("tuple_in_use", tuple_in_use),
        live_test("process_is_gone", process_is_gone),
        unless(
            cannot_choose_pids(),
            live_test("pid_is_anothers", pid_is_anothers),
        ),
        live_test("silence_has_no_cause", silence_has_no_cause),
    ])
}

fn live() -> std::sync::Arc<Live> {
    Live::get()
}

fn me() -> Value {
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    json!({ "pid": process::id(), "comm": comm.trim_end() })
}

fn nothing_listening_here() {
    let evidence = json!({ "port": PORT, "listeners": [] });
    live().expect_cause(1, ("nothing_listening", CERTAIN), &evidence, |_| {
        // Not on that port, nor on one that is like it.
        let other = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 22)).unwrap();
        attempt((FAR_LOCAL_V4, PORT));
        other
    });
}

fn nothing_listening_far() {
    let evidence = json!({ "reply": "rst", "from": FAR_V4, "port": ports::RESETS });
    let line = live().expect_cause(1, ("nothing_listening", LIKELY), &evidence, |_| {
        attempt((FAR_V4, ports::RESETS))
    });
    let why = format!("{FAR_V4} is up, nothing accepts {}", ports::RESETS);
    assert!(line["cause"]["why"].as_str().unwrap().starts_with(&why));
}

/// The destination is a container of this host, behind a pair of virtual devices.
fn nothing_listening_in_a_container() {
    let mut netns = 0_u32;
    let evidence = json!({ "port": PORT, "listeners": [] });
    let line = live().expect_cause(1, ("nothing_listening", CERTAIN), &evidence, |_| {
        let server = container(CONTAINER_PORTS[1]);
        netns = server.said.parse().unwrap();
        let pid = server.pid();
        ip(&format!(
            "link add outside type veth peer name inside netns {pid}"
        ));
        ip("link set outside up");
        ip("addr add 198.18.0.1/24 dev outside");
        for words in ["link set inside up", "addr add 198.18.0.2/24 dev inside"] {
            let pid = pid.to_string();
            let mut nsenter = Command::new("nsenter");
            nsenter
                .args(["-t", &pid, "-n", "ip"])
                .args(words.split(' '));
            assert!(nsenter.status().unwrap().success());
        }
        attempt(([198, 18, 0, 2], PORT));
        server
    });
    assert_eq!(line["cause"]["evidence"]["netns"], netns, "{line:#}");
}

/// A server in a network namespace of its own, which conntrace has seen.
fn container(port: u16) -> Partner {
    let own = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let server = Partner::start(in_role_to("listen", own));
    // How old the list of those that can be seen may be.
    thread::sleep(Duration::from_millis(1100));
    server
}

fn listening(listener: &TcpListener) -> Value {
    let own = listener.local_addr().unwrap();
    json!({ "addr": own.ip(), "port": own.port(), "process": me() })
}

/// The evidence names one listener, this one.
fn assert_only_listener(line: &Value, expected: &Value) {
    let listeners = line["cause"]["evidence"]["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 1, "{line:#}");
    conntrace_tests::assert_has(&listeners[0], expected);
}

fn listening_on(at: IpAddr, remote: IpAddr) {
    let mut expected = Value::Null;
    let line = live().expect_cause(1, ("listening_elsewhere", CERTAIN), &json!({}), |_| {
        let listener = TcpListener::bind((at, PORT)).unwrap();
        expected = listening(&listener);
        attempt((remote, PORT));
        listener
    });
    assert_only_listener(&line, &expected);
    let fix = line["cause"]["fix"].as_str().unwrap();
    let connect = format!("connect to {}", SocketAddr::new(at, PORT));
    assert!(fix.starts_with(&connect), "{fix}");
}

fn listening_on_loopback() {
    listening_on(Ipv4Addr::LOCALHOST.into(), FAR_LOCAL_V4.into());
}

fn listening_on_the_other_family() {
    listening_on(Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into());
}

/// The child's side: a container with a server whose port is not published.
fn listen_elsewhere() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let _listener = TcpListener::bind(remote_of_role()).unwrap();
    say_and_wait(&conntrace_tests::own_netns().to_string());
    ExitCode::SUCCESS
}

fn listening_in_another_namespace() {
    let [port, _] = CONTAINER_PORTS;
    let server = container(port);
    let netns: u32 = server.said.parse().unwrap();
    let line = live().expect_cause(1, ("listening_elsewhere", LIKELY), &json!({}), |_| {
        attempt((Ipv4Addr::LOCALHOST, port))
    });
    let own = json!({ "netns": netns, "port": port, "process": { "pid": server.pid() } });
    assert_only_listener(&line, &own);
    assert!(server.finish().success());
}

fn wrong_port() {
    let mut expected = Value::Null;
    let line = live().expect_cause(1, ("wrong_port", LIKELY), &json!({}), |_| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, SIMILAR_PORT)).unwrap();
        expected = listening(&listener);
        attempt((FAR_LOCAL_V4, PORT));
        listener
    });
    assert_only_listener(&line, &expected);
}

fn rejected_on_the_way() {
    let evidence = json!({ "from": FAR_ROUTER_V4, "icmp_type": 3, "icmp_code": 3 });
    live().expect_cause(1, ("rejected_by_firewall", LIKELY), &evidence, |_| {
        attempt((FAR_V4, ports::PORT_UNREACHABLE))
    });
}

fn rejected_here() {
    let evidence = json!({ "reply": "local", "drop_reason": "NETFILTER_DROP" });
    let line = live().expect_cause(1, ("rejected_by_firewall", CERTAIN), &evidence, |_| {
        let [port, _] = RULED_PORTS;
        stage::firewall(port, Verdict::RejectByReset).unwrap();
        attempt((FAR_V4, port))
    });
    assert_names_rule(&line, "port2000", "output");
}

/// The child's side: connects, and goes on when its line has been told.
fn connect_and_wait() -> ExitCode {
    attempt(remote_of_role());
    say_and_wait("connected");
    ExitCode::SUCCESS
}

/// Its user, password and other secrets appear in no line.
fn proxy_in_path() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let evidence = json!({ "variable": "https_proxy", "proxy": remote });
    let live = live();
    let line = live.expect_cause(1, ("proxy_in_path", CERTAIN), &evidence, |_| {
        let mut command = in_role_to("connect", remote);
        secretive(&mut command, remote);
        Partner::start(command)
    });
    assert_ne!(line["process"]["pid"], process::id());
    let secrets = live
        .tracer()
        .lines(|line| line.to_string().contains("hunter2"));
    assert_eq!(secrets, Vec::<Value>::new());
}

/// A transparent proxy's rule, and no proxy behind it.
fn destination_is_rewritten() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "remote": remote });
    let line = live().expect_cause(1, ("proxy_in_path", LIKELY), &evidence, |_| {
        let chain =
            "chain o { type nat hook output priority -100; tcp dport 80 redirect to :3129; };";
        let mut nft = Command::new("nft");
        let status = nft
            .arg(format!("table ip n {{ {chain} }}"))
            .status()
            .unwrap();
        assert!(status.success());
        attempt(remote)
    });
    let rule = &line["cause"]["evidence"]["rules"][0];
    conntrace_tests::assert_has(rule, &json!({ "family": "ip", "table": "n", "chain": "o" }));
}

/// What a process may have in its environment: more than is looked through, and what
/// is no text.
fn secretive(command: &mut Command, proxy: SocketAddr) {
    for number in 0..ENTRIES {
        command.env(format!("HUGE{number}"), "hunter2\n\u{1b}[2J".repeat(8000));
    }
    command
        .env(
            "ALL_PROXY",
            OsStr::from_bytes(b"\xff\n\x1b[2J\x9b\xc3(hunter2"),
        )
        .env("TOKEN", "hunter2")
        .env("HTTPS_PROXY", format!("http://hunter2:hunter2@{proxy}/"))
        .env("http_proxy", "http://hunter2.example:3128");
}

/// The environment of a process that is gone is nobody's; a RST is evidence still.
fn process_is_gone() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let line = live().last_line(1, |_| {
        let mut command = in_role_to("connect", remote);
        secretive(&mut command, remote);
        assert!(Partner::start(command).finish().success());
    });
    let code = &line["cause"]["code"];
    assert!(
        *code == "nothing_listening" || *code == "proxy_in_path",
        "{line:#}"
    );
}

/// The last pid that was given; the next one is the one after.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Others may take the pid first.
const SPAWNS_MAX: usize = 100;

fn cannot_choose_pids() -> Option<&'static str> {
    let is_there = std::path::Path::new(LAST_PID).exists();
    (!is_there).then_some("needs a kernel that lets root choose pids (CHECKPOINT_RESTORE)")
}

/// The child's side.
fn wait() -> ExitCode {
    say_and_wait("waits");
    ExitCode::SUCCESS
}

/// A process that has this pid, as one before it, and this proxy in its environment.
fn successor(pid: u32, proxy: SocketAddr) -> Partner {
    for _ in 0..SPAWNS_MAX {
        fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
        let mut command = in_role("wait");
        command.env("https_proxy", format!("http://{proxy}/"));
        let successor = Partner::start(command);
        if successor.pid() == pid {
            return successor;
        }
        assert!(successor.finish().success());
    }
    panic!("somebody else has pid {pid}");
}

/// By the time the agent looks, another process has the pid: nothing is read from that
/// one, not its environment and not its program.
fn pid_is_anothers() {
    let remote = SocketAddr::from((FAR_V4, ports::RESETS));
    let dir = Dir::new("pid-is-anothers");
    let file = LinesFile::new(&dir.0);
    let pid = stage::run("pid", |stage| {
        let netns = stage.netns.to_string();
        let agent = file.run(&["--netns", &netns, "--summary", "0"]);
        agent.signal(Signal::SIGSTOP);
        let process = Partner::start(in_role_to("connect", remote));
        let pid = process.pid();
        // When a process started is told in hundredths of a second.
        thread::sleep(Duration::from_millis(20));
        assert!(process.finish().success());
        let successor = successor(pid, remote);
        agent.signal(Signal::SIGCONT);
        file.wait_for("\"type\":\"outcome\"", 1);
        assert!(successor.finish().success());
        agent.stop(Signal::SIGTERM);
        pid
    })
    .unwrap();
    let lines = file.lines();
    let outcome = lines.lines().find(|line| line.contains("\"outcome\""));
    let line: Value = serde_json::from_str(outcome.unwrap()).unwrap();
    assert_eq!(line["process"]["pid"], pid, "{line:#}");
    assert!(line["process"]["exe"].is_null(), "{line:#}");
    assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
}

fn local_firewall_output() {
    let [_, port] = RULED_PORTS;
    let remote = SocketAddr::from((FAR_V4, port));
    let evidence = json!({ "drop_reason": "NETFILTER_DROP", "remote": remote });
    let line = live().expect_cause(1, ("local_firewall", CERTAIN), &evidence, |_| {
        stage::firewall(port, Verdict::Drop).unwrap();
        give_up(remote)
    });
    assert_names_rule(&line, "port2001", "output");
}

/// The evidence names one rule, in this chain, and so do the sentences.
fn assert_names_rule(line: &Value, table: &str, chain: &str) {
    let rules = line["cause"]["evidence"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1, "{line:#}");
    let place = json!({ "family": "inet", "table": table, "chain": chain });
    conntrace_tests::assert_has(&rules[0], &place);
    let name = format!("inet {table} {chain}");
    for sentence in ["why", "fix"] {
        assert!(
            line["cause"][sentence].as_str().unwrap().contains(&name),
            "{line:#}"
        );
    }
}

/// The SYN-ACK is dropped.
fn local_firewall_input() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "drop_reason": "NETFILTER_DROP", "remote": remote });
    live().expect_cause(1, ("local_firewall", CERTAIN), &evidence, |_| {
        let chain = "chain c { type filter hook input priority 0; tcp sport 80 drop; };";
        let mut nft = Command::new("nft");
        let status = nft
            .arg(format!("table inet t {{ {chain} }}"))
            .status()
            .unwrap();
        assert!(status.success());
        give_up(remote)
    });
}

fn host_down(host: IpAddr) {
    let evidence = json!({ "neighbour": "failed", "device": NEAR_DEVICE, "addr": host });
    live().expect_cause(1, ("host_down", CERTAIN), &evidence, |_| {
        attempt((host, PORT))
    });
}

fn host_down_says_the_router() {
    let evidence = json!({ "from": FAR_ROUTER_V4, "icmp_type": 3, "icmp_code": 1 });
    live().expect_cause(1, ("host_down", LIKELY), &evidence, |_| {
        attempt((FAR_V4, ports::HOST_UNREACHABLE))
    });
}

fn neighbour_unresolved() {
    let evidence = json!({ "neighbour": "failed", "gateway": NEAR_V4, "device": NEAR_DEVICE });
    live().expect_cause(1, ("neighbour_unresolved", CERTAIN), &evidence, |_| {
        ip(&format!(
            "route add {BEYOND} via {NEAR_V4} dev {NEAR_DEVICE}"
        ));
        attempt((BEYOND, PORT))
    });
}

fn private_address(port: u16, from: Option<Ipv4Addr>) {
    let evidence = json!({
        "gateway": FAR_ROUTER_V4, "device": FAR_DEVICE, "source": FAR_LOCAL_V4, "from": from,
    });
    live().expect_cause(1, ("private_address_not_local", LIKELY), &evidence, |_| {
        ip(&format!(
            "route add default via {FAR_ROUTER_V4} dev {FAR_DEVICE}"
        ));
        give_up((INTERNAL, port))
    });
}

fn private_address_unanswered() {
    private_address(ports::SILENT, None);
}

fn private_address_unreachable() {
    private_address(ports::NET_UNREACHABLE, Some(FAR_ROUTER_V4));
}

fn icmp_unreachable() {
    for (port, icmp_type, code) in [(ports::NET_UNREACHABLE, 3, 0), (ports::TTL_EXCEEDED, 11, 0)] {
        let evidence = json!({ "from": FAR_ROUTER_V4, "icmp_type": icmp_type, "icmp_code": code });
        live().expect_cause(1, ("icmp_unreachable", CERTAIN), &evidence, |_| {
            attempt((FAR_V4, port))
        });
    }
}

fn admin_prohibited(host: IpAddr, evidence: &Value) {
    live().expect_cause(1, ("admin_prohibited", CERTAIN), evidence, |_| {
        attempt((host, ports::ADMIN_PROHIBITED))
    });
}

fn narrow(stage: &Stage) {
    let [low, high] = RANGE;
    let range = format!("{low} {high}");
    stage
        .set_sysctl("net/ipv4/ip_local_port_range", &range)
        .unwrap();
}

fn range_full_of_connections() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({
        "range": RANGE, "reserved": 0, "available": RANGE_LEN, "connected": RANGE_LEN, "bound": 0,
        "states": { "ESTABLISHED": RANGE_LEN }, "tcp_tw_reuse": 2,
    });
    let endings = RANGE_LEN + 1;
    let cause = ("ephemeral_range_used_up", CERTAIN);
    let line = live().expect_cause(endings, cause, &evidence, |stage| {
        narrow(stage);
        connect_until_failure(remote)
    });
    let by = &line["cause"]["evidence"]["connected_by"][0];
    assert_eq!(by["process"], me(), "{line:#}");
    assert_eq!(by["sockets"], RANGE_LEN, "{line:#}");
    let fix = line["cause"]["fix"].as_str().unwrap();
    let advice = "ip_local_port_range=\"10000 65535\"` has 55,536 ports and adds 55,526";
    assert!(fix.contains(advice), "{fix}");
}

/// As many connections one after the other, each closed by the client first.
fn range_full_of_time_wait() {
    let own = SocketAddr::from((FAR_LOCAL_V4, PORT));
    let evidence = json!({ "available": RANGE_LEN, "connected": RANGE_LEN, "tcp_tw_reuse": 0 });
    let endings = RANGE_LEN + 1;
    let cause = ("ephemeral_range_used_up", CERTAIN);
    let line = live().expect_cause(endings, cause, &evidence, |stage| {
        narrow(stage);
        stage.set_sysctl("net/ipv4/tcp_tw_reuse", "0").unwrap();
        let listener = TcpListener::bind(own).unwrap();
        let mut errno = 0;
        while errno == 0 {
            let client = tcp(own);
            errno = attempt_on(&client, own).errno;
            drop(client);
            if errno == 0 {
                drop(listener.accept().unwrap());
            }
            thread::sleep(Duration::from_millis(2));
        }
        listener
    });
    let cause = &line["cause"];
    let waiting = &cause["evidence"]["states"]["TIME_WAIT"];
    assert_eq!(*waiting, RANGE_LEN, "{line:#}");
    let fix = cause["fix"].as_str().unwrap();
    assert!(
        fix.contains("tcp_tw_reuse=1` lets the 10 in TIME_WAIT"),
        "{fix}"
    );
}

fn ports_held_by_bind() {
    let evidence = json!({ "available": RANGE_LEN, "connected": 0, "bound": RANGE_LEN });
    let cause = ("ports_held_by_bind", CERTAIN);
    let line = live().expect_cause(1, cause, &evidence, |stage| {
        narrow(stage);
        let [low, high] = RANGE;
        let holders: Vec<_> = (low..=high)
            .map(|port| bound((Ipv4Addr::UNSPECIFIED, port).into()))
            .collect();
        attempt((FAR_V4, ports::ACCEPTS));
        holders
    });
    let by = &line["cause"]["evidence"]["bound_by"][0];
    assert_eq!(
        *by,
        json!({ "process": me(), "sockets": RANGE_LEN }),
        "{line:#}"
    );
}

/// The socket's own range is full, the host's is not.
fn socket_port_range() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "connected": 2, "bound": 0 });
    live().expect_cause(3, ("socket_port_range", LIKELY), &evidence, |_| {
        [(); 3].map(|()| {
            let socket = tcp(remote);
            set_local_port_range(&socket, 40_000, 40_001).unwrap();
            attempt_on(&socket, remote);
            socket
        })
    });
}

fn reserved_ports_leave_none() {
    let evidence = json!({ "available": 0, "reserved": RANGE_LEN });
    live().expect_cause(1, ("socket_port_range", CERTAIN), &evidence, |stage| {
        narrow(stage);
        stage
            .set_sysctl("net/ipv4/ip_local_reserved_ports", "40000-40009")
            .unwrap();
        attempt((FAR_V4, ports::ACCEPTS))
    });
}

fn tuple_in_use() {
    let local = SocketAddr::from((FAR_LOCAL_V4, RANGE[0]));
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let holder = json!({ "state": "ESTABLISHED", "process": me() });
    let evidence = json!({ "local": local, "remote": remote, "holder": holder });
    live().expect_cause(2, ("tuple_in_use", CERTAIN), &evidence, |_| {
        [(); 2].map(|()| {
            let socket = bound(local);
            attempt_on(&socket, remote);
            socket
        })
    });
}

/// A host that is silent on a network without neighbours to ask: nothing is known.
fn silence_has_no_cause() {
    let line = live().last_line(1, |_| give_up((FAR_V4, ports::SILENT)));
    assert_eq!(line["label"], "timed_out");
    assert!(line["cause"].is_null(), "{line:#}");
}
