//! Closes a socket of another process with `SOCK_DESTROY`, as `ss -K` does.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// `SOCK_DESTROY` of `linux/sock_diag.h`.
const SOCK_DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 0x5;
/// `INET_DIAG_NOCOOKIE`, twice: any socket with these addresses.
const ANY_COOKIE: [u8; 8] = [0xff; 8];
/// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
const REQUEST_BYTES: u32 = 16 + 56;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `NLMSG_ERROR`: with errno 0 it is the acknowledgement.
const ERROR: u16 = 2;

/// Ends the TCP socket with these addresses in the calling thread's namespace.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel lacks `CONFIG_INET_DIAG_DESTROY`, `ENOENT`
/// where there is no such socket.
pub fn destroy(local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send_to(&request(local, remote), &NetlinkAddr::new(0, 0), 0)?;
    let (reply, _) = socket.recv_from_full()?;
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let code = reply.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), code.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::other("the answer is not an acknowledgement")),
    }
}

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(REQUEST_BYTES.to_ne_bytes());
    bytes.extend(SOCK_DESTROY.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    // Sequence number and port id: there is one request, and one answer.
    bytes.extend([0; 8]);
    let family = match remote {
        SocketAddr::V4(_) => AF_INET,
        SocketAddr::V6(_) => AF_INET6,
    };
    // No extensions, one byte of padding.
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    // In any state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(addr) => {
                bytes.extend(addr.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(addr) => bytes.extend(addr.octets()),
        }
    }
    // On any interface.
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(ANY_COOKIE);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_long_as_it_says() {
        for end in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            let end = end.parse().unwrap();
            assert_eq!(request(end, end).len(), REQUEST_BYTES as usize);
        }
    }
}
