//! Facts about an interface that a tunnel begins behind.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Signs of life of a tunnel's far end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Packets that the interface has received since it was made (`rx_packets`).
    pub received: u64,
    /// The WireGuard peer that packets to the destination are encrypted for; `None` of other
    /// kinds, and where the kernel does not know it (a TUN device of a program).
    pub peer: Option<WireguardPeer>,
    /// The remote host of another connection by the tunnel that was heard last.
    pub heard: Option<HeardHost>,
}

/// A peer of a WireGuard interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardPeer {
    /// Address to which the encrypted packets are sent, if one is known.
    pub endpoint: Option<SocketAddr>,
    /// The last handshake.
    pub handshake: WireguardHandshake,
}

/// The last handshake with a WireGuard peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireguardHandshake {
    /// None has completed since the peer was configured: no packet was ever encrypted for it.
    Never,
    /// Seconds since then, by the wall clock.
    Ago(u64),
}

/// A remote host that another connection has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardHost {
    /// Its address.
    pub addr: IpAddr,
    /// Seconds since its last segment.
    pub ago_s: u64,
}
