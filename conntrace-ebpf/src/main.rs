//! conntrace's kernel side: one map entry per attempt, one record per ending.
//!
//! `hooks/` only names kernel functions, `attempt` holds the logic, `kernel` is
//! the only file that reads kernel memory, `report` the only one that hands
//! records over.
#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch, bpf_target_feature)]
#![expect(
    internal_features,
    reason = "the one addition that this target has: see `sync`"
)]

mod attempt;
mod attempt_table;
mod connect_counter;
mod failed_calls;
mod filter;
mod hooks;
mod host_history;
mod kernel;
mod maps;
mod report;
mod sync;

/// Dual licence: the helpers that read kernel memory are for GPL-compatible
/// programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the loader finds the licence by section name")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never runs: an endless loop makes the verifier reject any program in which
/// a panic can be reached.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
