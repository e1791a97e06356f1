//! Addresses of this namespace's interfaces (`RTM_GETADDR`).

use std::{io, net::IpAddr};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    links, lookup,
    message::{DUMP, addr, family, malformed, too_many, typed},
};
use crate::{
    diagnosis::way::OwnAddresses,
    host::netlink::{self, u32_at},
};

/// Maximum number of addresses of a namespace and family.
const ADDRESSES_MAX: usize = 65_536;
/// Maximum number of addresses in an answer.
const USABLE_MAX: usize = 8;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// Size of `struct ifaddrmsg`.
const HEADER_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const RT_SCOPE_LINK: u8 = 253;

/// Address of an interface.
struct Assigned {
    device: u32,
    addr: IpAddr,
    scope: u8,
    flags: u32,
}

/// Lists the addresses of one family assigned in this namespace.
pub(super) fn of_family(v6: bool) -> io::Result<OwnAddresses> {
    let mut far_reaching = all(v6)?;
    far_reaching.retain(|it| !it.addr.is_loopback() && !is_link_local(it.addr));
    let links = links::all()?;
    let is_up = |it: &Assigned| links.get(&it.device).is_some_and(|found| found.link.up);
    let usable = far_reaching.iter().filter(|it| is_usable(it) && is_up(it));
    Ok(OwnAddresses {
        usable: usable.map(|it| it.addr).take(USABLE_MAX).collect(),
        any: !far_reaching.is_empty(),
    })
}

/// Returns true for an address assigned to an interface, in 127.0.0.0/8 with loopback up, or with a
/// route of type local (`ip route add local`).
pub(super) fn has(addr: IpAddr) -> io::Result<bool> {
    if let IpAddr::V4(v4) = addr
        && v4.is_loopback()
    {
        let links = links::all()?;
        return Ok(links.values().any(|it| it.link.loopback && it.link.up));
    }
    let all = all(addr.is_ipv6())?;
    Ok(all.iter().any(|it| it.addr == addr) || lookup::is_local(addr)?)
}

/// Finds the interface that has an address.
pub(super) fn device_of(addr: IpAddr) -> io::Result<Option<u32>> {
    let all = all(addr.is_ipv6())?;
    Ok(all
        .iter()
        .find(|it| it.addr == addr)
        .map(|assigned| assigned.device))
}

/// Lists the addresses of an interface.
pub(super) fn of_device(device: u32) -> io::Result<Vec<IpAddr>> {
    let (v4, v6) = (all(false)?, all(true)?);
    let own = v4.into_iter().chain(v6).filter(|it| it.device == device);
    Ok(own.map(|it| it.addr).collect())
}

fn all(v6: bool) -> io::Result<Vec<Assigned>> {
    let mut body = [0; HEADER_LEN];
    body[0] = family(v6);
    let request = netlink::request(RTM_GETADDR, DUMP, &body)?;
    let mut found = Vec::new();
    netlink::ask_while(NETLINK_ROUTE, &request, |kind, body| {
        // Without that family, the kernel lists all others.
        if kind != RTM_NEWADDR || body.first() != Some(&family(v6)) {
            return Ok(());
        }
        if found.len() >= ADDRESSES_MAX {
            return Err(too_many("more than 65,536 addresses"));
        }
        found.push(parse(body).ok_or_else(malformed)?);
        Ok(())
    })?;
    Ok(found)
}

fn parse(body: &[u8]) -> Option<Assigned> {
    let (mut own, mut of_link) = (None, None);
    let mut flags = u32::from(*body.get(2)?);
    for (kind, value) in typed(body.get(HEADER_LEN..)?) {
        match kind {
            // On a point-to-point link this is the peer's address.
            IFA_ADDRESS => of_link = addr(value),
            IFA_LOCAL => own = addr(value),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(Assigned {
        device: u32_at(body, 4)?,
        addr: own.or(of_link)?,
        scope: *body.get(3)?,
        flags,
    })
}

fn is_usable(it: &Assigned) -> bool {
    let is_tentative = it.flags & IFA_F_TENTATIVE != 0 && it.flags & IFA_F_OPTIMISTIC == 0;
    it.scope < RT_SCOPE_LINK && it.flags & IFA_F_DADFAILED == 0 && !is_tentative
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}
