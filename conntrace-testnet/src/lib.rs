//! Test network in its own network namespace, used by `conntrace demo` and the live tests.
//!
//! An anonymous network namespace with `lo` and two TAP devices. Behind `far`, a
//! thread plays every host of two networks and the router to them, and answers a
//! SYN as [`ports`] says for its port. ARP and neighbour discovery are switched off
//! there: frames to any address leave at once, and none has a neighbour entry that
//! tells whether somebody has it. Behind `near` is a network on which no host ever
//! answers ARP or neighbour discovery. The TCP under test is the kernel's own. No
//! outside program is used, nothing leaves the namespace, and all of it ends with
//! the thread that made it, however it ends.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::unix::fs::MetadataExt,
    panic,
    path::{Component, Path},
    thread,
    time::{Duration, Instant},
};

use netlink_packet_route::route::RouteType;
use nix::sched::{CloneFlags, unshare};

mod bare;
pub mod catalogue;
mod destroy;
mod disconnect;
pub mod endings;
mod far_end;
mod far_thread;
mod firewall;
mod link;
mod port_range;
pub mod ports;
mod tun;

pub use bare::{TUNNEL_DEVICE, enter_bare, tunnel};
pub use destroy::destroy;
pub use disconnect::disconnect;
pub use far_end::{FarEnd, answer};
pub use firewall::{FirewallVerdict, firewall};
pub use port_range::set_local_port_range;
pub use ports::{FarAnswer, IcmpReason, ThenTo, answer_of};

use far_thread::FarThread;
use link::Links;
use tun::Layer;

/// Name of the TAP device to the far networks.
pub const FAR_DEVICE: &str = "far";
/// This side's address on the far IPv4 network, 192.0.2.0/24.
pub const FAR_LOCAL_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Far IPv4 host. Every other host of its network behaves the same.
pub const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Router that sends the `ICMPv4` errors.
pub const FAR_ROUTER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// This side's address on the far IPv6 network, `2001:db8:0:1::/64`.
pub const FAR_LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// Far IPv6 host. Every other host of its network behaves the same.
pub const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);
/// Router that sends the `ICMPv6` errors.
pub const FAR_ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0xfe);

/// Name of the TAP device to the near networks.
pub const NEAR_DEVICE: &str = "near";
/// This side's address on the near IPv4 network, 198.51.100.0/24.
pub const NEAR_LOCAL_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Near IPv4 host, which is down like every host of its network.
pub const NEAR_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// This side's address on the near IPv6 network, `2001:db8:0:2::/64`.
pub const NEAR_LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
/// Near IPv6 host, which is down like every host of its network.
pub const NEAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2);

const PREFIX_LENGTH_V4: u8 = 24;
const PREFIX_LENGTH_V6: u8 = 64;

/// Time limit until a new address is usable.
const ADDRESS_MAX: Duration = Duration::from_secs(2);
/// Interval between two checks of a new address.
const ADDRESS_POLL: Duration = Duration::from_millis(1);

/// Setup error of the test network or of a part of it. The message holds the kernel's error and the
/// remedy, so the error is not offered as a source again.
#[derive(Debug, thiserror::Error)]
pub enum TestnetError {
    /// The thread for the test network or for its far end was not started.
    #[error("cannot start the thread of a test network: {0}")]
    Thread(io::Error),
    /// The kernel gave no new network namespace.
    #[error(
        "cannot make a network namespace for a test network: {0}; \
         run as root or with CAP_SYS_ADMIN and CAP_NET_ADMIN"
    )]
    Namespace(io::Error),
    /// The new namespace could not be distinguished from others.
    #[error("cannot read /proc/thread-self/ns/net: {0}; mount /proc")]
    Proc(io::Error),
    /// An interface could not be configured.
    #[error("cannot configure the test network: {0}; run as root or with CAP_NET_ADMIN")]
    Link(io::Error),
    /// `/dev/net/tun` could not be opened.
    #[error(
        "cannot open /dev/net/tun: {0}; load the tun module (`modprobe tun`), \
         or let this container have the device"
    )]
    NoTun(io::Error),
    /// A TUN or TAP device could not be made.
    #[error("cannot make the device {name}: {error}; run as root or with CAP_NET_ADMIN")]
    Device {
        /// Name of the interface.
        name: &'static str,
        /// Error that the kernel returned.
        error: io::Error,
    },
}

/// Network namespace for attempts, as [`run`] sets it up.
#[derive(Debug)]
pub struct Testnet {
    /// The namespace's inode number, as of `/proc/thread-self/ns/net`.
    pub netns: u32,
    /// True if the test network has IPv6: `::1`, and addresses on its devices.
    pub has_v6: bool,
    /// Error if there is no far side. Scenarios that need it are skipped.
    pub far: Result<(), TestnetError>,
    /// Error if there is no near side. Scenarios that need it are skipped.
    pub near: Result<(), TestnetError>,
    /// Answers packets until it is dropped.
    _far_thread: Option<FarThread>,
    /// Keeps the device alive while open. Nobody reads it, so ARP requests and neighbour
    /// solicitations stay unanswered.
    _near_device: Option<File>,
}

/// Type of a route that discards packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadEndRoute {
    /// `unreachable` route: connect returns `EHOSTUNREACH`.
    Unreachable,
    /// `prohibit` route: connect returns `EACCES`.
    Prohibit,
    /// `blackhole` route: connect returns `EINVAL`.
    Blackhole,
}

/// Runs `act` on a new test network, in a new thread called `name`. The kernel keeps 15 bytes of
/// the name as the thread's comm. Returns when `act` has returned and the devices are gone. Threads
/// that `act` starts are on the test network too. One that it leaves running keeps the namespace,
/// with only `lo` in it. A panic of `act` goes on in the caller.
///
/// # Errors
///
/// When there is no namespace with a working `lo`. [`Testnet::far`] and [`Testnet::near`] report a
/// missing device.
pub fn run<T: Send>(name: &str, act: impl FnOnce(&Testnet) -> T + Send) -> Result<T, TestnetError> {
    // A thread's name cannot hold a NUL: Builder would panic.
    let name = name.replace('\0', "");
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || Ok(act(&Testnet::set()?)))
            .map_err(TestnetError::Thread)?;
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}

impl Testnet {
    /// Moves the calling thread, and no other, to a new test network.
    fn set() -> Result<Self, TestnetError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| TestnetError::Namespace(error.into()))?;
        let netns = current_netns().map_err(TestnetError::Proc)?;
        // A host may disable IPv6 for every new interface. If this write fails, the test below
        // notices.
        let _ = fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0");
        let mut links = Links::open().map_err(TestnetError::Link)?;
        links.set_up("lo").map_err(TestnetError::Link)?;
        let has_v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let (far, far_thread) = split(raise_far(&mut links, has_v6));
        let (near, near_device) = split(raise_near(&mut links, has_v6));
        Ok(Self {
            netns,
            has_v6,
            far,
            near,
            _far_thread: far_thread,
            _near_device: near_device,
        })
    }

    /// Adds a dead-end route to this address. Call it on one of the test network's threads.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, and when the caller is not on the test network.
    pub fn add_dead_end(&self, kind: DeadEndRoute, to: IpAddr) -> io::Result<()> {
        self.check_is_here("add a route")?;
        let kind = match kind {
            DeadEndRoute::Unreachable => RouteType::Unreachable,
            DeadEndRoute::Prohibit => RouteType::Prohibit,
            DeadEndRoute::Blackhole => RouteType::BlackHole,
        };
        Links::open()?.add_dead_end(kind, to)
    }

    /// Adds a default route through this host. Call it on one of the test network's threads.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, and when the caller is not on the test network.
    pub fn add_gateway(&self, via: Ipv4Addr) -> io::Result<()> {
        self.check_is_here("add a route")?;
        Links::open()?.add_gateway(via)
    }

    /// Sets a sysctl of the test network: `name` as below `/proc/sys`, such as
    /// `net/ipv4/tcp_syn_retries`. Call it on one of the test network's threads.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, and when the write would reach beyond the test network: the caller
    /// is not on it, or the name is not below `net/`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || !name.starts_with("net/") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is not a sysctl of a network namespace (net/...)"),
            ));
        }
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.check_is_here(&format!("set {name}"))?;
        fs::write(Path::new("/proc/sys").join(name), value).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot set {name} to {value}: {error}"),
            )
        })
    }

    fn check_is_here(&self, what: &str) -> io::Result<()> {
        if current_netns()? == self.netns {
            Ok(())
        } else {
            let error = format!("cannot {what}: this thread is not in the test network");
            Err(io::Error::other(error))
        }
    }
}

/// Sets the device to the far networks down, in the calling thread's namespace. Only a test network
/// has a device of that name.
///
/// # Errors
/// When there is no such device, or the kernel refuses.
pub fn far_goes_down() -> io::Result<()> {
    Links::open()?.set_down(FAR_DEVICE)
}

/// Routes packets to this far host through the device to the near networks, for sockets that are
/// not bound to another device. Call it on one of the test network's threads.
///
/// # Errors
/// When there is no such device, or the kernel refuses.
pub fn leads_near(to: Ipv4Addr) -> io::Result<()> {
    Links::open()?.add_on_link(to, NEAR_DEVICE)
}

/// Sets loopback down, in the calling thread's namespace.
///
/// # Errors
/// When the kernel refuses, and when the caller is not on a test network.
pub fn loopback_goes_down() -> io::Result<()> {
    // The machine's own is not to be touched.
    link::index_of(FAR_DEVICE)?;
    Links::open()?.set_down("lo")
}

/// Finds this side's address for packets to a host: loopback's own, or the one that is on the
/// host's network.
#[must_use]
pub fn source_of(host: IpAddr) -> Option<IpAddr> {
    let host = host.to_canonical();
    let v4 = [FAR_LOCAL_V4, NEAR_LOCAL_V4].map(IpAddr::from);
    let v6 = [FAR_LOCAL_V6, NEAR_LOCAL_V6].map(IpAddr::from);
    let same_network = |own: &IpAddr| match (own, host) {
        (IpAddr::V4(own), IpAddr::V4(host)) => own.octets()[..3] == host.octets()[..3],
        (IpAddr::V6(own), IpAddr::V6(host)) => own.segments()[..4] == host.segments()[..4],
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    let ours = v4.into_iter().chain(v6).find(same_network);
    host.is_loopback().then_some(host).or(ours)
}

/// Inode number of the calling thread's network namespace.
fn current_netns() -> io::Result<u32> {
    let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

fn raise_far(links: &mut Links, has_v6: bool) -> Result<FarThread, TestnetError> {
    let addresses = addresses(FAR_LOCAL_V4, FAR_LOCAL_V6, has_v6);
    let device = raise(links, FAR_DEVICE, Layer::EthernetWithoutArp, &addresses)?;
    FarThread::spawn(device).map_err(TestnetError::Thread)
}

fn raise_near(links: &mut Links, has_v6: bool) -> Result<File, TestnetError> {
    let addresses = addresses(NEAR_LOCAL_V4, NEAR_LOCAL_V6, has_v6);
    raise(links, NEAR_DEVICE, Layer::Ethernet, &addresses)
}

fn addresses(v4: Ipv4Addr, v6: Ipv6Addr, has_v6: bool) -> Vec<(IpAddr, u8)> {
    let mut all = vec![(IpAddr::V4(v4), PREFIX_LENGTH_V4)];
    all.extend(has_v6.then_some((IpAddr::V6(v6), PREFIX_LENGTH_V6)));
    all
}

/// Makes a device that is up and has `addresses`.
fn raise(
    links: &mut Links,
    name: &'static str,
    layer: Layer,
    addresses: &[(IpAddr, u8)],
) -> Result<File, TestnetError> {
    let device = tun::open().map_err(TestnetError::NoTun)?;
    tun::attach(&device, name, layer).map_err(|error| TestnetError::Device { name, error })?;
    if layer == Layer::EthernetWithoutArp {
        links.set_noarp(name).map_err(TestnetError::Link)?;
    }
    links.lengthen_queue(name).map_err(TestnetError::Link)?;
    links.set_up(name).map_err(TestnetError::Link)?;
    for &(address, prefix_length) in addresses {
        links
            .add_address(name, address, prefix_length)
            .map_err(TestnetError::Link)?;
        if address.is_ipv6() {
            await_packets_to(address).map_err(TestnetError::Link)?;
        }
    }
    Ok(device)
}

/// Waits until this host takes packets to its new IPv6 address. The kernel lets
/// it be a source first and adds the route to it later, in a work item of its own
/// (`addrconf_dad_work`), even without duplicate address detection: an answer
/// that came in between would be dropped, and the SYN sent again a second later.
fn await_packets_to(address: IpAddr) -> io::Result<()> {
    let until = Instant::now() + ADDRESS_MAX;
    loop {
        match hears_itself(address) {
            Err(error) if Instant::now() >= until => {
                let what = format!("{address} takes no packets: {error}");
                return Err(io::Error::new(error.kind(), what));
            }
            Err(_) => thread::sleep(ADDRESS_POLL),
            Ok(()) => return Ok(()),
        }
    }
}

/// Sends a datagram from the address to itself and checks that it arrives.
fn hears_itself(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_read_timeout(Some(ADDRESS_POLL))?;
    socket.send_to(&[0], socket.local_addr()?)?;
    socket.recv(&mut [0]).map(drop)
}

/// Separates the value from the error of its setup.
fn split<T>(raised: Result<T, TestnetError>) -> (Result<(), TestnetError>, Option<T>) {
    match raised {
        Ok(raised) => (Ok(()), Some(raised)),
        Err(error) => (Err(error), None),
    }
}
