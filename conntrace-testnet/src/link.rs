//! Setup of interfaces of the calling thread's namespace: state, addresses and routes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nametoindex;

/// Queue length of a device in packets. One thread can start more SYNs at once than the default of
/// 500. A lost SYN would cause an unplanned stall a second later.
const QUEUE_PACKETS_MAX: u32 = 16_384;

/// Connection to rtnetlink with one request at a time.
pub(super) struct Links {
    socket: Socket,
    /// Sequence number of the last request.
    sequence: u32,
}

impl Links {
    /// Connects to the network namespace that the calling thread is in now.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sets the interface up.
    pub(super) fn set_up(&mut self, name: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index_of(name)?;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(
            RouteNetlinkMessage::SetLink(link),
            0,
            &format!("set interface {name} up"),
        )
    }

    /// Sets the interface down.
    pub(super) fn set_down(&mut self, name: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index_of(name)?;
        link.header.change_mask = LinkFlags::Up;
        self.ask(
            RouteNetlinkMessage::SetLink(link),
            0,
            &format!("set interface {name} down"),
        )
    }

    /// Switches ARP and neighbour discovery off at an interface that is down.
    pub(super) fn set_noarp(&mut self, name: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index_of(name)?;
        link.header.flags = LinkFlags::Noarp;
        link.header.change_mask = LinkFlags::Noarp;
        self.ask(
            RouteNetlinkMessage::SetLink(link),
            0,
            &format!("switch ARP off at interface {name}"),
        )
    }

    /// Increases the queue length of the device.
    pub(super) fn lengthen_queue(&mut self, name: &str) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index_of(name)?;
        link.attributes = vec![LinkAttribute::TxQueueLen(QUEUE_PACKETS_MAX)];
        self.ask(
            RouteNetlinkMessage::SetLink(link),
            0,
            &format!("lengthen the queue of interface {name}"),
        )
    }

    /// Gives the interface an address. An IPv6 one is usable a moment later.
    pub(super) fn add_address(
        &mut self,
        name: &str,
        address: IpAddr,
        prefix_length: u8,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index_of(name)?;
        message.header.prefix_len = prefix_length;
        message.attributes = vec![AddressAttribute::Address(address)];
        match address {
            IpAddr::V4(_) => {
                message.header.family = AddressFamily::Inet;
                // Without IFA_LOCAL the kernel takes no IPv4 address.
                message.attributes.push(AddressAttribute::Local(address));
            }
            IpAddr::V6(_) => {
                message.header.family = AddressFamily::Inet6;
                // Duplicate address detection would keep it unusable for a second.
                message.header.flags = AddressHeaderFlags::Nodad;
            }
        }
        self.ask(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("add {address}/{prefix_length} to interface {name}"),
        )
    }

    /// Adds a route to this one address that leads nowhere.
    pub(super) fn add_dead_end(&mut self, kind: RouteType, to: IpAddr) -> io::Result<()> {
        let (family, prefix_length, address) = match to {
            IpAddr::V4(to) => (AddressFamily::Inet, 32, RouteAddress::Inet(to)),
            IpAddr::V6(to) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(to)),
        };
        let mut message = route(family, kind);
        message.header.destination_prefix_length = prefix_length;
        message.attributes = vec![RouteAttribute::Destination(address)];
        self.add_route(message, &format!("of type {kind:?} to {to}"))
    }

    /// Makes this host of an own network the default gateway.
    pub(super) fn add_gateway(&mut self, via: Ipv4Addr) -> io::Result<()> {
        let mut message = route(AddressFamily::Inet, RouteType::Unicast);
        message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(via))];
        self.add_route(message, &format!("by the gateway {via}"))
    }

    /// Adds a route to this single address, on-link at this interface.
    pub(super) fn add_on_link(&mut self, to: Ipv4Addr, name: &str) -> io::Result<()> {
        let mut message = route(AddressFamily::Inet, RouteType::Unicast);
        message.header.destination_prefix_length = 32;
        message.header.scope = RouteScope::Link;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(to)),
            RouteAttribute::Oif(index_of(name)?),
        ];
        self.add_route(message, &format!("to {to} by {name}"))
    }

    fn add_route(&mut self, message: RouteMessage, what: &str) -> io::Result<()> {
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("add a route {what}"),
        )
    }

    /// Sends one request and waits for its acknowledgement; `what` names it in
    /// the error.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16, what: &str) -> io::Result<()> {
        self.exchange(request, flags).map_err(|error| {
            io::Error::new(error.kind(), format!("rtnetlink cannot {what}: {error}"))
        })
    }

    fn exchange(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.acknowledgement()
    }

    /// The kernel answers before `send` returns, so this does not wait; nothing
    /// else is ever sent to a socket that joined no group and dumps nothing.
    fn acknowledgement(&mut self) -> io::Result<()> {
        let (bytes, _) = self.socket.recv_from_full()?;
        let reply =
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).map_err(io::Error::other)?;
        let NetlinkPayload::Error(outcome) = reply.payload else {
            return Err(io::Error::other("the answer is not an acknowledgement"));
        };
        // With code 0 an "error" is the acknowledgement.
        outcome.code.map_or(Ok(()), |_| Err(outcome.to_io()))
    }
}

fn route(family: AddressFamily, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message
}

/// Index of the interface of this name.
pub(super) fn index_of(name: &str) -> io::Result<u32> {
    if_nametoindex(name).map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("no interface {name}: {error}"),
        )
    })
}
