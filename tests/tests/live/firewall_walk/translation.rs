//! Rules that translate addresses.

use super::*;

pub(super) fn rewritten_destinations() {
    play(|| {
        nft(r#"
            chain n {
                type nat hook output priority 0
                tcp dport 8000-9000 counter redirect to :9999 comment "range"
                ip daddr 192.0.2.77 dnat ip to 192.0.2.2 comment "address"
                tcp dport 81 limit rate 1/second redirect to :1 comment "limit"
                tcp dport 82 counter accept
                meta l4proto tcp ip daddr != 192.0.2.0/24 dnat ip to tcp dport map { 443 : 192.0.2.2 } comment "map"
            }
            chain p { type nat hook prerouting priority 0; tcp dport 80 redirect to :8080 comment "arrival"; }
            chain f { type filter hook output priority 10; tcp dport 83 drop comment "drop"; }
        "#);
        let to = |remote: Ipv4Addr, port: u16| FirewallPacket {
            remote: (remote, port).into(),
            ..syn(port)
        };
        assert_found(&syn(8080), Rewrite, &[("range", Fully)]);
        assert_found(&syn(79), Rewrite, &[]);
        assert_found(&syn(83), Rewrite, &[]);
        assert_found(&syn(82), Rewrite, &[]);
        // An earlier rule may have rewritten the destination, so it is unknown.
        let may = [("limit", Possibly), ("map", Possibly)];
        assert_found(&syn(81), Rewrite, &may);
        let other = Ipv4Addr::new(192, 0, 2, 77);
        assert_found(&to(other, 80), Rewrite, &[("address", Fully)]);
        let outside = Ipv4Addr::new(203, 0, 113, 1);
        assert_found(&to(outside, 443), Rewrite, &[("map", Fully)]);
        // The rule applies to arriving packets, not to those that leave.
        let arriving = FirewallPacket {
            direction: Arriving,
            device: None,
            ..syn(80)
        };
        assert_found(&arriving, Rewrite, &[("arrival", Fully)]);
        assert_found(&syn(80), Rewrite, &[]);
        let before = packets();
        assert!(!opens((FAR_V4, 8080).into()));
        assert!(packets() > before);
    });
}

pub(super) fn translation() {
    play(|| {
        nft(r#"
            chain n { type nat hook output priority 0; tcp dport 81 dnat ip to 192.0.2.3:80; }
            chain p { type nat hook postrouting priority 0; policy accept; ip saddr 10.0.0.0/8 masquerade; }
            chain o { type filter hook output priority -200; tcp dport 81 ip daddr 192.0.2.9 drop comment "other"; }
            chain f {
                type filter hook output priority 10
                tcp dport 80 counter drop comment "translated"
                tcp dport 82 counter drop comment "plain"
            }
            chain i { type filter hook input priority 0; tcp sport 82 counter drop comment "answer"; }
        "#);
        let firewall = firewall_ended_by(&syn(81), Drop).unwrap();
        assert!(!firewall.complete, "it may go to this host itself");
        let found: Vec<_> = firewall.found.into_iter().map(named).collect();
        let of = |name: &str| (name.to_owned(), Possibly);
        assert_eq!(found, [of("translated"), of("plain")]);
        assert!(!opens(syn(81).remote), "it is dropped as translated");
        assert_found(&syn(82), Drop, &[("plain", Fully)]);
        assert_found(&syn_ack(82), Drop, &[("answer", Fully)]);
        let translated = found_of(&syn_ack(81));
        assert_eq!(translated, [of("answer")]);
    });
}
