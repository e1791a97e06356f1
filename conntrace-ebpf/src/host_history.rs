//! Updates the host table with each attempt, and adds the cached facts to its record.
//!
//! Only attempts that match the filters update the table. The silence of an attempt is stored
//! before its record is filled, an answer afterwards: an answer is no evidence about the attempt
//! itself. Each fact is stored at most once a second, so that a connection costs one lookup.
//!
//! If two CPUs write to the same set, one succeeds, and the other records a dropped fact.

use conntrace_common::{
    claim::{Claimable, claim, release},
    hosts::{HostBucket, HostFact, HostKey, HostScratch},
    record::{
        FLAG_HEARD, FLAG_ICMP, FLAG_JOINED_LATE, FLAG_UNTRACKED, RawRecord, STATE_ESTABLISHED,
    },
};

use crate::{
    kernel::{self, KernelSock},
    maps::{hash_secret, host_set},
    sync::{self, load, store},
};

/// Errno that `tcp_reset` sets for a RST in `SYN_SENT`; in `SYN_RECV` it sets `ECONNRESET`.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;

/// Set of host slots that must be claimed before a write.
#[repr(C)]
pub struct HostSet {
    /// Claim word (`conntrace_common::claim`).
    claims: u64,
    set: HostBucket,
}

impl Claimable for HostSet {
    #[inline(always)]
    fn claims(&self) -> u64 {
        sync::load(&self.claims)
    }

    #[inline(always)]
    fn add_claims(&mut self, count: u64) {
        sync::add_word(&mut self.claims, count);
    }
}

/// Returns the key of the socket's remote host in its network namespace.
#[inline(always)]
pub fn key_of(sock: KernelSock) -> HostKey {
    HostKey::of_words(sock.netns_for_good(), sock.remote_words_mapped())
}

/// Caches a completed handshake that has no record. The time is left 0 and read only if the fact
/// is stored, because reading the clock takes longer than all the rest.
#[inline(always)]
pub fn answered(sock: KernelSock, work: &mut HostScratch) {
    work.key = key_of(sock);
    let key = work.key;
    let port = sock.remote_port();
    let started_ns = load(&work.fact.started_ns);
    let place = host_set(key.set(hash_secret()));
    if place.is_some_and(|place| place.set.knows_handshake(&key, port, started_ns)) {
        return;
    }
    store(&mut work.fact.at_ns, 0);
    store(&mut work.fact.news, HostFact::Handshake);
    store(&mut work.fact.port, port);
    visit(work);
    if load(&work.is_news) != 0 {
        visit_network(work);
    }
}

/// Stores the fact that the record reveals about its host, and adds the cached facts to the
/// record.
#[inline(always)]
pub fn remember(record: &mut RawRecord, is_often: bool, work: &mut HostScratch) {
    let whole = load(&record.flags) & (FLAG_JOINED_LATE | FLAG_UNTRACKED) == 0;
    // In memory, where the verifier does not tell apart the values of a fact.
    store(&mut work.fact.at_ns, load(&record.at_ns));
    store(
        &mut work.fact.started_ns,
        load(&record.attempt.opening.started_ns),
    );
    store(&mut work.fact.news, news(record));
    store(&mut work.fact.port, load(&record.attempt.remote_port));
    store(&mut work.fact.is_whole, u16::from(whole));
    if is_often {
        let key = work.key;
        let place = host_set(key.set(hash_secret()));
        if place.is_some_and(|place| place.set.recall(&key, &work.fact, &mut record.remembered)) {
            return;
        }
    }
    visit(work);
    let told = &mut record.remembered;
    store(&mut told.network_silent_since_ns, 0);
    store(&mut told.reserved, 0);
    if load(&work.is_news) == 0 {
        work.tell_found(told);
        // If the host has answered before, its network has answered as well.
        if load(&work.heard_ns) != 0 {
            return;
        }
    } else {
        work.tell_to(told);
    }
    if visit_network(work).is_some() {
        let of_network = if load(&work.is_news) == 0 {
            (
                load(&work.known.silent_since_ns),
                load(&work.known.forgot_ns).max(load(&work.missed_ns)),
            )
        } else {
            (
                load(&work.told.silent_since_ns),
                load(&work.told.forgotten_ns),
            )
        };
        store(&mut told.network_silent_since_ns, of_network.0);
        let forgotten_ns = of_network.1.max(load(&told.forgotten_ns));
        store(&mut told.forgotten_ns, forgotten_ns);
    }
}

/// Records that an answer of the socket's host may have come and was not stored, so that nothing is
/// taken for absent: neither of the host nor of its private network.
#[inline(always)]
pub fn miss(sock: KernelSock) {
    let key = key_of(sock);
    miss_of(&key);
    if let Some(network) = key.network() {
        miss_of(&network);
    }
}

#[inline(never)]
fn miss_of(key: &HostKey) {
    if let Some(place) = host_set(key.set(hash_secret())) {
        place.set.miss(kernel::now_ns());
    }
}

/// Fills in a history without facts, any of which may have been forgotten.
#[inline(always)]
pub fn leave_unknown(record: &mut RawRecord) {
    let at_ns = load(&record.at_ns);
    let told = &mut record.remembered;
    store(&mut told.handshake, 0);
    store(&mut told.port_handshake_ns, 0);
    store(&mut told.reset, 0);
    store(&mut told.silent_since_ns, 0);
    store(&mut told.network_silent_since_ns, 0);
    store(&mut told.forgotten_ns, at_ns);
    store(&mut told.handshake_took_us, 0);
    store(&mut told.reserved, 0);
}

/// Returns the fact that a record reveals about its host.
///
/// A received segment counts only if this host dropped no packet, because a local REJECT rule
/// drops the packet before it answers. An attempt without a SYN retransmission ended too early
/// to count as silence.
#[inline(always)]
fn news(record: &RawRecord) -> HostFact {
    if load(&record.state) == STATE_ESTABLISHED {
        return HostFact::Handshake;
    }
    if load(&record.drops) != 0 {
        return HostFact::None;
    }
    let (flags, error) = (load(&record.flags), load(&record.error));
    if flags & FLAG_HEARD != 0 {
        let by_reset = error == ECONNREFUSED || error == ECONNRESET;
        if by_reset && flags & FLAG_ICMP == 0 {
            return HostFact::Reset;
        }
        return HostFact::Heard;
    }
    if load(&record.syn_retransmitted) == 0 || flags & FLAG_ICMP != 0 {
        return HostFact::None;
    }
    if load(&record.soft_error) == 0 && (error == 0 || error == ETIMEDOUT) {
        return HostFact::Silence;
    }
    HostFact::None
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
    store(&mut work.is_news, 0);
    let Some(place) = host_set(key.set(hash_secret())) else {
        // Cannot happen: the index is within the table.
        return work.find_nothing();
    };
    place.set.look(&key, load(&work.fact.at_ns), work);
    store(&mut work.missed_ns, place.set.missed_ns());
    let heard_ns = load(&work.known.heard_ns);
    store(&mut work.heard_ns, heard_ns);
    if !work.known.lacks(&work.fact) {
        return;
    }
    store(&mut work.is_news, 1);
    // Without a record there is no report.
    if load(&work.fact.at_ns) != 0 {
        work.tell(load(&work.missed_ns));
    } else {
        store(&mut work.fact.at_ns, kernel::now_ns());
    }
    if claim(place).is_some() {
        place.set.note(&key, work);
        release(place);
    } else {
        place.set.miss(load(&work.fact.at_ns));
    }
    if load(&work.fact.news) == HostFact::Silence {
        work.tell(place.set.missed_ns());
    }
}
