//! Links, addresses and routes of this host that are removed during an attempt. No router is
//! involved, and no line may name one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{
    FAR_DEVICE, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_ROUTER_V4, FAR_ROUTER_V6, Testnet, ports,
};
use conntrace_tests::{
    Attempted, Live, Partner, in_role_to, ip, link_into, nft, remote_of_role, role, run,
    say_and_wait, tcp, with_ip, with_nft,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::Ipv4RecvErr},
};
use serde_json::{Value, json};
use socket2::Socket;

/// Address behind the far router.
const BEYOND_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const BEYOND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 5);
/// Address of the other end of [`link_into`], whose firewall rejects.
const REJECTING: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const PORT: u16 = 5432;
/// Wait in which the first SYN retransmission, at 1 s, fails.
const AFTER_RETRANSMISSION: Duration = Duration::from_millis(1600);
/// Sysctl that makes the kernel give up after one retransmission, at 3 s.
const RETRIES: (&str, &str) = ("net/ipv4/tcp_syn_retries", "1");
/// Upper bound that exceeds the kernel's own timeout.
const LONG: Duration = Duration::from_secs(20);

/// Part of the route that a test removes.
#[derive(Clone, Copy)]
enum LostPart {
    Link,
    Address,
    Route,
}

impl LostPart {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Link, "link"),
        (Self::Address, "address"),
        (Self::Route, "route"),
    ];

    /// Returns true if packets are still sent without this part.
    fn is_sent_on(self, v6: bool) -> bool {
        v6 && matches!(self, Self::Address)
    }

    fn take_away(self, v6: bool) {
        let (family, own, len, route) = if v6 {
            (
                "-6 ",
                IpAddr::from(FAR_LOCAL_V6),
                64,
                format!("{BEYOND_V6}/128"),
            )
        } else {
            ("", FAR_LOCAL_V4.into(), 24, format!("{BEYOND_V4}/32"))
        };
        ip(&match self {
            Self::Link => format!("link set {FAR_DEVICE} down"),
            Self::Address => format!("{family}addr del {own}/{len} dev {FAR_DEVICE}"),
            Self::Route => format!("{family}route del {route}"),
        });
    }
}

pub(crate) fn main() -> ExitCode {
    if role().is_some() {
        return serve();
    }
    let mut tests = Vec::new();
    for (gone, name) in LostPart::ALL {
        for (v6, family) in [(false, "v4"), (true, "v6")] {
            tests.push(with_ip(&format!("{name}_{family}_given_up"), move || {
                given_up(gone, v6);
            }));
            tests.push(with_ip(
                &format!("{name}_{family}_kernel_ends"),
                move || {
                    kernel_ends(gone, v6);
                },
            ));
        }
    }
    tests.push(with_nft("error_queue_read_by_the_application", drained));
    run(tests)
}

/// Begins an attempt without an answer, and removes a part of its route.
fn cut_off(testnet: &Testnet, gone: LostPart, v6: bool) -> (Socket, SocketAddr) {
    let to: IpAddr = if v6 {
        BEYOND_V6.into()
    } else {
        BEYOND_V4.into()
    };
    let via: IpAddr = if v6 {
        FAR_ROUTER_V6.into()
    } else {
        FAR_ROUTER_V4.into()
    };
    let family = if v6 { "-6 " } else { "" };
    ip(&format!(
        "{family}route add {to} via {via} dev {FAR_DEVICE}"
    ));
    let (name, value) = RETRIES;
    testnet.set_sysctl(name, value).unwrap();
    let remote = SocketAddr::new(to, ports::SILENT);
    let socket = tcp(remote);
    Attempted::begin(&socket, remote);
    thread::sleep(Duration::from_millis(200));
    gone.take_away(v6);
    (socket, remote)
}

/// Checks for a timeout: IPv6 keeps sending from an address that was removed, but no answer can
/// arrive.
fn assert_unanswerable(line: &Value) {
    assert_eq!(line["reply"]["kind"], "none", "{line:#}");
    assert_eq!(line["label"], "timed_out", "{line:#}");
    assert_eq!(line["cause"]["code"], "wrong_source", "{line:#}");
    assert_eq!(line["cause"]["certainty"], "likely", "{line:#}");
}

/// Checks that the line names no router, and that this host's own state proves the cause.
fn assert_cut_off(line: &Value, label: &str, timeout_by: &Value) {
    let reply = json!({ "kind": "local", "icmp_type": null, "icmp_code": null, "from": null });
    assert_eq!(line["reply"], reply, "{line:#}");
    assert_eq!(line["label"], label, "{line:#}");
    assert_eq!(&line["timeout_by"], timeout_by, "{line:#}");
    assert_eq!(line["cause"]["code"], "route_went_away", "{line:#}");
    assert_eq!(line["cause"]["certainty"], "certain", "{line:#}");
    assert!(!line.to_string().contains("router"), "{line:#}");
}

/// The application closes after the failed retransmission.
fn given_up(gone: LostPart, v6: bool) {
    let line = Live::get().last_line(1, |testnet| {
        let (socket, _) = cut_off(testnet, gone, v6);
        thread::sleep(AFTER_RETRANSMISSION);
        drop(socket);
    });
    assert_eq!(line["errno"], Value::Null, "{line:#}");
    if gone.is_sent_on(v6) {
        return assert_unanswerable(&line);
    }
    assert_cut_off(&line, "timed_out", &"application".into());
}

/// When the retries end, the kernel returns its own soft error to the application.
fn kernel_ends(gone: LostPart, v6: bool) {
    let mut told = None;
    let line = Live::get().last_line(1, |testnet| {
        let (socket, _) = cut_off(testnet, gone, v6);
        let end = Instant::now() + LONG;
        while told.is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
            told = socket.take_error().unwrap();
        }
        socket
    });
    let errno = told.unwrap().raw_os_error().unwrap();
    let errno = format!("{:?}", nix::errno::Errno::from_raw(errno));
    assert_eq!(line["errno"], errno.as_str(), "{line:#}");
    if gone.is_sent_on(v6) {
        return assert_unanswerable(&line);
    }
    assert_cut_off(&line, "unreachable", &Value::Null);
}

/// Plays a server in its own namespace, whose firewall rejects with an ICMP unreachable.
fn serve() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    nft(
        "input",
        remote_of_role(),
        "reject with icmp type net-unreachable",
    );
    say_and_wait("");
    ExitCode::SUCCESS
}

/// The application has removed an ICMP error from the error queue. The errno is left, and the line
/// claims no sender.
fn drained() {
    let remote = SocketAddr::from((REJECTING, PORT));
    let server = Partner::start(in_role_to("serve", remote));
    let line = Live::get().last_line(1, |_| {
        link_into(server.pid());
        let socket = tcp(remote);
        setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
        // The error arrives while connect holds the socket, so it becomes a soft error.
        Attempted::begin(&socket, remote);
        read_errors(&socket);
    });
    assert!(server.finish().success());
    let nobody = json!({ "kind": "icmp", "icmp_type": null, "icmp_code": null, "from": null });
    assert_eq!(line["reply"], nobody, "{line:#}");
    assert!(line["cause"].is_null(), "{line:#}");
    assert_eq!(line["undiagnosed"], "incomplete", "{line:#}");
}

/// Reads the error queue until it is empty.
fn read_errors(socket: &Socket) {
    use std::os::fd::AsRawFd as _;
    let mut space = nix::cmsg_space!([u8; 256]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let mut read = 0;
    while let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut [], Some(&mut space), flags) {
        read += usize::from(
            message
                .cmsgs()
                .unwrap()
                .any(|it| matches!(it, ControlMessageOwned::Ipv4RecvErr(..))),
        );
    }
    assert!(read > 0, "there is an error to read");
}
