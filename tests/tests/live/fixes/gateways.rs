//! Fixes for packets that go astray within this machine, in namespaces that its tests make.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntrace::diagnosis::Code;
use conntrace_tests::{Partner, attempt, give_up, in_role_to, ip, link_into};

use crate::fixes::{
    Fix, FixScene, HeldCause,
    answers::PORT,
    policies::{inside, namespace},
    scene,
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
];

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
