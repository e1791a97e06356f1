//! TUN and TAP devices: network interfaces whose other end is a descriptor.
#![expect(
    unsafe_code,
    reason = "TUNSETIFF is an ioctl, and there is no safe wrapper for it"
)]

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use nix::{errno::Errno, libc};

/// First header of a packet on the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// IP header, from a TUN device.
    Ip,
    /// Ethernet header, from a TAP device.
    Ethernet,
    /// Likewise, from a device that does not resolve addresses (`IFF_NOARP`).
    EthernetWithoutArp,
}

/// `struct ifreq` as TUNSETIFF reads it. The libc crate's has a union in the
/// middle, of which only the flags could be initialised without unsafe code.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    unused: [u8; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<libc::c_short>()],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Opens what the kernel makes such devices from, non-blocking. They will be in
/// the calling thread's network namespace.
pub(super) fn open() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
}

/// Attaches `device` from [`open`] to a new interface, which is removed when the file is closed.
pub(super) fn attach(device: &File, name: &str, layer: Layer) -> io::Result<()> {
    let kind = match layer {
        Layer::Ip => libc::IFF_TUN,
        Layer::Ethernet | Layer::EthernetWithoutArp => libc::IFF_TAP,
    };
    let flags = libc::c_short::try_from(kind | libc::IFF_NO_PI).map_err(io::Error::other)?;
    let mut request = InterfaceRequest {
        name: padded(name).ok_or(io::ErrorKind::InvalidInput)?,
        flags,
        unused: [0; _],
    };
    // SAFETY: TUNSETIFF reads one `struct ifreq` and writes it back, and keeps no
    // pointer to it: `request` has its size, is ours alone, and any bytes are
    // valid for its fields.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result)?;
    Ok(())
}

/// Returns `name` padded with NUL bytes, or none if it is too long for an interface.
fn padded(name: &str) -> Option<[u8; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    let (_, room) = bytes.split_last_mut()?;
    room.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(bytes)
}
