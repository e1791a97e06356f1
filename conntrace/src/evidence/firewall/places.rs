//! The chains that have rules with a verdict, whatever the packet.

use std::{collections::HashMap, io, ops::ControlFlow};

use super::{
    super::netlink::attributes,
    dump::Dump,
    parse::{nested, number, value},
    ruleset::{CHAIN, Name, RULE, chain, family_name, handle},
};
use crate::{
    diagnose::ask::{FirewallVerdict, RulePlace},
    text,
};

/// `NF_DROP`.
const DROP: u32 = 0;
/// `NF_INET_FORWARD`: no packet of this host's own comes by there.
const FORWARD: u32 = 2;

/// How many an answer has: two already say that it could be either.
const PLACES_MAX: usize = 4;
/// Most bytes of a name in a line.
const NAME_JSON_MAX: usize = 96;

/// The chains that have rules, or a policy, with this verdict, and the first of these
/// in each.
pub(in crate::evidence) fn places(verdict: FirewallVerdict) -> io::Result<Vec<RulePlace>> {
    let mut hooks = HashMap::new();
    let mut found = Vec::new();
    Dump::new().all(CHAIN, 0, &[], |family, message| {
        let chain = chain(family, message, 3);
        let hook = nested(message, 4, 1).and_then(number);
        let drops = value(message, 5).and_then(number) == Some(DROP);
        if drops && verdict == FirewallVerdict::Drop && hook != Some(FORWARD) {
            add(&mut found, chain.as_ref().map(|chain| place(chain, None)));
        }
        hooks.extend(chain.zip(hook));
        ControlFlow::Continue(())
    })?;
    Dump::new().all(RULE, 0, &[], |family, message| {
        let ends = value(message, 4).is_some_and(|expressions| {
            attributes(expressions).any(|(_, expression)| has_verdict(expression, verdict))
        });
        let chain = chain(family, message, 2).filter(|_| ends);
        // Of one that is jumped to it is not known from where.
        let ours = chain.filter(|chain| hooks.get(chain) != Some(&FORWARD));
        add(&mut found, ours.map(|chain| place(&chain, handle(message))));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Adds the first place of a chain.
pub(super) fn add(found: &mut Vec<RulePlace>, place: Option<RulePlace>) {
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

pub(super) fn place((family, table, chain): &Name, handle: Option<u64>) -> RulePlace {
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
