//! TCP sockets of a network namespace, read through `sock_diag`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::{attributes, route, u32_at};
use crate::{diagnosis::way::NetDevice, host::netlink};

/// Message type `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// Flags of a dump request: `NLM_F_REQUEST | NLM_F_DUMP`.
const FLAGS: u16 = 0x1 | 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// Size of `struct inet_diag_sockid`.
const ID_LEN: usize = 48;
/// Size of `struct inet_diag_msg`.
const MESSAGE_LEN: usize = 72;
/// Attribute `INET_DIAG_SKV6ONLY`.
const ONLY_V6: u16 = 11;

/// Maximum number of sockets read; with more the dump fails.
const SOCKETS_MAX: usize = 262_144;

/// States of `net/tcp_states.h`. The kernel reports `TCP_BOUND_INACTIVE` since Linux 6.8.
const STATES: [(u8, &str); 13] = [
    (1, "ESTABLISHED"),
    (2, "SYN_SENT"),
    (3, "SYN_RECV"),
    (4, "FIN_WAIT1"),
    (5, "FIN_WAIT2"),
    (6, "TIME_WAIT"),
    (7, "CLOSE"),
    (8, "CLOSE_WAIT"),
    (9, "LAST_ACK"),
    (10, "LISTEN"),
    (11, "CLOSING"),
    (12, "NEW_SYN_RECV"),
    (13, "BOUND"),
];

pub(crate) const TIME_WAIT: u8 = 6;
pub(crate) const LISTEN: u8 = 10;
pub(crate) const BOUND: u8 = 13;

/// TCP socket, as reported by `sock_diag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiagSocket {
    pub(crate) state: u8,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Inode number; 0 if no process holds the socket.
    pub(crate) inode: u32,
    pub(crate) only_v6: bool,
    /// Interface the socket is bound to (`idiag_if`).
    pub(crate) device: Option<NetDevice>,
    /// Milliseconds until its timer expires: in `TIME_WAIT`, until it ends.
    pub(crate) timer_ms: u32,
}

impl DiagSocket {
    /// Returns the state's name as in `ss`, except for `BOUND`, which `ss` shows as `UNCONN`.
    pub(crate) fn state_name(&self) -> &'static str {
        let known = STATES.iter().find(|(state, _)| *state == self.state);
        known.map_or("UNKNOWN", |(_, name)| name)
    }
}

/// Lists the sockets that listen or are only bound.
pub(crate) fn bound() -> io::Result<Vec<DiagSocket>> {
    dump(1 << LISTEN | 1 << BOUND, None)
}

/// Lists the sockets in all other states.
pub(crate) fn connected() -> io::Result<Vec<DiagSocket>> {
    dump(connected_states(), None)
}

/// Lists the connected sockets with this remote port; the kernel filters them.
pub(crate) fn connected_to(port: u16) -> io::Result<Vec<DiagSocket>> {
    dump(connected_states(), Some(port))
}

fn connected_states() -> u32 {
    let states = STATES.iter().map(|(state, _)| 1_u32 << state).sum::<u32>();
    states & !(1 << LISTEN | 1 << BOUND)
}

fn dump(states: u32, remote_port: Option<u16>) -> io::Result<Vec<DiagSocket>> {
    let mut id = [0; ID_LEN];
    let [_, _, high, low, ..] = &mut id;
    [*high, *low] = remote_port.unwrap_or(0).to_be_bytes();
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        // No extensions, one byte of padding, the states and the ports to match.
        let mut body = vec![family, IPPROTO_TCP, 0, 0];
        body.extend(states.to_ne_bytes());
        body.extend(id);
        let request = netlink::request(BY_FAMILY, FLAGS, &body)?;
        netlink::ask(NETLINK_SOCK_DIAG, &request, |kind, message| {
            if kind == BY_FAMILY && found.len() < SOCKETS_MAX {
                found.extend(parse(message));
            }
        })?;
    }
    if found.len() >= SOCKETS_MAX {
        return Err(io::Error::other(
            "the namespace has too many sockets to list",
        ));
    }
    Ok(found)
}

/// Parses `struct inet_diag_msg` and its attributes.
fn parse(message: &[u8]) -> Option<DiagSocket> {
    let &[family, state, ..] = message else {
        return None;
    };
    let port = |at: usize| {
        let bytes = message.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    };
    let only_v6 = attributes(message.get(MESSAGE_LEN..)?)
        .any(|(kind, value)| kind == ONLY_V6 && value.first() == Some(&1));
    Some(DiagSocket {
        state,
        local: SocketAddr::new(address(family, message.get(8..)?)?, port(4)?),
        remote: SocketAddr::new(address(family, message.get(24..)?)?, port(6)?),
        inode: u32_at(message, 68)?,
        only_v6,
        device: device(u32_at(message, 40)?),
        timer_ms: u32_at(message, 52)?,
    })
}

fn device(index: u32) -> Option<NetDevice> {
    (index != 0).then(|| route::device(index))
}

/// Parses the address at the start; a v4-mapped one becomes IPv4.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let octets: &[u8; 4] = bytes.first_chunk()?;
            Some(Ipv4Addr::from(*octets).into())
        }
        AF_INET6 => {
            let octets: &[u8; 16] = bytes.first_chunk()?;
            Some(Ipv6Addr::from(*octets).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn finds_this_process_sockets() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let local = server.local_addr().unwrap();
        let is_server = |sock: &&DiagSocket| sock.local == local && sock.state == LISTEN;
        assert!(bound().unwrap().iter().find(is_server).unwrap().inode > 0);
        let client = TcpStream::connect(local).unwrap();
        let own = client.local_addr().unwrap();
        let found = connected().unwrap();
        let sock = found.iter().find(|sock| sock.local == own).unwrap();
        assert_eq!((sock.remote, sock.state_name()), (local, "ESTABLISHED"));
        assert!(
            !found
                .iter()
                .any(|sock| [LISTEN, BOUND].contains(&sock.state))
        );
    }

    #[test]
    fn knows_who_takes_only_ipv6() {
        let server = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let local = server.local_addr().unwrap();
        let found = bound().unwrap();
        let sock = found.iter().find(|sock| sock.local == local).unwrap();
        assert!(!sock.only_v6);
    }
}
