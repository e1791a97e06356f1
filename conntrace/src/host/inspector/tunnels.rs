//! Answers about interfaces that tunnels begin behind.

use std::{io, net::IpAddr, ops::ControlFlow};

use crate::{
    diagnosis::tunnel_facts::{HeardHost, Tunnel},
    host::netlink::{route, sock_diag, wireguard},
};

/// Maximum number of an interface's addresses whose connections are looked at.
const ADDRESSES_MAX: usize = 8;
/// Seconds after which a better sign of life is still looked for.
const FRESH_S: u64 = 10;

/// Reads the signs of life of a tunnel in the calling thread's namespace.
pub(super) fn state(device: u32, to: IpAddr) -> io::Result<Tunnel> {
    let link = route::link(device)?.ok_or(io::ErrorKind::NotFound)?;
    let peer = if link.kind.as_deref() == Some("wireguard") {
        wireguard::peer(device, to.to_canonical())?
    } else {
        None
    };
    let received = route::received(device)?;
    Ok(Tunnel {
        received,
        peer,
        heard: if received == 0 { None } else { heard(device)? },
    })
}

/// Finds the connection that heard its remote host last, among those from an address of the
/// interface.
fn heard(device: u32) -> io::Result<Option<HeardHost>> {
    let mut last: Option<HeardHost> = None;
    for local in route::addresses_of(device)?.into_iter().take(ADDRESSES_MAX) {
        sock_diag::heard_from(local, |sock, ago_ms| {
            let ago_s = u64::from(ago_ms / 1000);
            if last.is_none_or(|last| ago_s < last.ago_s) {
                let addr = sock.remote.ip();
                last = Some(HeardHost { addr, ago_s });
            }
            if last.is_some_and(|last| last.ago_s <= FRESH_S) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    Ok(last)
}
