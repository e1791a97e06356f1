//! Rules and routes, and cases in which they cannot be evaluated.

use std::{
    fmt::{Debug, Write as _},
    io::{self, Write as _},
    process::{Command, Stdio},
};

use conntrace::{
    diagnosis::way::{Flow, NetDevice, Route, RouteOut},
    host::route,
};
use conntrace_tests::{ip, is_root};
use nix::net::if_::if_nametoindex;

use crate::routes::{by_ip, in_namespace, out, output, shown, way, with_links, without_table};

/// Rules are printed as `ip rule` shows them.
pub(crate) fn rule_texts() {
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
            ("uidrange 0-5 ipproto 6 dport 443 prohibit", "203.0.113.5"),
            ("uidrange 0-5 dport 400-500 prohibit", "203.0.113.5"),
            ("not to 10.9.0.0/16 ipproto 17 prohibit", "203.0.113.5"),
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

pub(crate) fn assert_text(way: &Flow, show: &[&str]) {
    let expected = output(show).1;
    // Some machines have no /etc/protocols.
    let expected = expected
        .replace("ipproto-6 ", "tcp ")
        .replace("ipproto-17 ", "udp ");
    let found = route::dead_end(way).unwrap();
    let found = found.unwrap_or_else(|| unreachable!("{expected} does not forbid {way:?}"));
    let shown = format!("{}:\t{}", found.rule.priority, found.rule.text);
    assert_eq!(shown, expected.trim_end());
}

/// Of several next hops the result is the one that the kernel chooses for the destination.
pub(crate) fn multipath() {
    let setup = [
        "route add 203.0.113.0/24 nexthop via 10.0.0.2 dev e0 nexthop via 10.8.0.2 dev e1",
        "-6 route add 2001:db8::/64 nexthop via fd00::2 dev e0 nexthop via fd08::2 dev e1",
    ];
    with_links(&setup, || {
        let mut chosen = Vec::new();
        for host in 1..30 {
            // Newer kernels prefer the next hop on the interface that has the source.
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

/// Rules with conditions that depend on more than the destination are reported as unsupported.
pub(crate) fn cannot_tell() {
    let setup = [
        "rule add pref 200 prohibit",
        "-6 rule add pref 200 prohibit",
    ];
    with_links(&setup, || {
        let (far, near) = (way("203.0.113.5"), way("10.0.0.9"));
        for (selector, way) in [
            ("ipproto 6 sport 1000-2000 lookup 7", &far),
            ("tos 0x10 lookup 7", &far),
            ("lookup main suppress_ifgroup default", &near),
        ] {
            ip(&format!("rule add pref 100 {selector}"));
            assert_unsupported(route::dead_end(way));
            if !selector.starts_with("lookup") {
                assert_unsupported(route::route(way));
            }
            ip("rule del pref 100");
            assert!(route::dead_end(way).unwrap().is_some(), "without it");
        }
        // Unsupported conditions do not matter if another condition excludes the rule.
        ip("rule add pref 100 to 10.0.0.0/8 ipproto 6 sport 5 lookup 7");
        assert!(route::dead_end(&far).unwrap().is_some());

        ip("rule add pref 100 uidrange 5-6 lookup 7");
        let anyone = Flow { uid: None, ..far };
        assert_unsupported(route::route(&anyone));
        assert_unsupported(route::dead_end(&anyone));

        // IPv6 looks up again with a source address that cannot be predicted.
        let far = way("2001:db8::1");
        assert_eq!(shown(&far), "EACCES");
        ip("-6 rule add pref 100 from fd08::1 to 2001:db8::/32 lookup 7");
        ip("-6 route add default dev e1 table 7");
        assert_unsupported(route::route(&far));
        assert_eq!(shown(&way("2001:db8::1 from fd08::1")), "dev e1 /0 table 7");
    });
}

pub(crate) fn assert_unsupported<T: Debug>(found: io::Result<T>) {
    assert_eq!(found.unwrap_err().kind(), io::ErrorKind::Unsupported);
}

/// A table that exceeds the limit is an error, not a partial answer.
pub(crate) fn too_many_routes() {
    with_links(&["route add prohibit 203.0.113.0/24"], || {
        let far = way("203.0.113.5");
        assert!(route::dead_end(&far).unwrap().is_some());
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
        let error = route::dead_end(&far).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        // A lookup by the kernel itself needs no dump.
        assert_eq!(shown(&far), "EACCES");
    });
}

/// A bridge with too wide a network also covers the destinations of another route.
pub(crate) fn covering() {
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
        let Route::Out(used) = route::route(&way).unwrap() else {
            unreachable!()
        };
        assert_eq!(out(&used), "dev br0 /16 table 254");
        let covering = |way: &Flow, used: &RouteOut| {
            let found = route::covering(way, used).unwrap().into_iter();
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
            device: NetDevice {
                index: if_nametoindex("e0").unwrap(),
                name: "e0".to_owned(),
            },
            prefix_len: 12,
            table: 254,
        };
        assert_eq!(covering(&way, &other), [by_table, "172.17.0.0/16  br0 254"]);
        let marked = Flow { mark: 5, ..way };
        let first = "172.17.5.0/25 10.8.0.3 e1 101";
        assert_eq!(covering(&marked, &other)[..2], [first, by_table]);
    });
}

pub(crate) fn lacks_vrf() -> Option<&'static str> {
    let mut lacks = false;
    if is_root() {
        in_namespace(|| {
            let mut ip = Command::new("ip");
            let ip = ip.args(["link", "add", "v0", "type", "vrf", "table", "10"]);
            lacks = !ip
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|it| it.success());
        });
    }
    lacks.then_some("needs CONFIG_NET_VRF")
}

/// Kernels differ in the rules that apply to a socket bound to an interface of a VRF.
pub(crate) fn vrf() {
    let setup = [
        "link add v0 type vrf table 10",
        "link set v0 up",
        "link set e1 master v0",
        "rule add pref 2000 prohibit",
        "route add unreachable default table 10",
    ];
    with_links(&setup, || {
        assert!(
            route::dead_end(&way("203.0.113.5")).unwrap().is_some(),
            "of no VRF"
        );
        for device in ["e1", "v0"] {
            let bound = way(&format!("203.0.113.5 oif {device}"));
            assert_eq!(shown(&bound), "EHOSTUNREACH");
            assert_unsupported(route::dead_end(&bound));
        }
    });
}
