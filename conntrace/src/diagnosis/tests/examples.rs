//! Examples of every cause: attempts that have it, and attempts that only look alike.
//!
//! Three tables, in the order of [`Code::ALL`].

use super::{
    cases::{
        SELF_PORT, answered_in_vain, case, cut_off, dropped, dropped_there, exhausted, failed_call,
        forgetful, hasty, icmp, no_neighbour, not_local, port_taken, reset, reset_before, silence,
        silent, to, to_itself, tuple_taken, unreported, works,
    },
    script::{
        CONTAINER, FAR, NETNS, OWN, PORT, PUBLIC, Script, far, gateway, here, holder, ip, link,
        listener, out, port_holder, ports, proxied, remote,
    },
};
use crate::{
    diagnosis::{
        Case, CaseDrops, Certainty, Code, FailedCall,
        firewall_facts::{Match, PacketEnd},
        question::{Answer, Listeners, Neighbour, Question},
        tunnel_facts::{HeardHost, Tunnel, WireguardHandshake, WireguardPeer},
        way::{DeadEnd, DeadEndKind, Forwarding, Route, RuleFacts},
    },
    record::{Errno, Label, ReplyKind},
};

/// An attempt of each cause, with what the host answers.
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
        (Code::CgroupPolicy, failed_call(Label::Denied, Errno::EPERM), Script::default().programs(&["deny"])),
        (Code::SecurityModule, failed_call(Label::Denied, Errno::EACCES), far().confinement(Some("docker-default (enforce)"))),
        (Code::ProhibitRoute, failed_call(Label::Denied, Errno::EACCES), Script::default().route(FAR, Route::None(Errno::EACCES.0))),
        (Code::DroppedHere, dropped(), far().drop_reason("TCP_MD5NOTFOUND")),
        (Code::RouteWentAway, cut_off(Errno::ENETUNREACH), Script::default().route(FAR, no_route.clone())),
        (Code::OwnLinkDown, no_neighbour(), far().link(link(false, None)).neighbour(FAR, Neighbour::Failed)),
        (Code::WrongSource, unreachable(), Script::default().route_from(FAR, Some(OWN), no_route).route_from(FAR, None, out(None, 24)).own(OWN, false)),
        (Code::NoSourceAddress, sourceless, Script::default().route_from(FAR, None, out(None, 24)).no_addresses(false)),
        (Code::BadDestination, portless, Script::default()),
        (Code::AnswersSometimes, works(PORT, 12, silence()), far()),
        (Code::ServiceWithoutEndpoints, dropped_there(to(FAR), reset(FAR)), there("NETFILTER_DROP").rule(PacketEnd::RejectByReset, "KUBE-SERVICES", Match::Fully).comment(NO_ENDPOINTS)),
        (Code::AnswerFromElsewhere, answered_in_vain(OTHER, false), far().drop_reason("NO_SOCKET")),
        (Code::DeadlineTooShort, answered_in_vain(FAR, true), far().drop_reason("NO_SOCKET")),
        (Code::BlackholeRoute, failed_call(Label::Failed, Errno::EINVAL), swallowed().dead_end(dead_end(DeadEndKind::Blackhole))),
        (Code::NotForwarded, silence(), unforwarded()),
        (Code::WrongNetwork, no_neighbour(), macvlan().route_in(CONTAINER, OWN, None, out(None, 24))),
        (Code::ConnectedToItself, to_itself(), Script::default().ports(to_itself().remote_socket(), ports(1, 0, 0))),
        (Code::PortInUse, port_taken(None), Script::default().port_holders(vec![port_holder("0.0.0.0:40000", None)])),
        (Code::ThroughTunnel, silence(), far().tunnel("tun", received(0)).tun_holder("openvpn")),
        (Code::AcceptQueueFull, silence(), here().full_queue(false)),
    ]
}

/// Comment of kube-proxy's rule for a service without a pod.
const NO_ENDPOINTS: &str = "default/app:http has no endpoints";
/// Address to which the destination is translated, in the container's namespace.
const OTHER: &str = "10.244.0.6";

/// A machine whose container has the destination's address, or that to which it is translated, and
/// drops for this reason.
fn there(reason: &str) -> Script {
    let script = far().drop_reason(reason);
    script
        .route_in(CONTAINER, FAR, None, Route::Local)
        .route_in(CONTAINER, OTHER, None, Route::Local)
}

/// The network of the source is at another interface than the way.
fn beside() -> Route {
    let Route::Out(mut network) = out(None, 24) else {
        unreachable!()
    };
    network.device.index = 9;
    Route::Out(network)
}

/// A tunnel takes the destination's network.
fn tunnel() -> Script {
    let mut tun = link(true, Some("tun"));
    tun.resolves_neighbours = false;
    far().link(tun)
}

/// Further attempts of a cause, with the certainty of each.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn other_ways() -> Vec<(Case, Script, Code, Certainty)> {
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
    let some = |mut case: Case| { if let Ok(Some(drop)) = &mut case.way_drop { drop.all = false } case };
    let silent_and = |case: Case| Case { heard: silent(60).heard, ..case };
    let holders = |found: &[(&str, Option<&str>)]| Script::default().port_holders(found.iter().map(|(local, remote)| port_holder(local, *remote)).collect());
    let (source, global) = ("fd00::2", "2001:db8::5");
    let unique_local = Case { local_addr: Some(ip(source)), remote: Some(to(global)), ..silence() };
    let by_its_router = Script::default().route_from(global, Some(source), out(Some("fd00::1"), 0)).neighbour("fd00::1", Neighbour::Known);
    let mut redirected = dropped_there(to("127.0.0.1"), reset(FAR));
    if let Ok(Some(drop)) = &mut redirected.way_drop { drop.netns = NETNS }
    vec![
        (port_taken(Some(OWN)), holders(&[("10.0.0.2:40000", None), ("0.0.0.0:40000", None)]), Code::PortInUse, Certainty::Certain),
        (port_taken(Some(OWN)), holders(&[("0.0.0.0:40000", None)]).other_process(), Code::PortInUse, Certainty::Likely),
        (port_taken(None), holders(&[("127.0.0.1:40000", None)]), Code::PortInUse, Certainty::Likely),
        (port_taken(None), holders(&[("10.0.0.2:40000", Some("10.0.0.5:5432"))]), Code::PortInUse, Certainty::Likely),
        (silence(), here().full_queue(true), Code::AcceptQueueFull, Certainty::Likely),
        (reset(FAR), far(), Code::NothingListening, Certainty::Likely),
        (reset(FAR), in_container(), Code::NothingListening, Certainty::Certain),
        (reset(FAR), here().elsewhere(vec![listener(CONTAINER, "0.0.0.0", PORT)]), Code::NothingListening, Certainty::Certain),
        (works(22, 1, reset(FAR)), far(), Code::NothingListening, Certainty::Likely),
        (works(22, 1, reset(FAR)), behind_a_namespace(), Code::NothingListening, Certainty::Likely),
        (reset(FAR), here().legacy(), Code::NothingListening, Certainty::Likely),
        (works(22, 3600, reset(FAR)), far(), Code::NothingListening, Certainty::Likely),
        (works(5433, 1, reset(FAR)), in_container(), Code::NothingListening, Certainty::Certain),
        (reset(FAR), here().legacy().listeners(vec![listener(NETNS, "127.0.0.1", PORT)], vec![]), Code::ListeningElsewhere, Certainty::Likely),
        (rejected_here.clone(), far(), Code::RejectedByFirewall, Certainty::Likely),
        (rejected_here.clone(), far().rule(PacketEnd::RejectByReset, "output", Match::Possibly), Code::RejectedByFirewall, Certainty::Likely),
        (rejected_here, far().rule(PacketEnd::RejectByReset, "output", Match::Fully), Code::RejectedByFirewall, Certainty::Certain),
        (reset(FAR), far().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (reset(FAR), here().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (silence(), far().rewrites(), Code::ProxyInPath, Certainty::Likely),
        (reset(FAR), here().rule(PacketEnd::Rewrite, "OUTPUT", Match::Possibly), Code::ProxyInPath, Certainty::Possible),
        (works(22, 1, silence()), proxied().route(FAR, out(None, 24)), Code::ProxyInPath, Certainty::Certain),
        (dropped(), drop("BPF_CGROUP_EGRESS"), Code::LocalFirewall, Certainty::Certain),
        (dropped(), drop("NETFILTER_DROP").rule(PacketEnd::Drop, "output", Match::Possibly), Code::LocalFirewall, Certainty::Likely),
        (dropped(), drop("NETFILTER_DROP").drops_answer(), Code::LocalFirewall, Certainty::Likely),
        (some_dropped.clone(), drop("NETFILTER_DROP").rule(PacketEnd::Drop, "output", Match::Fully), Code::LocalFirewall, Certainty::Likely),
        (works(22, 600, silence()), gateway(), Code::RemoteFiltered, Certainty::Likely),
        (reset_before(600), far(), Code::RemoteFiltered, Certainty::Likely),
        (silence(), far().neighbour(FAR, Neighbour::Incomplete), Code::HostDown, Certainty::Likely),
        (icmp(Label::Unreachable, 3, 1), far(), Code::HostDown, Certainty::Likely),
        (works(22, 1, silence()), far().neighbour(FAR, Neighbour::Failed), Code::HostDown, Certainty::Likely),
        (silent(60), far().neighbour(FAR, Neighbour::Failed), Code::HostDown, Certainty::Likely),
        (silent(60), far().neighbour(FAR, Neighbour::Known), Code::SilentHost, Certainty::Possible),
        (silent(5), gateway().neighbour("10.0.0.1", Neighbour::Known), Code::PrivateAddressNotLocal, Certainty::Possible),
        (icmp(Label::Unreachable, 3, 0), gateway(), Code::PrivateAddressNotLocal, Certainty::Possible),
        (failed_call(Label::Unreachable, Errno::EHOSTUNREACH), Script::default().route(FAR, Route::None(Errno::EHOSTUNREACH.0)), Code::NoRoute, Certainty::Certain),
        (failed_call(Label::Unreachable, Errno::EHOSTUNREACH), Script::default().route(FAR, Route::None(Errno::EHOSTUNREACH.0)).dead_end(dead_end(DeadEndKind::Unreachable)), Code::NoRoute, Certainty::Certain),
        (silence(), gateway().neighbour("10.0.0.1", Neighbour::Incomplete), Code::NeighbourUnresolved, Certainty::Likely),
        (v6_net, far().route("2001:db8::5", out(Some("fd00::1"), 0)), Code::IcmpUnreachable, Certainty::Likely),
        (v6, far(), Code::AdminProhibited, Certainty::Certain),
        (exhausted(), Script::default().ports(remote(), ports(27_000, 0, 0)), Code::EphemeralRangeUsedUp, Certainty::Likely),
        (bind, Script::default().ports(None, ports(0, 28_232, 0)), Code::PortsHeldByBind, Certainty::Certain),
        (exhausted(), Script::default().ports(remote(), ports(2, 26_000, 0)), Code::PortsHeldByBind, Certainty::Likely),
        (exhausted(), Script::default().ports(remote(), ports(0, 0, 28_232)), Code::SocketPortRange, Certainty::Certain),
        (failed_call(Label::Denied, Errno::EPERM), far().programs(&["deny"]).security_programs(&["deny"]), Code::CgroupPolicy, Certainty::Likely),
        (failed_call(Label::Denied, Errno::EPERM), far().security_programs(&["deny"]), Code::SecurityModule, Certainty::Likely),
        (failed_call(Label::Denied, Errno::EACCES), far().confinement(None).security_programs(&["deny"]), Code::SecurityModule, Certainty::Likely),
        (dropped(), drop("NETFILTER_DROP"), Code::DroppedHere, Certainty::Likely),
        (dropped(), drop("IP_RPFILTER"), Code::DroppedHere, Certainty::Certain),
        (some_dropped, drop("QDISC_DROP"), Code::DroppedHere, Certainty::Likely),
        (cut_off(Errno::EHOSTUNREACH), far().own(OWN, false), Code::RouteWentAway, Certainty::Likely),
        (cut_off(Errno::EINVAL), far().own(OWN, false), Code::RouteWentAway, Certainty::Certain),
        (cut_off(Errno::ENETUNREACH), far(), Code::RouteWentAway, Certainty::Likely),
        (Case { bound_port: Some(SELF_PORT), ..to_itself() }, Script::default().ports(to_itself().remote_socket(), ports(1, 0, 0)), Code::ConnectedToItself, Certainty::Certain),
        (silence(), far().link(link(false, None)), Code::OwnLinkDown, Certainty::Possible),
        (silent(5), far().own(OWN, false), Code::WrongSource, Certainty::Likely),
        (dropped_there(to(FAR), reset(FAR)), there("NO_SOCKET"), Code::NothingListening, Certainty::Certain),
        (dropped_there(to(OTHER), reset(FAR)), there("NO_SOCKET"), Code::NothingListening, Certainty::Certain),
        (dropped_there(to(OTHER), reset(FAR)), there("NO_SOCKET").legacy(), Code::NothingListening, Certainty::Certain),
        (dropped_there(to(OTHER), reset(FAR)), there("NO_SOCKET").with(Question::Listeners { netns: CONTAINER, addr: ip(OTHER), port: PORT }, Answer::Listeners(Listeners { on_port: vec![listener(CONTAINER, "127.0.0.1", PORT)], on_similar: vec![] })), Code::ListeningElsewhere, Certainty::Certain),
        (dropped_there(to(FAR), reset(FAR)), there("NETFILTER_DROP").legacy(), Code::RejectedByFirewall, Certainty::Likely),
        (dropped_there(to(FAR), reset(FAR)), there("NETFILTER_DROP").rule(PacketEnd::RejectByReset, "input", Match::Fully), Code::RejectedByFirewall, Certainty::Certain),
        (dropped_there(to(FAR), silence()), there("NETFILTER_DROP").rule(PacketEnd::Drop, "FORWARD", Match::Fully), Code::LocalFirewall, Certainty::Certain),
        (dropped_there(to(FAR), silence()), there("NETFILTER_DROP").rule(PacketEnd::Drop, "FORWARD", Match::Possibly), Code::LocalFirewall, Certainty::Likely),
        (some(dropped_there(to(FAR), silence())), there("NETFILTER_DROP").rule(PacketEnd::Drop, "FORWARD", Match::Fully), Code::LocalFirewall, Certainty::Likely),
        (works(22, 1, dropped_there(to(FAR), silence())), there("NETFILTER_DROP").owner(FAR, Some(CONTAINER)).rule(PacketEnd::Drop, "input", Match::Fully), Code::RemoteFiltered, Certainty::Certain),
        (works(22, 1, dropped_there(to(FAR), silence())), there("NETFILTER_DROP").rule(PacketEnd::Drop, "FORWARD", Match::Fully), Code::LocalFirewall, Certainty::Certain),
        (works(PORT, 1, works(22, 1, dropped_there(to(FAR), silence()))), there("NETFILTER_DROP").owner(FAR, Some(CONTAINER)).rule(PacketEnd::Drop, "input", Match::Possibly), Code::LocalFirewall, Certainty::Likely),
        (works(22, 1, dropped_there(to(FAR), silence())), there("TC_INGRESS"), Code::LocalFirewall, Certainty::Certain),
        (dropped_there(to(FAR), silence()), there("NETFILTER_DROP").rule(PacketEnd::Drop, "KUBE-EXTERNAL-SERVICES", Match::Possibly).comment("default/app:http has no local endpoints"), Code::ServiceWithoutEndpoints, Certainty::Likely),
        (silent_and(dropped_there(to(FAR), silence())), there("TCP_MD5NOTFOUND").owner(FAR, Some(CONTAINER)), Code::DroppedHere, Certainty::Certain),
        (dropped_there(to(FAR), silence()), there("IP_INADDRERRORS"), Code::DroppedHere, Certainty::Likely),
        (dropped_there(to(FAR), silence()), there("NETFILTER_DROP"), Code::DroppedHere, Certainty::Likely),
        (cut_off(Errno::EINVAL), swallowed().dead_end(dead_end(DeadEndKind::Blackhole)), Code::BlackholeRoute, Certainty::Certain),
        (hasty(silence()), unforwarded(), Code::NotForwarded, Certainty::Certain),
        (silence(), gateway().forwarding(out(None, 24), Forwarding::OffAt("cni0".to_owned())), Code::NotForwarded, Certainty::Likely),
        (silence(), unforwarded().legacy(), Code::NotForwarded, Certainty::Likely),
        (works(22, 1, silence()), unforwarded(), Code::NotForwarded, Certainty::Likely),
        (silence(), unforwarded().rewrites_in(CONTAINER), Code::NotForwarded, Certainty::Possible),
        (no_neighbour(), astray().covered(24), Code::WrongNetwork, Certainty::Likely),
        (no_neighbour(), astray().covered(8).link(link(true, Some("bridge"))), Code::WrongNetwork, Certainty::Likely),
        (silence(), astray().covered(8), Code::WrongNetwork, Certainty::Possible),
        (no_neighbour(), astray().held(FAR), Code::WrongNetwork, Certainty::Possible),
        (silence(), tunnel().connected(24), Code::WrongNetwork, Certainty::Likely),
        (unique_local, by_its_router, Code::WrongSource, Certainty::Possible),
        (redirected, far().drop_reason("NO_SOCKET").rewrites(), Code::ProxyInPath, Certainty::Certain),
        (dropped_there(to(OTHER), icmp(Label::Unreachable, 3, 1)), far().drop_reason("NEIGH_FAILED").route_in(CONTAINER, OTHER, None, out(None, 24)), Code::HostDown, Certainty::Likely),
        (dropped_there(to(FAR), icmp(Label::Unreachable, 3, 13)), there("NETFILTER_DROP").rule(PacketEnd::RejectByIcmp, "FORWARD", Match::Fully), Code::AdminProhibited, Certainty::Certain),
        (silent_and(dropped_there(to(FAR), silence())), there("IP_RPFILTER").owner(FAR, Some(CONTAINER)), Code::DroppedHere, Certainty::Certain),
        (silence(), gateway().route_from("10.0.0.3", None, beside()).neighbour("10.0.0.1", Neighbour::Failed), Code::NeighbourUnresolved, Certainty::Likely),
        (no_neighbour(), macvlan().route_in(CONTAINER, OWN, None, Route::None(101)), Code::WrongNetwork, Certainty::Possible),
        (silence(), far().tunnel("wireguard", peer(WireguardHandshake::Never)), Code::ThroughTunnel, Certainty::Likely),
        (works(22, 1, silence()), far().tunnel("wireguard", peer(WireguardHandshake::Ago(181))), Code::ThroughTunnel, Certainty::Likely),
        (silent(5), gateway().tunnel("ipip", received(9)), Code::ThroughTunnel, Certainty::Possible),
        (silence(), far().tunnel("tun", heard(61)), Code::ThroughTunnel, Certainty::Possible),
        (works(22, 3600, silence()), far().tunnel("tun", received(9)), Code::ThroughTunnel, Certainty::Possible),
        (silence(), far().tunnel("vxlan", received(9)).neighbour(FAR, Neighbour::Incomplete), Code::ThroughTunnel, Certainty::Possible),
        (silent(5), behind_the_node("wireguard").tunnel_in(CONTAINER, received(9)), Code::ThroughTunnel, Certainty::Possible),
    ]
}

/// Attempts that only look like those of a cause, at least two for each.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn look_alikes() -> Vec<(Code, &'static str, Case, Script)> {
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
    let no_route = || Route::None(Errno::ENETUNREACH.0);
    let unreachable = || failed_call(Label::Unreachable, Errno::ENETUNREACH);
    let mut itself = icmp(Label::Unreachable, 3, 1);
    if let Some(icmp) = &mut itself.icmp { icmp.from = Some(ip(FAR)) }
    let mut drained = silence();
    (drained.label, drained.reply, drained.errno) = (Label::Unreachable, ReplyKind::Icmp, Some(Errno::ENETUNREACH));
    let mut loopback_only = here().listeners(vec![listener(CONTAINER, "127.0.0.1", PORT)], vec![]);
    loopback_only = loopback_only.rewrites();
    let in_next = |route| gateway().owner("10.0.0.1", Some(CONTAINER)).route_in(CONTAINER, FAR, None, route);
    let bound = || { let mut found = listener(NETNS, "0.0.0.0", PORT); found.device = None; found };
    let full = || Script::default().ports(remote(), ports(28_232, 0, 0));
    vec![
        (Code::NothingListening, "something listens since", reset(FAR), here().listeners(vec![listener(NETNS, "0.0.0.0", PORT)], vec![])),
        (Code::NothingListening, "SYNs that crossed", crossed.clone(), here()),
        (Code::NothingListening, "own reject with RST", rejected_here.clone(), here()),
        (Code::NothingListening, "led elsewhere", reset(FAR), far().rewrites()),
        (Code::NothingListening, "rewritten by the node", reset(FAR), gateway().owner("10.0.0.1", Some(CONTAINER)).link(link(true, Some("veth"))).rewrites_in(CONTAINER)),
        (Code::NothingListening, "loopback, and nobody could look", reset("127.0.0.1"), Script::blind()),
        (Code::NothingListening, "nobody could look whose address it is", reset(FAR), far().without_owner(FAR)),
        (Code::ListeningElsewhere, "on every address", reset(FAR), here().listeners(vec![listener(NETNS, "0.0.0.0", PORT)], vec![])),
        (Code::ListeningElsewhere, "on every address of both families", reset(FAR), here().listeners(vec![v6_only], vec![])),
        (Code::ListeningElsewhere, "listens elsewhere, but is led away", reset(FAR), loopback_only),
        (Code::ListeningElsewhere, "an unrelated container", reset(FAR), here().elsewhere(vec![listener(CONTAINER, "0.0.0.0", PORT)])),
        (Code::ListeningElsewhere, "it accepts the address since", reset(FAR), here().listeners(vec![bound()], vec![])),
        (Code::WrongPort, "led elsewhere", reset(FAR), similar("0.0.0.0", 5433).rewrites()),
        (Code::WrongPort, "similar port, but not on that address", reset(FAR), similar("127.0.0.1", 5433)),
        (Code::WrongPort, "another host", reset(FAR), far().listeners(vec![], vec![listener(NETNS, "0.0.0.0", 5433)])),
        (Code::WrongPort, "another port of another host works", works(5433, 1, reset(FAR)), far()),
        (Code::WrongPort, "a firewall on the way", works(5433, 1, icmp(Label::Refused, 3, 3)), far()),
        (Code::RejectedByFirewall, "RST of the host", reset(FAR), far()),
        (Code::RejectedByFirewall, "router without a route", icmp(Label::Unreachable, 3, 0), far()),
        (Code::ProxyInPath, "dropped here, whatever is rewritten", dropped(), far().rewrites()),
        (Code::ProxyInPath, "no variable names it", reset(FAR), here().proxy(None)),
        (Code::ProxyInPath, "an established one", at_once(reset(FAR), Label::Established), proxied()),
        (Code::LocalFirewall, "full queue", dropped(), far().drop_reason("QDISC_DROP")),
        (Code::LocalFirewall, "netfilter, but no rule drops", dropped(), far().drop_reason("NETFILTER_DROP")),
        (Code::LocalFirewall, "neighbour", dropped(), far().drop_reason("NEIGH_FAILED")),
        (Code::LocalFirewall, "nothing dropped here", silence(), far().drop_reason("NETFILTER_DROP").rule(PacketEnd::Drop, "output", Match::Fully)),
        (Code::RemoteFiltered, "gave up after one SYN", hasty(works(22, 1, silence())), far()),
        (Code::RemoteFiltered, "the very port, minutes ago", works(PORT, 500, works(22, 1, silence())), far()),
        (Code::RemoteFiltered, "an answer on this port may be forgotten", forgetful(works(22, 1, silence())), far()),
        (Code::RemoteFiltered, "a RST of this very port", { let mut case = reset_before(5); case.heard.reset = Some(crate::diagnosis::Handshake { port: PORT, ago_s: 5 }); case }, far()),
        (Code::RemoteFiltered, "the very port", works(PORT, 1, silence()), far()),
        (Code::RemoteFiltered, "a handshake of an hour ago", works(22, 3600, silence()), far()),
        (Code::RemoteFiltered, "a RST of an hour ago", reset_before(3600), far()),
        (Code::RemoteFiltered, "dropped here", works(22, 1, dropped()), far()),
        (Code::RemoteFiltered, "a router has no route", works(22, 1, icmp(Label::TimedOut, 3, 0)), far()),
        (Code::HostDown, "own cable is out", no_neighbour(), far().neighbour(FAR, Neighbour::Failed).link(link(false, None))),
        (Code::HostDown, "an address of this machine", no_neighbour(), far().neighbour(FAR, Neighbour::Failed).held(FAR)),
        (Code::HostDown, "another route covers it", no_neighbour(), far().neighbour(FAR, Neighbour::Failed).covered(8)),
        (Code::HostDown, "the destination itself says so", itself.clone(), far()),
        (Code::HostDown, "neighbour answers", silence(), far().neighbour(FAR, Neighbour::Known)),
        (Code::HostDown, "nobody has asked", silence(), far().neighbour(FAR, Neighbour::Absent)),
        (Code::HostDown, "gateway does not answer", no_neighbour(), gateway().neighbour("10.0.0.1", Neighbour::Failed)),
        (Code::HostDown, "router without a route", icmp(Label::Unreachable, 3, 0), far()),
        (Code::SilentHost, "no record that it was tried", silence(), far()),
        (Code::SilentHost, "an answer may be forgotten", forgetful(silent(60)), far()),
        (Code::SilentHost, "gave up after one SYN", hasty(silent(60)), far()),
        (Code::SilentHost, "a handshake of an hour ago", works(22, 3600, silence()), far()),
        (Code::SilentHost, "an address of this host", silent(60), here()),
        (Code::SilentHost, "dropped here", Case { heard: silent(60).heard, ..dropped() }, far()),
        (Code::PrivateAddressNotLocal, "something of that network was heard", silence(), gateway()),
        (Code::PrivateAddressNotLocal, "it answered an hour ago", works(PORT, 3600, silent(60)), gateway()),
        (Code::PrivateAddressNotLocal, "an answer may be forgotten", forgetful(silent(60)), gateway()),
        (Code::PrivateAddressNotLocal, "through a tunnel", silent(60), gateway().link(link(true, Some("wireguard")))),
        (Code::PrivateAddressNotLocal, "the next hop has the address", silent(60), in_next(Route::Local)),
        (Code::PrivateAddressNotLocal, "the next hop has a route of its own", silent(60), in_next(out(None, 24))),
        (Code::PrivateAddressNotLocal, "public address", public, Script::default().route(PUBLIC, out(Some("10.0.0.1"), 0))),
        (Code::PrivateAddressNotLocal, "own network", silence(), far()),
        (Code::PrivateAddressNotLocal, "a route of its own", silence(), Script::default().route(FAR, out(Some("10.0.0.1"), 8))),
        (Code::PrivateAddressNotLocal, "host unreachable", icmp(Label::Unreachable, 3, 1), gateway()),
        (Code::NoRoute, "there is one from another source", unreachable(), Script::default().route_from(FAR, Some(OWN), no_route()).route_from(FAR, None, out(None, 24))),
        (Code::NoRoute, "there is one since", failed_call(Label::Unreachable, Errno::ENETUNREACH), far()),
        (Code::NoRoute, "a router said so", icmp(Label::Unreachable, 3, 0), Script::default().route(FAR, Route::None(Errno::ENETUNREACH.0))),
        (Code::NeighbourUnresolved, "own cable is out", no_neighbour(), gateway().neighbour("10.0.0.1", Neighbour::Failed).link(link(false, None))),
        (Code::NeighbourUnresolved, "gateway answers", silence(), gateway().neighbour("10.0.0.1", Neighbour::Known)),
        (Code::NeighbourUnresolved, "host on the own network", no_neighbour(), far().neighbour(FAR, Neighbour::Failed)),
        (Code::IcmpUnreachable, "of IPv4, and its sender was read away", drained, far()),
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
        (Code::PortInUse, "it is gone", port_taken(None), Script::default()),
        (Code::PortInUse, "on another address", port_taken(Some(OWN)), Script::default().port_holders(vec![port_holder("127.0.0.1:40000", None)])),
        (Code::PortInUse, "an address that is not there", not_local(), far().port_holders(vec![port_holder("0.0.0.0:40000", None)])),
        (Code::SourceNotLocal, "its port is taken", port_taken(Some(OWN)), far().own(OWN, false)),
        (Code::TupleInUse, "it is gone", tuple_taken(), Script::default().tuple(None)),
        (Code::TupleInUse, "no port was bound", not_bound, Script::default().tuple(holder())),
        (Code::SourceNotLocal, "it is here", not_local(), far()),
        (Code::SourceNotLocal, "its 4-tuple is taken", tuple_taken(), far().own(OWN, false)),
        (Code::CgroupPolicy, "no program", failed_call(Label::Denied, Errno::EPERM), Script::default().programs(&[])),
        (Code::CgroupPolicy, "EACCES", failed_call(Label::Denied, Errno::EACCES), Script::default().programs(&["deny"])),
        (Code::SecurityModule, "unconfined", failed_call(Label::Denied, Errno::EACCES), Script::default().confinement(None)),
        (Code::SecurityModule, "no program", failed_call(Label::Denied, Errno::EPERM), Script::default().security_programs(&[])),
        (Code::SecurityModule, "programs, but no denial", failed_call(Label::Unreachable, Errno::ENETUNREACH), Script::default().security_programs(&["deny"])),
        (Code::SecurityModule, "programs, but the route says so", failed_call(Label::Denied, Errno::EACCES), Script::default().security_programs(&["deny"]).route(FAR, Route::None(Errno::EACCES.0))),
        (Code::SecurityModule, "EPERM", failed_call(Label::Denied, Errno::EPERM), Script::default().confinement(Some("x (enforce)"))),
        (Code::ProhibitRoute, "a route", failed_call(Label::Denied, Errno::EACCES), far()),
        (Code::ProhibitRoute, "blackhole", failed_call(Label::Denied, Errno::EACCES), Script::default().route(FAR, Route::None(22))),
        (Code::DroppedHere, "a rule drops", dropped(), far().drop_reason("BPF_CGROUP_EGRESS")),
        (Code::DroppedHere, "neighbour", dropped(), far().drop_reason("NEIGH_FAILED")),
        (Code::DroppedHere, "nothing dropped here", silence(), far().drop_reason("TCP_MD5NOTFOUND")),
        (Code::RouteWentAway, "a router said so", icmp(Label::Unreachable, 3, 0), Script::default().route(FAR, no_route())),
        (Code::RouteWentAway, "IPv6 neighbour that is silent", cut_off(Errno::EHOSTUNREACH), far()),
        (Code::OwnLinkDown, "it has carrier", no_neighbour(), far().link(link(true, None))),
        (Code::OwnLinkDown, "a router answers", icmp(Label::Unreachable, 3, 1), far().link(link(false, None))),
        (Code::WrongSource, "no way without it either", unreachable(), Script::default().route(FAR, no_route())),
        (Code::WrongSource, "no source was chosen", Case { local_addr: None, ..unreachable() }, Script::default().route_from(FAR, None, no_route())),
        (Code::NoSourceAddress, "there are addresses", Case { local_addr: None, ..not_local() }, Script::default().route_from(FAR, None, out(None, 24))),
        (Code::NoSourceAddress, "a source was chosen", not_local(), far().no_addresses(false)),
        (Code::BadDestination, "a port", reset(FAR), far()),
        (Code::BadDestination, "a link-local address with its zone", { let mut case = reset("fe80::1"); case.remote = Some(to("fe80::1")); case }, far()),
        (Code::ConnectedToItself, "established with a server", case(Label::Established, ReplyKind::SynAck), far()),
        (Code::ConnectedToItself, "a server of this host, at its own address", Case { remote: Some(to(OWN)), ..case(Label::Established, ReplyKind::SynAck) }, here()),
        (Code::ConnectedToItself, "a closed port of this host", reset(OWN), here()),
        (Code::AcceptQueueFull, "an equal address of another host", works(PORT, 12, silence()), far().full_queue(false)),
        (Code::AcceptQueueFull, "dropped on its way", dropped_there(to(FAR), silence()), there("IP_CSUM").full_queue(false)),
        (Code::AcceptQueueFull, "refused", reset(FAR), here().full_queue(false)),
        (Code::AnswersSometimes, "another port", works(22, 12, silence()), far()),
        (Code::AnswersSometimes, "an hour ago", works(PORT, 3600, silence()), far()),
        (Code::RejectedByFirewall, "dropped, and no rule rejects", dropped_there(to(FAR), reset(FAR)), there("NETFILTER_DROP")),
        (Code::AnswersSometimes, "dropped on its way", works(PORT, 12, dropped_there(to(FAR), silence())), there("IP_CSUM")),
        (Code::RemoteFiltered, "dropped on its way", works(22, 1, dropped_there(to(FAR), silence())), there("IP_CSUM")),
        (Code::RemoteFiltered, "a drop may not be reported", unreported(works(22, 1, silence())), far()),
        (Code::SilentHost, "dropped on its way", Case { heard: silent(60).heard, ..dropped_there(to(FAR), silence()) }, there("IP_CSUM")),
        (Code::SilentHost, "a drop may not be reported", unreported(silent(60)), far()),
        (Code::ServiceWithoutEndpoints, "another rule's drop", dropped_there(to(FAR), silence()), there("NETFILTER_DROP").rule(PacketEnd::Drop, "FORWARD", Match::Fully)),
        (Code::ServiceWithoutEndpoints, "such a rule, and another reason", dropped_there(to(FAR), silence()), there("IP_CSUM").rule(PacketEnd::Drop, "KUBE-EXTERNAL-SERVICES", Match::Fully).comment(NO_ENDPOINTS)),
        (Code::ServiceWithoutEndpoints, "such a rule, and nothing dropped", silence(), far().rule(PacketEnd::Drop, "KUBE-EXTERNAL-SERVICES", Match::Fully).comment(NO_ENDPOINTS)),
        (Code::AnswerFromElsewhere, "from where it was asked", answered_in_vain(FAR, false), far().drop_reason("NO_SOCKET")),
        (Code::AnswerFromElsewhere, "dropped by a rule", answered_in_vain(OTHER, false), far().drop_reason("NETFILTER_DROP")),
        (Code::DeadlineTooShort, "before the close", answered_in_vain(FAR, false), far().drop_reason("NO_SOCKET")),
        (Code::DeadlineTooShort, "of another address", answered_in_vain(OTHER, true), far().drop_reason("NO_SOCKET")),
        (Code::DeadlineTooShort, "dropped by a rule", answered_in_vain(FAR, true), far().drop_reason("NETFILTER_DROP")),
        (Code::BlackholeRoute, "a source that is not assigned", failed_call(Label::Failed, Errno::EINVAL), swallowed()),
        (Code::BlackholeRoute, "there is a way since", failed_call(Label::Failed, Errno::EINVAL), far().dead_end(dead_end(DeadEndKind::Blackhole))),
        (Code::BlackholeRoute, "the source went away meanwhile", cut_off(Errno::EINVAL), swallowed().own(OWN, false)),
        (Code::BlackholeRoute, "prohibited", failed_call(Label::Denied, Errno::EACCES), Script::default().route(FAR, Route::None(Errno::EACCES.0)).dead_end(dead_end(DeadEndKind::Prohibit))),
        (Code::NotForwarded, "it forwards", silence(), gateway().forwarding(out(None, 24), Forwarding::On)),
        (Code::NotForwarded, "it has the address", silence(), gateway().forwarding(Route::Local, Forwarding::Off)),
        (Code::NotForwarded, "it has no route either", silence(), gateway().forwarding(no_route(), Forwarding::Off)),
        (Code::NotForwarded, "led elsewhere before", silence(), unforwarded().rewrites()),
        (Code::NotForwarded, "refused", reset(FAR), unforwarded()),
        (Code::NotForwarded, "the gateway is another machine", silence(), unforwarded().owner("10.0.0.1", None)),
        (Code::WrongNetwork, "a host that is down", no_neighbour(), astray()),
        (Code::WrongNetwork, "a tunnel that the default route leads around", silence(), tunnel().covered(8)),
        (Code::WrongNetwork, "a tunnel from which it answered", works(PORT, 1, silence()), tunnel().connected(24)),
        (Code::WrongNetwork, "it answers", silence(), far().neighbour(FAR, Neighbour::Known).covered(8).held(FAR)),
        (Code::WrongNetwork, "own cable is out", no_neighbour(), astray().covered(8).link(link(false, None))),
        (Code::WrongNetwork, "a router says so", icmp(Label::Unreachable, 3, 1), astray().covered(8)),
        (Code::WrongNetwork, "behind a gateway", no_neighbour(), gateway().neighbour("10.0.0.1", Neighbour::Failed).covered(8)),
        (Code::ThroughTunnel, "the host answered by the tunnel", works(22, 1, silence()), far().tunnel("tun", received(9))),
        (Code::ThroughTunnel, "the host refused another port", reset_before(60), far().tunnel("tun", received(9))),
        (Code::ThroughTunnel, "another host answers by the tunnel", silent(5), far().tunnel("tun", heard(60))),
        (Code::ThroughTunnel, "the peer's keys are valid", silent(5), far().tunnel("wireguard", peer(WireguardHandshake::Ago(180)))),
        (Code::ThroughTunnel, "refused from the other side", reset(FAR), far().tunnel("wireguard", received(0))),
        (Code::ThroughTunnel, "an answer may be forgotten", forgetful(silence()), far().tunnel("tun", received(9))),
        (Code::ThroughTunnel, "gave up after one SYN", hasty(silence()), far().tunnel("tun", received(0))),
        (Code::ThroughTunnel, "dropped here", dropped(), far().tunnel("tun", received(0))),
        (Code::ThroughTunnel, "a drop may not be reported", unreported(silence()), far().tunnel("tun", received(0))),
        (Code::ThroughTunnel, "led elsewhere", silence(), far().tunnel("tun", received(0)).rewrites()),
        (Code::ThroughTunnel, "the network of a container without root", silent(5), gateway().tunnel("tap", received(0))),
        (Code::ThroughTunnel, "the line of a provider", silent(5), far().tunnel("ppp", received(0))),
        (Code::ThroughTunnel, "no tunnel", silent(5), far().tunnel("veth", received(0))),
        (Code::PrivateAddressNotLocal, "the node has a tunnel", silent(60), behind_the_node("wireguard").tunnel_in(CONTAINER, heard(1))),
        (Code::PrivateAddressNotLocal, "behind a TAP device", silent(60), gateway().link(link(true, Some("tap")))),
        (Code::AnswersSometimes, "dropped here", works(PORT, 12, dropped()), far().drop_reason("TCP_MD5NOTFOUND")),
    ]
}

/// The route look-up fails with EINVAL.
fn swallowed() -> Script {
    Script::default().route(FAR, Route::None(Errno::EINVAL.0))
}

/// Nobody answers for the destination on the own network.
fn astray() -> Script {
    far().neighbour(FAR, Neighbour::Failed)
}

/// The same behind a macvlan interface, and a namespace of this machine has the address.
fn macvlan() -> Script {
    astray().link(link(true, Some("macvlan"))).held(FAR)
}

/// The gateway is a namespace of this machine, which does not forward.
fn unforwarded() -> Script {
    gateway().forwarding(out(None, 24), Forwarding::Off)
}

/// The way leads by a node, which has an interface of this kind towards it.
fn behind_the_node(kind: &str) -> Script {
    let out_of_it = Question::Link {
        netns: CONTAINER,
        device: 2,
    };
    gateway()
        .forwarding(out(Some("10.9.0.1"), 0), Forwarding::On)
        .with(out_of_it, Answer::Link(Some(link(true, Some(kind)))))
}

/// A tunnel that has received so many packets.
fn received(received: u64) -> Tunnel {
    Tunnel {
        received,
        ..Tunnel::default()
    }
}

/// A tunnel by which another host was heard so many seconds ago.
fn heard(ago_s: u64) -> Tunnel {
    let addr = ip("10.0.0.6");
    Tunnel {
        heard: Some(HeardHost { addr, ago_s }),
        ..received(9)
    }
}

/// A tunnel with this handshake.
fn peer(handshake: WireguardHandshake) -> Tunnel {
    let endpoint = "198.51.100.2:51820".parse().ok();
    Tunnel {
        peer: Some(WireguardPeer {
            endpoint,
            handshake,
        }),
        ..received(9)
    }
}

/// A VPN's route that forbids what the main table has.
fn dead_end(kind: DeadEndKind) -> DeadEnd {
    DeadEnd {
        kind,
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
