//! Rules that iptables made.

use super::*;

pub(super) fn iptables_types_of_addresses() {
    play(|| {
        sh(r#"
            i() { iptables-nft -A OUTPUT -p tcp --dport "$1" -m addrtype $2 --dst-type LOCAL \
                  -m comment --comment "$3" -j DROP; }
            i 80 "" local
            i 82 ! other
        "#);
        assert_acts(80, Drop, None);
        assert_acts(82, Drop, Some("other"));
        assert_found(&to_own(80), Drop, &[("local", Fully)]);
        assert_found(&to_own(82), Drop, &[]);
    });
}

pub(super) fn iptables() {
    play(|| {
        sh(r#"
            c() { echo "-m comment --comment $1"; }
            i() { iptables-nft -A OUTPUT -p tcp "$@"; }
            i --dport 81 -m conntrack --ctstate NEW $(c new) -j DROP
            i --dport 82 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            i --dport 82 -m owner --uid-owner 0 $(c owner) -j DROP
            i --dport 83 -m mark --mark 1/7 $(c mark) -j DROP
            i -m multiport ! --dports 80:87,90 $(c multiport) -j DROP
            i --syn --dport 84 ! -o lo+ -d 192.0.2.0/25 $(c syn) -j DROP
            i --dport 85 -m limit --limit 1/s $(c limit) -j DROP
            i --dport 86 -j LOG
            i --dport 86 -m statistic --mode random --probability 0.5 $(c random) -j DROP
            i --dport 87 -m state --state INVALID $(c invalid) -j DROP
            ip6tables-nft -A OUTPUT -p tcp --dport 81 $(c six) -j REJECT --reject-with tcp-reset
            ip6tables-nft -A OUTPUT -p tcp --dport 82 $(c six) -j REJECT
        "#);
        assert_found(&syn(81), Drop, &[("new", Fully)]);
        assert_acts(82, Drop, Some("owner"));
        let marked = FirewallPacket {
            mark: Some(9),
            ..syn(83)
        };
        assert_found(&marked, Drop, &[("mark", Fully)]);
        assert_found(&syn(83), Drop, &[]);
        assert_acts(443, Drop, Some("multiport"));
        assert_found(&syn(90), Drop, &[]);
        assert_acts(84, Drop, Some("syn"));
        assert_found(&syn(85), Drop, &[("limit", Possibly)]);
        assert_found(&syn(86), Drop, &[("random", Possibly)]);
        assert_found(&syn(87), Drop, &[("invalid", Possibly)]);
        assert_found(&syn_v6(81), RejectByReset, &[("six", Fully)]);
        assert_found(&syn_v6(82), RejectByIcmp, &[("six", Fully)]);
        assert_found(&syn_v6(81), RejectByIcmp, &[]);
        assert_acts(ports::ACCEPTS, Drop, None);
    });
}

/// A chain rejects mail by two rules. The result names the rule that acts, not its neighbour.
pub(super) fn iptables_of_smtp() {
    play(|| {
        sh("
            iptables-nft -N SMTPOUTPUT
            iptables-nft -A OUTPUT -p tcp -m multiport --dports 25,465,587 -j SMTPOUTPUT
            iptables-nft -A SMTPOUTPUT -p tcp --dport 25 -m comment --comment reset -j REJECT --reject-with tcp-reset
            iptables-nft -A SMTPOUTPUT -m comment --comment icmp -j REJECT
        ");
        assert_acts(25, RejectByReset, Some("reset"));
        assert_acts(587, RejectByIcmp, Some("icmp"));
        assert_found(&syn(25), RejectByIcmp, &[]);
        assert_acts(ports::ACCEPTS, RejectByReset, None);
    });
}

/// A ruleset of only NAT has no rule that drops.
pub(super) fn iptables_translation() {
    play(|| {
        sh("iptables-nft -t nat -A POSTROUTING -o far -p tcp -j MASQUERADE --to-ports 20000-20003");
        assert_acts(ports::ACCEPTS, Drop, None);
        assert_found(&syn_ack(80), Drop, &[]);
    });
    play(|| {
        sh(
            "iptables-nft -t nat -A OUTPUT -p tcp --dport 81 -j REDIRECT --to-ports 5432
            iptables-nft -A OUTPUT -p tcp --dport 82 -m comment --comment plain -j DROP",
        );
        let firewall = firewall_ended_by(&syn(81), Drop).unwrap();
        assert!(!firewall.complete);
        assert_acts(82, Drop, Some("plain"));
    });
}
