//! Neighbour table (`RTM_GETNEIGH`).

use std::{io, net::IpAddr};

use nix::errno::Errno;

use super::message::{REQUEST, answer, family, octets, push, typed};
use crate::{
    diagnosis::question::Neighbour,
    host::netlink::{self, u16_at},
};

const RTM_GETNEIGH: u16 = 30;
/// Size of `struct ndmsg`.
const HEADER_LEN: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NONE: u16 = 0;
const NUD_INCOMPLETE: u16 = 1;
const NUD_FAILED: u16 = 0x20;
/// The interface asks nobody (`IFF_NOARP`), and sends to its own link-layer address.
const NUD_NOARP: u16 = 0x40;

/// Entry of the neighbour table.
pub(super) struct NeighbourEntry {
    state: u16,
    /// Link-layer address; `None` if it is unknown or the link has none.
    pub(super) address: Option<Vec<u8>>,
}

impl NeighbourEntry {
    /// Returns the state of an entry, `Absent` if there is none.
    pub(super) fn state(entry: Option<&Self>) -> Neighbour {
        match entry.map(|entry| entry.state) {
            Some(NUD_FAILED) => Neighbour::Failed,
            Some(NUD_INCOMPLETE) => Neighbour::Incomplete,
            Some(NUD_NONE | NUD_NOARP) | None => Neighbour::Absent,
            Some(_) => Neighbour::Known,
        }
    }
}

/// Reads the entry of an address on an interface.
pub(super) fn entry(device: u32, addr: IpAddr) -> io::Result<Option<NeighbourEntry>> {
    let mut body = vec![family(addr.is_ipv6()), 0, 0, 0];
    body.extend(device.to_ne_bytes());
    body.resize(HEADER_LEN, 0);
    push(&mut body, NDA_DST, &octets(addr));
    let request = netlink::request(RTM_GETNEIGH, REQUEST, &body)?;
    match answer(&request, parse)? {
        Ok(found) => Ok(Some(found)),
        Err(errno) if errno == Errno::ENOENT as i32 => Ok(None),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn parse(body: &[u8]) -> Option<NeighbourEntry> {
    let mut attributes = typed(body.get(HEADER_LEN..)?);
    let address = attributes.find(|(kind, _)| *kind == NDA_LLADDR);
    let state = u16_at(body, 8)?;
    Some(NeighbourEntry {
        state,
        address: address
            .filter(|_| state != NUD_NOARP)
            .map(|(_, address)| address.to_vec())
            .filter(|address| address.iter().any(|&byte| byte != 0)),
    })
}
