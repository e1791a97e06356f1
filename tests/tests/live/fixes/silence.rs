//! Fixes for attempts that got no answer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use conntrace::diagnosis::Code;
use conntrace_testnet::{FAR_V4, NEAR_V4, NEAR_V6, TUNNEL_DEVICE, ports, tunnel};
use conntrace_tests::{Attempted, attempt, ip, link_into, tcp};

use crate::fixes::{
    Fix, FixScene, Shown,
    answers::{AFTER_A_RETRANSMISSION, PORT},
    policies::{inside, namespace},
    scene, shows,
};

/// Far host that never answers, because no other test connects to it.
const SILENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// Address behind a gateway that does not answer.
const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Unassigned address that the default route leads to.
const INTERNAL: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
/// This side's address in a tunnel without a far end, and a host behind it.
const TUNNEL_LOCAL: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 2);
const BEHIND_TUNNEL: Ipv4Addr = Ipv4Addr::new(198, 18, 4, 1);
/// Address of the namespace at the other end of the link.
const OTHER_END: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

pub(crate) const SCENES: &[FixScene] = &[
    scene(
        Code::HostDown,
        "host_down_v4",
        Fix::Shows(&[shows("198.51.100.2")]),
        1,
        |_| Box::new(attempt((NEAR_V4, PORT))),
    ),
    scene(
        Code::HostDown,
        "host_down_v6",
        Fix::Shows(&[shows("2001:db8:0:2::2")]),
        1,
        |_| Box::new(attempt((NEAR_V6, PORT))),
    ),
    scene(
        Code::NeighbourUnresolved,
        "gateway_is_down",
        Fix::Shows(&[shows("203.0.113.1 via 198.51.100.2"), shows("198.51.100.2")]),
        1,
        |_| {
            ip(&format!("route add {BEYOND} via {NEAR_V4}"));
            Box::new(attempt((BEYOND, PORT)))
        },
    ),
    scene(
        Code::OwnLinkDown,
        "no_carrier",
        Fix::Shows(&[shows("NO-CARRIER")]),
        1,
        |_| {
            let other_end = namespace();
            link_into(other_end.pid());
            inside(other_end.pid(), "ip link set inside down");
            late((OTHER_END, PORT));
            Box::new(other_end)
        },
    ),
    scene(
        Code::PrivateAddressNotLocal,
        "private_address",
        Fix::Shows(&[shows("10.1.2.3 via 198.18.0.2 dev outside")]),
        1,
        |_| {
            // A gateway that is no namespace of this machine, and takes no packet.
            let gateway = namespace();
            link_into(gateway.pid());
            ip(&format!("route add default via {OTHER_END}"));
            ip(&format!(
                "neigh replace {OTHER_END} lladdr 02:00:00:00:00:99 dev outside nud permanent"
            ));
            late((INTERNAL, ports::SILENT));
            Box::new(gateway)
        },
    ),
    scene(
        Code::RemoteFiltered,
        "remote_filtered",
        Fix::Words("the step is on another machine"),
        2,
        |_| {
            assert_eq!(attempt((FAR_V4, ports::ACCEPTS)).errno, 0);
            Box::new(late((FAR_V4, ports::SILENT)))
        },
    ),
    scene(
        Code::DeadlineTooShort,
        "answered_late",
        Fix::Words("the application's deadline is to be raised"),
        1,
        |_| {
            let to = (SILENT, ports::ACCEPTS_LATE).into();
            Box::new(Attempted::within(Duration::from_millis(300), &tcp(to), to))
        },
    ),
    scene(
        Code::AnswerFromElsewhere,
        "answered_by_another_address",
        Fix::Words("the way back is to be mended on another machine"),
        1,
        |_| Box::new(late((SILENT, ports::FROM_ELSEWHERE))),
    ),
    scene(
        Code::ThroughTunnel,
        "dead_tunnel",
        Fix::Shows(&[shows(TUNNEL_DEVICE)]),
        1,
        |_| {
            let device = tunnel(TUNNEL_LOCAL).unwrap();
            late((BEHIND_TUNNEL, PORT));
            Box::new(device)
        },
    ),
    scene(
        Code::SilentHost,
        "silent_host",
        Fix::Shows(&[
            Shown {
                text: "0 received",
                status: 1,
            },
            shows("192.0.2.77"),
        ]),
        1,
        |_| Box::new(late((SILENT, ports::SILENT))),
    ),
];

/// Connects, and gives up after the second SYN.
fn late(remote: impl Into<SocketAddr>) -> Attempted {
    let remote = remote.into();
    let deadline: Duration = AFTER_A_RETRANSMISSION;
    Attempted::within(deadline, &tcp(remote), remote)
}
