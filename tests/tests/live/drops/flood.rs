//! Floods of dropped packets that are no attempt's.

use std::{net::Ipv4Addr, thread};

use conntrace_tests::{CLIENT_V4, RawSyns, RoutedNet, SERVER_V4, give_up, rules, wait_out};
use serde_json::json;

use super::{CERTAIN, OPEN, live, open_server};

const PACKETS: u32 = 20_000;
const PACKETS_OF_NEIGHBOUR: u32 = 60_000;
const DROPS: &str = "table inet f { chain forward { type filter hook forward priority 0; \
     tcp dport 8000 drop comment \"no entry\"; }; }";
/// 20,000 packets of other addresses, dropped by the same rule at the same time.
pub(super) fn of_strangers() {
    let evidence = json!({ "packet": "SYN", "all_dropped": true });
    live().expect_cause(1, ("local_firewall", CERTAIN), &evidence, |_| {
        let net = RoutedNet::with(open_server());
        rules(&net.node, DROPS);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut syns = RawSyns::to((SERVER_V4, OPEN));
                for number in 0..PACKETS {
                    let [_, b, c, d] = number.to_be_bytes();
                    syns.send((Ipv4Addr::new(10, 100 + b, c, d), 40_000));
                }
            });
            give_up((SERVER_V4, OPEN));
        });
        net
    });
}

/// A scan by one client, all of it dropped, tells nothing of what becomes of another's attempt.
pub(super) fn of_a_neighbour() {
    let line = live().last_line(2, |_| {
        let net = RoutedNet::with(open_server());
        rules(&net.node, DROPS);
        thread::scope(|scope| {
            scope.spawn(|| wait_out((SERVER_V4, OPEN)));
            scope.spawn(|| {
                let mut syns = RawSyns::to((SERVER_V4, OPEN));
                for number in 0..PACKETS_OF_NEIGHBOUR {
                    let [_, _, high, low] = number.to_be_bytes();
                    syns.send((CLIENT_V4, u16::from_be_bytes([high, low])));
                }
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
