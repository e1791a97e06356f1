//! SYNs of nobody's socket: scans and floods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::libc::IPPROTO_RAW;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Sends SYNs to one port from the network namespace that it was made in.
pub struct RawSyns {
    socket: Socket,
    to: SockAddr,
    packet: [u8; 40],
}

impl RawSyns {
    /// Opens a raw socket for SYNs to this address and port.
    pub fn to((address, port): (Ipv4Addr, u16)) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[3] = 40;
        packet[8] = 64;
        packet[9] = 6;
        packet[16..20].copy_from_slice(&address.octets());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[32] = 0x50;
        packet[33] = 2;
        Self {
            socket: socket.unwrap(),
            to: SocketAddr::new(IpAddr::V4(address), 0).into(),
            packet,
        }
    }

    /// Sends one from this address and port, unless the device's queue is full.
    pub fn send(&mut self, (address, port): (Ipv4Addr, u16)) {
        self.packet[12..16].copy_from_slice(&address.octets());
        self.packet[20..22].copy_from_slice(&port.to_be_bytes());
        let _ = self.socket.send_to(&self.packet, &self.to);
    }
}
