//! Readers of kernel memory. No other module reads it.
//!
//! Pointers with a BTF type are dereferenced directly, by a load whose offset the agent writes into
//! the instruction before it loads the programs (`conntrace_common::offsets::mark`). The verifier
//! checks each against the type. It tracks such pointers only through inlined code. Memory behind
//! a plain address is read by a helper, with an offset from `OFFSETS`.
#![expect(
    unsafe_code,
    reason = "reading kernel memory is what this module is for"
)]

mod dropped;
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
    offsets::{CallOffsets, ConntrackOffsets, DROP_REASON_WORDS, Offsets, mark},
    record::COMM_LEN,
};

pub use dropped::{DroppedPacket, is_decision, is_noted_drop};
pub use packet::{Icmp6Error, QueuedIcmp, SockOfPacket, sock_of_packet_in};
pub use sock::{KernelSock, SockCommon};
pub use sockaddr::{CallArgs, OpenSocket, Passed, Routing, SockAddr, call_returned};
pub use task::{
    OpenFile, ancestor_cgroup_id, cpu, current_names, current_uid, sign_current, thread_key,
};

/// Offsets of kernel members, set by the agent before the programs are loaded.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::POISONED;

/// Offsets in the tracepoints of system calls, set by the agent.
#[unsafe(no_mangle)]
static CALL_OFFSETS: CallOffsets = CallOffsets::POISONED;

/// Mask of the `DEFER_CONNECT` bit in the byte at `OFFSETS.defer_connect`.
#[unsafe(no_mangle)]
static DEFER_CONNECT_MASK: u8 = 0;

/// Set by the agent to `NO_LINEAR_TIMEOUTS` if the kernel lacks that sysctl, else 0.
#[unsafe(no_mangle)]
static LACKS_LINEAR_TIMEOUTS: u8 = 0;

/// Set of drop reasons that are recorded for a packet of an attempt's socket, a bit for each
/// `enum skb_drop_reason`.
#[unsafe(no_mangle)]
static DROP_REASONS: [u64; DROP_REASON_WORDS] = [0; DROP_REASON_WORDS];

/// Set of drop reasons that are recorded for any packet of a handshake.
#[unsafe(no_mangle)]
static PACKET_DROP_REASONS: [u64; DROP_REASON_WORDS] = [0; DROP_REASON_WORDS];

/// Drop reason of a packet that met no socket (`NO_SOCKET`).
#[unsafe(no_mangle)]
static NO_SOCKET: u32 = 0;

/// Offsets of connection tracking, set by the agent if the kernel has it.
#[unsafe(no_mangle)]
static CONNTRACK_OFFSETS: ConntrackOffsets = ConntrackOffsets::POISONED;

/// Reads a global that the agent may have replaced. The read is volatile, or the compiler would
/// use the initial value.
macro_rules! global {
    ($place:expr) => {
        // SAFETY: the global is initialised and never written.
        unsafe { core::ptr::read_volatile(&raw const $place) }
    };
}
use global;

/// Set by the agent to 1 if the kernel has `bpf_get_current_task_btf` (Linux 5.11).
#[unsafe(no_mangle)]
static TASK_IS_TYPED: u8 = 0;

/// Pointer to a kernel struct.
#[derive(Clone, Copy)]
struct Struct {
    at: *const u8,
    /// True if the verifier knows the type, and the types behind it. A constant in each program, so
    /// that only one way to load is compiled.
    typed: bool,
}

impl Struct {
    /// Creates a pointer whose type the verifier knows.
    #[inline(always)]
    fn typed(at: *const u8) -> Self {
        Self { at, typed: true }
    }

    /// Creates a pointer from a plain address.
    #[inline(always)]
    fn at(address: u64) -> Self {
        Self {
            at: address as *const u8,
            typed: false,
        }
    }

    /// Loads the member with this index in `Offsets`.
    #[inline(always)]
    fn load<const INDEX: usize, T: Word>(self) -> T {
        if self.typed {
            // SAFETY: the verifier proves that the offset is a member of the type,
            // and the kernel handles a fault in such a load (it reads as 0).
            unsafe { T::load_marked::<INDEX, 0>(self.at) }
        } else {
            self.read(offset_of_member::<INDEX>())
        }
    }

    /// Loads a part of a member, at this distance from the start of the struct.
    #[inline(always)]
    fn load_at<T: Word>(self, offset: u32) -> T {
        if self.typed {
            let place = self.at.wrapping_add(offset as usize).cast::<T>();
            // SAFETY: as in `load`.
            unsafe { place.read_volatile() }
        } else {
            self.read(offset)
        }
    }

    /// Reads by a helper.
    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper takes any address, and writes zeroes where it
        // cannot read; only integers and arrays of them are read.
        unsafe {
            let _ = bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                self.at.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }

    /// Follows the pointer that is the member with this index in `Offsets`.
    #[inline(always)]
    fn follow<const INDEX: usize>(self) -> Self {
        Self {
            at: self.load::<INDEX, _>(),
            typed: self.typed,
        }
    }

    #[inline(always)]
    fn is_null(self) -> bool {
        self.at.is_null()
    }

    /// Loads a name, and clears the bytes after its NUL. Older kernels leave the rest of a longer
    /// name there.
    #[inline(always)]
    fn load_name<const INDEX: usize>(self) -> [u8; COMM_LEN] {
        let words = self.load_words::<INDEX>();
        let (first, ends) = before_nul(words[0]);
        let (second, _) = before_nul(words[1]);
        let words = [first, if ends { 0 } else { second }];
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute(words) }
    }

    /// Loads a member of 16 bytes as two words.
    #[inline(always)]
    fn load_words<const INDEX: usize>(self) -> [u64; 2] {
        if self.typed {
            // SAFETY: as in `load`.
            unsafe {
                [
                    u64::load_marked::<INDEX, 0>(self.at),
                    u64::load_marked::<INDEX, 1>(self.at),
                ]
            }
        } else {
            self.read(offset_of_member::<INDEX>())
        }
    }

    /// Loads a member of 16 bytes.
    #[inline(always)]
    fn load16<const INDEX: usize>(self) -> [u8; 16] {
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute(self.load_words::<INDEX>()) }
    }
}

/// Returns the index of a member in `Offsets`.
macro_rules! at {
    ($member:ident) => {
        core::mem::offset_of!(conntrace_common::offsets::Offsets, $member) / size_of::<u32>()
    };
}
use at;

/// Returns the offset of a member as a number.
#[inline(always)]
fn offset_of_member<const INDEX: usize>() -> u32 {
    // SAFETY: the global is initialised and never written, and the index is one of its fields.
    unsafe {
        (&raw const OFFSETS)
            .cast::<u32>()
            .add(INDEX)
            .read_volatile()
    }
}

/// Value that one instruction loads.
trait Word: Copy {
    /// Loads the member with this index in `Offsets`, or the word after its first.
    ///
    /// # Safety
    /// The pointer must have a BTF type, so that the verifier checks the load.
    unsafe fn load_marked<const INDEX: usize, const SECOND: u16>(at: *const u8) -> Self;
}

macro_rules! words {
    ($($ty:ty, $load:literal;)+) => {$(
        impl Word for $ty {
            #[inline(always)]
            unsafe fn load_marked<const INDEX: usize, const SECOND: u16>(at: *const u8) -> Self {
                let value: u64;
                // SAFETY: the caller passes a pointer that the verifier checks.
                unsafe {
                    asm!(
                        $load,
                        lateout(reg) value,
                        in(reg) at,
                        const mark(INDEX, SECOND),
                        options(readonly, nostack, preserves_flags)
                    );
                }
                value as Self
            }
        }
    )+};
}

words! {
    u8, "{} = *(u8 *)({} + {})";
    u16, "{} = *(u16 *)({} + {})";
    u32, "{} = *(u32 *)({} + {})";
    u64, "{} = *(u64 *)({} + {})";
    *const u8, "{} = *(u64 *)({} + {})";
}

/// Writes 16 bytes, a name or an address, as two words. An array would be written by bytes.
#[inline(always)]
pub fn put_words(place: &mut [u8; 16], [first, second]: [u64; 2]) {
    let words = core::ptr::from_mut(place).cast::<u64>();
    // SAFETY: names and addresses are aligned to 8 in every record and entry.
    unsafe {
        words.write_volatile(first);
        words.add(1).write_volatile(second);
    }
}

/// Returns the bytes of a word before its first NUL, and true if there is one. The target is
/// little-endian: the first byte is the lowest.
#[inline(always)]
fn before_nul(word: u64) -> (u64, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of each zero byte. Only the lowest set bit is exact.
    let zeroes = word.wrapping_sub(ONES) & !word & (ONES << 7);
    let below = (zeroes & zeroes.wrapping_neg()).wrapping_sub(1);
    (word & below, zeroes != 0)
}

#[inline(always)]
fn v4_in_16(addr: u32) -> [u8; 16] {
    let [a, b, c, d] = addr.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Reads `CLOCK_BOOTTIME` in nanoseconds. This clock runs during suspend, so that its distance to
/// wall time changes only when the wall clock is set.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Returns the lower half of an address as a number. The verifier forbids arithmetic on a whole
/// address, which the compiler would otherwise use.
#[inline(always)]
pub fn lower_half(address: u64) -> u32 {
    // SAFETY: every program is compiled for a target CPU with this feature (`v3`).
    unsafe { half_register(address) }
}

#[inline]
#[target_feature(enable = "alu32")]
fn half_register(address: u64) -> u32 {
    let half: u32;
    // SAFETY: the instruction only copies half a register.
    unsafe {
        asm!("{} = {}", lateout(wreg) half, in(wreg) address as u32, options(pure, nomem, nostack))
    };
    half
}

/// Returns the address of the tracepoint's socket, the key of its attempt. It is only compared,
/// never dereferenced.
#[inline(always)]
pub fn sock_key(ctx: &BtfTracePointContext) -> u64 {
    // SAFETY: the context of a BTF tracepoint is an array of 8-byte arguments.
    unsafe { ctx.as_ptr().cast::<u64>().read() }
}
