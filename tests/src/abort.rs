//! Kills sockets from outside, as `ss -K` does.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use socket2::Socket;

/// `SOCK_DESTROY` of `linux/sock_diag.h`.
const SOCK_DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 5;
const HEADER_LEN: usize = 16;
const REQUEST_LEN: u32 = 16 + 56;
const IPPROTO_TCP: u8 = 6;

/// A conversation with `sock_diag` of the calling thread's namespace.
pub struct Killer(OwnedFd);

impl Killer {
    /// Where the kernel kills sockets on request (`CONFIG_INET_DIAG_DESTROY`).
    ///
    /// # Errors
    /// EOPNOTSUPP where it does not.
    pub fn open() -> Result<Self, Errno> {
        let kind = SockType::Datagram;
        let diag = SockProtocol::NetlinkSockDiag;
        let killer = Self(socket(
            AddressFamily::Netlink,
            kind,
            SockFlag::SOCK_CLOEXEC,
            diag,
        )?);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        match killer.kill_between(nowhere, nowhere) {
            Err(Errno::ENOENT) | Ok(()) => Ok(killer),
            Err(refused) => Err(refused),
        }
    }

    /// Kills a connection or an attempt, seen from its own end.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn kill(&self, socket: &Socket, remote: SocketAddr) -> Result<(), Errno> {
        self.kill_between(socket.local_addr().unwrap().as_socket().unwrap(), remote)
    }

    fn kill_between(&self, local: SocketAddr, remote: SocketAddr) -> Result<(), Errno> {
        send(
            self.0.as_raw_fd(),
            &request(local, remote),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 256];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        assert!(length >= HEADER_LEN + 4, "an acknowledgement");
        let error: [u8; 4] = answer[HEADER_LEN..HEADER_LEN + 4].try_into().unwrap();
        match i32::from_ne_bytes(error) {
            0 => Ok(()),
            error => Err(Errno::from_raw(-error)),
        }
    }
}

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(REQUEST_LEN.to_ne_bytes());
    bytes.extend(SOCK_DESTROY.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    bytes.extend([0; 8]);
    let family = if remote.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    bytes.extend([u8::try_from(family).unwrap(), IPPROTO_TCP, 0, 0]);
    // In any state.
    bytes.extend([0xff; 4]);
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(address(local.ip()));
    bytes.extend(address(remote.ip()));
    // On any interface, whatever its cookie.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}

/// Sixteen bytes; IPv4 has the first four.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}
