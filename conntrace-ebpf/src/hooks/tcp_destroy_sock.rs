use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt;

// proto: tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: BtfTracePointContext) -> u32 {
    attempt::destroyed(&ctx);
    0
}
