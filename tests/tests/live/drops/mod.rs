//! Packets that this machine drops outside of the client's network namespace: in the node that
//! forwards them, and where the server is. The client's is that of the scene.

mod flood;
mod node;
mod strangers;

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    process::{Command, ExitCode},
    sync::Arc,
    thread,
    time::Duration,
};

use conntrace_testnet::enter_bare;
use conntrace_tests::{
    Attempted, Live, Partner, bound, in_role, in_role_to, lacks_drop_reasons, remote_of_role, role,
    run_one_by_one, say_and_wait, unless_all, with_nft,
};
use nix::sched::{CloneFlags, setns};

const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2);
/// Address of a service, which only exists in the node's rules.
const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x50);
/// Port that the server listens on, one that it does not, and that of the service.
const OPEN: u16 = 8000;
const CLOSED: u16 = 5999;
const SERVICE_PORT: u16 = 80;

const CERTAIN: &str = "certain";

pub(crate) fn main() -> ExitCode {
    match role().as_deref() {
        Some("hold") => return hold(),
        Some(_) => return serve(),
        None => {}
    }
    let mut tests = node::tests();
    tests.push(with_nft("flood_of_strangers", flood::of_strangers));
    tests.push(with_nft("flood_of_a_neighbour", flood::of_a_neighbour));
    tests.extend(strangers::tests());
    // One at a time: a namespace that is not known yet is searched for once a while only, and clients in
    // different scenes have the same address.
    run_one_by_one(unless_all(lacks_drop_reasons(), tests))
}

/// Holds a network namespace.
fn hold() -> ExitCode {
    enter_bare().unwrap();
    say_and_wait("is there");
    ExitCode::SUCCESS
}

/// Plays a server in its own namespace.
fn serve() -> ExitCode {
    enter_bare().unwrap();
    let _listener = TcpListener::bind(remote_of_role()).unwrap();
    say_and_wait("listens");
    ExitCode::SUCCESS
}

fn live() -> Arc<Live> {
    Live::get()
}

fn holder() -> Partner {
    Partner::start(in_role("hold"))
}

fn server(listens: impl Into<SocketAddr>) -> Partner {
    Partner::start(in_role_to("serve", listens.into()))
}

/// Listens on all addresses.
fn open_server() -> Partner {
    server((Ipv6Addr::UNSPECIFIED, OPEN))
}

/// Inode number of the partner's network namespace.
fn netns_of(partner: &Partner) -> u32 {
    let netns = fs::metadata(format!("/proc/{}/ns/net", partner.pid()));
    netns.unwrap().ino().try_into().unwrap()
}

/// Runs a script in the calling thread's network namespace.
fn here(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// Runs a script in the network namespace of a partner.
fn inside(partner: &Partner, script: &str) {
    let pid = partner.pid().to_string();
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", &pid, "-n", "sh", "-ec", script]);
    let status = nsenter.status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// Sets rules in the network namespace of a partner.
fn rules(partner: &Partner, ruleset: &str) {
    if !ruleset.is_empty() {
        inside(partner, &format!("nft '{ruleset}'"));
    }
}

/// Runs a closure in the network namespace of a partner.
fn within<T: Send>(partner: &Partner, act: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(format!("/proc/{}/ns/net", partner.pid())).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// Links the calling thread's namespace, as the client, with a node.
fn link_to(node: &Partner) {
    let node = node.pid();
    here(&format!(
        "ip link add c0 type veth peer name n0 netns {node}
         ip link set c0 up
         ip addr add {CLIENT_V4}/24 dev c0
         ip -6 addr add {CLIENT_V6}/64 dev c0 nodad"
    ));
}

/// Leads the calling thread's namespace to all others by its node.
fn route_by_node() {
    here(
        "for to in 10.78.0.0/24 10.96.0.0/16; do ip route add $to via 10.77.0.1; done
         for to in fd78::/64 fd96::/64; do ip -6 route add $to via fd77::1; done",
    );
}

/// Node and server, linked with the client in the calling thread's namespace.
struct Net {
    node: Partner,
    server: Partner,
}

impl Net {
    fn with(server: Partner) -> Self {
        let node = holder();
        link_to(&node);
        let pid = server.pid();
        inside(
            &node,
            &format!(
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
                    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.n0.rp_filter=0
                 ip link add n1 type veth peer name s0 netns {pid}
                 ip addr add {NODE_V4}/24 dev n0
                 ip -6 addr add fd77::1/64 dev n0 nodad
                 ip addr add 10.78.0.1/24 dev n1
                 ip -6 addr add fd78::1/64 dev n1 nodad
                 ip link set n0 up
                 ip link set n1 up"
            ),
        );
        inside(
            &server,
            &format!(
                "ip addr add {SERVER_V4}/24 dev s0
                 ip -6 addr add {SERVER_V6}/64 dev s0 nodad
                 ip link set s0 up
                 ip route add default via 10.78.0.1
                 ip -6 route add default via fd78::1"
            ),
        );
        route_by_node();
        Self { node, server }
    }
}

/// Connects from this port, and gives up after a while.
fn from_port(
    local: (Ipv4Addr, u16),
    remote: impl Into<SocketAddr>,
    deadline: Duration,
) -> Attempted {
    let socket = bound(SocketAddr::new(IpAddr::from(local.0), local.1));
    Attempted::within(deadline, &socket, remote)
}
