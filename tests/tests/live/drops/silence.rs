//! Destinations that are translated on their way, and never answer: nothing is dropped.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    iter,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Mutex,
    thread,
};

use conntrace_tests::{
    Attempted, CLIENT_V4, Partner, RoutedNet, SERVER_V4, SERVICE_V4, SERVICE_V6, attempt_on,
    give_up, here, in_role_to, inside, netns_of, rules, tcp, wait_out, with_nft,
};
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::{OPEN, SERVICE_PORT, live, open_server};

/// Host that the node has a silent way to, one on the server's network that there is not, and another
/// silent one.
const SILENT: &str = "10.79.0.9";
const ABSENT: &str = "10.78.0.99";

/// Translation, and the cause that names the place to which it leads.
struct Scene {
    name: &'static str,
    node: &'static str,
    own: &'static str,
    to: SocketAddr,
    nat: Option<&'static str>,
    cause: (&'static str, &'static str),
    evidence: fn() -> Value,
    /// Parts of the sentence.
    why: &'static [&'static str],
    connect: fn(SocketAddr) -> Attempted,
}

const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(SERVICE_V4), SERVICE_PORT);

const PLAIN: Scene = Scene {
    name: "",
    node: "",
    own: "",
    to: SERVICE,
    nat: Some("10.79.0.9:8000"),
    cause: ("silent_host", "possible"),
    evidence: || json!({ "addr": SILENT, "translated_to": "10.79.0.9:8000" }),
    why: &[
        "10.96.0.50:80 is translated on its way to 10.79.0.9:8000; ",
        "no traced attempt to 10.96.0.50 got an answer",
    ],
    connect: wait_out,
};

const SCENES: &[Scene] = &[
    Scene {
        name: "silent_node_leads_to_a_silent_host",
        node: "table ip n { chain pre { type nat hook prerouting priority -100; \
               ip daddr 10.96.0.50 tcp dport 80 dnat to 10.79.0.9:8000; }; }",
        ..PLAIN
    },
    Scene {
        name: "silent_node_leads_to_a_silent_host_v6",
        node: "table ip6 n { chain pre { type nat hook prerouting priority -100; \
               ip6 daddr fd96::50 tcp dport 80 dnat to [fd79::9]:8000; }; }",
        to: SocketAddr::new(IpAddr::V6(SERVICE_V6), SERVICE_PORT),
        nat: Some("[fd79::9]:8000"),
        evidence: || json!({ "addr": "fd79::9", "translated_to": "[fd79::9]:8000" }),
        why: &["[fd96::50]:80 is translated on its way to [fd79::9]:8000; "],
        ..PLAIN
    },
    Scene {
        name: "silent_node_masquerades_as_well",
        node: "table ip n { chain pre { type nat hook prerouting priority -100; \
               ip daddr 10.96.0.50 tcp dport 80 dnat to 10.79.0.9:8000; }; \
               chain post { type nat hook postrouting priority 100; masquerade; }; }",
        ..PLAIN
    },
    Scene {
        name: "silent_own_namespace_leads_to_a_silent_host",
        own: "table ip n { chain out { type nat hook output priority -100; \
              ip daddr 10.96.0.50 tcp dport 80 dnat to 10.79.0.9:8000; }; }",
        ..PLAIN
    },
    Scene {
        name: "silent_both_translate",
        own: "table ip n { chain out { type nat hook output priority -100; \
              ip daddr 10.96.0.50 tcp dport 80 dnat to 10.96.0.51:81; }; \
              chain post { type nat hook postrouting priority 100; masquerade random; }; }",
        node: "table ip n { chain pre { type nat hook prerouting priority -100; \
               ip daddr 10.96.0.51 tcp dport 81 dnat to 10.79.0.9:8000; }; }",
        ..PLAIN
    },
    Scene {
        name: "silent_node_leads_to_nobody",
        node: "table ip n { chain pre { type nat hook prerouting priority -100; \
               ip daddr 10.96.0.50 tcp dport 80 dnat to 10.78.0.99:8000; }; }",
        nat: Some("10.78.0.99:8000"),
        cause: ("host_down", "likely"),
        evidence: || json!({ "addr": ABSENT, "device": "n1", "translated_to": "10.78.0.99:8000" }),
        why: &[
            "10.96.0.50:80 is translated on its way to 10.78.0.99:8000; ",
            "10.78.0.99 should be on the network of n1 and does not answer ARP",
        ],
        connect: give_up,
        ..PLAIN
    },
    Scene {
        name: "silent_tracked_and_not_translated",
        node: "table ip n { chain pre { type nat hook prerouting priority -100; \
               ip daddr 10.96.0.50 tcp dport 81 dnat to 10.79.0.9:8000; }; }",
        own: "table ip n { chain out { type nat hook output priority -100; \
              ip daddr 10.96.0.50 tcp dport 81 dnat to 10.79.0.9:8000; }; }",
        to: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 79, 0, 9)), 8000),
        nat: None,
        evidence: || json!({ "addr": SILENT }),
        why: &[
            "10.79.0.9 is off, filtered or a wrong address: no traced attempt got an answer from it",
        ],
        ..PLAIN
    },
];

pub(super) fn tests() -> Vec<Trial> {
    let scenes = SCENES.iter();
    let mut tests: Vec<_> = scenes
        .map(|scene| with_nft(scene.name, || play(scene)))
        .collect();
    tests.push(with_nft(
        "silent_each_has_its_own_translation",
        each_its_own,
    ));
    tests.push(with_nft("silent_accept_queue_of_a_service", full_queue));
    tests
}

/// The node leads to a server whose accept queue is full. Nothing shows that but its own counters.
fn full_queue() {
    let server = Partner::start(in_role_to("serve_nobody", (SERVER_V4, OPEN).into()));
    let netns = netns_of(&server);
    let server = Mutex::new(Some(server));
    let evidence = json!({ "netns": netns, "backlog": 0, "waiting": 1, "other_listeners": false });
    let cause = ("accept_queue_full", super::CERTAIN);
    let line = live().expect_cause(2, cause, &evidence, |_| {
        let net = RoutedNet::with(server.lock().unwrap().take().unwrap());
        rules(
            &net.node,
            "table ip n { chain pre { type nat hook prerouting priority -100; \
             ip daddr 10.96.0.50 tcp dport 80 dnat to 10.78.0.2:8000; }; }",
        );
        let first = tcp(SERVICE);
        assert_eq!(attempt_on(&first, SERVICE).errno, 0);
        assert_ne!(give_up(SERVICE).errno, 0);
        (net, first)
    });
    let nat = endpoint((SERVER_V4, OPEN).into());
    assert_eq!(line["remote"]["nat"], nat, "{line:#}");
    let why = line["cause"]["why"].as_str().unwrap();
    assert!(
        why.starts_with("10.96.0.50:80 is translated on its way to 10.78.0.2:8000; "),
        "{why}"
    );
    println!("{why}");
}

/// Gives the node a way on which packets vanish without a drop that is reported: `ifb` takes only what is
/// redirected to it.
fn silent_way(net: &RoutedNet) {
    inside(
        &net.node,
        "ip link add d0 type ifb
         ip addr add 10.79.0.1/24 dev d0
         ip -6 addr add fd79::1/64 dev d0 nodad
         ip link set d0 up",
    );
    here("ip route add 10.79.0.0/24 via 10.77.0.1");
}

fn play(scene: &'static Scene) {
    let evidence = (scene.evidence)();
    let line = live().expect_cause(1, scene.cause, &evidence, |_| {
        let net = RoutedNet::with(open_server());
        silent_way(&net);
        rules(&net.node, scene.node);
        if !scene.own.is_empty() {
            here(&format!("nft '{}'", scene.own));
        }
        assert_ne!((scene.connect)(scene.to).errno, 0);
        net
    });
    let nat = scene.nat.map(|nat| endpoint(nat.parse().unwrap()));
    assert_eq!(line["remote"]["nat"], nat.unwrap_or_default(), "{line:#}");
    let why = line["cause"]["why"].as_str().unwrap();
    for part in scene.why {
        assert!(why.contains(part), "{line:#}");
    }
    println!("{}: {why}", scene.name);
}

fn endpoint(at: SocketAddr) -> Value {
    json!({ "addr": at.ip(), "port": at.port() })
}

/// Equal attempts at the same moment, of which each is led to another of four hosts.
fn each_its_own() {
    const ATTEMPTS: usize = 12;
    let began = format!("{:.9}", jiff::Timestamp::now());
    let mut expected = Vec::new();
    let played = live().play(|testnet| {
        let net = RoutedNet::with(open_server());
        silent_way(&net);
        rules(
            &net.node,
            "table ip n { chain pre { type nat hook prerouting priority -100; \
             ip daddr 10.96.0.50 tcp dport 80 dnat to numgen inc mod 4 map \
             { 0: 10.79.0.9, 1: 10.79.0.10, 2: 10.79.0.11, 3: 10.79.0.12 }; }; }",
        );
        let netns = || File::open("/proc/thread-self/ns/net").unwrap();
        thread::scope(|scope| {
            for netns in iter::repeat_with(netns).take(ATTEMPTS) {
                scope.spawn(move || {
                    setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                    assert_ne!(wait_out(SERVICE).errno, 0);
                });
            }
        });
        let tracer = live();
        let tracer = tracer.tracer();
        tracer.wait_for_endings_since(&began, testnet.netns, ATTEMPTS);
        expected = tracked(&net);
    });
    let lines = live().endings(&played, ATTEMPTS);
    let mut hosts = BTreeSet::new();
    for line in lines {
        let port = line["local"]["port"].as_u64().unwrap();
        let (_, to) = expected
            .iter()
            .find(|(of, _)| u64::from(*of) == port)
            .unwrap();
        assert_eq!(line["remote"]["nat"]["addr"], *to, "{line:#}");
        let why = line["cause"]["why"].as_str().unwrap();
        assert!(why.contains(&format!("to {to}:80; ")), "{line:#}");
        hosts.insert(to.clone());
    }
    assert_eq!(hosts.len(), 4);
}

/// Ports of the clients that the node translates, and the hosts to which it leads them, as its own
/// table of connections shows.
fn tracked(net: &RoutedNet) -> Vec<(u16, String)> {
    let path = format!("/proc/{}/net/nf_conntrack", net.node.pid());
    let table = fs::read_to_string(path).unwrap();
    let client = CLIENT_V4.to_string();
    let of_line = |line: &str| {
        let values = |key: &str| -> Vec<String> {
            let found = line
                .split_whitespace()
                .filter_map(|word| word.strip_prefix(key));
            found.map(str::to_owned).collect()
        };
        let (from, ports) = (values("src="), values("sport="));
        (from.first() == Some(&client)).then(|| (ports[0].parse().unwrap(), from[1].clone()))
    };
    table.lines().filter_map(of_line).collect()
}
