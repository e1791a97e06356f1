//! Remembers dropped packets that had lost their socket, until the attempt that they belong to ends.
//!
//! They are found by the client's address, port and initial sequence number, which a translation of
//! the destination leaves as they are. A client address has a bounded number of places, and so have all of them together. A
//! drop that may have been evicted, or not reported, is unknown and never told as absent.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    mem::offset_of,
};

use conntrace_common::drops::{DROP_SIZE, DROPPED_SYN, DROPPED_SYN_ACK, RawDrop};
use foldhash::{HashMap, HashMapExt as _};

use super::raw::RawWayDrop;
use crate::record::fields::Fields;

/// Record of a dropped packet as the kernel side writes it.
pub type DropRecord = [u8; DROP_SIZE];

/// Maximum number of clients (address and port) of which drops are remembered.
const CLIENTS_MAX: usize = 8192;
/// Maximum number of them with one address.
const OF_ADDR_MAX: usize = 2048;
/// Maximum number of addresses of which is remembered that a drop was evicted.
const EVICTED_MAX: usize = 1024;

/// Time in nanoseconds after which a drop is no longer of an attempt under way: the longest between two
/// SYNs (`TCP_RTO_MAX`), and some more.
const ATTEMPT_NS_MAX: u64 = 150 * 1_000_000_000;

/// Address of a client, v4-mapped for IPv4, and the key of its attempt ([`key_of`]).
pub type Client = ([u8; 16], u32);

/// Returns the key that tells an attempt from others of the same address: its port, and the lower half
/// of its initial sequence number above it.
pub(super) fn key_of(port: u16, isn_end: u16) -> u32 {
    u32::from(isn_end) << u16::BITS | u32::from(port)
}

/// Dropped packets by client.
#[derive(Debug, Default)]
pub struct DropTable {
    by_client: HashMap<Client, Kept>,
    /// Clients of each address, oldest first. A client whose attempt has ended may still be listed.
    by_addr: HashMap<[u8; 16], VecDeque<u32>>,
    /// Number of clients of each address that are listed, and the address, the largest last.
    by_number: BTreeSet<(usize, [u8; 16])>,
    /// Last time at which a drop of an address was evicted, in nanoseconds of `CLOCK_BOOTTIME`.
    evicted_ns: HashMap<[u8; 16], u64>,
    /// The same of any address, for those that found no place in `evicted_ns`.
    any_evicted_ns: u64,
}

/// Drops of one client's attempt.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Time of the first of those that are counted.
    first_ns: u64,
    last_ns: u64,
    told: RawWayDrop,
}

impl DropTable {
    /// Notes a dropped packet, and returns its client; `None` if the record is malformed.
    pub fn note(&mut self, record: &DropRecord) -> Option<Client> {
        let fields = Fields(record);
        let packet = fields.u8(offset_of!(RawDrop, packet));
        if packet != DROPPED_SYN && packet != DROPPED_SYN_ACK {
            return None;
        }
        let addr: [u8; 16] = fields.array(offset_of!(RawDrop, client));
        let port = fields.u16(offset_of!(RawDrop, client_port));
        let client = (addr, key_of(port, fields.u16(offset_of!(RawDrop, isn_end))));
        let at_ns = fields.u64(offset_of!(RawDrop, at_ns));
        let before = self.by_client.get(&client).copied();
        if before.is_none() {
            self.make_room(client, at_ns);
        }
        let mut told = RawWayDrop {
            server: fields.array(offset_of!(RawDrop, server)),
            asked: fields.array(offset_of!(RawDrop, asked)),
            netns: fields.u32(offset_of!(RawDrop, netns)),
            device: fields.u32(offset_of!(RawDrop, device)),
            server_port: fields.u16(offset_of!(RawDrop, server_port)),
            asked_port: fields.u16(offset_of!(RawDrop, asked_port)),
            reason: fields.u16(offset_of!(RawDrop, reason)),
            packet,
            count: 1,
            ..RawWayDrop::NOTHING
        };
        // Drops of another kind do not count: what is told is told of all of them.
        let mut first_ns = at_ns;
        if let Some(before) = before.filter(|before| before.told.is_alike(&told)) {
            told.count = before.told.count.saturating_add(1);
            first_ns = before.first_ns;
        }
        let kept = Kept {
            first_ns,
            last_ns: at_ns,
            told,
        };
        self.by_client.insert(client, kept);
        Some(client)
    }

    /// Makes room for a client, at the expense of the oldest one with the same address, or with the
    /// address that has most.
    fn make_room(&mut self, (addr, key): Client, at_ns: u64) {
        let own = self.by_addr.get(&addr).map_or(0, VecDeque::len);
        let from = if own >= OF_ADDR_MAX {
            Some(addr)
        } else if self.by_client.len() >= CLIENTS_MAX {
            self.by_number.last().map(|(_, addr)| *addr)
        } else {
            None
        };
        if let Some(from) = from {
            self.evict_of(from, at_ns);
        }
        self.list(addr, |keys| {
            keys.push_back(key);
            Some(key)
        });
    }

    /// Changes the list of an address, and returns the key that was added or removed.
    fn list(
        &mut self,
        addr: [u8; 16],
        change: impl FnOnce(&mut VecDeque<u32>) -> Option<u32>,
    ) -> Option<u32> {
        let keys = self.by_addr.entry(addr).or_default();
        self.by_number.remove(&(keys.len(), addr));
        let changed = change(keys);
        if keys.is_empty() {
            self.by_addr.remove(&addr);
        } else {
            self.by_number.insert((keys.len(), addr));
        }
        changed
    }

    /// Evicts the oldest client with this address.
    fn evict_of(&mut self, from: [u8; 16], at_ns: u64) {
        let oldest = self.list(from, VecDeque::pop_front);
        if let Some(oldest) = oldest
            && let Some(kept) = self.by_client.remove(&(from, oldest))
            && at_ns.saturating_sub(kept.last_ns) < ATTEMPT_NS_MAX
        {
            if self.evicted_ns.len() >= EVICTED_MAX {
                self.evicted_ns = HashMap::new();
                self.any_evicted_ns = at_ns;
            }
            self.evicted_ns.insert(from, at_ns);
        }
    }

    /// Takes the drop of an attempt of this client that began then. `missed_ns` is the last time at
    /// which the kernel side did not report a drop; 0 if there is none.
    pub(super) fn take(&mut self, client: Client, began_ns: u64, missed_ns: u64) -> RawWayDrop {
        let (addr, key) = client;
        let kept = self.by_client.remove(&client);
        if kept.is_some() {
            self.list(addr, |keys| {
                let at = keys.iter().rposition(|it| *it == key)?;
                keys.remove(at)
            });
        }
        // One of an earlier attempt with the same port says nothing.
        match kept.filter(|kept| kept.last_ns >= began_ns) {
            Some(kept) => RawWayDrop {
                last_ns: kept.last_ns,
                // How many of them are of an earlier attempt is not known.
                count: if kept.first_ns < began_ns {
                    1
                } else {
                    kept.told.count
                },
                ..kept.told
            },
            None => {
                let evicted_ns = self.evicted_ns.get(&addr).copied().unwrap_or(0);
                let unknown_ns = missed_ns.max(evicted_ns).max(self.any_evicted_ns);
                RawWayDrop {
                    is_unknown: u8::from(unknown_ns >= began_ns),
                    ..RawWayDrop::NOTHING
                }
            }
        }
    }
}
