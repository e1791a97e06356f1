//! Opens, updates and closes attempts, for every tier.
//!
//! `inet_sock_set_state` is attached twice with this body, because the kernel skips a program
//! that is already active on its CPU. A softirq that interrupts the run for one socket would
//! otherwise lose the transition of another.
//!
//! The first attachment leaves a mark, by which the second returns at once. A softirq can
//! overwrite the mark, so handling a transition twice must be harmless. An attempt is opened only
//! once, and only the program that takes its entry may report it.

use aya_ebpf::{bindings::BPF_ANY, programs::BtfTracePointContext};
use conntrace_common::{
    counters::Counter,
    filter::kind,
    hosts::HostScratch,
    record::{
        FLAG_JOINED_LATE, FLAG_UNTRACKED, KIND_ENDING, KIND_STALL, RawAttempt, STATE_CLOSE,
        STATE_ESTABLISHED, STATE_SYN_SENT,
    },
};

use crate::{
    attempt_table::{self, StartedAttempt},
    connect_counter, failed_calls, filter, host_history,
    kernel::{self, CurrentTask, Icmp6Error, KernelSock, OpenFile},
    maps::{AttemptEntry, Counts, ICMP6_ERRORS, Transition, map_is_full, map_was_full, per_cpu},
    report::{self, AttemptEvent},
};

/// State `TCP_SYN_RECV` of the passive side of a handshake, or of an attempt after a
/// simultaneous open.
const SYN_RECV: i32 = 3;
/// State `TCP_FIN_WAIT1`, to which an attempt is closed after a simultaneous open
/// (`tcp_close_state`).
const STATE_FIN_WAIT1: u8 = 4;

/// Set by the agent to report completed handshakes instead of only counting them.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static REPORT_ESTABLISHED: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// The attachment to `inet_sock_set_state` that runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    First,
    Second,
}

/// Per-CPU memory of an attachment, which no other program accesses.
struct CpuState<'a> {
    attachment: Attachment,
    counts: &'a mut Counts,
    /// Scratch memory for an entry.
    entry: &'a mut AttemptEntry,
    work: &'a mut HostScratch,
}

/// Effect of a state change on an attempt. The variants have no fields: the compiler may copy an
/// unset field, which the verifier rejects.
enum AttemptChange {
    Opens,
    Completes,
    Closes,
}

impl AttemptChange {
    #[inline(always)]
    fn of(old: i32, new: i32) -> Option<Self> {
        const CLOSE: i32 = STATE_CLOSE as i32;
        const SYN_SENT: i32 = STATE_SYN_SENT as i32;
        const ESTABLISHED: i32 = STATE_ESTABLISHED as i32;
        const FIN_WAIT1: i32 = STATE_FIN_WAIT1 as i32;
        match (old, new) {
            (CLOSE, SYN_SENT) => Some(Self::Opens),
            (SYN_SENT | SYN_RECV, ESTABLISHED) => Some(Self::Completes),
            (SYN_SENT, CLOSE) | (SYN_RECV, CLOSE | FIN_WAIT1) => Some(Self::Closes),
            _ => None,
        }
    }
}

/// Handles a state change, for both attachments to `inet_sock_set_state`.
#[inline(always)]
pub fn state_changed(ctx: &BtfTracePointContext, attachment: Attachment) -> Option<()> {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let change = AttemptChange::of(old, new)?;
    let passive = old == SYN_RECV;
    let cpu = per_cpu()?;
    let transition = Transition {
        sock: kernel::sock_key(ctx),
        new_state: new as u64,
    };
    if attachment == Attachment::Second && cpu.handled == transition {
        cpu.handled.forget();
        return None;
    }
    let mut own = match attachment {
        Attachment::First => CpuState {
            attachment,
            counts: &mut cpu.first,
            entry: &mut cpu.first_entry,
            work: &mut cpu.first_work,
        },
        Attachment::Second => CpuState {
            attachment,
            counts: &mut cpu.others,
            entry: &mut cpu.second_entry,
            work: &mut cpu.second_work,
        },
    };
    let sock = transition.sock;
    let handled = match change {
        AttemptChange::Opens => open(ctx, sock, &mut own),
        AttemptChange::Completes if REPORT_ESTABLISHED.load() == 0 => {
            complete(ctx, sock, passive, &mut own)
        }
        AttemptChange::Completes => end(ctx, sock, passive, STATE_ESTABLISHED, &mut own),
        AttemptChange::Closes => end(ctx, sock, passive, STATE_CLOSE, &mut own),
    };
    match attachment {
        Attachment::First => cpu.handled = transition,
        Attachment::Second => {
            handled?;
            own.counts.count(Counter::SecondAttachment);
        }
    }
    Some(())
}

#[inline(always)]
fn open(ctx: &BtfTracePointContext, key: u64, own: &mut CpuState<'_>) -> Option<()> {
    let sock = KernelSock::from_arg(ctx)?;
    failed_calls::opened();
    if !filter::destination_passes(&sock) {
        return None;
    }
    if !filter::caller_passes(&filter::Current) {
        return None;
    }
    match own.attachment {
        Attachment::Second if attempt_table::find(key).is_some() => return None,
        // The ending of the socket's last attempt was missed; drop its entry.
        Attachment::First if attempt_table::forget(key).is_some() => {
            own.counts.count(Counter::EndingMissed)
        }
        _ => {}
    }
    *own.entry = describe(sock, CurrentTask::current(), 0);
    if !attempt_table::insert(key, own.entry) {
        if own.attachment == Attachment::First {
            not_kept(own.counts);
        }
        return Some(());
    }
    own.counts.count(Counter::Attempts);
    if own.attachment == Attachment::First {
        // The second attachment opens few attempts, which need not be counted.
        connect_counter::count(&own.entry.attempt);
    }
    aya_log_ebpf::debug!(
        ctx,
        "tid {} opens in netns {}",
        own.entry.attempt.tid_or_cpu,
        own.entry.attempt.netns
    );
    Some(())
}

/// Records that the attempt map is full. Without filters of the caller, the attempt is counted
/// and reported at its ending. With such filters it is counted as lost here, because the ending
/// does not show whether it matches them.
#[inline(always)]
fn not_kept(counts: &mut Counts) {
    map_is_full();
    if filter::is_set(kind::OF_CALLER) {
        counts.count(Counter::Attempts);
        counts.count(Counter::MapFull);
    }
}

/// Creates the entry of an attempt by this caller from the current state of the socket. Without
/// its beginning, the attempt counts as the first one of the socket: nothing is subtracted.
#[inline(always)]
fn describe(sock: KernelSock, caller: CurrentTask, seen: u8) -> AttemptEntry {
    let whole = seen == 0;
    let family = sock.family();
    let netns = sock.netns_for_good();
    AttemptEntry {
        attempt: RawAttempt {
            started_ns: kernel::now_ns(),
            process_started_ns: caller.process_started_ns,
            cgroup_id: caller.cgroup_id,
            exe_inode: caller.exe.inode,
            exe_device: caller.exe.device,
            pid: caller.pid,
            tid_or_cpu: caller.tid_or_cpu,
            uid: caller.uid,
            netns: netns as u32,
            bound_device: sock.bound_device(),
            mark: sock.mark(),
            socket_uid: sock.uid(),
            remote_addr: sock.remote_addr(family),
            local_addr: sock.local_addr(family),
            remote_port: sock.remote_port(),
            bound_port: sock.bound_port(),
            family,
            netns_mix: (netns >> u32::BITS) as u16,
            comm: caller.comm,
            leader_comm: caller.leader_comm,
        },
        error_queue_before: if whole { sock.newest_error() } else { 0 },
        segs_out_before: if whole { sock.segs_out() } else { 0 },
        total_retrans_before: if whole { sock.total_retrans() } else { 0 },
        error_before: if whole { sock.error() as u16 } else { 0 },
        soft_error_before: if whole { sock.soft_error() as u16 } else { 0 },
        segs_in_before: if whole { sock.segs_in() } else { 0 },
        sport_before: if whole { sock.sport() } else { 0 },
        drop_reason: 0,
        drops: 0,
        stalled: 0,
        seen,
        icmp6: 0,
    }
}

/// Counts a completed handshake, removes the entry, and caches the answer of the host.
/// Handshakes of servers also reach this function, but have no entry.
#[inline(always)]
fn complete(
    ctx: &BtfTracePointContext,
    key: u64,
    passive: bool,
    own: &mut CpuState<'_>,
) -> Option<()> {
    let began = match attempt_table::forget(key) {
        Some(began) => began,
        None => {
            unkept(ctx, own.attachment, passive)?;
            own.counts.count(Counter::Attempts);
            StartedAttempt {
                at_ns: kernel::now_ns(),
                is_seen: false,
            }
        }
    };
    own.counts.count(Counter::Established);
    host_history::answered(KernelSock::from_arg(ctx)?, &began, own.work);
    Some(())
}

/// Reports the ending of an attempt. One without an entry is counted only here, and reported
/// with the facts that its socket still has.
#[inline(always)]
fn end(
    ctx: &BtfTracePointContext,
    key: u64,
    passive: bool,
    state: u8,
    own: &mut CpuState<'_>,
) -> Option<()> {
    let sock = if attempt_table::take(key, own.entry) {
        // Only a TCP socket has an entry.
        KernelSock::from_arg(ctx)?
    } else {
        let sock = unkept(ctx, own.attachment, passive)?;
        let seen = if map_was_full() {
            FLAG_UNTRACKED
        } else {
            FLAG_JOINED_LATE
        };
        *own.entry = describe(sock, CurrentTask::unknown(), seen);
        own.counts.count(Counter::Attempts);
        sock
    };
    let moment = AttemptEvent {
        sock,
        kind: KIND_ENDING,
        state,
    };
    own.counts
        .count(report::report(own.entry, &moment, own.work));
    if sock.segs_out() == own.entry.segs_out_before && !sock.deferred() {
        failed_calls::ended_within(key);
    }
    aya_log_ebpf::debug!(ctx, "an attempt ends in state {}", state);
    Some(())
}

/// Returns the socket of an ending without an entry, if its attempt matches the filters. Such an
/// attempt began while the map was full, or before tracing.
///
/// Filters of the caller cannot be checked any more. The second attachment cannot tell such an
/// ending from one that the first has just reported. Sockets of servers have no entry either.
#[inline(always)]
fn unkept(ctx: &BtfTracePointContext, attachment: Attachment, passive: bool) -> Option<KernelSock> {
    if passive || attachment == Attachment::Second || filter::is_set(kind::OF_CALLER) {
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
    if sock.state() != STATE_SYN_SENT {
        return None;
    }
    let holder = file.holder();
    if !(filter::destination_passes(&sock) && filter::caller_passes(&holder)) {
        return None;
    }
    if !attempt_table::insert_found(file.key, &describe(sock, holder, FLAG_JOINED_LATE)) {
        return None;
    }
    // It may have ended before the entry was inserted.
    if sock.state() != STATE_SYN_SENT && attempt_table::forget(file.key).is_some() {
        return None;
    }
    per_cpu()?.others.count(Counter::JoinedLate);
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
    let entry = attempt_table::find(kernel::sock_of_packet_in(ctx, STATE_SYN_SENT)?)?;
    entry.drop_reason = reason as u16;
    entry.drops = entry.drops.saturating_add(1);
    Some(())
}

/// Records an ICMPv6 error for a socket with an attempt under way (`ipv6_icmp_error`).
#[inline(always)]
pub fn icmp6_came(sock: u64, packet: u64, errno: i32) -> Option<()> {
    let entry = attempt_table::find(sock)?;
    let error = Icmp6Error::of_packet(packet, errno as u32);
    ICMP6_ERRORS.insert(sock, error, u64::from(BPF_ANY)).ok()?;
    entry.icmp6 = 1;
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
    let entry = attempt_table::find(kernel::sock_key(ctx))?;
    if entry.stalled != 0 || sock.total_retrans() == entry.total_retrans_before {
        return None;
    }
    entry.stalled = 1;
    let moment = AttemptEvent {
        sock,
        kind: KIND_STALL,
        state: STATE_SYN_SENT,
    };
    let cpu = per_cpu()?;
    if report::report(entry, &moment, &mut cpu.stall_work) == Counter::RingFull {
        cpu.others.count(Counter::StallRingFull);
    }
    Some(())
}

/// Removes the entry of a socket that is destroyed. If it still has one, its ending was missed.
/// The kernel may reuse the address at once.
#[inline(always)]
pub fn destroyed(ctx: &BtfTracePointContext) -> Option<()> {
    let key = kernel::sock_key(ctx);
    if attempt_table::forget(key).is_some() {
        per_cpu()?.others.count(Counter::EndingMissed);
    }
    Some(())
}
