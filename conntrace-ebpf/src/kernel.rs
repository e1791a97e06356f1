//! The only module that reads kernel memory.
//!
//! Pointers typed by BTF are loaded from directly: the offsets are constants to
//! the verifier (`.rodata` is frozen), which checks each against the type. The
//! verifier follows such pointers only through inlined code.
#![expect(
    unsafe_code,
    reason = "reading kernel memory is what this module is for"
)]

mod call;
mod packet;
mod sock;
mod task;

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_ktime_get_boot_ns, programs::BtfTracePointContext,
};
use conntrace_common::offsets::{CallOffsets, DROP_REASON_WORDS, Offsets};

pub use call::{CallArgs, OpenSocket, UserAddr, call_returned};
pub use packet::{Icmp, is_noted_drop, sock_of_packet_in};
pub use sock::Sock;
pub use task::{Caller, OpenFile, ancestor_cgroup_id, current_names, current_uid, thread_key};

/// Filled in by the agent before the programs are loaded.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::POISONED;

/// Where a system call's tracepoints keep what.
#[unsafe(no_mangle)]
static CALL_OFFSETS: CallOffsets = CallOffsets::POISONED;

/// Which bit of the byte at `OFFSETS.defer_connect` is `DEFER_CONNECT`.
#[unsafe(no_mangle)]
static DEFER_CONNECT_MASK: u8 = 0;

/// Which drops are noted: a bit for each `enum skb_drop_reason`.
#[unsafe(no_mangle)]
static DROP_REASONS: [u64; DROP_REASON_WORDS] = [0; DROP_REASON_WORDS];

/// Reads a global the agent may have replaced; volatile, or the compiler would
/// use the value it sees here.
macro_rules! global {
    ($place:expr) => {
        // SAFETY: the global is initialised and never written.
        unsafe { core::ptr::read_volatile(&raw const $place) }
    };
}
use global;

/// A kernel struct the verifier knows the type of.
#[derive(Clone, Copy)]
struct Typed(*const u8);

impl Typed {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier proves that the offset is a member of the type,
        // and the kernel handles a fault in such a load (it reads as 0).
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Self {
        Self(self.load(offset))
    }

    /// 16 bytes as two loads.
    #[inline(always)]
    fn load16(self, offset: u32) -> [u8; 16] {
        let words: [u64; 2] = [self.load(offset), self.load(offset + 8)];
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute(words) }
    }
}

#[inline(always)]
fn v4_in_16(addr: u32) -> [u8; 16] {
    let [a, b, c, d] = addr.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Nanoseconds of `CLOCK_BOOTTIME`: goes on through suspend, so that its
/// distance to wall time only changes when the wall clock is set.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Address of the tracepoint's socket: the attempt's key. Only compared, never
/// followed.
#[inline(always)]
pub fn sock_key(ctx: &BtfTracePointContext) -> u64 {
    // SAFETY: the context of a BTF tracepoint is an array of 8-byte arguments.
    unsafe { ctx.as_ptr().cast::<u64>().read() }
}
