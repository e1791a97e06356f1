//! The kernel side of conntrace: one entry per attempt, in a table, and one record per ending.
//!
//! `hooks/` names the kernel functions and `attempt` holds the logic. Only `kernel` reads kernel
//! memory, and only `report` submits records.
#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch, bpf_target_feature)]
#![expect(
    internal_features,
    reason = "the one addition that this target has: see `sync`"
)]

mod answers;
mod attempt;
mod attempt_table;
mod connect_counter;
mod drops;
mod failed_calls;
mod filter;
mod hooks;
mod kernel;
mod maps;
mod report;
mod sync;

/// Dual licence, because the helpers that read kernel memory require a GPL-compatible program.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the loader finds the licence by section name")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never runs. The endless loop makes the verifier reject any program with a reachable panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
