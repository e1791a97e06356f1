//! Routes, rules, interfaces, addresses and neighbours of the calling thread's namespace, read
//! through rtnetlink.
//!
//! Errors: `Unsupported` if a fact cannot be determined, `QuotaExceeded` if an answer exceeds a
//! limit, `Interrupted` if the tables changed during a dump.

mod addresses;
mod forwarding;
mod links;
mod lookup;
mod message;
mod neighbours;
mod rules;
mod walk;

#[cfg(test)]
mod tests;

use std::{io, net::IpAddr};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

pub(in crate::host) use self::message::{addr, covers, device, typed};
use self::{
    message::{DUMP, ROUTE_LEN, RouteEntry, RouteKind, cannot_tell, family, malformed, too_many},
    rules::{PolicyRule, RoutedPacket},
    walk::{Forbidden, WalkEnd, is_usable},
};
use crate::{
    diagnosis::{
        question::Neighbour,
        way::{
            Covering, DeadEnd, DeadEndKind, Flow, Forwarding, Link, OwnAddresses, Route, RouteOut,
            RuleFacts,
        },
    },
    host::netlink,
};

/// Maximum number of routes read, of all tables of a family; that takes 0.03 s.
const ROUTES_MAX: usize = 65_536;
/// Maximum number of routes in an answer.
const COVERING_MAX: usize = 4;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// Looks up a route in the kernel as connect does. For a socket with `IP_TRANSPARENT` the result
/// holds only if its source is assigned here.
///
/// # Errors
/// See the module. A failed lookup is an answer, not an error.
pub fn route(way: &Flow) -> io::Result<Route> {
    Ok(lookup::resolve(way)?.route)
}

/// Finds the rule or route that forbids a flow. `None` if the flow is allowed, or fails for lack of
/// a route, by its source or by its interface's state.
///
/// # Errors
/// See the module. `Unsupported` also if the kernel decides differently.
pub fn dead_end(way: &Flow) -> io::Result<Option<DeadEnd>> {
    let resolved = lookup::resolve(way)?;
    let Route::None(errno) = resolved.route else {
        return Ok(None);
    };
    let tables = Tables::dump(way, resolved.from)?;
    // `ip_route_output_key_hash_rcu` applies no rule to a source that is not assigned here, and
    // takes any destination of a bound device as on-link.
    let is_v4 = tables.packet.to.is_ipv4();
    if is_v4 && (tables.packet.device.is_some() || is_foreign(resolved.from)?) {
        return Ok(None);
    }
    match walk::walk(&tables.rules, &tables.entries, &tables.packet)? {
        WalkEnd::Forbidden(forbidden) if errno_of(&forbidden) as i32 == errno => {
            dead_end_of(&forbidden, tables.packet.device).map(Some)
        }
        WalkEnd::Nothing if errno == Errno::ENETUNREACH as i32 => Ok(None),
        // Broadcast and the like are not valid destinations for TCP.
        WalkEnd::Found(entry) if entry.kind == RouteKind::Other => Ok(None),
        WalkEnd::Forbidden(_) | WalkEnd::Nothing | WalkEnd::Found(_) => Err(cannot_tell(
            "rules and tables contradict the kernel's answer",
        )),
    }
}

/// Finds other routes that cover a destination, at most 4, the most specific first. Searches tables
/// that rules for this packet use; routes by the interface and gateway of `used` and default routes
/// are left out.
///
/// # Errors
/// See the module.
/// See the module.
pub fn covering(way: &Flow, used: &RouteOut) -> io::Result<Vec<Covering>> {
    let resolved = lookup::resolve(way)?;
    let dumped = Tables::dump(way, resolved.from)?;
    let tables = walk::tables(&dumped.rules, &dumped.packet)?;
    let is_looked_up = |entry: &RouteEntry| {
        let mut those = tables.iter().filter(|(table, _)| *table == entry.table);
        those.any(|(_, suppressed)| suppressed.is_none_or(|len| entry.prefix.1 > len))
    };
    let is_used = |entry: &RouteEntry| {
        let index = Some(used.device.index);
        let mut hops = entry.hops.iter();
        hops.any(|hop| hop.gateway == used.gateway && hop.device == index)
    };
    let others = dumped.entries.iter().filter(|entry| {
        entry.kind == RouteKind::Unicast
            && entry.prefix.1 != 0
            && is_looked_up(entry)
            && !is_used(entry)
    });
    let mut others: Vec<_> = others.collect();
    others.sort_by_key(|entry| (u8::MAX - entry.prefix.1, entry.metric));
    let named = others.into_iter().take(COVERING_MAX).map(|entry| {
        let hop = entry.hops.first();
        Covering {
            prefix: entry.prefix,
            table: entry.table,
            gateway: hop.and_then(|hop| hop.gateway),
            device: hop.and_then(|hop| hop.device).map(device),
        }
    });
    Ok(named.collect())
}

/// Reads the state of an interface; `None` if the index does not exist.
///
/// # Errors
/// See the module.
pub fn link(index: u32) -> io::Result<Option<Link>> {
    Ok(links::one(index)?.map(|found| found.link))
}

/// Reads the number of packets that an interface has received since it was made.
///
/// # Errors
/// See the module.
pub(in crate::host) fn received(index: u32) -> io::Result<u64> {
    links::received(index)
}

/// Lists the addresses of an interface, of both families.
///
/// # Errors
/// See the module.
pub(in crate::host) fn addresses_of(index: u32) -> io::Result<Vec<IpAddr>> {
    addresses::of_device(index)
}

/// Lists the addresses of one family assigned in this namespace.
///
/// # Errors
/// See the module.
pub fn own_addresses(v6: bool) -> io::Result<OwnAddresses> {
    addresses::of_family(v6)
}

/// Returns true for an address of this namespace: assigned to an interface, up or down, in
/// 127.0.0.0/8 with loopback up, or with a route of type local.
///
/// # Errors
/// See the module.
pub fn is_own(addr: IpAddr) -> io::Result<bool> {
    addresses::has(addr.to_canonical())
}

/// Reads whether packets for other hosts are forwarded that arrive by the interface with this
/// address.
///
/// # Errors
/// See the module. `Unsupported` also if no interface has the address.
pub fn forwarding(addr: IpAddr, v6: bool) -> io::Result<Forwarding> {
    forwarding::at(addr, v6)
}

/// Reads the state of a neighbour on this interface.
///
/// # Errors
/// See the module.
pub fn neighbour(device: u32, addr: IpAddr) -> io::Result<Neighbour> {
    let entry = neighbours::entry(device, addr)?;
    Ok(neighbours::NeighbourEntry::state(entry.as_ref()))
}

/// Reads the link-layer address of a neighbour, if it is known.
///
/// # Errors
/// See the module.
pub fn link_address_of_neighbour(device: u32, addr: IpAddr) -> io::Result<Option<Vec<u8>>> {
    Ok(neighbours::entry(device, addr)?.and_then(|entry| entry.address))
}

/// Lists the link-layer addresses of all interfaces of this namespace that are up. A bridge answers
/// for its IP addresses with its own link-layer address.
///
/// # Errors
/// See the module.
pub fn link_addresses() -> io::Result<Vec<Vec<u8>>> {
    let links = links::all()?;
    let up = links.into_values().filter(|found| found.link.up);
    let mut found: Vec<_> = up.filter_map(|found| found.address).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Rules and routes at one time, and the packet to route.
struct Tables {
    rules: Vec<PolicyRule>,
    /// Routes of all tables that cover the destination.
    entries: Vec<RouteEntry>,
    packet: RoutedPacket,
}

impl Tables {
    fn dump(way: &Flow, from: Option<IpAddr>) -> io::Result<Self> {
        let way = lookup::normal(way);
        if let Some(device) = way.device
            && links::one(device)?.is_some_and(|found| found.is_of_vrf)
        {
            // Kernels differ in the rules that apply (`l3mdev_update_flow`).
            return Err(cannot_tell("an interface of a VRF"));
        }
        Ok(Self {
            rules: rules::dump(way.to.is_ipv6())?,
            entries: entries(way.to)?,
            packet: RoutedPacket::new(&way, from),
        })
    }
}

/// Reads the routes of all tables that cover a destination.
fn entries(to: IpAddr) -> io::Result<Vec<RouteEntry>> {
    let v6 = to.is_ipv6();
    let mut body = [0; ROUTE_LEN];
    body[0] = family(v6);
    let request = netlink::request(RTM_GETROUTE, DUMP, &body)?;
    let mut found = Vec::new();
    let mut read = 0;
    netlink::ask_while(NETLINK_ROUTE, &request, |kind, body| {
        if kind != RTM_NEWROUTE || body.first() != Some(&family(v6)) {
            return Ok(());
        }
        read += 1;
        if read > ROUTES_MAX {
            return Err(too_many("more than 65,536 routes"));
        }
        let entry = RouteEntry::parse(body).ok_or_else(malformed)?;
        if covers(entry.prefix, to) && !entry.is_cloned {
            found.push(entry);
        }
        Ok(())
    })?;
    Ok(found)
}

fn errno_of(forbidden: &Forbidden<'_>) -> Errno {
    match forbidden.kind {
        DeadEndKind::Unreachable if forbidden.entry.is_some() => Errno::EHOSTUNREACH,
        DeadEndKind::Unreachable => Errno::ENETUNREACH,
        DeadEndKind::Blackhole => Errno::EINVAL,
        DeadEndKind::Prohibit => Errno::EACCES,
    }
}

fn dead_end_of(forbidden: &Forbidden<'_>, bound: Option<u32>) -> io::Result<DeadEnd> {
    let instead = forbidden.instead.map(|entry| way_out(entry, bound));
    Ok(DeadEnd {
        kind: forbidden.kind,
        rule: RuleFacts {
            priority: forbidden.rule.priority,
            text: forbidden.rule.to_string(),
        },
        table: forbidden.entry.map(|entry| entry.table),
        prefix: forbidden.entry.map(|entry| entry.prefix),
        instead: instead.transpose()?,
    })
}

fn way_out(entry: &RouteEntry, bound: Option<u32>) -> io::Result<RouteOut> {
    let mut hops = entry.hops.iter();
    let hop = hops.find(|hop| is_usable(hop, bound));
    let Some((hop, index)) = hop.and_then(|hop| Some((hop, hop.device?))) else {
        return Err(cannot_tell("a route without a listed next hop"));
    };
    Ok(RouteOut {
        gateway: hop.gateway,
        device: device(index),
        prefix_len: entry.prefix.1,
        table: entry.table,
    })
}

fn is_foreign(from: Option<IpAddr>) -> io::Result<bool> {
    match from {
        Some(from) => Ok(!is_own(from)?),
        None => Ok(false),
    }
}
