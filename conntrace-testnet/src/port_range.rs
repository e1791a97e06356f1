//! Range that the kernel chooses a socket's local port from.

use std::{io, os::fd::AsFd};

use nix::{
    libc,
    sys::socket::{SetSockOpt as _, sockopt::SetStruct},
};

/// `IP_LOCAL_PORT_RANGE` (Linux 6.3), which the libc crate does not have.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// `IP_LOCAL_PORT_RANGE` in the form of a nix socket option.
#[derive(Clone)]
struct LocalPortRange;

nix::setsockopt_impl!(
    LocalPortRange,
    libc::IPPROTO_IP,
    IP_LOCAL_PORT_RANGE,
    u32,
    SetStruct<u32>
);

/// Lets the kernel choose the socket's port, IPv4 or IPv6, only from `low` to
/// `high`. It takes no notice of a bound outside of `ip_local_port_range`.
///
/// # Errors
/// When the kernel has no such option, or `low` is above `high`.
pub fn set_local_port_range(socket: &impl AsFd, low: u16, high: u16) -> io::Result<()> {
    let range = u32::from(high) << 16 | u32::from(low);
    Ok(LocalPortRange.set(socket, &range)?)
}
