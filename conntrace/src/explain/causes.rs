//! What each cause means, how it is recognised, and what to do about it: those of
//! the other side and the way there.

mod far;
mod own;

use super::{Entry, labels::step};
use crate::event::Code;

/// The entry of a cause.
pub(super) fn entry(code: Code) -> &'static Entry {
    match code {
        Code::NothingListening => &NOTHING_LISTENING,
        Code::ListeningElsewhere => &LISTENING_ELSEWHERE,
        Code::WrongPort => &WRONG_PORT,
        Code::RejectedByFirewall => &REJECTED_BY_FIREWALL,
        Code::ProxyInPath => &PROXY_IN_PATH,
        Code::LocalFirewall => &own::LOCAL_FIREWALL,
        Code::RemoteFiltered => &far::REMOTE_FILTERED,
        Code::HostDown => &HOST_DOWN,
        Code::SilentHost => &far::SILENT_HOST,
        Code::PrivateAddressNotLocal => &PRIVATE_ADDRESS_NOT_LOCAL,
        Code::NoRoute => &own::NO_ROUTE,
        Code::NeighbourUnresolved => &NEIGHBOUR_UNRESOLVED,
        Code::IcmpUnreachable => &ICMP_UNREACHABLE,
        Code::AdminProhibited => &ADMIN_PROHIBITED,
        Code::EphemeralRangeUsedUp => &own::EPHEMERAL_RANGE_USED_UP,
        Code::PortsHeldByBind => &own::PORTS_HELD_BY_BIND,
        Code::SocketPortRange => &own::SOCKET_PORT_RANGE,
        Code::TupleInUse => &own::TUPLE_IN_USE,
        Code::SourceNotLocal => &own::SOURCE_NOT_LOCAL,
        Code::CgroupPolicy => &own::CGROUP_POLICY,
        Code::SecurityModule => &own::SECURITY_MODULE,
        Code::ProhibitRoute => &own::PROHIBIT_ROUTE,
    }
}

static NOTHING_LISTENING: Entry = Entry {
    means: "no socket accepts connections to that port",
    recognised: &[
        "Certain: the destination is an address of this host, in the process's network namespace or in one next to it, and no socket listens on that port.",
        "Likely: another host answered with a RST, so it is up; nothing accepts the port, or a firewall resets it in the host's name.",
    ],
    reasons: &[
        "The server is not started, has crashed or is being restarted.",
        "It listens on another port than its clients use.",
        "A load balancer still sends to an instance that is gone.",
        "Address translation leads to a port on which nothing listens.",
    ],
    steps: &[
        step(
            "ss -ltnp 'sport = :PORT'",
            "on the destination: nothing, while this is the cause",
        ),
        step(
            "systemctl status SERVICE",
            "on the destination: whether it runs, and since when",
        ),
        step(
            "journalctl -u SERVICE -b",
            "on the destination: why it ended, or could not have its port",
        ),
    ],
};

static LISTENING_ELSEWHERE: Entry = Entry {
    means: "the server listens, but not where it is looked for",
    recognised: &[
        "Certain: sockets listen on that port of this host, and none accepts the address that was used.",
        "Likely: the port is listened on in another network namespace of this host only.",
    ],
    reasons: &[
        "The server listens on 127.0.0.1, the default of many, and the client uses the address of the network.",
        "It listens on the other address family: 0.0.0.0 takes no IPv6, and [::] with IPV6_V6ONLY no IPv4.",
        "It runs in a container whose port is not published.",
    ],
    steps: &[
        step(
            "ss -ltnp 'sport = :PORT'",
            "the addresses that are listened on: 127.0.0.1 takes connections to that address only",
        ),
        step(
            "getent ahosts NAME",
            "which addresses the client's name for the server leads to",
        ),
        step(
            "lsns -t net",
            "the network namespaces, and a process in each",
        ),
    ],
};

static WRONG_PORT: Entry = Entry {
    means: "the server listens on another port than this one",
    recognised: &[
        "Likely: nothing listens on that port of this host, but something does, on an address that fits, on one that differs by a digit or has two neighbouring digits in each other's place.",
        "Likely: another host refuses that port and completed a handshake on such a one within the last ten minutes, in an attempt that was traced from the same network namespace. Possible: on any other port.",
    ],
    reasons: &[
        "A typing error in a configuration.",
        "A second instance (5433 beside 5432) or a plain and an encrypted port (8080, 8443).",
        "The right server is down, and the similar port is a coincidence.",
    ],
    steps: &[
        step("ss -ltnp", "what listens, and by which process"),
        step(
            "tr '\\0' '\\n' < /proc/PID/cmdline",
            "what the client was told to connect to",
        ),
    ],
};

static REJECTED_BY_FIREWALL: Entry = Entry {
    means: "a firewall answered",
    recognised: &[
        "Certain: this host itself answered its own packet, which a firewall rule that rejects does.",
        "Likely: ICMP port unreachable came, which TCP never sends; `evidence.from` sent it.",
    ],
    reasons: &[
        "A rule with `reject` (nftables), REJECT (iptables) or a firewall's default, such as firewalld's.",
        "The port is open for other sources only.",
        "A router or load balancer speaks for a server it does not have.",
    ],
    steps: &[
        step(
            "nft list ruleset | grep -n reject",
            "here and at `evidence.from`: the rules that answer",
        ),
        step(
            "iptables-save -c | grep REJECT",
            "the same where iptables is in use; the counters tell which one it is",
        ),
        step(
            "firewall-cmd --list-all",
            "where firewalld runs: which ports are open in the zone",
        ),
    ],
};

static PROXY_IN_PATH: Entry = Entry {
    means: "the connection goes to a proxy",
    recognised: &[
        "Certain: the destination is the address and port that http_proxy, https_proxy or all_proxy names in the environment of the process. Names are not looked up, and nothing else of the environment is looked at.",
        "Likely: a rule of this host's firewall (nftables, or iptables by it) rewrites the destination of connections to that very port (redirect, dnat). Rules that also cover other ports are not recognised.",
    ],
    reasons: &[
        "The proxy is down, or its address is out of date.",
        "A destination that needs no proxy is not in no_proxy.",
        "The variables came along from a login or an image.",
        "A transparent proxy or a service mesh has left its rule, or a published container port its own.",
    ],
    steps: &[
        step(
            "tr '\\0' '\\n' < /proc/PID/environ | grep -i _proxy",
            "the variables (they may hold a password)",
        ),
        step(
            "nft -a list ruleset | grep -e redirect -e dnat",
            "rules that rewrite destinations, and where to",
        ),
        step(
            "curl -v --proxy http://ADDR:PORT https://example.com",
            "whether the proxy works from here",
        ),
    ],
};

static HOST_DOWN: Entry = Entry {
    means: "the host is not there",
    recognised: &[
        "Certain: it should be on a network of this host, and the neighbour entry for its address has failed; likely while it is still asked for.",
        "Likely: a router says that it cannot reach the host on its own network (ICMP host unreachable).",
    ],
    reasons: &[
        "The machine or container is off, or is still starting.",
        "The address is wrong or has been given to nobody.",
        "A netmask that is too wide: the host is looked for on a network where it is not.",
        "A switch, VLAN or security group keeps the two apart.",
    ],
    steps: &[
        step(
            "ip neigh show to ADDR",
            "FAILED or INCOMPLETE: nobody answers for that address",
        ),
        step(
            "ip route get ADDR",
            "whether it should be on that interface's network at all",
        ),
        step("arping -I DEVICE ADDR", "whether it answers now"),
    ],
};

static PRIVATE_ADDRESS_NOT_LOCAL: Entry = Entry {
    means: "an internal address is used from another network",
    recognised: &[
        "Likely: the destination is private (RFC 1918, RFC 6598, unique local), no network of this host has it, its packets go to the default gateway, and they come from a public address.",
        "Possible: the same from a private address, for an organisation may route its private networks.",
    ],
    reasons: &[
        "A configuration of the data centre is used elsewhere, or the internal address of a cloud server from outside.",
        "The VPN or the peering to that network is down.",
        "Split DNS gave the internal answer.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "the default gateway where a route of its own was expected",
        ),
        step("ip -br link; ip -br addr", "whether the VPN is up"),
        step(
            "getent ahosts NAME",
            "whether the name leads to the internal address",
        ),
    ],
};

static NEIGHBOUR_UNRESOLVED: Entry = Entry {
    means: "the next hop does not answer",
    recognised: &[
        "Certain: the neighbour entry of the gateway on the route has failed; likely while it is still asked for.",
    ],
    reasons: &[
        "The gateway is off or has another address by now.",
        "The route names the wrong gateway, or the wrong interface.",
        "The link is up and leads nowhere (VLAN, bridge, cable).",
    ],
    steps: &[
        step("ip route get ADDR", "the gateway and the interface"),
        step("ip neigh", "FAILED or INCOMPLETE: it does not answer"),
        step("arping -I DEVICE GATEWAY", "whether it answers now"),
    ],
};

static ICMP_UNREACHABLE: Entry = Entry {
    means: "a router cannot deliver",
    recognised: &[
        "Certain: an ICMP error came that says so; `evidence` has its type, code and sender. Of IPv6 the kernel may have kept no more than the errno.",
    ],
    reasons: &[
        "The router has no route: a network was withdrawn, or a VPN behind it is down.",
        "Packets go in circles (time exceeded).",
        "The protocol is not taken there.",
    ],
    steps: &[
        step("traceroute -n ADDR", "where the way ends"),
        step(
            "ip route get ADDR",
            "on this host and on `evidence.from`: the route in use",
        ),
    ],
};

static ADMIN_PROHIBITED: Entry = Entry {
    means: "a router may not deliver",
    recognised: &[
        "Certain: an ICMP error came that says administratively prohibited (IPv4 3/9, 3/10, 3/13; IPv6 1/1, 1/5, 1/6), or of IPv6 its errno, EACCES.",
    ],
    reasons: &[
        "An access list on the router `evidence.from`.",
        "A firewall in front of the server that rejects openly.",
        "A policy between networks, such as those of tenants.",
    ],
    steps: &[
        step(
            "traceroute -n ADDR",
            "where `evidence.from` lies on the way",
        ),
        step(
            "nft list ruleset | grep -n reject",
            "on `evidence.from`, where it is a Linux host",
        ),
    ],
};
