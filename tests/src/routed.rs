//! Network of three namespaces: a client, the node that forwards its packets, and a server. The
//! client's is that of the calling thread.

use std::{
    env,
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    process::{Command, ExitCode},
    thread,
};

use conntrace_testnet::enter_bare;
use nix::sched::{CloneFlags, setns};

use crate::{Partner, in_role, in_role_to, remote_of_role, say_and_wait};

/// Address of the client.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Address of the client.
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Address of the node on the client's side.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the server.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Address of the server.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2);
/// Address of a service, which only exists in the node's rules.
pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);
/// Address of a service, which only exists in the node's rules.
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x50);

/// Plays a partner of this network in its own namespace: `hold` only keeps it, `serve` listens.
pub fn play_routed(role: &str) -> ExitCode {
    enter_bare().unwrap();
    let _listener = match role {
        "hold" => None,
        "serve" => Some(TcpListener::bind(remote_of_role()).unwrap()),
        other => panic!("no such role: {other}"),
    };
    say_and_wait("is there");
    ExitCode::SUCCESS
}

/// Starts a process that holds a network namespace.
pub fn holder() -> Partner {
    Partner::start(in_role("hold"))
}

/// Starts a process that listens on this address in a network namespace of its own.
pub fn server(listens: impl Into<SocketAddr>) -> Partner {
    Partner::start(in_role_to("serve", listens.into()))
}

/// Inode number of the partner's network namespace.
pub fn netns_of(partner: &Partner) -> u32 {
    let netns = fs::metadata(format!("/proc/{}/ns/net", partner.pid()));
    netns.unwrap().ino().try_into().unwrap()
}

/// A script whose `ip` is the program of that name: the shell of busybox has its own.
fn with_real_ip(script: &str) -> String {
    let path = env::var_os("PATH").unwrap();
    let mut found = env::split_paths(&path).map(|dir| dir.join("ip"));
    let ip = found.find(|ip| ip.exists()).unwrap();
    format!("ip() {{ {} \"$@\"; }}\n{script}", ip.display())
}

/// Runs a script in the calling thread's network namespace.
pub fn here(script: &str) {
    let script = with_real_ip(script);
    let status = Command::new("sh").args(["-ec", &script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// Runs a script in the network namespace of a partner.
pub fn inside(partner: &Partner, script: &str) {
    let pid = partner.pid().to_string();
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", &pid, "-n", "sh", "-ec", &with_real_ip(script)]);
    let status = nsenter.status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// Sets rules in the network namespace of a partner.
pub fn rules(partner: &Partner, ruleset: &str) {
    if !ruleset.is_empty() {
        inside(partner, &format!("nft '{ruleset}'"));
    }
}

/// Runs a closure in the network namespace of a partner.
pub fn within<T: Send>(partner: &Partner, act: impl FnOnce() -> T + Send) -> T {
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
pub struct RoutedNet {
    /// Process in the node's namespace.
    pub node: Partner,
    /// Process in the server's namespace.
    pub server: Partner,
}

impl RoutedNet {
    /// Links the calling thread's namespace, a node and this server.
    pub fn with(server: Partner) -> Self {
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
