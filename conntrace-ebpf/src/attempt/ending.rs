//! Ends attempts: completed handshakes, closes, and destroyed sockets whose ending was missed.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, programs::BtfTracePointContext};
use conntrace_common::{
    counters::Counter,
    filter::kind,
    hosts::HostScratch,
    record::{
        FLAG_JOINED_LATE, FLAG_RECOVERED, FLAG_UNTRACKED, KIND_ENDING, STATE_CLOSE,
        STATE_ESTABLISHED, STATE_SYN_SENT,
    },
};

use super::{ESTABLISHED, REPORT_ESTABLISHED, SYN_RECV};
use crate::{
    attempt_table, failed_calls, filter, host_history,
    kernel::{self, KernelSock},
    maps::{Counts, HostFlag, per_cpu},
    report::{self, AttemptEvent, History, Reported},
    sync::{load, store},
};

/// Counts a completed handshake, caches the answer of the host, and releases the entry, which
/// stays in its slot as a hint of the connection's owner.
#[inline(always)]
pub(super) fn complete(
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
pub(super) fn end(
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
    // The host may have answered, which was not noted.
    host_history::miss(sock);
}
