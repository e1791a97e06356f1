//! Namespace without a far end, and a TUN device, for packets that the caller writes itself.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
};

use nix::sched::{CloneFlags, unshare};

use super::{Layer, Links, PREFIX_LENGTH_V4, TestnetError, raise};

/// Moves the calling thread to a new network namespace in which only `lo` is up.
///
/// # Errors
///
/// When the kernel refuses.
pub fn enter_bare() -> Result<(), TestnetError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| TestnetError::Namespace(error.into()))?;
    let mut links = Links::open().map_err(TestnetError::Link)?;
    links.set_up("lo").map_err(TestnetError::Link)
}

/// Name of the device of [`tunnel`].
pub const TUNNEL_DEVICE: &str = "tun0";

/// Makes a TUN device with this address of a /24 network in the calling thread's namespace. Whoever
/// has the file, which does not block, is every other host of that network.
///
/// # Errors
///
/// When the kernel refuses, or has no TUN devices.
pub fn tunnel(local: Ipv4Addr) -> Result<File, TestnetError> {
    let mut links = Links::open().map_err(TestnetError::Link)?;
    let address = (IpAddr::V4(local), PREFIX_LENGTH_V4);
    raise(&mut links, TUNNEL_DEVICE, Layer::Ip, &[address])
}
