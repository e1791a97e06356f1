//! What each cause means, how it is recognised, and what to do about it: those of
//! who answers, and of the way there.

mod far;
mod own;
mod ports;
mod routes;

use super::{Explanation, labels::step};
use crate::{diagnosis::Code, record::Label};

/// The entry of a cause.
pub(super) fn entry(code: Code) -> &'static Explanation {
    match code {
        Code::NothingListening => &NOTHING_LISTENING,
        Code::ListeningElsewhere => &LISTENING_ELSEWHERE,
        Code::WrongPort => &WRONG_PORT,
        Code::RejectedByFirewall => &REJECTED_BY_FIREWALL,
        Code::ProxyInPath => &PROXY_IN_PATH,
        Code::LocalFirewall => &own::LOCAL_FIREWALL,
        Code::DroppedHere => &own::DROPPED_HERE,
        Code::RemoteFiltered => &far::REMOTE_FILTERED,
        Code::HostDown => &far::HOST_DOWN,
        Code::SilentHost => &far::SILENT_HOST,
        Code::PrivateAddressNotLocal => &far::PRIVATE_ADDRESS_NOT_LOCAL,
        Code::NoRoute => &routes::NO_ROUTE,
        Code::NeighbourUnresolved => &far::NEIGHBOUR_UNRESOLVED,
        Code::IcmpUnreachable => &far::ICMP_UNREACHABLE,
        Code::AdminProhibited => &far::ADMIN_PROHIBITED,
        Code::EphemeralRangeUsedUp => &ports::EPHEMERAL_RANGE_USED_UP,
        Code::PortsHeldByBind => &ports::PORTS_HELD_BY_BIND,
        Code::SocketPortRange => &ports::SOCKET_PORT_RANGE,
        Code::TupleInUse => &ports::TUPLE_IN_USE,
        Code::SourceNotLocal => &routes::SOURCE_NOT_LOCAL,
        Code::CgroupPolicy => &own::CGROUP_POLICY,
        Code::SecurityModule => &own::SECURITY_MODULE,
        Code::ProhibitRoute => &routes::PROHIBIT_ROUTE,
        Code::RouteWentAway => &routes::ROUTE_WENT_AWAY,
        Code::OwnLinkDown => &routes::OWN_LINK_DOWN,
        Code::WrongSource => &routes::WRONG_SOURCE,
        Code::NoSourceAddress => &routes::NO_SOURCE_ADDRESS,
        Code::BadDestination => &BAD_DESTINATION,
        Code::AnswersSometimes => &far::ANSWERS_SOMETIMES,
    }
}

/// The labels that a cause explains.
pub(super) fn labels(code: Code) -> &'static [Label] {
    use Label::{
        AddressUnavailable, Denied, Failed, PortExhausted, Refused, TimedOut, Unreachable,
    };
    match code {
        Code::NothingListening
        | Code::ListeningElsewhere
        | Code::WrongPort
        | Code::RejectedByFirewall => &[Refused],
        Code::ProxyInPath => &[Refused, TimedOut],
        Code::BadDestination => &[Refused, TimedOut, Unreachable, Failed],
        Code::LocalFirewall
        | Code::DroppedHere
        | Code::AnswersSometimes
        | Code::RemoteFiltered
        | Code::SilentHost => &[TimedOut],
        Code::HostDown
        | Code::NeighbourUnresolved
        | Code::OwnLinkDown
        | Code::RouteWentAway
        | Code::WrongSource
        | Code::PrivateAddressNotLocal => &[TimedOut, Unreachable],
        Code::NoRoute | Code::IcmpUnreachable | Code::AdminProhibited => &[Unreachable],
        Code::NoSourceAddress => &[Unreachable, AddressUnavailable],
        Code::EphemeralRangeUsedUp | Code::PortsHeldByBind | Code::SocketPortRange => {
            &[PortExhausted]
        }
        Code::TupleInUse | Code::SourceNotLocal => &[AddressUnavailable],
        Code::CgroupPolicy | Code::SecurityModule | Code::ProhibitRoute => &[Denied],
    }
}

static NOTHING_LISTENING: Explanation = Explanation {
    means: "no socket accepts connections to that port",
    recognised: &[
        "Certain: the way leads to an address of this machine, in the process's network namespace or in another one, and no socket there listens on that port.",
        "Likely: another host answered with a RST, so it is up; nothing accepts the port, or a firewall resets it in the host's name.",
    ],
    reasons: &[
        "The server is not started, has crashed or is being restarted.",
        "It listens on another port than its clients use.",
        "The client uses the wrong address: an outdated DNS record, another environment's server, or 127.0.0.1 within a container, which is the container itself.",
        "A load balancer still sends to an instance that is gone.",
        "Address translation leads to a port on which nothing listens.",
    ],
    steps: &[
        step(
            "getent ahosts NAME",
            "which addresses the client's name for the server leads to, as against where the server is",
        ),
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

static LISTENING_ELSEWHERE: Explanation = Explanation {
    means: "the server listens, but not where it is looked for",
    recognised: &[
        "Certain: sockets listen on that port where the way leads, and none accepts the address that was used: `evidence` has each, and why it does not apply (other address, IPv6 only, device).",
    ],
    reasons: &[
        "The server listens on 127.0.0.1, the default of many, and the client uses the address of the network.",
        "It listens on the other address family: 0.0.0.0 takes no IPv6, and [::] with IPV6_V6ONLY no IPv4.",
        "It is bound to another device (SO_BINDTODEVICE, a VRF).",
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
            "grep -rn listen CONFIG",
            "in the server's configuration (bind, listen, listen_addresses): where it is told to listen",
        ),
    ],
};

static WRONG_PORT: Explanation = Explanation {
    means: "the server listens on another port than this one",
    recognised: &[
        "Likely: nothing listens on that port of this host, but something does, on an address that fits, on one that differs by a digit or has two neighbouring digits in each other's place.",
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

static REJECTED_BY_FIREWALL: Explanation = Explanation {
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
            "nft -a list ruleset",
            "here and at `evidence.from`: rules with reject, in every base chain. One that accepts in another base chain does not help",
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

static PROXY_IN_PATH: Explanation = Explanation {
    means: "the connection goes to a proxy",
    recognised: &[
        "Certain: the destination is the address and port that http_proxy, https_proxy or all_proxy names in the environment of the process. Names are not looked up, and nothing else of the environment is looked at.",
        "Likely: a rule of this host's firewall (nftables, or iptables by it) whose conditions the SYN meets rewrites its destination (redirect, dnat). Possible: some of its conditions cannot be evaluated. Legacy iptables cannot be read.",
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
            "curl -v --proxy 'http://ADDR:PORT' https://example.com",
            "whether the proxy works from here; an IPv6 address stands in brackets",
        ),
    ],
};

static BAD_DESTINATION: Explanation = Explanation {
    means: "an address that TCP cannot connect to",
    recognised: &[
        "The address alone explains it: port 0, a link-local IPv6 address without its interface, a broadcast or multicast address, or an IPv4 address on a socket that is for IPv6 only (IPV6_V6ONLY).",
    ],
    reasons: &[
        "A port that is not set: an empty variable, a failed look-up of a service, a default of 0.",
        "A link-local address (fe80::) that was copied without %DEVICE.",
        "A placeholder such as 0.0.0.0 or 255.255.255.255 was never replaced.",
        "The application opens IPv6 sockets for every address.",
    ],
    steps: &[
        step(
            "strace -f -e trace=socket,setsockopt,connect -p PID",
            "the address, the errno, and IPV6_V6ONLY if it is set",
        ),
        step(
            "tr '\\0' '\\n' < /proc/PID/cmdline",
            "what the client was told to connect to",
        ),
        step(
            "ping -c 1 ADDR%DEVICE",
            "a link-local address with its interface, as the client needs it",
        ),
    ],
};
