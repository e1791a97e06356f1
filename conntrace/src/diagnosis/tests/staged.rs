//! Every cause staged, and every rule asked about each.

use std::fmt::Write as _;

use super::{
    cases::{
        cut_off, dropped, exhausted, failed_call, icmp, no_neighbour, not_local, reset, silence,
        silent, to, tuple_taken, works,
    },
    recognised,
    script::{
        FAR, NETNS, OWN, PORT, PUBLIC, Script, far, gateway, here, holder, ip, link, listener, out,
        ports, proxied, remote,
    },
};
use crate::{
    diagnosis::{
        Case, Certainty, Code, RULES, diagnose,
        firewall_facts::{Match, PacketEnd},
        question::Neighbour,
        way::Route,
    },
    record::{Errno, Label},
};

/// What each rule is for, as it is met.
#[rustfmt::skip]
pub(super) fn staged() -> Vec<(Code, Case, Script)> {
    let mut private = silent(60);
    private.local_addr = Some(ip(PUBLIC));
    // Of the network there is a record, and of the host there may be none.
    private.heard.silent_s = None;
    let behind_gateway = Script::default().route_from(FAR, Some(PUBLIC), out(Some("203.0.113.1"), 0));
    let mut portless = reset(FAR);
    portless.remote = portless.remote.map(|remote| crate::record::Remote { port: 0, ..remote });
    let mut sourceless = not_local();
    sourceless.local_addr = None;
    let unreachable = || failed_call(Label::Unreachable, Errno::ENETUNREACH);
    let no_route = Route::None(Errno::ENETUNREACH.0);
    vec![
        (Code::NothingListening, reset(FAR), here()),
        (Code::ListeningElsewhere, reset(FAR), here().listeners(vec![listener(NETNS, "127.0.0.1", PORT)], vec![])),
        (Code::WrongPort, reset(FAR), here().listeners(vec![], vec![listener(NETNS, "0.0.0.0", 5433)])),
        (Code::RejectedByFirewall, icmp(Label::Refused, 3, 3), far()),
        (Code::ProxyInPath, reset(FAR), proxied()),
        (Code::LocalFirewall, dropped(), far().drop_reason("NETFILTER_DROP").rule(PacketEnd::Drop, "output", Match::Fully)),
        (Code::RemoteFiltered, works(22, 12, silence()), far()),
        (Code::HostDown, no_neighbour(), far().neighbour(FAR, Neighbour::Failed)),
        (Code::SilentHost, silent(3), far()),
        (Code::PrivateAddressNotLocal, private, behind_gateway.neighbour("203.0.113.1", Neighbour::Known)),
        (Code::NoRoute, unreachable(), Script::default().route(FAR, no_route.clone())),
        (Code::NeighbourUnresolved, no_neighbour(), gateway().neighbour("10.0.0.1", Neighbour::Failed)),
        (Code::IcmpUnreachable, icmp(Label::Unreachable, 11, 0), far()),
        (Code::AdminProhibited, icmp(Label::Unreachable, 3, 13), far()),
        (Code::EphemeralRangeUsedUp, exhausted(), Script::default().ports(remote(), ports(28_232, 0, 0))),
        (Code::PortsHeldByBind, exhausted(), Script::default().ports(remote(), ports(2, 28_230, 0))),
        (Code::SocketPortRange, exhausted(), Script::default().ports(remote(), ports(50, 0, 0))),
        (Code::TupleInUse, tuple_taken(), Script::default().tuple(holder())),
        (Code::SourceNotLocal, not_local(), far().own(OWN, false)),
        (Code::CgroupPolicy, failed_call(Label::Denied, Errno::EPERM), Script::default().programs(1)),
        (Code::SecurityModule, failed_call(Label::Denied, Errno::EACCES), far().confinement(Some("docker-default (enforce)"))),
        (Code::ProhibitRoute, failed_call(Label::Denied, Errno::EACCES), Script::default().route(FAR, Route::None(Errno::EACCES.0))),
        (Code::DroppedHere, dropped(), far().drop_reason("TCP_MD5NOTFOUND")),
        (Code::RouteWentAway, cut_off(Errno::ENETUNREACH), Script::default().route(FAR, no_route.clone())),
        (Code::OwnLinkDown, no_neighbour(), far().link(link(false, None)).neighbour(FAR, Neighbour::Failed)),
        (Code::WrongSource, unreachable(), Script::default().route_from(FAR, Some(OWN), no_route).route_from(FAR, None, out(None, 24)).own(OWN, false)),
        (Code::NoSourceAddress, sourceless, Script::default().route_from(FAR, None, out(None, 24)).no_addresses(false)),
        (Code::BadDestination, portless, Script::default()),
        (Code::AnswersSometimes, works(PORT, 12, silence()), far()),
    ]
}

#[test]
fn every_staged_cause_is_recognised_by_its_rule_alone() {
    let staged = staged();
    let codes: Vec<_> = staged.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, Code::ALL, "each is staged");
    let mut matrix = format!("{:<26}", "staged \\ rule");
    for (at, code) in Code::ALL.iter().enumerate() {
        let _ = write!(matrix, "\n{at:>2} {:<23}", code.as_str());
        let (_, case, script) = &staged[at];
        for column in Code::ALL {
            let found = recognised(column, case, script);
            assert!(found.as_ref().is_none_or(|cause| cause.code == column));
            matrix += if found.is_some() { " X" } else { " ." };
            assert_eq!(
                found.is_some(),
                column == *code,
                "{column:?} of a staged {code:?}\n{matrix}"
            );
        }
        let (cause, undiagnosed) = diagnose(case, &mut script.clone());
        let cause = cause.unwrap();
        assert_eq!((cause.code, undiagnosed), (*code, None));
        assert!(!cause.why.is_empty() && !cause.fix.is_empty() && !cause.evidence.is_empty());
        // Without evidence, no cause, but where a packet or the label is evidence.
        if let (Some(blind), _) = diagnose(case, &mut Script::blind()) {
            assert!(
                blind.code == *code || blind.certainty != Certainty::Certain,
                "{blind:?}"
            );
        }
    }
    eprintln!("{matrix}");
}

#[test]
fn rules_are_listed_by_their_codes() {
    for (at, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!((code as usize, code.info().code), (at, code));
        assert!(
            RULES.iter().any(|rule| rule.code == code),
            "{code:?} has a rule"
        );
    }
}

#[test]
fn a_destination_of_no_host_is_none_of_a_server() {
    for (addr, errno) in [
        ("224.0.0.1", 101),
        ("255.255.255.255", 13),
        ("ff02::1", 101),
        ("fe80::1", 22),
    ] {
        let mut case = failed_call(Label::Failed, Errno(errno));
        case.remote = Some(to(addr));
        let (cause, _) = diagnose(&case, &mut Script::blind());
        assert_eq!(cause.unwrap().code, Code::BadDestination, "{addr}");
    }
}
