//! Fixes for attempts that were refused or answered late.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use conntrace::diagnosis::Code;
use conntrace_testnet::{FAR_LOCAL_V4, FAR_V4, ports};
use conntrace_tests::{Partner, attempt, attempt_on, give_up, in_role_to, link_into, tcp};

use crate::fixes::{Fix, FixScene, scene, shows};

/// Port on which no testnet has a listener, unless a scene starts one.
pub(crate) const PORT: u16 = 5432;
const SIMILAR_PORT: u16 = 5433;
/// Address of the other end of [`link_into`].
const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Wait that exceeds the 1 s until the kernel retransmits the SYN.
pub(crate) const AFTER_A_RETRANSMISSION: Duration = Duration::from_millis(1300);

/// Listener whose accept queue is filled.
const FULL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 20_880);

const SERVER: &str = "a server is to be started";
const ELSEWHERE: &str = "the step is on another machine";
const CONFIGURATION: &str = "the client's configuration is to be corrected";

pub(crate) const SCENES: &[FixScene] = &[
    scene(
        Code::NothingListening,
        "nothing_listening_here",
        Fix::Words(SERVER),
        1,
        |_| Box::new(attempt((FAR_LOCAL_V4, PORT))),
    ),
    scene(
        Code::NothingListening,
        "nothing_listening_in_a_container",
        Fix::Words(SERVER),
        1,
        |_| {
            let server = Partner::start(in_role_to("listen", (ANY, SIMILAR_PORT + 1000).into()));
            link_into(server.pid());
            attempt((INSIDE, PORT));
            Box::new(server)
        },
    ),
    scene(
        Code::NothingListening,
        "nothing_listening_far",
        Fix::Words(ELSEWHERE),
        1,
        |_| Box::new(attempt((FAR_V4, ports::RESETS))),
    ),
    scene(
        Code::ListeningElsewhere,
        "listening_on_loopback",
        Fix::Mends(|fix| attempt(connects_to(fix)).errno),
        1,
        |_| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
            attempt((FAR_LOCAL_V4, PORT));
            Box::new(listener)
        },
    ),
    scene(
        Code::WrongPort,
        "wrong_port",
        Fix::Mends(|fix| {
            let port = words_after(fix, "connect to port ").parse().unwrap();
            attempt((FAR_LOCAL_V4, port)).errno
        }),
        1,
        |_| {
            let listener = TcpListener::bind((ANY, SIMILAR_PORT)).unwrap();
            attempt((FAR_LOCAL_V4, PORT));
            Box::new(listener)
        },
    ),
    scene(
        Code::RejectedByFirewall,
        "rejected_on_the_way",
        Fix::Words(ELSEWHERE),
        1,
        |_| Box::new(attempt((FAR_V4, ports::PORT_UNREACHABLE))),
    ),
    scene(
        Code::AdminProhibited,
        "admin_prohibited",
        Fix::Words(ELSEWHERE),
        1,
        |_| Box::new(attempt((FAR_V4, ports::ADMIN_PROHIBITED))),
    ),
    scene(
        Code::IcmpUnreachable,
        "icmp_unreachable",
        Fix::Shows(&[shows("192.0.2.2")]),
        1,
        |_| Box::new(attempt((FAR_V4, ports::NET_UNREACHABLE))),
    ),
    scene(
        Code::HostDown,
        "host_down_says_the_router",
        Fix::Words(ELSEWHERE),
        1,
        |_| Box::new(attempt((FAR_V4, ports::HOST_UNREACHABLE))),
    ),
    scene(
        Code::AcceptQueueFull,
        "accept_queue_full",
        Fix::Shows(&[shows("net.core.somaxconn"), shows("20880")]),
        2,
        |_| {
            let listener = tcp(FULL);
            listener.bind(&FULL.into()).unwrap();
            listener.listen(0).unwrap();
            let first = tcp(FULL);
            assert_eq!(attempt_on(&first, FULL).errno, 0);
            Box::new((give_up(FULL), first, listener))
        },
    ),
    scene(
        Code::AnswersSometimes,
        "answers_sometimes",
        Fix::Words(ELSEWHERE),
        2,
        |_| {
            let slow = (FAR_V4, ports::ACCEPTS_SECOND_SYN);
            assert_eq!(attempt(slow).errno, 0);
            Box::new(give_up(slow))
        },
    ),
    scene(
        Code::BadDestination,
        "port_0",
        Fix::Words(CONFIGURATION),
        1,
        |_| Box::new(attempt((FAR_V4, 0))),
    ),
];

/// Returns the word that follows `what` in a fix.
fn words_after<'a>(fix: &'a str, what: &str) -> &'a str {
    let (_, rest) = fix.split_once(what).unwrap();
    rest.split([' ', ',', ';']).next().unwrap()
}

fn connects_to(fix: &str) -> SocketAddr {
    words_after(fix, "connect to ").parse().unwrap()
}
