//! Connects, and what the application was told.

use std::{fs, io, net::SocketAddr};

use nix::unistd::gettid;
use socket2::{Domain, Socket, Type};

/// An attempt as the application saw it.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// The calling thread.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Where to.
    pub remote: SocketAddr,
    /// The local port, where the socket still has one afterwards.
    pub local_port: Option<u16>,
    /// What connect returned: an errno, or 0.
    pub errno: i32,
}

/// A TCP socket for that address's family.
pub fn tcp(remote: SocketAddr) -> Socket {
    Socket::new(Domain::for_address(remote), Type::STREAM, None).unwrap()
}

/// Connects a new socket, blocking, and closes it.
pub fn attempt(remote: impl Into<SocketAddr>) -> Attempted {
    let remote = remote.into();
    attempt_on(&tcp(remote), remote)
}

/// Connects this socket.
pub fn attempt_on(socket: &Socket, remote: impl Into<SocketAddr>) -> Attempted {
    let remote = remote.into();
    let errno = match socket.connect(&remote.into()) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap(),
    };
    Attempted {
        tid: gettid().as_raw().unsigned_abs(),
        comm: comm(),
        remote,
        local_port: local_port(socket).unwrap(),
        errno,
    }
}

fn local_port(socket: &Socket) -> io::Result<Option<u16>> {
    let local = socket.local_addr()?.as_socket().unwrap();
    // After a failed connect the port may still be told, but is given back.
    Ok((!local.ip().is_unspecified()).then_some(local.port()))
}

/// The calling thread's name.
fn comm() -> String {
    fs::read_to_string("/proc/thread-self/comm").unwrap().trim_end_matches('\n').to_owned()
}
