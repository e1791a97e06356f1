use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt;

// Before 5.17 there is no drop reason, and the verifier rejects the program.
// proto (< 5.17): kfree_skb(struct sk_buff *skb, void *location)
// proto (>= 5.17): kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, ...)
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> u32 {
    attempt::dropped(&ctx);
    0
}
