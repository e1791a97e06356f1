//! The other ways to a code, and how sure each is.

use super::{
    cases::{case, exhausted, failed_call, icmp, reset, reset_before, silence, silent, works},
    script::{
        CONTAINER, FAR, OWN, PORT, Script, far, here, ip, listener, out, ports, proxied, remote,
    },
};
use crate::{
    diagnose::{
        Call,
        ask::{Answer, Listeners, Neighbour, Question, Route},
        diagnose,
    },
    errno::Errno,
    event::{Certainty, Code},
    label::Label,
    reply::ReplyKind,
};

/// The other ways to a code, and how sure each is.
#[test]
#[rustfmt::skip]
fn certainties() {
    let gateway = |from| Script::default().route_from(FAR, Some(from), out(Some("10.0.0.1"), 0));
    let in_container = || Script::default().route(FAR, out(None, 16)).owner(FAR, Some(CONTAINER)).with(
        Question::Listeners { netns: CONTAINER, addr: ip(FAR), port: PORT },
        Answer::Listeners(Listeners::default()),
    ).with(Question::ListenersElsewhere { netns: CONTAINER, port: PORT }, Answer::ListenersElsewhere(vec![]));
    let mut rejected_here = reset(FAR);
    rejected_here.reply = ReplyKind::Local;
    let mut bind = exhausted();
    (bind.call, bind.remote) = (Some(Call::Bind), None);
    let mut v6 = case(Label::Unreachable, ReplyKind::Icmp);
    v6.errno = Some(Errno::EACCES);
    for (case, script, code, certainty) in [
        (reset(FAR), far(), Code::NothingListening, Certainty::Likely),
        (reset(FAR), in_container(), Code::NothingListening, Certainty::Certain),
        (reset(FAR), here().elsewhere(vec![listener(CONTAINER, "0.0.0.0", PORT)]), Code::ListeningElsewhere, Certainty::Likely),
        (reset(FAR), far().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (reset(FAR), here().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (silence(), far().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (rejected_here, far(), Code::RejectedByFirewall, Certainty::Certain),
        (silence(), far().neighbour(FAR, Neighbour::Incomplete), Code::HostDown, Certainty::Likely),
        (icmp(Label::Unreachable, 3, 1), far(), Code::HostDown, Certainty::Likely),
        (silence(), gateway(OWN).neighbour("10.0.0.1", Neighbour::Known), Code::PrivateAddressNotLocal, Certainty::Possible),
        (icmp(Label::Unreachable, 3, 0), gateway(OWN), Code::PrivateAddressNotLocal, Certainty::Possible),
        (failed_call(Label::Unreachable, Errno::EHOSTUNREACH), Script::default().route(FAR, Route::None(Errno::EHOSTUNREACH.0)), Code::NoRoute, Certainty::Certain),
        (v6, far(), Code::AdminProhibited, Certainty::Certain),
        (works(5433, 1, reset(FAR)), far(), Code::WrongPort, Certainty::Likely),
        (works(22, 600, reset(FAR)), far(), Code::WrongPort, Certainty::Possible),
        (works(22, 3600, reset(FAR)), far(), Code::NothingListening, Certainty::Likely),
        (works(5433, 1, reset(FAR)), in_container(), Code::NothingListening, Certainty::Certain),
        (works(22, 600, silence()), gateway(OWN), Code::RemoteFiltered, Certainty::Likely),
        (reset_before(600), far(), Code::RemoteFiltered, Certainty::Likely),
        (works(22, 1, silence()), far().neighbour(FAR, Neighbour::Failed), Code::HostDown, Certainty::Certain),
        (works(22, 1, silence()), proxied(), Code::ProxyInPath, Certainty::Certain),
        (silent(60), gateway(OWN), Code::PrivateAddressNotLocal, Certainty::Possible),
        (silent(60), far().neighbour(FAR, Neighbour::Failed), Code::HostDown, Certainty::Certain),
        (silent(60), Script::default(), Code::SilentHost, Certainty::Possible),
        (failed_call(Label::Denied, Errno::EPERM), far().security_programs(&["deny"]), Code::SecurityModule, Certainty::Likely),
        (failed_call(Label::Denied, Errno::EACCES), far().confinement(None).security_programs(&["deny"]), Code::SecurityModule, Certainty::Likely),
        (failed_call(Label::Denied, Errno::EPERM), far().programs(1).security_programs(&["deny"]), Code::CgroupPolicy, Certainty::Likely),
        (bind, Script::default().ports(None, ports(0, 28_232, 0)), Code::PortsHeldByBind, Certainty::Certain),
        (exhausted(), Script::default().ports(remote(), ports(0, 0, 28_232)), Code::SocketPortRange, Certainty::Certain),
        (exhausted(), Script::default().ports(remote(), ports(27_000, 0, 0)), Code::EphemeralRangeUsedUp, Certainty::Likely),
    ] {
        let cause = diagnose(&case, &mut script.clone()).unwrap();
        assert_eq!((cause.code, cause.certainty), (code, certainty), "{case:?}");
    }
}
