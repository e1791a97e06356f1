//! A packet as a rule of a hook sees it.

use std::net::IpAddr;

use super::truth::{PartialByte, bytes};
use crate::diagnosis::firewall_facts::{Direction, FirewallPacket};

const IPPROTO_TCP: u8 = 6;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// All flags but ECE and CWR, which depend on ECN.
const FLAGS_KNOWN: u8 = 0x3f;
/// `IFNAMSIZ`.
const NAME_LEN: usize = 16;
/// Loads of which nothing is known have that many bytes.
const UNKNOWN_LEN: usize = 16;

/// An interface as a hook has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HookDevice {
    /// This hook has none.
    Absent,
    /// An interface of this name, and its index if that could be had.
    Named(String, Option<u32>),
    Unknown,
}

/// A change of a packet by a rule: its new value is unknown from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketChange {
    Mark,
    /// Address and port by source NAT.
    Source,
    /// Address and port by destination NAT.
    Destination,
    /// Bytes of a header.
    Header,
    /// Exempted from connection tracking.
    Untracked,
}

/// The known facts of a packet at a point of its way.
#[derive(Debug, Clone)]
pub(super) struct PacketFacts {
    pub(super) direction: Direction,
    pub(super) is_v6: bool,
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    pub(super) mark: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) arrives_by: HookDevice,
    pub(super) leaves_by: HookDevice,
    /// The destination is an address of this namespace.
    pub(super) to_own: Option<bool>,
    /// `ct state` of the packet is that of a first SYN.
    pub(super) is_new: bool,
    /// The changes that were possibly made.
    pub(super) changes: Vec<PacketChange>,
}

impl PacketFacts {
    pub(super) fn new(packet: &FirewallPacket) -> Self {
        let remote = Some(packet.remote.ip().to_canonical());
        let local = packet.local.map(|local| local.to_canonical());
        let (remote_port, local_port) = (Some(packet.remote.port()), packet.local_port);
        let (source, destination, source_port, destination_port) = match packet.direction {
            Direction::Out | Direction::Arriving => (local, remote, local_port, remote_port),
            Direction::In => (remote, local, remote_port, local_port),
        };
        Self {
            direction: packet.direction,
            is_v6: packet.remote.ip().to_canonical().is_ipv6(),
            source,
            destination,
            source_port,
            destination_port,
            mark: packet.mark,
            uid: packet.uid,
            arrives_by: HookDevice::Unknown,
            leaves_by: HookDevice::Unknown,
            to_own: (packet.direction != Direction::Out).then_some(true),
            is_new: packet.direction != Direction::In,
            changes: Vec::new(),
        }
    }

    /// Forgets what a rule may have changed.
    pub(super) fn change(&mut self, change: PacketChange) {
        if matches!(change, PacketChange::Destination | PacketChange::Header) {
            self.to_own = None;
        }
        match change {
            PacketChange::Mark => self.mark = None,
            PacketChange::Source => (self.source, self.source_port) = (None, None),
            PacketChange::Destination => (self.destination, self.destination_port) = (None, None),
            PacketChange::Header => {
                (self.source, self.source_port) = (None, None);
                (self.destination, self.destination_port) = (None, None);
            }
            PacketChange::Untracked => self.is_new = false,
        }
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
        if self.is_rerouted() && self.leaves_by != HookDevice::Absent {
            self.leaves_by = HookDevice::Unknown;
        }
    }

    /// The type of the destination, as routes have it (`RTN_LOCAL`, `RTN_UNICAST`).
    pub(super) fn destination_type(&self) -> Option<u32> {
        self.to_own.map(|to_own| if to_own { 2 } else { 1 })
    }

    /// The destination was possibly translated.
    pub(super) fn is_translated(&self) -> bool {
        let changes = [PacketChange::Destination, PacketChange::Header];
        changes.iter().any(|change| self.changes.contains(change))
    }

    /// The route was possibly chosen again (`ip_route_me_harder`).
    pub(super) fn is_rerouted(&self) -> bool {
        self.is_translated() || self.changes.contains(&PacketChange::Mark)
    }

    /// TCP flags, the reserved ones unknown.
    pub(super) fn flags(&self) -> PartialByte {
        let flags = match self.direction {
            Direction::Out | Direction::Arriving => SYN,
            Direction::In => SYN | ACK,
        };
        PartialByte::masked(flags, FLAGS_KNOWN)
    }

    /// The bytes that the expression `payload` loads from a header.
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

    /// The bytes that the expression `meta` loads in a chain of this family.
    pub(super) fn meta(&self, key: u32, family: u8) -> Vec<PartialByte> {
        match key {
            // NFT_META_PROTOCOL
            1 => {
                let kind = if self.is_v6 { 0x86dd_u16 } else { 0x0800 };
                bytes(Some(kind.to_be_bytes())).to_vec()
            }
            // NFT_META_MARK
            3 => bytes(self.mark.map(u32::to_ne_bytes)).to_vec(),
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

    /// The bytes that `ct state` loads: of a first SYN the bit NEW is set, ESTABLISHED and
    /// RELATED are not. A tuple that is used again can be INVALID (`tcp_in_window`).
    pub(super) fn state(&self) -> Vec<PartialByte> {
        if !self.is_new {
            return vec![PartialByte::UNKNOWN; 4];
        }
        let lowest = PartialByte::masked(NEW, !INVALID);
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

/// `NF_CT_STATE_INVALID_BIT`
const INVALID: u8 = 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`, in `nft` and iptables alike.
pub(super) const NEW: u8 = 8;

fn put(header: &mut [PartialByte], at: usize, part: &[PartialByte]) {
    for (to, from) in header.iter_mut().skip(at).zip(part) {
        *to = *from;
    }
}

/// The bytes of an address; none of one that is unknown, for these are unknown anyway.
fn address(address: Option<IpAddr>) -> Vec<PartialByte> {
    match address {
        Some(IpAddr::V4(address)) => address.octets().map(PartialByte::known).to_vec(),
        Some(IpAddr::V6(address)) => address.octets().map(PartialByte::known).to_vec(),
        None => Vec::new(),
    }
}

/// `nft_meta_store_ifindex`
fn index(device: &HookDevice) -> Vec<PartialByte> {
    let index = match device {
        HookDevice::Absent => Some(0),
        HookDevice::Named(_, index) => *index,
        HookDevice::Unknown => None,
    };
    bytes(index.map(u32::to_ne_bytes)).to_vec()
}

/// `nft_meta_store_ifname`
fn name(device: &HookDevice) -> Vec<PartialByte> {
    let name = match device {
        HookDevice::Absent => "",
        HookDevice::Named(name, _) => name,
        HookDevice::Unknown => return vec![PartialByte::UNKNOWN; NAME_LEN],
    };
    let name = name.bytes().chain(std::iter::repeat(0)).take(NAME_LEN);
    name.map(PartialByte::known).collect()
}
