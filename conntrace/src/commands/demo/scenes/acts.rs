//! What scenes are made of. How an attempt ends is for the trace to say: errors
//! here are of what leads up to it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// A stream socket of that address's family.
pub(super) fn tcp(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::STREAM, None)
}

/// One that is bound to where others may be bound as well.
pub(super) fn bound(local: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(local)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// One that listens, with room for `backlog` + 1 connections.
pub(super) fn listener(local: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = bound(local)?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// The address of a host and port.
pub(super) fn at(host: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(host.into(), port)
}

/// Connects a new socket, blocking, and closes it.
pub(super) fn connect(host: impl Into<IpAddr>, port: u16) -> io::Result<()> {
    let to = at(host, port);
    ends(&tcp(to)?, to);
    Ok(())
}

/// Connects a new socket and leaves it to the caller to close it.
pub(super) fn hold(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    ends(&socket, to);
    Ok(socket)
}

/// Connects this socket: the attempt ends as it ends.
pub(super) fn ends(socket: &Socket, to: SocketAddr) {
    let _ = socket.connect(&to.into());
}

/// Begins an attempt and does not wait for its end.
pub(super) fn begin(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    socket.set_nonblocking(true)?;
    ends(&socket, to);
    Ok(socket)
}

/// Connects a new socket, waits in poll, and closes it after this long.
pub(super) fn give_up(to: SocketAddr, after: Duration) -> io::Result<()> {
    let socket = tcp(to)?;
    let _ = socket.connect_timeout(&to.into(), after);
    Ok(())
}
