//! Those of this host: its firewall, routes, ports and policies.

use super::super::{Entry, labels::step};

pub(super) static LOCAL_FIREWALL: Entry = Entry {
    means: "this host dropped the packets itself",
    recognised: &[
        "Certain: the kernel dropped the SYN, or the answer to it, and gave a reason that is a policy of this host; `evidence.drop_reason` is its name (Linux 5.17). Where packets are dropped before they belong to a socket (prerouting) it is not seen.",
    ],
    reasons: &[
        "A rule that drops, or a chain's policy, at output or input (NETFILTER_DROP).",
        "Answers are not let in, because nothing accepts established connections.",
        "A BPF program on the cgroup, traffic control or an IPsec policy.",
        "The reverse path filter: the answer comes by another interface (IP_RPFILTER).",
    ],
    steps: &[
        step(
            "nft list ruleset | grep -n drop",
            "rules and policies that drop; `iptables-save -c` where that is in use",
        ),
        step(
            "nft insert rule inet TABLE CHAIN tcp dport PORT accept",
            "lets the attempt pass, once the chain is found",
        ),
        step("bpftool cgroup tree", "BPF programs on cgroups"),
        step(
            "sysctl net.ipv4.conf.all.rp_filter",
            "1 is strict; 2 lets answers come by another interface",
        ),
    ],
};

pub(super) static NO_ROUTE: Entry = Entry {
    means: "this host has no route there",
    recognised: &[
        "Certain: connect returned ENETUNREACH or EHOSTUNREACH before there was a SYN (--trace-syscalls), and the kernel finds no route, or one of type unreachable.",
    ],
    reasons: &[
        "The interface or the VPN is down, or was not up yet.",
        "There is no default route, or none for IPv6.",
        "The process is in a network namespace with nothing but loopback.",
    ],
    steps: &[
        step("ip route get ADDR", "the same error"),
        step(
            "ip route show table all; ip -6 route show table all",
            "the routes there are",
        ),
        step("ip -br link; ip -br addr", "which interfaces are up"),
    ],
};

pub(super) static EPHEMERAL_RANGE_USED_UP: Entry = Entry {
    means: "connections to it hold every ephemeral port",
    recognised: &[
        "Certain: sockets to the destination hold all ports of ip_local_port_range that are not reserved; likely from nine tenths of them on, for some may have been given back since.",
    ],
    reasons: &[
        "A connection per request: each stays in TIME_WAIT for 60 s after its end.",
        "Too many connections at once, or a leak: they are in ESTABLISHED or CLOSE_WAIT.",
        "All clients of a NAT gateway or proxy go to one address and port.",
    ],
    steps: &[
        step(
            "ss -Htan dst ADDR:PORT | awk '{print $1}' | sort | uniq -c",
            "the sockets by state",
        ),
        step(
            "sysctl -w net.ipv4.ip_local_port_range='10000 65535'",
            "55,536 ports; from the default of 28,232 it adds 27,304. Check first that nothing listens in the new part",
        ),
        step(
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
            "a port in TIME_WAIT can be used again after a second; it needs timestamps on both sides",
        ),
    ],
};

pub(super) static PORTS_HELD_BY_BIND: Entry = Entry {
    means: "bound sockets hold the ports for every destination",
    recognised: &[
        "Certain: sockets that are bound and not connected hold the ports of ip_local_port_range; likely from nine tenths of them on. Those that do not listen are seen from Linux 6.8 on.",
        "Of a bind to port 0: sockets in any state hold them, for it needs a port that nobody has.",
    ],
    reasons: &[
        "An application binds a source address before connect, which takes a port for every destination.",
        "A proxy that keeps its client's address (transparent) binds for each connection.",
        "A leak of sockets that are bound and never used.",
    ],
    steps: &[
        step(
            "setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, ...)",
            "in the application, before it binds: the port is chosen at connect, for that destination only",
        ),
        step("ss -tanp", "who holds which port"),
    ],
};

pub(super) static SOCKET_PORT_RANGE: Entry = Entry {
    means: "the range that is left to the socket is too narrow",
    recognised: &[
        "Certain: ip_local_reserved_ports leaves none of ip_local_port_range.",
        "Likely: more than half of the range is free, so that the socket must have a narrower one of its own (IP_LOCAL_PORT_RANGE, Linux 6.3), which the kernel does not tell.",
    ],
    reasons: &[
        "The application divides the ports among its workers.",
        "Ports were reserved for services, and the range was narrowed later.",
    ],
    steps: &[
        step(
            "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports",
            "the range, and what is left out of it",
        ),
        step(
            "strace -f -e trace=setsockopt -p PID",
            "IP_LOCAL_PORT_RANGE (51) with the range that is asked for",
        ),
    ],
};

pub(super) static TUPLE_IN_USE: Entry = Entry {
    means: "another socket has the 4-tuple",
    recognised: &[
        "Certain: a socket with these two addresses and ports is there; `evidence.holder` has its state and process.",
    ],
    reasons: &[
        "A fixed source port is used again while its last connection is open or in TIME_WAIT.",
        "Several sockets bound to one port with SO_REUSEADDR connect to one destination.",
    ],
    steps: &[
        step("ss -tanpo 'sport = :LOCAL_PORT'", "the socket that has it"),
        step(
            "strace -f -e trace=bind,connect -p PID",
            "where the application binds its port",
        ),
    ],
};

pub(super) static SOURCE_NOT_LOCAL: Entry = Entry {
    means: "the source address is none of this host's",
    recognised: &[
        "Certain: bind or connect returned EADDRNOTAVAIL (--trace-syscalls), and the address that was chosen is no address of the process's network namespace.",
    ],
    reasons: &[
        "The address has moved to another host (failover), or DHCP gave another one.",
        "A configuration was copied from another host.",
        "The application started before the interface had its address.",
    ],
    steps: &[
        step("ip -br addr", "the addresses there are"),
        step(
            "sysctl net.ipv4.ip_nonlocal_bind",
            "1 lets applications bind to addresses that are not there (yet)",
        ),
    ],
};

pub(super) static CGROUP_POLICY: Entry = Entry {
    means: "a program on the cgroup forbids it",
    recognised: &[
        "Likely: connect returned EPERM (--trace-syscalls), and BPF programs on the process's cgroup, or above it, decide on connects.",
    ],
    reasons: &[
        "A network policy of the container platform.",
        "A service's own restriction, by whoever attached the program.",
    ],
    steps: &[
        step(
            "bpftool cgroup tree",
            "the programs (cgroup_inet4_connect, cgroup_inet6_connect) and where they are attached",
        ),
        step(
            "kubectl get networkpolicy -A",
            "the policies, where this is a Kubernetes node",
        ),
    ],
};

pub(super) static SECURITY_MODULE: Entry = Entry {
    means: "a security module forbids it",
    recognised: &[
        "Likely: connect returned EACCES (--trace-syscalls), there is a route, and a security module confines the process; `evidence.profile` is its profile.",
        "Likely: connect returned EPERM or EACCES, there is a route, and BPF programs of the security module bpf decide on every connect; `evidence.programs` names them. The kernel tells so from Linux 5.13 on.",
    ],
    reasons: &[
        "SELinux: the domain may not connect to ports of that type.",
        "AppArmor: the profile allows no network.",
        "A security agent's BPF program forbids that destination, or that process to connect.",
    ],
    steps: &[
        step(
            "ausearch -m avc -ts recent",
            "what SELinux forbade, to which type of port",
        ),
        step(
            "journalctl -k -g apparmor",
            "what AppArmor forbade, by which profile",
        ),
        step("bpftool prog show id ID", "which process holds the program"),
    ],
};

pub(super) static PROHIBIT_ROUTE: Entry = Entry {
    means: "the route is of type prohibit",
    recognised: &[
        "Certain: connect returned EACCES before there was a SYN (--trace-syscalls), and so does the kernel's search for a route.",
    ],
    reasons: &[
        "A kill switch of a VPN client.",
        "An administrator's block of a network.",
        "A rule of policy routing with the action prohibit.",
    ],
    steps: &[
        step(
            "ip route show table all type prohibit",
            "the routes of that type",
        ),
        step("ip rule", "rules of that action"),
    ],
};
