//! Ends attempts: completed handshakes, closes, and destroyed sockets whose ending was missed.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, programs::BtfTracePointContext};
use conntrace_common::{
    counters::Counter,
    filter::kind,
    record::{
        FLAG_JOINED_LATE, FLAG_RECOVERED, FLAG_UNTRACKED, KIND_ANSWER, KIND_ENDING, STATE_CLOSE,
        STATE_ESTABLISHED, STATE_SYN_SENT,
    },
};

use super::{ESTABLISHED, REPORT_ESTABLISHED, SYN_RECV};
use crate::{
    answers, attempt_table, drops, failed_calls, filter,
    kernel::{self, KernelSock, SockCommon},
    maps::{Counts, HostFlag, per_cpu},
    report::{self, AttemptEvent, Reported},
    sync::{load, store},
};

const ECONNREFUSED: u32 = 111;
const ECONNRESET: u32 = 104;

/// Time in nanoseconds that an attempt lasts at most, with the most retransmissions that are usual.
const ATTEMPT_NS_MAX: u64 = 1000 * 1_000_000_000;

/// Counts a completed handshake, tells the agent that the host answers if that is news, and releases
/// the entry, which stays in its slot as a hint of the connection's owner.
#[inline(always)]
pub(super) fn complete(ctx: &BtfTracePointContext, counts: &mut Counts) -> Option<()> {
    let key = kernel::sock_key(ctx);
    if let Some(found) = attempt_table::find(key) {
        // Only a TCP socket has an entry.
        let sock = KernelSock::from_arg(ctx)?;
        let started_ns = load(&found.entry.opening.started_ns);
        store(&mut found.entry.before.connection, sock.connection_hash());
        let retransmitted = sock.total_retrans() != load(&found.entry.before.total_retrans);
        let at_ns = if retransmitted {
            kernel::now_ns()
        } else {
            started_ns
        };
        if answers::is_news(sock, at_ns) {
            tell_answer(ctx.as_ptr());
        }
        // What depends on a load comes after it, on any architecture: the start is read before the
        // entry is released. An attempt always has one.
        if started_ns != 0 {
            found.release(key);
        }
    } else {
        let sock = unkept(ctx, false)?;
        counts.count(Counter::Attempts);
        if answers::is_news(sock, kernel::now_ns()) {
            tell_answer_to_unkept(ctx.as_ptr());
        }
    }
    counts.count(Counter::Established);
    Some(())
}

/// Tells the agent that the host of a completed handshake answers. Not inlined, because it is rare.
#[inline(never)]
fn tell_answer(ctx: *mut c_void) {
    let ctx = &BtfTracePointContext::new(ctx);
    let found = attempt_table::find(kernel::sock_key(ctx));
    if let (Some(sock), Some(found)) = (KernelSock::from_arg(ctx), found) {
        let segs_in = load(&found.entry.before.segs_in);
        tell(sock, segs_in, 0, |event| report::report(found.entry, event));
    }
}

/// Does so for an attempt without an entry. A function of its own, because the verifier of Linux 6.1
/// goes through both for each caller of one.
#[inline(never)]
fn tell_answer_to_unkept(ctx: *mut c_void) {
    let ctx = &BtfTracePointContext::new(ctx);
    if let Some(sock) = KernelSock::from_arg(ctx) {
        tell(sock, 0, flag_of_unkept(), report::report_unkept);
    }
}

/// Reports an answer, unless no packet came since `segs_in`: the connection is one that `TCP_REPAIR`
/// restored.
#[inline(always)]
fn tell(sock: KernelSock, segs_in: u32, flags: u8, report: impl FnOnce(&AttemptEvent) -> Reported) {
    if sock.segs_in() == segs_in {
        return;
    }
    if report::is_nearly_full() {
        return answers::miss(sock);
    }
    // Before the record is handed over: afterwards the processor may be taken away for long.
    let at_ns = kernel::now_ns();
    let event = AttemptEvent {
        sock,
        kind: KIND_ANSWER,
        old_state: STATE_SYN_SENT,
        state: STATE_ESTABLISHED,
        flags,
    };
    if report(&event).counter != Counter::RingFull {
        answers::told(sock, at_ns);
    }
}

/// Records that an answer to this socket's attempt is not reported, if one came: a handshake, or a
/// RST (`tcp_reset`). Accepted sockets have no attempt.
#[inline(never)]
pub(super) fn missed(ctx: *mut c_void) {
    let ctx = &BtfTracePointContext::new(ctx);
    let Some(sock) = KernelSock::from_arg(ctx) else {
        return;
    };
    let has_answered = ctx.arg::<i32>(2) == ESTABLISHED
        || sock.error() == ECONNREFUSED
        || sock.error() == ECONNRESET;
    if ctx.arg::<i32>(1) != SYN_RECV && has_answered {
        answers::miss(sock);
    }
}

/// Does so for a socket that passes the filters of the destination, if attempts found no place of
/// late: it may be one of them.
#[inline(never)]
fn missed_for_want_of_place(ctx: *mut c_void) {
    let context = &BtfTracePointContext::new(ctx);
    let last_ns = HostFlag::TableWasFull.value();
    if last_ns != 0
        && kernel::now_ns().wrapping_sub(last_ns) < ATTEMPT_NS_MAX
        && filter::destination_passes(&SockCommon::from_arg(context))
    {
        missed(ctx);
    }
}

/// Reports the ending of an attempt. One without an entry is counted only here, and reported with
/// the facts that its socket still has.
#[inline(always)]
pub(super) fn end(
    ctx: &BtfTracePointContext,
    [old, new]: [i32; 2],
    counts: &mut Counts,
) -> Option<()> {
    let key = kernel::sock_key(ctx);
    let state = if new == ESTABLISHED {
        STATE_ESTABLISHED
    } else {
        STATE_CLOSE
    };
    let Some(found) = attempt_table::find(key) else {
        let sock = unkept(ctx, old == SYN_RECV)?;
        counts.count(Counter::Attempts);
        let event = AttemptEvent {
            sock,
            kind: KIND_ENDING,
            old_state: old as u8,
            state,
            flags: flag_of_unkept(),
        };
        let reported = report::report_unkept(&event);
        return ended(ctx, key, &reported, counts);
    };
    // Only a TCP socket has an entry.
    let event = AttemptEvent {
        sock: KernelSock::from_arg(ctx)?,
        kind: KIND_ENDING,
        old_state: old as u8,
        state,
        flags: 0,
    };
    let reported = report::report(found.entry, &event);
    found.release(key);
    if state == STATE_CLOSE && event.sock.error() == 0 {
        drops::is_waiting(event.sock, kernel::now_ns());
    }
    ended(ctx, key, &reported, counts)
}

/// Returns the flag of an attempt that has no entry.
#[inline(always)]
fn flag_of_unkept() -> u8 {
    if HostFlag::TableWasFull.is_set() {
        FLAG_UNTRACKED
    } else {
        FLAG_JOINED_LATE
    }
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
    if passive {
        return None;
    }
    if filter::is_set(kind::OF_CALLER) {
        missed_for_want_of_place(ctx.as_ptr());
        return None;
    }
    let is_wanted = filter::port_passes(&SockCommon::from_arg(ctx))
        && (!filter::is_set(kind::NETNS | kind::NETWORK) || is_destination_wanted(ctx.as_ptr()));
    if !is_wanted {
        return None;
    }
    KernelSock::from_arg(ctx)
}

/// Returns true if the filters of the destination match. Not inlined, because the stack of its caller
/// is full.
#[inline(never)]
fn is_destination_wanted(ctx: *mut c_void) -> bool {
    filter::destination_passes(&SockCommon::from_arg(&BtfTracePointContext::new(ctx)))
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
    if found.is_over() {
        return found.release(key);
    }
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
        };
        report::report(found.entry, &event).counter
    } else if has_shaken_hands && REPORT_ESTABLISHED.load() == 0 {
        Counter::Established
    } else {
        Counter::EndingMissed
    };
    found.release(key);
    cpu.others.count(counter);
    // The host may have answered, which was not noted.
    answers::miss(sock);
}
