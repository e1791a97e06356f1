//! Routes, rules and interfaces as they are read, against what the kernel does with a
//! connect and against what `ip` shows.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    thread,
};

use conntrace::{
    diagnose::way::{Device, Route, RouteOut, Way},
    evidence::routes,
};
use conntrace_tests::{ip, run, tcp, with_ip};
use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
    sched::{CloneFlags, unshare},
    unistd::{Uid, setfsuid},
};
use socket2::SockAddr;

/// Two links, each with both ends in this namespace.
const LINKS: &[&str] = &[
    "link set lo up",
    "link add e0 type veth peer name p0",
    "link add e1 type veth peer name p1",
    "link set e0 up",
    "link set p0 up",
    "link set e1 up",
    "link set p1 up",
    "addr add 10.0.0.1/24 dev e0",
    "addr add 10.8.0.1/24 dev e1",
    "addr add fd00::1/64 dev e0 nodad",
    "addr add fd08::1/64 dev e1 nodad",
];

/// The scene in which connect looks up twice.
const BY_SOURCE: &str = "source_chosen_by_the_route";

fn main() -> ExitCode {
    let mut tests = vec![
        with_ip("rule_texts", rule_texts),
        with_ip("multipath", multipath),
        with_ip("cannot_tell", cannot_tell),
        with_ip("too_many_routes", too_many_routes),
        with_ip("covering", covering),
        with_ip("links", links),
        with_ip("addresses", addresses),
        with_ip("link_local", link_local),
    ];
    for scene in SCENES {
        tests.push(with_ip(scene.name, || play(scene)));
    }
    run(tests)
}

/// A configuration, and ways with what must come of them.
struct Scene {
    name: &'static str,
    /// Words for `ip`.
    setup: &'static [&'static str],
    /// Words for `ip route get`, the route, and what forbids it.
    ways: &'static [(&'static str, &'static str, &'static str)],
}

const SCENES: &[Scene] = &[
    // wg-quick, gluetun, tailscale: the table of the VPN forbids what main would route.
    Scene {
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
            // Not even a network nearby is reached.
            (
                "10.0.0.9",
                "EHOSTUNREACH",
                "Unreachable by 5000: not from all fwmark 0xca6c lookup 51820; 0.0.0.0/0 in 51820; instead dev e0 /24 table 254",
            ),
            ("10.0.0.1", "local", ""),
            // A bound device has the kernel take anything for on-link.
            ("203.0.113.5 oif e0", "dev e0 /32 table 0", ""),
        ],
    },
    Scene {
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
            // What forbids is by loopback, which the socket is not bound to.
            ("2001:db8::5 oif e0", "via fd00::2 dev e0 /0 table 254", ""),
            ("2001:db8::5 oif e1", "ENETUNREACH", ""),
        ],
    },
    Scene {
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
    Scene {
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
    Scene {
        name: "kinds_of_rules",
        setup: &[
            "route add default via 10.0.0.2",
            "rule add pref 100 to 10.4.0.0/16 unreachable",
            "rule add pref 101 to 10.5.0.0/16 blackhole",
            "rule add pref 102 to 10.6.0.0/16 prohibit",
            "rule add pref 103 uidrange 1000-1999 prohibit",
            "rule add pref 104 ipproto tcp dport 25 prohibit",
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
            // The source that is not assigned here is why.
            ("203.0.113.5 from 10.9.9.9", "ENETUNREACH", ""),
        ],
    },
    // The source that the first look-up gives decides in the second.
    Scene {
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
    // An exit node: marked packets by main, all others by the tunnel's table.
    Scene {
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
    Scene {
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
            // With a source the request takes the device for a preference.
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
    // A pod of a cluster without IPv4.
    Scene {
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
    Scene {
        name: "own_link_down",
        setup: &["route add default via 10.0.0.2", "link set e0 down"],
        ways: &[
            ("203.0.113.5", "ENETUNREACH", ""),
            ("203.0.113.5 oif e0", "ENETUNREACH", ""),
        ],
    },
];

/// Runs in a network namespace of its own, of this thread only.
fn in_namespace(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        thread.join().unwrap();
    });
}

fn with_links(setup: &[&str], test: impl FnOnce() + Send) {
    in_namespace(|| {
        LINKS.iter().chain(setup).for_each(|words| ip(words));
        test();
    });
}

fn play(scene: &Scene) {
    with_links(scene.setup, || {
        for (words, route, dead_end) in scene.ways {
            let way = way(words);
            assert_eq!(shown(&way), *route, "route of {words}");
            assert_eq!(forbidden(&way), *dead_end, "what forbids {words}");
            assert_eq!(by_connect(&way), by_route(&way), "connect to {words}");
            if is_as_ip_asks(scene, &way) {
                assert_eq!(by_ip(words), without_table(route), "ip route get {words}");
            }
        }
    });
}

/// `ip` looks up once, and the device of an IPv6 request with a source is only
/// preferred.
fn is_as_ip_asks(scene: &Scene, way: &Way) -> bool {
    let prefers = way.to.is_ipv6() && way.from.is_some() && way.device.is_some();
    scene.name != BY_SOURCE && !prefers
}

fn way(words: &str) -> Way {
    let mut words = words.split(' ');
    let mut way = Way {
        to: words.next().unwrap().parse().unwrap(),
        from: None,
        device: None,
        mark: 0,
        uid: Some(0),
        port: 443,
    };
    while let Some(word) = words.next() {
        let value = words.next().unwrap();
        let number = || match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        };
        match word {
            "from" => way.from = Some(value.parse().unwrap()),
            "oif" => way.device = Some(if_nametoindex(value).unwrap()),
            "mark" => way.mark = number(),
            "uid" => way.uid = Some(number()),
            "dport" => way.port = number().try_into().unwrap(),
            other => unreachable!("{other}"),
        }
    }
    way
}

fn out(out: &RouteOut) -> String {
    let mut shown = out
        .gateway
        .map(|it| format!("via {it} "))
        .unwrap_or_default();
    let (name, len, table) = (&out.device.name, out.prefix_len, out.table);
    write!(shown, "dev {name} /{len} table {table}").unwrap();
    shown
}

fn shown(way: &Way) -> String {
    match routes::route(way).unwrap() {
        Route::Local => "local".to_owned(),
        Route::Out(found) => out(&found),
        Route::None(errno) => format!("{:?}", Errno::from_raw(errno)),
    }
}

fn forbidden(way: &Way) -> String {
    let Some(found) = routes::dead_end(way).unwrap() else {
        return String::new();
    };
    let mut shown = format!(
        "{:?} by {}: {}",
        found.kind, found.rule.priority, found.rule.text
    );
    if let (Some((addr, len)), Some(table)) = (found.prefix, found.table) {
        write!(shown, "; {addr}/{len} in {table}").unwrap();
    }
    if let Some(instead) = &found.instead {
        write!(shown, "; instead {}", out(instead)).unwrap();
    }
    shown
}

/// The errno of a connect, if it finds no way.
fn by_connect(way: &Way) -> Option<Errno> {
    let remote = SocketAddr::new(way.to, way.port);
    // The socket is of the user who makes it.
    setfsuid(Uid::from_raw(way.uid.unwrap()));
    let socket = tcp(remote);
    setfsuid(Uid::from_raw(0));
    socket.set_nonblocking(true).unwrap();
    if let Some(device) = way.device {
        let name = if_indextoname(device).unwrap();
        socket.bind_device(Some(name.as_bytes())).unwrap();
    }
    socket.set_mark(way.mark).unwrap();
    if let Some(from) = way.from {
        // Also to an address that is not assigned here.
        if from.is_ipv4() {
            socket.set_freebind_v4(true).unwrap();
        }
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    }
    let errno = socket.connect(&SockAddr::from(remote)).err();
    let errno = errno.and_then(|error| error.raw_os_error());
    let errno = errno.map(Errno::from_raw);
    // To itself nothing listens.
    errno.filter(|errno| ![Errno::EINPROGRESS, Errno::ECONNREFUSED].contains(errno))
}

fn by_route(way: &Way) -> Option<Errno> {
    match routes::route(way).unwrap() {
        Route::None(errno) => Some(Errno::from_raw(errno)),
        Route::Local | Route::Out(_) => None,
    }
}

/// `ip route get`: `local`, `via X dev Y`, or the errno.
fn by_ip(words: &str) -> String {
    let port = if words.contains("dport") {
        ""
    } else {
        " dport 443"
    };
    let uid = if words.contains("uid") { "" } else { " uid 0" };
    let all = format!("route get {words}{port}{uid} ipproto tcp");
    let (errors, found) = output(&all.split(' ').collect::<Vec<_>>());
    for (text, errno) in [
        ("No route to host", "EHOSTUNREACH"),
        ("Network is unreachable", "ENETUNREACH"),
        ("Invalid argument", "EINVAL"),
        ("Permission denied", "EACCES"),
    ] {
        if errors.contains(text) {
            return errno.to_owned();
        }
    }
    if found.starts_with("local ") {
        return "local".to_owned();
    }
    let mut words = found.split_whitespace().skip(1);
    let mut shown = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "via" | "dev" => shown.extend([word, words.next().unwrap()]),
            _ => {}
        }
    }
    shown.join(" ")
}

fn without_table(route: &str) -> &str {
    route.split(" /").next().unwrap()
}

/// What `ip` writes to stderr and stdout.
fn output(words: &[&str]) -> (String, String) {
    let output = Command::new("ip").args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stderr), text(output.stdout))
}

/// Each as `ip rule` shows it.
fn rule_texts() {
    let table = [
        "route add prohibit default table 7",
        "-6 route add prohibit default table 7",
    ];
    with_links(&table, || {
        for (selector, words) in [
            ("prohibit", "203.0.113.5"),
            ("from 10.0.0.1 prohibit", "203.0.113.5 from 10.0.0.1"),
            ("from 10.0.0.0/24 prohibit", "203.0.113.5 from 10.0.0.1"),
            ("to 203.0.113.5 prohibit", "203.0.113.5"),
            ("to 203.0.113.0/24 fwmark 7 prohibit", "203.0.113.5 mark 7"),
            (
                "fwmark 0x80000/0xff0000 prohibit",
                "203.0.113.5 mark 0x80001",
            ),
            ("fwmark 0/0xff prohibit", "203.0.113.5"),
            ("not fwmark 0xca6c blackhole", "203.0.113.5"),
            ("iif lo unreachable", "203.0.113.5"),
            ("not iif gone oif gone2 prohibit", "203.0.113.5"),
            ("not oif e0 prohibit", "203.0.113.5"),
            ("uidrange 0-5 ipproto tcp dport 443 prohibit", "203.0.113.5"),
            ("uidrange 0-5 dport 400-500 prohibit", "203.0.113.5"),
            ("not to 10.9.0.0/16 ipproto udp prohibit", "203.0.113.5"),
            (
                "not from 10.0.0.9 lookup 7 suppress_prefixlength 3",
                "203.0.113.5",
            ),
            (
                "fwmark 1 iif lo uidrange 0-0 lookup 7",
                "203.0.113.5 mark 1",
            ),
        ] {
            ip(&format!("rule add pref 100 {selector}"));
            assert_text(&way(words), &["rule", "show", "pref", "100"]);
            ip("rule del pref 100");
        }
        for (selector, words) in [
            ("to 2001:db8::/32 oif e0 prohibit", "2001:db8::1 oif e0"),
            (
                "from fd00::1 to 2001:db8::1 lookup 7",
                "2001:db8::1 from fd00::1",
            ),
        ] {
            ip(&format!("-6 rule add pref 100 {selector}"));
            assert_text(&way(words), &["-6", "rule", "show", "pref", "100"]);
            ip("-6 rule del pref 100");
        }
    });
}

fn assert_text(way: &Way, show: &[&str]) {
    let expected = output(show).1;
    let found = routes::dead_end(way).unwrap();
    let found = found.unwrap_or_else(|| unreachable!("{expected} does not forbid {way:?}"));
    let shown = format!("{}:\t{}", found.rule.priority, found.rule.text);
    assert_eq!(shown, expected.trim_end());
}

/// Of several next hops the one that the kernel chooses for the destination.
fn multipath() {
    let setup = [
        "route add 203.0.113.0/24 nexthop via 10.0.0.2 dev e0 nexthop via 10.8.0.2 dev e1",
        "-6 route add 2001:db8::/64 nexthop via fd00::2 dev e0 nexthop via fd08::2 dev e1",
    ];
    with_links(&setup, || {
        let mut chosen = Vec::new();
        for host in 1..30 {
            // Newer kernels prefer the next hop by the interface that has the source.
            let source = if host % 2 == 0 {
                "10.0.0.1"
            } else {
                "10.8.0.1"
            };
            for words in [
                format!("203.0.113.{host} from {source}"),
                format!("2001:db8::{host}"),
            ] {
                let shown = shown(&way(&words));
                assert_eq!(without_table(&shown), by_ip(&words), "{words}");
                chosen.push(shown);
            }
        }
        for hop in ["10.0.0.2", "10.8.0.2", "fd00::2", "fd08::2"] {
            assert!(
                chosen.iter().any(|it| it.contains(hop)),
                "{hop} is never chosen"
            );
        }
    });
}

/// Conditions that cannot be decided from here.
fn cannot_tell() {
    let setup = [
        "rule add pref 200 prohibit",
        "-6 rule add pref 200 prohibit",
    ];
    with_links(&setup, || {
        let (far, near) = (way("203.0.113.5"), way("10.0.0.9"));
        for (selector, way) in [
            ("ipproto tcp sport 1000-2000 lookup 7", &far),
            ("tos 0x10 lookup 7", &far),
            ("lookup main suppress_ifgroup default", &near),
        ] {
            ip(&format!("rule add pref 100 {selector}"));
            assert_unsupported(routes::dead_end(way));
            ip("rule del pref 100");
            assert!(routes::dead_end(way).unwrap().is_some(), "without it");
        }
        // A rule that another condition excludes is no obstacle.
        ip("rule add pref 100 to 10.0.0.0/8 ipproto tcp sport 5 lookup 7");
        assert!(routes::dead_end(&far).unwrap().is_some());

        ip("rule add pref 100 uidrange 5-6 lookup 7");
        let anyone = Way { uid: None, ..far };
        assert_unsupported(routes::route(&anyone));
        assert_unsupported(routes::dead_end(&anyone));

        // IPv6 tries once more with a source that cannot be foreseen.
        let far = way("2001:db8::1");
        assert_eq!(shown(&far), "EACCES");
        ip("-6 rule add pref 100 from fd08::1 to 2001:db8::/32 lookup 7");
        ip("-6 route add default dev e1 table 7");
        assert_unsupported(routes::route(&far));
        assert_eq!(shown(&way("2001:db8::1 from fd08::1")), "dev e1 /0 table 7");
    });
}

fn assert_unsupported<T: std::fmt::Debug>(found: io::Result<T>) {
    assert_eq!(found.unwrap_err().kind(), io::ErrorKind::Unsupported);
}

/// An answer that would be cut is none.
fn too_many_routes() {
    with_links(&["route add prohibit 203.0.113.0/24"], || {
        let far = way("203.0.113.5");
        assert!(routes::dead_end(&far).unwrap().is_some());
        let mut batch = String::new();
        for number in 0..65_536 {
            let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
            writeln!(batch, "route add 11.{high}.{low}.0/24 dev e0").unwrap();
        }
        let mut ip = Command::new("ip");
        let mut ip = ip
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        ip.stdin
            .take()
            .unwrap()
            .write_all(batch.as_bytes())
            .unwrap();
        assert!(ip.wait().unwrap().success());
        let error = routes::dead_end(&far).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        // The kernel's own look-up needs no dump.
        assert_eq!(shown(&far), "EACCES");
    });
}

/// A bridge with a too wide network takes what another route leads to as well.
fn covering() {
    let setup = [
        "route add default via 10.0.0.2",
        "link add br0 type bridge",
        "link set br0 up",
        "addr add 172.17.0.1/16 dev br0",
        "route add 172.16.0.0/12 via 10.0.0.2",
        "route add 172.17.5.0/24 via 10.8.0.2 table 100",
        "route add 172.17.5.0/25 via 10.8.0.3 table 101",
        "rule add pref 200 fwmark 5 lookup 101",
        "rule add pref 300 from all lookup 100 suppress_prefixlength 24",
        "rule add pref 40000 lookup 100",
    ];
    with_links(&setup, || {
        let way = way("172.17.5.9");
        let Route::Out(used) = routes::route(&way).unwrap() else {
            unreachable!()
        };
        assert_eq!(out(&used), "dev br0 /16 table 254");
        let covering = |way: &Way, used: &RouteOut| {
            let found = routes::covering(way, used).unwrap().into_iter();
            let shown = found.map(|it| {
                let name = it.device.map(|device| device.name);
                let gateway = it.gateway.map(|gateway| gateway.to_string());
                let (addr, len) = it.prefix;
                let (gateway, name) = (gateway.unwrap_or_default(), name.unwrap_or_default());
                format!("{addr}/{len} {gateway} {name} {}", it.table)
            });
            shown.collect::<Vec<_>>()
        };
        let by_table = "172.17.5.0/24 10.8.0.2 e1 100";
        let by_main = "172.16.0.0/12 10.0.0.2 e0 254";
        assert_eq!(covering(&way, &used), [by_table, by_main]);
        let other = RouteOut {
            gateway: Some("10.0.0.2".parse().unwrap()),
            device: Device {
                index: if_nametoindex("e0").unwrap(),
                name: "e0".to_owned(),
            },
            prefix_len: 12,
            table: 254,
        };
        assert_eq!(covering(&way, &other), [by_table, "172.17.0.0/16  br0 254"]);
        let marked = Way { mark: 5, ..way };
        let first = "172.17.5.0/25 10.8.0.3 e1 101";
        assert_eq!(covering(&marked, &other)[..2], [first, by_table]);
    });
}

fn links() {
    with_links(
        &[
            "link add br0 type bridge",
            "link set br0 address 02:00:00:00:00:07",
        ],
        || {
            let link = |name: &str| {
                routes::link(if_nametoindex(name).unwrap())
                    .unwrap()
                    .unwrap()
            };
            let lo = link("lo");
            assert!(lo.loopback && lo.up && !lo.resolves_neighbours && lo.kind.is_none());
            let e0 = link("e0");
            assert!(e0.up && e0.carrier && e0.resolves_neighbours && !e0.loopback);
            assert_eq!((e0.name.as_str(), e0.kind.as_deref()), ("e0", Some("veth")));
            ip("link set p0 down");
            let unplugged = link("e0");
            assert!(unplugged.up && !unplugged.carrier);
            ip("link set e0 down");
            assert!(!link("e0").up);
            ip("link set e1 arp off");
            assert!(!link("e1").resolves_neighbours);
            assert_eq!(link("br0").kind.as_deref(), Some("bridge"));
            assert_eq!(routes::link(9999).unwrap(), None);

            let bridge = vec![2, 0, 0, 0, 0, 7];
            assert!(
                !routes::link_addresses().unwrap().contains(&bridge),
                "it is down"
            );
            ip("link set br0 up");
            assert!(routes::link_addresses().unwrap().contains(&bridge));
        },
    );
}

fn addresses() {
    in_namespace(|| {
        let own = |v6| routes::own_addresses(v6).unwrap();
        let is_own = |addr: &str| routes::is_own(addr.parse().unwrap()).unwrap();
        assert!(!own(false).any && !own(true).any);
        assert!(!is_own("127.0.0.1"), "loopback is down");
        LINKS.iter().for_each(|words| ip(words));
        ip("addr add 169.254.7.7/16 dev e0");
        ip("addr add 10.255.0.1/32 dev lo");
        ip("addr add 10.0.9.1 peer 10.0.9.2 dev e1");
        let ips = |all: &[&str]| -> Vec<IpAddr> {
            all.iter().map(|addr| addr.parse().unwrap()).collect()
        };
        let mut usable = own(false).usable;
        usable.sort();
        assert_eq!(
            usable,
            ips(&["10.0.0.1", "10.0.9.1", "10.8.0.1", "10.255.0.1"])
        );
        let mut usable = own(true).usable;
        usable.sort();
        assert_eq!(usable, ips(&["fd00::1", "fd08::1"]));
        for (addr, expected) in [
            ("127.9.9.9", true),
            ("::1", true),
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.2", false),
            ("10.0.9.1", true),
            ("10.0.9.2", false),
            ("10.255.0.1", true),
            ("169.254.7.7", true),
            ("fd08::1", true),
            ("fd08::2", false),
        ] {
            assert_eq!(is_own(addr), expected, "{addr}");
        }
        ip("link set e0 down");
        assert!(is_own("10.0.0.1"), "assigned, if of no use");
        assert!(!own(false).usable.contains(&"10.0.0.1".parse().unwrap()));
        for words in [
            "addr flush dev e1",
            "addr flush dev lo",
            "addr del 10.0.0.1/24 dev e0",
        ] {
            ip(words);
        }
        assert!(!own(false).any, "only link-local ones are left");
        for number in 1..20 {
            ip(&format!("addr add 10.8.0.{number}/24 dev e1"));
        }
        assert_eq!(own(false).usable.len(), 8);
    });
}

fn link_local() {
    with_links(&[], || {
        let mut way = way("fe80::5");
        assert!(routes::route(&way).is_err());
        way.device = Some(if_nametoindex("e1").unwrap());
        assert_eq!(shown(&way), "dev e1 /64 table 254");
    });
}
