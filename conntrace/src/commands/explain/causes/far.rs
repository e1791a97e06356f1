//! Those of the other side and of the way to it.

use crate::commands::explain::{Explanation, labels::step};

pub(super) static REMOTE_FILTERED: Explanation = Explanation {
    means: "the other side's firewall drops the packets",
    recognised: &[
        "Likely: at least two SYNs were lost, over longer than handshakes with that host take. The same host lately completed a handshake on another port, or sent a RST, and completed none on this one. Both in attempts that were traced, from the same network namespace.",
    ],
    reasons: &[
        "The server's firewall drops what it does not let in (ufw, firewalld, nftables).",
        "The cloud's security group or network policy does not list the port, or not this client.",
        "A hosting panel has a firewall of its own.",
        "Looks the same: the listener's accept queue is full. The server's kernel then drops SYNs without an answer, on that port alone.",
        "Looks the same: a full connection tracking table, on the server or on a firewall on the way. It keeps old connections and drops new ones.",
        "Looks the same: asymmetric routes. The SYN arrives, and the answer takes a way on which it is dropped (a stateful firewall, reverse path filtering).",
        "The host went down in the meantime.",
    ],
    steps: &[
        step(
            "tcpdump -ni any 'tcp port PORT'",
            "on the destination. No SYN: it is dropped on the way. A SYN and no answer: the server drops it. A SYN-ACK that does not arrive here: it is dropped on the way back",
        ),
        step(
            "nft -a list ruleset",
            "on the destination: base chains with the policy drop, and rules that drop",
        ),
        step(
            "ss -ltn 'sport = :PORT'; nstat -az TcpExtListenOverflows",
            "on the destination: Recv-Q above Send-Q, and a counter that grows, mean a full accept queue",
        ),
        step(
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
            "on the destination and on firewalls on the way: a count at its maximum",
        ),
        step(
            "ip route get CLIENT",
            "on the destination, with this host's address: whether answers leave by the interface on which the SYN came",
        ),
        step(
            "nc -vz ADDR PORT",
            "from another host: whether only this one is kept out",
        ),
    ],
};

pub(super) static ANSWERS_SOMETIMES: Explanation = Explanation {
    means: "the same address and port answered moments ago",
    recognised: &[
        "Possible: a handshake on this very address and port completed in the last ten minutes, and this attempt was not answered.",
    ],
    reasons: &[
        "The server does not accept fast enough: its accept queue or SYN queue is full.",
        "A firewall limits new connections (recent, hashlimit), or has banned this client (fail2ban).",
        "The connection tracking table of a gateway is full, or its NAT has no port left for this destination.",
        "Another host answers for the address now: a stale neighbour entry, a duplicate address, a load balancer with one dead backend.",
        "A device on the way drops packets with certain TCP options, such as timestamps or fast open.",
    ],
    steps: &[
        step(
            "nstat -az TcpExtListenOverflows TcpExtListenDrops",
            "on the server: both rise while its accept queue is full",
        ),
        step(
            "ss -ltn 'sport = :PORT'",
            "on the server: Recv-Q above Send-Q is a full accept queue",
        ),
        step(
            "ip neigh show ADDRESS",
            "here, twice: another link-layer address means that two hosts have the address",
        ),
    ],
};

pub(super) static SILENT_HOST: Explanation = Explanation {
    means: "the host is off, filtered or a wrong address",
    recognised: &[
        "Possible: there is a record that the host was tried, and since then no traced attempt to it, from the same network namespace and on whatever port, was answered. `why` says since when.",
    ],
    reasons: &[
        "The machine is off, or its network is.",
        "A firewall drops everything for it.",
        "The address is wrong or out of date.",
        "Answers are lost on the way back (asymmetric routes).",
    ],
    steps: &[
        step("ping -c 3 ADDR", "whether it answers at all"),
        step("traceroute -n ADDR", "how far packets come"),
        step(
            "getent ahosts NAME",
            "which addresses the name leads to now",
        ),
    ],
};

pub(super) static HOST_DOWN: Explanation = Explanation {
    means: "the host is not there",
    recognised: &[
        "Likely: it should be on a network of this host, the interface is up and has carrier, and nobody answered for its address (the neighbour entry has failed, or is still asked for).",
        "Likely: a router says that it cannot reach the host on its own network (ICMP host unreachable).",
    ],
    reasons: &[
        "The machine or container is off, or is still starting.",
        "The address is wrong or has been given to nobody.",
        "A netmask that is too wide, or a container bridge with the destination's network: the host is looked for on a network where it is not.",
        "A switch, VLAN or security group keeps the two apart.",
        "A macvlan interface, which never reaches its own host.",
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
        step(
            "arping -c 3 -I DEVICE ADDR",
            "whether it answers now; for IPv6: ndisc6 ADDR DEVICE",
        ),
    ],
};

pub(super) static PRIVATE_ADDRESS_NOT_LOCAL: Explanation = Explanation {
    means: "an internal address is used from another network",
    recognised: &[
        "The destination is private (RFC 1918, RFC 6598, unique local), no network of this machine has it, its packets leave by the default gateway, and nothing of that network was ever heard.",
        "Likely where the source address is a public one; possible where it is private as well, for an organisation may route its private networks.",
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

pub(super) static NEIGHBOUR_UNRESOLVED: Explanation = Explanation {
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
        step(
            "ip neigh show to GATEWAY",
            "FAILED or INCOMPLETE: it does not answer",
        ),
        step(
            "arping -c 3 -I DEVICE GATEWAY",
            "whether it answers now; for IPv6: ndisc6 GATEWAY DEVICE",
        ),
    ],
};

pub(super) static ICMP_UNREACHABLE: Explanation = Explanation {
    means: "a router says that it cannot deliver",
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

pub(super) static ADMIN_PROHIBITED: Explanation = Explanation {
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
            "nft -a list ruleset",
            "on `evidence.from`, where it is a Linux host: rules with reject",
        ),
    ],
};
