//! A host that says what it is told to.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use crate::diagnose::{
    Evidence,
    ask::{
        Answer, Device, FirewallVerdict, Holder, Holding, Listener, Listeners, Named, Neighbour,
        Ports, Process, Program, ProxyVariable, Question, Route, RouteOut, RulePlace,
    },
};

pub(super) const NETNS: u32 = 7;
pub(super) const CONTAINER: u32 = 8;
pub(super) const PROCESS: Process = Process {
    pid: 4242,
    started_ns: 5,
};
pub(super) const OWN: &str = "10.0.0.2";
pub(super) const FAR: &str = "10.0.0.5";
pub(super) const PUBLIC: &str = "203.0.113.9";
pub(super) const PORT: u16 = 5432;

/// A host that knows what it is told.
#[derive(Default, Clone)]
pub(super) struct Script(HashMap<Question, Answer>);

impl Evidence for Script {
    fn answer(&mut self, question: Question) -> Option<Answer> {
        self.0.get(&question).cloned()
    }
}

impl Script {
    pub(super) fn with(mut self, question: Question, answer: Answer) -> Self {
        self.0.insert(question, answer);
        self
    }

    pub(super) fn route_from(self, to: &str, from: Option<&str>, route: Route) -> Self {
        let question = Question::Route {
            netns: NETNS,
            to: ip(to),
            from: from.map(ip),
        };
        self.with(question, Answer::Route(route))
    }

    pub(super) fn route(self, to: &str, route: Route) -> Self {
        self.route_from(to, Some(OWN), route)
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

    pub(super) fn proxy(self, found: Option<ProxyVariable>) -> Self {
        let question = Question::Proxy {
            process: PROCESS,
            remote: socket(FAR, PORT),
        };
        self.with(question, Answer::Proxy(found))
    }

    pub(super) fn ports(self, remote: Option<SocketAddr>, ports: Ports) -> Self {
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

    pub(super) fn drops_in(self, chains: &[&str]) -> Self {
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

    pub(super) fn rewrites(self) -> Self {
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

    pub(super) fn tuple(self, holder: Option<Holder>) -> Self {
        let question = Question::Tuple {
            netns: NETNS,
            local: socket(OWN, 40_000),
            remote: socket(FAR, PORT),
        };
        self.with(question, Answer::Tuple(holder))
    }

    pub(super) fn programs(self, count: u32) -> Self {
        let question = Question::ConnectPrograms {
            cgroup: 77,
            v6: false,
        };
        self.with(question, Answer::ConnectPrograms(count))
    }

    /// Programs with these names decide as a security module.
    pub(super) fn security_programs(self, names: &[&str]) -> Self {
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

    pub(super) fn confinement(self, profile: Option<&str>) -> Self {
        let question = Question::Confinement { process: PROCESS };
        self.with(question, Answer::Confinement(profile.map(Into::into)))
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

pub(super) fn named(pid: u32, comm: &str) -> Named {
    Named {
        pid,
        comm: comm.to_owned(),
    }
}

pub(super) fn out(gateway: Option<&str>, prefix_len: u8) -> Route {
    Route::Out(RouteOut {
        gateway: gateway.map(ip),
        device: Device {
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
        process: Some(named(812, "postgres")),
    }
}

pub(super) fn ports(connected: u32, bound: u32, reserved: u32) -> Ports {
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

pub(super) fn proxied() -> Script {
    here().proxy(Some(ProxyVariable::HttpsProxy))
}

/// The destination is an address of this namespace, and nobody listens.
pub(super) fn here() -> Script {
    Script::default()
        .route(FAR, Route::Local)
        .listeners(vec![], vec![])
        .elsewhere(vec![])
}

pub(super) fn far() -> Script {
    Script::default().route(FAR, out(None, 24)).owner(FAR, None)
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
