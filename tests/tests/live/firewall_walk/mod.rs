//! Evaluation of a ruleset, compared with the verdict of the live kernel on a SYN.

mod conditions;
mod iptables;
mod translation;

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
        with_nft("addresses_and_ports", conditions::addresses_and_ports),
        with_nft("jumps", jumps),
        with_nft("policies", policies),
        with_nft("sets", conditions::sets),
        with_nft("maps_of_verdicts", conditions::maps_of_verdicts),
        with_nft("connection_tracking", conditions::connection_tracking),
        with_nft("unknown_conditions", conditions::unknown_conditions),
        with_nft(
            "marks_users_and_interfaces",
            conditions::marks_users_and_interfaces,
        ),
        with_nft("answers", answers),
        with_nft("hooks_and_priorities", hooks_and_priorities),
        with_nft("other_endings", other_endings),
        with_nft("loopback", loopback),
        with_nft("types_of_addresses", conditions::types_of_addresses),
        with_nft("translation", translation::translation),
        with_nft(
            "rewritten_destinations",
            translation::rewritten_destinations,
        ),
        with_nft("limits", conditions::limits),
        with_iptables("iptables", iptables::iptables),
        with_iptables(
            "iptables_types_of_addresses",
            iptables::iptables_types_of_addresses,
        ),
        with_iptables("iptables_of_smtp", iptables::iptables_of_smtp),
        with_iptables("iptables_translation", iptables::iptables_translation),
    ])
}

fn syn(port: u16) -> FirewallPacket {
    FirewallPacket {
        direction: Out,
        remote: (FAR_V4, port).into(),
        local: Some(FAR_LOCAL_V4.into()),
        local_port: Some(40_000),
        device: Some(FAR_DEVICE.to_owned()),
        leaves_by: None,
        asked: None,
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

/// Builds a SYN to this host itself.
fn to_own(port: u16) -> FirewallPacket {
    FirewallPacket {
        remote: (FAR_LOCAL_V4, port).into(),
        device: Some("lo".to_owned()),
        ..syn(port)
    }
}

/// Returns the rules found, even if the answer is incomplete.
fn found_of(packet: &FirewallPacket) -> Vec<(String, Match)> {
    let firewall = firewall_ended_by(packet, Drop).unwrap();
    firewall.found.into_iter().map(named).collect()
}
