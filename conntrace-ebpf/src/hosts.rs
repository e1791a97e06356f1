//! What is remembered of other hosts: whether, when and on which port one answered.
//!
//! It is told with every record, for causes, and learned from the attempts that pass the
//! filters. Each half of it is noted once a second at most: a connection costs a look.
//!
//! A table of its own, for the kernel's LRU map takes longer to look into. What two CPUs
//! write at once is written by one or by none, and who reads meanwhile has heard nothing.

use conntrace_common::{
    claim::{self, Claims, Versioned},
    record::{
        FLAG_HEARD, FLAG_ICMP, Heard, KIND_ENDING, Record, STATE_ESTABLISHED, pack, packed_ns,
    },
};

use crate::{
    emit::Moment,
    hash,
    kernel::{self, Sock},
    maps::host_place,
    shared,
};

/// How long what was noted is not noted again, whatever the port.
const FRESH_NS: u64 = 1_000_000_000;

/// What `tcp_reset` makes of a RST in `SYN_SENT`, and in `SYN_RECV`.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;

/// A host as one network namespace sees it: that one's inode number, which a later one may
/// have, and its random bits, which that one has not; then the address, an IPv4 one
/// v4-mapped, whatever the socket's family.
#[derive(Clone, Copy)]
pub struct Host([u64; 3]);

/// Where one host is kept. Words, for they are read and written one by one.
#[repr(C)]
pub struct Place {
    /// How many have claimed it to write.
    claims: u32,
    /// How often it was written.
    version: u32,
    host: [u64; 3],
    /// A handshake and a RST, each with its port.
    heard: [u64; 2],
}

impl Claims for Place {
    #[inline(always)]
    fn claims(&self) -> u32 {
        shared::load(&self.claims)
    }

    #[inline(always)]
    fn add_claims(&mut self, count: u32) {
        shared::add(&mut self.claims, count);
    }
}

impl Versioned for Place {
    #[inline(always)]
    fn version(&self) -> u32 {
        shared::load(&self.version)
    }

    #[inline(always)]
    fn set_version(&mut self, version: u32) {
        shared::store(&mut self.version, version);
    }
}

impl Host {
    /// The socket's other side.
    #[inline(always)]
    pub fn of(sock: Sock) -> Self {
        let [first, second] = hash::words_of(sock.remote_addr_mapped());
        Self([sock.netns_for_good(), first, second])
    }

    #[inline(always)]
    fn place(&self) -> Option<&'static mut Place> {
        host_place(hash::of_words(self.0))
    }

    /// What was heard of it: the words of [`Place::heard`].
    #[inline(always)]
    fn heard(&self) -> Option<[u64; 2]> {
        let look = |place: &Place| {
            let is_other = place.host.iter().zip(&self.0);
            let is_other = is_other.fold(0, |other, (at, own)| other | (shared::load(at) ^ own));
            (is_other == 0).then(|| place.heard.each_ref().map(shared::load))
        };
        claim::read(self.place()?, look)?
    }

    /// Tells what was heard of it; leaves what says that nothing was.
    #[inline(always)]
    pub fn tell(&self, told: &mut Heard) {
        // Into memory, in which the verifier follows no value: with each that it had to
        // follow, it would go anew through all that comes behind.
        if let Some([handshake, reset]) = self.heard() {
            shared::store(&mut told.handshake, handshake);
            shared::store(&mut told.reset, reset);
        }
    }

    /// Notes the whole of it: another host may have had the place. Should two CPUs note
    /// the two halves at once, one of them is kept.
    #[inline(always)]
    fn note(&self, heard: [u64; 2]) {
        if let Some(place) = self.place() {
            claim::write(place, |place| {
                store_all(&mut place.host, self.0);
                store_all(&mut place.heard, heard);
            });
        }
    }
}

#[inline(always)]
fn store_all<const N: usize>(place: &mut [u64; N], words: [u64; N]) {
    for (place, word) in place.iter_mut().zip(words) {
        shared::store(place, word);
    }
}

/// A handshake completed of which there is no record, of an attempt that began then: to
/// look at the clock takes longer than all the rest, and is for the few that are noted.
#[inline(always)]
pub fn answered(sock: Sock, started_ns: u64) {
    let host = Host::of(sock);
    let [handshake, reset] = host.heard().unwrap_or_default();
    if is_due(handshake, started_ns) {
        host.note([pack(kernel::now_ns(), sock.remote_port()), reset]);
    }
}

/// Takes from the record of a moment what it says of its host.
#[inline(always)]
pub fn learn(host: &Host, record: &Record, moment: &Moment) {
    if moment.kind != KIND_ENDING {
        return;
    }
    let before = &record.remembered;
    let now_ns = record.at_ns;
    let now = pack(now_ns, record.attempt.remote_port);
    if moment.state == STATE_ESTABLISHED {
        if is_due(shared::load(&before.handshake), now_ns) {
            host.note([now, shared::load(&before.reset)]);
        }
    } else if is_reset(record) && is_due(shared::load(&before.reset), now_ns) {
        host.note([shared::load(&before.handshake), now]);
    }
}

/// Whether a RST of that host ended the attempt: a segment came and no ICMP error, and
/// this host dropped no packet, which a rule of its own that rejects does before it
/// answers.
#[inline(always)]
fn is_reset(record: &Record) -> bool {
    // Each 0 as it should be, for want of branches.
    let error = (record.error ^ ECONNREFUSED).wrapping_mul(record.error ^ ECONNRESET);
    let answer = (record.flags & (FLAG_HEARD | FLAG_ICMP)) ^ FLAG_HEARD;
    error | u32::from(answer | record.drops) == 0
}

#[inline(always)]
fn is_due(noted: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(packed_ns(noted)) >= FRESH_NS
}
