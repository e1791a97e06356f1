//! Causes of refused attempts: no listener, a listener elsewhere, or a firewall.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use conntrace_testnet::{self, FAR_LOCAL_V4, FAR_ROUTER_V4, FAR_V4, FirewallVerdict, ports};
use conntrace_tests::{
    Partner, attempt, in_role_to, is_slow, lacks_drop_reasons, link_into, live_test,
    remote_of_role, say_and_wait, unless, with_ip, with_nft,
};
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::causes::{CERTAIN, LIKELY, PORT, assert_names_rule, live, me};

const SIMILAR_PORT: u16 = 5433;
/// Ports of the listeners in other network namespaces.
const CONTAINER_PORTS: [u16; 2] = [6379, 7001];
/// Far port that a rule of this host's own firewall matches.
const RULED_PORT: u16 = 2000;

/// Lists the tests of this group.
pub(super) fn tests() -> Vec<Trial> {
    vec![
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
        // A slow machine searches all processes too late to find the listener, if at all.
        unless(
            is_slow(),
            live_test(
                "listening_in_another_namespace",
                listening_in_another_namespace,
            ),
        ),
        live_test("wrong_port", wrong_port),
        live_test("rejected_on_the_way", rejected_on_the_way),
        unless(
            lacks_drop_reasons(),
            live_test("rejected_here", rejected_here),
        ),
        with_nft("destination_is_rewritten", destination_is_rewritten),
    ]
}

fn nothing_listening_here() {
    let evidence = json!({ "port": PORT, "listeners_in_other_namespaces": [] });
    live().expect_cause(1, ("nothing_listening", CERTAIN), &evidence, |_| {
        // This host has no listener on that port, nor on a similar one.
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
    let why = format!("{FAR_V4} is up and refuses {}", ports::RESETS);
    assert!(line["cause"]["why"].as_str().unwrap().starts_with(&why));
}

/// The destination is a container on this host, behind a veth pair.
fn nothing_listening_in_a_container() {
    let mut netns = 0_u32;
    let evidence = json!({ "port": PORT, "listeners_in_other_namespaces": [] });
    let line = live().expect_cause(1, ("nothing_listening", CERTAIN), &evidence, |_| {
        let server = container(CONTAINER_PORTS[1]);
        netns = server.said.parse().unwrap();
        link_into(server.pid());
        attempt(([198, 18, 0, 2], PORT));
        server
    });
    assert_eq!(line["cause"]["evidence"]["netns"], netns, "{line:#}");
}

/// Starts a server in its own network namespace, and waits until conntrace can find it.
fn container(port: u16) -> Partner {
    let own = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let server = Partner::start(in_role_to("listen", own));
    // conntrace caches the list of visible namespaces for this long.
    thread::sleep(Duration::from_millis(1100));
    server
}

fn listening(listener: &TcpListener) -> Value {
    let own = listener.local_addr().unwrap();
    json!({ "addr": own.ip(), "port": own.port(), "process": me() })
}

/// Checks that the evidence names exactly this one listener.
fn assert_only_listener(line: &Value, expected: &Value) {
    let listeners = line["cause"]["evidence"]["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 1, "{line:#}");
    conntrace_tests::assert_has(&listeners[0], expected);
}

/// The fix names an address that the listener accepts.
fn listening_on(at: IpAddr, remote: IpAddr, instead: SocketAddr) {
    let mut expected = Value::Null;
    let line = live().expect_cause(1, ("listening_elsewhere", CERTAIN), &json!({}), |_| {
        let listener = TcpListener::bind((at, PORT)).unwrap();
        expected = listening(&listener);
        attempt((remote, PORT));
        listener
    });
    assert_only_listener(&line, &expected);
    let fix = line["cause"]["fix"].as_str().unwrap();
    let connect = format!("connect to {instead}");
    assert!(fix.starts_with(&connect), "{fix}");
}

fn listening_on_loopback() {
    let own = (Ipv4Addr::LOCALHOST, PORT).into();
    listening_on(Ipv4Addr::LOCALHOST.into(), FAR_LOCAL_V4.into(), own);
}

fn listening_on_the_other_family() {
    let own = (Ipv4Addr::LOCALHOST, PORT).into();
    listening_on(
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
        own,
    );
}

/// Plays a container with a server whose port is not published.
pub(super) fn listen_elsewhere() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let _listener = TcpListener::bind(remote_of_role()).unwrap();
    say_and_wait(&conntrace_tests::own_netns().to_string());
    ExitCode::SUCCESS
}

/// The destination has no listener; the listener on that port in another namespace is only
/// evidence.
fn listening_in_another_namespace() {
    let [port, _] = CONTAINER_PORTS;
    let server = container(port);
    let netns: u32 = server.said.parse().unwrap();
    let line = live().expect_cause(1, ("nothing_listening", CERTAIN), &json!({}), |_| {
        attempt((Ipv4Addr::LOCALHOST, port))
    });
    let own = json!({ "netns": netns, "port": port, "process": { "pid": server.pid() } });
    let elsewhere = &line["cause"]["evidence"]["listeners_in_other_namespaces"];
    assert_eq!(elsewhere.as_array().unwrap().len(), 1, "{line:#}");
    conntrace_tests::assert_has(&elsewhere[0], &own);
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
        let port = RULED_PORT;
        conntrace_testnet::firewall(port, FirewallVerdict::RejectByReset).unwrap();
        attempt((FAR_V4, port))
    });
    assert_names_rule(&line, "port2000", "output");
}

/// A transparent proxy's redirect rule is in place, but the proxy is not running.
fn destination_is_rewritten() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "remote": remote });
    let line = live().expect_cause(1, ("proxy_in_path", CERTAIN), &evidence, |_| {
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
