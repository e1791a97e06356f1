//! Opens attempts.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, programs::BtfTracePointContext};
use conntrace_common::{counters::Counter, filter::kind};

use crate::{
    answers,
    attempt_table::{self, Owner},
    connect_counter, drops, failed_calls, filter,
    kernel::{self, KernelSock, SockCommon},
    maps::{AttemptEntry, Counts, HostFlag, per_cpu},
    sync::{load, store},
};

/// Opens an attempt, if it matches the filters.
#[inline(always)]
pub(super) fn open(
    ctx: &BtfTracePointContext,
    counts: &mut Counts,
    until_sample: &mut u64,
) -> Option<()> {
    let key = kernel::sock_key(ctx);
    // Also of an attempt that no filter wants: the call must not be taken for one that failed before
    // there was an attempt.
    failed_calls::opened(ctx);
    let is_wanted = filter::destination_passes(&SockCommon::from_arg(ctx))
        && filter::caller_passes(&filter::Current);
    let place = attempt_table::place(key)?;
    if place.may_have_entry() {
        forget_missed(ctx.as_ptr());
    }
    if !is_wanted {
        return None;
    }
    let sock = KernelSock::from_arg(ctx)?;
    let Some(mut claimed) = place.claim() else {
        open_in_map(ctx.as_ptr());
        return None;
    };
    describe_opened(ctx, claimed.entry(), sock, until_sample);
    claimed.sign(key);
    counts.count(Counter::Attempts);
    aya_log_ebpf::debug!(ctx, "an attempt opens in netns {}", sock.netns());
    Some(())
}

/// Drops the entry of the socket's last attempt, if its ending was missed. Its host may have
/// answered. Most sockets that connect again try the same host.
#[inline(never)]
fn forget_missed(ctx: *mut c_void) {
    let ctx = &BtfTracePointContext::new(ctx);
    let (Some(cpu), Some(sock)) = (per_cpu(), KernelSock::from_arg(ctx)) else {
        return;
    };
    if attempt_table::forget(kernel::sock_key(ctx)) {
        cpu.states.count(Counter::EndingMissed);
        answers::miss(sock);
    }
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
    describe_opened(ctx, &mut spare.entry, sock, &mut cpu.until_sample);
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
fn describe_opened(
    ctx: &BtfTracePointContext,
    entry: &mut AttemptEntry,
    sock: KernelSock,
    until_sample: &mut u64,
) {
    let opening = &mut entry.opening;
    let now_ns = kernel::now_ns();
    store(&mut opening.started_ns, now_ns);
    drops::begins(sock, now_ns);
    kernel::sign_current(opening);
    describe(entry, sock);
    connect_counter::count(ctx, sock, &entry.opening, until_sample);
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
    store(&mut before.segs_out, sock.segs_out());
    store(&mut before.total_retrans, sock.total_retrans());
    store(&mut before.segs_in, sock.segs_in());
    store(&mut before.sport, sock.sport());
    store(&mut before.bound_port, sock.bound_port());
    store(&mut before.error, sock.error() as u16);
    store(&mut before.soft_error, sock.soft_error() as u16);
    store(&mut before.connection, 0);
    finish(entry, 0);
}

/// Completes an entry that has no notes yet.
#[inline(always)]
pub(super) fn finish(entry: &mut AttemptEntry, seen: u8) {
    let notes = &mut entry.notes;
    store(&mut notes.drop_reason, 0);
    store(&mut notes.drops, 0);
    store(&mut notes.stalled, 0);
    store(&mut notes.icmp6, 0);
    store(&mut notes.seen, seen);
    store(&mut notes.reserved, 0);
}
