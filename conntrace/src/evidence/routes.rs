//! Routes and neighbours of the calling thread's namespace, by rtnetlink.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enums, of which a few variants matter here"
)]

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteType, RouteVia,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_indextoname;

use super::netlink::{self, attributes};
use crate::{
    diagnose::ask::{Device, Neighbour, Route, RouteOut},
    text,
};

/// Most bytes of an interface's name in a line: 15, each at most 6 when escaped.
const NAME_JSON_MAX: usize = 90;
/// `RTM_GETLINK`.
const GET_LINK: u16 = 18;
/// `struct ifinfomsg`.
const INTERFACE_LEN: usize = 16;
/// `IFLA_ADDRESS`.
const ADDRESS: u16 = 1;
const ENOENT: i32 = nix::errno::Errno::ENOENT as i32;

/// Which way packets take, as `ip route get` finds it, and by which entry of the
/// table.
pub(super) fn route(to: IpAddr, from: Option<IpAddr>) -> io::Result<Route> {
    Ok(look_up(to, from)?.map_or_else(Route::None, |route| found(&route)))
}

/// The entry of the table (`RTM_F_FIB_MATCH`), or the errno of who goes there.
fn look_up(to: IpAddr, from: Option<IpAddr>) -> io::Result<Result<RouteMessage, i32>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to);
    message.header.destination_prefix_length = bits(to);
    message.header.flags = RouteFlags::FibMatch;
    message
        .attributes
        .push(RouteAttribute::Destination(route_address(to)));
    if let Some(from) = from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
        message.header.source_prefix_length = bits(from);
        message
            .attributes
            .push(RouteAttribute::Source(route_address(from)));
    }
    match exchange(RouteNetlinkMessage::GetRoute(message))? {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(Ok(route)),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(errno) => Ok(Err(errno)),
    }
}

/// IPv6 shows such a route instead of failing.
fn found(route: &RouteMessage) -> Route {
    use nix::errno::Errno;
    match route.header.kind {
        RouteType::Local => Route::Local,
        RouteType::Unreachable => Route::None(Errno::EHOSTUNREACH as i32),
        RouteType::Prohibit => Route::None(Errno::EACCES as i32),
        RouteType::BlackHole => Route::None(Errno::EINVAL as i32),
        _ => way_out(route),
    }
}

fn way_out(route: &RouteMessage) -> Route {
    let mut gateway = None;
    let mut index = 0;
    let attributes = route.attributes.iter();
    for attribute in attributes.flat_map(of_first_hop) {
        match attribute {
            Part::Gateway(addr) => gateway = gateway.or(Some(addr)),
            Part::Device(found) => index = found,
        }
    }
    Route::Out(RouteOut {
        gateway,
        device: Device {
            index,
            name: device_name(index),
        },
        prefix_len: route.header.destination_prefix_length,
    })
}

enum Part {
    Gateway(IpAddr),
    Device(u32),
}

/// What an attribute says of the next hop; of several, the first.
fn of_first_hop(attribute: &RouteAttribute) -> Vec<Part> {
    if let RouteAttribute::MultiPath(hops) = attribute {
        return hops.first().map(of_hop).unwrap_or_default();
    }
    gateway(attribute)
        .map(Part::Gateway)
        .or(match attribute {
            RouteAttribute::Oif(index) => Some(Part::Device(*index)),
            _ => None,
        })
        .into_iter()
        .collect()
}

fn of_hop(hop: &RouteNextHop) -> Vec<Part> {
    let gateways = hop.attributes.iter().filter_map(gateway);
    gateways
        .map(Part::Gateway)
        .chain([Part::Device(hop.interface_index)])
        .collect()
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(addr))
        | RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(addr))
        | RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

fn device_name(index: u32) -> String {
    let name = if_indextoname(index).unwrap_or_default();
    text::bounded(name.to_bytes(), NAME_JSON_MAX)
}

/// What is known of a neighbour behind this interface.
pub(super) fn neighbour(device: u32, addr: IpAddr) -> io::Result<Neighbour> {
    let entry = entry(device, addr)?;
    let state = entry.map(|entry| entry.header.state);
    Ok(match state {
        Some(NeighbourState::Failed) => Neighbour::Failed,
        Some(NeighbourState::Incomplete) => Neighbour::Incomplete,
        Some(NeighbourState::None) | None => Neighbour::Absent,
        Some(_) => Neighbour::Known,
    })
}

/// The link-layer address of a neighbour, if it is known.
pub(super) fn link_address_of_neighbour(device: u32, addr: IpAddr) -> io::Result<Option<Vec<u8>>> {
    let attributes = entry(device, addr)?.map(|entry| entry.attributes);
    let found = attributes.into_iter().flatten().find_map(|it| match it {
        NeighbourAttribute::LinkLocalAddress(address) => Some(address),
        _ => None,
    });
    Ok(found.filter(|address| is_one(address)))
}

/// The link-layer address of the interface that has this address here, if one has.
pub(super) fn own_link_address(addr: IpAddr) -> io::Result<Option<Vec<u8>>> {
    let Ok(route) = look_up(addr, None)? else {
        return Ok(None);
    };
    let device = route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let Some(index) = device.filter(|_| route.header.kind == RouteType::Local) else {
        return Ok(None);
    };
    link_address(index)
}

/// Read by hand: the crate warns on stderr of what newer kernels add to a link.
fn link_address(index: u32) -> io::Result<Option<Vec<u8>>> {
    let mut body = [0; INTERFACE_LEN];
    if let Some(at) = body.get_mut(4..8) {
        at.copy_from_slice(&index.to_ne_bytes());
    }
    let request = netlink::request(GET_LINK, NLM_F_REQUEST, &body)?;
    let mut found = None;
    netlink::ask(NETLINK_ROUTE, &request, |_, message| {
        let rest = message.get(INTERFACE_LEN..).unwrap_or_default();
        let address = attributes(rest).find(|(kind, _)| *kind == ADDRESS);
        found = address.map(|(_, address)| address.to_vec());
    })?;
    Ok(found.filter(|address| is_one(address)))
}

/// Loopback's is all zeroes, a tunnel's is empty.
fn is_one(address: &[u8]) -> bool {
    address.iter().any(|&byte| byte != 0)
}

/// The entry of the neighbour table.
fn entry(device: u32, addr: IpAddr) -> io::Result<Option<NeighbourMessage>> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = device;
    let addr = match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(addr));
    match exchange(RouteNetlinkMessage::GetNeighbour(message))? {
        Ok(RouteNetlinkMessage::NewNeighbour(found)) => Ok(Some(found)),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(ENOENT) => Ok(None),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn route_address(addr: IpAddr) -> RouteAddress {
    match addr {
        IpAddr::V4(addr) => RouteAddress::Inet(addr),
        IpAddr::V6(addr) => RouteAddress::Inet6(addr),
    }
}

/// Sends a request that is answered by one message, or by an errno.
fn exchange(request: RouteNetlinkMessage) -> io::Result<Result<RouteNetlinkMessage, i32>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (bytes, _) = socket.recv_from_full()?;
    let reply =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).map_err(io::Error::other)?;
    match reply.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(Ok(inner)),
        NetlinkPayload::Error(error) => Ok(Err(error.raw_code().saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_here() {
        let found = route([127, 0, 0, 1].into(), None).unwrap();
        assert_eq!(found, Route::Local);
    }
}
