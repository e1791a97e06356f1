//! TCP sockets of the calling thread's network namespace, asked for through `sock_diag`. The kernel
//! filters, and each socket that passes is handed over as it comes: none is stored here.

mod filter;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::ControlFlow,
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use self::filter::{SocketFilter, from, one_of, to};
use super::{attributes, u32_at};
use crate::host::netlink;

/// Message type `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, for a dump combined with `NLM_F_DUMP`.
const REQUEST: u16 = 0x1;
const DUMP: u16 = REQUEST | 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Size of `struct inet_diag_msg`.
const MESSAGE_LEN: usize = 72;
/// Attribute `INET_DIAG_SKMEMINFO`, and the position of `SK_MEMINFO_DROPS` in it.
const SK_MEMINFO: u16 = 7;
const DROPS_AT: usize = 32;
/// Attribute `INET_DIAG_SKV6ONLY`.
const ONLY_V6: u16 = 11;
/// Attribute `INET_DIAG_INFO`.
const INFO: u16 = 2;
/// Offset of `tcpi_last_ack_recv` in `struct tcp_info`.
const LAST_ACK_RECEIVED: usize = 56;
/// Duration of `TIME_WAIT` in milliseconds (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT_MS: u32 = 60_000;

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
const CLOSE: u8 = 7;
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
    /// User that created it (`idiag_uid`).
    pub(crate) uid: u32,
    pub(crate) only_v6: bool,
    /// Index of the interface the socket is bound to (`idiag_if`); 0 if it is bound to none.
    pub(crate) device: u32,
    /// Connections that wait to be accepted, of a listener (`idiag_rqueue`), and its backlog
    /// (`idiag_wqueue`).
    pub(crate) waiting: u32,
    pub(crate) backlog: u32,
    /// Packets that it has dropped (`sk_drops`), if asked for.
    pub(crate) drops: u32,
    /// Milliseconds until its timer expires: in `TIME_WAIT`, until it ends.
    pub(crate) timer_ms: u32,
}

impl DiagSocket {
    /// Returns the state's name as in `ss`, except for `BOUND`, which `ss` shows as `UNCONN`.
    pub(crate) fn state_name(&self) -> &'static str {
        let known = STATES.iter().find(|(state, _)| *state == self.state);
        known.map_or("UNKNOWN", |(_, name)| name)
    }

    /// Returns true if the socket has a destination.
    pub(crate) fn is_connected(&self) -> bool {
        // A bound socket is selected as `TCP_BOUND_INACTIVE` and reported as `TCP_CLOSE`.
        !matches!(self.state, LISTEN | BOUND | CLOSE)
    }
}

/// Passes each listener on this port to `each`. The kernel walks its table of listeners only
/// (`inet_diag_dump_icsk`).
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn listeners(
    port: u16,
    each: impl FnMut(DiagSocket) -> ControlFlow<()>,
) -> io::Result<()> {
    let filter = SocketFilter::of(1 << LISTEN).with_memory();
    dump(&filter.local_port(port), BOTH, each)
}

/// Passes each socket with this local port to `each`: those that listen or are bound, then those that
/// are connected.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn with_local_port(
    port: u16,
    mut each: impl FnMut(DiagSocket) -> ControlFlow<()>,
) -> io::Result<()> {
    for states in [1 << LISTEN | 1 << BOUND, connected_states()] {
        // Of bound sockets the kernel passes those of every port (`inet_diag_dump_icsk`).
        dump(&SocketFilter::of(states).local_port(port), BOTH, |sock| {
            if sock.local.port() == port {
                each(sock)
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    Ok(())
}

/// Passes each listener to `each`.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn all_listeners(each: impl FnMut(DiagSocket) -> ControlFlow<()>) -> io::Result<()> {
    dump(&SocketFilter::of(1 << LISTEN), BOTH, each)
}

/// Passes each listener on one of these ports to `each`.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn listeners_on(
    ports: &[u16],
    each: impl FnMut(DiagSocket) -> ControlFlow<()>,
) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let filter = SocketFilter::of(1 << LISTEN).code(one_of(ports));
    dump(&filter, BOTH, each)
}

/// Passes each socket to `each`, in whatever state.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn all(each: impl FnMut(DiagSocket) -> ControlFlow<()>) -> io::Result<()> {
    let states = STATES.iter().map(|(state, _)| 1_u32 << state).sum();
    dump(&SocketFilter::of(states), BOTH, each)
}

/// Passes each connected socket with this remote port to `each`.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn connected_to(
    port: u16,
    each: impl FnMut(DiagSocket) -> ControlFlow<()>,
) -> io::Result<()> {
    let filter = SocketFilter::of(connected_states()).remote_port(port);
    dump(&filter, BOTH, each)
}

/// Passes each connection from this local address to `each`, with the milliseconds since its remote
/// host's last acknowledgement.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn heard_from(
    local: IpAddr,
    mut each: impl FnMut(DiagSocket, u32) -> ControlFlow<()>,
) -> io::Result<()> {
    let states = HEARD.iter().map(|state| 1_u32 << state).sum();
    let filter = SocketFilter::of(states).code(from(local)).with_info();
    let families = if local.is_ipv4() { BOTH } else { &[AF_INET6] };
    dump_messages(&filter, families, |message| {
        match (parse(message), heard_ms(message)) {
            (Some(sock), Some(ago_ms)) => each(sock, ago_ms),
            (Some(_), None) | (None, _) => ControlFlow::Continue(()),
        }
    })
}

/// Milliseconds since a connection's last acknowledgement came.
fn heard_ms(message: &[u8]) -> Option<u32> {
    if *message.get(1)? == TIME_WAIT {
        // The last segment began it.
        return Some(TIME_WAIT_MS.saturating_sub(u32_at(message, 52)?));
    }
    let mut attributes = attributes(message.get(MESSAGE_LEN..)?);
    let (_, info) = attributes.find(|(kind, _)| *kind == INFO)?;
    u32_at(info, LAST_ACK_RECEIVED)
}

/// Finds the connected socket with these ends.
///
/// The kernel's hash table has one such socket that is bound to no interface. Where it has none,
/// those with both ports are searched: one may be bound to an interface.
///
/// # Errors
/// See [`netlink::exchange`].
pub(crate) fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<DiagSocket>> {
    let mut found = None;
    let mut each = |sock: DiagSocket| {
        if sock.is_connected() && sock.local == local && sock.remote == remote {
            found = Some(sock);
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let filter = SocketFilter::of(connected_states())
        .local_port(local.port())
        .remote_port(remote.port());
    if let Some(sock) = one(&filter.exact(local.ip(), remote.ip()), remote.ip())?
        && each(sock).is_break()
    {
        return Ok(found);
    }
    let families = if remote.is_ipv4() { BOTH } else { &[AF_INET6] };
    dump(&filter.code(to(remote.ip())), families, each)?;
    Ok(found)
}

const BOTH: &[u8] = &[AF_INET, AF_INET6];
/// States of connections whose handshake has completed.
const HEARD: [u8; 7] = [1, 4, 5, TIME_WAIT, 8, 9, 11];

fn connected_states() -> u32 {
    let states = STATES.iter().map(|(state, _)| 1_u32 << state).sum::<u32>();
    states & !(1 << LISTEN | 1 << BOUND)
}

/// Asks for one socket by its ends (`inet_diag_find_one_icsk`). Where none has them, the kernel
/// answers with a listener that would accept them.
fn one(filter: &SocketFilter, addr: IpAddr) -> io::Result<Option<DiagSocket>> {
    let family = if addr.is_ipv4() { AF_INET } else { AF_INET6 };
    let request = netlink::request(BY_FAMILY, REQUEST, &filter.body(family))?;
    let mut found = None;
    let outcome = netlink::exchange(NETLINK_SOCK_DIAG, &request, |kind, message| {
        if kind == BY_FAMILY {
            found = parse(message);
        }
        Ok(())
    })?;
    match outcome {
        Ok(()) => Ok(found),
        Err(libc::ENOENT) => Ok(None),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn dump(
    filter: &SocketFilter,
    families: &[u8],
    mut each: impl FnMut(DiagSocket) -> ControlFlow<()>,
) -> io::Result<()> {
    dump_messages(filter, families, |message| {
        parse(message).map_or(ControlFlow::Continue(()), &mut each)
    })
}

fn dump_messages(
    filter: &SocketFilter,
    families: &[u8],
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut has_enough = false;
    for family in families {
        let request = netlink::request(BY_FAMILY, DUMP, &filter.body(*family))?;
        // The kernel has no way to say that this dump is inconsistent.
        netlink::dump(NETLINK_SOCK_DIAG, &request, |kind, message| {
            let next = if kind == BY_FAMILY {
                each(message)
            } else {
                ControlFlow::Continue(())
            };
            has_enough = next.is_break();
            next
        })?;
        if has_enough {
            break;
        }
    }
    Ok(())
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
    let memory = attributes(message.get(MESSAGE_LEN..)?).find(|(kind, _)| *kind == SK_MEMINFO);
    let drops = memory.and_then(|(_, value)| u32_at(value, DROPS_AT));
    Some(DiagSocket {
        state,
        local: SocketAddr::new(address(family, message.get(8..)?)?, port(4)?),
        remote: SocketAddr::new(address(family, message.get(24..)?)?, port(6)?),
        inode: u32_at(message, 68)?,
        uid: u32_at(message, 64)?,
        only_v6,
        device: u32_at(message, 40)?,
        waiting: u32_at(message, 56)?,
        backlog: u32_at(message, 60)?,
        drops: drops.unwrap_or(0),
        timer_ms: u32_at(message, 52)?,
    })
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
mod tests;
