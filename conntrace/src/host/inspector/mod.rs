//! Answers to questions about the host, in any network namespace.

mod listeners;
mod local_ports;
mod tunnels;

use std::{io, net::IpAddr, time::Instant};

use super::{
    answer_cache::Lookup,
    bpf_programs::Programs,
    cache::BoundedMap,
    netlink::{conntrack, nftables, route},
    netns::{AttemptRef, FoundElsewhere, ListAge, Namespaces, OtherNamespaces},
    port_usage::{self, PortScan, PortScanResult},
    procfs::{process, tun},
};
use crate::{
    capture::KernelFacts,
    diagnosis::{
        Undiagnosed,
        firewall_facts::FirewallPacket,
        question::{Answer, Question},
        way::Route,
    },
    record::clock,
};

/// Maximum number of cached socket owners; the cache is cleared when full.
const OWNERS_MAX: usize = 4096;
/// Maximum number of namespaces in an answer that have an address.
const HOLDERS_MAX: usize = 64;

/// Answers questions about the host, one at a time.
pub(super) struct HostInspector {
    namespaces: Namespaces,
    /// Last known owner (pid) of each socket, by inode.
    owners: BoundedMap<u32, u32>,
    facts: &'static KernelFacts,
    programs: Programs,
    /// Time of the oldest look that the current answer is based on, `CLOCK_BOOTTIME` nanoseconds.
    as_of_ns: u64,
}

impl HostInspector {
    pub(super) fn new() -> io::Result<Self> {
        let facts = KernelFacts::running();
        Ok(Self {
            namespaces: Namespaces::new()?,
            owners: BoundedMap::new(OWNERS_MAX),
            facts,
            programs: Programs::open(facts.connect_hook),
            as_of_ns: 0,
        })
    }

    /// Answers a question, as far as possible before `until`. Returns the time of the oldest look
    /// that the answer is based on as well, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) fn answer(
        &mut self,
        question: &Question,
        about: &AttemptRef,
        until: Instant,
    ) -> (Lookup, u64) {
        let began_ns = clock::boot_ns();
        self.as_of_ns = began_ns;
        let found = self.look(question, about, until);
        // A question that got no answer is based on nothing older.
        let as_of_ns = found.as_ref().map_or(began_ns, |_| self.as_of_ns);
        (found.into(), as_of_ns)
    }

    /// Looks at the host for the answer to a question.
    ///
    /// # Errors
    /// The reason why the answer is unknown.
    #[expect(clippy::too_many_lines, reason = "an arm for every question")]
    fn look(
        &mut self,
        question: &Question,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Answer, Undiagnosed> {
        // An answer that comes with the deadline is as good as none.
        let until = after(until, if question.is_aside() { 4 } else { 7 });
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
            Question::Tunnel { netns, device, to } => {
                let query = || tunnels::state(device, to);
                Answer::Tunnel(namespaces.inside(netns, about, until, query)?)
            }
            Question::TunHolder { netns, ref name } => {
                Answer::TunHolder(tun::holder(netns, name, until)?)
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
            Question::Forwarding { netns, addr, v6 } => {
                let query = || route::forwarding(addr, v6);
                Answer::Forwarding(namespaces.inside(netns, about, until, query)?)
            }
            Question::Door { netns } => {
                Answer::Door(namespaces.nsenter_options(netns, about, until)?)
            }
            Question::Listeners { netns, addr, port } => {
                Answer::Listeners(self.listeners(netns, (addr, port), about, until)?)
            }
            Question::FullQueue { netns, addr, port } => {
                Answer::FullQueue(self.full_queue(netns, (addr, port), about, until)?)
            }
            Question::ListenersElsewhere { netns, port } => {
                Answer::ListenersElsewhere(self.listeners_elsewhere(netns, port, about, until)?)
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
            Question::PortHolders { netns, port } => {
                Answer::PortHolders(self.port_holders(netns, port, about, until)?)
            }
            Question::Tracked {
                netns,
                client,
                remote,
            } => {
                // Without a port it is not looked for.
                let client = client.or(about.client).filter(|client| client.port() != 0);
                let client = client.ok_or(Undiagnosed::Incomplete)?;
                let query = || conntrack::unanswered(client, remote);
                Answer::Tracked(namespaces.inside(netns, about, until, query)?)
            }
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

    /// Scans the sockets connected to a remote port.
    pub(super) fn scan(&mut self, scan: &PortScan, until: Instant) -> PortScanResult {
        port_usage::scan(&mut self.namespaces, scan, until)
    }

    /// Returns true if the thread could not return to its namespace; it must end then.
    pub(super) fn is_stranded(&self) -> bool {
        self.namespaces.is_stranded()
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
        let found = self.find(netns, about, until, is_it).all()?;
        match found[..] {
            [] => Ok(None),
            [(owner, ())] => Ok(Some(owner)),
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
        let found = self.find(netns, about, until, || route::is_own(addr));
        let found = found.some_or_unknown()?;
        Ok(found.into_iter().map(|(holder, ())| holder).collect())
    }

    /// Returns the other namespaces for which `is_so` is true.
    fn find(
        &mut self,
        netns: u32,
        about: &AttemptRef,
        until: Instant,
        is_so: impl Fn() -> io::Result<bool>,
    ) -> FoundElsewhere<()> {
        let look = |_| Ok(is_so()?.then_some(()));
        let others = OtherNamespaces {
            than: netns,
            about,
            until,
            max: HOLDERS_MAX,
            age: ListAge::Current,
        };
        self.namespaces.others(others, |_| false, look)
    }
}

/// Returns the time after so many eighths of the time that is left.
fn after(until: Instant, eighths: u32) -> Instant {
    let now = Instant::now();
    now + until.saturating_duration_since(now) * eighths / 8
}

/// Returns the time when the search for owners stops, which leaves time for the rest.
fn owners_until(until: Instant) -> Instant {
    after(until, 4)
}
