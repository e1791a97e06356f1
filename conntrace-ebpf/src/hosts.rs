//! What is remembered of other hosts: whether, when and on which port one answered.
//!
//! It is told with every record, for causes, and learned from the attempts that pass the
//! filters. Each half of it is noted once a second at most: a connection costs a lookup.

use aya_ebpf::bindings::BPF_ANY;
use conntrace_common::record::{
    FLAG_HEARD, FLAG_ICMP, Heard, KIND_ENDING, Record, STATE_ESTABLISHED,
};

use crate::{
    emit::Moment,
    kernel::{self, Sock},
    maps::{HOSTS, heard},
};

/// How long what was noted is not noted again, whatever the port.
const FRESH_NS: u64 = 1_000_000_000;

/// What `tcp_reset` makes of a RST in `SYN_SENT`, and in `SYN_RECV`.
const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;

/// A host as one network namespace sees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Host {
    /// Its inode number, which a later one may have.
    netns: u32,
    /// Which that one has not.
    netns_mix: u32,
    /// An IPv4 address is v4-mapped, whatever the socket's family.
    addr: [u8; 16],
}

const _: () = assert!(size_of::<Host>() == 24);

impl Host {
    /// The socket's other side. Without a branch, as all that every record goes
    /// through: the verifier follows each way into one by itself.
    #[inline(always)]
    pub fn of(sock: Sock) -> Self {
        Self {
            netns: sock.netns(),
            netns_mix: sock.netns_mix(),
            addr: sock.remote_addr_mapped(),
        }
    }
}

/// A handshake completed of which there is no record.
#[inline(always)]
pub fn answered(sock: Sock) {
    let host = Host::of(sock);
    handshake(&host, heard(&host), sock.remote_port(), kernel::now_ns());
}

/// Takes from the record of a moment what it says of its host.
#[inline(always)]
pub fn learn(host: &Host, record: &Record, moment: &Moment) {
    let heard = record.remembered;
    let now_ns = record.at_ns;
    if moment.kind != KIND_ENDING {
        return;
    }
    if moment.state == STATE_ESTABLISHED {
        handshake(host, heard, record.attempt.remote_port, now_ns);
    } else if is_reset(record) && is_due(heard.reset_ns, now_ns) {
        let reset_ns = now_ns;
        note(host, &Heard { reset_ns, ..heard });
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
fn handshake(host: &Host, heard: Heard, port: u16, now_ns: u64) {
    if is_due(heard.handshake_ns, now_ns) {
        let heard = Heard {
            handshake_ns: now_ns,
            handshake_port: port,
            ..heard
        };
        note(host, &heard);
    }
}

#[inline(always)]
fn is_due(noted_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(noted_ns) >= FRESH_NS
}

/// As a whole: what lies at a place that was looked up may be another host's by now.
/// Should two CPUs note the two halves at once, the later one is kept.
#[inline(always)]
fn note(host: &Host, heard: &Heard) {
    // No room on this CPU right now: the next one is noted.
    let _ = HOSTS.insert(host, heard, u64::from(BPF_ANY));
}
