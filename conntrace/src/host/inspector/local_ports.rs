//! Answers about the local ports of a namespace.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{HostInspector, SocketSelection, first, owners_until};
use crate::{
    diagnosis::{
        Undiagnosed,
        question::{Holder, LocalPorts},
    },
    host::{
        netlink::sock_diag::DiagSocket,
        netns::AttemptRef,
        procfs::{port_range::PortRules, process},
    },
};

impl HostInspector {
    pub(super) fn tuple(
        &mut self,
        netns: u32,
        (local, remote): (SocketAddr, SocketAddr),
        about: &AttemptRef,
        until: Instant,
    ) -> Result<Option<Holder>, Undiagnosed> {
        let dump = self.dump(netns, SocketSelection::Connected, about, until)?;
        let sock = dump
            .iter()
            .find(|sock| sock.local == local && sock.remote == remote);
        Ok(sock.map(|sock| Holder {
            state: sock.state_name().to_owned(),
            process: self.owner_of(sock, about, until),
        }))
    }

    pub(super) fn ports(
        &mut self,
        netns: u32,
        local: Option<IpAddr>,
        remote: Option<SocketAddr>,
        about: &AttemptRef,
        until: Instant,
    ) -> Result<LocalPorts, Undiagnosed> {
        let rules = || PortRules::read().ok_or(io::ErrorKind::NotFound.into());
        let rules = self.namespaces.inside(netns, about, until, rules)?;
        let bound = self.dump(netns, SocketSelection::Bound, about, until)?;
        let connected = self.dump(netns, SocketSelection::Connected, about, until)?;
        let (to_remote, holding): (Vec<&DiagSocket>, Vec<&DiagSocket>) = match remote {
            Some(remote) => {
                let ours = |sock: &&DiagSocket| {
                    sock.remote == remote && local.is_none_or(|local| sock.local.ip() == local)
                };
                (
                    connected.iter().filter(ours).collect(),
                    bound.iter().collect(),
                )
            }
            // A bind needs a port that no socket has.
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
        let all: Vec<_> = bound.iter().chain(connected.iter()).collect();
        let used = ports_of(&rules, &to_remote);
        let others = ports_of(&rules, &holding);
        let holders = |socks: &[&DiagSocket]| {
            let inodes: HashSet<u32> = socks
                .iter()
                .filter(|sock| sock.inode != 0 && rules.has(sock.local.port()))
                .map(|sock| sock.inode)
                .collect();
            process::holdings(&inodes, first(about), owners_until(until))
        };
        Ok(LocalPorts {
            range: rules.range,
            reserved: rules.reserved_in_range(),
            tw_reuse: rules.tw_reuse,
            states,
            connected: count(&used),
            bound: count(&others.difference(&used).copied().collect()),
            free: rules
                .available()
                .saturating_sub(count(&ports_of(&rules, &all))),
            connected_by: holders(&to_remote),
            bound_by: holders(&holding),
        })
    }
}

fn count(ports: &HashSet<u16>) -> u32 {
    // There are at most 65,536 ports.
    u32::try_from(ports.len()).unwrap_or(u32::MAX)
}

fn ports_of(rules: &PortRules, socks: &[&DiagSocket]) -> HashSet<u16> {
    let ports = socks.iter().map(|sock| sock.local.port());
    ports.filter(|&port| rules.has(port)).collect()
}
