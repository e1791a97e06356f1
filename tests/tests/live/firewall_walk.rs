//! Evaluation of a ruleset, compared with the verdict of the live kernel on a SYN.

use std::{
    collections::HashMap,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use conntrace::{
    diagnosis::firewall_facts::{
        Direction, Firewall, FirewallPacket, Match, MatchingRule, PacketEnd,
    },
    host::firewall_ended_by,
};
use conntrace_testnet::{self, FAR_DEVICE, FAR_LOCAL_V4, FAR_LOCAL_V6, FAR_V4, FAR_V6, ports};
use conntrace_tests::{run, with_iptables, with_nft};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use Direction::{Arriving, In, Out};
use Match::{Fully, Possibly};
use PacketEnd::{Drop, RejectByIcmp, RejectByReset, Rewrite};

/// Longest time that a packet and its answer take.
const WAY: Duration = Duration::from_millis(100);

pub(crate) fn main() -> ExitCode {
    run(vec![
        with_nft("addresses_and_ports", addresses_and_ports),
        with_nft("jumps", jumps),
        with_nft("policies", policies),
        with_nft("sets", sets),
        with_nft("maps_of_verdicts", maps_of_verdicts),
        with_nft("connection_tracking", connection_tracking),
        with_nft("unknown_conditions", unknown_conditions),
        with_nft("marks_users_and_interfaces", marks_users_and_interfaces),
        with_nft("answers", answers),
        with_nft("hooks_and_priorities", hooks_and_priorities),
        with_nft("other_endings", other_endings),
        with_nft("loopback", loopback),
        with_nft("types_of_addresses", types_of_addresses),
        with_nft("translation", translation),
        with_nft("rewritten_destinations", rewritten_destinations),
        with_nft("limits", limits),
        with_iptables("iptables", iptables),
        with_iptables("iptables_types_of_addresses", iptables_types_of_addresses),
        with_iptables("iptables_of_smtp", iptables_of_smtp),
        with_iptables("iptables_translation", iptables_translation),
    ])
}

fn syn(port: u16) -> FirewallPacket {
    FirewallPacket {
        direction: Out,
        remote: (FAR_V4, port).into(),
        local: Some(FAR_LOCAL_V4.into()),
        local_port: Some(40_000),
        device: Some(FAR_DEVICE.to_owned()),
        mark: Some(0),
        uid: Some(0),
    }
}

fn syn_ack(port: u16) -> FirewallPacket {
    FirewallPacket {
        direction: In,
        uid: None,
        ..syn(port)
    }
}

fn syn_v6(port: u16) -> FirewallPacket {
    FirewallPacket {
        remote: (FAR_V6, port).into(),
        local: Some(FAR_LOCAL_V6.into()),
        ..syn(port)
    }
}

/// Runs a shell script in the calling thread's namespace.
fn sh(script: &str) {
    let mut sh = Command::new("sh")
        .args(["-e"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    sh.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(sh.wait().unwrap().success(), "{script}");
}

/// Sets a table `inet t` with these chains by `nft`.
fn nft(chains: &str) {
    nft_file(&format!("table inet t {{\n{chains}\n}}"));
}

/// Sets this ruleset by `nft`.
fn nft_file(ruleset: &str) {
    sh(&format!("nft -f - <<'N'\n{ruleset}\nN"));
}

/// Builds an output chain with these rules.
fn output(rules: &str) -> String {
    format!("chain o {{ type filter hook output priority 0\n {rules}\n}}")
}

/// Returns the comment of each rule found, or the chain of a policy, with its match.
fn found(packet: &FirewallPacket, ending: PacketEnd) -> Vec<(String, Match)> {
    let Firewall { found, complete } = firewall_ended_by(packet, ending).unwrap();
    assert!(complete);
    found.into_iter().map(named).collect()
}

fn named(found: MatchingRule) -> (String, Match) {
    let name = match found.handle {
        Some(_) => found.comment.unwrap(),
        None => format!("policy of {}", found.chain),
    };
    (name, found.matches)
}

/// Checks which rules are found for a packet.
fn assert_found(packet: &FirewallPacket, ending: PacketEnd, expected: &[(&str, Match)]) {
    let found = found(packet, ending);
    let found: Vec<_> = found
        .iter()
        .map(|(name, it)| (name.as_str(), *it))
        .collect();
    assert_eq!(found, expected, "{packet:?}");
}

/// Sends a SYN to a port of the far host. Checks that the ruleset drops or rejects it by the first
/// rule found, which matches fully. With `None` the SYN must pass.
fn assert_acts(port: u16, ending: PacketEnd, rule: Option<&str>) {
    let packet = syn(port);
    let expected: Vec<_> = rule.iter().map(|rule| (*rule, Fully)).collect();
    assert_found(&packet, ending, &expected);
    let before = packets_by_handle();
    let is_open = opens(packet.remote);
    let after = packets_by_handle();
    let firewall = firewall_ended_by(&packet, ending).unwrap();
    match firewall.found.first() {
        Some(found) => {
            assert!(!is_open);
            if let Some(handle) = found.handle {
                let rule = (found.table.clone(), handle);
                assert!(after[&rule] > before[&rule], "{found:?}");
            }
        }
        None => assert!(is_open, "nothing found that ends it"),
    }
}

/// Returns true if a connection to the peer is established.
fn opens(remote: SocketAddr) -> bool {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&remote.into());
    thread::sleep(WAY);
    socket.peer_addr().is_ok()
}

/// Reads the packet counter of every rule that has one, by table and handle.
fn packets_by_handle() -> HashMap<(String, u64), u64> {
    let json = Command::new("nft")
        .args(["-a", "-j", "list", "ruleset"])
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let items = json["nftables"].as_array().unwrap();
    let rules = items.iter().filter_map(|item| item.get("rule"));
    rules
        .filter_map(|rule| {
            let mut parts = rule["expr"].as_array().unwrap().iter();
            let packets = parts.find_map(|part| part["counter"]["packets"].as_u64())?;
            let table = rule["table"].as_str().unwrap().to_owned();
            Some(((table, rule["handle"].as_u64().unwrap()), packets))
        })
        .collect()
}

/// Returns the sum of all packet counters.
fn packets() -> u64 {
    packets_by_handle().values().sum()
}

fn play(test: impl FnOnce() + Send) {
    conntrace_testnet::run("firewall", |_| test()).unwrap();
}

fn addresses_and_ports() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 counter drop comment "port"
            ip daddr 192.0.2.2 tcp dport 82 counter drop comment "address"
            ip daddr 192.0.3.0/24 counter drop comment "other network"
            ip daddr 192.0.2.0/28 tcp dport 83 counter drop comment "network"
            tcp dport 84-85 counter drop comment "range"
            tcp dport != 80-87 counter drop comment "not in range"
            tcp dport > 86 counter drop comment "more"
            tcp sport 40000 tcp dport 86 counter drop comment "source port"
            ip6 daddr 2001:db8:0:1::/64 tcp dport 443 counter drop comment "v6"
            udp dport 80 counter drop comment "udp"
            tcp flags & (fin|syn|rst|ack) == ack counter drop comment "not a syn"
            "#,
        ));
        assert_acts(81, Drop, Some("port"));
        assert_acts(82, Drop, Some("address"));
        assert_acts(83, Drop, Some("network"));
        assert_acts(85, Drop, Some("range"));
        assert_acts(443, Drop, Some("not in range"));
        assert_acts(87, Drop, Some("more"));
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn(86), Drop, &[("source port", Fully)]);
        let unknown = FirewallPacket {
            local_port: None,
            ..syn(86)
        };
        assert_found(&unknown, Drop, &[("source port", Possibly)]);
        assert_found(&syn_v6(81), Drop, &[("port", Fully)]);
        assert_found(&syn_ack(81), Drop, &[]);
    });
    play(|| {
        nft(&output(
            r#"ip6 daddr 2001:db8:0:1::/64 tcp dport 443 counter drop comment "v6""#,
        ));
        assert_found(&syn_v6(443), Drop, &[("v6", Fully)]);
        assert_found(&syn(443), Drop, &[]);
    });
}

fn jumps() {
    play(|| {
        nft(r#"
            chain inner { tcp dport 82 counter drop comment "inner"; }
            chain user {
                tcp dport 81 return
                tcp dport 82 jump inner
                tcp dport 81-83 counter drop comment "user"
            }
            chain last { tcp dport 85 counter drop comment "last"; }
            chain never { counter drop comment "never"; }
            chain o {
                type filter hook output priority 0
                tcp dport 81-84 jump user
                tcp dport 84 counter accept
                tcp dport 84 counter drop comment "after accept"
                tcp dport 85 goto last
                tcp dport 9 jump never
            }"#);
        assert_acts(82, Drop, Some("inner"));
        assert_acts(83, Drop, Some("user"));
        assert_acts(85, Drop, Some("last"));
        assert_found(&syn(81), Drop, &[]);
        assert_found(&syn(84), Drop, &[]);
        assert_acts(ports::ACCEPTS, Drop, None);
    });
}

fn policies() {
    play(|| {
        nft(r#"
            chain user { tcp dport 82 return; tcp dport 83 goto other; }
            chain other { tcp dport 1 accept; }
            chain o {
                type filter hook output priority 0; policy drop
                tcp dport 80 counter accept
                jump user
                ip daddr 192.0.2.2 tcp dport 84 counter drop comment "rule"
                limit rate 1/second tcp dport 85 accept
            }"#);
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_acts(81, Drop, Some("policy of o"));
        assert_acts(82, Drop, Some("policy of o"));
        assert_acts(83, Drop, Some("policy of o"));
        assert_acts(84, Drop, Some("rule"));
        assert_found(&syn(85), Drop, &[("policy of o", Possibly)]);
    });
}

fn sets() {
    play(|| {
        nft(&format!(
            r#"
            set some {{ type ipv4_addr; elements = {{ 192.0.2.2, 10.0.0.1 }}; }}
            set networks {{ type ipv4_addr; flags interval; elements = {{ 192.0.2.0/24, 10.0.0.1-10.0.0.7 }}; }}
            set others {{ type ipv4_addr; flags interval; elements = {{ 192.0.0.0/23, 192.0.3.0/24 }}; }}
            set pairs {{ type ipv4_addr . inet_service; elements = {{ 192.0.2.2 . 84, 192.0.2.3 . 85 }}; }}
            set ranges {{ type ipv4_addr . inet_service; flags interval; elements = {{ 192.0.2.0/24 . 85-86 }}; }}
            set times {{ type inet_service; flags timeout; elements = {{ 87 timeout 1h }}; }}
            {}"#,
            output(
                r#"
                ip daddr @others counter drop comment "others"
                tcp dport 81 ip daddr @some counter drop comment "some"
                tcp dport 82 ip daddr @networks counter drop comment "networks"
                tcp dport {1-8, 83, 100} counter drop comment "anonymous"
                ip daddr . tcp dport @pairs counter drop comment "pairs"
                ip daddr . tcp dport @ranges counter drop comment "ranges"
                tcp dport @times counter drop comment "times"
                tcp dport 90 ip daddr != @some counter drop comment "inverted"
                tcp dport 91 ip daddr != @others counter drop comment "inverted"
                "#
            )
        ));
        assert_acts(81, Drop, Some("some"));
        assert_acts(82, Drop, Some("networks"));
        assert_acts(83, Drop, Some("anonymous"));
        assert_acts(8, Drop, Some("anonymous"));
        assert_found(&syn(84), Drop, &[("pairs", Fully)]);
        assert_acts(85, Drop, Some("ranges"));
        assert_acts(87, Drop, Some("times"));
        // The element may have been in the set when the packet was sent.
        assert_found(&syn(90), Drop, &[("times", Possibly)]);
        assert_found(
            &syn(91),
            Drop,
            &[("times", Possibly), ("inverted", Possibly)],
        );
    });
}

fn maps_of_verdicts() {
    play(|| {
        nft(r#"
            map verdicts { type inet_service : verdict; elements = { 81 : drop, 82 : jump user, 83 : accept }; }
            map ranges { type inet_service : verdict; flags interval; elements = { 84-85 : goto user, 100-200 : accept }; }
            map sources { type inet_service : verdict; elements = { 40000 : drop, 40001 : accept }; }
            map marks { type inet_service : mark; elements = { 88 : 7 }; }
            chain user { counter drop comment "user"; }
            chain o {
                type filter hook output priority 0
                tcp dport vmap @verdicts comment "map"
                tcp dport vmap @ranges
                tcp dport 86 tcp sport vmap @sources comment "sources"
                tcp dport 83 counter drop comment "after accept"
                meta mark set tcp dport map @marks
                tcp dport 88 meta mark 7 counter drop comment "map of marks"
            }"#);
        assert_found(&syn(81), Drop, &[("map", Fully)]);
        assert!(!opens(syn(81).remote));
        assert_acts(82, Drop, Some("user"));
        assert_acts(85, Drop, Some("user"));
        assert_found(&syn(83), Drop, &[]);
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn(86), Drop, &[("sources", Fully)]);
        let unknown = FirewallPacket {
            local_port: None,
            ..syn(86)
        };
        assert_found(&unknown, Drop, &[("sources", Possibly)]);
        let marked = FirewallPacket {
            mark: Some(7),
            ..syn(88)
        };
        assert_found(&marked, Drop, &[("map of marks", Possibly)]);
    });
}

fn connection_tracking() {
    play(|| {
        nft(&output(
            r#"
            ct state established,related counter accept
            tcp dport 81 ct state new counter drop comment "new"
            tcp dport 82 ct state != established counter drop comment "not established"
            tcp dport 83 ct state invalid counter drop comment "invalid"
            tcp dport 84 ct state vmap { established : accept, related : accept }
            tcp dport 84 counter drop comment "after map"
            "#,
        ));
        assert_acts(81, Drop, Some("new"));
        assert_acts(82, Drop, Some("not established"));
        assert_found(&syn(83), Drop, &[("invalid", Possibly)]);
        assert_acts(84, Drop, Some("after map"));
    });
    play(|| {
        nft(r#"
            chain raw { type filter hook output priority -300; tcp dport 81 notrack; }
            chain o {
                type filter hook output priority 0
                ct state new counter drop comment "new"
            }"#);
        assert_found(&syn(81), Drop, &[("new", Possibly)]);
        assert_acts(80, Drop, Some("new"));
    });
}

fn unknown_conditions() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 limit rate 1/second counter drop comment "limit"
            tcp dport 82 numgen random mod 2 1 counter drop comment "random"
            tcp dport 83 limit rate over 9/second counter accept
            tcp dport 83 counter drop comment "after limit"
            tcp dport 84 fib daddr . mark type local counter drop comment "fib"
            tcp dport 85 limit rate 1/second counter log prefix "x" comment "log"
            tcp dport 85 counter drop comment "after log"
            meta length 1000-2000 counter drop comment "length"
            "#,
        ));
        assert_found(&syn(81), Drop, &[("limit", Possibly), ("length", Possibly)]);
        assert_found(
            &syn(82),
            Drop,
            &[("random", Possibly), ("length", Possibly)],
        );
        assert_found(&syn(83), Drop, &[("after limit", Possibly)]);
        assert_found(&syn(84), Drop, &[("fib", Possibly), ("length", Possibly)]);
        assert_acts(85, Drop, Some("after log"));
    });
}

fn marks_users_and_interfaces() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 meta mark & 0xf == 5 counter drop comment "mark"
            tcp dport 82 meta skuid 0 counter drop comment "user"
            tcp dport 83 meta skuid 1000-2000 counter drop comment "users"
            tcp dport 84 oifname "far" counter drop comment "device"
            tcp dport 85 oifname != "fa*" counter drop comment "not device"
            tcp dport 86 oif "far" counter drop comment "index"
            tcp dport 87 iifname "lo" counter drop comment "arrives"
            tcp dport 88 meta mark set 5
            tcp dport 88 meta mark 0 counter drop comment "unmarked"
            oif lo counter drop comment "loopback"
            "#,
        ));
        let marked = |mark| FirewallPacket { mark, ..syn(81) };
        assert_found(&marked(Some(0x15)), Drop, &[("mark", Fully)]);
        assert_found(&marked(None), Drop, &[("mark", Possibly)]);
        assert_found(&syn(81), Drop, &[]);
        assert_acts(82, Drop, Some("user"));
        let of = |uid| FirewallPacket { uid, ..syn(83) };
        assert_found(&of(Some(1500)), Drop, &[("users", Fully)]);
        assert_found(&of(Some(2001)), Drop, &[]);
        assert_found(&of(None), Drop, &[("users", Possibly)]);
        assert_acts(84, Drop, Some("device"));
        assert_found(&syn(85), Drop, &[]);
        assert_acts(86, Drop, Some("index"));
        assert_found(&syn(87), Drop, &[]);
        assert_found(
            &syn(88),
            Drop,
            &[("unmarked", Possibly), ("loopback", Possibly)],
        );
        let unknown = FirewallPacket {
            device: None,
            ..syn(84)
        };
        assert_found(
            &unknown,
            Drop,
            &[("device", Possibly), ("loopback", Possibly)],
        );
    });
}

fn answers() {
    play(|| {
        nft(r#"
            chain i {
                type filter hook input priority 0; policy drop
                tcp sport 81 counter drop comment "sport"
                tcp dport 81 counter drop comment "dport"
                tcp sport 82 counter reject with tcp reset comment "reject"
                iifname "far" ip saddr 192.0.2.2 tcp flags & (syn|ack) == syn|ack tcp sport 83 counter drop comment "syn-ack"
                ct state established counter accept
            }"#);
        assert_found(&syn_ack(81), Drop, &[("sport", Fully)]);
        assert_found(&syn_ack(82), Drop, &[("reject", Fully)]);
        assert_found(&syn_ack(83), Drop, &[("syn-ack", Fully)]);
        assert_found(&syn_ack(80), Drop, &[("policy of i", Possibly)]);
        assert_found(&syn(81), Drop, &[]);
        assert!(opens(syn(80).remote), "it is let in as established");
    });
    play(|| {
        nft(
            r#"chain i { type filter hook input priority 0; tcp sport 80 counter drop comment "answer"; }"#,
        );
        let before = packets();
        assert!(!opens(syn(80).remote));
        assert!(packets() > before);
        assert_found(&syn_ack(80), Drop, &[("answer", Fully)]);
    });
}

fn hooks_and_priorities() {
    play(|| {
        nft(r#"
            chain late { type filter hook output priority 10; tcp dport 81-82 counter drop comment "late"; }
            chain early { type filter hook output priority -10; tcp dport 81 counter drop comment "early"; tcp dport 82 accept; }
            chain after { type filter hook postrouting priority 0; tcp dport 83 counter drop comment "after"; }
            chain forward { type filter hook forward priority 0; policy drop; }
            chain input { type filter hook input priority 0; tcp dport 84 counter drop comment "input"; }
            chain one { type filter hook output priority 50; tcp dport 85 counter drop comment "one"; }
            chain two { type filter hook output priority 50; tcp dport 85 counter drop comment "two"; }
        "#);
        assert_acts(81, Drop, Some("early"));
        assert_acts(82, Drop, Some("late"));
        assert_acts(83, Drop, Some("after"));
        assert_found(&syn(84), Drop, &[]);
        let mut both = found(&syn(85), Drop);
        both.sort_by(|one, other| one.0.cmp(&other.0));
        let expected = [("one".to_owned(), Possibly), ("two".to_owned(), Possibly)];
        assert_eq!(both, expected);
        assert_acts(ports::ACCEPTS, Drop, None);
    });
    play(|| {
        nft_file("
            table ip6 six { chain o { type filter hook output priority 0; policy drop; }; }
            table ip dormant { flags dormant; chain o { type filter hook output priority 0; policy drop; }; }
            table bridge b { chain o { type filter hook output priority 0; policy drop; }; }");
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn_v6(80), Drop, &[("policy of o", Fully)]);
    });
    play(|| {
        nft_file(
            r#"
            table netdev n {
                chain e { type filter hook egress device far priority 0; tcp dport 81 counter drop comment "egress"; }
                chain i { type filter hook ingress device far priority 0; tcp sport 82 counter drop comment "ingress"; }
            }"#,
        );
        assert_acts(81, Drop, Some("egress"));
        assert_found(&syn_ack(82), Drop, &[("ingress", Fully)]);
        let other = FirewallPacket {
            device: Some("near".to_owned()),
            ..syn(81)
        };
        let firewall = firewall_ended_by(&other, Drop).unwrap();
        assert!(firewall.found.is_empty() && !firewall.complete);
    });
}

fn other_endings() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 counter reject with tcp reset comment "reset"
            tcp dport 82 counter reject comment "icmp"
            tcp dport 83 counter drop comment "drop"
            "#,
        ));
        assert_acts(81, RejectByReset, Some("reset"));
        assert_found(&syn(81), RejectByIcmp, &[]);
        assert_found(&syn(81), Drop, &[("reset", Possibly)]);
        assert_acts(82, RejectByIcmp, Some("icmp"));
        assert_found(&syn(82), RejectByReset, &[]);
        assert_acts(83, Drop, Some("drop"));
        assert_found(&syn(83), RejectByIcmp, &[]);
    });
}

fn loopback() {
    play(|| {
        nft(
            r#"chain i { type filter hook input priority 0; tcp dport 5432 iifname "lo" counter reject comment "own"; }"#,
        );
        let own = |local: Ipv4Addr, device: Option<&str>| FirewallPacket {
            remote: (local, 5432).into(),
            local: Some(local.into()),
            device: device.map(str::to_owned),
            ..syn(5432)
        };
        for packet in [
            own(FAR_LOCAL_V4, Some("lo")),
            own(Ipv4Addr::LOCALHOST, None),
        ] {
            assert_found(&packet, RejectByIcmp, &[("own", Fully)]);
            let before = packets();
            assert!(!opens(packet.remote));
            assert!(packets() > before);
        }
        assert_found(&syn(5432), RejectByIcmp, &[]);
    });
}

fn types_of_addresses() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 80 fib daddr type local counter drop comment "local"
            tcp dport 82 fib daddr type unicast counter drop comment "unicast"
            tcp dport 83 fib daddr type != local counter drop comment "not local"
            "#,
        ));
        assert_acts(80, Drop, None);
        assert_acts(82, Drop, Some("unicast"));
        assert_acts(83, Drop, Some("not local"));
        assert_found(&to_own(80), Drop, &[("local", Fully)]);
        assert_found(&to_own(82), Drop, &[]);
        assert_found(&to_own(83), Drop, &[]);
        assert!(!opens(to_own(80).remote));
    });
}

fn iptables_types_of_addresses() {
    play(|| {
        sh(r#"
            i() { iptables-nft -A OUTPUT -p tcp --dport "$1" -m addrtype $2 --dst-type LOCAL \
                  -m comment --comment "$3" -j DROP; }
            i 80 "" local
            i 82 ! other
        "#);
        assert_acts(80, Drop, None);
        assert_acts(82, Drop, Some("other"));
        assert_found(&to_own(80), Drop, &[("local", Fully)]);
        assert_found(&to_own(82), Drop, &[]);
    });
}

/// Builds a SYN to this host itself.
fn to_own(port: u16) -> FirewallPacket {
    FirewallPacket {
        remote: (FAR_LOCAL_V4, port).into(),
        device: Some("lo".to_owned()),
        ..syn(port)
    }
}

fn rewritten_destinations() {
    play(|| {
        nft(r#"
            chain n {
                type nat hook output priority 0
                tcp dport 8000-9000 counter redirect to :9999 comment "range"
                ip daddr 192.0.2.77 dnat ip to 192.0.2.2 comment "address"
                tcp dport 81 limit rate 1/second redirect to :1 comment "limit"
                tcp dport 82 counter accept
                meta l4proto tcp ip daddr != 192.0.2.0/24 dnat ip to tcp dport map { 443 : 192.0.2.2 } comment "map"
            }
            chain p { type nat hook prerouting priority 0; tcp dport 80 redirect to :8080 comment "arrival"; }
            chain f { type filter hook output priority 10; tcp dport 83 drop comment "drop"; }
        "#);
        let to = |remote: Ipv4Addr, port: u16| FirewallPacket {
            remote: (remote, port).into(),
            ..syn(port)
        };
        assert_found(&syn(8080), Rewrite, &[("range", Fully)]);
        assert_found(&syn(79), Rewrite, &[]);
        assert_found(&syn(83), Rewrite, &[]);
        assert_found(&syn(82), Rewrite, &[]);
        // An earlier rule may have rewritten the destination, so it is unknown.
        let may = [("limit", Possibly), ("map", Possibly)];
        assert_found(&syn(81), Rewrite, &may);
        let other = Ipv4Addr::new(192, 0, 2, 77);
        assert_found(&to(other, 80), Rewrite, &[("address", Fully)]);
        let outside = Ipv4Addr::new(203, 0, 113, 1);
        assert_found(&to(outside, 443), Rewrite, &[("map", Fully)]);
        // The rule applies to arriving packets, not to those that leave.
        let arriving = FirewallPacket {
            direction: Arriving,
            device: None,
            ..syn(80)
        };
        assert_found(&arriving, Rewrite, &[("arrival", Fully)]);
        assert_found(&syn(80), Rewrite, &[]);
        let before = packets();
        assert!(!opens((FAR_V4, 8080).into()));
        assert!(packets() > before);
    });
}

fn translation() {
    play(|| {
        nft(r#"
            chain n { type nat hook output priority 0; tcp dport 81 dnat ip to 192.0.2.3:80; }
            chain p { type nat hook postrouting priority 0; policy accept; ip saddr 10.0.0.0/8 masquerade; }
            chain o { type filter hook output priority -200; tcp dport 81 ip daddr 192.0.2.9 drop comment "other"; }
            chain f {
                type filter hook output priority 10
                tcp dport 80 counter drop comment "translated"
                tcp dport 82 counter drop comment "plain"
            }
            chain i { type filter hook input priority 0; tcp sport 82 counter drop comment "answer"; }
        "#);
        let firewall = firewall_ended_by(&syn(81), Drop).unwrap();
        assert!(!firewall.complete, "it may go to this host itself");
        let found: Vec<_> = firewall.found.into_iter().map(named).collect();
        let of = |name: &str| (name.to_owned(), Possibly);
        assert_eq!(found, [of("translated"), of("plain")]);
        assert!(!opens(syn(81).remote), "it is dropped as translated");
        assert_found(&syn(82), Drop, &[("plain", Fully)]);
        assert_found(&syn_ack(82), Drop, &[("answer", Fully)]);
        let translated = found_of(&syn_ack(81));
        assert_eq!(translated, [of("answer")]);
    });
}

/// Returns the rules found, even if the answer is incomplete.
fn found_of(packet: &FirewallPacket) -> Vec<(String, Match)> {
    let firewall = firewall_ended_by(packet, Drop).unwrap();
    firewall.found.into_iter().map(named).collect()
}

/// A ruleset that exceeds the limits is not evaluated to its end, and the result says so.
fn limits() {
    let walk = |rules: usize| {
        let mut all = String::new();
        for rule in 0..rules {
            let [high, low] = [rule / 200, rule % 200];
            all += &format!("ip daddr 10.0.{high}.{low} tcp dport 80 drop\n");
        }
        nft(&output(&format!("{all}\n drop comment \"last\"")));
        let start = Instant::now();
        let firewall = firewall_ended_by(&syn(80), Drop).unwrap();
        eprintln!("{rules} rules: {:?}", start.elapsed());
        firewall
    };
    play(|| {
        let firewall = walk(10_000);
        assert!(firewall.complete);
        assert_eq!(named(firewall.found[0].clone()), ("last".to_owned(), Fully));
    });
    play(|| {
        let firewall = walk(30_000);
        assert!(!firewall.complete && firewall.found.is_empty());
    });
    play(|| {
        let jumps = |of: usize| format!("chain c{of} {{ jump c{}; }}", of + 1);
        let chains: Vec<_> = (0..15).rev().map(jumps).collect();
        nft(&format!(
            "chain c15 {{ drop comment \"deep\"; }}\n{}\n{}",
            chains.join("\n"),
            output("jump c1"),
        ));
        assert_found(&syn(80), Drop, &[("deep", Fully)]);
    });
}

fn iptables() {
    play(|| {
        sh(r#"
            c() { echo "-m comment --comment $1"; }
            i() { iptables-nft -A OUTPUT -p tcp "$@"; }
            i --dport 81 -m conntrack --ctstate NEW $(c new) -j DROP
            i --dport 82 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            i --dport 82 -m owner --uid-owner 0 $(c owner) -j DROP
            i --dport 83 -m mark --mark 1/7 $(c mark) -j DROP
            i -m multiport ! --dports 80:87,90 $(c multiport) -j DROP
            i --syn --dport 84 ! -o lo+ -d 192.0.2.0/25 $(c syn) -j DROP
            i --dport 85 -m limit --limit 1/s $(c limit) -j DROP
            i --dport 86 -j LOG
            i --dport 86 -m statistic --mode random --probability 0.5 $(c random) -j DROP
            i --dport 87 -m state --state INVALID $(c invalid) -j DROP
            ip6tables-nft -A OUTPUT -p tcp --dport 81 $(c six) -j REJECT --reject-with tcp-reset
            ip6tables-nft -A OUTPUT -p tcp --dport 82 $(c six) -j REJECT
        "#);
        assert_found(&syn(81), Drop, &[("new", Fully)]);
        assert_acts(82, Drop, Some("owner"));
        let marked = FirewallPacket {
            mark: Some(9),
            ..syn(83)
        };
        assert_found(&marked, Drop, &[("mark", Fully)]);
        assert_found(&syn(83), Drop, &[]);
        assert_acts(443, Drop, Some("multiport"));
        assert_found(&syn(90), Drop, &[]);
        assert_acts(84, Drop, Some("syn"));
        assert_found(&syn(85), Drop, &[("limit", Possibly)]);
        assert_found(&syn(86), Drop, &[("random", Possibly)]);
        assert_found(&syn(87), Drop, &[("invalid", Possibly)]);
        assert_found(&syn_v6(81), RejectByReset, &[("six", Fully)]);
        assert_found(&syn_v6(82), RejectByIcmp, &[("six", Fully)]);
        assert_found(&syn_v6(81), RejectByIcmp, &[]);
        assert_acts(ports::ACCEPTS, Drop, None);
    });
}

/// A chain rejects mail by two rules. The result names the rule that acts, not its neighbour.
fn iptables_of_smtp() {
    play(|| {
        sh("
            iptables-nft -N SMTPOUTPUT
            iptables-nft -A OUTPUT -p tcp -m multiport --dports 25,465,587 -j SMTPOUTPUT
            iptables-nft -A SMTPOUTPUT -p tcp --dport 25 -m comment --comment reset -j REJECT --reject-with tcp-reset
            iptables-nft -A SMTPOUTPUT -m comment --comment icmp -j REJECT
        ");
        assert_acts(25, RejectByReset, Some("reset"));
        assert_acts(587, RejectByIcmp, Some("icmp"));
        assert_found(&syn(25), RejectByIcmp, &[]);
        assert_acts(ports::ACCEPTS, RejectByReset, None);
    });
}

/// A ruleset of only NAT has no rule that drops.
fn iptables_translation() {
    play(|| {
        sh("iptables-nft -t nat -A POSTROUTING -o far -p tcp -j MASQUERADE --to-ports 20000-20003");
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn_ack(80), Drop, &[]);
    });
    play(|| {
        sh(
            "iptables-nft -t nat -A OUTPUT -p tcp --dport 81 -j REDIRECT --to-ports 5432
            iptables-nft -A OUTPUT -p tcp --dport 82 -m comment --comment plain -j DROP",
        );
        let firewall = firewall_ended_by(&syn(81), Drop).unwrap();
        assert!(!firewall.complete);
        assert_acts(82, Drop, Some("plain"));
    });
}
