//! Answers about the local ports of a namespace.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    time::Instant,
};

use super::{HostInspector, owners_until};
use crate::{
    diagnosis::{
        Undiagnosed,
        port_facts::{Holding, LocalPorts, WiderRange},
    },
    host::{
        netlink::sock_diag::{self, DiagSocket},
        netns::AttemptRef,
        procfs::{
            port_range::{PortRules, PortSet},
            process,
        },
    },
};

/// Maximum number of sockets whose holders are looked for: the most that one destination can take.
const HELD_MAX: usize = 1 << 16;

impl HostInspector {
    pub(super) fn ports(
        &mut self,
        netns: u32,
        local: Option<IpAddr>,
        remote: Option<SocketAddr>,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<LocalPorts, Undiagnosed> {
        let query = || {
            let rules = PortRules::read().ok_or(io::ErrorKind::NotFound)?;
            let mut counts = PortCounts::new(rules, local, remote);
            sock_diag::all(|sock| {
                counts.add(&sock);
                ControlFlow::Continue(())
            })?;
            Ok(counts)
        };
        let counts = self.namespaces.inside(netns, about, until, query)?;
        let holders = |held: &Held| held.holders(about, until);
        let rules = &counts.rules;
        let in_use = rules.count(&counts.all);
        Ok(LocalPorts {
            range: rules.range,
            reserved: rules.reserved_in_range(),
            tw_reuse: rules.tw_reuse,
            connected: rules.count(&counts.to_remote.ports),
            bound: rules.count_without(&counts.holding.ports, &counts.to_remote.ports),
            free: rules.available().saturating_sub(in_use),
            connected_by: holders(&counts.to_remote),
            bound_by: holders(&counts.holding),
            wider: Some(wider_range(rules, &counts.listened)),
            states: counts.states,
        })
    }
}

fn wider_range(rules: &PortRules, listened: &PortSet) -> WiderRange {
    let (unreserved, listened) = rules.unreserved(WiderRange::instead_of(rules.range), listened);
    let listening = u32::try_from(listened.len()).unwrap_or(u32::MAX);
    let reserved = &rules.reserved_list;
    WiderRange {
        available: unreserved.saturating_sub(listening),
        listened: (listened.len() <= WiderRange::LISTENED_MAX).then_some(listened),
        reserved: (reserved.len() <= WiderRange::RESERVED_LEN_MAX).then(|| reserved.clone()),
    }
}

/// Use of the local ports, counted socket by socket.
struct PortCounts {
    rules: PortRules,
    local: Option<IpAddr>,
    remote: Option<SocketAddr>,
    all: PortSet,
    listened: PortSet,
    /// Sockets to the destination.
    to_remote: Held,
    /// Sockets that hold their port for every destination.
    holding: Held,
    states: BTreeMap<String, u32>,
}

impl PortCounts {
    fn new(rules: PortRules, local: Option<IpAddr>, remote: Option<SocketAddr>) -> Self {
        Self {
            rules,
            local,
            remote,
            all: PortSet::default(),
            listened: PortSet::default(),
            to_remote: Held::default(),
            holding: Held::default(),
            states: BTreeMap::new(),
        }
    }

    fn add(&mut self, sock: &DiagSocket) {
        let port = sock.local.port();
        self.all.add(port);
        if sock.state == sock_diag::LISTEN {
            self.listened.add(port);
        }
        let is_to_remote = sock.is_connected()
            && Some(sock.remote) == self.remote
            && self.local.is_none_or(|local| sock.local.ip() == local);
        // A bind needs a port that no socket has.
        let is_holding = !sock.is_connected() || self.remote.is_none();
        let counts = if is_to_remote {
            self.to_remote.add(sock, &self.rules);
            true
        } else if is_holding {
            self.holding.add(sock, &self.rules);
            self.remote.is_none()
        } else {
            false
        };
        if counts {
            // There are few states, and millions of sockets.
            match self.states.get_mut(sock.state_name()) {
                Some(number) => *number += 1,
                None => {
                    self.states.insert(sock.state_name().to_owned(), 1);
                }
            }
        }
    }
}

/// Ports that some sockets hold, and the sockets of the range.
#[derive(Default)]
struct Held {
    ports: PortSet,
    inodes: HashSet<u32>,
    /// True if more sockets hold ports than are kept.
    has_more: bool,
}

impl Held {
    fn add(&mut self, sock: &DiagSocket, rules: &PortRules) {
        let port = sock.local.port();
        self.ports.add(port);
        if sock.inode == 0 || !rules.has(port) {
            return;
        }
        if self.inodes.len() < HELD_MAX {
            self.inodes.insert(sock.inode);
        } else {
            self.has_more = true;
        }
    }

    /// Returns the processes that hold most of these sockets; none if not all sockets are known,
    /// because then the numbers would be wrong.
    fn holders(&self, about: &AttemptRef, until: Instant) -> Vec<Holding> {
        if self.has_more {
            return Vec::new();
        }
        let caller = about.process.map(|process| process.pid);
        process::holdings(&self.inodes, caller, owners_until(until))
    }
}
