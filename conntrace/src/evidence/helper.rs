//! The helper's thread: looks what is asked for, in whatever namespace it is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    firewall,
    namespaces::{About, Namespaces},
    port_rules::PortRules,
    process,
    programs::Programs,
    routes,
    sockets::{self, LISTEN, Sock},
};
use crate::{
    diagnose::{
        ask::{Answer, Holder, Listener, Listeners, Ports, Question, accepts},
        is_similar,
        way::Way,
    },
    kernel::Facts,
};

/// How old a dump may be: there is no more than one a second per namespace.
const DUMP_AGE_MAX: Duration = Duration::from_secs(1);
/// How many namespaces' sockets are remembered.
const DUMPS_MAX: usize = 16;
/// How many listeners an answer names.
const LISTENERS_MAX: usize = 4;
/// What is left of the time for an answer when owners are no longer looked for.
const RESERVE: Duration = Duration::from_millis(5);

/// Which sockets of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    Bound,
    Connected,
}

type Dump = std::sync::Arc<[Sock]>;

/// A dump, and what for.
struct Taken {
    at: Instant,
    /// When the attempt had ended for which it was asked.
    asked_ns: u64,
    dump: Dump,
}

/// Answers questions about the host, one at a time.
pub(super) struct Helper {
    namespaces: Namespaces,
    dumps: HashMap<(u32, Which), Taken>,
    facts: &'static Facts,
    programs: Programs,
}

impl Helper {
    pub(super) fn new() -> io::Result<Self> {
        let facts = Facts::running();
        Ok(Self {
            namespaces: Namespaces::new()?,
            dumps: HashMap::new(),
            facts,
            programs: Programs::open(facts.connect_hook),
        })
    }

    /// What is known by then; `None` if nothing is.
    pub(super) fn answer(
        &mut self,
        question: &Question,
        about: &About,
        until: Instant,
    ) -> Option<Answer> {
        match *question {
            Question::Route { netns, to, from } => self
                .namespaces
                .inside(netns, about, until, || routes::route(&way(to, from)))
                .map(Answer::Route),
            Question::Neighbour {
                netns,
                device,
                addr,
            } => self
                .namespaces
                .inside(netns, about, until, || routes::neighbour(device, addr))
                .map(Answer::Neighbour),
            Question::Owner {
                netns,
                device,
                addr,
            } => Some(Answer::Owner(self.owner(netns, device, addr, about, until))),
            Question::Listeners { netns, addr, port } => self
                .listeners(netns, (addr, port), about, until)
                .map(Answer::Listeners),
            Question::ListenersElsewhere { netns, port } => Some(Answer::ListenersElsewhere(
                self.listeners_elsewhere(netns, port, about, until),
            )),
            Question::Ports {
                netns,
                local,
                remote,
            } => self
                .ports(netns, local, remote, about, until)
                .map(Answer::Ports),
            Question::Tuple {
                netns,
                local,
                remote,
            } => self
                .tuple(netns, (local, remote), about, until)
                .map(Answer::Tuple),
            Question::Proxy { process, remote } => {
                process::proxy(process, remote).map(Answer::Proxy)
            }
            Question::DropReason { number } => {
                let name = self.facts.drop_reasons.name(number);
                name.map(Answer::DropReason)
            }
            Question::Firewall { netns, verdict } => self
                .namespaces
                .inside(netns, about, until, || firewall::places(verdict))
                .map(Answer::Firewall),
            Question::Rewrites { netns, port } => self
                .namespaces
                .inside(netns, about, until, || firewall::rewrites(port))
                .map(Answer::Rewrites),
            Question::ConnectPrograms { cgroup, v6 } => self
                .programs
                .on_connect(cgroup, v6)
                .map(Answer::ConnectPrograms),
            Question::SecurityPrograms {} => {
                self.programs.of_security().map(Answer::SecurityPrograms)
            }
            Question::Confinement { process } => {
                process::confinement(process).map(Answer::Confinement)
            }
        }
    }

    /// Whether it can answer no more.
    pub(super) fn is_stranded(&self) -> bool {
        self.namespaces.is_stranded()
    }

    /// The namespace's sockets, as of at most a second ago, and if it may have had
    /// its number for less, as of now.
    fn dump(&mut self, netns: u32, which: Which, about: &About, until: Instant) -> Option<Dump> {
        let now = Instant::now();
        self.dumps
            .retain(|_, taken| now.saturating_duration_since(taken.at) < DUMP_AGE_MAX);
        let stays = self.namespaces.is_home(netns);
        let taken = self.dumps.get(&(netns, which));
        if let Some(taken) = taken.filter(|it| stays || about.was_there_at(it.asked_ns)) {
            return Some(Dump::clone(&taken.dump));
        }
        self.dumps.remove(&(netns, which));
        let dump: Dump = self
            .namespaces
            .inside(netns, about, until, || match which {
                Which::Bound => sockets::bound(),
                Which::Connected => sockets::connected(),
            })?
            .into();
        if self.dumps.len() < DUMPS_MAX {
            let taken = Taken {
                at: Instant::now(),
                asked_ns: about.at_ns,
                dump: Dump::clone(&dump),
            };
            self.dumps.insert((netns, which), taken);
        }
        Some(dump)
    }

    /// The namespace that packets to this neighbour go to. That it has the address
    /// would not be enough: so may any number of hosts and containers elsewhere.
    fn owner(
        &mut self,
        netns: u32,
        device: u32,
        addr: IpAddr,
        about: &About,
        until: Instant,
    ) -> Option<u32> {
        let neighbour = self.namespaces.inside(netns, about, until, || {
            routes::link_address_of_neighbour(device, addr)
        })??;
        let others = self.namespaces.seen(until).into_iter();
        others.filter(|other| *other != netns).find(|other| {
            let it_is = self.namespaces.inside(*other, about, until, || {
                Ok(routes::is_own(addr)? && routes::link_addresses()?.contains(&neighbour))
            });
            it_is == Some(true)
        })
    }

    fn listeners(
        &mut self,
        netns: u32,
        (addr, port): (IpAddr, u16),
        about: &About,
        until: Instant,
    ) -> Option<Listeners> {
        let dump = self.dump(netns, Which::Bound, about, until)?;
        let those = |wanted: &dyn Fn(u16) -> bool| {
            let found = dump
                .iter()
                .filter(|sock| sock.state == LISTEN && wanted(sock.local.port()));
            let mut found: Vec<_> = found.collect();
            // Many sockets can share a port (SO_REUSEPORT).
            found.sort_by_key(|sock| {
                let accepts = accepts(sock.local.ip(), sock.only_v6, addr);
                (!accepts, sock.local, sock.only_v6)
            });
            found.dedup_by_key(|sock| (sock.local, sock.only_v6));
            let told = found.into_iter().take(LISTENERS_MAX);
            told.map(|sock| listener(netns, sock, about, until))
                .collect()
        };
        Some(Listeners {
            on_port: those(&|found| found == port),
            on_similar: those(&|found| is_similar(found, port)),
        })
    }

    fn listeners_elsewhere(
        &mut self,
        netns: u32,
        port: u16,
        about: &About,
        until: Instant,
    ) -> Vec<Listener> {
        let mut found = Vec::new();
        for other in self.namespaces.seen(until) {
            if other == netns || Instant::now() >= until {
                continue;
            }
            let dump = self.dump(other, Which::Bound, about, until);
            let socks = dump.iter().flat_map(|dump| dump.iter());
            let on_port = socks
                .filter(|sock| sock.state == LISTEN && sock.local.port() == port)
                .take(LISTENERS_MAX - found.len());
            found.extend(on_port.map(|sock| listener(other, sock, about, until)));
        }
        found
    }

    fn tuple(
        &mut self,
        netns: u32,
        (local, remote): (SocketAddr, SocketAddr),
        about: &About,
        until: Instant,
    ) -> Option<Option<Holder>> {
        let dump = self.dump(netns, Which::Connected, about, until)?;
        let sock = dump
            .iter()
            .find(|sock| sock.local == local && sock.remote == remote);
        Some(sock.map(|sock| Holder {
            state: sock.state_name().to_owned(),
            process: process::owner(sock.inode, first(about), owners_until(until)),
        }))
    }

    fn ports(
        &mut self,
        netns: u32,
        local: Option<IpAddr>,
        remote: Option<SocketAddr>,
        about: &About,
        until: Instant,
    ) -> Option<Ports> {
        let rules = self
            .namespaces
            .inside(netns, about, until, || Ok(PortRules::read()))??;
        let bound = self.dump(netns, Which::Bound, about, until)?;
        let connected = self.dump(netns, Which::Connected, about, until)?;
        let (to_remote, holding): (Vec<&Sock>, Vec<&Sock>) = match remote {
            Some(remote) => {
                let ours = |sock: &&Sock| {
                    sock.remote == remote && local.is_none_or(|local| sock.local.ip() == local)
                };
                (
                    connected.iter().filter(ours).collect(),
                    bound.iter().collect(),
                )
            }
            // A bind needs a port that nobody has.
            None => (Vec::new(), bound.iter().chain(connected.iter()).collect()),
        };
        let mut states = BTreeMap::new();
        let counted = if remote.is_some() {
            &to_remote
        } else {
            &holding
        };
        for sock in counted {
            *states.entry(sock.state_name().to_owned()).or_default() += 1;
        }
        let used = ports_of(&rules, &to_remote);
        let others = ports_of(&rules, &holding);
        let holders = |socks: &[&Sock]| {
            let inodes: HashSet<u32> = socks
                .iter()
                .filter(|sock| sock.inode != 0 && rules.has(sock.local.port()))
                .map(|sock| sock.inode)
                .collect();
            process::holdings(&inodes, first(about), owners_until(until))
        };
        Some(Ports {
            range: rules.range,
            reserved: rules.reserved_in_range(),
            tw_reuse: rules.tw_reuse,
            states,
            connected: count(&used),
            bound: count(&others.difference(&used).copied().collect()),
            connected_by: holders(&to_remote),
            bound_by: holders(&holding),
        })
    }
}

/// Of a socket of which no more is known.
fn way(to: IpAddr, from: Option<IpAddr>) -> Way {
    Way {
        to,
        from,
        device: None,
        mark: 0,
        uid: None,
        port: 0,
    }
}

/// Until when owners are looked for: the rest of an answer matters more.
fn owners_until(until: Instant) -> Instant {
    until.checked_sub(RESERVE).unwrap_or(until)
}

/// Who to look at first for the owner of a socket.
fn first(about: &About) -> Option<u32> {
    about.process.map(|process| process.pid)
}

fn count(ports: &HashSet<u16>) -> u32 {
    // There are no more ports than that.
    u32::try_from(ports.len()).unwrap_or(u32::MAX)
}

fn listener(netns: u32, sock: &Sock, about: &About, until: Instant) -> Listener {
    Listener {
        netns,
        addr: sock.local.ip(),
        port: sock.local.port(),
        only_v6: sock.only_v6,
        process: process::owner(sock.inode, first(about), owners_until(until)),
    }
}

fn ports_of(rules: &PortRules, socks: &[&Sock]) -> HashSet<u16> {
    let ports = socks.iter().map(|sock| sock.local.port());
    ports.filter(|&port| rules.has(port)).collect()
}
