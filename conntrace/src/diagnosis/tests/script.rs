//! A host that says what it is told to.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use crate::diagnosis::{
    Evidence, Undiagnosed,
    firewall_facts::{
        Direction, Firewall, FirewallPacket, Match, MatchingRule, PacketEnd, RuleVerdict,
    },
    port_facts::{Holding, LocalPorts, WiderRange},
    question::{
        Answer, AttachedProgram, BpfProgram, FullQueue, Holder, Listener, Listeners, NamedProcess,
        Neighbour, PortHolder, ProcessKey, ProxyVariable, Question,
    },
    tunnel_facts::Tunnel,
    way::{Covering, DeadEnd, Forwarding, Link, NetDevice, OwnAddresses, Route, RouteOut},
};

pub(super) const NETNS: u32 = 7;
pub(super) const CONTAINER: u32 = 8;
pub(super) const PROCESS: ProcessKey = ProcessKey {
    pid: 4242,
    started_ns: 5,
};
pub(super) const OWN: &str = "10.0.0.2";
pub(super) const FAR: &str = "10.0.0.5";
pub(super) const PUBLIC: &str = "203.0.113.9";
pub(super) const PORT: u16 = 5432;

/// A host that knows what it is told, and of all else that there is nothing.
#[derive(Default, Clone)]
pub(in crate::diagnosis) struct Script {
    answers: HashMap<Question, Answer>,
    /// By namespace, destination and source.
    routes: HashMap<(u32, IpAddr, Option<IpAddr>), Route>,
    dead_end: Option<DeadEnd>,
    covering: Vec<Covering>,
    rules: Vec<(PacketEnd, MatchingRule)>,
    legacy: bool,
    /// Questions whose answer is unknown.
    pub(super) unknown: Vec<Question>,
    /// Knows nothing of what it was not told.
    blind: bool,
    pub(super) asked: Vec<Question>,
}

impl Evidence for Script {
    fn answer(&mut self, question: Question) -> Result<Answer, Undiagnosed> {
        self.asked.push(question.clone());
        if self.unknown.contains(&question) {
            return Err(Undiagnosed::Unsupported);
        }
        let told = self.answers.get(&question).cloned();
        let known = told.or_else(|| self.of_network(&question));
        match known {
            Some(answer) => Ok(answer),
            None if self.blind => Err(Undiagnosed::NoTime),
            None => nothing(&question).ok_or(Undiagnosed::NoTime),
        }
    }
}

/// The answer that there is nothing; `None` where there is no such answer.
fn nothing(question: &Question) -> Option<Answer> {
    Some(match question {
        Question::Route { .. } | Question::Ports { .. } | Question::DropReason { .. } => {
            return None;
        }
        Question::DeadEnd { .. } => Answer::DeadEnd(None),
        Question::Covering { .. } => Answer::Covering(vec![]),
        Question::Link { .. } => Answer::Link(Some(link(true, None))),
        Question::Tunnel { .. } => Answer::Tunnel(Tunnel::default()),
        Question::TunHolder { .. } => Answer::TunHolder(None),
        Question::OwnAddresses { .. } => Answer::OwnAddresses(OwnAddresses {
            usable: vec![ip(OWN)],
            any: true,
        }),
        Question::IsOwn { .. } => Answer::IsOwn(true),
        Question::Neighbour { .. } => Answer::Neighbour(Neighbour::Absent),
        Question::Owner { .. } => Answer::Owner(None),
        Question::Holders { .. } => Answer::Holders(vec![]),
        Question::Forwarding { .. } => Answer::Forwarding(Forwarding::On),
        Question::Door { .. } => Answer::Door(None),
        Question::Listeners { .. } => Answer::Listeners(Listeners::default()),
        Question::ListenersElsewhere { .. } => Answer::ListenersElsewhere(vec![]),
        Question::Tuple { .. } => Answer::Tuple(None),
        Question::PortHolders { .. } => Answer::PortHolders(vec![]),
        Question::Tracked { .. } => Answer::Tracked(None),
        Question::FullQueue { .. } => Answer::FullQueue(None),
        Question::Proxy { .. } => Answer::Proxy(None),
        Question::Firewall { .. } => Answer::Firewall(Firewall {
            found: vec![],
            complete: true,
        }),
        Question::ConnectPrograms { .. } => Answer::ConnectPrograms(vec![]),
        Question::SecurityPrograms {} => Answer::SecurityPrograms(vec![]),
        Question::Confinement { .. } => Answer::Confinement(None),
    })
}

impl Script {
    /// Knows nothing but what it is told.
    pub(super) fn blind() -> Self {
        Self {
            blind: true,
            ..Self::default()
        }
    }

    /// The same host, which cannot tell this.
    pub(super) fn without(&self, question: &Question) -> Self {
        let mut script = self.clone();
        script.asked.clear();
        script.unknown.push(question.clone());
        script
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are answered one by one"
    )]
    fn of_network(&self, question: &Question) -> Option<Answer> {
        match question {
            Question::Route { netns, way } => {
                let exact = self.routes.get(&(*netns, way.to, way.from));
                Some(Answer::Route(exact?.clone()))
            }
            Question::DeadEnd { .. } => {
                let found = self.dead_end.clone();
                found.map(|found| Answer::DeadEnd(Some(found)))
            }
            Question::Covering { .. } if !self.covering.is_empty() => {
                Some(Answer::Covering(self.covering.clone()))
            }
            Question::Firewall { ending, .. } if self.legacy || !self.rules.is_empty() => {
                let of_it = self.rules.iter().filter(|(of, _)| of == ending);
                Some(Answer::Firewall(Firewall {
                    found: of_it.map(|(_, found)| found.clone()).collect(),
                    complete: !self.legacy,
                }))
            }
            _ => None,
        }
    }

    pub(super) fn with(mut self, question: Question, answer: Answer) -> Self {
        self.answers.insert(question, answer);
        self
    }

    pub(super) fn route_in(
        mut self,
        netns: u32,
        to: &str,
        from: Option<&str>,
        route: Route,
    ) -> Self {
        self.routes.insert((netns, ip(to), from.map(ip)), route);
        self
    }

    pub(super) fn route_from(self, to: &str, from: Option<&str>, route: Route) -> Self {
        self.route_in(NETNS, to, from, route)
    }

    /// The way from `OWN`, and without a source.
    pub(super) fn route(self, to: &str, route: Route) -> Self {
        self.route_from(to, Some(OWN), route.clone())
            .route_from(to, None, route)
    }

    pub(super) fn dead_end(mut self, dead_end: DeadEnd) -> Self {
        self.dead_end = Some(dead_end);
        self
    }

    /// A route with a prefix of this length covers the destination as well.
    pub(super) fn covered(mut self, prefix_len: u8) -> Self {
        self.covering.push(Covering {
            prefix: (ip("10.0.0.0"), prefix_len),
            table: 254,
            gateway: Some(ip("10.0.0.1")),
            device: None,
        });
        self
    }

    /// So does the network of another interface.
    pub(super) fn connected(mut self, prefix_len: u8) -> Self {
        self.covering.push(Covering {
            prefix: (ip("10.0.0.0"), prefix_len),
            table: 254,
            gateway: None,
            device: Some(NetDevice {
                index: 9,
                name: "lan0".to_owned(),
            }),
        });
        self.link_of(9, link(true, None))
    }

    pub(super) fn link(self, link: Link) -> Self {
        self.link_of(2, link)
    }

    pub(super) fn link_of(self, device: u32, link: Link) -> Self {
        let question = Question::Link {
            netns: NETNS,
            device,
        };
        self.with(question, Answer::Link(Some(link)))
    }

    /// The way leads into a tunnel of this kind, which has shown this.
    pub(super) fn tunnel(self, kind: &str, shown: Tunnel) -> Self {
        self.link(link(true, Some(kind))).tunnel_in(NETNS, shown)
    }

    pub(super) fn tunnel_in(self, netns: u32, shown: Tunnel) -> Self {
        let question = Question::Tunnel {
            netns,
            device: 2,
            to: ip(FAR),
        };
        self.with(question, Answer::Tunnel(shown))
    }

    /// The program that has the TUN device open.
    pub(super) fn tun_holder(self, comm: &str) -> Self {
        let question = Question::TunHolder {
            netns: NETNS,
            name: "eth0".to_owned(),
        };
        self.with(question, Answer::TunHolder(Some(named(7, comm))))
    }

    pub(super) fn own(self, addr: &str, is_own: bool) -> Self {
        let question = Question::IsOwn {
            netns: NETNS,
            addr: ip(addr),
        };
        self.with(question, Answer::IsOwn(is_own))
    }

    pub(super) fn no_addresses(self, v6: bool) -> Self {
        let question = Question::OwnAddresses { netns: NETNS, v6 };
        self.with(question, Answer::OwnAddresses(OwnAddresses::default()))
    }

    pub(super) fn neighbour(self, addr: &str, state: Neighbour) -> Self {
        let question = Question::Neighbour {
            netns: NETNS,
            device: 2,
            addr: ip(addr),
        };
        self.with(question, Answer::Neighbour(state))
    }

    pub(super) fn listeners(self, on_port: Vec<Listener>, on_similar: Vec<Listener>) -> Self {
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

    /// The accept queue of the server at `FAR` is full.
    pub(super) fn full_queue(self, has_others: bool) -> Self {
        let question = Question::FullQueue {
            netns: NETNS,
            addr: ip(FAR),
            port: PORT,
        };
        let queue = FullQueue {
            listener: listener(NETNS, "0.0.0.0", PORT),
            waiting: 129,
            backlog: 128,
            drops: 2412,
            has_others,
        };
        self.with(question, Answer::FullQueue(Some(queue)))
    }

    pub(super) fn elsewhere(self, found: Vec<Listener>) -> Self {
        let question = Question::ListenersElsewhere {
            netns: NETNS,
            port: PORT,
        };
        self.with(question, Answer::ListenersElsewhere(found))
    }

    pub(super) fn owner(self, addr: &str, netns: Option<u32>) -> Self {
        let question = Question::Owner {
            netns: NETNS,
            device: 2,
            addr: ip(addr),
        };
        self.with(question, Answer::Owner(netns))
    }

    pub(super) fn without_owner(mut self, addr: &str) -> Self {
        self.unknown.push(Question::Owner {
            netns: NETNS,
            device: 2,
            addr: ip(addr),
        });
        self
    }

    pub(super) fn held(self, addr: &str) -> Self {
        let question = Question::Holders {
            netns: NETNS,
            addr: ip(addr),
        };
        self.with(question, Answer::Holders(vec![CONTAINER]))
    }

    /// The gateway is a container's namespace, which has this way onward and forwards so.
    pub(super) fn forwarding(self, onward: Route, found: Forwarding) -> Self {
        let question = Question::Forwarding {
            netns: CONTAINER,
            addr: ip("10.0.0.1"),
            v6: false,
        };
        self.link(link(true, Some("veth")))
            .owner("10.0.0.1", Some(CONTAINER))
            .route_in(CONTAINER, FAR, None, onward)
            .with(question, Answer::Forwarding(found))
    }

    pub(super) fn proxy(self, found: Option<ProxyVariable>) -> Self {
        let question = Question::Proxy {
            process: PROCESS,
            remote: socket(FAR, PORT),
        };
        self.with(question, Answer::Proxy(found))
    }

    pub(super) fn ports(self, remote: Option<SocketAddr>, ports: LocalPorts) -> Self {
        let question = Question::Ports {
            netns: NETNS,
            local: Some(ip(OWN)),
            remote,
        };
        self.with(question, Answer::Ports(ports))
    }

    pub(super) fn drop_reason(self, name: &str) -> Self {
        let question = Question::DropReason { number: 8 };
        self.with(question, Answer::DropReason(name.to_owned()))
    }

    /// A rule of this chain ends packets so.
    pub(super) fn rule(mut self, ending: PacketEnd, chain: &str, matches: Match) -> Self {
        let found = MatchingRule {
            family: "inet".to_owned(),
            table: "filter".to_owned(),
            chain: chain.to_owned(),
            handle: Some(4),
            comment: None,
            verdict: match ending {
                PacketEnd::Drop => RuleVerdict::Drop,
                PacketEnd::RejectByReset => RuleVerdict::RejectByReset,
                PacketEnd::RejectByIcmp => RuleVerdict::RejectByIcmp,
                PacketEnd::Rewrite => RuleVerdict::Rewrite,
            },
            matches,
        };
        self.rules.push((ending, found));
        self
    }

    /// The last rule has this comment.
    pub(super) fn comment(mut self, comment: &str) -> Self {
        if let Some((_, rule)) = self.rules.last_mut() {
            rule.comment = Some(comment.to_owned());
        }
        self
    }

    /// There are tables of legacy iptables, which cannot be read.
    pub(super) fn legacy(mut self) -> Self {
        self.legacy = true;
        self
    }

    pub(super) fn rewrites(self) -> Self {
        self.rule(PacketEnd::Rewrite, "OUTPUT", Match::Fully)
    }

    /// A rule of that namespace leads elsewhere what arrives there for `FAR`.
    pub(super) fn rewrites_in(self, netns: u32) -> Self {
        let rules = Self::default().rewrites().rules;
        self.only(netns, Direction::Arriving, rules)
    }

    /// A rule that drops the answer, and would let the SYN pass.
    pub(super) fn drops_answer(self) -> Self {
        let rules = Self::default()
            .rule(PacketEnd::Drop, "input", Match::Fully)
            .rules;
        self.only(NETNS, Direction::In, rules)
    }

    /// These rules of a namespace meet packets of this direction alone.
    fn only(
        mut self,
        netns: u32,
        direction: Direction,
        rules: Vec<(PacketEnd, MatchingRule)>,
    ) -> Self {
        let packet = FirewallPacket {
            direction,
            remote: socket(FAR, PORT),
            local: Some(ip(OWN)),
            local_port: None,
            device: None,
            leaves_by: None,
            asked: None,
            mark: None,
            uid: None,
        };
        for (ending, found) in rules {
            let question = Question::Firewall {
                netns,
                packet: packet.clone(),
                ending,
            };
            let firewall = Firewall {
                found: vec![found],
                complete: true,
            };
            self.answers.insert(question, Answer::Firewall(firewall));
        }
        self
    }

    pub(super) fn tuple(self, holder: Option<Holder>) -> Self {
        let question = Question::Tuple {
            netns: NETNS,
            local: socket(OWN, 40_000),
            remote: socket(FAR, PORT),
        };
        self.with(question, Answer::Tuple(holder))
    }

    pub(super) fn port_holders(self, holders: Vec<PortHolder>) -> Self {
        let question = Question::PortHolders {
            netns: NETNS,
            port: 40_000,
        };
        self.with(question, Answer::PortHolders(holders))
    }

    /// Another process has the port as well.
    pub(super) fn other_process(mut self) -> Self {
        for answer in self.answers.values_mut() {
            if let Answer::PortHolders(holders) = answer {
                let mut other = port_holder("10.0.0.2:40000", None);
                other.process = None;
                holders.push(other);
            }
        }
        self
    }

    /// Programs with these names decide on the connects of a pod's cgroup.
    pub(super) fn programs(self, names: &[&str]) -> Self {
        let question = Question::ConnectPrograms {
            cgroup: 77,
            v6: false,
        };
        let attached = |program| AttachedProgram {
            program,
            cgroup: Some("/kubepods".to_owned()),
        };
        let programs = named_programs(names).into_iter().map(attached).collect();
        self.with(question, Answer::ConnectPrograms(programs))
    }

    /// Programs with these names decide as a security module.
    pub(super) fn security_programs(self, names: &[&str]) -> Self {
        self.with(
            Question::SecurityPrograms {},
            Answer::SecurityPrograms(named_programs(names)),
        )
    }

    pub(super) fn confinement(self, profile: Option<&str>) -> Self {
        let question = Question::Confinement { process: PROCESS };
        self.with(question, Answer::Confinement(profile.map(Into::into)))
    }
}

fn named_programs(names: &[&str]) -> Vec<BpfProgram> {
    let program = |(id, name): (u32, &&str)| BpfProgram {
        id,
        name: (*name).to_owned(),
    };
    (12..).zip(names).map(program).collect()
}

pub(super) fn link(carrier: bool, kind: Option<&str>) -> Link {
    Link {
        name: "eth0".to_owned(),
        up: true,
        carrier,
        kind: kind.map(Into::into),
        resolves_neighbours: true,
        loopback: false,
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

pub(super) fn named(pid: u32, comm: &str) -> NamedProcess {
    NamedProcess {
        pid,
        comm: comm.to_owned(),
    }
}

pub(super) fn out(gateway: Option<&str>, prefix_len: u8) -> Route {
    Route::Out(RouteOut {
        gateway: gateway.map(ip),
        device: NetDevice {
            index: 2,
            name: "eth0".to_owned(),
        },
        prefix_len,
        table: 254,
    })
}

pub(super) fn listener(netns: u32, addr: &str, port: u16) -> Listener {
    Listener {
        netns,
        addr: ip(addr),
        port,
        only_v6: false,
        device: None,
        process: Some(named(812, "postgres")),
    }
}

/// A wider range in which somebody listens on these ports.
pub(crate) fn wider(listened: &[u16]) -> WiderRange {
    WiderRange {
        available: 55_536 - u32::try_from(listened.len()).unwrap(),
        listened: Some(listened.to_vec()),
        reserved: Some(String::new()),
    }
}

pub(super) fn ports(connected: u32, bound: u32, reserved: u32) -> LocalPorts {
    let holding = |comm: &str, sockets| Holding {
        process: named(9, comm),
        sockets,
    };
    LocalPorts {
        range: (32_768, 60_999),
        reserved,
        tw_reuse: 2,
        states: BTreeMap::from([
            ("ESTABLISHED".to_owned(), 100),
            ("TIME_WAIT".to_owned(), connected.saturating_sub(100)),
        ]),
        connected,
        bound,
        free: 28_232_u32.saturating_sub(reserved + connected + bound),
        connected_by: vec![holding("crawler", 100)],
        bound_by: vec![holding("binder", bound)],
        wider: Some(wider(&[])),
    }
}

pub(super) fn proxied() -> Script {
    here().proxy(Some(ProxyVariable::HttpsProxy))
}

/// The destination is an address of this namespace, and nobody listens.
pub(super) fn here() -> Script {
    Script::default().route(FAR, Route::Local)
}

/// The destination is on the network of an interface.
pub(super) fn far() -> Script {
    Script::default().route(FAR, out(None, 24))
}

/// The default route leads there.
pub(super) fn gateway() -> Script {
    let script = Script::default().route(FAR, out(Some("10.0.0.1"), 0));
    // The address beside that of the client.
    script.route_from("10.0.0.3", None, out(None, 24))
}

/// A server's socket, which listens unless it is connected.
pub(super) fn port_holder(local: &str, remote: Option<&str>) -> PortHolder {
    PortHolder {
        local: local.parse().unwrap(),
        remote: remote.map(|remote| remote.parse().unwrap()),
        only_v6: false,
        is_of_device: false,
        state: if remote.is_some() {
            "TIME_WAIT"
        } else {
            "LISTEN"
        }
        .to_owned(),
        process: Some(NamedProcess {
            pid: 311,
            comm: "node".to_owned(),
        }),
    }
}

pub(super) fn holder() -> Option<Holder> {
    Some(Holder {
        state: "TIME_WAIT".to_owned(),
        process: None,
    })
}

pub(super) fn remote() -> Option<SocketAddr> {
    Some(socket(FAR, PORT))
}
