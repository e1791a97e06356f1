//! Netfilter hooks that a packet passes, and the base chains of each.

use super::{
    ruleset::{BaseChain, INET, NETDEV},
    seen::HookDevice,
    truth::Truth,
};

/// Priorities `NF_IP_PRI_CONNTRACK`, `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`.
pub(super) const CONNTRACK_PRIORITY: i32 = -200;
const NAT_DST_PRIORITY: i32 = -100;
const NAT_SRC_PRIORITY: i32 = 100;

/// Name of the loopback interface.
pub(super) const LOOPBACK: &str = "lo";

/// Netfilter hook on a packet's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetfilterHook {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

/// Hooks of a SYN sent, of a SYN arriving in another namespace, of a SYN-ACK, and of both on `lo`.
pub(super) const OUT: &[NetfilterHook] = &[
    NetfilterHook::Output,
    NetfilterHook::Postrouting,
    NetfilterHook::Egress,
];
pub(super) const ARRIVING: &[NetfilterHook] = &[NetfilterHook::Prerouting];
/// Hooks of a packet on its way through a namespace.
pub(super) const FORWARDED: &[NetfilterHook] = &[
    NetfilterHook::Ingress,
    NetfilterHook::Prerouting,
    NetfilterHook::Forward,
    NetfilterHook::Postrouting,
    NetfilterHook::Egress,
];
pub(super) const IN: &[NetfilterHook] = &[
    NetfilterHook::Ingress,
    NetfilterHook::Prerouting,
    NetfilterHook::Input,
];
pub(super) const LOOP: &[NetfilterHook] = &[
    NetfilterHook::Output,
    NetfilterHook::Postrouting,
    NetfilterHook::Egress,
    NetfilterHook::Ingress,
    NetfilterHook::Prerouting,
    NetfilterHook::Input,
];

/// A base chain, and its position in the hook's order.
pub(super) type OrderedChain<'a> = ((i32, i32), &'a BaseChain);

/// Returns the chain's position in this hook; `None` if the hook does not run it. Chains of type
/// `nat` run where NAT does, for a connection's first packet only: once for the destination and
/// once for the source (`nf_nat_inet_fn`).
pub(super) fn place<'c>(
    chain: &'c BaseChain,
    hook: NetfilterHook,
    is_v6: bool,
    is_translated: bool,
) -> Option<OrderedChain<'c>> {
    let family = chain.name.0;
    let number = match (family, hook) {
        (INET, NetfilterHook::Ingress) => 5,
        (NETDEV, NetfilterHook::Ingress) => 0,
        (NETDEV, NetfilterHook::Egress) => 1,
        (NETDEV, _) | (_, NetfilterHook::Ingress | NetfilterHook::Egress) => return None,
        (_, NetfilterHook::Prerouting) => 0,
        (_, NetfilterHook::Input) => 1,
        (_, NetfilterHook::Forward) => 2,
        (_, NetfilterHook::Output) => 3,
        (_, NetfilterHook::Postrouting) => 4,
    };
    // NFPROTO_IPV6, NFPROTO_IPV4
    let own = if is_v6 { 10 } else { 2 };
    let is_ours = matches!(family, INET | NETDEV) || family == own;
    if chain.hook != number || !is_ours || (chain.is_nat && !is_translated) {
        return None;
    }
    let order = match (chain.is_nat, hook) {
        (true, NetfilterHook::Output | NetfilterHook::Prerouting) => {
            (NAT_DST_PRIORITY, chain.priority)
        }
        (true, _) => (NAT_SRC_PRIORITY, chain.priority),
        (false, _) => (chain.priority, 0),
    };
    Some((order, chain))
}

/// Returns true if a `netdev` chain is attached to the interface.
pub(super) fn is_on(chain: &BaseChain, device: &HookDevice) -> Truth {
    let HookDevice::Named(name, _) = device else {
        return Truth::Unknown;
    };
    let is_it = |known: &Vec<u8>| match known.strip_suffix(b"*") {
        Some(prefix) => name.as_bytes().starts_with(prefix),
        None => name.as_bytes() == known,
    };
    chain.devices.iter().any(is_it).into()
}
