//! Drop reasons that are recorded: the decisions of this host.

use conntrace_common::offsets::DROP_REASON_WORDS;

use conntrace_btf::Btf;

const PREFIX: &str = "SKB_DROP_REASON_";

/// Enumerator that every kernel with drop reasons has.
const ANY: &str = "SKB_DROP_REASON_NOT_SPECIFIED";

/// Recorded reasons of `enum skb_drop_reason`, without `SKB_DROP_REASON_`: those for which
/// this host drops an outgoing SYN, or its answer before TCP processes it.
///
/// The names are stable, the numbers differ between kernels, and a kernel may lack some
/// names. `NOT_SPECIFIED` is the reason when an IPv6 neighbour does not answer.
const NOTED: [&str; 45] = [
    "BPF_CGROUP_EGRESS",
    "CAKE_FLOOD",
    "CPU_BACKLOG",
    "DEV_READY",
    "DUALPI2_STEP_DROP",
    "FQ_BAND_LIMIT",
    "FQ_FLOW_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FULL_RING",
    "IPV6DISABLED",
    "IP_OUTNOROUTES",
    "IP_RPFILTER",
    "NEIGH_CREATEFAIL",
    "NEIGH_DEAD",
    "NEIGH_FAILED",
    "NEIGH_HH_FILLFAIL",
    "NEIGH_QUEUEFULL",
    "NETFILTER_DROP",
    "NOMEM",
    "NOT_SPECIFIED",
    "NO_TX_TARGET",
    "PKT_TOO_BIG",
    "PROTO_MEM",
    "PSP_INPUT",
    "PSP_OUTPUT",
    "QDISC_BURST_DROP",
    "QDISC_CONGESTED",
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "RECURSION_LIMIT",
    "SECURITY_HOOK",
    "SOCKET_BACKLOG",
    "SOCKET_FILTER",
    "TAP_FILTER",
    "TAP_TXFILTER",
    "TC_EGRESS",
    "TC_INGRESS",
    "TCP_AOFAILURE",
    "TCP_AOKEYNOTFOUND",
    "TCP_AONOTFOUND",
    "TCP_AOUNEXPECTED",
    "TCP_MD5FAILURE",
    "TCP_MD5NOTFOUND",
    "TCP_MD5UNEXPECTED",
    "XFRM_POLICY",
];

/// Returns the set of reasons to record, a bit each; empty on a kernel without drop reasons
/// (before Linux 5.17).
pub(super) fn noted(btf: &Btf<'_>) -> [u64; DROP_REASON_WORDS] {
    let mut set = [0u64; DROP_REASON_WORDS];
    for (name, value) in btf.enumerators_beside(ANY) {
        let short = name.strip_prefix(PREFIX.as_bytes());
        let wanted = short.is_some_and(|short| NOTED.iter().any(|noted| noted.as_bytes() == short));
        if wanted && let Some(word) = set.get_mut((value / u64::BITS) as usize) {
            *word |= 1 << (value % u64::BITS);
        }
    }
    set
}

/// Lists the full names of the recorded reasons, which include [`ANY`].
pub(super) fn enumerators() -> impl Iterator<Item = String> {
    NOTED.iter().map(|short| format!("{PREFIX}{short}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::test_kernels;

    #[test]
    fn every_kernel_from_5_17_has_reasons() {
        for kernel in test_kernels::all() {
            let btf = Btf::parse(&kernel.btf).unwrap();
            let set = noted(&btf);
            let has = |name: &str| {
                let value = btf.enumerator(&format!("{PREFIX}{name}"))?;
                let word = set.get((value / u64::BITS) as usize).unwrap();
                Some(word >> (value % u64::BITS) & 1 == 1)
            };
            let gives_reasons = btf.enumerator(ANY).is_some();
            assert!(kernel.is_running || gives_reasons == (kernel.version >= (5, 17)));
            let reasons = gives_reasons.then_some(true);
            assert_eq!(has("NETFILTER_DROP"), reasons, "{:?}", kernel.version);
            assert_eq!(has("NOT_SPECIFIED"), reasons, "{:?}", kernel.version);
            // An extract has only the recorded reasons.
            assert_ne!(
                has("NO_SOCKET"),
                Some(true),
                "an answer, not a drop of ours"
            );
        }
    }

    #[test]
    fn every_reason_is_one_of_some_kernel() {
        let kernels = test_kernels::all();
        let btfs: Vec<_> = kernels
            .iter()
            .map(|kernel| Btf::parse(&kernel.btf).unwrap())
            .collect();
        for reason in enumerators() {
            assert!(
                btfs.iter().any(|btf| btf.enumerator(&reason).is_some()),
                "{reason}"
            );
        }
    }
}
