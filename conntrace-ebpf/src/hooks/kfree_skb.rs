use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::attempt;

// The reason came with Linux 5.17.
// proto: kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason)
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> u32 {
    attempt::dropped(&ctx);
    0
}
