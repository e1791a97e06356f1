//! Forwarding of packets for other hosts, by interface (`/proc/sys/net`).

use std::{
    io::{self, ErrorKind},
    net::IpAddr,
};

use super::{addresses, links, message::cannot_tell};
use crate::{diagnosis::way::Forwarding, sys::proc_file};

/// Maximum number of interfaces that are asked. Of more it is not said that none forwards.
const ASKED_MAX: usize = 64;

/// Setting of an interface for packets that arrive there.
///
/// Over IPv4 that interface's own decides (`ip_route_input_slow`). Over IPv6 it is the namespace's
/// (`ip6_forward`), but for an interface that is made to forward, from Linux 6.17 on.
pub(super) fn at(addr: IpAddr, v6: bool) -> io::Result<Forwarding> {
    if v6 && is_set("ipv6/conf/all/forwarding")? {
        return Ok(Forwarding::On);
    }
    let links = links::all()?;
    let device = addresses::device_of(addr)?.and_then(|index| links.get(&index));
    let Some(device) = device.map(|found| &found.link.name) else {
        return Err(cannot_tell("an address of no interface"));
    };
    if forwards(device, v6)? {
        return Ok(Forwarding::On);
    }
    let others = links.values().map(|found| &found.link);
    let mut others = others.filter(|link| !link.loopback && link.name != *device);
    for link in others.by_ref().take(ASKED_MAX) {
        if forwards(&link.name, v6)? {
            return Ok(Forwarding::OffAt(device.clone()));
        }
    }
    Ok(match others.next() {
        None => Forwarding::Off,
        Some(_) => Forwarding::OffAt(device.clone()),
    })
}

fn forwards(device: &str, v6: bool) -> io::Result<bool> {
    let (family, name) = if v6 {
        ("ipv6", "force_forwarding")
    } else {
        ("ipv4", "forwarding")
    };
    match is_set(&format!("{family}/conf/{device}/{name}")) {
        // Older kernels do not know it.
        Err(error) if v6 && error.kind() == ErrorKind::NotFound => Ok(false),
        found => found,
    }
}

/// Reads a switch of the calling thread's namespace: /proc/sys/net shows that one.
fn is_set(name: &str) -> io::Result<bool> {
    match proc_file::read_to_string(format!("/proc/sys/net/{name}"))?.trim() {
        "0" => Ok(false),
        "1" | "2" => Ok(true),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
