//! Walks over constructed rules and routes.

mod conditions;

use std::net::IpAddr;

use super::{
    message::{NextHop, RouteEntry, RouteKind},
    rules::{Action, Conditions, PolicyRule, RoutedPacket, RuleInterface, RulePorts},
    walk::{WalkEnd, tables, walk},
};
use crate::diagnosis::way::DeadEndKind::{self, Blackhole, Prohibit, Unreachable};

const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;
const ETH: u32 = 2;
const TUN: u32 = 3;

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let (addr, len) = text.split_once('/').unwrap();
    (ip(addr), len.parse().unwrap())
}

fn rule(priority: u32, action: Action, conditions: Conditions) -> PolicyRule {
    PolicyRule {
        priority,
        action,
        conditions,
        suppress_prefix_len: None,
        suppresses_group: false,
    }
}

fn lookup(priority: u32, table: u32) -> PolicyRule {
    rule(priority, Action::Lookup(table), Conditions::default())
}

/// Returns the three default rules of every namespace, merged with others.
fn rules(others: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut rules = others;
    rules.extend([
        lookup(0, LOCAL),
        lookup(32_766, MAIN),
        lookup(32_767, DEFAULT),
    ]);
    rules.sort_by_key(|rule| rule.priority);
    rules
}

fn entry(table: u32, to: &str, metric: u32, kind: RouteKind, device: Option<u32>) -> RouteEntry {
    let hop = |device| NextHop {
        gateway: None,
        device: Some(device),
        is_dead: false,
    };
    RouteEntry {
        table,
        prefix: prefix(to),
        kind,
        metric,
        hops: device.map(hop).into_iter().collect(),
        is_selective: false,
        source: None,
        is_cloned: false,
    }
}

fn by(table: u32, to: &str, device: u32) -> RouteEntry {
    entry(table, to, 0, RouteKind::Unicast, Some(device))
}

fn forbids(table: u32, to: &str, kind: DeadEndKind) -> RouteEntry {
    entry(table, to, 0, RouteKind::Forbids(kind), None)
}

fn packet() -> RoutedPacket {
    RoutedPacket {
        to: ip("203.0.113.5"),
        from: None,
        device: None,
        mark: 0,
        uid: Some(1000),
        port: 443,
    }
}

/// Formats the result: `eth main`, `nothing`, `unreachable by 5250 instead main`.
fn end(rules: &[PolicyRule], entries: &[RouteEntry], packet: &RoutedPacket) -> String {
    let end = match walk(rules, entries, packet) {
        Ok(end) => end,
        Err(error) => return format!("{:?}", error.kind()),
    };
    let of = |entry: &RouteEntry| {
        let device = entry.hops.first().and_then(|hop| hop.device).unwrap_or(0);
        format!("{} by {device}", entry.table)
    };
    match end {
        WalkEnd::Nothing => "nothing".to_owned(),
        WalkEnd::Found(entry) => of(entry),
        WalkEnd::Forbidden(found) => {
            let table = found.entry.map(|entry| format!(" in {}", entry.table));
            let instead = found.instead.map(|it| format!(", instead {}", of(it)));
            format!(
                "{:?} by rule {}{}{}",
                found.kind,
                found.rule.priority,
                table.unwrap_or_default(),
                instead.unwrap_or_default()
            )
        }
    }
}

fn inverted(mut conditions: Conditions) -> Conditions {
    conditions.inverted = true;
    conditions
}

fn mark(value: u32, mask: u32) -> Conditions {
    Conditions {
        mark: (value, mask),
        ..Conditions::default()
    }
}

/// wg-quick: everything but `WireGuard`'s own packets uses its table; main is used without its
/// default route.
#[test]
fn wg_quick() {
    let mut suppressed = lookup(32_764, MAIN);
    suppressed.suppress_prefix_len = Some(0);
    let not_marked = inverted(mark(51_820, u32::MAX));
    let rules = rules(vec![
        suppressed,
        rule(32_765, Action::Lookup(51_820), not_marked),
    ]);
    let main = [by(MAIN, "0.0.0.0/0", ETH), by(MAIN, "203.0.113.0/24", ETH)];
    let tunnel = by(51_820, "0.0.0.0/0", TUN);
    let all = [main[0].clone(), main[1].clone(), tunnel.clone()];
    assert_eq!(end(&rules, &all, &packet()), "254 by 2", "a network nearby");
    let far = [main[0].clone(), tunnel];
    assert_eq!(end(&rules, &far, &packet()), "51820 by 3");
    let own = RoutedPacket {
        mark: 51_820,
        ..packet()
    };
    assert_eq!(end(&rules, &far, &own), "254 by 2", "its own packets");
    let killed = [main[0].clone(), forbids(51_820, "0.0.0.0/0", Unreachable)];
    let expected = "Unreachable by rule 32765 in 51820, instead 254 by 2";
    assert_eq!(end(&rules, &killed, &packet()), expected);
    assert_eq!(end(&rules, &killed, &own), "254 by 2");
}

/// Tailscale: marked packets use main and stop there; all others use table 52.
#[test]
fn tailscale() {
    let marked = || mark(0x80000, 0xff0000);
    let rules = rules(vec![
        rule(5210, Action::Lookup(MAIN), marked()),
        rule(5230, Action::Lookup(DEFAULT), marked()),
        rule(5250, Action::Forbid(Unreachable), marked()),
        lookup(5270, 52),
    ]);
    let main = by(MAIN, "0.0.0.0/0", ETH);
    let tunnel = by(52, "0.0.0.0/0", TUN);
    let marked = RoutedPacket {
        mark: 0x80001,
        ..packet()
    };
    let both = [main.clone(), tunnel.clone()];
    assert_eq!(end(&rules, &both, &packet()), "52 by 3");
    assert_eq!(end(&rules, &both, &marked), "254 by 2");
    let offline = [tunnel];
    let expected = "Unreachable by rule 5250, instead 52 by 3";
    assert_eq!(end(&rules, &offline, &marked), expected);
    let throws = [
        entry(52, "203.0.113.0/24", 0, RouteKind::Throw, None),
        by(52, "0.0.0.0/0", TUN),
        main,
    ];
    assert_eq!(end(&rules, &throws, &packet()), "254 by 2", "throw");
}

/// A bound device: IPv6 ignores routes by other devices, even forbidding ones.
#[test]
fn bound_to_a_device() {
    let bound = |to: &str, device| RoutedPacket {
        to: ip(to),
        device: Some(device),
        ..packet()
    };
    let oif = Conditions {
        oif: Some(RuleInterface {
            name: "tun".to_owned(),
            index: Some(TUN),
        }),
        ..Conditions::default()
    };
    let with_oif = rules(vec![rule(100, Action::Lookup(100), oif)]);
    let v6 = [
        by(100, "::/0", TUN),
        by(MAIN, "::/0", ETH),
        entry(
            MAIN,
            "fd00::/8",
            0,
            RouteKind::Forbids(Unreachable),
            Some(1),
        ),
    ];
    assert_eq!(end(&with_oif, &v6, &bound("fd00::1", TUN)), "100 by 3");
    assert_eq!(end(&with_oif, &v6, &bound("fd00::1", ETH)), "254 by 2");
    assert_eq!(end(&with_oif, &v6, &bound("fd00::1", 9)), "nothing");
    let unbound = RoutedPacket {
        device: None,
        ..bound("fd00::1", ETH)
    };
    let expected = "Unreachable by rule 32766 in 254";
    assert_eq!(end(&with_oif, &v6, &unbound), expected);
    let of_vrf = Conditions {
        is_of_vrf: true,
        ..Conditions::default()
    };
    let of_vrf = rules(vec![rule(1000, Action::Lookup(10), of_vrf)]);
    assert_eq!(end(&of_vrf, &v6, &bound("fd00::1", ETH)), "Unsupported");
}

#[test]
fn one_table() {
    let rules = rules(vec![]);
    let check = |entries: &[RouteEntry], expected| {
        assert_eq!(end(&rules, entries, &packet()), expected);
    };
    let dead = |entry: &RouteEntry| {
        let mut entry = entry.clone();
        entry.hops[0].is_dead = true;
        entry
    };
    let wide = by(MAIN, "0.0.0.0/0", ETH);
    let narrow = forbids(MAIN, "203.0.113.5/32", Blackhole);
    check(&[wide.clone(), narrow], "Blackhole by rule 32766 in 254");
    let middle = forbids(MAIN, "203.0.0.0/16", Prohibit);
    check(
        &[middle.clone(), by(MAIN, "203.0.113.0/24", TUN)],
        "254 by 3",
    );
    check(
        &[middle, dead(&by(MAIN, "203.0.113.0/24", TUN))],
        "Prohibit by rule 32766 in 254",
    );
    // A kill switch after the tunnel's own default route.
    let switch = entry(
        MAIN,
        "0.0.0.0/0",
        4_278_198_272,
        RouteKind::Forbids(Unreachable),
        None,
    );
    check(&[switch.clone(), wide.clone()], "254 by 2");
    check(&[switch, dead(&wide)], "Unreachable by rule 32766 in 254");
    let local = entry(LOCAL, "203.0.113.5/32", 0, RouteKind::Local, Some(1));
    check(&[wide.clone(), local], "255 by 1");
    check(&[], "nothing");
    let selective = RouteEntry {
        is_selective: true,
        ..wide.clone()
    };
    check(&[selective], "Unsupported");
    let unlisted = RouteEntry {
        hops: Vec::new(),
        ..wide
    };
    check(&[unlisted], "254 by 0");
}

/// IPv6 chooses among routes of equal metric by the neighbours' state.
#[test]
fn ties() {
    let rules = rules(vec![]);
    let tie = |to: &str, device| {
        [
            entry(MAIN, to, 9, RouteKind::Forbids(Prohibit), Some(1)),
            entry(MAIN, to, 9, RouteKind::Unicast, Some(device)),
        ]
    };
    let v6 = RoutedPacket {
        to: ip("fd00::1"),
        ..packet()
    };
    let v4 = end(&rules, &tie("203.0.113.0/24", ETH), &packet());
    assert_eq!(v4, "Prohibit by rule 32766 in 254", "the first in the dump");
    assert_eq!(end(&rules, &tie("fd00::/8", ETH), &v6), "Unsupported");
    let bound = RoutedPacket {
        device: Some(ETH),
        ..v6
    };
    assert_eq!(end(&rules, &tie("fd00::/8", ETH), &bound), "254 by 2");
}

#[test]
fn gotos_and_terminal_rules() {
    let any = Conditions::default;
    let goto = |priority, target| rule(priority, Action::Goto(Some(target)), any());
    let forbid = |priority, kind| rule(priority, Action::Forbid(kind), any());
    let main = [by(MAIN, "0.0.0.0/0", ETH), by(7, "0.0.0.0/0", TUN)];
    let check = |others: Vec<PolicyRule>, expected| {
        assert_eq!(end(&rules(others), &main, &packet()), expected);
    };
    check(
        vec![goto(10, 30), forbid(20, Prohibit), lookup(30, 7)],
        "7 by 3",
    );
    let unresolved = vec![goto(10, 25), forbid(20, Prohibit)];
    check(unresolved, "Prohibit by rule 20, instead 254 by 2");
    let back = vec![lookup(5, 8), goto(10, 5)];
    check(back, "254 by 2");
    let nop = rule(10, Action::Nop, any());
    check(vec![nop, lookup(30, 7)], "7 by 3");
    let twice = vec![forbid(10, Blackhole), forbid(20, Prohibit)];
    check(twice, "Blackhole by rule 10");
    check(vec![rule(10, Action::Other, any())], "Unsupported");
    let mut by_group = lookup(10, 7);
    by_group.suppresses_group = true;
    check(vec![by_group], "Unsupported");

    let mut suppressed = lookup(30, 7);
    suppressed.suppress_prefix_len = Some(8);
    let unmet = rule(40, Action::Lookup(9), mark(1, 1));
    let all = rules(vec![goto(10, 30), lookup(20, 8), suppressed, unmet]);
    let expected = [(LOCAL, None), (7, Some(8)), (MAIN, None), (DEFAULT, None)];
    assert_eq!(tables(&all, &packet()).unwrap(), expected);
}

#[test]
fn texts() {
    let wg = rule(
        32_765,
        Action::Lookup(51_820),
        inverted(mark(0xca6c, u32::MAX)),
    );
    assert_eq!(wg.to_string(), "not from all fwmark 0xca6c lookup 51820");
    let switch = rule(5250, Action::Forbid(Unreachable), mark(0x80000, 0xff0000));
    assert_eq!(
        switch.to_string(),
        "from all fwmark 0x80000/0xff0000 unreachable"
    );
}
