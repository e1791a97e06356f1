//! Those of this host's own routes, addresses and links.

use crate::commands::explain::{Explanation, labels::step};

pub(super) static NO_ROUTE: Explanation = Explanation {
    means: "this host has no route there",
    recognised: &[
        "Certain: connect returned ENETUNREACH or EHOSTUNREACH before there was a SYN (--trace-syscalls), and the kernel finds no route, or one of type unreachable. With the chosen source address and without it: where only that one has none, it is another cause (wrong_source).",
    ],
    reasons: &[
        "The interface or the VPN is down, or was not up yet.",
        "There is no default route, or none for IPv6.",
        "The process is in a network namespace with nothing but loopback.",
        "A rule of policy routing leads to a table without a route.",
    ],
    steps: &[
        step("ip route get ADDR", "the same error"),
        step(
            "ip rule; ip route show table all; ip -6 route show table all",
            "the rules, in their order, and the routes there are",
        ),
        step("ip -br link; ip -br addr", "which interfaces are up"),
    ],
};

pub(super) static PROHIBIT_ROUTE: Explanation = Explanation {
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

pub(super) static ROUTE_WENT_AWAY: Explanation = Explanation {
    means: "route, address or link went away under the attempt",
    recognised: &[
        "A SYN had left, and then this host itself could not send any more (EHOSTUNREACH, ENETUNREACH): no ICMP error came. `evidence` has the route as it is now.",
    ],
    reasons: &[
        "An interface or a VPN went down, or a container was taken off its network.",
        "The address was removed: a DHCP lease that ended, a failover (VRRP, keepalived).",
        "A routing daemon withdrew the route.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "whether there is a route now, and from which address",
        ),
        step(
            "ip monitor link address route",
            "what goes away the next time, and when",
        ),
        step(
            "journalctl --since -10min",
            "what changed the network around the line's `time`",
        ),
    ],
};

pub(super) static OWN_LINK_DOWN: Explanation = Explanation {
    means: "this host's own interface is down",
    recognised: &[
        "Certain: the interface by which the packets should leave is down or has no carrier, or it is loopback and down.",
    ],
    reasons: &[
        "A cable, a switch port or a virtual machine's adapter is disconnected.",
        "The interface was set down, or nothing has set it up yet.",
        "A new network namespace, in which loopback is down until somebody sets it up.",
        "The other end of a veth pair is down or gone.",
    ],
    steps: &[
        step(
            "ip -br link",
            "DOWN: it is set down; LOWERLAYERDOWN or NO-CARRIER: nothing is connected to it",
        ),
        step(
            "ip link set DEVICE up",
            "sets it up, for loopback: ip link set lo up",
        ),
        step(
            "ethtool DEVICE",
            "Link detected: no, where the cable or the other end is at fault",
        ),
    ],
};

pub(super) static WRONG_SOURCE: Explanation = Explanation {
    means: "the source address cannot be answered there",
    recognised: &[
        "The source address is another interface's, no interface's, or one that the destination cannot answer, such as a unique local address to a global one. `evidence` has the route with that source and without it.",
    ],
    reasons: &[
        "The application binds an address of another network than the one by which it leaves.",
        "A virtual address that another host has by now; ip_nonlocal_bind lets it be bound all the same.",
        "IPv6 with nothing but a unique local address, without address translation.",
        "With several uplinks: no rule leads this source address to its own gateway.",
    ],
    steps: &[
        step(
            "ip route get ADDR from SOURCE",
            "the way with this source address (`local.addr`), or why there is none",
        ),
        step(
            "ip route get ADDR",
            "the way without it; src is the address that the kernel would choose",
        ),
        step(
            "ip -br addr",
            "which interface has the address, if one has it",
        ),
        step(
            "ip rule add from SOURCE table TABLE",
            "leads what comes from that address to a table with its own gateway",
        ),
    ],
};

pub(super) static NO_SOURCE_ADDRESS: Explanation = Explanation {
    means: "this host has no address to use as a source",
    recognised: &[
        "No SYN left, and no interface has an address of the destination's family that can be a source. `evidence` has the addresses and the route.",
    ],
    reasons: &[
        "IPv6 is off (disable_ipv6), or there is nothing but a link-local address.",
        "A host or container of one family only, and a name that has addresses of the other one.",
        "The interface has lost its address, or has none yet (DHCP).",
        "The IPv6 address is still tentative, or somebody else has it (duplicate address detection).",
    ],
    steps: &[
        step("ip -br addr", "the addresses there are"),
        step(
            "ip -6 addr show tentative; ip -6 addr show dadfailed",
            "IPv6 addresses that cannot be used yet, or never will",
        ),
        step(
            "sysctl net.ipv6.conf.all.disable_ipv6 net.ipv6.conf.DEVICE.disable_ipv6",
            "1: IPv6 is off there",
        ),
        step(
            "getent ahosts NAME",
            "whether the name has an address of the other family",
        ),
    ],
};

pub(super) static SOURCE_NOT_LOCAL: Explanation = Explanation {
    means: "the source address is not assigned to this host",
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
            "sysctl net.ipv4.ip_nonlocal_bind net.ipv6.ip_nonlocal_bind",
            "1 lets applications bind to addresses that are not there (yet); nobody answers connections from there until they are",
        ),
    ],
};
