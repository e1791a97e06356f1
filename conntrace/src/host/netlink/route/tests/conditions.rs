//! Tests of a rule's conditions, one by one.

use super::*;

#[test]
fn conditions() {
    let of = |conditions: Conditions| {
        let rules = rules(vec![rule(100, Action::Forbid(Prohibit), conditions)]);
        let entries = [by(MAIN, "0.0.0.0/0", ETH)];
        move |packet: &RoutedPacket| match end(&rules, &entries, packet).as_str() {
            "254 by 2" => Some(false),
            "Prohibit by rule 100, instead 254 by 2" => Some(true),
            "Unsupported" => None,
            other => panic!("{other}"),
        }
    };
    for (name, conditions, packet, expected) in condition_cases() {
        assert_eq!(of(conditions)(&packet), expected, "{name}");
    }
}

/// Conditions and packets with the expected match.
fn condition_cases() -> Vec<(&'static str, Conditions, RoutedPacket, Option<bool>)> {
    let any = Conditions::default;
    let iface = |name: &str, index| {
        Some(RuleInterface {
            name: name.to_owned(),
            index,
        })
    };
    let from = |from: &str| RoutedPacket {
        from: Some(ip(from)),
        ..packet()
    };
    let uid = |uid| RoutedPacket { uid, ..packet() };
    let marked = |mark| RoutedPacket { mark, ..packet() };
    let port = |port| RoutedPacket { port, ..packet() };
    let (yes, no, unknown) = (Some(true), Some(false), None);
    let ports = |first, last, mask| Conditions {
        ports: Some(RulePorts { first, last, mask }),
        ..any()
    };
    let with = |uids, has_unknown| Conditions {
        uids: Some(uids),
        has_unknown,
        ..any()
    };
    #[rustfmt::skip]
    let cases = vec![
        ("none", any(), packet(), yes),
        ("not", inverted(any()), packet(), no),
        ("to", Conditions { to: Some(prefix("203.0.113.0/24")), ..any() }, packet(), yes),
        ("to another", Conditions { to: Some(prefix("203.0.112.0/24")), ..any() }, packet(), no),
        ("from", Conditions { from: Some(prefix("10.0.0.0/8")), ..any() }, from("10.1.1.1"), yes),
        ("from another", Conditions { from: Some(prefix("10.0.0.0/8")), ..any() }, from("11.1.1.1"), no),
        ("from none yet", Conditions { from: Some(prefix("10.0.0.0/8")), ..any() }, packet(), no),
        ("not from, and none yet", inverted(Conditions { from: Some(prefix("10.0.0.0/8")), ..any() }), packet(), yes),
        ("mark", mark(7, u32::MAX), marked(7), yes),
        ("mark and more", mark(7, u32::MAX), marked(0x107), no),
        ("mark by mask", mark(7, 0xff), marked(0x107), yes),
        ("mark 0 by mask", mark(0, 0xff), marked(0x100), yes),
        ("mark 0 by mask, another", mark(0, 0xff), marked(1), no),
        ("uid", with((1000, 1000), false), packet(), yes),
        ("uid below", with((1001, 2000), false), packet(), no),
        ("uid above", with((0, 999), false), packet(), no),
        ("not uid", inverted(with((0, 999), false)), packet(), yes),
        ("uid unknown", with((0, 999), false), uid(None), unknown),
        ("iif lo", Conditions { iif: iface("lo", Some(1)), ..any() }, packet(), yes),
        ("iif eth", Conditions { iif: iface("eth", Some(ETH)), ..any() }, packet(), no),
        ("iif detached", Conditions { iif: iface("gone", None), ..any() }, packet(), no),
        ("oif", Conditions { oif: iface("eth", Some(ETH)), ..any() }, packet(), no),
        ("oif detached", Conditions { oif: iface("gone", None), ..any() }, packet(), no),
        ("tcp", Conditions { protocol: Some(6), ..any() }, packet(), yes),
        ("not udp", inverted(Conditions { protocol: Some(17), ..any() }), packet(), yes),
        ("port", ports(443, 443, 0), packet(), yes),
        ("port and mask", ports(443, 443, u16::MAX), packet(), yes),
        ("ports", ports(400, 442, 0), packet(), no),
        ("port by mask", ports(0x100, 0x100, 0xff00), port(0x1ff), yes),
        ("unknown", Conditions { has_unknown: true, ..any() }, packet(), unknown),
        ("not unknown", inverted(Conditions { has_unknown: true, ..any() }), packet(), unknown),
        ("unknown, and another uid", with((0, 999), true), packet(), no),
        ("of a VRF", Conditions { is_of_vrf: true, ..any() }, packet(), no),
    ];
    cases
}
