//! Where the firewall of the calling thread's namespace may drop or reject, by
//! `nf_tables`, which iptables uses as well unless it is its legacy variant.

use std::{collections::HashMap, io};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{self, attributes, u16_at};
use crate::{
    diagnose::ask::{FirewallVerdict, RulePlace},
    text,
};

/// `NLM_F_REQUEST | NLM_F_DUMP`.
const FLAGS: u16 = 0x1 | 0x300;
const NEW_CHAIN: u16 = (10 << 8) + 3;
const GET_CHAIN: u16 = (10 << 8) + 4;
const NEW_RULE: u16 = (10 << 8) + 6;
const GET_RULE: u16 = (10 << 8) + 7;
/// `struct nfgenmsg`.
const HEADER_LEN: usize = 4;
/// What is not a flag of an attribute's type (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;
/// `NF_INET_FORWARD`: no packet of this host's own comes by there.
const FORWARD: u32 = 2;

/// Where TCP has its destination port: base (`NFT_PAYLOAD_TRANSPORT_HEADER`), offset
/// and length.
const DESTINATION_PORT: [u32; 3] = [2, 2, 2];

/// How many an answer has: two already say that it could be either.
const PLACES_MAX: usize = 4;
/// Most bytes of a name in a line.
const NAME_JSON_MAX: usize = 96;

/// A chain, by the number of its family, its table and its name.
type Chain = (u8, Vec<u8>, Vec<u8>);

/// The chains that have rules, or a policy, with this verdict, and the first of these
/// in each.
pub(super) fn places(verdict: FirewallVerdict) -> io::Result<Vec<RulePlace>> {
    let mut hooks = HashMap::new();
    let mut found = Vec::new();
    dump(GET_CHAIN, NEW_CHAIN, |family, message| {
        let chain = chain(family, message, 3);
        let hook = nested(message, 4, 1).and_then(number);
        let drops = value(message, 5).and_then(number) == Some(DROP);
        if drops && verdict == FirewallVerdict::Drop && hook != Some(FORWARD) {
            add(&mut found, chain.as_ref().map(|chain| place(chain, None)));
        }
        hooks.extend(chain.zip(hook));
    })?;
    dump(GET_RULE, NEW_RULE, |family, message| {
        let ends = value(message, 4).is_some_and(|expressions| {
            attributes(expressions).any(|(_, expression)| has_verdict(expression, verdict))
        });
        let chain = chain(family, message, 2).filter(|_| ends);
        // Of one that is jumped to it is not known from where.
        let ours = chain.filter(|chain| hooks.get(chain) != Some(&FORWARD));
        add(&mut found, ours.map(|chain| place(&chain, handle(message))));
    })?;
    Ok(found)
}

/// The chains whose rules rewrite the destination of what goes from here to this very
/// port. One that also covers others, such as a range, is not looked for.
pub(super) fn rewrites(port: u16) -> io::Result<Vec<RulePlace>> {
    let mut hooks = HashMap::new();
    dump(GET_CHAIN, NEW_CHAIN, |family, message| {
        let hook = nested(message, 4, 1).and_then(number);
        hooks.extend(chain(family, message, 3).zip(hook));
    })?;
    let mut found = Vec::new();
    dump(GET_RULE, NEW_RULE, |family, message| {
        let wanted = value(message, 4).is_some_and(|rule| rewrites_port(rule, port));
        let chain = chain(family, message, 2).filter(|_| wanted);
        // Of one that is jumped to it is not known from where.
        let ours = chain.filter(|chain| hooks.get(chain).is_none_or(|hook| *hook == OUTPUT));
        add(&mut found, ours.map(|chain| place(&chain, handle(message))));
    })?;
    Ok(found)
}

/// Whether the expressions of a rule compare the destination port with this one, and
/// give the packet another destination.
fn rewrites_port(rule: &[u8], port: u16) -> bool {
    let mut at_port = false;
    let (mut same_port, mut rewrites) = (false, false);
    for (_, expression) in attributes(rule) {
        let name = value(expression, 1).unwrap_or_default();
        let data = value(expression, 2).unwrap_or_default();
        match name.strip_suffix(b"\0").unwrap_or(name) {
            b"payload" => {
                let part = [2, 3, 4].map(|field| value(data, field).and_then(number));
                at_port = part == DESTINATION_PORT.map(Some);
            }
            b"cmp" => {
                let equals = value(data, 2).and_then(number) == Some(0);
                let to = nested(data, 3, 1);
                same_port |= at_port && equals && to == Some(&port.to_be_bytes());
            }
            b"match" => same_port |= matches_port(data, port),
            b"redir" => rewrites = true,
            // NFT_NAT_DNAT.
            b"nat" => rewrites |= value(data, 1).and_then(number) == Some(1),
            b"target" => {
                let target = value(data, 1).unwrap_or_default();
                rewrites |= target == b"REDIRECT\0" || target == b"DNAT\0";
            }
            _ => {}
        }
    }
    same_port && rewrites
}

/// `struct xt_tcp` of iptables: the lowest and highest destination port are its third
/// and fourth number, in the host's order.
fn matches_port(data: &[u8], port: u16) -> bool {
    let info = value(data, 3).filter(|_| value(data, 1) == Some(b"tcp\0"));
    let bounds = [4, 6].map(|at| info.and_then(|info| u16_at(info, at)));
    bounds == [Some(port); 2]
}

fn handle(message: &[u8]) -> Option<u64> {
    let bytes = value(message, 3)?.first_chunk()?;
    Some(u64::from_be_bytes(*bytes))
}

/// Adds the first place of a chain.
fn add(found: &mut Vec<RulePlace>, place: Option<RulePlace>) {
    let chain = |place: &RulePlace| {
        let RulePlace {
            family,
            table,
            chain,
            ..
        } = place.clone();
        (family, table, chain)
    };
    let new = place.filter(|place| !found.iter().any(|known| chain(known) == chain(place)));
    if found.len() < PLACES_MAX {
        found.extend(new);
    }
}

fn dump(ask: u16, told: u16, mut each: impl FnMut(u8, &[u8])) -> io::Result<()> {
    // Of any family.
    let request = netlink::request(ask, FLAGS, &[0; HEADER_LEN])?;
    netlink::ask(NETLINK_NETFILTER, &request, |kind, message| {
        if let (true, Some((header, rest))) = (kind == told, message.split_at_checked(HEADER_LEN)) {
            each(header.first().copied().unwrap_or_default(), rest);
        }
    })
}

fn chain(family: u8, message: &[u8], name: u16) -> Option<Chain> {
    let (table, chain) = (value(message, 1)?, value(message, name)?);
    Some((family, table.to_vec(), chain.to_vec()))
}

fn place((family, table, chain): &Chain, handle: Option<u64>) -> RulePlace {
    let name = |bytes: &[u8]| {
        let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        text::bounded(name, NAME_JSON_MAX)
    };
    RulePlace {
        family: family_name(*family).to_owned(),
        table: name(table),
        chain: name(chain),
        handle,
    }
}

/// `NFPROTO_*`, as `nft` names them.
fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

/// Whether an expression (name and data) ends the packet's way so.
fn has_verdict(expression: &[u8], verdict: FirewallVerdict) -> bool {
    let name = value(expression, 1).unwrap_or_default();
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    match (name, verdict) {
        (b"immediate", FirewallVerdict::Drop) => {
            let data = value(expression, 2).and_then(|data| value(data, 2));
            let code = data.and_then(|data| nested(data, 2, 1));
            code.and_then(number) == Some(DROP)
        }
        (b"reject", FirewallVerdict::Reject) => true,
        // What iptables makes of it.
        (b"target", FirewallVerdict::Reject) => {
            let target = value(expression, 2).and_then(|data| value(data, 1));
            target.is_some_and(|target| target.starts_with(b"REJECT\0"))
        }
        _ => false,
    }
}

fn value(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = attributes(bytes).filter(|(kind, _)| kind & TYPE_MASK == wanted);
    found.next().map(|(_, value)| value)
}

fn nested(bytes: &[u8], outer: u16, inner: u16) -> Option<&[u8]> {
    value(value(bytes, outer)?, inner)
}

/// `nf_tables` has its numbers in network order.
fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn expression(name: &[u8], data: &[u8]) -> Vec<u8> {
        [attribute(1, name), attribute(0x8002, data)].concat()
    }

    /// An immediate verdict of this code.
    fn immediate(code: u32) -> Vec<u8> {
        let verdict = attribute(0x8002, &attribute(1, &code.to_be_bytes()));
        let data = [
            attribute(1, &0_u32.to_be_bytes()),
            attribute(0x8002, &verdict),
        ];
        expression(b"immediate\0", &data.concat())
    }

    #[test]
    fn verdicts() {
        use FirewallVerdict::{Drop, Reject};
        let reject = expression(b"reject\0", &[]);
        let target = expression(b"target\0", &attribute(1, b"REJECT\0"));
        let log = expression(b"target\0", &attribute(1, b"LOG\0"));
        for (expression, drops, rejects) in [
            (immediate(DROP), true, false),
            (immediate(1), false, false),
            (reject, false, true),
            (target, false, true),
            (log, false, false),
            (vec![1, 2, 3], false, false),
        ] {
            assert_eq!(has_verdict(&expression, Drop), drops);
            assert_eq!(has_verdict(&expression, Reject), rejects);
        }
    }

    #[test]
    fn rewritten_ports() {
        let number = |kind, value: u32| attribute(kind, &value.to_be_bytes());
        let element = |expression: Vec<u8>| attribute(0x8001, &expression);
        let load = |offset| {
            let parts = [number(2, 2), number(3, offset), number(4, 2)].concat();
            element(expression(b"payload\0", &parts))
        };
        let compare = |port: u16| {
            let to = attribute(0x8003, &attribute(1, &port.to_be_bytes()));
            element(expression(b"cmp\0", &[number(2, 0), to].concat()))
        };
        let redirect = || element(expression(b"redir\0", &[]));
        let xt = |low: u16, high: u16| {
            let ports = [0, u16::MAX, low, high].map(u16::to_ne_bytes).concat();
            let tcp = [attribute(1, b"tcp\0"), attribute(3, &ports)].concat();
            element(expression(b"match\0", &tcp))
        };
        let dnat = || element(expression(b"target\0", &attribute(1, b"DNAT\0")));
        let source = || element(expression(b"nat\0", &number(1, 0)));
        for (rule, expected) in [
            ([load(2), compare(80), redirect()], true),
            ([xt(80, 80), dnat(), vec![]], true),
            ([load(2), compare(81), redirect()], false),
            ([load(0), compare(80), redirect()], false),
            ([load(2), compare(80), source()], false),
            ([xt(1, 80), dnat(), vec![]], false),
            ([redirect(), vec![], vec![]], false),
        ] {
            assert_eq!(rewrites_port(&rule.concat(), 80), expected, "{rule:?}");
        }
    }

    #[test]
    fn a_chain_is_told_once() {
        let chain = |name: &[u8]| (1, b"t\0".to_vec(), name.to_vec());
        let mut found = Vec::new();
        for name in [b"a\0", b"a\0", b"b\0"] {
            add(&mut found, Some(place(&chain(name), None)));
        }
        let names: Vec<_> = found.iter().map(|place| place.chain.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
