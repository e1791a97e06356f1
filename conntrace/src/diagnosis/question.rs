//! Questions of the rules about the host, and their answers.
//!
//! Questions are narrow, so that every answer is small enough for a recording,
//! and complete: an answer depends on its question and the moment only.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    Undiagnosed,
    firewall_facts::{Firewall, FirewallPacket, PacketEnd},
    port_facts::LocalPorts,
    tunnel_facts::Tunnel,
    way::{Covering, DeadEnd, Flow, Forwarding, Link, NetDevice, OwnAddresses, Route},
};

/// Answers what the rules ask: the host, a recording, or a test.
pub trait Evidence {
    /// Answers a question; nothing found is an answer as well.
    ///
    /// # Errors
    /// The reason why the answer is unknown: a rule must not take that for "no".
    fn answer(&mut self, question: Question) -> Result<Answer, Undiagnosed>;
}

macro_rules! questions {
    ($(
        $(#[$doc:meta])*
        $ask:ident: $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } -> $answer:ty;
    )+) => {
        /// Question about the host.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Question {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* },)+
        }

        /// Answer to the question of the same name.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Answer {
            $($(#[$doc])* $name($answer),)+
        }

        impl dyn Evidence + '_ {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// The reason why the answer is unknown.
                pub fn $ask(&mut self, $($field: $type,)*) -> Result<$answer, Undiagnosed> {
                    // A recording that someone else made may answer another question.
                    match self.answer(Question::$name { $($field,)* })? {
                        Answer::$name(answer) => Ok(answer),
                        _ => Err(Undiagnosed::Incomplete),
                    }
                }
            )+
        }
    };
}

questions! {
    /// The way that packets take.
    route: Route {
        /// Inode number of the network namespace.
        netns: u32,
        /// Everything of the socket that decides it.
        way: Flow,
    } -> Route;
    /// The route or rule that forbids a way; `None` if nothing does.
    dead_end: DeadEnd {
        /// Inode number of the network namespace.
        netns: u32,
        /// Everything of the socket that decides it.
        way: Flow,
    } -> Option<DeadEnd>;
    /// Other routes than the one used that cover the destination, default routes apart.
    covering: Covering {
        /// Inode number of the network namespace.
        netns: u32,
        /// Everything of the socket that decides it.
        way: Flow,
    } -> Vec<Covering>;
    /// The state of an interface; `None` if it is gone.
    link: Link {
        /// Inode number of the network namespace.
        netns: u32,
        /// Index of the interface.
        device: u32,
    } -> Option<Link>;
    /// Signs of life of the far end of a tunnel.
    tunnel: Tunnel {
        /// Inode number of the network namespace.
        netns: u32,
        /// Index of the interface that it begins behind.
        device: u32,
        /// The destination.
        to: IpAddr,
    } -> Tunnel;
    /// The process that has a TUN device open; `None` if it cannot be told.
    tun_holder: TunHolder {
        /// Inode number of the network namespace.
        netns: u32,
        /// Name of the interface.
        name: String,
    } -> Option<NamedProcess>;
    /// The namespace's own addresses of one family.
    own_addresses: OwnAddresses {
        /// Inode number of the network namespace.
        netns: u32,
        /// Of IPv6.
        v6: bool,
    } -> OwnAddresses;
    /// Membership of an address among the namespace's own.
    is_own: IsOwn {
        /// Inode number of the network namespace.
        netns: u32,
        /// The address.
        addr: IpAddr,
    } -> bool;
    /// The state of a neighbour's link-layer address.
    neighbour: Neighbour {
        /// Inode number of the network namespace.
        netns: u32,
        /// Index of the interface towards it.
        device: u32,
        /// Its address.
        addr: IpAddr,
    } -> Neighbour;
    /// The other namespace of this machine that is the neighbour at that address: it has
    /// the address, and an interface with the link-layer address that packets go to.
    owner: Owner {
        /// Inode number of the network namespace.
        netns: u32,
        /// Index of the interface towards it.
        device: u32,
        /// The address.
        addr: IpAddr,
    } -> Option<u32>;
    /// Other namespaces of this machine that have the address.
    holders: Holders {
        /// Inode number of the network namespace that is left out.
        netns: u32,
        /// The address.
        addr: IpAddr,
    } -> Vec<u32>;
    /// The forwarding of packets that arrive by the interface with that address.
    forwarding: Forwarding {
        /// Inode number of the network namespace.
        netns: u32,
        /// The address, which packets for other hosts are sent to as their next hop.
        addr: IpAddr,
        /// Of IPv6 packets.
        v6: bool,
    } -> Forwarding;
    /// The options by which `nsenter` gets into the namespace, such as `-t 812 -n` or
    /// `--net=/run/netns/a`; `None` of the one that conntrace itself runs in.
    door: Door {
        /// Inode number of the network namespace.
        netns: u32,
    } -> Option<String>;
    /// Listeners on a port, or, if it has none, on ports that are easily mistaken for it. At most
    /// 4 each; those that accept the address come first.
    listeners: Listeners {
        /// Inode number of the network namespace.
        netns: u32,
        /// The address.
        addr: IpAddr,
        /// The port.
        port: u16,
    } -> Listeners;
    /// A listener that accepts the address and port, whose accept queue is full, and that has dropped
    /// connections; `None` if there is none.
    full_queue: FullQueue {
        /// Inode number of the network namespace.
        netns: u32,
        /// The address.
        addr: IpAddr,
        /// The port.
        port: u16,
    } -> Option<FullQueue>;
    /// Listeners on a port in other namespaces, at most 4. No listener is an answer only if every
    /// namespace was looked at, and unknown otherwise.
    listeners_elsewhere: ListenersElsewhere {
        /// Inode number of the network namespace that is left out.
        netns: u32,
        /// The port.
        port: u16,
    } -> Vec<Listener>;
    /// The choice of local ports, and how many are in use.
    ports: Ports {
        /// Inode number of the network namespace.
        netns: u32,
        /// The local address, if it was chosen.
        local: Option<IpAddr>,
        /// The destination; `None` of a bind.
        remote: Option<SocketAddr>,
    } -> LocalPorts;
    /// The socket that has these two ends.
    tuple: Tuple {
        /// Inode number of the network namespace.
        netns: u32,
        /// This end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
    } -> Option<Holder>;
    /// The sockets that have this local port, at most 8: first those that listen or are bound, then
    /// those that are connected.
    port_holders: PortHolders {
        /// Inode number of the network namespace.
        netns: u32,
        /// The port.
        port: u16,
    } -> Vec<PortHolder>;
    /// The way of a SYN that nobody has answered, as connection tracking of a namespace has it; `None` if it has
    /// no such entry.
    tracked: Tracked {
        /// Inode number of the network namespace.
        netns: u32,
        /// Source of the SYN as it comes there; `None` for that of the attempt which is asked about.
        client: Option<SocketAddr>,
        /// Destination of the SYN as it comes there.
        remote: SocketAddr,
    } -> Option<TrackedSyn>;
    /// The proxy variable of a process's environment that names this address.
    proxy: Proxy {
        /// The process.
        process: ProcessKey,
        /// The address.
        remote: SocketAddr,
    } -> Option<ProxyVariable>;
    /// The kernel's name for the reason of a drop.
    drop_reason: DropReason {
        /// Its number.
        number: u16,
    } -> String;
    /// Rules of the firewall that may have ended the packet's way so.
    firewall: Firewall {
        /// Inode number of the network namespace.
        netns: u32,
        /// The packet.
        packet: FirewallPacket,
        /// The end that it met.
        ending: PacketEnd,
    } -> Firewall;
    /// The BPF programs that decide on connects of a cgroup, at most 4, in the order in which
    /// they run.
    connect_programs: ConnectPrograms {
        /// The cgroup's id.
        cgroup: u64,
        /// Of IPv6 sockets.
        v6: bool,
    } -> Vec<AttachedProgram>;
    /// The BPF programs that, as a security module, decide on every connect.
    security_programs: SecurityPrograms {} -> Vec<BpfProgram>;
    /// The profile by which a security module confines a process.
    confinement: Confinement {
        /// The process.
        process: ProcessKey,
    } -> Option<String>;
}

impl Question {
    /// Questions about a network namespace, which is named by a number that is another's
    /// after its end.
    #[must_use]
    pub fn is_of_namespace(&self) -> bool {
        match self {
            Self::Route { .. }
            | Self::DeadEnd { .. }
            | Self::Covering { .. }
            | Self::Link { .. }
            | Self::Tunnel { .. }
            | Self::TunHolder { .. }
            | Self::OwnAddresses { .. }
            | Self::IsOwn { .. }
            | Self::Neighbour { .. }
            | Self::Owner { .. }
            | Self::Holders { .. }
            | Self::Forwarding { .. }
            | Self::Door { .. }
            | Self::Listeners { .. }
            | Self::FullQueue { .. }
            | Self::ListenersElsewhere { .. }
            | Self::Ports { .. }
            | Self::Tuple { .. }
            | Self::PortHolders { .. }
            | Self::Tracked { .. }
            | Self::Firewall { .. } => true,
            Self::Proxy { .. }
            | Self::DropReason { .. }
            | Self::ConnectPrograms { .. }
            | Self::Confinement { .. }
            | Self::SecurityPrograms {} => false,
        }
    }

    /// Questions whose answer only adds to a cause: without it no rule says anything else.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        matches!(
            self,
            Self::ListenersElsewhere { .. } | Self::Door { .. } | Self::TunHolder { .. }
        )
    }
}

/// A process, told from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Process ID.
    pub pid: u32,
    /// Start time, `CLOCK_BOOTTIME` nanoseconds.
    pub started_ns: u64,
}

/// Entry of connection tracking for a SYN that nobody has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedSyn {
    /// Source as the SYN comes to the namespace.
    pub client: SocketAddr,
    /// Source as it leaves the namespace: another after masquerade.
    pub leaves_from: SocketAddr,
    /// Destination as it leaves the namespace: another after DNAT.
    pub leads_to: SocketAddr,
}

/// State of a neighbour's link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighbour {
    /// The address is known.
    Known,
    /// Requests are being sent, and no answer has come yet.
    Incomplete,
    /// All requests were sent, and no answer came.
    Failed,
    /// No request was sent lately.
    Absent,
}

/// Sockets that listen on a port, or on similar ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// Listeners on the port, on whatever address.
    pub on_port: Vec<Listener>,
    /// Listeners on ports that are easily mistaken for it; empty if there is one on the port.
    pub on_similar: Vec<Listener>,
}

/// A listener whose accept queue is full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullQueue {
    /// The listener.
    pub listener: Listener,
    /// Connections that wait to be accepted (`sk_ack_backlog`).
    pub waiting: u32,
    /// Its backlog (`sk_max_ack_backlog`): one more may wait.
    pub backlog: u32,
    /// Connections that it has dropped (`sk_drops`).
    pub drops: u32,
    /// Others accept the address and port too, and have room.
    pub has_others: bool,
}

/// A socket that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// The address it accepts; unspecified for all.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// Accepts nothing but IPv6.
    pub only_v6: bool,
    /// The interface that it is bound to (`SO_BINDTODEVICE`).
    pub device: Option<NetDevice>,
    /// Process that holds the socket, if it was found.
    pub process: Option<NamedProcess>,
}

impl Listener {
    /// Returns true if the socket accepts connections to that address.
    #[must_use]
    pub fn accepts(&self, addr: IpAddr) -> bool {
        accepts(self.addr, self.only_v6, addr)
    }
}

/// Returns true if a socket that listens on `own` accepts connections to an address.
#[must_use]
pub fn accepts(own: IpAddr, only_v6: bool, addr: IpAddr) -> bool {
    match (own, addr) {
        (IpAddr::V4(own), IpAddr::V4(_)) if own.is_unspecified() => true,
        (IpAddr::V6(own), IpAddr::V6(_)) if own.is_unspecified() => true,
        (IpAddr::V6(own), IpAddr::V4(_)) if own.is_unspecified() => !only_v6,
        (own, addr) => own == addr,
    }
}

/// A process as a line names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedProcess {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// A socket, and the process that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The socket's state.
    pub state: String,
    /// Process that holds the socket, if it was found.
    pub process: Option<NamedProcess>,
}

/// A socket that has a local port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    /// Its own end; the address is unspecified for all.
    pub local: SocketAddr,
    /// The other end; `None` if it is not connected.
    pub remote: Option<SocketAddr>,
    /// Takes nothing but IPv6.
    pub only_v6: bool,
    /// Is bound to an interface (`SO_BINDTODEVICE`).
    pub is_of_device: bool,
    /// The socket's state.
    pub state: String,
    /// Process that holds the socket, if it was found.
    pub process: Option<NamedProcess>,
}

impl PortHolder {
    /// Returns true if the socket has the port of that address.
    #[must_use]
    pub fn shares(&self, addr: IpAddr) -> bool {
        accepts(self.local.ip(), self.only_v6, addr)
    }
}

/// A BPF program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfProgram {
    /// Its id.
    pub id: u32,
    /// Its name; empty if it was given none.
    pub name: String,
}

/// A BPF program of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedProgram {
    /// The program.
    #[serde(flatten)]
    pub program: BpfProgram,
    /// Path of the cgroup to which it is attached, if that was found.
    pub cgroup: Option<String>,
}

/// A variable that names a proxy, in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVariable {
    /// For http.
    HttpProxy,
    /// For https.
    HttpsProxy,
    /// For everything.
    AllProxy,
}

impl ProxyVariable {
    /// Its name, in small letters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpProxy => "http_proxy",
            Self::HttpsProxy => "https_proxy",
            Self::AllProxy => "all_proxy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listener_accepts() {
        let accepts = |own: &str, only_v6, addr: &str| {
            Listener {
                netns: 1,
                addr: own.parse().unwrap(),
                port: 1,
                only_v6,
                device: None,
                process: None,
            }
            .accepts(addr.parse().unwrap())
        };
        assert!(accepts("0.0.0.0", false, "10.0.0.1") && accepts("::", false, "10.0.0.1"));
        assert!(accepts("::", true, "::1") && accepts("127.0.0.1", false, "127.0.0.1"));
        assert!(!accepts("::", true, "10.0.0.1") && !accepts("127.0.0.1", false, "10.0.0.1"));
        assert!(!accepts("0.0.0.0", false, "::1") && !accepts("::1", false, "127.0.0.1"));
    }
}
