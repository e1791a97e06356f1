//! What only looks alike.

use super::{
    cases::{
        dropped, exhausted, failed_call, icmp, no_neighbour, not_local, reset, reset_before,
        silence, silent, to, tuple_taken, works,
    },
    recognised,
    script::{
        FAR, NETNS, OWN, PORT, PUBLIC, Script, far, here, holder, listener, out, ports, proxied,
        remote,
    },
};
use crate::{
    diagnose::{
        Case,
        ask::{Neighbour, Route},
    },
    errno::Errno,
    event::Code,
    label::Label,
    reply::ReplyKind,
};

/// What a rule must not take for its cause, at least two of each.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn look_alikes() -> Vec<(Code, &'static str, Case, Script)> {
    let at_once = |mut case: Case, label| { case.label = label; case };
    let mut crossed = reset(FAR);
    crossed.errno = Some(Errno::ECONNRESET);
    let mut rejected_here = reset(FAR);
    rejected_here.reply = ReplyKind::Local;
    let mut public = silence();
    public.remote = Some(to(PUBLIC));
    let mut early = silence();
    early.label = Label::Cancelled;
    let mut not_bound = tuple_taken();
    not_bound.bound_port = None;
    let mut v6_only = listener(NETNS, "::", PORT);
    v6_only.only_v6 = false;
    let similar = |addr, port| here().listeners(vec![], vec![listener(NETNS, addr, port)]);
    let gateway = || Script::default().route(FAR, out(Some("10.0.0.1"), 0));
    let full = || Script::default().ports(remote(), ports(28_232, 0, 0));
    vec![
        (Code::NothingListening, "something listens since", reset(FAR), here().listeners(vec![listener(NETNS, "0.0.0.0", PORT)], vec![])),
        (Code::NothingListening, "SYNs that crossed", crossed.clone(), here()),
        (Code::NothingListening, "own reject with RST", rejected_here.clone(), here()),
        (Code::NothingListening, "led elsewhere", reset(FAR), far().rewrites()),
        (Code::WrongPort, "led elsewhere", reset(FAR), similar("0.0.0.0", 5433).rewrites()),
        (Code::ProxyInPath, "dropped here, whatever is rewritten", dropped(), far().rewrites()),
        (Code::NothingListening, "loopback, and nobody could look", reset("127.0.0.1"), Script::default()),
        (Code::ListeningElsewhere, "on every address", reset(FAR), here().listeners(vec![listener(NETNS, "0.0.0.0", PORT)], vec![])),
        (Code::ListeningElsewhere, "on every address of both families", reset(FAR), here().listeners(vec![v6_only], vec![])),
        (Code::ListeningElsewhere, "another host", reset(FAR), far().listeners(vec![listener(NETNS, "127.0.0.1", PORT)], vec![])),
        (Code::WrongPort, "similar port, but not on that address", reset(FAR), similar("127.0.0.1", 5433)),
        (Code::WrongPort, "another host", reset(FAR), far().listeners(vec![], vec![listener(NETNS, "0.0.0.0", 5433)])),
        (Code::WrongPort, "the very port", works(PORT, 1, reset(FAR)), far()),
        (Code::WrongPort, "a handshake of an hour ago", works(5433, 3600, reset(FAR)), far()),
        (Code::WrongPort, "led elsewhere, from another host", works(5433, 1, reset(FAR)), far().rewrites()),
        (Code::WrongPort, "this host, whose listeners are known", works(5433, 1, reset(FAR)), here()),
        (Code::WrongPort, "a firewall on the way", works(5433, 1, icmp(Label::Refused, 3, 3)), far()),
        (Code::RemoteFiltered, "the very port", works(PORT, 1, silence()), far()),
        (Code::RemoteFiltered, "a handshake of an hour ago", works(22, 3600, silence()), far()),
        (Code::RemoteFiltered, "a RST of an hour ago", reset_before(3600), far()),
        (Code::RemoteFiltered, "dropped here", works(22, 1, dropped()), far()),
        (Code::RemoteFiltered, "a router has no route", works(22, 1, icmp(Label::TimedOut, 3, 0)), far()),
        (Code::SilentHost, "not listened for long", silent(59), far()),
        (Code::SilentHost, "a handshake of an hour ago", works(22, 3600, silence()), far()),
        (Code::SilentHost, "an address of this host", silent(60), here()),
        (Code::SilentHost, "dropped here", Case { heard: silent(60).heard, ..dropped() }, far()),
        (Code::PrivateAddressNotLocal, "it answered an hour ago", works(PORT, 3600, silence()), gateway()),
        (Code::RejectedByFirewall, "RST of the host", reset(FAR), far()),
        (Code::RejectedByFirewall, "router without a route", icmp(Label::Unreachable, 3, 0), far()),
        (Code::ProxyInPath, "no variable names it", reset(FAR), here().proxy(None)),
        (Code::ProxyInPath, "an established one", at_once(reset(FAR), Label::Established), proxied()),
        (Code::LocalFirewall, "full queue", dropped(), Script::default().drop_reason("QDISC_DROP")),
        (Code::LocalFirewall, "neighbour", dropped(), Script::default().drop_reason("NEIGH_FAILED")),
        (Code::LocalFirewall, "nothing dropped here", silence(), Script::default().drop_reason("NETFILTER_DROP")),
        (Code::HostDown, "neighbour answers", silence(), far().neighbour(FAR, Neighbour::Known)),
        (Code::HostDown, "nobody has asked", silence(), far().neighbour(FAR, Neighbour::Absent)),
        (Code::HostDown, "gateway does not answer", no_neighbour(), gateway().neighbour("10.0.0.1", Neighbour::Failed)),
        (Code::HostDown, "router without a route", icmp(Label::Unreachable, 3, 0), far()),
        (Code::PrivateAddressNotLocal, "public address", public, Script::default().route(PUBLIC, out(Some("10.0.0.1"), 0))),
        (Code::PrivateAddressNotLocal, "own network", silence(), far()),
        (Code::PrivateAddressNotLocal, "a route of its own", silence(), Script::default().route(FAR, out(Some("10.0.0.1"), 8))),
        (Code::PrivateAddressNotLocal, "host unreachable", icmp(Label::Unreachable, 3, 1), gateway()),
        (Code::NoRoute, "there is one since", failed_call(Label::Unreachable, Errno::ENETUNREACH), far()),
        (Code::NoRoute, "a router said so", icmp(Label::Unreachable, 3, 0), Script::default().route(FAR, Route::None(Errno::ENETUNREACH.0))),
        (Code::NeighbourUnresolved, "gateway answers", silence(), gateway().neighbour("10.0.0.1", Neighbour::Known)),
        (Code::NeighbourUnresolved, "host on the own network", no_neighbour(), far().neighbour(FAR, Neighbour::Failed)),
        (Code::IcmpUnreachable, "neighbour here", no_neighbour(), far()),
        (Code::IcmpUnreachable, "port unreachable", icmp(Label::Refused, 3, 3), far()),
        (Code::AdminProhibited, "no route", icmp(Label::Unreachable, 3, 0), far()),
        (Code::AdminProhibited, "this host's policy", failed_call(Label::Denied, Errno::EACCES), far()),
        (Code::EphemeralRangeUsedUp, "ports are free (curl#5089, emqx#17893)", exhausted(), Script::default().ports(remote(), ports(50, 0, 0))),
        (Code::EphemeralRangeUsedUp, "binds hold them (envoy#44747)", exhausted(), Script::default().ports(remote(), ports(2, 28_230, 0))),
        (Code::EphemeralRangeUsedUp, "a full range, and another failure", early, full()),
        (Code::PortsHeldByBind, "connections hold them", exhausted(), full()),
        (Code::PortsHeldByBind, "a few binds", exhausted(), Script::default().ports(remote(), ports(2, 300, 0))),
        (Code::SocketPortRange, "the range is full", exhausted(), full()),
        (Code::SocketPortRange, "all connections are gone", exhausted(), Script::default().ports(remote(), ports(0, 0, 0))),
        (Code::SocketPortRange, "half of it may have been given back", exhausted(), Script::default().ports(remote(), ports(20_000, 0, 0))),
        (Code::TupleInUse, "it is gone", tuple_taken(), Script::default().tuple(None)),
        (Code::TupleInUse, "no port was bound", not_bound, Script::default().tuple(holder())),
        (Code::SourceNotLocal, "it is here", not_local(), Script::default().route_from(OWN, None, Route::Local)),
        (Code::SourceNotLocal, "its 4-tuple is taken", tuple_taken(), Script::default().route_from(OWN, None, out(None, 24))),
        (Code::CgroupPolicy, "no program", failed_call(Label::Denied, Errno::EPERM), Script::default().programs(0)),
        (Code::CgroupPolicy, "EACCES", failed_call(Label::Denied, Errno::EACCES), Script::default().programs(1)),
        (Code::SecurityModule, "unconfined", failed_call(Label::Denied, Errno::EACCES), Script::default().confinement(None)),
        (Code::SecurityModule, "no program", failed_call(Label::Denied, Errno::EPERM), Script::default().security_programs(&[])),
        (Code::SecurityModule, "programs, but no denial", failed_call(Label::Unreachable, Errno::ENETUNREACH), Script::default().security_programs(&["deny"])),
        (Code::SecurityModule, "programs, but the route says so", failed_call(Label::Denied, Errno::EACCES), Script::default().security_programs(&["deny"]).route(FAR, Route::None(Errno::EACCES.0))),
        (Code::SecurityModule, "EPERM", failed_call(Label::Denied, Errno::EPERM), Script::default().confinement(Some("x (enforce)"))),
        (Code::ProhibitRoute, "a route", failed_call(Label::Denied, Errno::EACCES), far()),
        (Code::ProhibitRoute, "blackhole", failed_call(Label::Denied, Errno::EACCES), Script::default().route(FAR, Route::None(22))),
    ]
}

#[test]
fn look_alikes_are_told_apart() {
    let look_alikes = look_alikes();
    for code in Code::ALL {
        let of_it = look_alikes.iter().filter(|(of, ..)| *of == code);
        assert!(of_it.count() >= 2, "{code:?}");
    }
    for (code, what, case, script) in look_alikes {
        let found = recognised(code, &case, &script);
        assert_eq!(found, None, "{code:?}: {what}");
    }
}
