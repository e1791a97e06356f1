//! Updates the host table with each attempt, and adds the cached facts to its record.
//!
//! Only attempts that match the filters update the table. The silence of an attempt is stored
//! before its record is filled, an answer afterwards: an answer is no evidence about the attempt
//! itself. Each fact is stored at most once a second, so that a connection costs one lookup.
//!
//! If two CPUs write to the same set, one succeeds, and the other records a dropped fact.

use conntrace_common::{
    claim::{Claimable, claim},
    hosts::{HostBucket, HostFact, HostKey, HostScratch, HostUpdate},
    record::{
        FLAG_HEARD, FLAG_ICMP, FLAG_JOINED_LATE, FLAG_UNTRACKED, RawRecord, STATE_ESTABLISHED,
    },
};

use crate::{
    attempt_table::StartedAttempt,
    kernel::{self, KernelSock},
    maps::{hash_secret, host_set},
    report::AttemptEvent,
    sync::{self, load, store},
};

/// Errno that `tcp_reset` sets for a RST in `SYN_SENT`; in `SYN_RECV` it sets `ECONNRESET`.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;

/// Set of host slots that must be claimed before a write.
#[repr(C)]
pub struct HostSet {
    /// Number of claims: that of the writer, and for a moment those of others.
    claims: u32,
    reserved: u32,
    set: HostBucket,
}

impl Claimable for HostSet {
    #[inline(always)]
    fn claims(&self) -> u32 {
        sync::load(&self.claims)
    }

    #[inline(always)]
    fn add_claims(&mut self, count: u32) {
        sync::add(&mut self.claims, count);
    }
}

/// Returns the key of the socket's remote host in its network namespace.
#[inline(always)]
pub fn key_of(sock: KernelSock) -> HostKey {
    HostKey::new(sock.netns_for_good(), sock.remote_addr_mapped())
}

/// Caches a completed handshake that has no record. The time is left 0 and read only if the fact
/// is stored, because reading the clock takes longer than all the rest.
#[inline(always)]
pub fn answered(sock: KernelSock, began: &StartedAttempt, work: &mut HostScratch) {
    work.fact = HostUpdate {
        at_ns: 0,
        started_ns: began.at_ns,
        news: HostFact::Handshake,
        port: sock.remote_port(),
        is_whole: u16::from(began.is_seen),
    };
    work.key = key_of(sock);
    visit(work);
    if load(&work.is_news) != 0 {
        visit_network(work);
    }
}

/// Stores the fact that the record reveals about its host, and adds the cached facts to the
/// record.
#[inline(always)]
pub fn remember(record: &mut RawRecord, moment: &AttemptEvent, work: &mut HostScratch) {
    work.fact = HostUpdate {
        at_ns: record.at_ns,
        started_ns: record.attempt.started_ns,
        news: news(record, moment),
        port: record.attempt.remote_port,
        is_whole: u16::from(record.flags & (FLAG_JOINED_LATE | FLAG_UNTRACKED) == 0),
    };
    visit(work);
    let told = &mut record.remembered;
    work.tell_to(told);
    // If the host has answered before, its network has answered as well.
    if load(&work.heard_ns) != 0 && load(&work.is_news) == 0 {
        return;
    }
    if visit_network(work).is_some() {
        let of_network = &work.told;
        store(
            &mut told.network_silent_since_ns,
            load(&of_network.silent_since_ns),
        );
        let forgotten_ns = load(&of_network.forgotten_ns).max(load(&told.forgotten_ns));
        store(&mut told.forgotten_ns, forgotten_ns);
    }
}

/// Returns the fact that a record reveals about its host.
///
/// A received segment counts only if this host dropped no packet, because a local REJECT rule
/// drops the packet before it answers. An attempt without a SYN retransmission ended too early
/// to count as silence.
#[inline(always)]
fn news(record: &RawRecord, moment: &AttemptEvent) -> HostFact {
    let by_reset = record.error == ECONNREFUSED || record.error == ECONNRESET;
    let by_timeout = record.error == 0 || record.error == ETIMEDOUT;
    if moment.state == STATE_ESTABLISHED {
        HostFact::Handshake
    } else if record.drops != 0 {
        HostFact::None
    } else if record.flags & FLAG_HEARD != 0 {
        if by_reset && record.flags & FLAG_ICMP == 0 {
            HostFact::Reset
        } else {
            HostFact::Heard
        }
    } else if record.flags & FLAG_ICMP == 0
        && record.syn_retransmitted != 0
        && record.soft_error == 0
        && by_timeout
    {
        HostFact::Silence
    } else {
        HostFact::None
    }
}

/// Looks up and updates the host's private network, if it has one.
#[inline(always)]
fn visit_network(work: &mut HostScratch) -> Option<()> {
    work.key = work.key.network()?;
    let news = load(&work.fact.news);
    if news == HostFact::Handshake || news == HostFact::Reset {
        store(&mut work.fact.news, HostFact::Heard);
    }
    visit(work);
    Some(())
}

/// Looks up a host, prepares the report, and stores the fact. Silence is stored before the
/// report, an answer afterwards.
///
/// Not inlined, because the programs would contain it a dozen times. It returns nothing: the
/// verifier of Linux 6.1 would otherwise check all following code for each result.
#[inline(never)]
fn visit(work: &mut HostScratch) {
    let key = work.key;
    let Some(place) = host_set(key.set(hash_secret())) else {
        // Cannot happen: the index is within the table.
        return work.tell_nothing();
    };
    place.set.look(&key, load(&work.fact.at_ns), work);
    // Without a record there is no report.
    if load(&work.fact.at_ns) != 0 {
        work.tell(place.set.missed_ns());
    }
    let heard_ns = load(&work.known.heard_ns);
    store(&mut work.heard_ns, heard_ns);
    store(&mut work.is_news, 0);
    if !work.known.lacks(&work.fact) {
        return;
    }
    store(&mut work.is_news, 1);
    if load(&work.fact.at_ns) == 0 {
        store(&mut work.fact.at_ns, kernel::now_ns());
    }
    if claim(place) {
        place.set.note(&key, work);
        place.add_claims(u32::MAX);
    } else {
        place.set.miss(load(&work.fact.at_ns));
    }
    if load(&work.fact.news) == HostFact::Silence {
        work.tell(place.set.missed_ns());
    }
}
