//! Interfaces and addresses read from the kernel.

use std::net::IpAddr;

use conntrace::host::route;
use conntrace_tests::ip;
use nix::net::if_::if_nametoindex;

use crate::routes::{LINKS, in_namespace, shown, way, with_links};

pub(crate) fn links() {
    with_links(
        &[
            "link add br0 type bridge",
            "link set br0 address 02:00:00:00:00:07",
        ],
        || {
            let link = |name: &str| route::link(if_nametoindex(name).unwrap()).unwrap().unwrap();
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
            assert_eq!(route::link(9999).unwrap(), None);

            let bridge = vec![2, 0, 0, 0, 0, 7];
            assert!(
                !route::link_addresses().unwrap().contains(&bridge),
                "it is down"
            );
            ip("link set br0 up");
            assert!(route::link_addresses().unwrap().contains(&bridge));
        },
    );
}

pub(crate) fn addresses() {
    in_namespace(|| {
        let own = |v6| route::own_addresses(v6).unwrap();
        let is_own = |addr: &str| route::is_own(addr.parse().unwrap()).unwrap();
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

pub(crate) fn link_local() {
    with_links(&[], || {
        let mut way = way("fe80::5");
        assert!(route::route(&way).is_err());
        way.device = Some(if_nametoindex("e1").unwrap());
        assert_eq!(shown(&way), "dev e1 /64 table 254");
    });
}
