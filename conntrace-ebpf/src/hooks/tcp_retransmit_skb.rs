use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt;

// proto: tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> u32 {
    attempt::retransmitted(&ctx);
    0
}
