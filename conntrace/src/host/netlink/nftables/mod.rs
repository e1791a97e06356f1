//! Firewall of the calling thread's namespace, read from `nf_tables`. iptables stores its rules
//! there too, except in its legacy variant.

mod dump;
mod found;
mod hooks;
mod parse;
mod position;
mod registers;
mod rule;
mod ruleset;
mod seen;
mod sets;
mod truth;
mod walk;
mod xt;

use std::{fs, io};

use nix::net::if_::if_nametoindex;

use self::dump::{LiveParts, RulesetRequests};
use crate::diagnosis::firewall_facts::{Firewall, FirewallPacket, Match, PacketEnd};

/// Maximum number of reads of a ruleset that keeps changing.
const READS_MAX: usize = 3;

/// Finds the rules that could have ended the packet's path in this way.
///
/// Evaluates the current `nf_tables` ruleset of the calling thread's network namespace. Reads the
/// chains that the packet reaches, and of large sets the elements that its values match. A condition
/// that depends on more than the packet, such as a rate limit, is unknown.
///
/// Not evaluated: BPF programs, connection tracking and NAT with full tables, and chains of legacy
/// iptables (see [`Firewall::complete`]).
///
/// # Errors
/// Fails when the kernel has no `nf_tables`, or the caller lacks `CAP_NET_ADMIN`.
pub fn ended_by(packet: &FirewallPacket, ending: PacketEnd) -> io::Result<Firewall> {
    let device = packet.device.as_deref();
    let index = device.and_then(|name| if_nametoindex(name).ok());
    let has_legacy = has_legacy_tables(packet.remote.ip().to_canonical().is_ipv6());
    let mut reads = 1;
    loop {
        let mut requests = RulesetRequests::new();
        let ruleset = requests.ruleset()?;
        let mut parts = LiveParts::new(&mut requests, &ruleset);
        let mut firewall = walk::ended_by(packet, index, ending, &ruleset, &mut parts);
        if let Some(error) = parts.error {
            return Err(error);
        }
        requests.check()?;
        if !requests.is_whole && reads < READS_MAX {
            reads += 1;
            continue;
        }
        if has_legacy || !requests.is_whole {
            firewall.complete = false;
            let found = firewall.found.iter_mut();
            found.for_each(|found| found.matches = Match::Possibly);
        }
        return Ok(firewall);
    }
}

/// Returns true if legacy iptables has tables in this namespace, or that is unknown.
fn has_legacy_tables(is_v6: bool) -> bool {
    let name = if is_v6 {
        "ip6_tables_names"
    } else {
        "ip_tables_names"
    };
    has_names(fs::read(format!("/proc/thread-self/net/{name}")))
}

/// Returns true if the file lists tables. Only the module of legacy iptables creates it.
fn has_names(file: io::Result<Vec<u8>>) -> bool {
    match file {
        Ok(names) => !names.trim_ascii().is_empty(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
