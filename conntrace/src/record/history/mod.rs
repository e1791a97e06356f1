//! Remembers what attempts have shown of their remote hosts, and completes the records of later ones
//! with it.
//!
//! Records come in the order of their events, or nearly so: each CPU reserves their places in the
//! ring. The silence of an attempt is stored before its record is completed, an answer afterwards,
//! because an answer is no evidence about the attempt itself.
//!
//! Hosts are kept in sets with a few places each. A full set evicts a host and stores the time. A
//! fact that may have been evicted is unknown, and never told as absent.

mod drops;
mod facts;
mod raw;
mod set;
#[cfg(test)]
mod tests;

use std::{mem::offset_of, ops::RangeInclusive};

use conntrace_common::{
    answers::UNTOLD_NS,
    drops::DROPPED_SYN_ACK,
    hash::HashSecret,
    host_key::HostKey,
    record::{
        AF_INET, AF_INET6, FLAG_HEARD, FLAG_ICMP, FLAG_JOINED_LATE, FLAG_RECOVERED, FLAG_UNTRACKED,
        KIND_ANSWER, KIND_ENDING, KIND_STALL, ORIGIN_ICMP, RECORD_VERSION, RawRecord,
        STATE_ESTABLISHED,
    },
};
use foldhash::HashMap;

pub use drops::{Client, DropRecord, DropTable};
#[cfg(test)]
pub(super) use raw::pack;
pub use raw::{COMPLETE_SIZE, RawComplete, RawHistory, RawWayDrop};
pub(super) use raw::{packed_ns, packed_port};

use self::{
    facts::{HostFact, HostFacts, HostUpdate},
    set::HostSet,
};
use super::{CompleteRecord, WireRecord, fields::Fields};

/// Errno that `tcp_reset` sets for a RST in `SYN_SENT`; in `SYN_RECV` it sets `ECONNRESET`.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;

/// Memory of remote hosts, at most 16,384 of them and of the private networks around them.
#[derive(Debug)]
pub struct HostTable {
    secret: HashSecret,
    sets: HashMap<u32, HostSet>,
}

impl HostTable {
    /// Creates an empty table.
    #[must_use]
    pub fn new(secret: HashSecret) -> Self {
        Self {
            secret,
            sets: HashMap::default(),
        }
    }

    /// Completes a record with what is remembered of its host, and remembers what it shows. Returns
    /// `None` for a record that only says that its host answers. `missed_ns` returns the last time
    /// at which the kernel side could not tell an answer of a host or network, in nanoseconds of
    /// `CLOCK_BOOTTIME`; 0 if there is none.
    pub fn complete(
        &mut self,
        record: &WireRecord,
        missed_ns: impl Fn(&HostKey) -> u64,
    ) -> Option<CompleteRecord> {
        let fields = Fields(record);
        let kind = fields.u8(offset_of!(RawRecord, kind));
        let is_answer =
            kind == KIND_ANSWER && fields.u8(offset_of!(RawRecord, state)) == STATE_ESTABLISHED;
        let family = fields.u16(offset_of!(RawRecord, attempt.family));
        let is_known = fields.u8(offset_of!(RawRecord, version)) == RECORD_VERSION
            && (is_answer || kind == KIND_ENDING || kind == KIND_STALL)
            && (family == AF_INET || family == AF_INET6);
        if !is_known {
            return Some(raw::complete(record, &RawHistory::NOTHING));
        }
        let at_ns = fields.u64(offset_of!(RawRecord, at_ns));
        let history = if fields.u8(offset_of!(RawRecord, flags)) & FLAG_RECOVERED == 0 {
            self.visit(&fields, missed_ns)
        } else {
            // Answers that came after the attempt may be remembered already.
            RawHistory {
                forgotten_ns: at_ns,
                ..RawHistory::NOTHING
            }
        };
        (!is_answer).then(|| raw::complete(record, &history))
    }

    /// Notes the fact that a record shows, and returns what is remembered for its attempt.
    fn visit(&mut self, fields: &Fields<'_>, missed_ns: impl Fn(&HostKey) -> u64) -> RawHistory {
        let host = host_of(fields);
        let update = update_of(fields);
        let port = fields.u16(offset_of!(RawRecord, attempt.remote_port));
        let (before, after) = self.note(&host, missed_ns(&host), update.as_ref());
        let is_silence = update.is_some_and(|update| update.fact == HostFact::Silence);
        let mut told = if is_silence { after } else { before }.tell(port);
        let Some(network) = host.network() else {
            return told;
        };
        // A network has no ports, and a host that was silent after it answered says nothing of it.
        let update = update.filter(|_| !is_silence || before.heard_ns == 0);
        let update = update.map(|update| HostUpdate {
            fact: if is_silence {
                HostFact::Silence
            } else {
                HostFact::Heard
            },
            ..update
        });
        let (of_network, after) = self.note(&network, missed_ns(&network), update.as_ref());
        // If the host has answered before, its network has answered as well.
        if before.heard_ns == 0 {
            let of_network = if is_silence { after } else { of_network };
            told.network_silent_since_ns = of_network.silent_since_ns;
            told.forgotten_ns = told.forgotten_ns.max(of_network.forgotten_ns);
        }
        told
    }

    /// Returns what was known of a host or network before a fact, and what is known after it.
    fn note(
        &mut self,
        key: &HostKey,
        missed_ns: u64,
        update: Option<&HostUpdate>,
    ) -> (HostFacts, HostFacts) {
        let set = self.sets.entry(key.set(self.secret)).or_default();
        let before = set.look(key, missed_ns);
        let after = update.map(|update| set.note(key, missed_ns, update));
        (before, after.unwrap_or(before))
    }
}

/// Returns the time at which facts are last missing after an eviction: the kernel side does not
/// tell the next handshakes, because it has told one.
fn forgotten_at(evicted_ns: u64) -> u64 {
    evicted_ns.saturating_add(UNTOLD_NS)
}

impl DropTable {
    /// Adds the drop of the attempt to its record, if it is an ending that has a local port.
    pub fn complete(&mut self, record: &mut CompleteRecord, missed_ns: impl Fn([u8; 16]) -> u64) {
        let Some(client) = client_of(record) else {
            return;
        };
        let fields = Fields(record.as_slice());
        let began_ns = fields.u64(offset_of!(RawRecord, attempt.opening.started_ns));
        let mut drop = self.take(client, began_ns, missed_ns(client.0));
        if !is_of(&drop, &fields) {
            drop = RawWayDrop::NOTHING;
        }
        raw::add_drop(record, &drop);
    }
}

/// Returns true if the drop fits the attempt: a client in another namespace can have the same address
/// and port. A SYN is dropped before the attempt ends, and connection tracking knows what it asked
/// for.
fn is_of(drop: &RawWayDrop, fields: &Fields<'_>) -> bool {
    let at_ns = fields.u64(offset_of!(RawRecord, at_ns));
    let port = fields.u16(offset_of!(RawRecord, attempt.remote_port));
    let is_timely = drop.packet == DROPPED_SYN_ACK || drop.last_ns <= at_ns;
    let is_asked =
        drop.asked == [0; 16] || (drop.asked, drop.asked_port) == (remote_mapped(fields), port);
    is_timely && is_asked
}

/// Returns the client of an attempt that failed; `None` of other records.
#[must_use]
pub fn client_of(record: &CompleteRecord) -> Option<Client> {
    let fields = Fields(record.as_slice());
    let is_ending = fields.u8(offset_of!(RawRecord, kind)) == KIND_ENDING
        && fields.u8(offset_of!(RawRecord, version)) == RECORD_VERSION
        && fields.u8(offset_of!(RawRecord, state)) != STATE_ESTABLISHED;
    let port = fields.u16(offset_of!(RawRecord, local_port));
    let is_v4 = fields.u16(offset_of!(RawRecord, attempt.family)) == AF_INET;
    let addr = fields.array(offset_of!(RawRecord, attempt.local_addr));
    let isn_end = fields.u16(offset_of!(RawRecord, isn_end));
    (is_ending && port != 0).then(|| (mapped(addr, is_v4), drops::key_of(port, isn_end)))
}

/// Returns true for the ending of an attempt that its application closed unanswered after so many
/// nanoseconds, and of which no drop is known: its answer may still come.
#[must_use]
pub fn may_be_answered_late(record: &CompleteRecord, lasted_ns: &RangeInclusive<u64>) -> bool {
    let fields = Fields(record.as_slice());
    let began_ns = fields.u64(offset_of!(RawRecord, attempt.opening.started_ns));
    let lasted = fields
        .u64(offset_of!(RawRecord, at_ns))
        .saturating_sub(began_ns);
    lasted_ns.contains(&lasted)
        && fields.u32(offset_of!(RawRecord, error)) == 0
        && fields.u32(offset_of!(RawRecord, soft_error)) == 0
        && fields.u8(offset_of!(RawRecord, flags)) == 0
        && fields.u8(offset_of!(RawRecord, drops)) == 0
        && fields.u8(offset_of!(RawComplete, way_drop.packet)) == 0
        && fields.u32(offset_of!(RawRecord, syns_or_connects)) != 0
}

fn host_of(fields: &Fields<'_>) -> HostKey {
    let netns = fields.u32(offset_of!(RawRecord, attempt.netns));
    let mix = fields.u16(offset_of!(RawRecord, attempt.netns_mix));
    HostKey::new(
        u64::from(mix) << u32::BITS | u64::from(netns),
        remote_mapped(fields),
    )
}

/// Returns the destination, IPv4 v4-mapped.
fn remote_mapped(fields: &Fields<'_>) -> [u8; 16] {
    let is_v4 = fields.u16(offset_of!(RawRecord, attempt.family)) == AF_INET;
    mapped(
        fields.array(offset_of!(RawRecord, attempt.remote_addr)),
        is_v4,
    )
}

fn mapped(addr: [u8; 16], is_v4: bool) -> [u8; 16] {
    let [a, b, c, d, ..] = addr;
    if is_v4 {
        conntrace_common::filter::mapped([a, b, c, d])
    } else {
        addr
    }
}

/// Returns the fact that a record shows of its host.
///
/// A received segment counts as a RST or handshake only if this host dropped no packet, because a
/// local REJECT rule drops the packet before it answers. A packet that was dropped may have been an
/// answer, and so may an ICMP error from nobody: the host is not silent. An attempt without a SYN
/// retransmission ended too early to count as silence. A connection that `TCP_REPAIR` restored has
/// received nothing.
fn update_of(fields: &Fields<'_>) -> Option<HostUpdate> {
    let flags = fields.u8(offset_of!(RawRecord, flags));
    let error = fields.u32(offset_of!(RawRecord, error));
    let retransmitted = fields.u32(offset_of!(RawRecord, syn_retransmitted));
    let is_heard = flags & FLAG_HEARD != 0;
    let fact = if fields.u8(offset_of!(RawRecord, state)) == STATE_ESTABLISHED {
        if !is_heard {
            return None;
        }
        HostFact::Handshake
    } else if fields.u8(offset_of!(RawRecord, drops)) != 0 {
        HostFact::Heard
    } else if is_heard {
        let by_reset = error == ECONNREFUSED || error == ECONNRESET;
        if by_reset && flags & FLAG_ICMP == 0 {
            HostFact::Reset
        } else {
            HostFact::Heard
        }
    } else if flags & FLAG_ICMP != 0 {
        let is_v4 = fields.u8(offset_of!(RawRecord, icmp_origin)) == ORIGIN_ICMP;
        let from: [u8; 16] = fields.array(offset_of!(RawRecord, icmp_from));
        if from != [0; 16] && mapped(from, is_v4) != remote_mapped(fields) {
            // A router answered.
            return None;
        }
        HostFact::Heard
    } else if error == ECONNREFUSED {
        // An ICMP error of which no more is known.
        HostFact::Heard
    } else if retransmitted != 0
        && fields.u32(offset_of!(RawRecord, soft_error)) == 0
        && (error == 0 || error == ETIMEDOUT)
    {
        HostFact::Silence
    } else {
        return None;
    };
    Some(HostUpdate {
        fact,
        at_ns: fields.u64(offset_of!(RawRecord, at_ns)),
        started_ns: fields.u64(offset_of!(RawRecord, attempt.opening.started_ns)),
        port: fields.u16(offset_of!(RawRecord, attempt.remote_port)),
        is_whole: flags & (FLAG_JOINED_LATE | FLAG_UNTRACKED) == 0,
    })
}
