//! The inspector thread: answers questions about the host, in any network namespace.

mod local_ports;

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    bpf_programs::Programs,
    cache::BoundedMap,
    netlink::{
        nftables, route,
        sock_diag::{self, DiagSocket, LISTEN},
    },
    netns::{AttemptRef, Namespaces},
    procfs::process,
};
use crate::{
    capture::KernelFacts,
    diagnosis::{
        Undiagnosed,
        firewall_facts::FirewallPacket,
        is_similar,
        question::{Answer, Listener, Listeners, NamedProcess, Question, accepts},
        way::Route,
    },
};

/// Maximum age of a socket dump: there is at most one per second and namespace.
const DUMP_AGE_MAX: Duration = Duration::from_secs(1);
/// Maximum number of cached socket dumps.
const DUMPS_MAX: usize = 16;
/// Maximum number of cached socket owners; the cache is cleared when full.
const OWNERS_MAX: usize = 4096;
/// Maximum number of listeners in an answer.
const LISTENERS_MAX: usize = 4;
/// Time before the deadline at which the search for owners stops.
const RESERVE: Duration = Duration::from_millis(5);

/// Selection of a namespace's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SocketSelection {
    Bound,
    Connected,
}

type SocketDump = std::sync::Arc<[DiagSocket]>;

/// A socket dump and the attempt that asked for it.
struct CachedDump {
    at: Instant,
    /// End of the attempt that asked, `CLOCK_BOOTTIME` nanoseconds.
    asked_ns: u64,
    /// Random bits that identify that attempt's network namespace.
    netns_mix: u16,
    dump: SocketDump,
}

/// Answers questions about the host, one at a time.
pub(super) struct HostInspector {
    namespaces: Namespaces,
    dumps: HashMap<(u32, SocketSelection), CachedDump>,
    /// Last known owner (pid) of each socket, by inode.
    owners: RefCell<BoundedMap<u32, u32>>,
    facts: &'static KernelFacts,
    programs: Programs,
}

impl HostInspector {
    pub(super) fn new() -> io::Result<Self> {
        let facts = KernelFacts::running();
        Ok(Self {
            namespaces: Namespaces::new()?,
            dumps: HashMap::new(),
            owners: RefCell::new(BoundedMap::new(OWNERS_MAX)),
            facts,
            programs: Programs::open(facts.connect_hook),
        })
    }

    /// Answers a question, as far as possible before `until`.
    ///
    /// # Errors
    /// The reason why the answer is unknown.
    #[expect(clippy::too_many_lines, reason = "an arm for every question")]
    pub(super) fn answer(
        &mut self,
        question: &Question,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Answer, Undiagnosed> {
        let namespaces = &mut self.namespaces;
        Ok(match *question {
            Question::Route { netns, ref way } => {
                Answer::Route(namespaces.inside(netns, about, until, || route::route(way))?)
            }
            Question::DeadEnd { netns, ref way } => {
                Answer::DeadEnd(namespaces.inside(netns, about, until, || route::dead_end(way))?)
            }
            Question::Covering { netns, ref way } => {
                let query = || match route::route(way)? {
                    Route::Out(used) => route::covering(way, &used),
                    Route::Local | Route::None(_) => Ok(vec![]),
                };
                Answer::Covering(namespaces.inside(netns, about, until, query)?)
            }
            Question::Link { netns, device } => {
                Answer::Link(namespaces.inside(netns, about, until, || route::link(device))?)
            }
            Question::OwnAddresses { netns, v6 } => {
                let query = || route::own_addresses(v6);
                Answer::OwnAddresses(namespaces.inside(netns, about, until, query)?)
            }
            Question::IsOwn { netns, addr } => {
                Answer::IsOwn(namespaces.inside(netns, about, until, || route::is_own(addr))?)
            }
            Question::Neighbour {
                netns,
                device,
                addr,
            } => {
                let query = || route::neighbour(device, addr);
                Answer::Neighbour(namespaces.inside(netns, about, until, query)?)
            }
            Question::Owner {
                netns,
                device,
                addr,
            } => Answer::Owner(self.owner(netns, device, addr, about, until)?),
            Question::Holders { netns, addr } => {
                Answer::Holders(self.holders(netns, addr, about, until)?)
            }
            Question::Door { netns } => {
                Answer::Door(namespaces.nsenter_options(netns, about, until)?)
            }
            Question::Listeners { netns, addr, port } => {
                Answer::Listeners(self.listeners(netns, (addr, port), about, until)?)
            }
            Question::ListenersElsewhere { netns, port } => {
                Answer::ListenersElsewhere(self.listeners_elsewhere(netns, port, about, until))
            }
            Question::Ports {
                netns,
                local,
                remote,
            } => Answer::Ports(self.ports(netns, local, remote, about, until)?),
            Question::Tuple {
                netns,
                local,
                remote,
            } => Answer::Tuple(self.tuple(netns, (local, remote), about, until)?),
            Question::Proxy { process, remote } => Answer::Proxy(process::proxy(process, remote)?),
            Question::DropReason { number } => {
                let name = self.facts.drop_reasons.name(number);
                Answer::DropReason(name.ok_or(Undiagnosed::Unsupported)?)
            }
            Question::Firewall {
                netns,
                ref packet,
                ending,
            } => {
                // User ids in another namespace's rules may mean other users.
                let uid = packet.uid.filter(|_| namespaces.is_home(netns));
                let packet = FirewallPacket {
                    uid,
                    ..packet.clone()
                };
                let query = || nftables::ended_by(&packet, ending);
                Answer::Firewall(namespaces.inside(netns, about, until, query)?)
            }
            Question::ConnectPrograms { cgroup, v6 } => {
                Answer::ConnectPrograms(self.programs.on_connect(cgroup, v6)?)
            }
            Question::SecurityPrograms {} => Answer::SecurityPrograms(self.programs.of_security()?),
            Question::Confinement { process } => {
                Answer::Confinement(process::confinement(process)?)
            }
        })
    }

    /// Returns true if the thread could not return to its namespace; it must end then.
    pub(super) fn is_stranded(&self) -> bool {
        self.namespaces.is_stranded()
    }

    /// Returns the process that holds a socket. The last known owner is checked first.
    fn owner_of(
        &self,
        sock: &DiagSocket,
        about: &AttemptRef,
        until: Instant,
    ) -> Option<NamedProcess> {
        let mut owners = self.owners.borrow_mut();
        let known = owners.get(&sock.inode).copied();
        let found = process::owner(sock.inode, known.or(first(about)), owners_until(until));
        if let Some(owner) = &found {
            owners.insert(sock.inode, owner.pid);
        }
        found
    }

    /// Returns the namespace's sockets, at most a second old. If the namespace's inode number may
    /// have been reused meanwhile, the dump is made anew.
    fn dump(
        &mut self,
        netns: u32,
        which: SocketSelection,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<SocketDump, Undiagnosed> {
        let now = Instant::now();
        self.dumps
            .retain(|_, taken| now.saturating_duration_since(taken.at) < DUMP_AGE_MAX);
        let stays = self.namespaces.is_home(netns);
        let taken = self.dumps.get(&(netns, which));
        if let Some(taken) = taken.filter(|it| stays || about.is_of(it.asked_ns, it.netns_mix)) {
            return Ok(SocketDump::clone(&taken.dump));
        }
        self.dumps.remove(&(netns, which));
        let dump: SocketDump = self
            .namespaces
            .inside(netns, about, until, || match which {
                SocketSelection::Bound => sock_diag::bound(),
                SocketSelection::Connected => sock_diag::connected(),
            })?
            .into();
        if self.dumps.len() < DUMPS_MAX {
            let taken = CachedDump {
                at: Instant::now(),
                asked_ns: about.at_ns,
                netns_mix: about.netns_mix,
                dump: SocketDump::clone(&dump),
            };
            self.dumps.insert((netns, which), taken);
        }
        Ok(dump)
    }

    /// Returns the namespace that holds this neighbour. Its address alone would not identify it:
    /// other hosts and containers can have the same one.
    fn owner(
        &mut self,
        netns: u32,
        device: u32,
        addr: IpAddr,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Option<u32>, Undiagnosed> {
        let query = || {
            Ok((
                route::link(device)?,
                route::link_address_of_neighbour(device, addr)?,
            ))
        };
        let (link, neighbour) = self.namespaces.inside(netns, about, until, query)?;
        let Some(neighbour) = neighbour else {
            // A device without neighbours does not identify a namespace.
            let has_neighbours = link.is_some_and(|link| link.resolves_neighbours);
            return if has_neighbours {
                Err(Undiagnosed::Incomplete)
            } else {
                Ok(None)
            };
        };
        let is_it = || Ok(route::is_own(addr)? && route::link_addresses()?.contains(&neighbour));
        match self.find(netns, about, until, is_it)?[..] {
            [] => Ok(None),
            [owner] => Ok(Some(owner)),
            // Separate networks can share both addresses.
            [..] => Err(Undiagnosed::Incomplete),
        }
    }

    /// Returns the other namespaces that have the address.
    fn holders(
        &mut self,
        netns: u32,
        addr: IpAddr,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Vec<u32>, Undiagnosed> {
        self.find(netns, about, until, || route::is_own(addr))
    }

    /// Returns the other namespaces for which `is_so` is true. If one has disappeared since they
    /// were listed, lists them again.
    fn find(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
        is_so: impl Fn() -> io::Result<bool>,
    ) -> Result<Vec<u32>, Undiagnosed> {
        let first = self.query_all(netns, about, until, &is_so);
        if first != Err(Undiagnosed::NoAccess) {
            return first;
        }
        self.namespaces.forget();
        self.query_all(netns, about, until, &is_so)
    }

    fn query_all(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
        is_so: &impl Fn() -> io::Result<bool>,
    ) -> Result<Vec<u32>, Undiagnosed> {
        let mut found = Vec::new();
        let mut unknown = None;
        for other in self.namespaces.all(about, until)? {
            if other == netns {
                continue;
            }
            if Instant::now() >= until {
                return Err(Undiagnosed::NoTime);
            }
            match self.namespaces.inside(other, about, until, is_so) {
                Ok(true) => found.push(other),
                Ok(false) => {}
                Err(reason) => unknown = Some(reason),
            }
        }
        match unknown {
            Some(reason) if found.is_empty() => Err(reason),
            _ => Ok(found),
        }
    }

    fn listeners(
        &mut self,
        netns: u32,
        (addr, port): (IpAddr, u16),
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Listeners, Undiagnosed> {
        let dump = self.dump(netns, SocketSelection::Bound, about, until)?;
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
            let named = found.into_iter().take(LISTENERS_MAX);
            named
                .map(|sock| listener(netns, sock, self.owner_of(sock, about, until)))
                .collect()
        };
        Ok(Listeners {
            on_port: those(&|found| found == port),
            on_similar: those(&|found| is_similar(found, port)),
        })
    }

    fn listeners_elsewhere(
        &mut self,
        netns: u32,
        port: u16,
        about: &AttemptRef,
        until: Instant,
    ) -> Vec<Listener> {
        let mut found = Vec::new();
        for other in self.namespaces.seen(until) {
            if other == netns || Instant::now() >= until {
                continue;
            }
            let dump = self.dump(other, SocketSelection::Bound, about, until).ok();
            let socks = dump.iter().flat_map(|dump| dump.iter());
            let on_port = socks
                .filter(|sock| sock.state == LISTEN && sock.local.port() == port)
                .take(LISTENERS_MAX - found.len());
            let on_port: Vec<_> = on_port.cloned().collect();
            for sock in &on_port {
                found.push(listener(other, sock, self.owner_of(sock, about, until)));
            }
        }
        found
    }
}

/// Returns the time when the search for owners stops, which leaves time for the rest.
fn owners_until(until: Instant) -> Instant {
    until.checked_sub(RESERVE).unwrap_or(until)
}

/// Returns the pid to check first for the owner of a socket.
fn first(about: &AttemptRef) -> Option<u32> {
    about.process.map(|process| process.pid)
}

fn listener(netns: u32, sock: &DiagSocket, owner: Option<NamedProcess>) -> Listener {
    Listener {
        netns,
        addr: sock.local.ip(),
        port: sock.local.port(),
        only_v6: sock.only_v6,
        device: sock.device.clone(),
        process: owner,
    }
}
