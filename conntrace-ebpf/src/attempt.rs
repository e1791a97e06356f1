//! Opens, notes and closes attempts: what every tier shares.
//!
//! `inet_sock_set_state` is attached twice with this one body, because the
//! kernel skips a program that is already active on its CPU: a softirq that
//! interrupts the run for one socket would lose the transition of another.
//! Whoever is first leaves a mark and the second returns at once. A mark can be
//! overwritten by such a softirq, so doing a transition twice must be harmless:
//! an attempt is opened once, and taking its entry is the right to report it.

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

/// `TCP_SYN_RECV`: a server's side of a handshake is in it, or an attempt after a
/// simultaneous open.
const SYN_RECV: i32 = 3;
/// `TCP_FIN_WAIT1`: what such an attempt is closed to, for the other side has sent
/// a SYN (`tcp_close_state`).
const STATE_FIN_WAIT1: u8 = 4;

/// Set by the agent: completed handshakes are reported, not only counted.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static REPORT_ESTABLISHED: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Which of the two attachments runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    First,
    Second,
}

/// What an attachment has on this CPU, and no other program touches.
struct CpuState<'a> {
    attachment: Attachment,
    counts: &'a mut Counts,
    /// To write an entry in.
    entry: &'a mut AttemptEntry,
    work: &'a mut HostScratch,
}

/// What a state change means to an attempt. Without fields: the compiler may copy one
/// that it has not set, which the verifier does not let it do.
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

/// The body of both attachments to `inet_sock_set_state`.
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
        // The socket's last attempt ended unseen; it must not be taken for this one.
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
        // The few that the second opens are not missed.
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

/// The attempt map is full. What the ending alone can tell is reported then, and
/// the attempt counted; whether it passes the filters of its caller is known only
/// now.
#[inline(always)]
fn not_kept(counts: &mut Counts) {
    map_is_full();
    if filter::is_set(kind::OF_CALLER) {
        counts.count(Counter::Attempts);
        counts.count(Counter::MapFull);
    }
}

/// An attempt of this caller on this socket as it is now. One that is not seen
/// from its beginning is taken for the socket's first: nothing is subtracted.
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

/// The handshake completed: by default only counted, which takes no more than
/// removing the entry, and remembered of the host. A server's own handshakes pass
/// here as well; they have none.
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

/// The attempt ends, and is reported. One that has no entry is counted only now, and told
/// with what its socket still knows.
#[inline(always)]
fn end(
    ctx: &BtfTracePointContext,
    key: u64,
    passive: bool,
    state: u8,
    own: &mut CpuState<'_>,
) -> Option<()> {
    let sock = if attempt_table::take(key, own.entry) {
        // It is one: no other has an entry.
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

/// The socket of an ending without an entry, if it is an attempt's that we want:
/// the map was full when it began, or it is older than the tracing. Nothing tells
/// whether it would have passed the filters of its caller. The second attachment
/// cannot tell it from one that the first has just reported, and a server's socket
/// has no entry either.
#[inline(always)]
fn unkept(ctx: &BtfTracePointContext, attachment: Attachment, passive: bool) -> Option<KernelSock> {
    if passive || attachment == Attachment::Second || filter::is_set(kind::OF_CALLER) {
        return None;
    }
    let sock = KernelSock::from_arg(ctx)?;
    filter::destination_passes(&sock).then_some(sock)
}

/// A socket that a process has open when tracing begins: an attempt under way
/// that no hook saw begin gets its entry now.
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
    // It may have ended meanwhile, before the entry was there.
    if sock.state() != STATE_SYN_SENT && attempt_table::forget(file.key).is_some() {
        return None;
    }
    per_cpu()?.others.count(Counter::JoinedLate);
    Some(())
}

/// A packet is dropped (`kfree_skb`): noted, if it is an attempt's and the reason
/// is one that this host decides. Not always under the socket's lock: an attempt that ends
/// at this very moment may leave it to the next one in its slot.
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

/// An ICMPv6 error comes for this socket (`ipv6_icmp_error`): noted, if that has an
/// attempt under way.
#[inline(always)]
pub fn icmp6_came(sock: u64, packet: u64, errno: i32) -> Option<()> {
    let entry = attempt_table::find(sock)?;
    let error = Icmp6Error::of_packet(packet, errno as u32);
    ICMP6_ERRORS.insert(sock, error, u64::from(BPF_ANY)).ok()?;
    entry.icmp6 = 1;
    Some(())
}

/// TCP sent a segment again: a stall, if it was the SYN and really left TCP
/// (from Linux 6.17 on the tracepoint also fires for retransmissions that failed).
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

/// The socket goes away. An entry it still has is an ending that no program
/// saw; its memory may be the next socket's at once.
#[inline(always)]
pub fn destroyed(ctx: &BtfTracePointContext) -> Option<()> {
    let key = kernel::sock_key(ctx);
    if attempt_table::forget(key).is_some() {
        per_cpu()?.others.count(Counter::EndingMissed);
    }
    Some(())
}
