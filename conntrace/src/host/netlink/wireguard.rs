//! Peers of WireGuard interfaces, read through the generic netlink family `wireguard`.
//!
//! The kernel's answer holds the interface's private key too. It is not parsed, and leaves this
//! module as little as the peers' keys do.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use netlink_sys::protocols::NETLINK_GENERIC;

use super::{
    push,
    route::{addr, covers, typed},
    u16_at,
};
use crate::{
    diagnosis::tunnel_facts::{WireguardHandshake, WireguardPeer},
    host::netlink,
};

/// `NLM_F_REQUEST`, for a dump combined with `NLM_F_DUMP`.
const REQUEST: u16 = 1;
const DUMP: u16 = REQUEST | 0x300;
/// Size of `struct genlmsghdr`.
const HEADER_LEN: usize = 4;
const VERSION: u8 = 1;
/// `GENL_ID_CTRL`, the family that knows the others.
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const WG_CMD_GET_DEVICE: u8 = 0;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Size of a Curve25519 public key.
const KEY_LEN: usize = 32;

/// Finds the peer that packets to this address are encrypted for: the one with the longest allowed
/// prefix that contains it. `None` if the interface has none.
///
/// # Errors
/// See [`netlink::exchange`]; `PermissionDenied` without `CAP_NET_ADMIN` over the namespace.
pub(crate) fn peer(device: u32, to: IpAddr) -> io::Result<Option<WireguardPeer>> {
    let mut body = command(WG_CMD_GET_DEVICE);
    push(&mut body, WGDEVICE_A_IFINDEX, &device.to_ne_bytes());
    let request = netlink::request(family()?, DUMP, &body)?;
    let mut peers = Peers::to(to);
    netlink::ask_while(NETLINK_GENERIC, &request, |_, body| {
        let read = body
            .get(HEADER_LEN..)
            .and_then(|attributes| peers.read(attributes));
        read.ok_or_else(|| io::ErrorKind::InvalidData.into())
    })?;
    Ok(peers.chosen(SystemTime::now()))
}

/// Asks for the number of the family. The kernel loads no module for it: an interface of that kind
/// is there already.
fn family() -> io::Result<u16> {
    let mut body = command(CTRL_CMD_GETFAMILY);
    push(&mut body, CTRL_ATTR_FAMILY_NAME, b"wireguard\0");
    let request = netlink::request(CONTROLLER, REQUEST, &body)?;
    let mut found = None;
    netlink::ask_while(NETLINK_GENERIC, &request, |_, body| {
        let mut attributes = typed(body.get(HEADER_LEN..).unwrap_or_default());
        let id = attributes.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        found = id.and_then(|(_, id)| u16_at(id, 0));
        Ok(())
    })?;
    found.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// `struct genlmsghdr`.
fn command(command: u8) -> Vec<u8> {
    vec![command, VERSION, 0, 0]
}

/// Peers of an interface, read message by message: one with many allowed prefixes goes on in the
/// next message, which repeats its key alone.
struct Peers {
    to: IpAddr,
    /// Endpoint, and time of the last handshake since 1970 in seconds, 0 for none, by public key.
    known: HashMap<[u8; KEY_LEN], (Option<SocketAddr>, u64)>,
    /// Length of the longest prefix that contains the address, and the key of its peer.
    best: Option<(u8, [u8; KEY_LEN])>,
}

impl Peers {
    fn to(to: IpAddr) -> Self {
        Self {
            to,
            known: HashMap::new(),
            best: None,
        }
    }

    /// Reads the attributes of a message; `None` if they are malformed.
    fn read(&mut self, attributes: &[u8]) -> Option<()> {
        let peers = typed(attributes).filter(|(kind, _)| *kind == WGDEVICE_A_PEERS);
        for (_, peer) in peers.flat_map(|(_, peers)| typed(peers)) {
            self.read_peer(peer)?;
        }
        Some(())
    }

    fn read_peer(&mut self, peer: &[u8]) -> Option<()> {
        let (_, key) = typed(peer).find(|(kind, _)| *kind == WGPEER_A_PUBLIC_KEY)?;
        let key = *key.first_chunk()?;
        for (kind, value) in typed(peer) {
            match kind {
                WGPEER_A_ENDPOINT => self.known.entry(key).or_default().0 = endpoint(value),
                WGPEER_A_LAST_HANDSHAKE_TIME => {
                    // `struct __kernel_timespec` begins with the seconds.
                    let seconds = i64::from_ne_bytes(*value.first_chunk()?);
                    self.known.entry(key).or_default().1 = seconds.try_into().ok()?;
                }
                WGPEER_A_ALLOWEDIPS => {
                    for (_, prefix) in typed(value) {
                        self.read_prefix(prefix, key)?;
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    fn read_prefix(&mut self, prefix: &[u8], key: [u8; KEY_LEN]) -> Option<()> {
        let value = |sought| typed(prefix).find(|(kind, _)| *kind == sought);
        let network = addr(value(WGALLOWEDIP_A_IPADDR)?.1)?;
        let len = *value(WGALLOWEDIP_A_CIDR_MASK)?.1.first()?;
        if covers((network, len), self.to) && self.best.is_none_or(|(best, _)| best < len) {
            self.best = Some((len, key));
        }
        Some(())
    }

    /// Returns the peer of the longest prefix.
    fn chosen(&self, now: SystemTime) -> Option<WireguardPeer> {
        let (_, key) = self.best?;
        let &(endpoint, shaken_s) = self.known.get(&key)?;
        let now_s = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let handshake = match shaken_s {
            0 => WireguardHandshake::Never,
            then_s => WireguardHandshake::Ago(now_s.saturating_sub(then_s)),
        };
        Some(WireguardPeer {
            endpoint,
            handshake,
        })
    }
}

/// Parses `struct sockaddr_in` or `struct sockaddr_in6`.
fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let ip = match u16_at(bytes, 0)? {
        AF_INET => addr(bytes.get(4..8)?)?,
        AF_INET6 => addr(bytes.get(8..24)?)?,
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NESTED: u16 = 0x8000;

    fn nested(kind: u16, of: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, kind | NESTED, &of.concat());
        bytes
    }

    fn plain(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, kind, value);
        bytes
    }

    fn prefix(network: &[u8], len: u8) -> Vec<u8> {
        let family = if network.len() == 4 { 2_u16 } else { 10 };
        let family = plain(1, &family.to_ne_bytes());
        nested(0, &[family, plain(2, network), plain(3, &[len])])
    }

    /// A message about one peer.
    fn message(key: u8, facts: &[Vec<u8>], prefixes: &[Vec<u8>]) -> Vec<u8> {
        let mut peer = vec![plain(1, &[key; KEY_LEN])];
        peer.extend(facts.iter().cloned());
        peer.push(nested(9, prefixes));
        let private_key = plain(3, &[9; KEY_LEN]);
        [private_key, nested(8, &[nested(0, &peer)])].concat()
    }

    fn handshake(seconds: i64) -> Vec<u8> {
        plain(6, &[seconds.to_ne_bytes(), [0; 8]].concat())
    }

    #[test]
    fn the_longest_prefix_decides() {
        let endpoint = [2, 0, 0xca, 0x6c, 198, 51, 100, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        let wide = message(
            1,
            &[handshake(0)],
            &[prefix(&[0; 4], 0), prefix(&[0; 16], 0)],
        );
        let narrow = message(2, &[plain(4, &endpoint), handshake(1000)], &[]);
        // The peer goes on in the next message.
        let rest = message(2, &[], &[prefix(&[10, 13, 0, 0], 16)]);
        let chosen = |to: &str| {
            let mut peers = Peers::to(to.parse().unwrap());
            for message in [&wide, &narrow, &rest] {
                peers.read(message).unwrap();
            }
            peers.chosen(SystemTime::UNIX_EPOCH + Duration::from_secs(1300))
        };
        let narrow = WireguardPeer {
            endpoint: Some("198.51.100.2:51820".parse().unwrap()),
            handshake: WireguardHandshake::Ago(300),
        };
        let wide = WireguardPeer {
            endpoint: None,
            handshake: WireguardHandshake::Never,
        };
        assert_eq!(chosen("10.13.0.1"), Some(narrow));
        for to in ["10.14.0.1", "fd00::1"] {
            assert_eq!(chosen(to), Some(wide.clone()), "{to}");
        }
    }

    #[test]
    fn an_address_that_no_peer_may_have() {
        let mut peers = Peers::to("10.14.0.1".parse().unwrap());
        let only = message(1, &[handshake(5)], &[prefix(&[10, 13, 0, 0], 16)]);
        peers.read(&only).unwrap();
        assert_eq!(peers.chosen(SystemTime::now()), None);
        let without_key = nested(8, &[nested(0, &[handshake(5)])]);
        assert_eq!(peers.read(&without_key), None);
    }
}
