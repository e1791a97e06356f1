//! The walk over rules and tables (`fib_rules_lookup`), on facts that were dumped.

use std::io;

use super::{
    message::{NextHop, RouteEntry, RouteKind, cannot_tell},
    rules::{Action, PolicyRule, RoutedPacket},
};
use crate::diagnosis::way::DeadEndKind;

/// A rule or route that ends the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkEnd<'a> {
    /// No rule gave anything.
    Nothing,
    /// A route that is not of a type that forbids.
    Found(&'a RouteEntry),
    Forbidden(Forbidden<'a>),
}

/// A way that is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forbidden<'a> {
    pub(super) kind: DeadEndKind,
    pub(super) rule: &'a PolicyRule,
    /// `None` if the rule itself forbids.
    pub(super) entry: Option<&'a RouteEntry>,
    /// The route that later rules would give.
    pub(super) instead: Option<&'a RouteEntry>,
}

/// The outcome of a look-up in one table.
enum TableLookup<'a> {
    Nothing,
    Found(&'a RouteEntry),
    Forbids(DeadEndKind, &'a RouteEntry),
}

/// Finds what decides on a packet: `rules` in the order of their evaluation,
/// `entries` all routes that cover its destination, in the order of their dump.
///
/// # Errors
/// `Unsupported` if it depends on what cannot be known.
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

/// Tables that rules for this packet look up, each with the length of the prefixes
/// that are passed over there.
///
/// # Errors
/// `Unsupported` if it depends on what cannot be known.
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

/// Walks on from `rest`, up to an end; also the rules behind it.
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

/// The next rule that matches and is no goto, and those behind it.
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
                // The kernel takes only targets further on.
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

/// `fib_table_lookup`, `fib6_table_lookup`: the longest prefix, of several the lowest
/// metric, of which a next hop is usable.
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
    // Of equal ones the first in the dump.
    candidates.sort_by_key(|entry| (u8::MAX - entry.prefix.1, entry.metric));
    let Some(best) = candidates.first() else {
        return Ok(TableLookup::Nothing);
    };
    let rank = |entry: &RouteEntry| (entry.prefix.1, entry.metric);
    let mut rivals = candidates.iter().filter(|it| rank(it) == rank(best));
    // IPv6 chooses among these by the state of neighbours (`rt6_score_route`).
    if packet.to.is_ipv6() && rivals.any(|rival| rival.kind != best.kind) {
        return Err(cannot_tell("routes of different types with one metric"));
    }
    Ok(match best.kind {
        RouteKind::Forbids(kind) => TableLookup::Forbids(kind, best),
        RouteKind::Throw => TableLookup::Nothing,
        RouteKind::Unicast | RouteKind::Local | RouteKind::Other => TableLookup::Found(best),
    })
}

/// `fib_lookup_good_nhc`, `find_match`.
fn is_candidate(entry: &RouteEntry, packet: &RoutedPacket) -> io::Result<bool> {
    if entry.is_selective {
        return Err(cannot_tell("a route for some types of service or sources"));
    }
    let forbids = match entry.kind {
        RouteKind::Forbids(_) | RouteKind::Throw => true,
        RouteKind::Unicast | RouteKind::Local | RouteKind::Other => false,
    };
    // Of IPv4 those have no interface, of IPv6 loopback.
    if forbids && packet.to.is_ipv4() {
        return Ok(true);
    }
    match packet.device {
        None if entry.hops.is_empty() => Ok(true),
        Some(_) if entry.hops.is_empty() => {
            Err(cannot_tell("a route of which the next hop is not listed"))
        }
        bound => Ok(entry.hops.iter().any(|hop| is_usable(hop, bound))),
    }
}

pub(super) fn is_usable(hop: &NextHop, bound: Option<u32>) -> bool {
    !hop.is_dead && (bound.is_none() || bound == hop.device)
}
