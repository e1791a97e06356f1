//! The way of a packet out of a network namespace, and the facts about it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Everything of a socket that decides which way its packets take
/// (`struct flowi4`, `struct flowi6`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// Destination address.
    pub to: IpAddr,
    /// Source address that the application chose by bind; `None` where the kernel
    /// chooses it by the route.
    pub from: Option<IpAddr>,
    /// Index of the interface the socket is bound to (`SO_BINDTODEVICE`, the zone of
    /// a link-local address).
    pub device: Option<u32>,
    /// Firewall mark (`SO_MARK`).
    pub mark: u32,
    /// Owner of the socket, a user id of the initial user namespace.
    pub uid: Option<u32>,
    /// Destination port.
    pub port: u16,
}

impl Flow {
    /// Returns the flow of packets to this address and port of which nothing else is known.
    #[must_use]
    pub fn to(to: IpAddr, port: u16) -> Self {
        Self {
            to,
            from: None,
            device: None,
            mark: 0,
            uid: None,
            port,
        }
    }
}

/// The outcome of a route look-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Delivered in this namespace.
    Local,
    /// Out of an interface.
    Out(RouteOut),
    /// No way: connect returns this errno.
    None(i32),
}

/// The way out of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteOut {
    /// The next hop; `None` if the destination itself is the neighbour.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub device: NetDevice,
    /// Prefix length of the route: 0 for a default route.
    pub prefix_len: u8,
    /// Routing table of the route. 0 (`RT_TABLE_UNSPEC`) if none has one: the kernel
    /// then takes any IPv4 destination of a socket bound to a device for on-link.
    pub table: u32,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetDevice {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
}

/// The route or rule that forbids a way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEnd {
    /// The manner in which it forbids, which decides the errno.
    pub kind: DeadEndKind,
    /// The rule that forbids, or that looks up the table with the route that does.
    pub rule: RuleFacts,
    /// Table of the route that forbids; `None` if the rule itself does.
    pub table: Option<u32>,
    /// Destination prefix of the route that forbids; `None` if the rule itself does.
    pub prefix: Option<(IpAddr, u8)>,
    /// The route that later rules would give: a way that exists and is not used.
    pub instead: Option<RouteOut>,
}

/// Types of routes and rules that forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadEndKind {
    /// `EHOSTUNREACH` by a route, `ENETUNREACH` by a rule.
    Unreachable,
    /// `EINVAL`.
    Blackhole,
    /// `EACCES`.
    Prohibit,
}

/// A policy rule (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// Priority: rules are evaluated in ascending order.
    pub priority: u32,
    /// The rule without its priority, in the notation of `ip rule`, such as
    /// `not from all fwmark 0xca6c lookup 51820`.
    pub text: String,
}

/// The state of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface name.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier present (`IFLA_CARRIER`).
    pub carrier: bool,
    /// Type of a virtual interface (`IFLA_INFO_KIND`), such as `veth` or `wireguard`;
    /// `None` for hardware. A TAP device, whose kind is `tun` as well, is `tap`.
    pub kind: Option<String>,
    /// Resolves neighbours by ARP or neighbour discovery: it has a link-layer address
    /// and not `IFF_NOARP`.
    pub resolves_neighbours: bool,
    /// Loopback interface (`IFF_LOOPBACK`).
    pub loopback: bool,
}

/// The setting of a namespace for packets that arrive for other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// The interface forwards what arrives there.
    On,
    /// The interface does not, and others do.
    OffAt(String),
    /// No interface does.
    Off,
}

/// A route whose prefix covers a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covering {
    /// Destination prefix.
    pub prefix: (IpAddr, u8),
    /// Routing table.
    pub table: u32,
    /// The first next hop; `None` if the destination itself is the neighbour.
    pub gateway: Option<IpAddr>,
    /// The interface; `None` if the kernel does not list it (nexthop objects).
    pub device: Option<NetDevice>,
}

/// The addresses of one family that are assigned in a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddresses {
    /// Usable as the source of packets to other networks, at most 8: on an interface
    /// that is up, not loopback or link-local, duplicate address detection passed.
    pub usable: Vec<IpAddr>,
    /// Any address beside loopback and link-local ones is assigned.
    pub any: bool,
}
