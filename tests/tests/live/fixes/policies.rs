//! Fixes for failures by this host's own firewall, proxy or policy.

use std::{
    any::Any,
    net::{SocketAddr, TcpListener},
    process::{self, Command, ExitCode},
};

use conntrace::diagnosis::Code;
use conntrace_testnet::{FAR_DEVICE, FAR_V4, ports};
use conntrace_tests::{
    Cgroup, Denial, Partner, attempt, connect_until_failure, give_up, hides_hooks, in_role,
    in_role_to, ip, lacks_lsm, remote_of_role, say_and_wait,
};
use nix::sched::{CloneFlags, unshare};

use crate::fixes::{Fix, FixScene, HeldCause, commands, scene, shows};

const RULED_PORT: u16 = 2001;
/// Address of a server that gets packets by one link and answers by another.
const SERVER: &str = "203.0.113.9";

pub(crate) const SCENES: &[FixScene] = &[
    scene(
        Code::LocalFirewall,
        "own_drop",
        Fix::Shows(&[shows("tcp dport 2001 drop comment \"no mail\" # handle 2")]),
        1,
        |_| {
            ruled("drop comment \"no mail\"");
            Box::new(give_up((FAR_V4, RULED_PORT)))
        },
    )
    .with_nft(),
    scene(
        Code::LocalFirewall,
        "own_drop_of_the_answer",
        Fix::Shows(&[shows("tcp sport 80 drop # handle 2")]),
        1,
        |_| {
            nft("table inet t { chain c { type filter hook input priority 0; tcp sport 80 drop; }; }");
            Box::new(give_up((FAR_V4, ports::ACCEPTS)))
        },
    )
    .with_nft(),
    scene(
        Code::ServiceWithoutEndpoints,
        "service_without_endpoints",
        Fix::Shows(&[shows("default/app:http has no endpoints")]),
        1,
        |_| {
            ruled("reject comment \"default/app:http has no endpoints\"");
            Box::new(attempt((FAR_V4, RULED_PORT)))
        },
    )
    .with_nft(),
    scene(
        Code::RejectedByFirewall,
        "own_reject",
        Fix::Shows(&[shows("reject with tcp reset # handle 2")]),
        1,
        |_| {
            ruled("reject with tcp reset");
            Box::new(attempt((FAR_V4, RULED_PORT)))
        },
    )
    .with_nft(),
    scene(
        Code::DroppedHere,
        "reverse_path_filter",
        Fix::Mends(|_| attempt(server()).errno),
        1,
        |_| {
            let far = asymmetric();
            give_up(server());
            Box::new(far)
        },
    ),
    scene(
        Code::DroppedHere,
        "nat_without_ports",
        Fix::Shows(&[shows("nf_conntrack_count = "), shows("insert_failed=")]),
        3,
        nat_without_ports,
    )
    .unless(|| commands::missing("iptables-nft").map(|program| format!("{program} is missing"))),
    scene(
        Code::ProxyInPath,
        "proxy_of_the_environment",
        Fix::Words("a proxy is to be started, or the environment corrected"),
        1,
        |_| {
            let proxy = SocketAddr::from((FAR_V4, ports::RESETS));
            let mut client = in_role_to("connect", proxy);
            client.env("https_proxy", format!("http://{proxy}/"));
            Box::new(Partner::start(client))
        },
    ),
    scene(
        Code::ProxyInPath,
        "destination_is_rewritten",
        Fix::Shows(&[
            shows("Local Address"),
            shows("tcp dport 80 redirect to :3129"),
        ]),
        1,
        |_| {
            let chain = "type nat hook output priority -100; tcp dport 80 redirect to :3129;";
            nft(&format!("table ip n {{ chain o {{ {chain} }}; }}"));
            Box::new(attempt((FAR_V4, ports::ACCEPTS)))
        },
    )
    .with_nft(),
    scene(
        Code::CgroupPolicy,
        "cgroup_policy",
        Fix::Shows(&[shows("conntrace-fixes")]),
        1,
        denied_by_cgroup,
    )
    .unless(|| Cgroup::lacks().map(str::to_owned)),
    scene(
        Code::SecurityModule,
        "security_module",
        Fix::Shows(&[shows("lsm")]),
        1,
        |_| {
            let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
            Box::new(Partner::start(in_role_to("by_lsm", remote)))
        },
    )
    .unless(|| lacks_lsm().or_else(hides_hooks).map(str::to_owned)),
];

/// Plays a child's role instead of running the tests.
pub(crate) fn in_child(role: &str) -> ExitCode {
    match role {
        "connect" => {
            attempt(remote_of_role());
            say_and_wait("connected");
        }
        "listen" => {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let _listener = TcpListener::bind(remote_of_role()).unwrap();
            say_and_wait("listens");
        }
        "by_cgroup" => {
            // The parent moves this process to the cgroup before it writes the line.
            std::io::stdin().read_line(&mut String::new()).unwrap();
            attempt(remote_of_role());
        }
        "by_lsm" => {
            let _denial = Denial::new().unwrap();
            attempt(remote_of_role());
            say_and_wait("denied");
        }
        _ => {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            say_and_wait("is there");
        }
    }
    ExitCode::SUCCESS
}

/// Starts a process that holds an empty network namespace.
pub(crate) fn namespace() -> Partner {
    Partner::start(in_role("hold"))
}

fn nft(ruleset: &str) {
    let status = Command::new("nft").arg(ruleset).status().unwrap();
    assert!(status.success(), "nft {ruleset}: {status}");
}

fn ruled(verdict: &str) {
    let rule = format!("tcp dport {RULED_PORT} {verdict};");
    let hook = "type filter hook output priority 0;";
    nft(&format!("table inet t {{ chain c {{ {hook} {rule} }}; }}"));
}

fn server() -> SocketAddr {
    format!("{SERVER}:{RULED_PORT}").parse().unwrap()
}

/// Runs a command in the network namespace of a process.
pub(crate) fn inside(pid: u32, command: &str) {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-t", &pid.to_string(), "-n"]);
    let status = nsenter.args(command.split(' ')).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

/// Links a server that gets the SYN by one link and answers by the other.
fn asymmetric() -> Partner {
    let far = Partner::start(in_role_to("listen", ([0; 4], RULED_PORT).into()));
    let pid = far.pid();
    for link in ["1", "2"] {
        ip(&format!(
            "link add out{link} type veth peer name in{link} netns {pid}"
        ));
        ip(&format!("addr add 198.18.{link}.1/24 dev out{link}"));
        ip(&format!("link set out{link} up"));
        inside(pid, &format!("ip addr add 198.18.{link}.2/24 dev in{link}"));
        inside(pid, &format!("ip link set in{link} up"));
    }
    inside(pid, &format!("ip addr add {SERVER}/32 dev in2"));
    inside(
        pid,
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.in1.rp_filter=0 \
         net.ipv4.conf.all.arp_announce=2",
    );
    inside(pid, "ip route add 198.18.1.1/32 via 198.18.2.1");
    ip(&format!("route add {SERVER} via 198.18.1.2"));
    let strict = Command::new("sysctl")
        .args(["-qw", "net.ipv4.conf.all.rp_filter=1"])
        .status();
    assert!(strict.unwrap().success());
    far
}

/// Limits NAT to two ports, and takes both by connections.
fn nat_without_ports(_: &conntrace_testnet::Testnet) -> HeldCause {
    let rule = format!(
        "-t nat -A POSTROUTING -o {FAR_DEVICE} -p tcp -j MASQUERADE --to-ports 20000-20001"
    );
    let mut iptables = Command::new("iptables-nft");
    assert!(iptables.args(rule.split(' ')).status().unwrap().success());
    let remote = SocketAddr::from((FAR_V4, ports::ACCEPTS));
    let held = [(); 2].map(|()| {
        let socket = conntrace_tests::tcp(remote);
        assert_eq!(conntrace_tests::attempt_on(&socket, remote).errno, 0);
        socket
    });
    give_up(remote);
    Box::new(held)
}

fn denied_by_cgroup(_: &conntrace_testnet::Testnet) -> HeldCause {
    let cgroup = Cgroup::new(format!("conntrace-fixes-{}", process::id()));
    cgroup.deny_connects().unwrap();
    cgroup.run(&mut in_role_to(
        "by_cgroup",
        (FAR_V4, ports::ACCEPTS).into(),
    ));
    Box::new(cgroup)
}

/// Connects until all ports are used and one connect fails.
pub(crate) fn until_failure(remote: SocketAddr) -> Box<dyn Any> {
    Box::new(connect_until_failure(remote))
}
