//! Opens, updates and closes attempts, for every tier.
//!
//! The program at `inet_sock_set_state` decides nearly everything. The kernel skips it while it is
//! already active on the CPU: an ending in a softirq that interrupts it is lost. The socket's
//! destruction finds such an attempt, and reports it if the socket's error still tells its ending.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, bindings::BPF_ANY, programs::BtfTracePointContext};
use conntrace_common::{
    counters::Counter,
    filter::kind,
    hosts::HostScratch,
    record::{
        FLAG_JOINED_LATE, FLAG_RECOVERED, FLAG_UNTRACKED, KIND_ENDING, KIND_STALL, STATE_CLOSE,
        STATE_ESTABLISHED, STATE_SYN_SENT,
    },
};

use crate::{
    attempt_table::{self, Owner},
    connect_counter, failed_calls, filter, host_history,
    kernel::{self, Icmp6Error, KernelSock, OpenFile},
    maps::{AttemptEntry, Counts, HostFlag, ICMP6_ERRORS, per_cpu},
    report::{self, AttemptEvent, History, Reported},
    sync::{load, store},
};

const CLOSE: i32 = STATE_CLOSE as i32;
const SYN_SENT: i32 = STATE_SYN_SENT as i32;
const ESTABLISHED: i32 = STATE_ESTABLISHED as i32;
/// State `TCP_SYN_RECV` of the passive side of a handshake, or of an attempt after a
/// simultaneous open.
const SYN_RECV: i32 = 3;
/// State `TCP_FIN_WAIT1`, to which an attempt is closed after a simultaneous open
/// (`tcp_close_state`).
const FIN_WAIT1: i32 = 4;

/// Set by the agent to report completed handshakes instead of only counting them.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static REPORT_ESTABLISHED: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Handles a state change (`inet_sock_set_state`). Those of established connections and of
/// accepted sockets leave before anything is looked up. What follows is in functions of their own,
/// so that the program itself needs no stack and saves no registers.
#[inline(always)]
pub fn state_changed(ctx: &BtfTracePointContext) {
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if old == SYN_SENT || (old == CLOSE && new == SYN_SENT) {
        follow(ctx.as_ptr(), old, new);
    } else if old == SYN_RECV {
        follow_crossed(ctx.as_ptr(), old, new);
    }
}

/// Follows an attempt whose SYN crossed the peer's. Other sockets in `TCP_SYN_RECV` are accepted
/// ones.
#[inline(never)]
fn follow_crossed(ctx: *mut c_void, old: i32, new: i32) {
    if HostFlag::SynsCrossed.is_set() {
        follow(ctx, old, new);
    }
}

/// Follows an attempt through a state change.
#[inline(never)]
fn follow(ctx: *mut c_void, old: i32, new: i32) {
    let ctx = &BtfTracePointContext::new(ctx);
    let Some(cpu) = per_cpu() else {
        return;
    };
    let counts = &mut cpu.states;
    let passive = old == SYN_RECV;
    match (old, new) {
        (CLOSE, SYN_SENT) => open(ctx, counts),
        (SYN_SENT, SYN_RECV) => {
            HostFlag::SynsCrossed.set();
            None
        }
        (SYN_SENT | SYN_RECV, ESTABLISHED) if REPORT_ESTABLISHED.load() == 0 => {
            complete(ctx, passive, counts, &mut cpu.state_work)
        }
        (SYN_SENT | SYN_RECV, ESTABLISHED | CLOSE) | (SYN_RECV, FIN_WAIT1) => {
            end(ctx, [old, new], counts, &mut cpu.state_work)
        }
        _ => None,
    };
}

#[inline(always)]
fn open(ctx: &BtfTracePointContext, counts: &mut Counts) -> Option<()> {
    let key = kernel::sock_key(ctx);
    let sock = KernelSock::from_arg(ctx)?;
    failed_calls::opened();
    let is_wanted = filter::destination_passes(&sock) && filter::caller_passes(&filter::Current);
    // The ending of the socket's last attempt was missed; drop its entry.
    if (is_wanted || filter::is_set(u32::MAX)) && attempt_table::forget(key) {
        counts.count(Counter::EndingMissed);
    }
    if !is_wanted {
        return None;
    }
    let Some(mut claimed) = attempt_table::claim_slot(key) else {
        open_in_map(ctx.as_ptr());
        return None;
    };
    describe_opened(ctx, claimed.entry(), sock);
    claimed.sign(key);
    counts.count(Counter::Attempts);
    aya_log_ebpf::debug!(ctx, "an attempt opens in netns {}", sock.netns());
    Some(())
}

/// Opens an attempt whose slot another one holds.
#[inline(never)]
fn open_in_map(ctx: *mut c_void) {
    let ctx = &BtfTracePointContext::new(ctx);
    let key = kernel::sock_key(ctx);
    let (Some(cpu), Some(sock)) = (per_cpu(), KernelSock::from_arg(ctx)) else {
        return;
    };
    let spare = &mut cpu.spare;
    describe_opened(ctx, &mut spare.entry, sock);
    let owner = Owner {
        netns: sock.netns_for_good(),
        uid: load(&spare.entry.opening.uid),
    };
    if attempt_table::spill(key, &owner, spare) {
        cpu.states.count(Counter::Attempts);
    } else {
        not_kept(&mut cpu.states);
    }
}

/// Fills the entry of an attempt that opens, and counts the connect.
#[inline(always)]
fn describe_opened(ctx: &BtfTracePointContext, entry: &mut AttemptEntry, sock: KernelSock) {
    let opening = &mut entry.opening;
    store(&mut opening.started_ns, kernel::now_ns());
    kernel::sign_current(opening);
    describe(entry, sock);
    connect_counter::count(ctx, sock, &entry.opening);
}

/// Records that an attempt has no entry. Without filters of the caller, the attempt is counted
/// and reported at its ending. With such filters it is counted as lost here, because the ending
/// does not show whether it matches them.
#[inline(always)]
fn not_kept(counts: &mut Counts) {
    HostFlag::TableWasFull.set();
    counts.count(Counter::NotAdmitted);
    if filter::is_set(kind::OF_CALLER) {
        counts.count(Counter::Attempts);
        counts.count(Counter::MapFull);
    }
}

/// Completes the entry of an attempt whose caller is already there, with values of its socket.
#[inline(always)]
fn describe(entry: &mut AttemptEntry, sock: KernelSock) {
    let (opening, before) = (&mut entry.opening, &mut entry.before);
    store(&mut opening.bound_device, sock.bound_device());
    store(&mut opening.mark, sock.mark());
    store(&mut before.error_queue, sock.newest_error());
    let segs_out = sock.segs_out();
    store(&mut before.segs_out, segs_out);
    if segs_out == 0 {
        // Without a segment sent there is none to retransmit, and no answer.
        store(&mut before.total_retrans, 0);
        store(&mut before.segs_in, 0);
    } else {
        store(&mut before.total_retrans, sock.total_retrans());
        store(&mut before.segs_in, sock.segs_in());
    }
    store(&mut before.sport, sock.sport());
    store(&mut before.bound_port, sock.bound_port());
    store(&mut before.error, sock.error() as u16);
    store(&mut before.soft_error, sock.soft_error() as u16);
    store(&mut before.connection, 0);
    finish(entry, 0);
}

/// Completes the entry of an attempt that was found under way. It counts as the first one of its
/// socket: nothing is subtracted but the bound port, which is known by then.
#[inline(always)]
fn describe_found(entry: &mut AttemptEntry, sock: KernelSock) {
    let (opening, before) = (&mut entry.opening, &mut entry.before);
    store(&mut opening.bound_device, sock.bound_device());
    store(&mut opening.mark, sock.mark());
    store(&mut before.error_queue, 0);
    store(&mut before.segs_out, 0);
    store(&mut before.total_retrans, 0);
    store(&mut before.segs_in, 0);
    store(&mut before.sport, 0);
    store(&mut before.bound_port, sock.bound_port());
    store(&mut before.error, 0);
    store(&mut before.soft_error, 0);
    store(&mut before.connection, 0);
    finish(entry, FLAG_JOINED_LATE);
}

#[inline(always)]
fn finish(entry: &mut AttemptEntry, seen: u8) {
    let notes = &mut entry.notes;
    store(&mut notes.drop_reason, 0);
    store(&mut notes.drops, 0);
    store(&mut notes.stalled, 0);
    store(&mut notes.icmp6, 0);
    store(&mut notes.seen, seen);
    store(&mut notes.reserved, 0);
}

/// Counts a completed handshake, caches the answer of the host, and releases the entry, which
/// stays in its slot as a hint of the connection's owner.
#[inline(always)]
fn complete(
    ctx: &BtfTracePointContext,
    passive: bool,
    counts: &mut Counts,
    work: &mut HostScratch,
) -> Option<()> {
    let key = kernel::sock_key(ctx);
    let fact = &mut work.fact;
    let sock = if let Some(found) = attempt_table::find(key) {
        // Only a TCP socket has an entry.
        let sock = KernelSock::from_arg(ctx)?;
        let started_ns = load(&found.entry.opening.started_ns);
        let seen = load(&found.entry.notes.seen);
        store(&mut fact.started_ns, started_ns);
        store(&mut fact.is_whole, u16::from(seen == 0));
        store(&mut found.entry.before.connection, sock.connection_hash());
        // What depends on a load comes after it, on any architecture: both are read before the
        // entry is released. An attempt always has a start.
        if started_ns | u64::from(seen) != 0 {
            found.release(key);
        }
        sock
    } else {
        let sock = unkept(ctx, passive)?;
        counts.count(Counter::Attempts);
        store(&mut fact.started_ns, kernel::now_ns());
        store(&mut fact.is_whole, 0);
        sock
    };
    counts.count(Counter::Established);
    host_history::answered(sock, work);
    Some(())
}

/// Reports the ending of an attempt. One without an entry is counted only here, and reported with
/// the facts that its socket still has.
#[inline(always)]
fn end(
    ctx: &BtfTracePointContext,
    [old, new]: [i32; 2],
    counts: &mut Counts,
    work: &mut HostScratch,
) -> Option<()> {
    let key = kernel::sock_key(ctx);
    let state = if new == ESTABLISHED {
        STATE_ESTABLISHED
    } else {
        STATE_CLOSE
    };
    let Some(found) = attempt_table::find(key) else {
        let sock = unkept(ctx, old == SYN_RECV)?;
        let flags = if HostFlag::TableWasFull.is_set() {
            FLAG_UNTRACKED
        } else {
            FLAG_JOINED_LATE
        };
        counts.count(Counter::Attempts);
        let event = AttemptEvent {
            sock,
            kind: KIND_ENDING,
            old_state: old as u8,
            state,
            flags,
            history: History::Rarely,
        };
        let reported = report::report_unkept(&event, work);
        return ended(ctx, key, &reported, counts);
    };
    // Only a TCP socket has an entry.
    let event = AttemptEvent {
        sock: KernelSock::from_arg(ctx)?,
        kind: KIND_ENDING,
        old_state: old as u8,
        state,
        flags: 0,
        history: History::Often,
    };
    let reported = report::report(found.entry, &event, work);
    found.release(key);
    ended(ctx, key, &reported, counts)
}

/// Counts the report of an ending. If the attempt ended before its SYN, leaves a mark for the
/// return of the running call.
#[inline(always)]
fn ended(
    ctx: &BtfTracePointContext,
    key: u64,
    reported: &Reported,
    counts: &mut Counts,
) -> Option<()> {
    counts.count(reported.counter);
    aya_log_ebpf::debug!(ctx, "an attempt ends in state {}", ctx.arg::<i32>(2));
    if reported.is_unsent {
        failed_calls::ended_within(key);
    }
    Some(())
}

/// Returns the socket of an ending without an entry, if its attempt matches the filters. Such an
/// attempt began while the table was full, or before tracing. Filters of the caller cannot be
/// checked any more. Accepted sockets have no entry either.
#[inline(always)]
fn unkept(ctx: &BtfTracePointContext, passive: bool) -> Option<KernelSock> {
    if passive || filter::is_set(kind::OF_CALLER) {
        return None;
    }
    let sock = KernelSock::from_arg(ctx)?;
    filter::destination_passes(&sock).then_some(sock)
}

/// Inserts the entry of an attempt that is under way when tracing begins, for a socket that a
/// process has open.
#[inline(always)]
pub fn found(file: &OpenFile) -> Option<()> {
    let sock = file.sock;
    if sock.state() != STATE_SYN_SENT || !filter::destination_passes(&sock) {
        return None;
    }
    let cpu = per_cpu()?;
    let spare = &mut cpu.found;
    let opening = &mut spare.entry.opening;
    store(&mut opening.started_ns, kernel::now_ns());
    file.sign_holder(opening);
    if !filter::caller_passes(&filter::Holder(opening)) {
        return None;
    }
    describe_found(&mut spare.entry, sock);
    let owner = Owner {
        netns: sock.netns_for_good(),
        uid: load(&spare.entry.opening.uid),
    };
    // A hook inserts this socket's entry meanwhile only if it connects again while tracing starts.
    // Lookups then find the slot first, and this entry is dropped with the socket.
    if attempt_table::is_under_way(file.key) || !attempt_table::spill(file.key, &owner, spare) {
        return None;
    }
    // It may have ended before the entry was inserted.
    if sock.state() != STATE_SYN_SENT && attempt_table::forget(file.key) {
        return None;
    }
    cpu.others.count(Counter::JoinedLate);
    Some(())
}

/// Records a dropped packet of an attempt (`kfree_skb`), if the drop was a decision of this
/// host. The socket is not always locked here: if the attempt ends at the same time, the drop
/// may count for the next attempt in its slot.
#[inline(always)]
pub fn dropped(ctx: &BtfTracePointContext) -> Option<()> {
    let reason: u32 = ctx.arg(2);
    if !kernel::is_noted_drop(reason) {
        return None;
    }
    let found = attempt_table::find(kernel::sock_of_packet_in(ctx, STATE_SYN_SENT)?)?;
    let notes = &mut found.entry.notes;
    store(&mut notes.drop_reason, reason as u16);
    let drops = load(&notes.drops).saturating_add(1);
    store(&mut notes.drops, drops);
    Some(())
}

/// Records an ICMPv6 error for a socket with an attempt under way (`ipv6_icmp_error`).
#[inline(always)]
pub fn icmp6_came(sock: u64, packet: u64, errno: i32) -> Option<()> {
    let found = attempt_table::find(sock)?;
    let error = Icmp6Error::of_packet(packet, errno as u32);
    ICMP6_ERRORS.insert(sock, error, u64::from(BPF_ANY)).ok()?;
    store(&mut found.entry.notes.icmp6, 1);
    Some(())
}

/// Reports the first SYN retransmission as a stall, if the segment really left TCP. Since Linux
/// 6.17 the tracepoint also fires for failed retransmissions.
#[inline(always)]
pub fn retransmitted(ctx: &BtfTracePointContext) -> Option<()> {
    let sock = KernelSock::from_arg(ctx)?;
    if sock.state() != STATE_SYN_SENT {
        return None;
    }
    let entry = attempt_table::find(kernel::sock_key(ctx))?.entry;
    if load(&entry.notes.stalled) != 0 || sock.total_retrans() == load(&entry.before.total_retrans)
    {
        return None;
    }
    store(&mut entry.notes.stalled, 1);
    let cpu = per_cpu()?;
    if report::is_half_full() {
        cpu.others.count(Counter::StallRingFull);
        return None;
    }
    let event = AttemptEvent {
        sock,
        kind: KIND_STALL,
        old_state: STATE_SYN_SENT,
        state: STATE_SYN_SENT,
        flags: 0,
        history: History::Rarely,
    };
    if report::report(entry, &event, &mut cpu.stall_work).counter == Counter::RingFull {
        cpu.others.count(Counter::StallRingFull);
    }
    Some(())
}

/// Handles the destruction of a socket (`tcp_destroy_sock`). If it still has an entry, no program
/// saw its attempt end. The kernel may reuse the address at once.
#[inline(always)]
pub fn destroyed(ctx: &BtfTracePointContext) {
    if attempt_table::is_under_way(kernel::sock_key(ctx)) {
        recover(ctx.as_ptr());
    }
}

/// Reports an attempt whose ending was missed, if the socket's error is still set and tells it. An
/// error after a handshake is none of the attempt: the peer has acknowledged the SYN then. A socket
/// that has received in sequence is another one at the same address. An attempt that was found
/// under way may have been reported before its entry was inserted.
#[inline(never)]
fn recover(ctx: *mut c_void) {
    let ctx = &BtfTracePointContext::new(ctx);
    let key = kernel::sock_key(ctx);
    let (Some(cpu), Some(found), Some(sock)) = (
        per_cpu(),
        attempt_table::find(key),
        KernelSock::from_arg(ctx),
    ) else {
        return;
    };
    let errno = sock.error();
    let has_shaken_hands = sock.bytes_acked() != 0;
    let is_told = errno != 0
        && errno != u32::from(load(&found.entry.before.error))
        && sock.remote_port() != 0
        && !has_shaken_hands
        && sock.rcv_nxt() == 0
        && load(&found.entry.notes.seen) == 0;
    let counter = if is_told {
        let event = AttemptEvent {
            sock,
            kind: KIND_ENDING,
            old_state: STATE_SYN_SENT,
            state: STATE_CLOSE,
            flags: FLAG_RECOVERED,
            history: History::Unknown,
        };
        report::report(found.entry, &event, &mut cpu.destroy_work).counter
    } else if has_shaken_hands && REPORT_ESTABLISHED.load() == 0 {
        Counter::Established
    } else {
        Counter::EndingMissed
    };
    found.release(key);
    cpu.others.count(counter);
}
