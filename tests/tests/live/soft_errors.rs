//! ICMP errors that arrive while the socket is locked. The kernel keeps them as soft errors until
//! the retries are used up or the application closes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use conntrace_testnet::{FAR_V4, FAR_V6, ports};
use conntrace_tests::{
    Attempted, ExpectedLine, ExpectedReply, Live, attempt_on, nft, run, tcp, with_nft,
};
use nix::{
    errno::Errno,
    sys::socket::{
        setsockopt,
        sockopt::{Ipv6RecvErr, TcpUserTimeout},
    },
};
use socket2::Socket;

/// Upper bound for every attempt in this group.
const LONG: Duration = Duration::from_secs(10);
/// Time before the first SYN retransmission.
const PROMPT: Duration = Duration::from_millis(900);
/// Time at which the kernel's timer notices that `TCP_USER_TIMEOUT` is over, with a margin.
const RETRIES: std::ops::Range<Duration> = Duration::from_millis(1400)..Duration::from_millis(2900);
const USER_TIMEOUT_MS: u32 = 1500;
/// Port on which no testnet has a listener.
const LOOPBACK_PORT: u16 = 7777;

/// ICMP rejection of a packet, the errno that the application gets, and the label.
struct Rejection {
    name: &'static str,
    /// Name of the ICMP type in nft.
    kind: &'static str,
    label: &'static str,
    v4: (Errno, u8, u8),
    v6: (Errno, u8, u8),
}

const REJECTIONS: [Rejection; 3] = [
    Rejection {
        name: "port",
        kind: "port-unreachable",
        label: "refused",
        v4: (Errno::ECONNREFUSED, 3, 3),
        v6: (Errno::ECONNREFUSED, 1, 4),
    },
    Rejection {
        name: "no_route",
        kind: "no-route",
        label: "unreachable",
        v4: (Errno::ENETUNREACH, 3, 0),
        v6: (Errno::ENETUNREACH, 1, 0),
    },
    Rejection {
        name: "prohibited",
        kind: "admin-prohibited",
        label: "unreachable",
        v4: (Errno::EHOSTUNREACH, 3, 13),
        v6: (Errno::EACCES, 1, 1),
    },
];

pub(crate) fn main() -> ExitCode {
    let mut tests = Vec::new();
    for rejection in &REJECTIONS {
        let name = rejection.name;
        let mut add = |test: &str, play: fn(&Rejection)| {
            tests.push(with_nft(&format!("{test}_{name}"), move || play(rejection)));
        };
        add("retries_end_v4", |it| {
            retries_end(it, FAR_V4.into(), OUTPUT);
        });
        add("retries_end_v6", |it| {
            retries_end(it, FAR_V6.into(), OUTPUT);
        });
        add("retries_end_loopback_v4", |it| {
            retries_end(it, Ipv4Addr::LOCALHOST.into(), INPUT);
        });
        add("retries_end_loopback_v6", |it| {
            retries_end(it, Ipv6Addr::LOCALHOST.into(), INPUT);
        });
        add("closed_early_v4", |it| {
            closed_early(it, Ipv4Addr::LOCALHOST.into());
        });
        add("closed_early_v6_recverr", |it| {
            closed_early(it, Ipv6Addr::LOCALHOST.into());
        });
    }
    run(tests)
}

/// Name of the netfilter chain that holds the rule, and the port it matches.
type Chain = (&'static str, u16);

/// Output chain: rejected SYNs do not leave, and those that do get no answer.
const OUTPUT: Chain = ("output", ports::SILENT);
/// Input chain, for a SYN that arrives over `lo`.
const INPUT: Chain = ("input", LOOPBACK_PORT);

impl Rejection {
    /// Expects the error that the application gets, and the line that matches it.
    fn expected(&self, attempted: &Attempted) -> ExpectedLine {
        let (errno, icmp_type, code) = if attempted.remote.is_ipv6() {
            self.v6
        } else {
            self.v4
        };
        assert_eq!(Errno::from_raw(attempted.errno), errno);
        ExpectedLine {
            reply: ExpectedReply::Local(icmp_type, code),
            ..ExpectedLine::new(self.label, attempted)
        }
    }
}

fn keep_errors(socket: &Socket, remote: SocketAddr) {
    if remote.is_ipv6() {
        setsockopt(socket, Ipv6RecvErr, &true).unwrap();
    }
}

/// The first SYN is rejected, and those after it are dropped. When the retries end, the kernel
/// returns the soft error instead of ETIMEDOUT.
fn retries_end(rejection: &Rejection, host: IpAddr, (chain, port): Chain) {
    let remote = SocketAddr::new(host, port);
    let live = Live::get();
    let scene = live.play_lasting(RETRIES, |_| {
        let reject = format!("reject with icmpx type {}", rejection.kind);
        let first = format!("numgen inc mod 1000 == 0 {reject}; tcp dport {port} drop");
        nft(chain, remote, &first);
        let socket = tcp(remote);
        keep_errors(&socket, remote);
        setsockopt(&socket, TcpUserTimeout, &USER_TIMEOUT_MS).unwrap();
        attempt_on(&socket, remote)
    });
    let expected = ExpectedLine {
        syn_sent: 2,
        syn_retransmitted: 1,
        ..rejection.expected(&scene.value)
    };
    live.expect(&scene, &[expected]);
}

/// The application wakes from poll, reads `SO_ERROR` and closes, so that only the error queue still
/// has the error.
fn closed_early(rejection: &Rejection, host: IpAddr) {
    let remote = SocketAddr::new(host, LOOPBACK_PORT);
    let live = Live::get();
    let scene = live.play_lasting(..PROMPT, |_| {
        nft(
            "input",
            remote,
            &format!("reject with icmpx type {}", rejection.kind),
        );
        let socket = tcp(remote);
        keep_errors(&socket, remote);
        Attempted::within(LONG, &socket, remote)
    });
    live.expect(&scene, &[rejection.expected(&scene.value)]);
}
