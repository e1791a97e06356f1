//! Network configurations, and the expected routes through them.

/// Name of the scene in which connect looks up twice.
pub(crate) const BY_SOURCE: &str = "source_chosen_by_the_route";

/// Network configuration, with expected results for several destinations.
pub(crate) struct RouteScene {
    pub(crate) name: &'static str,
    /// Arguments of `ip`, one command each.
    pub(crate) setup: &'static [&'static str],
    /// Arguments of `ip route get`, the expected route, and the rule that forbids it.
    pub(crate) ways: &'static [(&'static str, &'static str, &'static str)],
}

pub(crate) const SCENES: &[RouteScene] = &[
    // wg-quick, gluetun, tailscale: the VPN's table forbids a destination that main would route.
    RouteScene {
        name: "kill_switch_v4",
        setup: &[
            "route add default via 10.0.0.2",
            "rule add pref 5000 not fwmark 51820 lookup 51820",
            "route add unreachable default table 51820 metric 4278198272",
        ],
        ways: &[
            (
                "203.0.113.5",
                "EHOSTUNREACH",
                "Unreachable by 5000: not from all fwmark 0xca6c lookup 51820; 0.0.0.0/0 in 51820; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "203.0.113.5 mark 51820",
                "via 10.0.0.2 dev e0 /0 table 254",
                "",
            ),
            // Even the directly connected network is forbidden.
            (
                "10.0.0.9",
                "EHOSTUNREACH",
                "Unreachable by 5000: not from all fwmark 0xca6c lookup 51820; 0.0.0.0/0 in 51820; instead dev e0 /24 table 254",
            ),
            ("10.0.0.1", "local", ""),
            // With a bound device the kernel takes every address for on-link.
            ("203.0.113.5 oif e0", "dev e0 /32 table 0", ""),
        ],
    },
    RouteScene {
        name: "kill_switch_v6",
        setup: &[
            "-6 route add default via fd00::2",
            "-6 rule add pref 5000 not fwmark 51820 lookup 51820",
            "-6 route add unreachable default table 51820 metric 4278198272",
        ],
        ways: &[
            (
                "2001:db8::5",
                "EHOSTUNREACH",
                "Unreachable by 5000: not from all fwmark 0xca6c lookup 51820; ::/0 in 51820; instead via fd00::2 dev e0 /0 table 254",
            ),
            (
                "2001:db8::5 mark 51820",
                "via fd00::2 dev e0 /0 table 254",
                "",
            ),
            // The forbidding route is by loopback, which the socket is not bound to.
            ("2001:db8::5 oif e0", "via fd00::2 dev e0 /0 table 254", ""),
            ("2001:db8::5 oif e1", "ENETUNREACH", ""),
        ],
    },
    RouteScene {
        name: "kinds_of_routes",
        setup: &[
            "route add default via 10.0.0.2",
            "rule add not fwmark 51820 table 51820",
            "rule add table main suppress_prefixlength 0",
            "route add unreachable 10.1.0.0/16 table 51820",
            "route add blackhole 10.2.0.0/16 table 51820",
            "route add prohibit 10.3.0.0/16 table 51820",
            "route add throw 10.4.0.0/16 table 51820",
            "route add default via 10.8.0.2 table 51820",
        ],
        ways: &[
            (
                "10.1.0.9",
                "EHOSTUNREACH",
                "Unreachable by 32765: not from all fwmark 0xca6c lookup 51820; 10.1.0.0/16 in 51820; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "10.2.0.9",
                "EINVAL",
                "Blackhole by 32765: not from all fwmark 0xca6c lookup 51820; 10.2.0.0/16 in 51820; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "10.3.0.9",
                "EACCES",
                "Prohibit by 32765: not from all fwmark 0xca6c lookup 51820; 10.3.0.0/16 in 51820; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            ("10.4.0.9", "via 10.0.0.2 dev e0 /0 table 254", ""),
            ("10.5.0.9", "via 10.8.0.2 dev e1 /0 table 51820", ""),
            ("10.0.0.9", "dev e0 /24 table 254", ""),
        ],
    },
    RouteScene {
        name: "kinds_of_routes_v6",
        setup: &[
            "-6 route add unreachable fd01::/32",
            "-6 route add blackhole fd02::/32",
            "-6 route add prohibit fd03::/32",
            "-6 route add fd03:0:1::/48 via fd08::2",
            "-6 rule add pref 100 to fd04::/32 unreachable",
            "-6 rule add pref 100 to fd05::/32 blackhole",
            "-6 rule add pref 100 to fd06::/32 prohibit",
        ],
        ways: &[
            (
                "fd01::1",
                "EHOSTUNREACH",
                "Unreachable by 32766: from all lookup main; fd01::/32 in 254",
            ),
            (
                "fd02::1",
                "EINVAL",
                "Blackhole by 32766: from all lookup main; fd02::/32 in 254",
            ),
            (
                "fd03::1",
                "EACCES",
                "Prohibit by 32766: from all lookup main; fd03::/32 in 254",
            ),
            ("fd03:0:1::1", "via fd08::2 dev e1 /48 table 254", ""),
            (
                "fd04::1",
                "ENETUNREACH",
                "Unreachable by 100: from all to fd04::/32 unreachable",
            ),
            (
                "fd05::1",
                "EINVAL",
                "Blackhole by 100: from all to fd05::/32 blackhole",
            ),
            (
                "fd06::1",
                "EACCES",
                "Prohibit by 100: from all to fd06::/32 prohibit",
            ),
            (
                "fd06::1 oif e0",
                "EACCES",
                "Prohibit by 100: from all to fd06::/32 prohibit",
            ),
            ("fd01::1 oif e0", "ENETUNREACH", ""),
            ("fd09::1", "ENETUNREACH", ""),
            ("::1", "local", ""),
        ],
    },
    RouteScene {
        name: "kinds_of_rules",
        setup: &[
            "route add default via 10.0.0.2",
            "rule add pref 100 to 10.4.0.0/16 unreachable",
            "rule add pref 101 to 10.5.0.0/16 blackhole",
            "rule add pref 102 to 10.6.0.0/16 prohibit",
            "rule add pref 103 uidrange 1000-1999 prohibit",
            "rule add pref 104 ipproto 6 dport 25 prohibit",
            "rule add pref 105 from 10.8.0.1 prohibit",
            "rule add pref 106 to 10.7.0.0/16 goto 200",
            "rule add pref 107 to 10.7.0.0/16 prohibit",
            "rule add pref 200 to 10.7.1.0/24 blackhole",
        ],
        ways: &[
            (
                "10.4.0.1",
                "ENETUNREACH",
                "Unreachable by 100: from all to 10.4.0.0/16 unreachable; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "10.5.0.1",
                "EINVAL",
                "Blackhole by 101: from all to 10.5.0.0/16 blackhole; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "10.6.0.1",
                "EACCES",
                "Prohibit by 102: from all to 10.6.0.0/16 prohibit; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "203.0.113.5 uid 999",
                "via 10.0.0.2 dev e0 /0 table 254",
                "",
            ),
            (
                "203.0.113.5 uid 1000",
                "EACCES",
                "Prohibit by 103: from all uidrange 1000-1999 prohibit; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "203.0.113.5 dport 26",
                "via 10.0.0.2 dev e0 /0 table 254",
                "",
            ),
            (
                "203.0.113.5 dport 25",
                "EACCES",
                "Prohibit by 104: from all ipproto tcp dport 25 prohibit; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "203.0.113.5 from 10.8.0.1",
                "EACCES",
                "Prohibit by 105: from 10.8.0.1 prohibit; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            (
                "203.0.113.5 from 10.0.0.1",
                "via 10.0.0.2 dev e0 /0 table 254",
                "",
            ),
            ("10.7.0.1", "via 10.0.0.2 dev e0 /0 table 254", ""),
            (
                "10.7.1.1",
                "EINVAL",
                "Blackhole by 200: from all to 10.7.1.0/24 blackhole; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            // The cause is the source address, which is not assigned here.
            ("203.0.113.5 from 10.9.9.9", "ENETUNREACH", ""),
        ],
    },
    // The first lookup gives the source, which decides in the second.
    RouteScene {
        name: BY_SOURCE,
        setup: &[
            "route add default via 10.0.0.2",
            "rule add pref 100 from 10.0.0.1 to 203.0.113.0/24 prohibit",
            "rule add pref 101 from 10.0.0.1 to 198.51.100.0/24 lookup 7",
            "route add default via 10.8.0.2 table 7",
        ],
        ways: &[
            (
                "203.0.113.5",
                "EACCES",
                "Prohibit by 100: from 10.0.0.1 to 203.0.113.0/24 prohibit; instead via 10.0.0.2 dev e0 /0 table 254",
            ),
            ("198.51.100.7", "via 10.8.0.2 dev e1 /0 table 7", ""),
            ("192.0.2.1", "via 10.0.0.2 dev e0 /0 table 254", ""),
        ],
    },
    // An exit node: marked packets use main, all others the tunnel's table.
    RouteScene {
        name: "marks",
        setup: &[
            "route add default via 10.0.0.2",
            "route add default dev e1 table 52",
            "rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
            "rule add pref 5250 fwmark 0x80000/0xff0000 unreachable",
            "rule add pref 5270 lookup 52",
        ],
        ways: &[
            ("203.0.113.5", "dev e1 /0 table 52", ""),
            (
                "203.0.113.5 mark 0x80000",
                "via 10.0.0.2 dev e0 /0 table 254",
                "",
            ),
            (
                "203.0.113.5 mark 0x80001",
                "via 10.0.0.2 dev e0 /0 table 254",
                "",
            ),
            ("203.0.113.5 mark 0x180000", "dev e1 /0 table 52", ""),
        ],
    },
    RouteScene {
        name: "bound_devices",
        setup: &[
            "route add default via 10.0.0.2",
            "route add 10.7.0.0/16 via 10.8.0.2",
            "-6 route add default via fd00::2",
            "-6 route add fd07::/32 via fd08::2",
            "rule add pref 100 oif e1 lookup 100",
            "route add default via 10.8.0.9 table 100",
            "-6 rule add pref 100 oif e1 to fd0a::/32 prohibit",
        ],
        ways: &[
            ("203.0.113.5", "via 10.0.0.2 dev e0 /0 table 254", ""),
            ("203.0.113.5 oif e1", "via 10.8.0.9 dev e1 /0 table 100", ""),
            ("203.0.113.5 oif e0", "via 10.0.0.2 dev e0 /0 table 254", ""),
            ("10.7.0.1 oif e0", "via 10.0.0.2 dev e0 /0 table 254", ""),
            ("10.8.0.1 oif e0", "via 10.0.0.2 dev e0 /0 table 254", ""),
            ("fd07::1 oif e0", "via fd00::2 dev e0 /0 table 254", ""),
            // With a source the request treats the device as a preference.
            (
                "fd07::1 from fd00::1 oif e0",
                "via fd00::2 dev e0 /0 table 254",
                "",
            ),
            (
                "fd07::1 from fd08::1 oif e1",
                "via fd08::2 dev e1 /32 table 254",
                "",
            ),
            ("fd09::1 oif e1", "ENETUNREACH", ""),
            (
                "fd0a::1 oif e1",
                "EACCES",
                "Prohibit by 100: from all to fd0a::/32 oif e1 prohibit",
            ),
            ("fd0a::1", "via fd00::2 dev e0 /0 table 254", ""),
            ("127.0.0.1", "local", ""),
        ],
    },
    // A pod in a cluster without IPv4.
    RouteScene {
        name: "no_ipv4",
        setup: &[
            "addr flush dev e0 scope global",
            "addr flush dev e1 scope global",
            "addr add fd00::1/64 dev e0 nodad",
            "-6 route add default via fd00::2",
        ],
        ways: &[
            ("198.51.100.7", "ENETUNREACH", ""),
            ("2001:db8::1", "via fd00::2 dev e0 /0 table 254", ""),
        ],
    },
    RouteScene {
        name: "own_link_down",
        setup: &["route add default via 10.0.0.2", "link set e0 down"],
        ways: &[
            ("203.0.113.5", "ENETUNREACH", ""),
            ("203.0.113.5 oif e0", "ENETUNREACH", ""),
        ],
    },
];
