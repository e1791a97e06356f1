//! Answers about listeners and other single sockets of a namespace.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    time::Instant,
};

use super::{HostInspector, owners_until};
use crate::{
    diagnosis::{
        Undiagnosed,
        question::{FullQueue, Holder, Listener, Listeners, NamedProcess, PortHolder, accepts},
        similar_ports,
        way::NetDevice,
    },
    host::{
        netlink::{
            route,
            sock_diag::{self, DiagSocket},
        },
        netns::{AttemptRef, KnownPort, ListAge, ListenedPorts, OtherNamespaces},
        procfs::process::{self, SoughtSocket},
    },
    record::clock,
};

/// Maximum number of listeners in an answer.
const LISTENERS_MAX: usize = 4;
/// Maximum number of sockets in an answer that have a port.
const PORT_HOLDERS_MAX: usize = 8;
/// Maximum number of listeners of a namespace that are listed. One with more is asked for each port.
const LISTED_MAX: usize = 4096;

impl HostInspector {
    /// Returns the listeners on a port. Similar ports are looked at if it has none.
    pub(super) fn listeners(
        &mut self,
        netns: u32,
        (addr, port): (IpAddr, u16),
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Listeners, Undiagnosed> {
        let query = || {
            let on_port = FirstListeners::ask(Some(addr), |each| sock_diag::listeners(port, each))?;
            let on_similar = if on_port.is_empty() {
                let ports = similar_ports(port);
                FirstListeners::ask(Some(addr), |each| sock_diag::listeners_on(&ports, each))?
            } else {
                Vec::new()
            };
            Ok((on_port, on_similar))
        };
        let (on_port, on_similar) = self.namespaces.inside(netns, about, until, query)?;
        Ok(Listeners {
            on_port: self.with_owners(netns, on_port, about, until),
            on_similar: self.with_owners(netns, on_similar, about, until),
        })
    }

    /// Returns a listener that accepts the address, whose accept queue is full, and that has dropped
    /// connections.
    pub(super) fn full_queue(
        &mut self,
        netns: u32,
        (addr, port): (IpAddr, u16),
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Option<FullQueue>, Undiagnosed> {
        let query = || {
            let (mut full, mut has_others) = (None, false);
            sock_diag::listeners(port, |sock| {
                if accepts(sock.local.ip(), sock.only_v6, addr) {
                    // As `sk_acceptq_is_full` has it. One that is bound to a device may not be met.
                    let is_full = sock.waiting > sock.backlog && sock.drops > 0;
                    if is_full && sock.device == 0 && full.is_none() {
                        full = Some(sock);
                    } else {
                        has_others = true;
                    }
                }
                ControlFlow::Continue(())
            })?;
            Ok(full.map(|sock| (sock, has_others)))
        };
        let found = self.namespaces.inside(netns, about, until, query)?;
        let Some((sock, has_others)) = found else {
            return Ok(None);
        };
        let (waiting, backlog, drops) = (sock.waiting, sock.backlog, sock.drops);
        let mut listeners = self.with_owners(netns, vec![(sock, None)], about, until);
        Ok(listeners.pop().map(|listener| FullQueue {
            listener,
            waiting,
            backlog,
            drops,
            has_others,
        }))
    }

    /// Returns some of the listeners on a port in other namespaces. A namespace whose ports were
    /// looked at a moment ago is entered only if this one was among them.
    ///
    /// # Errors
    /// Fails when none was found, and not every namespace was looked at.
    pub(super) fn listeners_elsewhere(
        &mut self,
        netns: u32,
        port: u16,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Vec<Listener>, Undiagnosed> {
        let listened = self.namespaces.listened();
        let oldest_ns = Cell::new(u64::MAX);
        let lacks = |other| match listened.of(other, port, about.at_ns) {
            KnownPort::Free(looked_ns) => {
                oldest_ns.set(oldest_ns.get().min(looked_ns));
                true
            }
            KnownPort::Unknown | KnownPort::Unlisted => false,
        };
        let query = |other| {
            let found = FirstListeners::ask(None, |each| {
                if listened.of(other, port, about.at_ns) == KnownPort::Unlisted
                    && list_ports(&listened, other, port, each)?
                {
                    return Ok(());
                }
                sock_diag::listeners(port, each)
            })?;
            Ok((!found.is_empty()).then_some(found))
        };
        let others = OtherNamespaces {
            than: netns,
            about,
            until,
            max: LISTENERS_MAX,
            age: ListAge::Kept,
        };
        let seen = self.namespaces.others(others, lacks, query);
        self.as_of_ns = self.as_of_ns.min(oldest_ns.get()).min(seen.as_of_ns);
        let mut found = Vec::new();
        for (other, listeners) in seen.some_or_unknown()? {
            found.extend(self.with_owners(other, listeners, about, until));
        }
        found.truncate(LISTENERS_MAX);
        Ok(found)
    }

    /// Returns the socket that has these two ends.
    pub(super) fn tuple(
        &mut self,
        netns: u32,
        (local, remote): (SocketAddr, SocketAddr),
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Option<Holder>, Undiagnosed> {
        let query = || sock_diag::find(local, remote);
        let found = self.namespaces.inside(netns, about, until, query)?;
        Ok(found.map(|sock| {
            let owners = self.owners_of(netns, std::slice::from_ref(&sock), about, until);
            Holder {
                state: sock.state_name().to_owned(),
                process: owners.get(&sock.inode).cloned(),
            }
        }))
    }

    /// Returns some of the sockets that have this local port.
    pub(super) fn port_holders(
        &mut self,
        netns: u32,
        port: u16,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Vec<PortHolder>, Undiagnosed> {
        let query = || {
            let mut found = Vec::new();
            sock_diag::with_local_port(port, |sock| {
                found.push(sock);
                match found.len() < PORT_HOLDERS_MAX {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            // A second table may have given one more.
            found.truncate(PORT_HOLDERS_MAX);
            Ok(found)
        };
        let found = self.namespaces.inside(netns, about, until, query)?;
        let owners = self.owners_of(netns, &found, about, until);
        let holders = found.iter().map(|sock| PortHolder {
            local: sock.local,
            remote: sock.is_connected().then_some(sock.remote),
            only_v6: sock.only_v6,
            is_of_device: sock.device != 0,
            state: sock.state_name().to_owned(),
            process: owners.get(&sock.inode).cloned(),
        });
        Ok(holders.collect())
    }

    fn with_owners(
        &mut self,
        netns: u32,
        found: Vec<(DiagSocket, Option<NetDevice>)>,
        about: &AttemptRef,
        until: Instant,
    ) -> Vec<Listener> {
        let (socks, devices): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let owners = self.owners_of(netns, &socks, about, until);
        let all = socks.iter().zip(devices);
        all.map(|(sock, device)| Listener {
            netns,
            addr: sock.local.ip(),
            port: sock.local.port(),
            only_v6: sock.only_v6,
            device,
            process: owners.get(&sock.inode).cloned(),
        })
        .collect()
    }

    /// Finds the processes that hold these sockets, by inode. Those that are likely are searched
    /// first: the last known holders, the caller, and the process that leads into the namespace.
    fn owners_of(
        &mut self,
        netns: u32,
        socks: &[DiagSocket],
        about: &AttemptRef,
        until: Instant,
    ) -> BTreeMap<u32, NamedProcess> {
        let sought = socks.iter().filter(|sock| sock.inode != 0);
        let sought: Vec<_> = sought
            .map(|sock| SoughtSocket {
                inode: sock.inode,
                uid: sock.uid,
            })
            .collect();
        let known = sought
            .iter()
            .filter_map(|sock| self.owners.get(&sock.inode));
        let caller = about.process.map(|process| process.pid);
        let inside = self.namespaces.process_of(netns);
        let first: Vec<u32> = known.copied().chain(caller).chain(inside).collect();
        let found = process::owners_of(&sought, &first, owners_until(until));
        for (inode, owner) in &found {
            self.owners.insert(*inode, owner.pid);
        }
        found
    }
}

/// Keeps the ports that are listened on in the calling thread's namespace, and passes each listener
/// on `port` to `each`. Returns false if there are too many: `each` may have missed some then.
fn list_ports(
    listened: &ListenedPorts,
    netns: u32,
    port: u16,
    each: &mut dyn FnMut(DiagSocket) -> ControlFlow<()>,
) -> io::Result<bool> {
    let looked_ns = clock::boot_ns();
    let (mut ports, mut listeners) = (BTreeSet::new(), 0);
    sock_diag::all_listeners(|sock| {
        listeners += 1;
        if listeners > LISTED_MAX {
            return ControlFlow::Break(());
        }
        ports.insert(sock.local.port());
        if sock.local.port() == port {
            each(sock)
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let are_all = listeners <= LISTED_MAX;
    listened.keep(netns, looked_ns, are_all.then_some(ports));
    Ok(are_all)
}

/// The listeners that an answer tells of, found while the kernel tells of all. Those that accept the
/// address come first. Of many that share an address, port and device
/// (`SO_REUSEPORT`) there is one.
struct FirstListeners {
    addr: Option<IpAddr>,
    found: BTreeMap<(bool, SocketAddr, bool, u32), DiagSocket>,
}

impl FirstListeners {
    /// Asks in the calling thread's namespace, which also knows the names of its interfaces.
    fn ask(
        addr: Option<IpAddr>,
        ask: impl FnOnce(&mut dyn FnMut(DiagSocket) -> ControlFlow<()>) -> io::Result<()>,
    ) -> io::Result<Vec<(DiagSocket, Option<NetDevice>)>> {
        let mut first = Self {
            addr,
            found: BTreeMap::new(),
        };
        ask(&mut |sock| {
            first.add(sock);
            ControlFlow::Continue(())
        })?;
        let found = first.found.into_values();
        Ok(found
            .map(|sock| {
                let device = (sock.device != 0).then(|| route::device(sock.device));
                (sock, device)
            })
            .collect())
    }

    fn add(&mut self, sock: DiagSocket) {
        let accepts = |addr| accepts(sock.local.ip(), sock.only_v6, addr);
        let key = (
            !self.addr.is_none_or(accepts),
            sock.local,
            sock.only_v6,
            sock.device,
        );
        self.found.entry(key).or_insert(sock);
        if self.found.len() > LISTENERS_MAX {
            self.found.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_accept_the_address_are_kept() {
        let sock = |local: &str, inode| DiagSocket {
            state: sock_diag::LISTEN,
            local: local.parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            inode,
            uid: 0,
            only_v6: false,
            device: 0,
            waiting: 0,
            backlog: 0,
            drops: 0,
            timer_ms: 0,
        };
        let addr = "10.0.0.7".parse().unwrap();
        let ask = |each: &mut dyn FnMut(DiagSocket) -> ControlFlow<()>| {
            for host in 1..=200 {
                let _ = each(sock(&format!("127.0.0.{host}:80"), host));
            }
            let _ = each(sock("0.0.0.0:80", 300));
            let _ = each(sock("0.0.0.0:80", 301));
            Ok(())
        };
        let found = FirstListeners::ask(Some(addr), ask).unwrap();
        let inodes: Vec<_> = found.iter().map(|(sock, _)| sock.inode).collect();
        assert_eq!(inodes, [300, 1, 2, 3]);
    }
}
