//! Answers about rulesets in the running kernel. These tests need root and `nft`.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::ended_by;
use crate::{
    diagnosis::firewall_facts::{Direction, Firewall, FirewallPacket, Match, PacketEnd},
    host::netlink,
};

/// Number of elements that are not all read.
const MANY: u32 = 10_000;

fn on<T: Send>(ruleset: &str, act: impl FnOnce() -> T + Send) -> T {
    let run = conntrace_testnet::run("ruleset", |_| {
        let mut nft = Command::new("nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = nft.stdin.take().unwrap();
        input.write_all(ruleset.as_bytes()).unwrap();
        drop(input);
        assert!(nft.wait().unwrap().success());
        act()
    });
    run.expect("this test needs root")
}

fn syn(addr: impl Into<IpAddr>, port: u16) -> FirewallPacket {
    FirewallPacket {
        direction: Direction::Out,
        remote: (addr.into(), port).into(),
        local: None,
        local_port: None,
        device: Some("eth9".to_owned()),
        leaves_by: None,
        asked: None,
        mark: None,
        uid: None,
    }
}

/// Returns the comments of the rules that may have dropped a SYN, each with its certainty.
fn dropped(addr: impl Into<IpAddr>, port: u16) -> Vec<(String, Match)> {
    let Firewall { found, complete } = ended_by(&syn(addr, port), PacketEnd::Drop).unwrap();
    assert!(complete);
    let found = found.into_iter();
    found
        .map(|rule| (rule.comment.unwrap_or_default(), rule.matches))
        .collect()
}

fn fully(comment: &str) -> Vec<(String, Match)> {
    vec![(comment.to_owned(), Match::Fully)]
}

/// Every other address, from 10.0.0.0 on.
fn addr(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + 2 * number)
}

fn list(element: impl Fn(u32) -> String) -> String {
    let all: Vec<_> = (0..MANY).map(element).collect();
    all.join(", ")
}

#[test]
fn one_address_of_a_large_set() {
    let ruleset = format!(
        "table ip t {{
            set plain {{ type ipv4_addr; elements = {{ {} }} }}
            set ranges {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
            set pairs {{ type ipv4_addr . inet_service; elements = {{ {} }} }}
            set both {{ type ipv4_addr . inet_service; flags interval; elements = {{ {} }} }}
            map verdicts {{ type ipv4_addr : verdict; elements = {{ {} }} }}
            chain away {{ drop comment \"away\"; }}
            chain out {{ type filter hook output priority 0;
                tcp dport 81 ip daddr @plain drop comment \"plain\"
                tcp dport 82 ip daddr @ranges drop comment \"ranges\"
                tcp dport 83 ip daddr . tcp dport @pairs drop comment \"pairs\"
                tcp dport 84 ip daddr . tcp dport @both drop comment \"both\"
                tcp dport 85 ip daddr vmap @verdicts
                tcp dport 86 ip daddr != @plain drop comment \"others\"
            }}
        }}",
        list(|number| addr(number).to_string()),
        list(|number| format!("{}-{}", addr(4 * number), addr(4 * number + 1))),
        list(|number| format!("{} . 83", addr(number))),
        list(|number| format!("{}-{} . 80-90", addr(4 * number), addr(4 * number + 1))),
        list(|number| format!("{} : jump away", addr(number))),
    );
    on(&ruleset, || {
        let no_such = Ipv4Addr::new(192, 0, 2, 1);
        for number in [0, 1, 5000, MANY - 1] {
            let (within, beside) = (
                addr(number),
                Ipv4Addr::from_bits(addr(number).to_bits() + 1),
            );
            for (port, comment) in [(81, "plain"), (83, "pairs"), (85, "away")] {
                assert_eq!(dropped(within, port), fully(comment), "{within} {port}");
                assert_eq!(dropped(beside, port), [], "{beside} {port}");
            }
            assert_eq!(dropped(within, 86), []);
            assert_eq!(dropped(beside, 86), fully("others"));
            let first = addr(4 * number).to_bits();
            for (port, comment) in [(82, "ranges"), (84, "both")] {
                for at in 0..=2 {
                    let within = Ipv4Addr::from_bits(first + at);
                    assert_eq!(dropped(within, port), fully(comment), "{within} {port}");
                }
                let behind = Ipv4Addr::from_bits(first + 3);
                assert_eq!(dropped(behind, port), [], "{behind} {port}");
            }
        }
        for port in 81..=85 {
            assert_eq!(dropped(no_such, port), [], "{port}");
        }
    });
}

/// A SYN that arrives and is delivered. `is_tracked`: connection tracking has an entry for it.
fn delivered(port: u16, is_tracked: bool) -> FirewallPacket {
    let packet = syn([192, 0, 2, 1], port);
    FirewallPacket {
        direction: Direction::Delivered,
        asked: is_tracked.then_some(packet.remote),
        ..packet
    }
}

fn dropped_of(packet: &FirewallPacket) -> Vec<(String, Match)> {
    let Firewall { found, complete } = ended_by(packet, PacketEnd::Drop).unwrap();
    assert!(complete);
    let found = found.into_iter();
    found
        .map(|rule| (rule.comment.unwrap_or_default(), rule.matches))
        .collect()
}

/// A packet with an entry of connection tracking is not INVALID, in `nft` and in iptables.
#[test]
fn a_tracked_packet_is_not_invalid() {
    let nft = "table ip t { chain in { type filter hook input priority 0;
        ct state invalid drop comment \"invalid\"
        tcp dport 81 drop comment \"port\"
        }
    }";
    let possibly = |comment: &str| (comment.to_owned(), Match::Possibly);
    on(nft, || {
        assert_eq!(dropped_of(&delivered(81, true)), fully("port"));
        let unknown = dropped_of(&delivered(81, false));
        assert_eq!(unknown, [possibly("invalid"), possibly("port")]);
        let rules = [
            "-F INPUT",
            "-A INPUT -m conntrack --ctstate INVALID -m comment --comment invalid -j DROP",
            "-A INPUT -p tcp --dport 82 -m comment --comment port -j DROP",
        ];
        assert!(
            Command::new("nft")
                .args(["flush", "ruleset"])
                .status()
                .unwrap()
                .success()
        );
        for rule in rules {
            let mut iptables = Command::new("iptables-nft");
            assert!(iptables.args(rule.split(' ')).status().unwrap().success());
        }
        assert_eq!(dropped_of(&delivered(82, true)), fully("port"));
        let unknown = dropped_of(&delivered(82, false));
        assert_eq!(unknown, [possibly("invalid"), possibly("port")]);
    });
}

/// Rules that set bits of the mark decide the later ones that compare them.
#[test]
fn marks_that_rules_set() {
    let ruleset = "table ip t {
        chain accepts { tcp dport 81 meta mark set mark or 0x10000; }
        chain in { type filter hook input priority 0;
            tcp dport 90 meta mark & 0x10000 == 0 drop comment \"before\"
            meta mark set mark and 0xfffeffff
            jump accepts
            meta mark & 0x10000 == 0x10000 accept
            tcp dport 81 drop comment \"never\"
            meta mark & 0x10000 == 0 drop comment \"not accepted\"
        }
    }";
    on(ruleset, || {
        assert_eq!(dropped_of(&delivered(81, true)), []);
        assert_eq!(dropped_of(&delivered(82, true)), fully("not accepted"));
        let unknown = dropped_of(&delivered(90, true));
        assert_eq!(unknown.first().map(|(it, _)| it.as_str()), Some("before"));
        assert!(
            unknown
                .iter()
                .all(|(_, matches)| *matches == Match::Possibly)
        );
        // Nobody knows in which order chains of one priority run.
        let other = "add chain ip t other { type filter hook input priority 0; }
            add rule ip t other meta mark set mark or 0x10000";
        let mut nft = Command::new("nft");
        assert!(nft.arg(other).status().unwrap().success());
        let either = dropped_of(&delivered(82, true));
        assert_eq!(
            either,
            fully("not accepted"),
            "its chain clears the bit itself"
        );
        let before = dropped_of(&delivered(90, true));
        assert!(before.iter().any(|(it, _)| it == "before"));
    });
}

/// The comment of the element that gives a verdict, for a rule that has none.
#[test]
fn comments_of_elements() {
    let ruleset = "table ip t {
        map verdicts { type inet_service : verdict; elements = {
            81 comment \"one\" : drop, 82 comment \"two\" : goto away, 83 comment \"three\" : jump own, 84 : drop } }
        chain away { drop; }
        chain own { drop comment \"own\"; }
        chain in { type filter hook input priority 0; tcp dport vmap @verdicts; }
    }";
    on(ruleset, || {
        for (port, comment) in [(81, "one"), (82, "two"), (83, "own"), (84, "")] {
            assert_eq!(dropped_of(&delivered(port, true)), fully(comment), "{port}");
        }
    });
}

/// The element for all other keys, which kernels have from Linux 5.13 on.
#[test]
fn the_rest_of_a_large_map() {
    let ruleset = format!(
        "table ip t {{
            map verdicts {{ type ipv4_addr : verdict; elements = {{ {}, * : drop }} }}
            chain out {{ type filter hook output priority 0; ip daddr vmap @verdicts; }}
        }}",
        list(|number| format!("{} : accept", addr(number))),
    );
    on(&ruleset, || {
        assert_eq!(dropped(addr(MANY - 1), 80), []);
        assert_eq!(dropped([192, 0, 2, 1], 80), fully(""));
    });
}

/// An element that is gone by now may have been there.
#[test]
fn a_large_set_that_forgets() {
    let ruleset = format!(
        "table ip t {{
            set gone {{ type ipv4_addr; flags timeout; timeout 1h; elements = {{ {} }} }}
            chain out {{ type filter hook output priority 0; ip daddr @gone drop comment \"gone\"; }}
        }}",
        list(|number| addr(number).to_string()),
    );
    on(&ruleset, || {
        assert_eq!(dropped(addr(MANY - 1), 80), fully("gone"));
        let possibly = vec![("gone".to_owned(), Match::Possibly)];
        assert_eq!(dropped([192, 0, 2, 1], 80), possibly);
    });
}

/// Fifty thousand rules cost what the chains that a packet reaches cost, and no more than a limit.
#[test]
fn rules_beyond_the_limit() {
    let mut rules = String::new();
    for number in 0..50_000 {
        writeln!(
            rules,
            "add rule ip t many tcp dport {} accept",
            number % 1000 + 1000
        )
        .unwrap();
    }
    let ruleset = format!(
        "table ip t {{
            chain many {{ }}
            chain out {{ type filter hook output priority 0;
                tcp dport 80 drop comment \"web\"
                tcp dport 81 jump many
            }}
        }}\n{rules}"
    );
    on(&ruleset, || {
        assert_eq!(dropped([192, 0, 2, 1], 80), fully("web"));
        let firewall = ended_by(&syn([192, 0, 2, 1], 81), PacketEnd::Drop).unwrap();
        assert!(!firewall.complete);
        let until = Instant::now() + Duration::from_millis(1);
        let began = Instant::now();
        let firewall = netlink::bounded(until, || {
            ended_by(&syn([192, 0, 2, 1], 81), PacketEnd::Drop)
        });
        assert_eq!(firewall.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "{:?}",
            began.elapsed()
        );
    });
}
