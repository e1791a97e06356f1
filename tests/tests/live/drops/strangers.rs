//! Drops that are not the attempt's, although they have its client's address and port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use conntrace_testnet::{FAR_LOCAL_V4, FAR_V4, ports};
use conntrace_tests::{
    CLIENT_V4, Partner, PlayedScenario, RoutedNet, SERVER_V4, here, holder, inside, netns_of,
    rules, with_nft, within,
};
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::Value;

use super::{OPEN, from_port, live, open_server};

/// Port from which a client connects; tests that run at the same time have others.
const PORT: u16 = 30_123;
/// Far host that never answers, because no other test connects to it.
const SILENT: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 91)),
    ports::SILENT,
);
const DROPS: &str = "table inet f { chain forward { type filter hook forward priority 0; \
     tcp dport 8000 drop comment \"no entry\"; }; }";

pub(super) fn tests() -> Vec<Trial> {
    vec![
        with_nft("twin_gives_up", || {
            of_a_twin(30_200, ports::SILENT, ms(700));
        }),
        with_nft("twin_is_silent", || {
            of_a_twin(30_201, ports::SILENT, ms(1300));
        }),
        with_nft("twin_is_refused", || {
            of_a_twin(30_202, ports::RESETS_SECOND_SYN, ms(1300));
        }),
        with_nft("next_attempt_with_the_port", of_the_next_attempt),
        with_nft("late_answer_to_an_earlier_attempt", of_an_earlier_attempt),
        with_nft("refused_after_a_drop", refused_after_a_drop),
        with_nft("way_by_source", way_by_source),
        with_nft("rule_of_another_way", rule_of_another_way),
        with_nft("copy_is_dropped", copy_is_dropped),
    ]
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn now() -> String {
    format!("{:.9}", Timestamp::now())
}

/// Lines of a network namespace.
fn lines_of(netns: u32, began: &str, count: usize) -> Vec<Value> {
    let scene = PlayedScenario {
        netns,
        began: began.to_owned(),
        value: (),
    };
    live().endings(&scene, count)
}

/// Links a client with its node, in whose namespace `node` runs a script.
fn link_client(client: &Partner, node: impl Fn(&str)) {
    let pid = client.pid();
    node(&format!(
        "sysctl -qw net.ipv4.ip_forward=1
         ip link add n0 type veth peer name c0 netns {pid}
         ip addr add 10.77.0.1/24 dev n0
         ip link set n0 up"
    ));
    inside(
        client,
        &format!(
            "ip addr add {CLIENT_V4}/24 dev c0
             ip link set c0 up
             ip route add default via 10.77.0.1"
        ),
    );
}

/// Checks that a line tells nothing of another attempt's drop.
fn assert_far(line: &Value, code: &Value) {
    let cause = &line["cause"];
    assert!(line["remote"]["nat"].is_null(), "a stranger's: {line:#}");
    let why = cause["why"].as_str().unwrap_or_default();
    assert!(!why.contains("dropped"), "a stranger's: {line:#}");
    assert_eq!(&cause["code"], code, "{line:#}");
}

/// Two clients in two namespaces have the same address and port. The packets of one are dropped in
/// its node; those of the other reach a far host.
fn of_a_twin(local: u16, port: u16, deadline: Duration) {
    let client = (CLIENT_V4, local);
    let began = now();
    let (far, near) = (holder(), holder());
    let netns = [netns_of(&far), netns_of(&near)];
    let node = holder();
    live().play(|_| {
        link_client(&far, here);
        link_client(&near, |script| inside(&node, script));
        inside(&node, "ip route add default dev n0");
        rules(&node, DROPS);
        thread::scope(|scope| {
            scope.spawn(|| within(&far, || from_port(client, (FAR_V4, port), deadline)));
            scope.spawn(|| {
                thread::sleep(ms(500));
                within(&near, || from_port(client, (SERVER_V4, OPEN), ms(1400)));
            });
        });
        live().tracer().wait_for_endings_since(&began, netns[0], 1);
        live().tracer().wait_for_endings_since(&began, netns[1], 1);
    });
    let code = match (port, deadline.as_millis()) {
        (ports::SILENT, 700) => Value::Null,
        (ports::SILENT, _) => "silent_host".into(),
        _ => "nothing_listening".into(),
    };
    assert_far(&lines_of(netns[0], &began, 1)[0], &code);
    let near = &lines_of(netns[1], &began, 1)[0];
    assert_eq!(near["cause"]["code"], "local_firewall", "{near:#}");
}

/// An attempt that waits for a late answer is not told by the drop of the next one with its port.
fn of_the_next_attempt() {
    let mut lines = Vec::new();
    let began = now();
    let played = live().play(|testnet| {
        let net = RoutedNet::with(open_server());
        rules(&net.node, DROPS);
        let local = (FAR_LOCAL_V4, PORT);
        here(&format!(
            "ip route replace {SERVER_V4}/32 via 10.77.0.1 src {FAR_LOCAL_V4}"
        ));
        from_port(local, SILENT, ms(300));
        from_port(local, (SERVER_V4, OPEN), ms(300));
        live()
            .tracer()
            .wait_for_endings_since(&began, testnet.netns, 2);
        lines = lines_of(testnet.netns, &began, 2);
        net
    });
    drop(played);
    let why = lines[0]["cause"]["why"].as_str().unwrap_or_default();
    assert!(!why.contains("dropped"), "a stranger's: {:#}", lines[0]);
    assert_eq!(lines[0]["remote"]["nat"], Value::Null, "{:#}", lines[0]);
    assert_eq!(
        lines[1]["cause"]["code"], "local_firewall",
        "{:#}",
        lines[1]
    );
}

/// The answer to an attempt that was cancelled comes while the next one with its port is under way.
fn of_an_earlier_attempt() {
    let lines = {
        let began = now();
        let played = live().play(|testnet| {
            let local = (FAR_LOCAL_V4, 30_203);
            from_port(local, (FAR_V4, ports::ACCEPTS_LATE), ms(50));
            from_port(local, SILENT, ms(1300));
            live()
                .tracer()
                .wait_for_endings_since(&began, testnet.netns, 2);
        });
        live().endings(&played, 2)
    };
    assert_eq!(lines[1]["cause"]["code"], "silent_host", "{:#}", lines[1]);
}

/// The node drops the first SYN, and the far host refuses the second.
fn refused_after_a_drop() {
    let began = now();
    let client = holder();
    let netns = netns_of(&client);
    live().play(|_| {
        link_client(&client, here);
        here(
            "nft 'table inet f { chain forward { type filter hook forward priority 0; \
             tcp flags syn limit rate 1/hour burst 1 packets drop; }; }'",
        );
        within(&client, || {
            from_port((CLIENT_V4, 30_204), (FAR_V4, ports::RESETS), ms(3000))
        });
        live().tracer().wait_for_endings_since(&began, netns, 1);
    });
    let line = &lines_of(netns, &began, 1)[0];
    assert_eq!(line["syn"]["sent"], 2, "{line:#}");
    assert_eq!(line["cause"]["code"], "nothing_listening", "{line:#}");
}

/// The node has a route for the client's packets only, by a rule for their source.
fn way_by_source() {
    let line = live().last_line(1, |_| {
        let net = RoutedNet::with(open_server());
        inside(
            &net.node,
            "ip route del 10.78.0.0/24
             ip route add 10.78.0.0/24 dev n1 table 77
             ip rule add from 10.77.0.0/24 lookup 77 priority 100",
        );
        rules(&net.node, DROPS);
        conntrace_tests::give_up((SERVER_V4, OPEN));
        net
    });
    assert_eq!(line["cause"]["code"], "local_firewall", "{line:#}");
}

/// The node sends the client's packets by another device than others, and drops them for both.
fn rule_of_another_way() {
    let line = live().last_line(1, |_| {
        let net = RoutedNet::with(open_server());
        inside(
            &net.node,
            "ip link add n2 type veth peer name n3
             ip addr add 10.80.0.1/24 dev n2
             ip link set n2 up
             ip link set n3 up
             ip route add 10.78.0.0/24 dev n2 table 77
             ip rule add from 10.77.0.0/24 lookup 77 priority 100",
        );
        rules(
            &net.node,
            "table inet f { chain forward { type filter hook forward priority 0; \
             oifname n1 tcp dport 8000 drop comment \"by n1\"; \
             oifname n2 tcp dport 8000 drop comment \"by n2\"; }; }",
        );
        conntrace_tests::give_up((SERVER_V4, OPEN));
        net
    });
    let why = line["cause"]["why"].as_str().unwrap_or_default();
    assert_ne!(line["cause"]["certainty"], "certain", "{line:#}");
    assert!(why.contains("by n2"), "that rule dropped it: {line:#}");
}

/// The node copies packets to an observer, which takes none (`dup to`); the far host is silent.
fn copy_is_dropped() {
    let began = now();
    let (client, observer) = (holder(), holder());
    let netns = netns_of(&client);
    let lacks = live().play(|_| {
        link_client(&client, here);
        here(&format!(
            "ip link add o0 type veth peer name o1 netns {}
             ip addr add 10.79.0.1/24 dev o0
             ip link set o0 up",
            observer.pid()
        ));
        inside(
            &observer,
            "ip addr add 10.79.0.2/24 dev o1; ip link set o1 up",
        );
        let dup = "nft 'table ip d { chain pre { type filter hook prerouting priority -300; \
             iifname n0 dup to 10.79.0.2; }; }' 2>/dev/null";
        let status = std::process::Command::new("sh").args(["-c", dup]).status();
        if !status.unwrap().success() {
            return true;
        }
        within(&client, || from_port((CLIENT_V4, 30_205), SILENT, ms(1300)));
        live().tracer().wait_for_endings_since(&began, netns, 1);
        false
    });
    if lacks.value {
        eprintln!("this kernel copies no packets");
        return;
    }
    let line = &lines_of(netns, &began, 1)[0];
    assert_ne!(line["cause"]["certainty"], "certain", "a copy: {line:#}");
}
