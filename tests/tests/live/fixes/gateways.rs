//! Fixes for packets that go astray within this machine, in namespaces that its tests make.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
};

use conntrace::diagnosis::Code;
use conntrace_testnet::{FAR_ROUTER_V4, NEAR_V4};
use conntrace_tests::{Partner, attempt, give_up, in_role_to, ip, link_into};
use nix::unistd::gettid;

use crate::fixes::{
    Fix, FixScene, HeldCause,
    answers::PORT,
    policies::{inside, namespace},
    scene, shows,
};

/// Addresses of the server behind the gateway.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);

pub(crate) const SCENES: &[FixScene] = &[
    scene(
        Code::NotForwarded,
        "gateway_does_not_forward",
        Fix::Mends(|_| attempt((SERVER, PORT)).errno),
        1,
        |_| behind_a_closed_gateway(SERVER.into()),
    ),
    scene(
        Code::NotForwarded,
        "gateway_does_not_forward_v6",
        Fix::Mends(|_| attempt((SERVER_V6, PORT)).errno),
        1,
        |_| behind_a_closed_gateway(SERVER_V6.into()),
    ),
    scene(
        Code::NotForwarded,
        "interface_does_not_forward",
        Fix::Mends(|_| attempt((SERVER, PORT)).errno),
        1,
        |_| {
            let (gateway, server) = beyond();
            inside(
                gateway.pid(),
                "sysctl -qw net.ipv4.conf.inside.forwarding=0",
            );
            give_up((SERVER, PORT));
            Box::new((gateway, server))
        },
    ),
    scene(
        Code::WrongNetwork,
        "own_host_of_a_macvlan_interface",
        Fix::Shows(&[shows("macvlan mode bridge")]),
        1,
        |_| {
            let host = namespace();
            for command in [
                "ip link add parent type veth peer name lan",
                // The other end of the wire is not to answer.
                "sysctl -qw net.ipv4.conf.lan.arp_ignore=1",
                "ip link set lan up",
                "ip addr add 198.18.0.2/24 dev parent",
                "ip link set parent up",
                "ip link add child link parent type macvlan mode bridge",
                &format!("ip link set child netns {}", gettid()),
            ] {
                inside(host.pid(), command);
            }
            ip("addr add 198.18.0.50/24 dev child");
            ip("link set child up");
            attempt(([198, 18, 0, 2], PORT));
            Box::new(host)
        },
    )
    .unless(lacks_macvlan),
    scene(
        Code::WrongNetwork,
        "another_route_covers_it",
        Fix::Shows(&[shows("198.51.100.0/24 via 192.0.2.254 dev far")]),
        1,
        |_| {
            ip(&format!(
                "route add 198.51.100.0/24 via {FAR_ROUTER_V4} metric 100"
            ));
            Box::new(attempt((NEAR_V4, PORT)))
        },
    ),
    scene(
        Code::WrongNetwork,
        "another_namespace_has_it",
        Fix::Shows(&[shows("198.51.100.2/32"), shows("198.51.100.2")]),
        1,
        |_| {
            let holder = namespace();
            inside(holder.pid(), &format!("ip addr add {NEAR_V4}/32 dev lo"));
            attempt((NEAR_V4, PORT));
            Box::new(holder)
        },
    ),
];

/// Tries to make such an interface in a namespace of its own.
fn lacks_macvlan() -> Option<String> {
    let make = "ip link add one type veth peer name two && ip link add child link one type macvlan";
    let made = Command::new("unshare")
        .args(["-n", "sh", "-c", make])
        .output();
    let is_made = made.is_ok_and(|made| made.status.success());
    (!is_made).then(|| "needs ip and interfaces of type macvlan".to_owned())
}

fn behind_a_closed_gateway(server: IpAddr) -> HeldCause {
    let held = beyond();
    let off = match server {
        IpAddr::V4(_) => "net.ipv4.ip_forward=0",
        IpAddr::V6(_) => "net.ipv6.conf.all.forwarding=0",
    };
    inside(held.0.pid(), &format!("sysctl -qw {off}"));
    give_up((server, PORT));
    Box::new(held)
}

/// Links a gateway that forwards, and behind it a server that listens.
fn beyond() -> (Partner, Partner) {
    let gateway = namespace();
    let server = Partner::start(in_role_to("listen", (Ipv6Addr::UNSPECIFIED, PORT).into()));
    let (to_gateway, to_server) = (gateway.pid(), server.pid());
    link_into(to_gateway);
    ip("addr add 2001:db8:8::1/64 dev outside nodad");
    let both = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
    inside(to_gateway, &format!("sysctl -qw {both}"));
    for command in [
        "ip addr add 2001:db8:8::2/64 dev inside nodad",
        &format!("ip link add lan type veth peer name wan netns {to_server}"),
        "ip addr add 203.0.113.1/24 dev lan",
        "ip addr add 2001:db8:9::1/64 dev lan nodad",
        "ip link set lan up",
    ] {
        inside(to_gateway, command);
    }
    for command in [
        "ip addr add 203.0.113.9/24 dev wan",
        "ip addr add 2001:db8:9::9/64 dev wan nodad",
        "ip link set wan up",
        "ip route add default via 203.0.113.1",
        "ip -6 route add default via 2001:db8:9::1",
    ] {
        inside(to_server, command);
    }
    ip("route add 203.0.113.0/24 via 198.18.0.2");
    ip("-6 route add 2001:db8:9::/64 via 2001:db8:8::2");
    (gateway, server)
}
