//! The other ways to a code, the certainty of each, and the facts that prove it.

use super::{
    cases::{
        case, cut_off, dropped, exhausted, failed_call, icmp, reset, reset_before, silence, silent,
        works,
    },
    script::{
        CONTAINER, FAR, NETNS, OWN, PORT, Script, far, gateway, here, ip, link, listener, out,
        ports, proxied, remote,
    },
    staged::staged,
};
use crate::{
    diagnosis::{
        Case, CaseDrops, Certainty, Code, FailedCall, RULES, diagnose,
        firewall_facts::{Match, PacketEnd},
        question::{Answer, Listeners, Neighbour, Question},
        way::{DeadEnd, DeadEndKind, Route, RuleFacts},
    },
    record::{Errno, Label, ReplyKind},
};

/// A VPN's route that forbids what the main table has.
pub(super) fn kill_switch() -> DeadEnd {
    DeadEnd {
        kind: DeadEndKind::Unreachable,
        rule: RuleFacts {
            priority: 5000,
            text: "not from all fwmark 0xca6c lookup 51820".to_owned(),
        },
        table: Some(51_820),
        prefix: Some((ip("0.0.0.0"), 0)),
        instead: match out(Some("10.0.0.1"), 0) {
            Route::Out(out) => Some(out),
            Route::Local | Route::None(_) => None,
        },
    }
}

/// The other ways to a code, and the certainty of each.
#[rustfmt::skip]
fn other_ways() -> Vec<(Case, Script, Code, Certainty)> {
    let none_there = |script: Script| script.with(
        Question::Listeners { netns: CONTAINER, addr: ip(FAR), port: PORT },
        Answer::Listeners(Listeners::default()),
    );
    let in_container = || none_there(Script::default().route(FAR, out(None, 16)).owner(FAR, Some(CONTAINER)));
    let behind_a_namespace = || none_there(gateway().owner("10.0.0.1", Some(CONTAINER))
        .link(link(true, Some("veth"))).route_in(CONTAINER, FAR, None, Route::Local));
    let mut rejected_here = reset(FAR);
    rejected_here.reply = ReplyKind::Local;
    let mut bind = exhausted();
    (bind.call, bind.remote) = (Some(FailedCall::Bind), None);
    let mut v6 = case(Label::Unreachable, ReplyKind::Icmp);
    v6.errno = Some(Errno::EACCES);
    let mut v6_net = case(Label::Unreachable, ReplyKind::Icmp);
    (v6_net.errno, v6_net.remote) = (Some(Errno::ENETUNREACH), Some(super::cases::to("2001:db8::5")));
    let mut some_dropped = dropped();
    some_dropped.drops = Some(CaseDrops { reason: 8, all: false });
    let drop = |reason| far().drop_reason(reason);
    vec![
        (reset(FAR), far(), Code::NothingListening, Certainty::Likely),
        (reset(FAR), in_container(), Code::NothingListening, Certainty::Certain),
        (reset(FAR), here().elsewhere(vec![listener(CONTAINER, "0.0.0.0", PORT)]), Code::NothingListening, Certainty::Certain),
        (works(22, 1, reset(FAR)), far(), Code::NothingListening, Certainty::Likely),
        (works(22, 1, reset(FAR)), behind_a_namespace(), Code::NothingListening, Certainty::Likely),
        (reset(FAR), far().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (reset(FAR), here().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (silence(), far().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (reset(FAR), here().rule(PacketEnd::Rewrite, "OUTPUT", Match::Possibly), Code::ProxyInPath, Certainty::Possible),
        (reset(FAR), here().legacy(), Code::NothingListening, Certainty::Likely),
        (reset(FAR), here().legacy().listeners(vec![listener(NETNS, "127.0.0.1", PORT)], vec![]), Code::ListeningElsewhere, Certainty::Likely),
        (rejected_here.clone(), far(), Code::RejectedByFirewall, Certainty::Likely),
        (rejected_here.clone(), far().rule(PacketEnd::RejectByReset, "output", Match::Possibly), Code::RejectedByFirewall, Certainty::Likely),
        (rejected_here, far().rule(PacketEnd::RejectByReset, "output", Match::Fully), Code::RejectedByFirewall, Certainty::Certain),
        (dropped(), drop("BPF_CGROUP_EGRESS"), Code::LocalFirewall, Certainty::Certain),
        (dropped(), drop("NETFILTER_DROP").rule(PacketEnd::Drop, "output", Match::Possibly), Code::LocalFirewall, Certainty::Likely),
        (dropped(), drop("NETFILTER_DROP").drops_answer(), Code::LocalFirewall, Certainty::Likely),
        (some_dropped.clone(), drop("NETFILTER_DROP").rule(PacketEnd::Drop, "output", Match::Fully), Code::LocalFirewall, Certainty::Likely),
        (dropped(), drop("NETFILTER_DROP"), Code::DroppedHere, Certainty::Likely),
        (dropped(), drop("IP_RPFILTER"), Code::DroppedHere, Certainty::Certain),
        (some_dropped, drop("QDISC_DROP"), Code::DroppedHere, Certainty::Likely),
        (silence(), far().neighbour(FAR, Neighbour::Incomplete), Code::HostDown, Certainty::Likely),
        (silence(), gateway().neighbour("10.0.0.1", Neighbour::Incomplete), Code::NeighbourUnresolved, Certainty::Likely),
        (icmp(Label::Unreachable, 3, 1), far(), Code::HostDown, Certainty::Likely),
        (silent(5), gateway().neighbour("10.0.0.1", Neighbour::Known), Code::PrivateAddressNotLocal, Certainty::Possible),
        (icmp(Label::Unreachable, 3, 0), gateway(), Code::PrivateAddressNotLocal, Certainty::Possible),
        (failed_call(Label::Unreachable, Errno::EHOSTUNREACH), Script::default().route(FAR, Route::None(Errno::EHOSTUNREACH.0)), Code::NoRoute, Certainty::Certain),
        (v6, far(), Code::AdminProhibited, Certainty::Certain),
        (v6_net, far(), Code::IcmpUnreachable, Certainty::Likely),
        (works(22, 3600, reset(FAR)), far(), Code::NothingListening, Certainty::Likely),
        (works(5433, 1, reset(FAR)), in_container(), Code::NothingListening, Certainty::Certain),
        (works(22, 600, silence()), gateway(), Code::RemoteFiltered, Certainty::Likely),
        (reset_before(600), far(), Code::RemoteFiltered, Certainty::Likely),
        (works(22, 1, silence()), far().neighbour(FAR, Neighbour::Failed), Code::HostDown, Certainty::Likely),
        (works(22, 1, silence()), proxied().route(FAR, out(None, 24)), Code::ProxyInPath, Certainty::Certain),
        (silent(60), far().neighbour(FAR, Neighbour::Failed), Code::HostDown, Certainty::Likely),
        (silent(60), far().neighbour(FAR, Neighbour::Known), Code::SilentHost, Certainty::Possible),
        (failed_call(Label::Denied, Errno::EPERM), far().security_programs(&["deny"]), Code::SecurityModule, Certainty::Likely),
        (failed_call(Label::Denied, Errno::EACCES), far().confinement(None).security_programs(&["deny"]), Code::SecurityModule, Certainty::Likely),
        (failed_call(Label::Denied, Errno::EPERM), far().programs(1).security_programs(&["deny"]), Code::CgroupPolicy, Certainty::Likely),
        (bind, Script::default().ports(None, ports(0, 28_232, 0)), Code::PortsHeldByBind, Certainty::Certain),
        (exhausted(), Script::default().ports(remote(), ports(2, 26_000, 0)), Code::PortsHeldByBind, Certainty::Likely),
        (exhausted(), Script::default().ports(remote(), ports(0, 0, 28_232)), Code::SocketPortRange, Certainty::Certain),
        (exhausted(), Script::default().ports(remote(), ports(27_000, 0, 0)), Code::EphemeralRangeUsedUp, Certainty::Likely),
        (failed_call(Label::Unreachable, Errno::EHOSTUNREACH), Script::default().route(FAR, Route::None(Errno::EHOSTUNREACH.0)).dead_end(kill_switch()), Code::NoRoute, Certainty::Certain),
        (silent(5), far().own(OWN, false), Code::WrongSource, Certainty::Likely),
        (cut_off(Errno::EHOSTUNREACH), far().own(OWN, false), Code::RouteWentAway, Certainty::Likely),
        (cut_off(Errno(nix::errno::Errno::EINVAL as i32)), far().own(OWN, false), Code::RouteWentAway, Certainty::Certain),
        (silence(), far().link(link(false, None)), Code::OwnLinkDown, Certainty::Possible),
        (cut_off(Errno::ENETUNREACH), far(), Code::RouteWentAway, Certainty::Likely),
    ]
}

#[test]
fn certainties() {
    for (case, script, code, certainty) in other_ways() {
        let (cause, undiagnosed) = diagnose(&case, &mut script.clone());
        let cause = cause.unwrap_or_else(|| panic!("{code:?}: {case:?}"));
        assert_eq!((cause.code, cause.certainty), (code, certainty), "{case:?}");
        assert_eq!(undiagnosed, None);
    }
}

/// Each certainty that a cause is told with is proven by a fact that its rule names, and each
/// that a rule names is met.
#[test]
fn every_certainty_has_its_proof() {
    let others = other_ways()
        .into_iter()
        .map(|(case, script, code, _)| (code, case, script));
    let mut met = Vec::new();
    for (code, case, mut script) in staged().into_iter().chain(others) {
        let cause = diagnose(&case, &mut script).0.unwrap();
        let labels = code.info().labels;
        assert!(labels.contains(&case.label), "{code:?}: {:?}", case.label);
        met.push((code, cause.certainty));
    }
    let named = |(code, certainty): &(Code, Certainty)| {
        let of_it = RULES.iter().filter(|rule| rule.code == *code);
        of_it
            .flat_map(|rule| rule.proofs)
            .any(|(of, fact)| of == certainty && !fact.is_empty())
    };
    for one in &met {
        assert!(named(one), "{one:?} has no proof");
    }
    let mut table = String::new();
    for rule in RULES {
        for (certainty, fact) in rule.proofs {
            let is_met = met.contains(&(rule.code, *certainty));
            assert!(is_met, "{:?} {certainty:?} is never met", rule.code);
            table += &format!(
                "{:<25} {:<8} {fact}\n",
                rule.code.as_str(),
                certainty.as_str()
            );
        }
    }
    eprint!("{table}");
}
