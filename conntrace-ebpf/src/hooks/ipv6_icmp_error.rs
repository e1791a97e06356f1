use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::attempt;

// `tcp_v6_err` calls it whether or not the socket has such errors queued (IPV6_RECVERR).
// proto: ipv6_icmp_error(struct sock *sk, struct sk_buff *skb, int err, __be16 port, u32 info, u8 *payload)
#[fentry]
pub fn fentry_ipv6_icmp_error(ctx: FEntryContext) -> u32 {
    attempt::icmp6_came(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[kprobe]
pub fn kprobe_ipv6_icmp_error(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(packet), Some(errno)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        attempt::icmp6_came(sock, packet, errno);
    }
    0
}
