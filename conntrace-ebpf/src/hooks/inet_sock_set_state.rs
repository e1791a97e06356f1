use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt;

// proto: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> u32 {
    attempt::state_changed(&ctx);
    0
}
