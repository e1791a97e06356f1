//! Conditions of rules.

use super::*;

pub(super) fn addresses_and_ports() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 counter drop comment "port"
            ip daddr 192.0.2.2 tcp dport 82 counter drop comment "address"
            ip daddr 192.0.3.0/24 counter drop comment "other network"
            ip daddr 192.0.2.0/28 tcp dport 83 counter drop comment "network"
            tcp dport 84-85 counter drop comment "range"
            tcp dport != 80-87 counter drop comment "not in range"
            tcp dport > 86 counter drop comment "more"
            tcp sport 40000 tcp dport 86 counter drop comment "source port"
            ip6 daddr 2001:db8:0:1::/64 tcp dport 443 counter drop comment "v6"
            udp dport 80 counter drop comment "udp"
            tcp flags & (fin|syn|rst|ack) == ack counter drop comment "not a syn"
            "#,
        ));
        assert_acts(81, Drop, Some("port"));
        assert_acts(82, Drop, Some("address"));
        assert_acts(83, Drop, Some("network"));
        assert_acts(85, Drop, Some("range"));
        assert_acts(443, Drop, Some("not in range"));
        assert_acts(87, Drop, Some("more"));
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn(86), Drop, &[("source port", Fully)]);
        let unknown = FirewallPacket {
            local_port: None,
            ..syn(86)
        };
        assert_found(&unknown, Drop, &[("source port", Possibly)]);
        assert_found(&syn_v6(81), Drop, &[("port", Fully)]);
        assert_found(&syn_ack(81), Drop, &[]);
    });
    play(|| {
        nft(&output(
            r#"ip6 daddr 2001:db8:0:1::/64 tcp dport 443 counter drop comment "v6""#,
        ));
        assert_found(&syn_v6(443), Drop, &[("v6", Fully)]);
        assert_found(&syn(443), Drop, &[]);
    });
}

pub(super) fn sets() {
    play(|| {
        nft(&format!(
            r#"
            set some {{ type ipv4_addr; elements = {{ 192.0.2.2, 10.0.0.1 }}; }}
            set networks {{ type ipv4_addr; flags interval; elements = {{ 192.0.2.0/24, 10.0.0.1-10.0.0.7 }}; }}
            set others {{ type ipv4_addr; flags interval; elements = {{ 192.0.0.0/23, 192.0.3.0/24 }}; }}
            set pairs {{ type ipv4_addr . inet_service; elements = {{ 192.0.2.2 . 84, 192.0.2.3 . 85 }}; }}
            set ranges {{ type ipv4_addr . inet_service; flags interval; elements = {{ 192.0.2.0/24 . 85-86 }}; }}
            set times {{ type inet_service; flags timeout; elements = {{ 87 timeout 1h }}; }}
            {}"#,
            output(
                r#"
                ip daddr @others counter drop comment "others"
                tcp dport 81 ip daddr @some counter drop comment "some"
                tcp dport 82 ip daddr @networks counter drop comment "networks"
                tcp dport {1-8, 83, 100} counter drop comment "anonymous"
                ip daddr . tcp dport @pairs counter drop comment "pairs"
                ip daddr . tcp dport @ranges counter drop comment "ranges"
                tcp dport @times counter drop comment "times"
                tcp dport 90 ip daddr != @some counter drop comment "inverted"
                tcp dport 91 ip daddr != @others counter drop comment "inverted"
                "#
            )
        ));
        assert_acts(81, Drop, Some("some"));
        assert_acts(82, Drop, Some("networks"));
        assert_acts(83, Drop, Some("anonymous"));
        assert_acts(8, Drop, Some("anonymous"));
        assert_found(&syn(84), Drop, &[("pairs", Fully)]);
        assert_acts(85, Drop, Some("ranges"));
        assert_acts(87, Drop, Some("times"));
        // The element may have been in the set when the packet was sent.
        assert_found(&syn(90), Drop, &[("times", Possibly)]);
        assert_found(
            &syn(91),
            Drop,
            &[("times", Possibly), ("inverted", Possibly)],
        );
    });
}

pub(super) fn maps_of_verdicts() {
    play(|| {
        nft(r#"
            map verdicts { type inet_service : verdict; elements = { 81 : drop, 82 : jump user, 83 : accept }; }
            map ranges { type inet_service : verdict; flags interval; elements = { 84-85 : goto user, 100-200 : accept }; }
            map sources { type inet_service : verdict; elements = { 40000 : drop, 40001 : accept }; }
            map marks { type inet_service : mark; elements = { 88 : 7, 87 : 5 }; }
            chain user { counter drop comment "user"; }
            chain o {
                type filter hook output priority 0
                tcp dport vmap @verdicts comment "map"
                tcp dport vmap @ranges
                tcp dport 86 tcp sport vmap @sources comment "sources"
                tcp dport 83 counter drop comment "after accept"
                meta mark set tcp dport map @marks
                tcp dport 87-88 meta mark 7 counter drop comment "map of marks"
            }"#);
        assert_found(&syn(81), Drop, &[("map", Fully)]);
        assert!(!opens(syn(81).remote));
        assert_acts(82, Drop, Some("user"));
        assert_acts(85, Drop, Some("user"));
        assert_found(&syn(83), Drop, &[]);
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn(86), Drop, &[("sources", Fully)]);
        let unknown = FirewallPacket {
            local_port: None,
            ..syn(86)
        };
        assert_found(&unknown, Drop, &[("sources", Possibly)]);
        let marked = |port| FirewallPacket {
            mark: Some(7),
            ..syn(port)
        };
        assert_found(&marked(88), Drop, &[("map of marks", Fully)]);
        // The map gives it another mark.
        assert_found(&marked(87), Drop, &[]);
    });
}

pub(super) fn connection_tracking() {
    play(|| {
        nft(&output(
            r#"
            ct state established,related counter accept
            tcp dport 81 ct state new counter drop comment "new"
            tcp dport 82 ct state != established counter drop comment "not established"
            tcp dport 83 ct state invalid counter drop comment "invalid"
            tcp dport 84 ct state vmap { established : accept, related : accept }
            tcp dport 84 counter drop comment "after map"
            "#,
        ));
        assert_acts(81, Drop, Some("new"));
        assert_acts(82, Drop, Some("not established"));
        assert_found(&syn(83), Drop, &[("invalid", Possibly)]);
        assert_acts(84, Drop, Some("after map"));
    });
    play(|| {
        nft(r#"
            chain raw { type filter hook output priority -300; tcp dport 81 notrack; }
            chain o {
                type filter hook output priority 0
                ct state new counter drop comment "new"
            }"#);
        assert_found(&syn(81), Drop, &[("new", Possibly)]);
        assert_acts(80, Drop, Some("new"));
    });
}

pub(super) fn unknown_conditions() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 limit rate 1/second counter drop comment "limit"
            tcp dport 82 numgen random mod 2 1 counter drop comment "random"
            tcp dport 83 limit rate over 9/second counter accept
            tcp dport 83 counter drop comment "after limit"
            tcp dport 84 fib daddr . mark type local counter drop comment "fib"
            tcp dport 85 limit rate 1/second counter log prefix "x" comment "log"
            tcp dport 85 counter drop comment "after log"
            meta length 1000-2000 counter drop comment "length"
            "#,
        ));
        assert_found(&syn(81), Drop, &[("limit", Possibly), ("length", Possibly)]);
        assert_found(
            &syn(82),
            Drop,
            &[("random", Possibly), ("length", Possibly)],
        );
        assert_found(&syn(83), Drop, &[("after limit", Possibly)]);
        assert_found(&syn(84), Drop, &[("fib", Possibly), ("length", Possibly)]);
        assert_acts(85, Drop, Some("after log"));
    });
}

pub(super) fn marks_users_and_interfaces() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 81 meta mark & 0xf == 5 counter drop comment "mark"
            tcp dport 82 meta skuid 0 counter drop comment "user"
            tcp dport 83 meta skuid 1000-2000 counter drop comment "users"
            tcp dport 84 oifname "far" counter drop comment "device"
            tcp dport 85 oifname != "fa*" counter drop comment "not device"
            tcp dport 86 oif "far" counter drop comment "index"
            tcp dport 87 iifname "lo" counter drop comment "arrives"
            tcp dport 88 meta mark set 5
            tcp dport 88 meta mark 0 counter drop comment "unmarked"
            oif lo counter drop comment "loopback"
            "#,
        ));
        let marked = |mark| FirewallPacket { mark, ..syn(81) };
        assert_found(&marked(Some(0x15)), Drop, &[("mark", Fully)]);
        assert_found(&marked(None), Drop, &[("mark", Possibly)]);
        assert_found(&syn(81), Drop, &[]);
        assert_acts(82, Drop, Some("user"));
        let of = |uid| FirewallPacket { uid, ..syn(83) };
        assert_found(&of(Some(1500)), Drop, &[("users", Fully)]);
        assert_found(&of(Some(2001)), Drop, &[]);
        assert_found(&of(None), Drop, &[("users", Possibly)]);
        assert_acts(84, Drop, Some("device"));
        assert_found(&syn(85), Drop, &[]);
        assert_acts(86, Drop, Some("index"));
        assert_found(&syn(87), Drop, &[]);
        assert_found(&syn(88), Drop, &[("loopback", Possibly)]);
        let unknown = FirewallPacket {
            device: None,
            ..syn(84)
        };
        assert_found(
            &unknown,
            Drop,
            &[("device", Possibly), ("loopback", Possibly)],
        );
    });
}

pub(super) fn types_of_addresses() {
    play(|| {
        nft(&output(
            r#"
            tcp dport 80 fib daddr type local counter drop comment "local"
            tcp dport 82 fib daddr type unicast counter drop comment "unicast"
            tcp dport 83 fib daddr type != local counter drop comment "not local"
            "#,
        ));
        assert_acts(80, Drop, None);
        assert_acts(82, Drop, Some("unicast"));
        assert_acts(83, Drop, Some("not local"));
        assert_found(&to_own(80), Drop, &[("local", Fully)]);
        assert_found(&to_own(82), Drop, &[]);
        assert_found(&to_own(83), Drop, &[]);
        assert!(!opens(to_own(80).remote));
    });
}

/// A ruleset that exceeds the limits is not evaluated to its end, and the result says so.
pub(super) fn limits() {
    let walk = |rules: usize| {
        let mut all = String::new();
        for rule in 0..rules {
            let [high, low] = [rule / 200, rule % 200];
            all += &format!("ip daddr 10.0.{high}.{low} tcp dport 80 drop\n");
        }
        nft(&output(&format!("{all}\n drop comment \"last\"")));
        let start = Instant::now();
        let firewall = firewall_ended_by(&syn(80), Drop).unwrap();
        eprintln!("{rules} rules: {:?}", start.elapsed());
        firewall
    };
    play(|| {
        let firewall = walk(10_000);
        assert!(firewall.complete);
        assert_eq!(named(firewall.found[0].clone()), ("last".to_owned(), Fully));
    });
    play(|| {
        let firewall = walk(30_000);
        assert!(!firewall.complete && firewall.found.is_empty());
    });
    play(|| {
        let jumps = |of: usize| format!("chain c{of} {{ jump c{}; }}", of + 1);
        let chains: Vec<_> = (0..15).rev().map(jumps).collect();
        nft(&format!(
            "chain c15 {{ drop comment \"deep\"; }}\n{}\n{}",
            chains.join("\n"),
            output("jump c1"),
        ));
        assert_found(&syn(80), Drop, &[("deep", Fully)]);
    });
}
