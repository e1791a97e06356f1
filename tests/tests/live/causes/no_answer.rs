//! Causes of attempts that got no answer, or only a router's.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, ExitCode},
};

use conntrace_testnet::{
    self, FAR_ROUTER_V4, FAR_ROUTER_V6, FAR_V4, FAR_V6, FirewallVerdict, NEAR_DEVICE, NEAR_V4,
    NEAR_V6, ports,
};
use conntrace_tests::{
    Partner, attempt, give_up, in_role_to, ip, is_covered, kernel_version, lacks_drop_reasons,
    link_into, live_test, remote_of_role, say_and_wait, unless, wait_out, with_ip, with_nft,
};
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::causes::{CERTAIN, LIKELY, PORT, assert_names_rule, live};

/// Unassigned address that the default route leads to.
const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
/// Addresses of both ends of the link to a gateway ([`link_into`]).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Port that selects a gateway with forwarding enabled.
const FORWARDS: u16 = 1;
/// Address behind a gateway that does not answer.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
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
