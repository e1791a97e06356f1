//! Every cause staged, and every rule asked about each.

use std::fmt::Write as _;

use super::{
    cases::{
        dropped, exhausted, failed_call, icmp, no_neighbour, not_local, reset, silence, silent,
        tuple_taken, works,
    },
    recognised,
    script::{
        FAR, NETNS, OWN, PORT, PUBLIC, Script, far, here, holder, ip, listener, out, ports,
        proxied, remote,
    },
};
use crate::{
    diagnose::{
        Case,
        ask::{Neighbour, Route},
        diagnose,
    },
    errno::Errno,
    event::{Certainty, Code},
    label::Label,
};

/// What each rule is for, as it is met.
#[rustfmt::skip]
pub(super) fn staged() -> Vec<(Code, Case, Script)> {
    let mut private = silence();
    private.local_addr = Some(ip(PUBLIC));
    let behind_gateway = Script::default().route_from(FAR, Some(PUBLIC), out(Some("203.0.113.1"), 0));
    vec![
        (Code::NothingListening, reset(FAR), here()),
        (Code::ListeningElsewhere, reset(FAR), here().listeners(vec![listener(NETNS, "127.0.0.1", PORT)], vec![])),
        (Code::WrongPort, reset(FAR), here().listeners(vec![], vec![listener(NETNS, "0.0.0.0", 5433)])),
        (Code::RejectedByFirewall, icmp(Label::Refused, 3, 3), far()),
        (Code::ProxyInPath, reset(FAR), proxied()),
        (Code::LocalFirewall, dropped(), far().drop_reason("NETFILTER_DROP").neighbour(FAR, Neighbour::Known)),
        (Code::RemoteFiltered, works(22, 12, silence()), far()),
        (Code::HostDown, no_neighbour(), far().neighbour(FAR, Neighbour::Failed)),
        (Code::SilentHost, silent(60), far()),
        (Code::PrivateAddressNotLocal, private, behind_gateway.neighbour("203.0.113.1", Neighbour::Known)),
        (Code::NoRoute, failed_call(Label::Unreachable, Errno::ENETUNREACH), Script::default().route(FAR, Route::None(Errno::ENETUNREACH.0))),
        (Code::NeighbourUnresolved, no_neighbour(), Script::default().route(FAR, out(Some("10.0.0.1"), 0)).neighbour("10.0.0.1", Neighbour::Failed)),
        (Code::IcmpUnreachable, icmp(Label::Unreachable, 11, 0), far()),
        (Code::AdminProhibited, icmp(Label::Unreachable, 3, 13), far()),
        (Code::EphemeralRangeUsedUp, exhausted(), Script::default().ports(remote(), ports(28_232, 0, 0))),
        (Code::PortsHeldByBind, exhausted(), Script::default().ports(remote(), ports(2, 28_230, 0))),
        (Code::SocketPortRange, exhausted(), Script::default().ports(remote(), ports(50, 0, 0))),
        (Code::TupleInUse, tuple_taken(), Script::default().tuple(holder())),
        (Code::SourceNotLocal, not_local(), Script::default().route_from(OWN, None, out(None, 24))),
        (Code::CgroupPolicy, failed_call(Label::Denied, Errno::EPERM), Script::default().programs(1)),
        (Code::SecurityModule, failed_call(Label::Denied, Errno::EACCES), Script::default().confinement(Some("docker-default (enforce)"))),
        (Code::ProhibitRoute, failed_call(Label::Denied, Errno::EACCES), Script::default().route(FAR, Route::None(Errno::EACCES.0))),
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
        let cause = diagnose(case, &mut script.clone()).unwrap();
        assert_eq!(cause.code, *code);
        assert!(!cause.why.is_empty() && !cause.fix.is_empty() && !cause.evidence.is_empty());
        // Without evidence, no cause, but where a packet or the label is evidence.
        if let Some(blind) = diagnose(case, &mut Script::default()) {
            assert!(
                blind.code == *code || blind.certainty != Certainty::Certain,
                "{blind:?}"
            );
        }
    }
    eprintln!("{matrix}");
}
