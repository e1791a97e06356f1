//! Those of the other side that are told by what else was heard of it.

use super::super::{Entry, labels::step};

pub(super) static REMOTE_FILTERED: Entry = Entry {
    means: "the other side's firewall drops the packets",
    recognised: &[
        "Likely: every SYN was lost, and the same host completed a handshake on another port, or sent a RST, within the last ten minutes, in an attempt that was traced from the same network namespace.",
    ],
    reasons: &[
        "The server's firewall drops what it does not let in (ufw, firewalld, nftables).",
        "The cloud's security group or network policy does not list the port, or not this client.",
        "A hosting panel has a firewall of its own.",
        "The host went down within those minutes.",
    ],
    steps: &[
        step(
            "tcpdump -ni any 'tcp port PORT'",
            "on the destination: whether the SYNs arrive; if not, they are dropped before",
        ),
        step(
            "nft list ruleset | grep -n drop",
            "on the destination: rules and policies that drop",
        ),
        step(
            "nc -vz ADDR PORT",
            "from another host: whether only this one is kept out",
        ),
    ],
};

pub(super) static SILENT_HOST: Entry = Entry {
    means: "the host is off, filtered or a wrong address",
    recognised: &[
        "Possible: every SYN was lost, and in at least a minute of tracing no traced attempt to that host, from the same network namespace and on whatever port, completed a handshake or met a RST.",
    ],
    reasons: &[
        "The machine is off, or its network is.",
        "A firewall drops everything for it.",
        "The address is wrong or out of date.",
    ],
    steps: &[
        step("ping ADDR", "whether it answers at all"),
        step("traceroute -n ADDR", "how far packets come"),
        step(
            "getent ahosts NAME",
            "which addresses the name leads to now",
        ),
    ],
};
