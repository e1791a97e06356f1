//! Finds attempts under way at the start, and records what happens to one: dropped packets, ICMPv6
//! errors, retransmissions.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, bindings::BPF_ANY, programs::BtfTracePointContext};
use conntrace_common::{
    counters::Counter,
    record::{FLAG_JOINED_LATE, KIND_STALL, STATE_SYN_SENT},
};

use super::opening;
use crate::{
    attempt_table::{self, Owner},
    drops, filter,
    kernel::{self, Icmp6Error, KernelSock, OpenFile, SockOfPacket},
    maps::{AttemptEntry, ICMP6_ERRORS, per_cpu},
    report::{self, AttemptEvent},
    sync::{load, store},
};

/// Inserts the entry of an attempt that is under way when tracing begins, for a socket that a
/// process has open.
#[inline(always)]
pub fn found(file: &OpenFile) -> Option<()> {
    let sock = file.sock;
    if sock.state() != STATE_SYN_SENT || !filter::destination_passes(&sock.common()) {
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
    drops::is_waiting(sock, kernel::now_ns());
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
    opening::finish(entry, FLAG_JOINED_LATE);
}

/// Records a dropped packet of an attempt (`kfree_skb`). The socket is not always locked here: if
/// the attempt ends at the same time, the drop may count for the next attempt in its slot.
#[inline(always)]
pub fn dropped(ctx: &BtfTracePointContext) {
    if kernel::is_noted_drop(ctx.arg(2)) {
        note_drop(ctx.as_ptr());
    }
}

/// Notes a dropped packet in the entry of its attempt, or reports one that has no socket any more.
/// Not inlined, so that the program saves no registers for all others.
#[inline(never)]
fn note_drop(ctx: *mut c_void) -> Option<()> {
    let ctx = &BtfTracePointContext::new(ctx);
    let reason: u32 = ctx.arg(2);
    let SockOfPacket::Here(sock) = kernel::sock_of_packet_in(ctx, STATE_SYN_SENT) else {
        return drops::report(ctx, reason);
    };
    if !kernel::is_decision(reason) {
        return None;
    }
    let found = attempt_table::find(sock)?;
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
    drops::is_waiting(sock, kernel::now_ns());
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
    };
    if report::report(entry, &event).counter == Counter::RingFull {
        cpu.others.count(Counter::StallRingFull);
    }
    Some(())
}
