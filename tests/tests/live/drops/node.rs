//! A client, the node that forwards its packets, and a server, each in its own namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use conntrace_tests::{
    NODE_V4, RoutedNet, SERVER_V4, SERVER_V6, SERVICE_V4, SERVICE_V6, attempt, give_up, inside,
    netns_of, rules, server, wait_out, with_nft,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{CERTAIN, CLOSED, OPEN, SERVICE_PORT, live, open_server};

#[derive(Clone, Copy)]
enum Place {
    Node,
    Server,
}

/// Firewall that drops packets, and the cause that it is.
struct Scene {
    name: &'static str,
    node: &'static str,
    server: &'static str,
    /// Address on which the server listens, if not on all of them.
    listens: Option<SocketAddr>,
    to: SocketAddr,
    at: Place,
    code: &'static str,
    evidence: fn() -> Value,
    /// Destination to which the node leads it.
    nat: Option<SocketAddr>,
    /// Part of the sentence.
    why: &'static str,
}

const fn v4(addr: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(addr), port)
}

const fn v6(addr: std::net::Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(addr), port)
}

const PLAIN: Scene = Scene {
    name: "",
    node: "",
    server: "",
    listens: None,
    to: v4(SERVER_V4, OPEN),
    at: Place::Node,
    code: "local_firewall",
    evidence: || json!({ "drop_reason": "NETFILTER_DROP", "packet": "SYN", "all_dropped": true }),
    nat: None,
    why: "",
};

const FORWARD_DROPS: &str = "table inet f { chain forward { type filter hook forward priority 0; \
     tcp dport 8000 drop comment \"no entry\"; }; }";
const LEADS_TO_CLOSED: &str = "table inet n { chain pre { type nat hook prerouting priority -100; \
     ip daddr 10.96.0.50 tcp dport 80 dnat ip to 10.78.0.2:5999; \
     ip6 daddr fd96::50 tcp dport 80 dnat ip6 to [fd78::2]:5999; }; }";
const LEADS_TO_CLOSED_AND_REJECTS: &str = "table inet n { chain pre { type nat hook prerouting priority -100; \
     ip daddr 10.96.0.50 tcp dport 80 dnat ip to 10.78.0.2:5999; \
     ip6 daddr fd96::50 tcp dport 80 dnat ip6 to [fd78::2]:5999; }; \
     chain forward { type filter hook forward priority 0; \
     tcp dport 5999 reject with tcp reset comment \"keep out\"; }; }";
const NO_ENDPOINTS: &str = "table ip filter { chain KUBE-SERVICES { \
     ip daddr 10.96.0.50 tcp dport 80 reject comment \"default/app:http has no endpoints\"; }; \
     chain FORWARD { type filter hook forward priority 0; ct state new jump KUBE-SERVICES; }; }";

const SCENES: &[Scene] = &[
    Scene {
        name: "node_forward_drops",
        node: FORWARD_DROPS,
        why: "\"no entry\"",
        ..PLAIN
    },
    Scene {
        name: "node_forward_drops_v6",
        node: FORWARD_DROPS,
        to: v6(SERVER_V6, OPEN),
        why: "\"no entry\"",
        ..PLAIN
    },
    Scene {
        name: "node_input_drops",
        node: "table inet f { chain input { type filter hook input priority 0; \
               tcp dport 8000 drop comment \"not me\"; }; }",
        to: v4(NODE_V4, OPEN),
        why: "\"not me\"",
        ..PLAIN
    },
    Scene {
        name: "node_input_policy_drops",
        node: "table inet f { chain input { type filter hook input priority 0; policy drop; \
               ct state established,related accept; icmpv6 type {nd-neighbor-solicit, nd-neighbor-advert} accept; }; }",
        to: v4(NODE_V4, OPEN),
        why: "policy",
        ..PLAIN
    },
    Scene {
        name: "server_input_drops",
        server: "table inet f { chain input { type filter hook input priority 0; \
                 tcp dport 8000 drop comment \"closed today\"; }; }",
        at: Place::Server,
        why: "\"closed today\"",
        ..PLAIN
    },
    Scene {
        name: "node_forward_drops_the_answer",
        node: "table inet f { chain forward { type filter hook forward priority 0; \
               tcp sport 8000 drop comment \"no way back\"; }; }",
        evidence: || json!({ "drop_reason": "NETFILTER_DROP", "packet": "SYN-ACK" }),
        why: "\"no way back\"",
        ..PLAIN
    },
    Scene {
        name: "server_output_drops_the_answer",
        server: "table inet f { chain output { type filter hook output priority 0; \
                 tcp sport 8000 drop comment \"silence\"; }; }",
        at: Place::Server,
        evidence: || json!({ "drop_reason": "NETFILTER_DROP", "packet": "SYN-ACK" }),
        why: "\"silence\"",
        ..PLAIN
    },
    Scene {
        name: "nothing_listens_where_the_node_leads",
        node: LEADS_TO_CLOSED,
        to: v4(SERVICE_V4, SERVICE_PORT),
        at: Place::Server,
        code: "nothing_listening",
        evidence: || json!({ "port": CLOSED, "translated_to": "10.78.0.2:5999" }),
        nat: Some(v4(SERVER_V4, CLOSED)),
        why: "10.96.0.50:80 is translated on its way to 10.78.0.2:5999",
        ..PLAIN
    },
    Scene {
        name: "nothing_listens_where_the_node_leads_v6",
        node: LEADS_TO_CLOSED,
        to: v6(SERVICE_V6, SERVICE_PORT),
        at: Place::Server,
        code: "nothing_listening",
        evidence: || json!({ "port": CLOSED, "translated_to": "[fd78::2]:5999" }),
        nat: Some(v6(SERVER_V6, CLOSED)),
        why: "[fd96::50]:80 is translated on its way to [fd78::2]:5999",
        ..PLAIN
    },
    Scene {
        name: "listens_on_loopback_where_the_node_leads",
        node: LEADS_TO_CLOSED,
        listens: Some(v4(Ipv4Addr::LOCALHOST, CLOSED)),
        to: v4(SERVICE_V4, SERVICE_PORT),
        at: Place::Server,
        code: "listening_elsewhere",
        evidence: || json!({ "translated_to": "10.78.0.2:5999" }),
        nat: Some(v4(SERVER_V4, CLOSED)),
        why: "127.0.0.1",
        ..PLAIN
    },
    Scene {
        name: "node_rejects_where_it_leads",
        node: LEADS_TO_CLOSED_AND_REJECTS,
        to: v4(SERVICE_V4, SERVICE_PORT),
        code: "rejected_by_firewall",
        evidence: || json!({ "drop_reason": "NETFILTER_DROP" }),
        nat: Some(v4(SERVER_V4, CLOSED)),
        why: "\"keep out\"",
        ..PLAIN
    },
    Scene {
        name: "node_rejects_where_it_leads_v6",
        node: LEADS_TO_CLOSED_AND_REJECTS,
        to: v6(SERVICE_V6, SERVICE_PORT),
        code: "rejected_by_firewall",
        evidence: || json!({ "drop_reason": "NETFILTER_DROP" }),
        nat: Some(v6(SERVER_V6, CLOSED)),
        why: "\"keep out\"",
        ..PLAIN
    },
    Scene {
        name: "service_without_endpoints",
        node: NO_ENDPOINTS,
        to: v4(SERVICE_V4, SERVICE_PORT),
        code: "service_without_endpoints",
        evidence: || json!({ "service": "default/app:http" }),
        why: "default/app:http",
        ..PLAIN
    },
];

pub(super) fn tests() -> Vec<Trial> {
    let scenes = SCENES.iter();
    scenes
        .map(|scene| with_nft(scene.name, || play(scene)))
        .collect()
}

fn play(scene: &'static Scene) {
    let mut netns = 0;
    let evidence = (scene.evidence)();
    let line = live().expect_cause(1, (scene.code, CERTAIN), &evidence, |_| {
        let net = RoutedNet::with(scene.listens.map_or_else(open_server, server));
        if scene.to.ip() == SERVICE_V4 {
            // The way of a service that is not translated.
            inside(&net.node, "ip route add default via 10.78.0.2");
        }
        rules(&net.node, scene.node);
        rules(&net.server, scene.server);
        netns = netns_of(match scene.at {
            Place::Node => &net.node,
            Place::Server => &net.server,
        });
        // The answer to the first SYN is not told before the attempt has sent a second one.
        let attempted = if scene.name.ends_with("answer") {
            wait_out(scene.to)
        } else if scene.code == "local_firewall" {
            give_up(scene.to)
        } else {
            attempt(scene.to)
        };
        assert_ne!(attempted.errno, 0);
        net
    });
    let cause = &line["cause"];
    assert_eq!(cause["evidence"]["netns"], netns, "{line:#}");
    let why = cause["why"].as_str().unwrap();
    assert!(why.contains(scene.why), "{line:#}");
    let nat = scene
        .nat
        .map(|nat| json!({ "addr": nat.ip(), "port": nat.port() }));
    assert_eq!(line["remote"]["nat"], nat.unwrap_or_default(), "{line:#}");
    println!("{}: {why}", scene.name);
}
