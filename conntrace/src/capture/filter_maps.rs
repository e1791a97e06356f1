//! Writes the filters into the BPF maps before any program is attached.

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use conntrace_common::{
    filter::{Id, PORT_WORDS, kind},
    record::COMM_LEN,
};

use super::{
    ProgramMissing, StartError, failed,
    filter::{Filter, PortRange},
};

/// Writes the values of every filter kind.
///
/// # Errors
/// When a map is full: the filters of a kind exceed its limit.
pub(super) fn set(ebpf: &mut Ebpf, filter: &Filter) -> Result<(), StartError> {
    fill(ebpf, filter).map_err(|error| failed("setting the filters", error))
}

fn fill(ebpf: &mut Ebpf, filter: &Filter) -> Result<(), FillError> {
    let mut ids: HashMap<_, [u64; 2], u8> = map(ebpf, "FILTER_IDS")?.try_into()?;
    for Id { kind, value } in all_ids(filter) {
        ids.insert([kind, value], 1, 0)?;
    }
    let mut comms: HashMap<_, [u8; COMM_LEN], u8> = map(ebpf, "FILTER_COMMS")?.try_into()?;
    for name in &filter.comms {
        comms.insert(name.0, 1, 0)?;
    }
    let mut networks: LpmTrie<_, [u8; 16], u8> = map(ebpf, "FILTER_NETWORKS")?.try_into()?;
    for network in &filter.networks {
        let key = Key::new(u32::from(network.prefix_len), network.addr.octets());
        networks.insert(&key, 1, 0)?;
    }
    let mut ports: Array<_, u64> = map(ebpf, "FILTER_PORTS")?.try_into()?;
    for (index, word) in (0..PORT_WORDS).zip(port_bits(&filter.ports)) {
        if word != 0 {
            ports.set(index, word, 0)?;
        }
    }
    Ok(())
}

/// Borrows a map. It must not be taken, because the programs that use it are not loaded yet.
fn map<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, ProgramMissing> {
    ebpf.map_mut(name)
        .ok_or_else(|| ProgramMissing(name.to_owned()))
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Missing(#[from] ProgramMissing),
    #[error(transparent)]
    Map(#[from] MapError),
}

fn all_ids(filter: &Filter) -> impl Iterator<Item = Id> {
    let id = |kind: u32, value: u64| Id {
        kind: u64::from(kind),
        value,
    };
    let pids = filter
        .pids
        .iter()
        .map(move |&pid| id(kind::PID, pid.into()));
    let uids = filter
        .uids
        .iter()
        .map(move |&uid| id(kind::UID, uid.into()));
    let cgroups = filter
        .cgroups
        .iter()
        .map(move |group| id(kind::CGROUP, group.0));
    let netns = filter
        .netns
        .iter()
        .map(move |netns| id(kind::NETNS, netns.0.into()));
    pids.chain(uids).chain(cgroups).chain(netns)
}

/// Returns a set of ports, a bit each.
fn port_bits(ranges: &[PortRange]) -> Vec<u64> {
    let mut words = vec![0u64; PORT_WORDS as usize];
    for port in ranges.iter().flat_map(|range| range.0.clone()) {
        if let Some(word) = words.get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_for_each_port() {
        let words = port_bits(&[PortRange(63..=64), PortRange(65535..=65535)]);
        assert_eq!(words.len(), 1024);
        assert_eq!((words[0], words[1], words[1023]), (1 << 63, 1, 1 << 63));
        let all = port_bits(&[PortRange(0..=65535)]);
        assert!(all.iter().all(|&word| word == u64::MAX));
    }
}
