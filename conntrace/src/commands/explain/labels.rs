//! Texts about each label: its meaning, its rules, reasons and remedies.

use super::Explanation;
use crate::{diagnosis::step, record::Label};

/// Texts about a label.
pub(super) fn explanation(label: Label) -> Explanation {
    match label {
        Label::Established => ESTABLISHED,
        Label::PortExhausted => PORT_EXHAUSTED,
        Label::AddressUnavailable => ADDRESS_UNAVAILABLE,
        Label::Refused => REFUSED,
        Label::TimedOut => TIMED_OUT,
        Label::Unreachable => UNREACHABLE,
        Label::Denied => DENIED,
        Label::Aborted => ABORTED,
        Label::Cancelled => CANCELLED,
        Label::Failed => FAILED,
    }
}

const ESTABLISHED: Explanation = Explanation {
    means: "the handshake completed",
    recognised: &[
        "Rule 1: the socket reached ESTABLISHED.",
        "A socket under TCP_REPAIR (a restored container's) reaches it without a handshake: no packet is sent, `syn.sent` is 0 and `reply.kind` none.",
    ],
    reasons: &[
        "Nothing is wrong up to TCP: what fails now fails above it (TLS, authentication, an early close).",
        "The kernel of the other side answers before its application accepts: a hung server still looks established.",
    ],
    steps: &[
        step(
            "ss -tnoi dst '[ADDR]:PORT'",
            "state, queues and round-trip time",
        ),
        step(
            "ss -ltn 'sport = :PORT'",
            "on the other side: Recv-Q above Send-Q means that its application does not accept",
        ),
    ],
};

const PORT_EXHAUSTED: Explanation = Explanation {
    means: "no local port was left",
    recognised: &[
        "Rule 2: no SYN left, no port had been bound, and the kernel's search for one ended without any (EADDRNOTAVAIL).",
        "Rule 2: bind to port 0 returned EADDRINUSE; seen where `coverage.bind_exhausted` is true (--trace-syscalls). `remote` is null.",
    ],
    reasons: &[
        "Too many connections to one destination, at once or within the last minute: each in TIME_WAIT holds its port for 60 s.",
        "A connection per request instead of a pool or keep-alive.",
        "Explicit binds hold ports for every destination.",
        "A narrow ip_local_port_range, or ip_local_reserved_ports that leave little of it.",
    ],
    steps: &[
        step(
            "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports",
            "the range in force",
        ),
        step(
            "ss -Htan dst '[ADDR]:PORT' | awk '{print $1}' | sort | uniq -c",
            "sockets to this destination by state",
        ),
        step("ss -tanp dst '[ADDR]:PORT'", "the processes that hold them"),
        step(
            "conntrace explain ephemeral_range_used_up",
            "how to need fewer ports, and how to have more",
        ),
    ],
};

const ADDRESS_UNAVAILABLE: Explanation = Explanation {
    means: "the chosen local address or 4-tuple could not be had",
    recognised: &[
        "Rule 2: no SYN left, and the socket already had a local port when the attempt began (EADDRNOTAVAIL).",
        "Rule 2: bind, or connect before SYN_SENT, returned EADDRNOTAVAIL (--trace-syscalls): no such local address, or none that fits the destination.",
        "Rule 2: bind to a chosen port returned EADDRINUSE (--trace-syscalls): the port is taken. Printed with --all or --label only.",
    ],
    reasons: &[
        "A fixed source port whose last connection to the same destination is still open or, without TCP timestamps, in TIME_WAIT.",
        "Several sockets bound to one source port, connecting to one destination.",
        "A bind to port 0 before connect: the port is chosen before the destination is known.",
    ],
    steps: &[
        step(
            "ss -tanpo 'sport = :LOCAL_PORT'",
            "who holds the local port, and for how long",
        ),
        step(
            "strace -f -e trace=bind,connect,setsockopt -p PID",
            "what the application binds before it connects",
        ),
        step(
            "setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, ...)",
            "in the application: bind the address only, the port is chosen at connect",
        ),
        step(
            "sysctl net.ipv4.tcp_timestamps",
            "1: a chosen 4-tuple in TIME_WAIT can be used again at once; 0: only after 60 s, whatever tcp_tw_reuse says",
        ),
    ],
};

const REFUSED: Explanation = Explanation {
    means: "the other side, or a firewall speaking for it, said no",
    recognised: &[
        "Rule 3: the kernel ended the attempt with ECONNREFUSED, upon a RST or ICMP port unreachable, or with ECONNRESET, upon a RST after a simultaneous open.",
        "Rule 4: the application closed it after ICMP port unreachable had come.",
    ],
    reasons: &[
        "The server is not started, has crashed or is being restarted.",
        "It listens on 127.0.0.1 or on the other address family only.",
        "The client uses the wrong port or address.",
        "A firewall rejects: `reply` is icmp, or a RST in the server's name.",
    ],
    steps: &[
        step(
            "ss -ltnp 'sport = :PORT'",
            "on the destination: whether anything listens there, and on which address",
        ),
        step("ss -ltnp", "on the destination: what listens elsewhere"),
        step(
            "systemctl status SERVICE",
            "on the destination: whether it runs, and since when",
        ),
        step(
            "nft -a list ruleset",
            "here, there and between: rules with reject",
        ),
    ],
};

const TIMED_OUT: Explanation = Explanation {
    means: "no answer; `timeout_by` says who gave up",
    recognised: &[
        "Rule 3: the kernel ended the attempt with ETIMEDOUT after its last SYN retransmission (timeout_by kernel). Where TCP_USER_TIMEOUT, TCP_SYNCNT or a sysctl of the namespace made that early, the message says so.",
        "Rule 5: the application closed it unanswered, after a SYN retransmission or after --patience (timeout_by application).",
    ],
    reasons: &[
        "A firewall or cloud security group drops the SYN, on the way or at the server.",
        "The host is off, or the address is wrong.",
        "This host's own firewall drops the SYN or the answer.",
        "An internal address is used from another network.",
        "The server's accept queue is full, so that its kernel drops SYNs.",
        "Answers are lost on the way back (asymmetric routes), or a connection tracking table is full.",
        "The application's own timeout is shorter than the path needs.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "which way the SYN takes, and from which address",
        ),
        step(
            "ip neigh show to ADDR",
            "on the same network: FAILED means that the host is not there",
        ),
        step(
            "tcpdump -ni any host ADDR and tcp port PORT",
            "whether the SYN leaves and whether anything comes back",
        ),
        step(
            "nft -a list ruleset",
            "this host's own firewall: base chains with the policy drop, and rules that drop; `iptables-save -c` for legacy iptables",
        ),
        step(
            "traceroute -n -T -p PORT ADDR",
            "how far a SYN to this port comes",
        ),
        step(
            "nstat -az TcpExtListenOverflows TcpExtListenDrops",
            "on the server: SYNs dropped for want of room in the accept queue",
        ),
        step(
            "sysctl net.ipv4.tcp_syn_retries",
            "how often the kernel repeats a SYN before it gives up",
        ),
    ],
};

const UNREACHABLE: Explanation = Explanation {
    means: "the network said no",
    recognised: &[
        "Rule 3: the kernel ended the attempt with another network error, such as EHOSTUNREACH or ENETUNREACH.",
        "Rule 4: the application closed it after an ICMP error other than port unreachable had come.",
        "Rule 2: connect returned ENETUNREACH or EHOSTUNREACH before SYN_SENT; seen where `coverage.no_route` is true (--trace-syscalls).",
    ],
    reasons: &[
        "This host has no route there, or one of type unreachable: `syn.sent` is 0.",
        "This host's own link, address or route went away under the attempt: `reply` is local.",
        "The host, or the gateway to it, does not answer on its own network: `reply` is local.",
        "A router on the way knows no route: `reply.from` is that router.",
        "A firewall rejects with an ICMP error (administratively prohibited).",
        "A VPN or tunnel is down, or a netmask is wrong.",
    ],
    steps: &[
        step(
            "ip route get ADDR",
            "which route, gateway and source address are used",
        ),
        step(
            "ip neigh show to ADDR",
            "FAILED: nobody answered for that address",
        ),
        step(
            "ip -br link; ip -br addr",
            "whether the interface is up and has its address",
        ),
        step(
            "ip rule; ip route show table all",
            "policy routing that leads elsewhere",
        ),
        step("traceroute -n ADDR", "where the way ends"),
        step(
            "nft -a list ruleset",
            "on this host and on `reply.from`: rules with reject",
        ),
    ],
};

const DENIED: Explanation = Explanation {
    means: "this host's policy said no",
    recognised: &[
        "Rule 2: connect returned EPERM or EACCES before SYN_SENT; seen where `coverage.local_denial` is true (--trace-syscalls).",
    ],
    reasons: &[
        "A BPF program on the cgroup forbids the connect (network policy of a container platform).",
        "A security module (SELinux, AppArmor) forbids it.",
        "The route is of type prohibit.",
    ],
    steps: &[
        step(
            "strace -f -e trace=connect -p PID",
            "EPERM or EACCES from connect",
        ),
        step("bpftool cgroup tree", "BPF programs on cgroups"),
        step(
            "ausearch -m avc -ts recent",
            "what a security module forbade",
        ),
        step("ip route get ADDR", "prohibit shows as: Permission denied"),
    ],
};

const ABORTED: Explanation = Explanation {
    means: "someone else killed the socket (`ss -K`)",
    recognised: &[
        "Rule 3: the kernel ended the attempt with ECONNABORTED, which sock_diag's destroy sets (tcp_abort).",
    ],
    reasons: &[
        "An administrator or a script ran `ss -K`.",
        "A network manager, VPN client or service proxy clears sockets after a change of network.",
    ],
    steps: &[
        step(
            "bpftrace -e 'kprobe:tcp_abort { printf(\"%s %d\\n\", comm, pid); }'",
            "who kills sockets, the next time it happens",
        ),
        step(
            "journalctl --since -10min",
            "what changed in the network around the line's `time`",
        ),
    ],
};

const CANCELLED: Explanation = Explanation {
    means: "the application gave up before an answer was due",
    recognised: &[
        "Rule 6: the application ended it (close, exit, kill, shutdown, AF_UNSPEC) within --patience, unanswered, with no SYN retransmitted.",
    ],
    reasons: &[
        "Another address of the same name won a race (happy eyeballs): harmless.",
        "The request around it was cancelled, or the process ended.",
        "The application's timeout is shorter than the round trip.",
    ],
    steps: &[
        step(
            "ping -c 3 ADDR",
            "the round-trip time, to hold against `elapsed_us`",
        ),
        step(
            "conntrace --all --pid PID",
            "what else the process connected to at that moment: an attempt to another address that is established won the race",
        ),
    ],
};

const FAILED: Explanation = Explanation {
    means: "anything else; `errno` says what, where it is known",
    recognised: &[
        "Rule 2: no SYN left although the kernel had assigned a local port.",
        "Rule 2: connect returned another errno before SYN_SENT (--trace-syscalls).",
    ],
    reasons: &[
        "The route is of type blackhole (EINVAL).",
        "Memory for sockets or packets ran out (ENOBUFS).",
        "The route went away while the attempt began.",
        "An IPsec policy has no state to send with.",
        "An address that TCP cannot connect to: port 0, or link-local without an interface (EINVAL).",
    ],
    steps: &[
        step(
            "strace -f -e trace=connect -p PID",
            "the errno that the application is told",
        ),
        step(
            "cat /proc/net/sockstat",
            "memory in use, against `sysctl net.ipv4.tcp_mem`",
        ),
        step("ip route get ADDR", "whether there is a route now"),
        step("ip xfrm policy", "IPsec policies for the destination"),
    ],
};
