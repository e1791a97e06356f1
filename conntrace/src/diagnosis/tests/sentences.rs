//! Sentences of causes: the reason, and the fix.

use super::{
    cases::{dropped, failed_call, not_local, silence},
    examples::staged,
    script::{FAR, NETNS, OWN, Script, far, link},
};
use crate::{
    diagnosis::{
        Case, Code, diagnose,
        firewall_facts::{Match, PacketEnd},
        question::{Answer, Question},
        tunnel_facts::{Tunnel, WireguardHandshake, WireguardPeer},
        way::Route,
    },
    record::{Errno, Label},
};

/// The rule is named, and its certainty said.
#[test]
fn the_rule_that_drops_is_named() {
    let why = |matches| {
        let script = far().drop_reason("NETFILTER_DROP");
        let mut script = script.rule(PacketEnd::Drop, "output", matches);
        diagnose(&dropped(), &mut script).0.unwrap().why
    };
    assert!(why(Match::Fully).ends_with(", by rule 4 of chain inet filter output"));
    assert!(why(Match::Possibly).ends_with(", probably by rule 4 of chain inet filter output"));
}

/// A command is run in the namespace that it is about.
#[test]
fn commands_enter_the_namespace() {
    let door = Question::Door { netns: NETNS };
    let mut inside = far()
        .own(OWN, false)
        .with(door.clone(), Answer::Door(Some("-t 77 -n".to_owned())));
    let fix = |script: &mut Script| diagnose(&not_local(), script).0.unwrap().fix;
    assert!(fix(&mut inside).contains("`nsenter -t 77 -n ip -br addr`"));
    let mut nobody = far().own(OWN, false).without(&door);
    assert!(fix(&mut nobody).contains("(in network namespace 7) `ip -br addr`"));
}

/// A socket that is bound to a device is told of that one, and first of its state.
#[test]
fn the_device_of_the_socket_decides() {
    let bound = Case {
        bound_device: Some(2),
        ..failed_call(Label::Unreachable, Errno::ENETUNREACH)
    };
    let no_route = Script::default().route(FAR, Route::None(Errno::ENETUNREACH.0));
    let cause = diagnose(&bound, &mut no_route.clone()).0.unwrap();
    let why = "no route of eth0, to which the socket is bound, leads to 10.0.0.5";
    assert_eq!((cause.code, cause.why.as_str()), (Code::NoRoute, why));
    let mut down = no_route.link(link(false, None));
    let cause = diagnose(&bound, &mut down).0.unwrap();
    assert_eq!(cause.code, Code::OwnLinkDown);
}

/// Of a policy that is no rule of netfilter's.
#[test]
fn policies_are_looked_for_in_the_namespace() {
    let mut script = far().drop_reason("XFRM_POLICY").with(
        Question::Door { netns: NETNS },
        Answer::Door(Some("--net=/run/netns/a".to_owned())),
    );
    let fix = diagnose(&dropped(), &mut script).0.unwrap().fix;
    let find = "find it with `nsenter --net=/run/netns/a ip xfrm policy`; let";
    assert!(fix.starts_with(find), "{fix}");
}

#[test]
fn programs_are_named_where_they_have_a_name() {
    let mut script = far().security_programs(&["deny", ""]);
    let case = failed_call(Label::Denied, Errno::EPERM);
    let cause = diagnose(&case, &mut script).0.unwrap();
    assert!(cause.why.ends_with(": deny (id 12), id 13"), "{cause:?}");
}

/// Of a program that is known it is said what it is.
#[test]
fn programs_of_cgroups_are_named_with_their_place() {
    let told = |names: &[&str]| {
        let case = failed_call(Label::Denied, Errno::EPERM);
        let cause = diagnose(&case, &mut Script::default().programs(names)).0;
        let cause = cause.unwrap();
        format!("{}\n{}", cause.why, cause.fix)
    };
    let told = [&["deny"][..], &["", "b"], &["cil_sock4_conne"]].map(told);
    insta::assert_snapshot!(told.join("\n"), @"
    connect to 10.0.0.5:5432 returned EPERM, and a BPF program on the process's cgroup or above it decides on connects: deny (id 12, attached to cgroup /kubepods)
    find who attached it with `bpftool cgroup tree`, and have 10.0.0.5:5432 allowed there (network policy of the container platform)
    connect to 10.0.0.5:5432 returned EPERM, and BPF programs on the process's cgroup or above it decide on connects: id 12, attached to cgroup /kubepods, b (id 13, attached to cgroup /kubepods)
    find who attached it with `bpftool cgroup tree`, and have 10.0.0.5:5432 allowed there (network policy of the container platform)
    connect to 10.0.0.5:5432 returned EPERM, and Cilium's load balancer of sockets decides on connects: cil_sock4_conne (id 12, attached to cgroup /kubepods). It forbids them to a service without a backend, which is no permission of the process
    `kubectl get endpointslices -A` shows services without endpoints: start the pods of the one at 10.0.0.5:5432, or mend their readiness
    ");
}

fn sentences(code: Code) -> String {
    let staged = staged();
    let (_, case, script) = staged.iter().find(|(of, ..)| *of == code).unwrap();
    let cause = diagnose(case, &mut script.clone()).0.unwrap();
    format!("{}\n{}", cause.why, cause.fix)
}

#[test]
fn sentences_have_the_facts_of_the_case() {
    let told = [
        Code::EphemeralRangeUsedUp,
        Code::ListeningElsewhere,
        Code::WrongPort,
        Code::NothingListening,
        Code::HostDown,
        Code::PrivateAddressNotLocal,
        Code::LocalFirewall,
        Code::TupleInUse,
        Code::RemoteFiltered,
        Code::SilentHost,
        Code::NoRoute,
        Code::WrongSource,
        Code::NoSourceAddress,
        Code::OwnLinkDown,
        Code::RouteWentAway,
        Code::DroppedHere,
        Code::BadDestination,
        Code::AnswersSometimes,
        Code::AcceptQueueFull,
        Code::IcmpUnreachable,
    ]
    .map(sentences);
    insta::assert_snapshot!(told.join("\n"), @r#"
    connections to 10.0.0.5:5432 hold 28,232 of the 28,232 ports of the range 32768 60999: 100 ESTABLISHED, 28,132 TIME_WAIT; most by crawler[9] (100)
    `sysctl -w net.ipv4.ip_local_port_range="10000 65535"` has 55,536 ports and adds 27,304; `sysctl -w net.ipv4.tcp_tw_reuse=1` lets the 28,132 in TIME_WAIT be used again after a second; also in /etc/sysctl.d; keep connections open (a pool) instead of one per request
    port 5432 is listened on, but not on 10.0.0.5: 127.0.0.1:5432 (postgres[812])
    connect to 127.0.0.1:5432, or let postgres[812] listen on 10.0.0.5 or 0.0.0.0, port 5432
    nothing listens on port 5432 of 10.0.0.5, an address of this machine, but: 0.0.0.0:5433 (postgres[812])
    connect to port 5433 if that is the server meant; else start it on port 5432
    10.0.0.5 is an address of the client's own network namespace, and no socket there listens on port 5432
    start the server that should listen on port 5432 there, or correct the address or port that the client uses
    10.0.0.5 should be on the network of eth0 and does not answer ARP
    start the host or correct its address; `ip neigh show 10.0.0.5 dev eth0` shows REACHABLE once it is back
    10.0.0.5 is a private address, no network of this machine has it, and it is looked for behind the default gateway 203.0.113.1 on eth0
    use the public address of that server, or connect this host to its network (VPN, peering), so that `ip route get 10.0.0.5` shows a route of its own
    this host's own firewall dropped packets of the attempt (NETFILTER_DROP), by rule 4 of chain inet filter output
    `nft -a list chain inet filter output` shows it: let tcp to 10.0.0.5:5432 and its answers pass there
    the connection 10.0.0.2:40000 -> 10.0.0.5:5432 is there already, in TIME_WAIT
    do not bind port 40000 before connect (bind the address with IP_BIND_ADDRESS_NO_PORT), or wait until `ss -tanpo 'sport = :40000'` no longer shows it
    10.0.0.5 completed a handshake on port 22 12 s before, but answered none of this attempt's SYNs to port 5432
    let tcp dport 5432 from this host pass in the firewall of 10.0.0.5, its cloud security group or hosting panel; on 10.0.0.5: `nft list ruleset | grep -n drop`
    10.0.0.5 is off, filtered or a wrong address: no traced attempt got an answer from it in the last 3 s
    check the address; `ping -c 3 -W 1 10.0.0.5` and `traceroute -n -q 1 -w 1 10.0.0.5` show whether anything answers there and how far packets come
    no route of this network namespace leads to 10.0.0.5
    `ip route show` lists the routes: bring up what should set the missing one (interface, DHCP client, VPN)
    the route to 10.0.0.5 is there, by eth0, but not from the chosen source: 10.0.0.2 is not assigned to any interface of this network namespace
    let the application bind to an address that `ip -br addr` lists, or to none; a virtual address that moves (keepalived) is used only where it is
    the route to 10.0.0.5 leaves by eth0, but this network namespace has no IPv4 address to use as a source
    give eth0 an IPv4 address (router advertisement, DHCP, network configuration), or use an address of the server of the other family
    eth0, this host's own interface towards the destination, has no carrier: its cable, switch port or other end is down
    bring up the other end of eth0 (cable, switch port, peer); `ip -br link show eth0` shows LOWER_UP then
    the route to 10.0.0.5, or the interface it left by, went away while the attempt was under way: this host's own sending failed with ENETUNREACH
    find what took it away (`journalctl -b -u NetworkManager -u systemd-networkd`, a DHCP client, a VPN); `ip route show` shows the routes that are left
    this host itself dropped every packet of the attempt (TCP_MD5NOTFOUND): the two sides do not agree on TCP MD5 or TCP-AO signatures
    set the same key on both sides, or on neither (BGP session passwords)
    port 0 of 10.0.0.5 is no port: nobody can listen on it
    set the port in the client's configuration: often an empty or unset value became 0
    10.0.0.5:5432 completed a handshake 12 s ago and did not answer this time: overload, a full accept queue, a rate limit or ban, a NAT gateway out of ports, or another host behind the address
    on the server: `nstat -az TcpExtListenDrops` and `ss -ltn 'sport = :5432'` show a full accept queue; look for a limit of new connections in its firewall
    postgres[812] listens on 0.0.0.0:5432 in the client's own network namespace and does not accept fast enough: 129 wait in its accept queue, whose backlog is 128, and it has dropped 2,412 since it began to listen
    let postgres[812] accept faster, or raise the backlog that it passes to listen, up to `sysctl net.core.somaxconn`; `ss -ltnmp 'sport = :5432'` shows Recv-Q above Send-Q while the queue is full
    the router 10.9.9.9 says that it cannot deliver to 10.0.0.5: the packet was passed on too often (a loop?)
    look at the route to 10.0.0.5 on 10.9.9.9; `traceroute -n -q 1 -w 1 10.0.0.5` shows where the way ends
    "#);
}

/// A tunnel is named with its kind, its holder and its peer, and the step is that of the program.
#[test]
fn tunnels_are_told_apart() {
    let peer = |handshake| Tunnel {
        received: 9,
        peer: Some(WireguardPeer {
            endpoint: "198.51.100.2:51820".parse().ok(),
            handshake,
        }),
        heard: None,
    };
    let told = [
        far().tunnel("wireguard", peer(WireguardHandshake::Never)),
        far().tunnel("wireguard", peer(WireguardHandshake::Ago(300))),
        far()
            .tunnel("tun", Tunnel::default())
            .tun_holder("wireguard-go"),
        far()
            .tunnel("tun", Tunnel::default())
            .tun_holder("tailscaled"),
        far().tunnel(
            "ipip",
            Tunnel {
                received: 9,
                ..Tunnel::default()
            },
        ),
    ]
    .map(|mut script| {
        let cause = diagnose(&silence(), &mut script).0.unwrap();
        format!("{}\n{}", cause.why, cause.fix)
    });
    insta::assert_snapshot!(told.join("\n"), @"
    the way to 10.0.0.5 leaves by eth0, a WireGuard interface, and nothing came back: its WireGuard peer 198.51.100.2:51820 has not completed a handshake since it was configured
    look at the tunnel first: `wg show eth0` shows the latest handshake with each peer: where there is none, mend endpoint, keys and the way of its UDP packets
    the way to 10.0.0.5 leaves by eth0, a WireGuard interface, and nothing came back: its WireGuard peer 198.51.100.2:51820 completed its last handshake 300 s ago, and its keys have expired
    look at the tunnel first: `wg show eth0` shows the latest handshake with each peer: where there is none, mend endpoint, keys and the way of its UDP packets
    the way to 10.0.0.5 leaves by eth0, a TUN device of wireguard-go[7], and nothing came back: the tunnel has not received a packet since it was made
    look at the tunnel first: `wg show eth0` shows the latest handshake with each peer: where there is none, mend endpoint, keys and the way of its UDP packets; look into the log of wireguard-go[7]
    the way to 10.0.0.5 leaves by eth0, a TUN device of tailscaled[7], and nothing came back: the tunnel has not received a packet since it was made
    look at the tunnel first: `tailscale status` shows whether the peer is online, and the routes that it offers are accepted; look into the log of tailscaled[7]
    the way to 10.0.0.5 leaves by eth0, a tunnel interface (ipip), and nothing came back: the tunnel, its far end or the host behind it may be down
    look at the tunnel first: `ip -d -s link show eth0` shows its far end, where that has an address, and the packets that came back (RX); if the tunnel works, look at the host
    ");
}

#[test]
fn sentences_about_ways_name_their_place() {
    let told = [
        Code::BlackholeRoute,
        Code::NotForwarded,
        Code::WrongNetwork,
        Code::ThroughTunnel,
    ]
    .map(sentences);
    insta::assert_snapshot!(told.join("\n"), @"
    the route blackhole 0.0.0.0/0 of table 51820 (rule 5000: not from all fwmark 0xca6c lookup 51820) forbids the way to 10.0.0.5; without it the way by eth0 would be taken
    `ip route show table 51820` shows it: start the VPN that set it, or let it exempt 10.0.0.5 (kill switch, allowed addresses)
    the next hop 10.0.0.1 on the way to 10.0.0.5 is network namespace 8 of this machine, which does not forward packets (net.ipv4.ip_forward is 0)
    `sysctl -w net.ipv4.ip_forward=1` lets it forward; also in /etc/sysctl.d, so that it stays
    10.0.0.5 is an address of this machine itself (network namespace 8), which a macvlan interface such as eth0 never reaches, and nobody answered for it
    give the host a macvlan interface of its own on the same parent, and use its address, or attach the client to a bridge as well; `ip -d link show eth0` shows the parent
    the way to 10.0.0.5 leaves by eth0, a TUN device of openvpn[7], and nothing came back: the tunnel has not received a packet since it was made
    look at the tunnel first: `ip -d -s link show eth0` shows its far end, where that has an address, and the packets that came back (RX); look into the log of openvpn[7]
    ");
}
