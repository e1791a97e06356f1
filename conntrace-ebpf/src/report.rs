//! Reserves, fills and submits records, or returns the counter of a lost one.

use core::mem::MaybeUninit;

use conntrace_common::{
    counters::Counter,
    hash::addr_of,
    hosts::HostScratch,
    record::{
        FLAG_DEFERRED, FLAG_HEARD, FLAG_ICMP, KIND_CONNECTS, ORIGIN_ICMP6, RECORD_SIZE, RawAttempt,
        RawRecord, STATE_CLOSE, STATE_SYN_SENT,
    },
};

use crate::{
    host_history,
    kernel::{self, KernelSock},
    maps::{AttemptEntry, ICMP6_ERRORS, RECORDS},
};

/// Event of an attempt that is reported as a record.
pub struct AttemptEvent {
    pub sock: KernelSock,
    pub kind: u8,
    pub state: u8,
}

/// Reports the event, and returns the counter to increase.
#[inline(always)]
pub fn report(entry: &AttemptEntry, moment: &AttemptEvent, work: &mut HostScratch) -> Counter {
    let Some(mut slot) = RECORDS.reserve::<RawRecord>(0) else {
        return Counter::RingFull;
    };
    fill(&mut slot, entry, moment, work);
    slot.submit(0);
    Counter::Endings
}

/// Reports a call that returned this errno before the socket changed its state, and returns the
/// counter to increase. `fill` writes the zeroed attempt in the ring, because it does not fit on
/// the stack.
#[inline(always)]
pub fn report_call(kind: u8, errno: u32, fill: impl FnOnce(&mut RawAttempt)) -> Counter {
    let Some(mut slot) = RECORDS.reserve::<RawRecord>(0) else {
        return Counter::CallRingFull;
    };
    let record = zeroed(&mut slot);
    fill(&mut record.attempt);
    record.at_ns = kernel::now_ns();
    record.error = errno;
    record.local_port = record.attempt.bound_port.to_be();
    record.kind = kind;
    record.state = STATE_CLOSE;
    slot.submit(0);
    Counter::CallFailed
}

/// Reports a hint: the number of recent connects to the attempt's destination. If the ring is
/// full, the hint is dropped without being counted: it is no ending, and the next one follows
/// soon.
#[inline(always)]
pub fn report_connects(attempt: &RawAttempt, count: u32) {
    let Some(mut slot) = RECORDS.reserve::<RawRecord>(0) else {
        return;
    };
    let record = zeroed(&mut slot);
    record.attempt = *attempt;
    record.at_ns = attempt.started_ns;
    record.syns_or_connects = count;
    record.kind = KIND_CONNECTS;
    record.state = STATE_SYN_SENT;
    slot.submit(0);
}

/// Clears a record in the ring. It is filled there, because it does not fit on the stack.
#[inline(always)]
#[expect(unsafe_code, reason = "a ring slot is uninitialised memory")]
fn zeroed(slot: &mut MaybeUninit<RawRecord>) -> &mut RawRecord {
    let words = slot.as_mut_ptr().cast::<u64>();
    for word in 0..RECORD_SIZE / size_of::<u64>() {
        // SAFETY: a record is that many words. The write is volatile, or the compiler would call
        // memset, which writes single bytes on this target and takes 50 ns.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: all zeroes are a valid `RawRecord`.
    unsafe { slot.assume_init_mut() }
}

#[inline(always)]
fn fill(
    slot: &mut MaybeUninit<RawRecord>,
    entry: &AttemptEntry,
    moment: &AttemptEvent,
    work: &mut HostScratch,
) {
    let record = zeroed(slot);
    let sock = moment.sock;
    // Before the branches below, so that the verifier checks it only once.
    work.key = host_history::key_of(sock);
    record.attempt = entry.attempt;
    record.at_ns = kernel::now_ns();
    record.syns_or_connects = sock.segs_out().wrapping_sub(entry.segs_out_before);
    record.syn_retransmitted = sock
        .total_retrans()
        .wrapping_sub(entry.total_retrans_before);
    record.error = error(entry, sock, record.syns_or_connects);
    record.soft_error = since(sock.soft_error(), entry.soft_error_before);
    record.local_port = local_port(entry, sock.sport(), record.syns_or_connects);
    record.rto_count = sock.rto_count();
    record.kind = moment.kind;
    record.state = moment.state;
    record.flags = entry.seen;
    record.drops = entry.drops;
    record.drop_reason = entry.drop_reason;
    if sock.segs_in() != entry.segs_in_before {
        record.flags |= FLAG_HEARD;
    }
    if sock.deferred() {
        record.flags |= FLAG_DEFERRED;
    }
    if entry.icmp6 != 0 {
        fill_icmp6(record, moment.sock.key());
    } else if let Some(icmp) = sock.icmp_since(entry.error_queue_before) {
        record.flags |= FLAG_ICMP;
        record.icmp_origin = icmp.origin;
        record.icmp_errno = icmp.errno();
        record.icmp_type = icmp.icmp_type();
        record.icmp_code = icmp.code();
        record.icmp_from = icmp.from();
    }
    host_history::remember(record, moment, work);
}

/// Adds the ICMPv6 error that was received for this socket.
#[inline(always)]
fn fill_icmp6(record: &mut RawRecord, key: u64) {
    let Some(error) = ICMP6_ERRORS.get_ptr(key) else {
        return;
    };
    #[expect(unsafe_code, reason = "a map value is handed out as a pointer")]
    // SAFETY: the value is only ever replaced as a whole. If an error of another socket replaces
    // it meanwhile, the value is still a valid error.
    let error = unsafe { &*error };
    record.flags |= FLAG_ICMP;
    record.icmp_origin = ORIGIN_ICMP6;
    record.icmp_errno = error.errno;
    record.icmp_type = error.icmp_type;
    record.icmp_code = error.code;
    record.icmp_from = addr_of(error.from);
}

/// Returns `sk_err` if this attempt set it. `tcp_connect_init` clears an old value, but has not
/// run if there was no SYN.
#[inline(always)]
fn error(entry: &AttemptEntry, sock: KernelSock, syn_sent: u32) -> u32 {
    if syn_sent == 0 {
        since(sock.error(), entry.error_before)
    } else {
        sock.error()
    }
}

/// Returns `now` if it was set since the attempt began, else 0.
#[inline(always)]
fn since(now: u32, before: u16) -> u32 {
    if now == u32::from(before) { 0 } else { now }
}

/// Returns the local port if this attempt has one. `inet_sport` keeps the last attempt's value
/// until the port search (`inet_hash_connect`) succeeds. Without a SYN, an unchanged value is
/// therefore old.
#[inline(always)]
fn local_port(entry: &AttemptEntry, sport: u16, syn_sent: u32) -> u16 {
    if entry.attempt.bound_port != 0 || syn_sent != 0 || sport != entry.sport_before {
        sport
    } else {
        0
    }
}
