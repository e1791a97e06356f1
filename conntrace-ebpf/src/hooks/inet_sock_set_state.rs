use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt::{self, Attachment};

// proto: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_first(ctx: BtfTracePointContext) -> u32 {
    attempt::state_changed(&ctx, Attachment::First);
    0
}

// proto: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_second(ctx: BtfTracePointContext) -> u32 {
    attempt::state_changed(&ctx, Attachment::Second);
    0
}
