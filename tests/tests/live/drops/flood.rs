//! Floods of dropped packets that are no attempt's.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
};

use conntrace_tests::{give_up, wait_out};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::{CERTAIN, CLIENT_V4, Net, OPEN, SERVER_V4, live, open_server, rules};

const PACKETS: u32 = 20_000;
const PACKETS_OF_NEIGHBOUR: u32 = 60_000;
const DROPS: &str = "table inet f { chain forward { type filter hook forward priority 0; \
     tcp dport 8000 drop comment \"no entry\"; }; }";
const IPPROTO_RAW: i32 = nix::libc::IPPROTO_RAW;

/// SYN to the server's port that the node drops.
fn syn(from: Ipv4Addr, port: u16) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&SERVER_V4.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&OPEN.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 2;
    packet
}

/// Sends SYNs from the calling thread's network namespace.
fn flood(count: u32, source: impl Fn(u32) -> (Ipv4Addr, u16)) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW))).unwrap();
    let to = SocketAddr::new(IpAddr::from(SERVER_V4), 0).into();
    for number in 0..count {
        let (from, port) = source(number);
        // The device's queue may be full.
        let _ = socket.send_to(&syn(from, port), &to);
    }
}

/// 20,000 packets of other addresses, dropped by the same rule at the same time.
pub(super) fn of_strangers() {
    let evidence = json!({ "packet": "SYN", "all_dropped": true });
    live().expect_cause(1, ("local_firewall", CERTAIN), &evidence, |_| {
        let net = Net::with(open_server());
        rules(&net.node, DROPS);
        thread::scope(|scope| {
            scope.spawn(|| {
                flood(PACKETS, |number| {
                    let [_, b, c, d] = number.to_be_bytes();
                    (Ipv4Addr::new(10, 100 + b, c, d), 40_000)
                });
            });
            give_up((SERVER_V4, OPEN));
        });
        net
    });
}

/// A scan by one client, all of it dropped, tells nothing of what becomes of another's attempt.
pub(super) fn of_a_neighbour() {
    let line = live().last_line(2, |_| {
        let net = Net::with(open_server());
        rules(&net.node, DROPS);
        thread::scope(|scope| {
            scope.spawn(|| wait_out((SERVER_V4, OPEN)));
            scope.spawn(|| {
                flood(PACKETS_OF_NEIGHBOUR, |number| {
                    let [_, _, high, low] = number.to_be_bytes();
                    (CLIENT_V4, u16::from_be_bytes([high, low]))
                });
            });
            wait_out((
                Ipv4Addr::new(192, 0, 2, 92),
                conntrace_testnet::ports::SILENT,
            ));
        });
        net
    });
    assert_eq!(line["undiagnosed"], serde_json::Value::Null, "{line:#}");
}
