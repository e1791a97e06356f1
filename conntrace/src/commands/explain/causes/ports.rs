//! Those of this host's local ports.

use crate::commands::explain::{Explanation, labels::step};

pub(super) static EPHEMERAL_RANGE_USED_UP: Explanation = Explanation {
    means: "connections to it hold every ephemeral port",
    recognised: &[
        "Certain: sockets to the destination hold all ports of ip_local_port_range that are not reserved; likely from nine tenths of them on, for some may have been given back since.",
    ],
    reasons: &[
        "A connection per request: each stays in TIME_WAIT for 60 s after this side has closed it.",
        "Too many connections at once: a pool without a limit (ESTABLISHED).",
        "A leak: the other side has closed, and the application has not (CLOSE_WAIT).",
        "All clients of a NAT gateway or proxy go to one address and port.",
    ],
    steps: &[
        step(
            "ss -Htan dst '[ADDR]:PORT' | awk '{print $1}' | sort | uniq -c",
            "the sockets by state",
        ),
        step(
            "ss -Htanp state close-wait dst '[ADDR]:PORT'",
            "whose connections are not closed though the other side has closed: to be mended in the application, for more ports only put it off",
        ),
        step(
            "keep-alive, or a pool with a limit",
            "in the application: a connection that is used again leaves no TIME_WAIT. Where they must be short, let the server close first: TIME_WAIT is on the side that closes first",
        ),
        step(
            "ip addr add ADDRESS dev DEVICE",
            "more source addresses: each has all the ports for itself. The application binds them in turn, with IP_BIND_ADDRESS_NO_PORT. More addresses or ports of the destination do the same",
        ),
        step(
            "ss -Hltn",
            "what listens from 10000 on: reserve these ports before the range is widened, or a connection can have a service's port when that starts again",
        ),
        step(
            "sysctl -w net.ipv4.ip_local_reserved_ports=LIST",
            "leaves them out, as 11211,27017-27019. It replaces the list, so begin with what is in it",
        ),
        step(
            "sysctl -w net.ipv4.ip_local_port_range='10000 65535'",
            "55,536 ports, also for IPv6; from the default of 28,232 it adds 27,304",
        ),
        step(
            "echo 'net.ipv4.ip_local_port_range = 10000 65535' > /etc/sysctl.d/90-local-ports.conf",
            "keeps it when the host starts again; likewise ip_local_reserved_ports and tcp_tw_reuse",
        ),
        step(
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
            "a port in TIME_WAIT can be used again after a second; it needs timestamps on both sides",
        ),
    ],
};

pub(super) static PORTS_HELD_BY_BIND: Explanation = Explanation {
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

pub(super) static SOCKET_PORT_RANGE: Explanation = Explanation {
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

pub(super) static TUPLE_IN_USE: Explanation = Explanation {
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
