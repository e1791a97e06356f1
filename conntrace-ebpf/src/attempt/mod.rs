//! Opens, updates and closes attempts, for every tier.
//!
//! The program at `inet_sock_set_state` decides nearly everything. A softirq can interrupt it and
//! end another attempt. From Linux 6.1 on the kernel skips the program then, before that the program
//! itself returns at once. The socket's destruction finds such an attempt, and reports it if the
//! socket's error still tells its ending.

mod ending;
mod opening;
mod under_way;

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, programs::BtfTracePointContext};
use conntrace_common::{
    counters::Counter,
    record::{STATE_CLOSE, STATE_ESTABLISHED, STATE_SYN_SENT},
};

use crate::{
    maps::{HostFlag, per_cpu},
    sync::{load, store},
};

pub use ending::destroyed;
use ending::{complete, end};
use opening::open;
pub use under_way::{dropped, found, icmp6_came, retransmitted};

const CLOSE: i32 = STATE_CLOSE as i32;
const SYN_SENT: i32 = STATE_SYN_SENT as i32;
const ESTABLISHED: i32 = STATE_ESTABLISHED as i32;
/// State `TCP_SYN_RECV` of the passive side of a handshake, or of an attempt after a
/// simultaneous open.
const SYN_RECV: i32 = 3;
/// State `TCP_FIN_WAIT1`, to which an attempt is closed after a simultaneous open
/// (`tcp_close_state`).
const FIN_WAIT1: i32 = 4;

/// Set by the agent to report completed handshakes instead of only counting them. Those of SYNs that
/// crossed are always reported: most are of a socket that is connected to itself.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the agent finds the global by name")]
static REPORT_ESTABLISHED: aya_ebpf::Global<u8> = aya_ebpf::Global::new(0);

/// Handles a state change (`inet_sock_set_state`). Those of established connections leave before
/// anything is looked up, and those of accepted sockets after a flag. What follows is in functions of their own,
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

/// Follows an attempt whose SYN crossed the peer's, or met the socket itself. Other sockets in
/// `TCP_SYN_RECV` are accepted ones.
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
    if load(&cpu.follows) != 0 {
        // The memory of this CPU is in use by the run that was interrupted.
        cpu.others.count(Counter::Nested);
        return ending::missed(ctx.as_ptr());
    }
    store(&mut cpu.follows, 1);
    let counts = &mut cpu.states;
    match (old, new) {
        (CLOSE, SYN_SENT) => open(ctx, counts, &mut cpu.until_sample),
        (SYN_SENT, SYN_RECV) => {
            HostFlag::SynsCrossed.set();
            None
        }
        (SYN_SENT, ESTABLISHED) if REPORT_ESTABLISHED.load() == 0 => complete(ctx, counts),
        (SYN_SENT | SYN_RECV, ESTABLISHED | CLOSE) | (SYN_RECV, FIN_WAIT1) => {
            end(ctx, [old, new], counts)
        }
        _ => None,
    };
    store(&mut cpu.follows, 0);
}
