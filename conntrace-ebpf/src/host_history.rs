//! The memory of hosts, as the programs use it: what an attempt tells of its host, and what
//! its record is told.
//!
//! It is told with every record, for causes, and learned from the attempts that pass the
//! filters. The silence of an attempt is noted before its record is told, an answer
//! afterwards: so an answer is no evidence about the attempt itself. Each fact is noted once a
//! second at most: a connection costs a look.
//!
//! Two CPUs that write a set at once: one does, and the other leaves a mark in it.

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

/// What `tcp_reset` makes of a RST in `SYN_SENT`, and in `SYN_RECV`.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;

/// A set that is claimed before it is written.
#[repr(C)]
pub struct HostSet {
    /// How many have claimed it to write.
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

/// The socket's other side, in its network namespace.
#[inline(always)]
pub fn key_of(sock: KernelSock) -> HostKey {
    HostKey::new(sock.netns_for_good(), sock.remote_addr_mapped())
}

/// A handshake completed of which there is no record. To look at the clock takes longer than
/// all the rest, and is for the few that are noted.
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

/// Notes what the record of a moment says of its host, and tells it what is remembered.
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
    // The network of a host that was heard was heard as well.
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

/// What the record of a moment says of its host. A segment is its own if this host dropped no
/// packet, which a rule that rejects does before it answers. An attempt that was given up
/// before the SYN was sent again has not listened for long enough to tell of silence.
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

/// Visits the place of the host's network, if it is in one, as the host's own.
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

/// Finds out what is known of a host and notes the fact, silence before and an answer
/// afterwards. A function of its own, or the programs would have it a dozen times; it returns
/// nothing, for Linux 6.1 would have to follow all else to follow that.
#[inline(never)]
fn visit(work: &mut HostScratch) {
    let key = work.key;
    let Some(place) = host_set(key.set(hash_secret())) else {
        // It cannot be: the table has it.
        return work.tell_nothing();
    };
    place.set.look(&key, load(&work.fact.at_ns), work);
    // Without a record there is nobody to tell it to.
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
