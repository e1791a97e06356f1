//! Tests of the memory of remote hosts: of one set, of the table with records, and of the table with
//! the kernel side that tells it answers.

mod both_sides;
mod set;
mod table;

use std::{
    array,
    net::{IpAddr, Ipv4Addr},
};

use conntrace_common::{
    answers::AnswerBucket,
    hash,
    record::{ORIGIN_ICMP6, RECORD_SIZE, STATE_CLOSE, STATE_SYN_SENT},
};

use super::{
    facts::LATELY_NS,
    raw::{pack, packed_ns, packed_port},
    set::{WAYS, WAYS_OF_ONE},
    *,
};
use crate::record::{HostTimes, decode};

const SECOND_NS: u64 = 1_000_000_000;
/// Start time of the tests, long after boot.
const NOW_NS: u64 = 10_000 * SECOND_NS;
const NETNS: u64 = 0x5678_f000_0001;
const OTHER_NETNS: u64 = 0x4321_f000_0002;
const PORT: u16 = 443;
/// Secret of the tests.
const SECRET: HashSecret = HashSecret::new([3, 5 << 40 | 9, 7 << 50 | 11]);

fn key(netns: u64, addr: &str) -> HostKey {
    let addr = match addr.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    HostKey::new(netns, addr.octets())
}

/// Namespace of the records: inode number, random bits, and both.
const NETNS_INODE: u32 = 0xf000_0003;
const NETNS_MIX: u16 = 0x9abc;
const NETNS_OF_RECORDS: u64 = 0x9abc_f000_0003;

/// Returns the record of an attempt that began 5 ms before its end.
fn record(kind: u8, state: u8, addr: &str, at_ns: u64, fields: &[(usize, &[u8])]) -> WireRecord {
    let (family, addr) = match addr.parse().unwrap() {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    let mut bytes = [0; RECORD_SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(offset_of!(RawRecord, kind), &[kind]);
    put(offset_of!(RawRecord, state), &[state]);
    put(offset_of!(RawRecord, version), &[RECORD_VERSION]);
    put(offset_of!(RawRecord, at_ns), &at_ns.to_ne_bytes());
    let started_ns = at_ns - 5_000_000;
    put(STARTED, &started_ns.to_ne_bytes());
    let at = offset_of!(RawRecord, attempt.family);
    put(at, &family.to_ne_bytes());
    put(offset_of!(RawRecord, attempt.remote_addr), &addr);
    let at = offset_of!(RawRecord, attempt.remote_port);
    put(at, &PORT.to_be_bytes());
    let at = offset_of!(RawRecord, attempt.netns);
    put(at, &NETNS_INODE.to_ne_bytes());
    let at = offset_of!(RawRecord, attempt.netns_mix);
    put(at, &NETNS_MIX.to_ne_bytes());
    for (at, value) in fields {
        put(*at, value);
    }
    bytes
}

const STARTED: usize = offset_of!(RawRecord, attempt.opening.started_ns);
const ICMP_ORIGIN: usize = offset_of!(RawRecord, icmp_origin);
const ICMP_FROM: usize = offset_of!(RawRecord, icmp_from);
const ERROR: usize = offset_of!(RawRecord, error);
const FLAGS: usize = offset_of!(RawRecord, flags);
const RETRANSMITTED: usize = offset_of!(RawRecord, syn_retransmitted);

fn refused(addr: &str, at_ns: u64) -> WireRecord {
    let error = ECONNREFUSED.to_ne_bytes();
    let fields = [(ERROR, &error[..]), (FLAGS, &[FLAG_HEARD])];
    record(KIND_ENDING, STATE_CLOSE, addr, at_ns, &fields)
}

fn silent(addr: &str, at_ns: u64) -> WireRecord {
    let retransmitted = 1_u32.to_ne_bytes();
    let fields = [(RETRANSMITTED, &retransmitted[..])];
    record(KIND_ENDING, STATE_CLOSE, addr, at_ns, &fields)
}

fn stalled(addr: &str, at_ns: u64) -> WireRecord {
    let retransmitted = 1_u32.to_ne_bytes();
    let fields = [(RETRANSMITTED, &retransmitted[..])];
    record(KIND_STALL, STATE_SYN_SENT, addr, at_ns, &fields)
}

fn answered(addr: &str, at_ns: u64) -> WireRecord {
    let fields = [(FLAGS, &[FLAG_HEARD][..])];
    record(KIND_ANSWER, STATE_ESTABLISHED, addr, at_ns, &fields)
}
