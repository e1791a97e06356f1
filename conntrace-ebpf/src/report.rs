//! Reserves, fills and submits records, or returns the counter of a lost one.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use conntrace_common::{
    counters::Counter,
    drops::{DROPPED_SYN, DROPPED_SYN_ACK, RawDrop},
    hash::addr_of,
    record::{
        FLAG_DEFERRED, FLAG_HEARD, FLAG_ICMP, KIND_ANSWER, KIND_CONNECTS, OPENING_SIZE,
        ORIGIN_ICMP6, RECORD_SIZE, RECORD_VERSION, RawAttempt, RawOpening, RawRecord, STATE_CLOSE,
        STATE_SYN_SENT,
    },
};

use crate::{
    answers,
    kernel::{self, DroppedPacket, KernelSock},
    maps::{AttemptEntry, Before, ICMP6_ERRORS, Notes, RECORDS, RING_SIZE, is_to_be_woken},
    sync::{load, store},
};

/// Errno of an attempt that the kernel gives up.
const ETIMEDOUT: u32 = 110;

/// Event of an attempt that is reported as a record.
pub struct AttemptEvent {
    pub sock: KernelSock,
    pub kind: u8,
    pub old_state: u8,
    pub state: u8,
    /// Flags for the record beside those of the entry.
    pub flags: u8,
}

/// Result of a report.
pub struct Reported {
    /// Counter to increase.
    pub counter: Counter,
    /// True if the attempt sent no SYN, and TCP Fast Open does not hold it back.
    pub is_unsent: bool,
}

/// Reports the event. Handing over the record orders memory fully (`bpf_ringbuf_commit`): the entry
/// is read before anything that follows, on any architecture.
#[inline(always)]
pub fn report(entry: &AttemptEntry, event: &AttemptEvent) -> Reported {
    let Some(mut slot) = RECORDS.reserve::<RawRecord>(0) else {
        let is_unsent = event.sock.segs_out() == load(&entry.before.segs_out);
        answers::miss(event.sock);
        return Reported {
            counter: Counter::RingFull,
            is_unsent: is_unsent && !event.sock.deferred(),
        };
    };
    let record = place(&mut slot);
    name_event(record, event);
    copy_opening(&mut record.attempt.opening, entry);
    let is_unsent = fill(record, &entry.before, &entry.notes, event);
    slot.submit(wakeup(event.kind));
    Reported {
        counter: Counter::Endings,
        is_unsent,
    }
}

/// Returns true if half of the ring is in use. An early warning gives way to endings then.
#[inline(always)]
pub fn is_half_full() -> bool {
    in_use() > u64::from(RING_SIZE / 2)
}

/// Returns true if seven eighths of the ring are in use. An answer gives way to endings then.
#[inline(always)]
pub fn is_nearly_full() -> bool {
    in_use() > u64::from(RING_SIZE / 8 * 7)
}

/// Returns the flag with which a record is handed over. The kernel wakes the agent for a record that
/// is the only unread one; behind an answer, which wakes nobody, no record is. So one that matters
/// wakes the agent if it sleeps, and so does an answer once many wait.
#[inline(always)]
fn wakeup(kind: u8) -> u64 {
    if kind == KIND_ANSWER && in_use() < u64::from(RING_SIZE / 16) {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    if is_to_be_woken() {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    0
}

/// Returns the number of bytes of the ring that the agent has not read.
#[inline(always)]
fn in_use() -> u64 {
    RECORDS.query(u64::from(BPF_RB_AVAIL_DATA))
}

/// Reports the event of an attempt that has no entry.
#[inline(always)]
pub fn report_unkept(event: &AttemptEvent) -> Reported {
    let Some(mut slot) = RECORDS.reserve::<RawRecord>(0) else {
        answers::miss(event.sock);
        return Reported {
            counter: Counter::RingFull,
            is_unsent: event.sock.segs_out() == 0 && !event.sock.deferred(),
        };
    };
    let record = zeroed(&mut slot);
    name_event(record, event);
    let sock = event.sock;
    store(&mut record.attempt.opening.started_ns, kernel::now_ns());
    // Tells apart two such attempts of the same time.
    store(&mut record.attempt.opening.tid_or_cpu, kernel::cpu());
    store(
        &mut record.attempt.opening.bound_device,
        sock.bound_device(),
    );
    store(&mut record.attempt.opening.mark, sock.mark());
    let mut before = Before::NOTHING;
    before.bound_port = sock.bound_port();
    let is_unsent = fill(record, &before, &Notes::NOTHING, event);
    slot.submit(wakeup(event.kind));
    Reported {
        counter: Counter::Endings,
        is_unsent,
    }
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
    record.old_state = STATE_CLOSE;
    record.state = STATE_CLOSE;
    record.version = RECORD_VERSION;
    slot.submit(wakeup(kind));
    Counter::CallFailed
}

/// Reports a hint: the number of recent connects to the attempt's destination. If the ring is
/// full, the hint is dropped without being counted: it is no ending, and the next one follows
/// soon.
#[inline(always)]
pub fn report_connects(opening: &RawOpening, sock: KernelSock, count: u32) {
    let Some(mut slot) = RECORDS.reserve::<RawRecord>(0) else {
        return;
    };
    let record = zeroed(&mut slot);
    record.attempt.opening = *opening;
    let family = sock.family();
    let [remote, local] = sock.addr_words(family);
    kernel::put_words(&mut record.attempt.remote_addr, remote);
    kernel::put_words(&mut record.attempt.local_addr, local);
    record.attempt.family = family;
    let netns = sock.netns_for_good();
    record.attempt.netns = netns as u32;
    record.attempt.netns_mix = (netns >> u32::BITS) as u16;
    record.attempt.remote_port = sock.remote_port();
    record.at_ns = opening.started_ns;
    record.syns_or_connects = count;
    record.kind = KIND_CONNECTS;
    record.old_state = STATE_SYN_SENT;
    record.state = STATE_SYN_SENT;
    record.version = RECORD_VERSION;
    slot.submit(wakeup(KIND_CONNECTS));
}

/// Reports a dropped packet of a handshake. Returns false if it is not: an ending has precedence.
#[inline(always)]
pub fn report_drop(reason: u32, dropped: &DroppedPacket) -> bool {
    if is_nearly_full() {
        return false;
    }
    let Some(mut slot) = RECORDS.reserve::<RawDrop>(0) else {
        return false;
    };
    // In place: it does not fit on the stack.
    #[expect(unsafe_code, reason = "a ring slot is uninitialised memory")]
    // SAFETY: any bytes are a valid `RawDrop`.
    let record = unsafe { slot.assume_init_mut() };
    store(&mut record.at_ns, kernel::now_ns());
    kernel::put_words(&mut record.client, dropped.client);
    kernel::put_words(&mut record.server, dropped.server);
    kernel::put_words(&mut record.asked, dropped.asked);
    store(&mut record.netns, dropped.netns);
    store(&mut record.device, dropped.device);
    store(&mut record.client_port, dropped.client_port);
    store(&mut record.server_port, dropped.server_port);
    store(&mut record.asked_port, dropped.asked_port);
    store(&mut record.reason, reason as u16);
    let packet = if dropped.is_answer {
        DROPPED_SYN_ACK
    } else {
        DROPPED_SYN
    };
    store(&mut record.packet, packet);
    store(&mut record.isn_end, dropped.isn_end);
    record.reserved = [0; 5];
    slot.submit(wakeup(KIND_ANSWER));
    true
}

/// Hands out a record in the ring, every field of which must be written. It is filled there,
/// because it does not fit on the stack.
#[inline(always)]
#[expect(unsafe_code, reason = "a ring slot is uninitialised memory")]
fn place(slot: &mut MaybeUninit<RawRecord>) -> &mut RawRecord {
    // SAFETY: any bytes are a valid `RawRecord`.
    unsafe { slot.assume_init_mut() }
}

/// Clears a record in the ring.
#[inline(always)]
#[expect(unsafe_code, reason = "a ring slot is uninitialised memory")]
fn zeroed(slot: &mut MaybeUninit<RawRecord>) -> &mut RawRecord {
    let words = slot.as_mut_ptr().cast::<u64>();
    for word in 0..RECORD_SIZE / size_of::<u64>() {
        // SAFETY: a record is that many words. The write is volatile, or the compiler would call
        // memset, which writes single bytes on this target and takes 50 ns.
        unsafe { words.add(word).write_volatile(0) };
    }
    place(slot)
}

/// Copies the opening of an entry.
#[inline(always)]
#[expect(unsafe_code, reason = "structs are copied as words")]
fn copy_opening(to: &mut RawOpening, entry: &AttemptEntry) {
    let to = core::ptr::from_mut(to).cast::<u64>();
    let from = core::ptr::from_ref(&entry.opening).cast::<u64>();
    for at in 0..OPENING_SIZE / size_of::<u64>() {
        // SAFETY: both are that many words, aligned and without padding.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
}

/// Fills in the kind of the event. Done first, so that the verifier forgets the values: it would
/// check all that follows once for each.
#[inline(always)]
fn name_event(record: &mut RawRecord, event: &AttemptEvent) {
    store(&mut record.kind, event.kind);
    store(&mut record.version, RECORD_VERSION);
    store(&mut record.old_state, event.old_state);
    store(&mut record.state, event.state);
    store(&mut record.flags, event.flags);
}

/// Fills everything but the opening. Returns true if no SYN was sent, and TCP Fast Open does not
/// hold it back.
#[inline(always)]
fn fill(record: &mut RawRecord, before: &Before, notes: &Notes, event: &AttemptEvent) -> bool {
    let sock = event.sock;
    fill_remote(&mut record.attempt, sock, sock.netns_for_good(), before);
    store(&mut record.at_ns, kernel::now_ns());
    let syns = sock.segs_out().wrapping_sub(load(&before.segs_out));
    store(&mut record.syns_or_connects, syns);
    store(
        &mut record.syn_retransmitted,
        sock.total_retrans()
            .wrapping_sub(load(&before.total_retrans)),
    );
    store(&mut record.error, error(before, sock, syns));
    store(
        &mut record.soft_error,
        since(sock.soft_error(), load(&before.soft_error)),
    );
    store(
        &mut record.local_port,
        local_port(before, sock.sport(), syns),
    );
    store(&mut record.rto_count, sock.rto_count());
    store(&mut record.drops, load(&notes.drops));
    store(&mut record.drop_reason, load(&notes.drop_reason));
    let mut flags = load(&record.flags) | load(&notes.seen);
    if sock.segs_in() != load(&before.segs_in) {
        flags |= FLAG_HEARD;
    }
    if syns == 0 && sock.deferred() {
        flags |= FLAG_DEFERRED;
    }
    store(&mut record.flags, flags);
    fill_icmp(record, sock, before, notes);
    fill_limits(record, sock);
    store(&mut record.isn_end, sock.isn_end());
    fill_traffic(record, sock);
    load(&record.syns_or_connects) == 0 && load(&record.flags) & FLAG_DEFERRED == 0
}

#[inline(always)]
fn fill_remote(attempt: &mut RawAttempt, sock: KernelSock, netns: u64, before: &Before) {
    let family = sock.family();
    store(&mut attempt.netns, netns as u32);
    store(&mut attempt.netns_mix, (netns >> u32::BITS) as u16);
    store(&mut attempt.socket_uid, sock.uid());
    let [remote, local] = sock.addr_words(family);
    kernel::put_words(&mut attempt.remote_addr, remote);
    kernel::put_words(&mut attempt.local_addr, local);
    store(&mut attempt.remote_port, sock.remote_port());
    store(&mut attempt.bound_port, load(&before.bound_port));
    store(&mut attempt.family, family);
}

#[inline(always)]
fn fill_icmp(record: &mut RawRecord, sock: KernelSock, before: &Before, notes: &Notes) {
    store(&mut record.icmp_errno, 0);
    store(&mut record.icmp_origin, 0);
    store(&mut record.icmp_type, 0);
    store(&mut record.icmp_code, 0);
    kernel::put_words(&mut record.icmp_from, [0; 2]);
    if load(&notes.icmp6) != 0 {
        fill_icmp6(record, sock.key());
    } else if let Some(icmp) = sock.icmp_since(load(&before.error_queue)) {
        record.flags |= FLAG_ICMP;
        record.icmp_origin = icmp.origin;
        record.icmp_errno = icmp.errno() as u16;
        record.icmp_type = icmp.icmp_type();
        record.icmp_code = icmp.code();
        record.icmp_from = icmp.from();
    }
}

/// Fills in the limits after which the kernel gives up, if it did.
#[inline(always)]
fn fill_limits(record: &mut RawRecord, sock: KernelSock) {
    store(&mut record.user_timeout_ms, 0);
    store(&mut record.syn_retries, 0);
    store(&mut record.linear_timeouts, 0);
    if sock.error() == ETIMEDOUT {
        sock.describe_limits(record);
    }
}

/// Fills in the data that the connection carried. An attempt has some only with TCP Fast Open.
#[inline(always)]
fn fill_traffic(record: &mut RawRecord, sock: KernelSock) {
    let traffic = &mut record.traffic;
    let segs_out = sock.data_segs_out();
    store(&mut traffic.data_segs_out, segs_out);
    if segs_out != 0 {
        return sock.describe_traffic(traffic);
    }
    store(&mut traffic.data_segs_in, 0);
    store(&mut traffic.bytes_acked, 0);
    store(&mut traffic.bytes_received, 0);
    store(&mut traffic.unacked, 0);
    store(&mut traffic.unread, 0);
    store(&mut traffic.sent_ago_jiffies, 0);
    store(&mut traffic.received_ago_jiffies, 0);
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
    record.icmp_errno = error.errno as u16;
    record.icmp_type = error.icmp_type;
    record.icmp_code = error.code;
    record.icmp_from = addr_of(error.from);
}

/// Returns `sk_err` if this attempt set it. `tcp_connect_init` clears an old value, but has not
/// run if there was no SYN.
#[inline(always)]
fn error(before: &Before, sock: KernelSock, syn_sent: u32) -> u32 {
    if syn_sent == 0 {
        since(sock.error(), load(&before.error))
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
fn local_port(before: &Before, sport: u16, syn_sent: u32) -> u16 {
    if syn_sent != 0 || load(&before.bound_port) != 0 || sport != load(&before.sport) {
        sport
    } else {
        0
    }
}
