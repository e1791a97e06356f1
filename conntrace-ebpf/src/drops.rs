//! Selects the dropped packets without a socket that the agent is told: those that may belong to an
//! attempt under way (`conntrace_common::drops`).

use aya_ebpf::programs::BtfTracePointContext;
use conntrace_common::drops::{WINDOW_BITS, WINDOW_MAX, addr_hash, is_alive, port_hash, stamp};

use crate::{
    kernel::{self, DroppedPacket, KernelSock},
    maps::{client_addr, client_port, missed_drops, per_cpu},
    report,
    sync::{load, store},
};

/// Records that an attempt from this socket's address begins, or goes on.
#[inline(always)]
pub fn begins(sock: KernelSock, now_ns: u64) {
    if let Some(last) = client_addr(addr_hash(sock.local_addr_end())) {
        store(last, stamp(now_ns));
    }
}

/// Records that this socket's port waits for an answer, or that one may come too late. The port is
/// chosen after an attempt begins (`inet_hash_connect`).
#[inline(always)]
pub fn is_waiting(sock: KernelSock, now_ns: u64) {
    begins(sock, now_ns);
    if let Some(last) = client_port(port_hash(sock.sport())) {
        store(last, stamp(now_ns));
    }
}

/// Reports the tracepoint's packet, if it may belong to an attempt under way.
#[inline(always)]
pub fn report(ctx: &BtfTracePointContext, reason: u32) -> Option<()> {
    let dropped = DroppedPacket::from_arg(ctx, reason)?;
    let now_ns = kernel::now_ns();
    let [_, end_of_client] = dropped.client;
    let hash = addr_hash((end_of_client >> u32::BITS) as u32);
    let last = client_addr(hash)?;
    if !is_alive(load(last), now_ns) {
        return None;
    }
    if dropped.is_answer && !is_alive(load(client_port(port_hash(dropped.client_port))?), now_ns) {
        return None;
    }
    if !may_report(now_ns)? || !report::report_drop(reason, &dropped) {
        store(missed_drops(hash)?, now_ns);
    }
    Some(())
}

/// Returns true if this CPU may report one more drop in this window.
#[inline(always)]
fn may_report(now_ns: u64) -> Option<bool> {
    let cpu = per_cpu()?;
    let window = now_ns >> WINDOW_BITS << u32::BITS;
    let mut drops = load(&cpu.drops);
    if drops & !u64::from(u32::MAX) != window {
        drops = window;
    }
    if drops & u64::from(u32::MAX) >= WINDOW_MAX {
        return Some(false);
    }
    store(&mut cpu.drops, drops + 1);
    Some(true)
}
