//! One function for each way an attempt is made to end, shared by the catalogue and by tests
//! that make attempts by the thousand.
//!
//! An error is one of the preparation: the kernel has no such socket, or refuses an option. The
//! result of the attempt itself is left to the trace.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::{destroy, disconnect};

/// Time after which an application gives up: longer than the default of `--patience`.
pub const DEADLINE: Duration = Duration::from_millis(300);
/// Time after which an application gives up: longer than until the first retransmission.
pub const LATE_DEADLINE: Duration = Duration::from_millis(1200);
/// `TCP_USER_TIMEOUT` of attempts that the kernel gives up after one retransmission.
pub const USER_TIMEOUT: Duration = Duration::from_millis(1500);

/// Makes a TCP socket for the address family of the destination.
pub fn tcp(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::STREAM, None)
}

/// Makes a socket with `SO_REUSEADDR` and binds it.
pub fn bound(local: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(local)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// Makes a listener whose accept queue holds `backlog` + 1 connections.
pub fn listener(local: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = bound(local)?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Connects a socket, and takes any result of the attempt.
pub fn attempt(socket: &Socket, to: SocketAddr) {
    let _ = socket.connect(&to.into());
}

/// Connects a new socket, blocking, and closes it.
pub fn connect(to: SocketAddr) -> io::Result<()> {
    hold(to).map(drop)
}

/// Connects a new socket, blocking, and keeps it open.
pub fn hold(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to)?;
    attempt(&socket, to);
    Ok(socket)
}

/// Begins an attempt on a non-blocking socket. The kernel gives up after `user_timeout`.
///
/// # Errors
/// When the attempt is not under way afterwards.
pub fn begin(to: SocketAddr, user_timeout: Option<Duration>) -> io::Result<Socket> {
    let socket = tcp(to)?;
    socket.set_tcp_user_timeout(user_timeout)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(socket),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::other("the attempt ended at once")),
    }
}

/// Waits in connect until the kernel gives up after [`USER_TIMEOUT`].
pub fn kernel_gives_up(to: SocketAddr) -> io::Result<()> {
    let socket = tcp(to)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    attempt(&socket, to);
    Ok(())
}

/// Connects a new socket, waits in poll, and closes the socket after this long.
pub fn give_up(to: SocketAddr, after: Duration) -> io::Result<()> {
    let _ = tcp(to)?.connect_timeout(&to.into(), after);
    Ok(())
}

/// Way in which an application ends an attempt that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Closes the socket.
    Close,
    /// Calls shutdown.
    Shutdown,
    /// Connects to `AF_UNSPEC`.
    Disconnect,
}

/// Ends the attempt. The socket comes back unless it was closed.
///
/// # Errors
/// When the kernel refuses to shut down or to disconnect.
pub fn leave(socket: Socket, way: Leave) -> io::Result<Option<Socket>> {
    match way {
        Leave::Close => return Ok(None),
        Leave::Shutdown => {
            let result = socket.shutdown(Shutdown::Both);
            // Linux ends the attempt and may still return ENOTCONN.
            if let Err(error) = result
                && error.raw_os_error() != Some(Errno::ENOTCONN as i32)
            {
                return Err(error);
            }
        }
        Leave::Disconnect => disconnect(&socket)?,
    }
    Ok(Some(socket))
}

/// Ends an attempt from outside of its socket, as `ss -K` does.
///
/// # Errors
/// When the kernel lacks `CONFIG_INET_DIAG_DESTROY`, or the attempt has ended.
pub fn kill(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    let local = socket.local_addr()?.as_socket();
    destroy(local.ok_or(io::ErrorKind::InvalidData)?, to)
}

/// Checks that the kernel lets one end the sockets of others.
///
/// # Errors
/// When the kernel lacks `CONFIG_INET_DIAG_DESTROY`, or does not permit it.
pub fn can_kill() -> io::Result<()> {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    match destroy(nobody, nobody) {
        // The kernel looked for the socket.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        result => result,
    }
}

/// Returns true if the kernel has `CONFIG_INET_DIAG_DESTROY`. Without it the kernel does not even
/// search for the socket.
#[must_use]
pub fn has_sock_destroy() -> bool {
    !can_kill().is_err_and(|error| error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32))
}
