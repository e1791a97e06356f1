//! Route lookups by the kernel (`RTM_GETROUTE`), as connect makes them.

use std::{fs, io, net::IpAddr};

use nix::errno::Errno;

use super::{
    message::{
        REQUEST, ROUTE_LEN, RTA_DPORT, RTA_DST, RTA_IP_PROTO, RTA_MARK, RTA_OIF, RTA_SRC, RTA_UID,
        RouteEntry, RouteKind, answer, bits, cannot_tell, device, family, malformed, octets, push,
    },
    rules::{self, PolicyRule, RoutedPacket},
};
use crate::{
    diagnosis::way::{Flow, Route, RouteOut},
    host::netlink,
};

const RTM_GETROUTE: u16 = 26;
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
/// Requests the matching table entry.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const IPPROTO_TCP: u8 = 6;

/// Outcome of the lookups that connect makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectRoute {
    pub(super) route: Route,
    /// Source address of the decisive lookup.
    pub(super) from: Option<IpAddr>,
}

impl ConnectRoute {
    fn none(errno: i32, from: Option<IpAddr>) -> Self {
        Self {
            route: Route::None(errno),
            from,
        }
    }
}

/// Looks up a route as `tcp_v4_connect` and `tcp_v6_connect` do.
///
/// # Errors
/// `Unsupported` if the answer depends on facts that `way` lacks.
pub(super) fn resolve(way: &Flow) -> io::Result<ConnectRoute> {
    let way = normal(way);
    if let IpAddr::V6(to) = way.to
        && to.is_unicast_link_local()
        && way.device.is_none()
    {
        return Err(cannot_tell("a link-local address without its interface"));
    }
    // Without the attribute the kernel uses the caller's user id.
    if way.uid.is_none() && has_rule(&way, |all| all.uids.is_some())? {
        return Err(cannot_tell("a rule for users, and the user is unknown"));
    }
    // The request has no source port and no type of service.
    let packet = RoutedPacket::new(&way, way.from);
    let may_match =
        |rule: &PolicyRule| rule.conditions.has_unknown && rule.matches(&packet).is_none();
    if rules::dump(way.to.is_ipv6())?.iter().any(may_match) {
        return Err(cannot_tell(
            "a rule for source ports, types of service or such",
        ));
    }
    if way.to.is_ipv4() {
        resolve_v4(&way)
    } else {
        resolve_v6(&way)
    }
}

/// Returns true if packets to an address are delivered in this namespace (`RTN_LOCAL`).
pub(super) fn is_local(addr: IpAddr) -> io::Result<bool> {
    let way = Flow {
        to: addr,
        from: None,
        device: None,
        mark: 0,
        uid: Some(0),
        port: 0,
    };
    let found = ask(&normal(&way), None, 0)?;
    Ok(found.is_ok_and(|entry| entry.kind == RouteKind::Local))
}

/// Normalizes addresses as the kernel does: IPv4-mapped ones become IPv4.
pub(super) fn normal(way: &Flow) -> Flow {
    let to = way.to.to_canonical();
    let from = way.from.map(|from| from.to_canonical());
    Flow {
        to,
        from: from.filter(|from| !from.is_unspecified() && from.is_ipv4() == to.is_ipv4()),
        ..way.clone()
    }
}

/// Looks up twice, as `ip_route_connect` does: the second time with the source address from the
/// first.
fn resolve_v4(way: &Flow) -> io::Result<ConnectRoute> {
    let mut from = way.from;
    let mut found = match ask(way, from, 0)? {
        Ok(found) => found,
        Err(errno) => return Ok(ConnectRoute::none(errno, from)),
    };
    if from.is_none() && found.source.is_some() {
        from = found.source;
        found = match ask(way, from, 0)? {
            Ok(found) => found,
            Err(errno) => return Ok(ConnectRoute::none(errno, from)),
        };
    }
    // Without an entry the destination is taken as on-link (`ip_route_output_key_hash_rcu`).
    let entry = ask(way, from, RTM_F_FIB_MATCH)?.ok();
    conclude(way, &found, entry.as_ref(), from)
}

/// Looks up a second time only if the first fails, as `ip6_dst_lookup_tail` does.
fn resolve_v6(way: &Flow) -> io::Result<ConnectRoute> {
    let mut from = way.from;
    let mut found = ask(way, from, 0)?;
    let has_from = |way| has_rule(way, |all| all.from.is_some());
    // Without a source, the bound device is mandatory (`RT6_LOOKUP_F_IFACE`), as for a socket. With
    // a source, this request treats it as a preference.
    let strays = found.as_ref().is_ok_and(|found| {
        let hop = found.hops.first();
        way.device.is_some() && hop.and_then(|hop| hop.device) != way.device
    });
    if from.is_some() && strays {
        if has_from(way)? {
            return Err(cannot_tell("rules for sources, and a bound device"));
        }
        from = None;
        found = ask(way, from, 0)?;
    }
    let found = match found {
        Ok(found) => found,
        Err(_) if way.from.is_none() && has_from(way)? => {
            return Err(cannot_tell("rules for sources, and the source is unknown"));
        }
        Err(errno) => return Ok(ConnectRoute::none(errno, from)),
    };
    let entry = match ask(way, from, RTM_F_FIB_MATCH)? {
        Ok(entry) => entry,
        Err(errno) => return Ok(ConnectRoute::none(errno, from)),
    };
    conclude(way, &found, Some(&entry), from)
}

fn has_rule(way: &Flow, is_it: impl Fn(&rules::Conditions) -> bool) -> io::Result<bool> {
    let rules = rules::dump(way.to.is_ipv6())?;
    Ok(rules.iter().any(|rule| is_it(&rule.conditions)))
}

fn conclude(
    way: &Flow,
    found: &RouteEntry,
    entry: Option<&RouteEntry>,
    from: Option<IpAddr>,
) -> io::Result<ConnectRoute> {
    let (prefix_len, table) = entry.map_or((bits(way.to), 0), |it| (it.prefix.1, it.table));
    let has_several = entry.is_some_and(|entry| entry.hops.len() > 1);
    let is_chosen_by_port = has_several && !hashes_addresses_only(way.to.is_ipv6());
    let route = match found.kind {
        RouteKind::Local => Route::Local,
        // For a forbidding route the lookup has failed before.
        RouteKind::Other | RouteKind::Throw | RouteKind::Forbids(_) => {
            Route::None(Errno::ENETUNREACH as i32)
        }
        RouteKind::Unicast if is_chosen_by_port => {
            return Err(cannot_tell(
                "several next hops, chosen by a hash of the ports",
            ));
        }
        RouteKind::Unicast => {
            let hop = found.hops.first().ok_or_else(malformed)?;
            Route::Out(RouteOut {
                gateway: hop.gateway,
                device: device(hop.device.ok_or_else(malformed)?),
                prefix_len,
                table,
            })
        }
    };
    Ok(ConnectRoute { route, from })
}

/// Returns true if the kernel chooses among several next hops by the addresses alone
/// (`fib_multipath_hash_policy`).
fn hashes_addresses_only(is_v6: bool) -> bool {
    let family = if is_v6 { "ipv6" } else { "ipv4" };
    let policy = fs::read(format!("/proc/sys/net/{family}/fib_multipath_hash_policy"));
    policy.is_ok_and(|policy| policy.trim_ascii() == b"0")
}

/// Returns the route the kernel chooses, or the errno of the lookup.
fn ask(way: &Flow, from: Option<IpAddr>, flags: u32) -> io::Result<Result<RouteEntry, i32>> {
    let src_len = from.map_or(0, bits);
    let mut body = vec![family(way.to.is_ipv6()), bits(way.to), src_len];
    body.resize(8, 0);
    body.extend((flags | RTM_F_LOOKUP_TABLE).to_ne_bytes());
    debug_assert_eq!(body.len(), ROUTE_LEN);
    push(&mut body, RTA_DST, &octets(way.to));
    if let Some(from) = from {
        push(&mut body, RTA_SRC, &octets(from));
    }
    if let Some(device) = way.device {
        push(&mut body, RTA_OIF, &device.to_ne_bytes());
    }
    push(&mut body, RTA_MARK, &way.mark.to_ne_bytes());
    if let Some(uid) = way.uid {
        push(&mut body, RTA_UID, &uid.to_ne_bytes());
    }
    push(&mut body, RTA_IP_PROTO, &[IPPROTO_TCP]);
    push(&mut body, RTA_DPORT, &way.port.to_be_bytes());
    let request = netlink::request(RTM_GETROUTE, REQUEST, &body)?;
    match answer(&request, RouteEntry::parse)? {
        // The kernel lacks the family (`ipv6.disable=1`).
        Err(errno) if errno == Errno::EOPNOTSUPP as i32 => {
            Err(cannot_tell("the kernel has no such address family"))
        }
        found => Ok(found),
    }
}
