//! A connect to no family, which ends what the socket was doing.
#![expect(
    unsafe_code,
    reason = "no crate makes an address of the family AF_UNSPEC safely"
)]

use std::io;

use nix::libc;
use socket2::{SockAddr, SockAddrStorage, Socket};

/// Connects the socket to `AF_UNSPEC`: an attempt under way is given up, and the
/// socket can be used again.
///
/// # Errors
/// When the kernel refuses.
pub fn disconnect(socket: &Socket) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>());
    let length = length.map_err(io::Error::other)?;
    // SAFETY: zeroes are an address of family AF_UNSPEC, of any length.
    let nowhere = unsafe { SockAddr::new(SockAddrStorage::zeroed(), length) };
    socket.connect(&nowhere)
}
