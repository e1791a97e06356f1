//! Where the firewall of the calling thread's namespace rewrites destinations.

use std::{collections::HashMap, io, ops::ControlFlow};

use super::{
    super::netlink::{attributes, u16_at},
    dump::Dump,
    parse::{nested, number, value},
    ruleset::{CHAIN, Name, RULE, chain, family_name, handle},
};
use crate::{diagnose::ask::RulePlace, text};

/// Most chains that an answer names.
const PLACES_MAX: usize = 4;
/// Most bytes of a name in a line.
const NAME_JSON_MAX: usize = 96;

/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;

/// Where TCP has its destination port: base (`NFT_PAYLOAD_TRANSPORT_HEADER`), offset
/// and length.
const DESTINATION_PORT: [u32; 3] = [2, 2, 2];
/// The chains whose rules rewrite the destination of what goes from here to this very
/// port. One that also covers others, such as a range, is not looked for.
pub(in crate::evidence) fn rewrites(port: u16) -> io::Result<Vec<RulePlace>> {
    let mut hooks = HashMap::new();
    Dump::new().all(CHAIN, 0, &[], |family, message| {
        let hook = nested(message, 4, 1).and_then(number);
        hooks.extend(chain(family, message, 3).zip(hook));
        ControlFlow::Continue(())
    })?;
    let mut found = Vec::new();
    Dump::new().all(RULE, 0, &[], |family, message| {
        let wanted = value(message, 4).is_some_and(|rule| rewrites_port(rule, port));
        let chain = chain(family, message, 2).filter(|_| wanted);
        // Of one that is jumped to it is not known from where.
        let ours = chain.filter(|chain| hooks.get(chain).is_none_or(|hook| *hook == OUTPUT));
        add(&mut found, ours.map(|chain| place(&chain, handle(message))));
        ControlFlow::Continue(())
    })?;
    Ok(found)
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

fn place((family, table, chain): &Name, handle: Option<u64>) -> RulePlace {
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
}
