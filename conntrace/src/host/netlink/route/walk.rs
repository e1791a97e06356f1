//! Evaluation of dumped rules and tables, like `fib_rules_lookup`.

use std::io;

use super::{
    message::{NextHop, RouteEntry, RouteKind, cannot_tell},
    rules::{Action, PolicyRule, RoutedPacket},
};
use crate::diagnosis::way::DeadEndKind;

/// Result of a walk over the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkEnd<'a> {
    /// No rule yielded a route.
    Nothing,
    /// Route of a type that does not forbid.
    Found(&'a RouteEntry),
    Forbidden(Forbidden<'a>),
}

/// Rule or route that forbids a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forbidden<'a> {
    pub(super) kind: DeadEndKind,
    pub(super) rule: &'a PolicyRule,
    /// Route that forbids; `None` if the rule itself does.
    pub(super) entry: Option<&'a RouteEntry>,
    /// Route that later rules would yield.
    pub(super) instead: Option<&'a RouteEntry>,
}

/// Outcome of a lookup in one table.
enum TableLookup<'a> {
    Nothing,
    Found(&'a RouteEntry),
    Forbids(DeadEndKind, &'a RouteEntry),
}

/// Finds the rule or route that decides on a packet. `rules` are in order of evaluation; `entries`
/// are all routes that cover the destination, in dump order.
///
/// # Errors
/// `Unsupported` if the result depends on an unknown fact.
pub(super) fn walk<'a>(
    rules: &'a [PolicyRule],
    entries: &'a [RouteEntry],
    packet: &RoutedPacket,
) -> io::Result<WalkEnd<'a>> {
    let (end, rest) = step(rules, rules, entries, packet)?;
    let WalkEnd::Forbidden(forbidden) = end else {
        return Ok(end);
    };
    let (after, _) = step(rules, rest, entries, packet)?;
    let instead = match after {
        WalkEnd::Found(entry) => Some(entry).filter(|entry| entry.kind == RouteKind::Unicast),
        WalkEnd::Nothing | WalkEnd::Forbidden(_) => None,
    };
    Ok(WalkEnd::Forbidden(Forbidden {
        instead,
        ..forbidden
    }))
}

/// Lists the tables that rules for this packet use, each with the length up to which prefixes are
/// ignored.
///
/// # Errors
/// `Unsupported` if the result depends on an unknown fact.
pub(super) fn tables(
    rules: &[PolicyRule],
    packet: &RoutedPacket,
) -> io::Result<Vec<(u32, Option<u8>)>> {
    let mut found = Vec::new();
    let mut rest = rules;
    while let Some((rule, after)) = next(rules, rest, packet)? {
        rest = after;
        if let Action::Lookup(table) = rule.action {
            if rule.suppresses_group {
                return Err(cannot_tell("a rule that suppresses a group of interfaces"));
            }
            found.push((table, rule.suppress_prefix_len));
        }
    }
    Ok(found)
}

/// Walks from `rest` to the next result; also returns the rules after it.
fn step<'a>(
    rules: &'a [PolicyRule],
    mut rest: &'a [PolicyRule],
    entries: &'a [RouteEntry],
    packet: &RoutedPacket,
) -> io::Result<(WalkEnd<'a>, &'a [PolicyRule])> {
    while let Some((rule, after)) = next(rules, rest, packet)? {
        rest = after;
        let (kind, entry) = match rule.action {
            Action::Forbid(kind) => (kind, None),
            Action::Lookup(table) => match look_up(table, entries, packet)? {
                TableLookup::Nothing => continue,
                TableLookup::Forbids(kind, entry) => (kind, Some(entry)),
                TableLookup::Found(_) if rule.suppresses_group => {
                    return Err(cannot_tell("a rule that suppresses a group of interfaces"));
                }
                TableLookup::Found(entry) => {
                    let suppressed = rule.suppress_prefix_len;
                    if suppressed.is_some_and(|len| entry.prefix.1 <= len) {
                        continue;
                    }
                    return Ok((WalkEnd::Found(entry), rest));
                }
            },
            Action::Other => return Err(cannot_tell("a rule of an unknown action")),
            Action::Goto(_) | Action::Nop => continue,
        };
        let forbidden = Forbidden {
            kind,
            rule,
            entry,
            instead: None,
        };
        return Ok((WalkEnd::Forbidden(forbidden), rest));
    }
    Ok((WalkEnd::Nothing, &[]))
}

/// Returns the next matching rule that is not a goto, and the rules after it.
fn next<'a>(
    rules: &'a [PolicyRule],
    mut rest: &'a [PolicyRule],
    packet: &RoutedPacket,
) -> io::Result<Option<(&'a PolicyRule, &'a [PolicyRule])>> {
    while let Some((rule, after)) = rest.split_first() {
        rest = after;
        match rule.matches(packet) {
            None => return Err(cannot_tell("a rule with an undecidable condition")),
            Some(false) => {}
            Some(true) => match rule.action {
                // The kernel accepts only targets with a higher priority value.
                Action::Goto(Some(target)) if target > rule.priority => {
                    let at = rules.iter().position(|rule| rule.priority == target);
                    rest = at.and_then(|at| rules.get(at..)).unwrap_or(rest);
                }
                Action::Goto(_) => {}
                Action::Lookup(_) | Action::Nop | Action::Forbid(_) | Action::Other => {
                    return Ok(Some((rule, rest)));
                }
            },
        }
    }
    Ok(None)
}

/// Looks up like `fib_table_lookup` and `fib6_table_lookup`: the longest prefix, then the lowest
/// metric, among routes with a usable next hop.
fn look_up<'a>(
    table: u32,
    entries: &'a [RouteEntry],
    packet: &RoutedPacket,
) -> io::Result<TableLookup<'a>> {
    let mut candidates = Vec::new();
    for entry in entries.iter().filter(|entry| entry.table == table) {
        if is_candidate(entry, packet)? {
            candidates.push(entry);
        }
    }
    // Equal routes stay in dump order.
    candidates.sort_by_key(|entry| (u8::MAX - entry.prefix.1, entry.metric));
    let Some(best) = candidates.first() else {
        return Ok(TableLookup::Nothing);
    };
    let rank = |entry: &RouteEntry| (entry.prefix.1, entry.metric);
    let mut rivals = candidates.iter().filter(|it| rank(it) == rank(best));
    // IPv6 chooses among these by the neighbours' state (`rt6_score_route`).
    if packet.to.is_ipv6() && rivals.any(|rival| rival.kind != best.kind) {
        return Err(cannot_tell("routes of different types with one metric"));
    }
    Ok(match best.kind {
        RouteKind::Forbids(kind) => TableLookup::Forbids(kind, best),
        RouteKind::Throw => TableLookup::Nothing,
        RouteKind::Unicast | RouteKind::Local | RouteKind::Other => TableLookup::Found(best),
    })
}

/// Checks a route like `fib_lookup_good_nhc` and `find_match`.
fn is_candidate(entry: &RouteEntry, packet: &RoutedPacket) -> io::Result<bool> {
    if entry.is_selective {
        return Err(cannot_tell("a route for some types of service or sources"));
    }
    let forbids = match entry.kind {
        RouteKind::Forbids(_) | RouteKind::Throw => true,
        RouteKind::Unicast | RouteKind::Local | RouteKind::Other => false,
    };
    // Such a route has no interface in IPv4, and loopback in IPv6.
    if forbids && packet.to.is_ipv4() {
        return Ok(true);
    }
    match packet.device {
        None if entry.hops.is_empty() => Ok(true),
        Some(_) if entry.hops.is_empty() => Err(cannot_tell("a route without a listed next hop")),
        bound => Ok(entry.hops.iter().any(|hop| is_usable(hop, bound))),
    }
}

pub(super) fn is_usable(hop: &NextHop, bound: Option<u32>) -> bool {
    !hop.is_dead && (bound.is_none() || bound == hop.device)
}
