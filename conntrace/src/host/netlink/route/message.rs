//! Requests of rtnetlink, and the routes in its answers.
//!
//! Hand-written: `netlink-packet-route` warns on stderr about attributes of newer kernels.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_indextoname;

pub(super) use crate::host::netlink::push;
use crate::{
    diagnosis::way::{DeadEndKind, NetDevice},
    host::netlink::{self, attributes, u16_at, u32_at},
    record::sanitize,
};

/// Maximum bytes of an interface name in a line: 15 characters, each at most 6 bytes when escaped.
const NAME_JSON_MAX: usize = 90;
pub(super) const INET: u8 = 2;
pub(super) const INET6: u8 = 10;
/// `NLM_F_REQUEST`, for a dump combined with `NLM_F_DUMP`.
pub(super) const REQUEST: u16 = 1;
pub(super) const DUMP: u16 = REQUEST | 0x300;
/// Mask of an attribute's type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;

/// Size of `struct rtmsg`.
pub(super) const ROUTE_LEN: usize = 12;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const RTNEXTHOP_LEN: usize = 8;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_SRC: u16 = 2;
pub(super) const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
pub(super) const RTA_MARK: u16 = 16;
const RTA_VIA: u16 = 18;
pub(super) const RTA_UID: u16 = 25;
pub(super) const RTA_IP_PROTO: u16 = 27;
pub(super) const RTA_DPORT: u16 = 29;

/// Sends a request for one object: returns the parsed answer, or the kernel's errno.
pub(super) fn answer<T>(
    request: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Result<T, i32>> {
    let mut found = None;
    let outcome = netlink::exchange(NETLINK_ROUTE, request, |_, body| {
        found = Some(parse(body).ok_or_else(malformed)?);
        Ok(())
    })?;
    match outcome {
        Ok(()) => Ok(Ok(found.ok_or_else(malformed)?)),
        Err(errno) => Ok(Err(errno)),
    }
}

pub(super) fn family(v6: bool) -> u8 {
    if v6 { INET6 } else { INET }
}

/// Returns the number of bits in an address of this family.
pub(super) fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

pub(super) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().into(),
        IpAddr::V6(addr) => addr.octets().into(),
    }
}

/// Parses an address; its length determines the family.
pub(in crate::host) fn addr(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|it| Ipv4Addr::from(it).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|it| Ipv6Addr::from(it).into()))
        .ok()
}

/// Converts an address to a number, its first bit the highest of 128.
fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// Returns true if the prefix contains the address; false for different families.
pub(in crate::host) fn covers((prefix, len): (IpAddr, u8), addr: IpAddr) -> bool {
    let differing = (number(prefix) ^ number(addr)).leading_zeros();
    prefix.is_ipv4() == addr.is_ipv4() && differing >= u32::from(len).min(128)
}

/// Iterates over attributes by type, without the type's flags.
pub(in crate::host) fn typed(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(bytes).map(|(kind, value)| (kind & TYPE_MASK, value))
}

/// Parses a NUL-terminated name.
pub(super) fn name(bytes: &[u8]) -> String {
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    sanitize::bounded(name, NAME_JSON_MAX)
}

/// Returns the interface with this index and its current name.
pub(in crate::host) fn device(index: u32) -> NetDevice {
    let found = if_indextoname(index).unwrap_or_default();
    NetDevice {
        index,
        name: name(found.to_bytes()),
    }
}

/// Returns the error for an unreadable answer of the kernel.
pub(super) fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Returns the error for a decision that depends on an unknown fact.
pub(super) fn cannot_tell(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Returns the error for an answer above a limit.
pub(super) fn too_many(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, what)
}

/// Types of routes (`rtm_type`), grouped by their effect on a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    Unicast,
    Local,
    Forbids(DeadEndKind),
    /// Ends the lookup in its table; the next rule follows.
    Throw,
    /// Broadcast, multicast and anycast, which TCP cannot use.
    Other,
}

/// Route of a table (`RTM_NEWROUTE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteEntry {
    pub(super) table: u32,
    pub(super) prefix: (IpAddr, u8),
    pub(super) kind: RouteKind,
    pub(super) metric: u32,
    /// Next hops; empty if nexthop objects are not expanded (`nexthop_compat_mode` 0).
    pub(super) hops: Vec<NextHop>,
    /// True if the route applies only to some types of service or sources.
    pub(super) is_selective: bool,
    /// Preferred source address.
    pub(super) source: Option<IpAddr>,
    /// True for a learned exception (path MTU, redirect).
    pub(super) is_cloned: bool,
}

/// Next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextHop {
    pub(super) gateway: Option<IpAddr>,
    pub(super) device: Option<u32>,
    /// True if unused: the interface is down, or has no carrier while `ignore_routes_with_linkdown`
    /// is set.
    pub(super) is_dead: bool,
}

impl RouteEntry {
    /// Parses the body of a message; `None` if it is malformed or of another family.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let any: IpAddr = match *body.first()? {
            INET => Ipv4Addr::UNSPECIFIED.into(),
            INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let flags = u32_at(body, 8)?;
        let mut entry = Self {
            table: u32::from(*body.get(4)?),
            prefix: (any, *body.get(1)?),
            kind: kind(*body.get(7)?),
            metric: 0,
            hops: Vec::new(),
            is_selective: *body.get(2)? != 0 || *body.get(3)? != 0,
            source: None,
            is_cloned: flags & RTM_F_CLONED != 0,
        };
        let attributes = body.get(ROUTE_LEN..)?;
        for (kind, value) in typed(attributes) {
            match kind {
                RTA_DST => entry.prefix.0 = addr(value)?,
                RTA_TABLE => entry.table = u32_at(value, 0)?,
                RTA_PRIORITY => entry.metric = u32_at(value, 0)?,
                RTA_PREFSRC => entry.source = addr(value),
                RTA_MULTIPATH => entry.hops.extend(hops(value)),
                _ => {}
            }
        }
        let own = hop(None, flags & RTNH_F_DEAD != 0, attributes);
        if entry.hops.is_empty() && own.device.is_some() {
            entry.hops.push(own);
        }
        Some(entry)
    }
}

fn kind(number: u8) -> RouteKind {
    match number {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        6 => RouteKind::Forbids(DeadEndKind::Blackhole),
        7 => RouteKind::Forbids(DeadEndKind::Unreachable),
        8 => RouteKind::Forbids(DeadEndKind::Prohibit),
        9 => RouteKind::Throw,
        _ => RouteKind::Other,
    }
}

/// Parses the next hops of a multipath route (`struct rtnexthop`).
fn hops(mut bytes: &[u8]) -> Vec<NextHop> {
    let mut found = Vec::new();
    while let Some(len) = u16_at(bytes, 0).map(usize::from)
        && let Some(this) = bytes.get(..len)
        && let Some(attributes) = this.get(RTNEXTHOP_LEN..)
    {
        let flags = this.get(2).copied().unwrap_or_default();
        let is_dead = u32::from(flags) & RTNH_F_DEAD != 0;
        found.push(hop(u32_at(this, 4), is_dead, attributes));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn hop(device: Option<u32>, is_dead: bool, bytes: &[u8]) -> NextHop {
    let mut hop = NextHop {
        gateway: None,
        device,
        is_dead,
    };
    for (kind, value) in typed(bytes) {
        match kind {
            RTA_OIF => hop.device = u32_at(value, 0),
            RTA_GATEWAY => hop.gateway = addr(value),
            // The family precedes the address.
            RTA_VIA => hop.gateway = value.get(2..).and_then(addr),
            _ => {}
        }
    }
    hop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let covers = |prefix: &str, len, to: &str| {
            super::covers((prefix.parse().unwrap(), len), to.parse().unwrap())
        };
        assert!(covers("10.0.0.0", 8, "10.255.0.1") && !covers("10.0.0.0", 8, "11.0.0.1"));
        assert!(covers("10.0.0.1", 32, "10.0.0.1") && !covers("10.0.0.1", 32, "10.0.0.0"));
        assert!(covers("0.0.0.0", 0, "255.1.1.1") && covers("::", 0, "fd00::1"));
        assert!(covers("fd00::", 127, "fd00::1") && !covers("fd00::", 128, "fd00::1"));
        assert!(!covers("::", 0, "10.0.0.1"), "another family");
    }

    #[test]
    fn a_multipath_route_and_one_that_is_cut() {
        let mut body = vec![INET, 8, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        push(&mut body, RTA_DST, &[10, 0, 0, 0]);
        let mut nexthops = Vec::new();
        for (index, flags) in [(3_u8, 0), (4, 1)] {
            nexthops.extend([16, 0, flags, 0, index, 0, 0, 0]);
            push(&mut nexthops, RTA_GATEWAY, &[10, 9, 0, index]);
        }
        push(&mut body, RTA_MULTIPATH, &nexthops);
        let entry = RouteEntry::parse(&body).unwrap();
        assert_eq!((entry.table, entry.prefix.1), (254, 8));
        let hop = |index: u8, is_dead| NextHop {
            gateway: Some([10, 9, 0, index].into()),
            device: Some(index.into()),
            is_dead,
        };
        assert_eq!(entry.hops, [hop(3, false), hop(4, true)]);
        for len in 0..ROUTE_LEN {
            assert_eq!(RouteEntry::parse(&body[..len]), None, "{len}");
        }
        nexthops[0] = 3;
        assert!(hops(&nexthops).is_empty());
    }
}
