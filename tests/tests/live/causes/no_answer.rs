//! Causes of attempts that got no answer, or only a router's.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use conntrace_testnet::{
    self, FAR_ROUTER_V4, FAR_ROUTER_V6, FAR_V4, FAR_V6, FarEnd, FirewallVerdict, NEAR_DEVICE,
    NEAR_V4, NEAR_V6, TUNNEL_DEVICE, answer, ports, tunnel,
};
use conntrace_tests::{
    Partner, attempt, attempt_on, give_up, in_role_to, ip, is_covered, kernel_version,
    lacks_drop_reasons, link_into, live_test, remote_of_role, say_and_wait, tcp, unless, wait_out,
    with_ip, with_nft,
};
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::causes::{CERTAIN, LIKELY, PORT, assert_names_rule, live, me};

/// Unassigned address that the default route leads to.
const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
/// Addresses of both ends of the link to a gateway ([`link_into`]).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Port that selects a gateway with forwarding enabled.
const FORWARDS: u16 = 1;
/// Address behind a gateway that does not answer.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// This side's address in a tunnel, and two hosts behind it.
const TUNNEL_LOCAL: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 2);
const BEHIND_TUNNEL: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 1);
const OTHER_BEHIND_TUNNEL: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 3);
/// Far port that a rule of this host's own firewall matches.
const RULED_PORT: u16 = 2001;

/// Lists the tests of this group.
pub(super) fn tests() -> Vec<Trial> {
    vec![
        unless(
            lacks_drop_reasons(),
            live_test("local_firewall_output", local_firewall_output),
        ),
        unless(
            lacks_drop_reasons(),
            with_nft("local_firewall_input", local_firewall_input),
        ),
        live_test("host_down_v4", || host_down(NEAR_V4.into())),
        live_test("host_down_v6", || host_down(NEAR_V6.into())),
        live_test("host_down_says_the_router", host_down_says_the_router),
        with_ip("neighbour_unresolved", neighbour_unresolved),
        with_ip("private_address_unanswered", private_address_unanswered),
        with_ip("private_address_unreachable", private_address_unreachable),
        live_test("dead_tunnel", dead_tunnel),
        live_test("dead_host_behind_a_tunnel", dead_host_behind_a_tunnel),
        with_ip("dead_tunnel_of_the_node", dead_tunnel_of_the_node),
        live_test("icmp_unreachable", icmp_unreachable),
        live_test("admin_prohibited_v4", || {
            admin_prohibited(
                FAR_V4.into(),
                &json!({ "from": FAR_ROUTER_V4, "icmp_code": 13 }),
            );
        }),
        live_test("admin_prohibited_v6", || {
            let evidence = match is_covered("icmp6_detail") {
                true => json!({ "from": FAR_ROUTER_V6, "icmp_code": 1 }),
                false => json!({ "from": null, "icmp_code": null }),
            };
            admin_prohibited(FAR_V6.into(), &evidence);
        }),
    ]
}

fn local_firewall_output() {
    let port = RULED_PORT;
    let remote = SocketAddr::from((FAR_V4, port));
    let evidence = json!({ "drop_reason": "NETFILTER_DROP", "remote": remote });
    let line = live().expect_cause(1, ("local_firewall", CERTAIN), &evidence, |_| {
        conntrace_testnet::firewall(port, FirewallVerdict::Drop).unwrap();
        give_up(remote)
    });
    assert_names_rule(&line, "port2001", "output");
}

/// The SYN-ACK is dropped. The evidence cannot exclude that NAT or connection tracking dropped the
/// SYN.
fn local_firewall_input() {
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let evidence = json!({ "drop_reason": "NETFILTER_DROP", "remote": remote });
    live().expect_cause(1, ("local_firewall", LIKELY), &evidence, |_| {
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

/// Returns the expected state of the neighbour that did not answer, and the certainty of the cause.
/// Over IPv4, Linux 5.10 and 6.1 probe it again by then; 6.12 and later do not.
fn unanswered(host: IpAddr) -> (&'static str, &'static str) {
    if host.is_ipv4() && kernel_version() < (6, 8) {
        ("incomplete", LIKELY)
    } else {
        ("failed", CERTAIN)
    }
}

fn host_down(host: IpAddr) {
    let (neighbour, _) = unanswered(host);
    let evidence = json!({ "neighbour": neighbour, "device": NEAR_DEVICE, "addr": host });
    live().expect_cause(1, ("host_down", LIKELY), &evidence, |_| {
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
    let (neighbour, certainty) = unanswered(NEAR_V4.into());
    let evidence = json!({ "neighbour": neighbour, "gateway": NEAR_V4, "device": NEAR_DEVICE });
    live().expect_cause(1, ("neighbour_unresolved", certainty), &evidence, |_| {
        ip(&format!(
            "route add {BEYOND} via {NEAR_V4} dev {NEAR_DEVICE}"
        ));
        attempt((BEYOND, PORT))
    });
}

/// Plays a gateway in its own namespace, without a route onwards. A gateway with forwarding enabled
/// reports that by ICMP.
pub(super) fn be_gateway() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let forwards = remote_of_role().port() == FORWARDS;
    fs::write(
        "/proc/sys/net/ipv4/ip_forward",
        if forwards { "1" } else { "0" },
    )
    .unwrap();
    say_and_wait("");
    ExitCode::SUCCESS
}

fn private_address(forwards: u16, from: Option<Ipv4Addr>) {
    let evidence = json!({
        "gateway": GATEWAY, "device": "outside", "source": OUTSIDE, "from": from,
    });
    let gateway = Partner::start(in_role_to("gateway", (GATEWAY, forwards).into()));
    live().expect_cause(1, ("private_address_not_local", LIKELY), &evidence, |_| {
        link_into(gateway.pid());
        ip(&format!("route add default via {GATEWAY}"));
        if from.is_none() {
            // A gateway that is no namespace of this machine, and takes no packet.
            ip(&format!(
                "neigh replace {GATEWAY} lladdr 02:00:00:00:00:99 dev outside nud permanent"
            ));
        }
        wait_out((INTERNAL, PORT))
    });
    assert!(gateway.finish().success());
}

fn private_address_unanswered() {
    private_address(0, None);
}

fn private_address_unreachable() {
    private_address(FORWARDS, Some(GATEWAY));
}

/// A tunnel that nobody reads.
fn dead_tunnel() {
    let evidence = json!({
        "device": TUNNEL_DEVICE, "device_kind": "tun", "received_packets": 0,
    });
    let line = live().expect_cause(1, ("through_tunnel", LIKELY), &evidence, |_| {
        let device = tunnel(TUNNEL_LOCAL).unwrap();
        wait_out((BEHIND_TUNNEL, PORT));
        device
    });
    // Tests that run meanwhile may have devices of that name in other namespaces, which this process
    // holds as well.
    let holder = &line["cause"]["evidence"]["holder"];
    if !holder.is_null() {
        assert_eq!(holder["pid"], me()["pid"], "{line:#}");
    }
}

/// Another host answers by the same tunnel, so that it works.
fn dead_host_behind_a_tunnel() {
    let evidence = json!({ "addr": BEHIND_TUNNEL });
    live().expect_cause(2, ("silent_host", "possible"), &evidence, |_| {
        let device = tunnel(TUNNEL_LOCAL).unwrap();
        let is_over = AtomicBool::new(false);
        let held = thread::scope(|scope| {
            scope.spawn(|| play_far_end(&device, &is_over));
            let socket = tcp((OTHER_BEHIND_TUNNEL, ports::ACCEPTS).into());
            let answered = attempt_on(&socket, (OTHER_BEHIND_TUNNEL, ports::ACCEPTS));
            wait_out((BEHIND_TUNNEL, ports::SILENT));
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(answered.errno, 0);
            socket
        });
        (held, device)
    });
}

/// Answers what comes out of a tunnel as the far end of a testnet does.
fn play_far_end(mut device: &File, is_over: &AtomicBool) {
    let (mut state, mut packet) = (FarEnd::default(), [0; 2000]);
    while !is_over.load(Ordering::Relaxed) {
        match device.read(&mut packet) {
            Ok(length) => {
                if let Some(reply) = answer(&packet[..length], &mut state) {
                    device.write_all(&reply).unwrap();
                }
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The way leads by another namespace, which has the tunnel.
fn dead_tunnel_of_the_node() {
    let node = Partner::start(in_role_to("tunnel", (BEHIND_TUNNEL, PORT).into()));
    let evidence = json!({
        "device": TUNNEL_DEVICE, "device_kind": "tun", "received_packets": 0,
    });
    let line = live().expect_cause(1, ("through_tunnel", LIKELY), &evidence, |_| {
        link_into(node.pid());
        ip(&format!("route add default via {GATEWAY}"));
        wait_out((BEHIND_TUNNEL, PORT))
    });
    assert_ne!(line["cause"]["evidence"]["netns"], line["netns"]);
    assert!(node.finish().success());
}

/// Plays a node in its own namespace that forwards into a tunnel without a far end.
pub(super) fn be_node_with_tunnel() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let device = tunnel(TUNNEL_LOCAL).unwrap();
    say_and_wait("");
    drop(device);
    ExitCode::SUCCESS
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
