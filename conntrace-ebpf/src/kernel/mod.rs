//! The only module that reads kernel memory.
//!
//! Pointers typed by BTF are loaded from directly: the offsets are constants to
//! the verifier (`.rodata` is frozen), which checks each against the type. The
//! verifier follows such pointers only through inlined code. Where there is only
//! an address, a helper reads.
#![expect(
    unsafe_code,
    reason = "reading kernel memory is what this module is for"
)]

mod packet;
mod sock;
mod sockaddr;
mod task;

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel},
    programs::BtfTracePointContext,
};
use conntrace_common::{
    offsets::{CallOffsets, DROP_REASON_WORDS, Offsets},
    record::COMM_LEN,
};

pub use packet::{Icmp6Error, QueuedIcmp, is_noted_drop, sock_of_packet_in};
pub use sock::KernelSock;
pub use sockaddr::{CallArgs, OpenSocket, Passed, Routing, SockAddr, call_returned};
pub use task::{CurrentTask, OpenFile, ancestor_cgroup_id, current_names, current_uid, thread_key};

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

/// Set by the agent where the kernel has `bpf_get_current_task_btf` (5.11).
#[unsafe(no_mangle)]
static TASK_IS_TYPED: u8 = 0;

/// A kernel struct.
#[derive(Clone, Copy)]
struct Struct {
    at: *const u8,
    /// The verifier knows its type, and that of whatever it points to. In each
    /// program a constant, so that only one way to load is left there.
    typed: bool,
}

impl Struct {
    /// One that the verifier knows the type of.
    #[inline(always)]
    fn typed(at: *const u8) -> Self {
        Self { at, typed: true }
    }

    /// One of which there is only the address.
    #[inline(always)]
    fn at(address: u64) -> Self {
        Self {
            at: address as *const u8,
            typed: false,
        }
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        let place = self.at.wrapping_add(offset as usize).cast::<T>();
        if self.typed {
            // SAFETY: the verifier proves that the offset is a member of the type,
            // and the kernel handles a fault in such a load (it reads as 0).
            unsafe { place.read_volatile() }
        } else {
            let mut value = MaybeUninit::<T>::zeroed();
            // SAFETY: the helper takes any address, and writes zeroes where it
            // cannot read; only integers and arrays of them are read.
            unsafe {
                let _ = bpf_probe_read_kernel(
                    value.as_mut_ptr().cast(),
                    size_of::<T>() as u32,
                    place.cast(),
                );
                value.assume_init()
            }
        }
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Self {
        Self {
            at: self.load(offset),
            typed: self.typed,
        }
    }

    #[inline(always)]
    fn is_null(self) -> bool {
        self.at.is_null()
    }

    /// A task's name. Older kernels leave what a longer one had behind its NUL.
    #[inline(always)]
    fn load_name(self, offset: u32) -> [u8; COMM_LEN] {
        let words: [u64; 2] = [self.load(offset), self.load(offset + 8)];
        let (first, ends) = before_nul(words[0]);
        let (second, _) = before_nul(words[1]);
        let words = [first, if ends { 0 } else { second }];
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute(words) }
    }

    /// 16 bytes as two loads.
    #[inline(always)]
    fn load16(self, offset: u32) -> [u8; 16] {
        let words: [u64; 2] = [self.load(offset), self.load(offset + 8)];
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute(words) }
    }
}

/// The bytes of a word before its first NUL, and whether there is one. The target is
/// little-endian: the first byte is the lowest.
#[inline(always)]
fn before_nul(word: u64) -> (u64, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of each byte that is zero, the lowest of them exactly.
    let zeroes = word.wrapping_sub(ONES) & !word & (ONES << 7);
    let below = (zeroes & zeroes.wrapping_neg()).wrapping_sub(1);
    (word & below, zeroes != 0)
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

/// The lower half of an address, as a number: with the whole of one the verifier lets nobody
/// reckon, and the compiler would.
#[inline(always)]
pub fn lower_half(address: u64) -> u32 {
    // SAFETY: every program is compiled for processors that have it (`v3`).
    unsafe { half_register(address) }
}

#[inline]
#[target_feature(enable = "alu32")]
fn half_register(address: u64) -> u32 {
    let half: u32;
    // SAFETY: it copies half a register.
    unsafe {
        asm!("{} = {}", lateout(wreg) half, in(wreg) address as u32, options(pure, nomem, nostack))
    };
    half
}

/// Address of the tracepoint's socket: the attempt's key. Only compared, never
/// followed.
#[inline(always)]
pub fn sock_key(ctx: &BtfTracePointContext) -> u64 {
    // SAFETY: the context of a BTF tracepoint is an array of 8-byte arguments.
    unsafe { ctx.as_ptr().cast::<u64>().read() }
}
