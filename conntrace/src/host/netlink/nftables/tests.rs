//! Walks of captured rulesets and of malformed bytes.

use std::{
    collections::HashMap, fmt::Write as _, fs, io, ops::ControlFlow, process::Command, rc::Rc,
};

use proptest::prelude::*;

use super::{
    dump::{ELEMENT, RulesetRequests},
    has_names,
    parse::name_of,
    ruleset::{
        CHAIN, ChainName, ChainRules, RULE, RuleRoom, Ruleset, RulesetParts, SET, TABLE, chain,
    },
    sets::{self, NftSet},
    walk,
};
use crate::diagnosis::firewall_facts::{
    Direction, Firewall, FirewallPacket, Match, PacketEnd, RuleVerdict,
};
use conntrace_testnet;

/// A script that sets a ruleset, and the kernel's dump of it: a line per message with its type,
/// family and attributes.
const SMTP: (&str, &str) = (
    include_str!("fixtures/smtp.sh"),
    include_str!("fixtures/smtp.hex"),
);
const SETS: (&str, &str) = (
    include_str!("fixtures/sets.sh"),
    include_str!("fixtures/sets.hex"),
);

/// Maximum number of set elements kept.
const ROOM: usize = 100;

#[derive(Default)]
struct Captured {
    rules: Ruleset,
    chains: HashMap<ChainName, ChainRules>,
    sets: HashMap<sets::SetName, NftSet>,
}

impl Captured {
    fn add(&mut self, kind: u16, family: u8, message: &[u8]) {
        let _ = self.rules.add(kind, family, message);
        let of_chain = match kind {
            CHAIN => 3,
            _ => 2,
        };
        if matches!(kind, CHAIN | RULE)
            && let Some(name) = chain(family, message, of_chain)
        {
            let rules = self.chains.entry(name).or_default();
            if kind == RULE {
                let _ = rules.add(message, &mut RuleRoom::default());
            }
            return;
        }
        let Some(name) = set_name(family, message) else {
            return;
        };
        if kind == SET {
            let set = NftSet::new(sets::SetSpec::parse(message), ROOM);
            self.sets.insert(name, set);
        } else if kind == ELEMENT
            && let Some(set) = self.sets.get_mut(&name)
        {
            let _ = set.add(message);
        }
    }

    fn parse(dump: &str) -> Self {
        let mut captured = Self::default();
        for line in dump.lines() {
            let [kind, family, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            captured.add(kind.parse().unwrap(), family.parse().unwrap(), &bytes(hex));
        }
        captured.sets.values_mut().for_each(NftSet::finish);
        captured
    }

    fn walk(&mut self, packet: &FirewallPacket, ending: PacketEnd) -> Firewall {
        let chains = std::mem::take(&mut self.chains);
        let chains = chains
            .into_iter()
            .map(|(name, rules)| (name, Rc::new(rules)));
        let mut parts = CapturedParts {
            chains: chains.collect(),
            sets: &self.sets,
        };
        let firewall = walk::ended_by(packet, None, ending, &self.rules, &mut parts);
        let chains = parts.chains.into_iter();
        let chains = chains.map(|(name, rules)| (name, Rc::into_inner(rules).unwrap()));
        self.chains = chains.collect();
        firewall
    }

    /// Returns the handles, comments and matches of the rules found.
    fn found(&mut self, port: u16, ending: PacketEnd) -> Vec<(u64, String, Match)> {
        let firewall = self.walk(&syn(port), ending);
        assert!(firewall.complete);
        let found = firewall.found.into_iter();
        found
            .map(|it| {
                (
                    it.handle.unwrap(),
                    it.comment.unwrap_or_default(),
                    it.matches,
                )
            })
            .collect()
    }
}

struct CapturedParts<'a> {
    chains: HashMap<ChainName, Rc<ChainRules>>,
    sets: &'a HashMap<sets::SetName, NftSet>,
}

impl RulesetParts for CapturedParts<'_> {
    fn rules(&mut self, chain: &ChainName) -> Option<Rc<ChainRules>> {
        self.chains.get(chain).cloned()
    }

    fn set(&mut self, name: &sets::SetName) -> Option<&NftSet> {
        self.sets.get(name)
    }

    fn matching(&mut self, name: &sets::SetName, _key: &[u8]) -> Option<NftSet> {
        self.sets.get(name).cloned()
    }
}

/// Parses the name of a set in a message.
fn set_name(family: u8, message: &[u8]) -> Option<sets::SetName> {
    let (table, name) = (name_of(message, 1)?, name_of(message, 2)?);
    Some((family, table.to_vec(), name.to_vec()))
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn syn(port: u16) -> FirewallPacket {
    FirewallPacket {
        direction: Direction::Out,
        remote: ([192, 0, 2, 2], port).into(),
        local: None,
        local_port: None,
        device: None,
        leaves_by: None,
        asked: None,
        mark: None,
        uid: None,
    }
}

#[test]
fn the_rule_that_acts_is_found_and_not_its_neighbour() {
    let mut smtp = Captured::parse(SMTP.1);
    let (reset, icmp) = (PacketEnd::RejectByReset, PacketEnd::RejectByIcmp);
    let found = |handle, comment: &str| [(handle, comment.to_owned(), Match::Fully)];
    assert_eq!(smtp.found(25, reset), found(4, "to us only"));
    assert_eq!(smtp.found(587, icmp), found(5, ""));
    assert_eq!(smtp.found(25, icmp), []);
    assert_eq!(smtp.found(587, reset), []);
    assert_eq!(smtp.found(80, icmp), []);
    assert_eq!(smtp.found(80, PacketEnd::Drop), []);
    let firewall = smtp.walk(&syn(25), reset);
    let place = &firewall.found[0];
    assert_eq!(
        (
            place.family.as_str(),
            place.table.as_str(),
            place.chain.as_str()
        ),
        ("ip", "filter", "SMTPOUTPUT")
    );
    assert_eq!(place.verdict, RuleVerdict::RejectByReset);
}

#[test]
fn sets_and_maps() {
    let mut sets = Captured::parse(SETS.1);
    let mut comments = |port| {
        let found = sets.found(port, PacketEnd::Drop).into_iter();
        found
            .map(|(_, comment, it)| (comment, it))
            .collect::<Vec<_>>()
    };
    let fully = |comment: &str| [(comment.to_owned(), Match::Fully)];
    assert_eq!(comments(81), fully("networks"));
    assert_eq!(comments(9), fully("ports"));
    assert_eq!(comments(8), []);
    assert_eq!(comments(82), fully("map"));
    assert_eq!(comments(83), fully("user"));
    assert_eq!(comments(84), [("unknown".to_owned(), Match::Possibly)]);
    assert_eq!(comments(443), []);
    // A set that could not be read.
    sets.sets.clear();
    let firewall = sets.walk(&syn(443), PacketEnd::Drop);
    assert_eq!(firewall.found[0].matches, Match::Possibly);
}

#[test]
fn a_ruleset_that_is_cut_proves_nothing() {
    let mut smtp = Captured::parse(SMTP.1);
    smtp.rules.is_cut = true;
    let firewall = smtp.walk(&syn(25), PacketEnd::RejectByReset);
    assert!(!firewall.complete);
    assert_eq!(firewall.found[0].matches, Match::Possibly);
    // A jump to a chain that is missing from the dump.
    let mut smtp = Captured::parse(SMTP.1);
    smtp.chains.retain(|name, _| name.2 != b"SMTPOUTPUT");
    let firewall = smtp.walk(&syn(25), PacketEnd::RejectByReset);
    assert!(firewall.found.is_empty() && !firewall.complete);
}

#[test]
fn legacy_tables() {
    assert!(has_names(Ok(b"filter\n".to_vec())));
    assert!(!has_names(Ok(Vec::new())));
    assert!(!has_names(Err(io::ErrorKind::NotFound.into())));
    assert!(has_names(Err(io::ErrorKind::PermissionDenied.into())));
}

proptest! {
    #[test]
    fn any_bytes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        v6: bool,
        answers: bool,
    ) {
        for (_, dump) in [SMTP, SETS] {
            let mut captured = Captured::default();
            for line in dump.lines() {
                let mut parts = line.split(' ');
                let kind = parts.next().unwrap().parse().unwrap();
                let family = parts.next().unwrap().parse().unwrap();
                let mut message = bytes(parts.next().unwrap());
                for (at, byte) in &changes {
                    let at = at.index(message.len());
                    message[at] = *byte;
                }
                captured.add(kind, family, &message);
            }
            captured.sets.values_mut().for_each(NftSet::finish);
            let mut packet = syn(25);
            if v6 {
                packet.remote = ([1; 8], 25).into();
            }
            if answers {
                packet.direction = Direction::In;
            }
            captured.walk(&packet, PacketEnd::Drop);
        }
    }
}

#[test]
#[ignore = "captures the fixtures anew: needs root, nft and iptables"]
fn capture() {
    for (name, script) in [("smtp", SMTP.0), ("sets", SETS.0)] {
        let dump = conntrace_testnet::run("capture", |_| {
            let status = Command::new("sh").args(["-ec", script]).status().unwrap();
            assert!(status.success());
            dump()
        });
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/host/netlink/nftables/fixtures"
        );
        fs::write(format!("{folder}/{name}.hex"), dump.unwrap()).unwrap();
    }
}

fn dump() -> String {
    let mut lines = String::new();
    let mut line = |kind: u16, family: u8, message: &[u8]| {
        write!(lines, "{kind} {family} ").unwrap();
        for byte in message {
            write!(lines, "{byte:02x}").unwrap();
        }
        lines.push('\n');
    };
    let mut names = Vec::new();
    let mut dump = RulesetRequests::new();
    for kind in [TABLE, CHAIN, RULE, SET] {
        let each = |family, message: &[u8]| {
            line(kind, family, message);
            if kind == SET {
                names.extend(set_name(family, message));
            }
            ControlFlow::Continue(())
        };
        dump.all(kind, 0, &[], each).unwrap();
    }
    for name in names {
        let each = |family, message: &[u8]| {
            line(ELEMENT, family, message);
            ControlFlow::Continue(())
        };
        dump.elements(&name, each).unwrap();
    }
    lines
}
