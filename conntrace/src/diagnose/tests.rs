//! Every cause staged, every rule asked about each, and what only looks alike.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::{
    ask::{
        Answer, Device, FirewallVerdict, Holder, Holding, Listener, Listeners, Named, Neighbour,
        Ports, Process, Program, ProxyVariable, Question, Route, RouteOut, RulePlace,
    },
    *,
};
use crate::{
    errno::Errno,
    event::Certainty,
    reply::ReplyKind,
    wire::{Icmp, IcmpVersion, Remote},
};

const NETNS: u32 = 7;
const CONTAINER: u32 = 8;
const PROCESS: Process = Process {
    pid: 4242,
    started_ns: 5,
};
const OWN: &str = "10.0.0.2";
const FAR: &str = "10.0.0.5";
const PUBLIC: &str = "203.0.113.9";
const PORT: u16 = 5432;

/// A host that knows what it is told.
#[derive(Default, Clone)]
struct Script(HashMap<Question, Answer>);

impl Evidence for Script {
    fn answer(&mut self, question: Question) -> Option<Answer> {
        self.0.get(&question).cloned()
    }
}

impl Script {
    fn with(mut self, question: Question, answer: Answer) -> Self {
        self.0.insert(question, answer);
        self
    }

    fn route_from(self, to: &str, from: Option<&str>, route: Route) -> Self {
        let question = Question::Route {
            netns: NETNS,
            to: ip(to),
            from: from.map(ip),
        };
        self.with(question, Answer::Route(route))
    }

    fn route(self, to: &str, route: Route) -> Self {
        self.route_from(to, Some(OWN), route)
    }

    fn neighbour(self, addr: &str, state: Neighbour) -> Self {
        let question = Question::Neighbour {
            netns: NETNS,
            device: 2,
            addr: ip(addr),
        };
        self.with(question, Answer::Neighbour(state))
    }

    fn listeners(self, on_port: Vec<Listener>, on_similar: Vec<Listener>) -> Self {
        let question = Question::Listeners {
            netns: NETNS,
            addr: ip(FAR),
            port: PORT,
        };
        let listeners = Listeners {
            on_port,
            on_similar,
        };
        self.with(question, Answer::Listeners(listeners))
    }

    fn elsewhere(self, found: Vec<Listener>) -> Self {
        let question = Question::ListenersElsewhere {
            netns: NETNS,
            port: PORT,
        };
        self.with(question, Answer::ListenersElsewhere(found))
    }

    fn owner(self, addr: &str, netns: Option<u32>) -> Self {
        let question = Question::Owner {
            netns: NETNS,
            device: 2,
            addr: ip(addr),
        };
        self.with(question, Answer::Owner(netns))
    }

    fn proxy(self, found: Option<ProxyVariable>) -> Self {
        let question = Question::Proxy {
            process: PROCESS,
            remote: socket(FAR, PORT),
        };
        self.with(question, Answer::Proxy(found))
    }

    fn ports(self, remote: Option<SocketAddr>, ports: Ports) -> Self {
        let question = Question::Ports {
            netns: NETNS,
            local: Some(ip(OWN)),
            remote,
        };
        self.with(question, Answer::Ports(ports))
    }

    fn drop_reason(self, name: &str) -> Self {
        let question = Question::DropReason { number: 8 };
        self.with(question, Answer::DropReason(name.to_owned()))
    }

    fn drops_in(self, chains: &[&str]) -> Self {
        let question = Question::Firewall {
            netns: NETNS,
            verdict: FirewallVerdict::Drop,
        };
        let place = |chain: &&str| RulePlace {
            family: "inet".to_owned(),
            table: "filter".to_owned(),
            chain: (*chain).to_owned(),
            handle: Some(4),
        };
        let places = chains.iter().map(place).collect();
        self.with(question, Answer::Firewall(places))
    }

    fn rewrites(self) -> Self {
        let question = Question::Rewrites {
            netns: NETNS,
            port: PORT,
        };
        let place = RulePlace {
            family: "ip".to_owned(),
            table: "nat".to_owned(),
            chain: "OUTPUT".to_owned(),
            handle: Some(4),
        };
        self.with(question, Answer::Rewrites(vec![place]))
    }

    fn tuple(self, holder: Option<Holder>) -> Self {
        let question = Question::Tuple {
            netns: NETNS,
            local: socket(OWN, 40_000),
            remote: socket(FAR, PORT),
        };
        self.with(question, Answer::Tuple(holder))
    }

    fn programs(self, count: u32) -> Self {
        let question = Question::ConnectPrograms {
            cgroup: 77,
            v6: false,
        };
        self.with(question, Answer::ConnectPrograms(count))
    }

    /// Programs with these names decide as a security module.
    fn security_programs(self, names: &[&str]) -> Self {
        let program = |(id, name): (u32, &&str)| Program {
            id,
            name: (*name).to_owned(),
        };
        let programs = (12..).zip(names).map(program).collect();
        self.with(
            Question::SecurityPrograms {},
            Answer::SecurityPrograms(programs),
        )
    }

    fn confinement(self, profile: Option<&str>) -> Self {
        let question = Question::Confinement { process: PROCESS };
        self.with(question, Answer::Confinement(profile.map(Into::into)))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

fn named(pid: u32, comm: &str) -> Named {
    Named {
        pid,
        comm: comm.to_owned(),
    }
}

fn out(gateway: Option<&str>, prefix_len: u8) -> Route {
    Route::Out(RouteOut {
        gateway: gateway.map(ip),
        device: Device {
            index: 2,
            name: "eth0".to_owned(),
        },
        prefix_len,
    })
}

fn listener(netns: u32, addr: &str, port: u16) -> Listener {
    Listener {
        netns,
        addr: ip(addr),
        port,
        only_v6: false,
        process: Some(named(812, "postgres")),
    }
}

fn ports(connected: u32, bound: u32, reserved: u32) -> Ports {
    let holding = |comm: &str, sockets| Holding {
        process: named(9, comm),
        sockets,
    };
    Ports {
        range: (32_768, 60_999),
        reserved,
        tw_reuse: 2,
        states: BTreeMap::from([
            ("ESTABLISHED".to_owned(), 100),
            ("TIME_WAIT".to_owned(), connected.saturating_sub(100)),
        ]),
        connected,
        bound,
        connected_by: vec![holding("crawler", 100)],
        bound_by: vec![holding("binder", bound)],
    }
}

fn case(label: Label, reply: ReplyKind) -> Case {
    Case {
        label,
        errno: None,
        call: None,
        netns: NETNS,
        process: Some(PROCESS),
        cgroup: Some(77),
        remote: Some(to(FAR)),
        local_addr: Some(ip(OWN)),
        bound_port: None,
        reply,
        icmp: None,
        drop_reason: None,
    }
}

fn to(addr: &str) -> Remote {
    Remote {
        addr: ip(addr),
        port: PORT,
    }
}

fn reset(addr: &str) -> Case {
    Case {
        errno: Some(Errno::ECONNREFUSED),
        remote: Some(to(addr)),
        ..case(Label::Refused, ReplyKind::Rst)
    }
}

fn silence() -> Case {
    case(Label::TimedOut, ReplyKind::None)
}

fn icmp(label: Label, icmp_type: u8, code: u8) -> Case {
    let from = ip("10.9.9.9");
    Case {
        icmp: Some(Icmp {
            version: IcmpVersion::V4,
            icmp_type,
            code,
            errno: None,
            from: Some(from),
        }),
        ..case(label, ReplyKind::Icmp)
    }
}

fn no_neighbour() -> Case {
    let errno = Some(Errno::EHOSTUNREACH);
    Case {
        errno,
        ..case(Label::Unreachable, ReplyKind::Local)
    }
}

fn failed_call(label: Label, errno: Errno) -> Case {
    Case {
        errno: Some(errno),
        call: Some(Call::Connect),
        ..case(label, ReplyKind::None)
    }
}

fn exhausted() -> Case {
    Case {
        errno: Some(Errno::EADDRNOTAVAIL),
        ..case(Label::PortExhausted, ReplyKind::None)
    }
}

fn tuple_taken() -> Case {
    Case {
        errno: Some(Errno::EADDRNOTAVAIL),
        bound_port: Some(40_000),
        ..case(Label::AddressUnavailable, ReplyKind::None)
    }
}

fn not_local() -> Case {
    failed_call(Label::AddressUnavailable, Errno::EADDRNOTAVAIL)
}

fn dropped() -> Case {
    Case {
        drop_reason: Some(8),
        ..case(Label::TimedOut, ReplyKind::Local)
    }
}

fn proxied() -> Script {
    here().proxy(Some(ProxyVariable::HttpsProxy))
}

/// The destination is an address of this namespace, and nobody listens.
fn here() -> Script {
    Script::default()
        .route(FAR, Route::Local)
        .listeners(vec![], vec![])
        .elsewhere(vec![])
}

fn far() -> Script {
    Script::default().route(FAR, out(None, 24)).owner(FAR, None)
}

fn holder() -> Option<Holder> {
    Some(Holder {
        state: "TIME_WAIT".to_owned(),
        process: None,
    })
}

fn remote() -> Option<SocketAddr> {
    Some(socket(FAR, PORT))
}

/// What each rule is for, as it is met.
#[rustfmt::skip]
fn staged() -> Vec<(Code, Case, Script)> {
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
        (Code::HostDown, no_neighbour(), far().neighbour(FAR, Neighbour::Failed)),
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

/// What the rules of this code say.
fn recognised(code: Code, case: &Case, script: &Script) -> Option<Cause> {
    let rules = RULES.iter().filter(|(of, _)| *of == code);
    let mut found = rules.filter_map(|(_, rule)| rule(case, &mut script.clone()));
    found.next()
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

/// A chain is named where no other can be meant.
#[test]
fn the_only_chain_that_drops_is_named() {
    let why = |chains: &[&str]| {
        let mut script = far().drop_reason("NETFILTER_DROP").drops_in(chains);
        diagnose(&dropped(), &mut script).unwrap().why
    };
    assert!(why(&["output"]).ends_with(", in the only chain that drops, inet filter output"));
    assert!(why(&["output", "input"]).ends_with("(NETFILTER_DROP)"));
    assert!(why(&[]).ends_with("(NETFILTER_DROP)"));
}

#[test]
fn programs_are_named_where_they_have_a_name() {
    let mut script = far().security_programs(&["deny", ""]);
    let case = failed_call(Label::Denied, Errno::EPERM);
    let cause = diagnose(&case, &mut script).unwrap();
    assert!(cause.why.ends_with(": deny (id 12), id 13"), "{cause:?}");
}

#[test]
fn sentences_have_the_facts_of_the_case() {
    let sentences = |code: Code| {
        let staged = staged();
        let (_, case, script) = staged.iter().find(|(of, ..)| *of == code).unwrap();
        let cause = diagnose(case, &mut script.clone()).unwrap();
        format!("{}\n{}", cause.why, cause.fix)
    };
    let told = [
        Code::EphemeralRangeUsedUp,
        Code::ListeningElsewhere,
        Code::WrongPort,
        Code::NothingListening,
        Code::HostDown,
        Code::PrivateAddressNotLocal,
        Code::LocalFirewall,
        Code::TupleInUse,
    ]
    .map(sentences);
    insta::assert_snapshot!(told.join("\n"), @r#"
    connections to 10.0.0.5:5432 hold 28,232 of the 28,232 ports of the range 32768 60999: 100 ESTABLISHED, 28,132 TIME_WAIT; most by crawler[9] (100)
    `sysctl -w net.ipv4.ip_local_port_range="10000 65535"` has 55,536 ports and adds 27,304; `sysctl -w net.ipv4.tcp_tw_reuse=1` lets the 28,132 in TIME_WAIT be used again after a second; keep connections open (a pool) instead of one per request
    port 5432 is listened on, but not on 10.0.0.5: 127.0.0.1:5432 (postgres[812])
    connect to 127.0.0.1:5432, or let the server listen on 10.0.0.5 or 0.0.0.0, port 5432
    nothing listens on port 5432 of 10.0.0.5, an address of this host, but: 0.0.0.0:5433 (postgres[812])
    connect to port 5433 if that is the server meant; else start it on port 5432
    10.0.0.5 is an address of this host, and no socket listens on port 5432
    start the server that should listen on port 5432; `ss -ltnp` lists those that do
    10.0.0.5 should be on the network of eth0 and does not answer ARP
    start the host or correct its address; `ip neigh show 10.0.0.5` and `arping -I eth0 10.0.0.5` show whether it is back
    10.0.0.5 is a private address, no network of this host has it, and it is looked for behind the default gateway 203.0.113.1 on eth0
    use the public address of that server, or connect this host to its network (VPN, peering: a route for 10.0.0.5 other than the default one)
    this host itself dropped packets of the attempt: a firewall rule (NETFILTER_DROP)
    find the rule with `nft list ruleset | grep -n drop` (or `iptables-save -c | grep DROP`), policies of chains included, at output and input; let tcp to 10.0.0.5:5432 and its answers pass
    the connection 10.0.0.2:40000 -> 10.0.0.5:5432 is there already, in TIME_WAIT
    do not bind port 40000 before connect (bind the address with IP_BIND_ADDRESS_NO_PORT), or wait until `ss -tanpo 'sport = :40000'` no longer shows it
    "#);
}
