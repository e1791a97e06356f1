//! Facts about a packet that the rules of a hook can match.

use std::net::IpAddr;

use super::truth::{PartialByte, Truth, bytes};
use crate::diagnosis::firewall_facts::{Direction, FirewallPacket};

const IPPROTO_TCP: u8 = 6;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Mask of the flags that are known: ECE and CWR depend on ECN.
const FLAGS_KNOWN: u8 = 0x3f;
/// Length of an interface's name (`IFNAMSIZ`), in bytes.
const NAME_LEN: usize = 16;
/// Length of a load with unknown contents, in bytes.
const UNKNOWN_LEN: usize = 16;

/// Interface of a packet in a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HookDevice {
    /// The hook has no such interface.
    Absent,
    /// Name, and index if it is available.
    Named(String, Option<u32>),
    Unknown,
}

/// A packet's mark, of which some bits may be unknown.
pub(super) type Mark = [PartialByte; 4];

/// Mark of which nothing is known.
pub(super) const UNKNOWN_MARK: Mark = [PartialByte::UNKNOWN; 4];

/// Returns the bits that two possible marks share.
pub(super) fn shared(one: Mark, other: Mark) -> Mark {
    let [a, b, c, d] = one;
    let [e, f, g, h] = other;
    [a.shared(e), b.shared(f), c.shared(g), d.shared(h)]
}

/// Change of a packet by a rule; the new value is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketChange {
    Mark,
    /// Address and port, by source NAT.
    Source,
    /// Address and port, by destination NAT.
    Destination,
    /// Bytes of a header, by `payload set`.
    Header,
    /// Exemption from connection tracking.
    Untracked,
}

/// Known facts about a packet at one point of its path.
#[derive(Debug, Clone)]
pub(super) struct PacketFacts {
    pub(super) direction: Direction,
    pub(super) is_v6: bool,
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    /// Mark, in host byte order.
    pub(super) mark: Mark,
    pub(super) uid: Option<u32>,
    pub(super) arrives_by: HookDevice,
    pub(super) leaves_by: HookDevice,
    /// True if the destination is an address of this namespace.
    pub(super) to_own: Option<bool>,
    /// True if `ct state` is that of a first SYN.
    pub(super) is_new: bool,
    /// True if connection tracking has an entry for the packet, which is then not INVALID.
    pub(super) is_tracked: bool,
    /// Changes that rules may have made so far.
    pub(super) changes: Vec<PacketChange>,
}

impl PacketFacts {
    pub(super) fn new(packet: &FirewallPacket) -> Self {
        let remote = Some(packet.remote.ip().to_canonical());
        let local = packet.local.map(|local| local.to_canonical());
        let (remote_port, local_port) = (Some(packet.remote.port()), packet.local_port);
        let is_back = packet.direction.is_back();
        let (source, destination, source_port, destination_port) = if is_back {
            (remote, local, remote_port, local_port)
        } else {
            (local, remote, local_port, remote_port)
        };
        Self {
            direction: packet.direction,
            is_v6: packet.remote.ip().to_canonical().is_ipv6(),
            source,
            destination,
            source_port,
            destination_port,
            mark: bytes(packet.mark.map(u32::to_ne_bytes)),
            uid: packet.uid,
            arrives_by: HookDevice::Unknown,
            leaves_by: HookDevice::Unknown,
            to_own: match packet.direction {
                Direction::Out | Direction::OutBack => None,
                Direction::In | Direction::Arriving | Direction::Delivered => Some(true),
                Direction::Forwarded | Direction::ForwardedBack => Some(false),
            },
            is_new: !is_back,
            is_tracked: packet.asked.is_some(),
            changes: Vec::new(),
        }
    }

    /// Marks the facts that a rule may have changed as unknown.
    pub(super) fn change(&mut self, change: PacketChange) {
        if matches!(change, PacketChange::Destination | PacketChange::Header) {
            self.to_own = None;
        }
        match change {
            PacketChange::Mark => self.mark = UNKNOWN_MARK,
            PacketChange::Source => (self.source, self.source_port) = (None, None),
            PacketChange::Destination => (self.destination, self.destination_port) = (None, None),
            PacketChange::Header => {
                (self.source, self.source_port) = (None, None);
                (self.destination, self.destination_port) = (None, None);
            }
            PacketChange::Untracked => self.is_new = false,
        }
        self.remember(change);
        if self.is_rerouted() && self.leaves_by != HookDevice::Absent {
            self.leaves_by = HookDevice::Unknown;
        }
    }

    /// Adds a change to those that rules may have made.
    pub(super) fn remember(&mut self, change: PacketChange) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// Gives the packet another mark, with that certainty.
    pub(super) fn set_mark(&mut self, mark: Mark, certainty: Truth) {
        let before = self.mark;
        self.change(PacketChange::Mark);
        self.mark = match certainty {
            Truth::True => mark,
            Truth::Unknown => shared(before, mark),
            Truth::False => before,
        };
    }

    /// Returns the destination's route type (`RTN_LOCAL`, `RTN_UNICAST`).
    pub(super) fn destination_type(&self) -> Option<u32> {
        self.to_own.map(|to_own| if to_own { 2 } else { 1 })
    }

    /// Returns true if the destination may have been translated.
    pub(super) fn is_translated(&self) -> bool {
        let changes = [PacketChange::Destination, PacketChange::Header];
        changes.iter().any(|change| self.changes.contains(change))
    }

    /// Returns true if the route may have been chosen again (`ip_route_me_harder`).
    pub(super) fn is_rerouted(&self) -> bool {
        self.is_translated() || self.changes.contains(&PacketChange::Mark)
    }

    /// Returns the TCP flags, of which ECE and CWR are unknown.
    pub(super) fn flags(&self) -> PartialByte {
        let flags = if self.direction.is_back() {
            SYN | ACK
        } else {
            SYN
        };
        PartialByte::masked(flags, FLAGS_KNOWN)
    }

    /// Returns the bytes that the expression `payload` loads from a header.
    pub(super) fn payload(&self, base: u32, offset: usize, len: usize) -> Vec<PartialByte> {
        let header = match base {
            // NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER
            1 => self.network_header(),
            2 => self.transport_header(),
            _ => Vec::new(),
        };
        let rest = header.into_iter().skip(offset);
        rest.chain(std::iter::repeat(PartialByte::UNKNOWN))
            .take(len)
            .collect()
    }

    fn network_header(&self) -> Vec<PartialByte> {
        let (len, version, protocol, source, destination) = if self.is_v6 {
            (IPV6_LEN, 0x60, 6, 8, 24)
        } else {
            (IPV4_LEN, 0x40, 9, 12, 16)
        };
        let mut header = vec![PartialByte::UNKNOWN; len];
        put(&mut header, 0, &[PartialByte::masked(version, 0xf0)]);
        put(&mut header, protocol, &[PartialByte::known(IPPROTO_TCP)]);
        put(&mut header, source, &address(self.source));
        put(&mut header, destination, &address(self.destination));
        header
    }

    fn transport_header(&self) -> Vec<PartialByte> {
        let mut header = vec![PartialByte::UNKNOWN; TCP_LEN];
        put(
            &mut header,
            0,
            &bytes(self.source_port.map(u16::to_be_bytes)),
        );
        let destination = self.destination_port.map(u16::to_be_bytes);
        put(&mut header, 2, &bytes(destination));
        put(&mut header, 13, &[self.flags()]);
        header
    }

    /// Returns the bytes that the expression `meta` loads in a chain of this family.
    pub(super) fn meta(&self, key: u32, family: u8) -> Vec<PartialByte> {
        match key {
            // NFT_META_PROTOCOL
            1 => {
                let kind = if self.is_v6 { 0x86dd_u16 } else { 0x0800 };
                bytes(Some(kind.to_be_bytes())).to_vec()
            }
            // NFT_META_MARK
            3 => self.mark.to_vec(),
            // NFT_META_IIF, _OIF, _IIFNAME, _OIFNAME
            4 => index(&self.arrives_by),
            5 => index(&self.leaves_by),
            6 => name(&self.arrives_by),
            7 => name(&self.leaves_by),
            // NFT_META_SKUID
            10 => bytes(self.uid.map(u32::to_ne_bytes)).to_vec(),
            // NFT_META_NFPROTO
            15 => vec![PartialByte::known(self.protocol_family(family))],
            // NFT_META_L4PROTO
            16 => vec![PartialByte::known(IPPROTO_TCP)],
            _ => vec![PartialByte::UNKNOWN; UNKNOWN_LEN],
        }
    }

    fn protocol_family(&self, family: u8) -> u8 {
        match (family, self.is_v6) {
            // NFPROTO_NETDEV
            (5, _) => 5,
            // NFPROTO_IPV6, NFPROTO_IPV4
            (_, true) => 10,
            (_, false) => 2,
        }
    }

    /// Returns the bytes that `ct state` loads. For a first SYN the bit NEW is set, and ESTABLISHED
    /// and RELATED are clear. A reused tuple can be INVALID (`tcp_in_window`), unless the packet has
    /// an entry.
    pub(super) fn state(&self) -> Vec<PartialByte> {
        if !self.is_new {
            return vec![PartialByte::UNKNOWN; 4];
        }
        let known = if self.is_tracked { u8::MAX } else { !INVALID };
        let lowest = PartialByte::masked(NEW, known);
        let mut state = [
            lowest,
            PartialByte::ZERO,
            PartialByte::ZERO,
            PartialByte::ZERO,
        ];
        if cfg!(target_endian = "big") {
            state.reverse();
        }
        state.to_vec()
    }
}

/// Bit `NF_CT_STATE_INVALID_BIT`, the same in `nft` and iptables.
pub(super) const INVALID: u8 = 1;
/// Bit `NF_CT_STATE_BIT(IP_CT_NEW)`, the same in `nft` and iptables.
pub(super) const NEW: u8 = 8;

fn put(header: &mut [PartialByte], at: usize, part: &[PartialByte]) {
    for (to, from) in header.iter_mut().skip(at).zip(part) {
        *to = *from;
    }
}

/// Returns the bytes of an address; none if it is unknown, as the header is by default.
fn address(address: Option<IpAddr>) -> Vec<PartialByte> {
    match address {
        Some(IpAddr::V4(address)) => address.octets().map(PartialByte::known).to_vec(),
        Some(IpAddr::V6(address)) => address.octets().map(PartialByte::known).to_vec(),
        None => Vec::new(),
    }
}

/// Encodes an interface's index as `nft_meta_store_ifindex` does.
fn index(device: &HookDevice) -> Vec<PartialByte> {
    let index = match device {
        HookDevice::Absent => Some(0),
        HookDevice::Named(_, index) => *index,
        HookDevice::Unknown => None,
    };
    bytes(index.map(u32::to_ne_bytes)).to_vec()
}

/// Encodes an interface's name as `nft_meta_store_ifname` does.
fn name(device: &HookDevice) -> Vec<PartialByte> {
    let name = match device {
        HookDevice::Absent => "",
        HookDevice::Named(name, _) => name,
        HookDevice::Unknown => return vec![PartialByte::UNKNOWN; NAME_LEN],
    };
    let name = name.bytes().chain(std::iter::repeat(0)).take(NAME_LEN);
    name.map(PartialByte::known).collect()
}
