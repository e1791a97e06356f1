use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt;

// proto: tcp_receive_reset(struct sock *sk)
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> u32 {
    attempt::reset_received(&ctx);
    0
}
