//! Network interfaces (`RTM_GETLINK`).

use std::{collections::HashMap, io};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::message::{DUMP, REQUEST, answer, malformed, name, push, too_many, typed};
use crate::{
    diagnosis::way::Link,
    host::netlink::{self, u32_at},
};

/// Maximum number of interfaces of a namespace.
const LINKS_MAX: usize = 16_384;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Size of `struct ifinfomsg`.
const INTERFACE_LEN: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_NOARP: u32 = 0x80;
const IFF_LOWER_UP: u32 = 0x1_0000;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER: u16 = 33;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_STATS64: u16 = 23;
/// In `IFLA_INFO_DATA` of the kind `tun`.
const IFLA_TUN_TYPE: u16 = 3;
const IFF_TAP: u8 = 2;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// Network interface, as read from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkMessage {
    pub(super) index: u32,
    pub(super) link: Link,
    /// Link-layer address; `None` if it is empty or all zeroes, as for loopback and tunnels.
    pub(super) address: Option<Vec<u8>>,
    /// True for a VRF, or an interface enslaved to one.
    pub(super) is_of_vrf: bool,
}

/// Reads the interface with this index; `None` if there is none.
pub(super) fn one(index: u32) -> io::Result<Option<LinkMessage>> {
    let request = netlink::request(RTM_GETLINK, REQUEST, &without_statistics(index))?;
    match answer(&request, parse)? {
        Ok(found) => Ok(Some(found)),
        Err(errno) if errno == Errno::ENODEV as i32 => Ok(None),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Reads the number of packets that the interface has received since it was made.
pub(super) fn received(index: u32) -> io::Result<u64> {
    let request = netlink::request(RTM_GETLINK, REQUEST, &header(index))?;
    let counted = |body: &[u8]| {
        let mut attributes = typed(body.get(INTERFACE_LEN..)?);
        let (_, counters) = attributes.find(|(kind, _)| *kind == IFLA_STATS64)?;
        // `struct rtnl_link_stats64` begins with rx_packets.
        Some(u64::from_ne_bytes(*counters.first_chunk()?))
    };
    answer(&request, counted)?.map_err(io::Error::from_raw_os_error)
}

/// Reads all interfaces of the namespace, by index.
pub(super) fn all() -> io::Result<HashMap<u32, LinkMessage>> {
    let request = netlink::request(RTM_GETLINK, DUMP, &without_statistics(0))?;
    let mut found = HashMap::new();
    netlink::ask_while(NETLINK_ROUTE, &request, |kind, body| {
        if kind != RTM_NEWLINK {
            return Ok(());
        }
        if found.len() >= LINKS_MAX {
            return Err(too_many("more than 16,384 interfaces"));
        }
        let interface = parse(body).ok_or_else(malformed)?;
        found.insert(interface.index, interface);
        Ok(())
    })?;
    Ok(found)
}

/// `struct ifinfomsg` for the interface with this index.
fn header(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.resize(INTERFACE_LEN, 0);
    body
}

fn without_statistics(index: u32) -> Vec<u8> {
    let mut body = header(index);
    push(
        &mut body,
        IFLA_EXT_MASK,
        &RTEXT_FILTER_SKIP_STATS.to_ne_bytes(),
    );
    body
}

fn parse(body: &[u8]) -> Option<LinkMessage> {
    let flags = u32_at(body, 8)?;
    let mut interface = LinkMessage {
        index: u32_at(body, 4)?,
        link: Link {
            name: String::new(),
            up: flags & IFF_UP != 0,
            carrier: flags & IFF_LOWER_UP != 0,
            kind: None,
            resolves_neighbours: false,
            loopback: flags & IFF_LOOPBACK != 0,
        },
        address: None,
        is_of_vrf: false,
    };
    let link = &mut interface.link;
    for (kind, value) in typed(body.get(INTERFACE_LEN..)?) {
        match kind {
            IFLA_ADDRESS => interface.address = Some(value.to_vec()).filter(|it| is_one(it)),
            IFLA_IFNAME => link.name = name(value),
            IFLA_CARRIER => link.carrier = *value.first()? != 0,
            IFLA_LINKINFO => {
                let mut infos = typed(value);
                link.kind = kind_of(value);
                interface.is_of_vrf = infos.any(|(kind, value)| {
                    matches!(kind, IFLA_INFO_KIND | IFLA_INFO_SLAVE_KIND) && name(value) == "vrf"
                });
            }
            _ => {}
        }
    }
    link.resolves_neighbours = flags & IFF_NOARP == 0 && interface.address.is_some();
    Some(interface)
}

/// Returns the kind that `IFLA_LINKINFO` tells.
fn kind_of(info: &[u8]) -> Option<String> {
    let kind = name(value_of(info, IFLA_INFO_KIND)?);
    let data = value_of(info, IFLA_INFO_DATA).filter(|_| kind == "tun");
    let tun_type = data.and_then(|data| value_of(data, IFLA_TUN_TYPE));
    let is_tap = tun_type == Some(&[IFF_TAP]);
    Some(if is_tap { "tap".to_owned() } else { kind })
}

fn value_of(attributes: &[u8], sought: u16) -> Option<&[u8]> {
    let mut found = typed(attributes).filter(|(kind, _)| *kind == sought);
    found.next().map(|(_, value)| value)
}

fn is_one(address: &[u8]) -> bool {
    address.iter().any(|&byte| byte != 0)
}
