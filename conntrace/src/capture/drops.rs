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

/// Further reasons that are recorded for a packet that has no socket any more, wherever on this
/// machine it was dropped.
///
/// Not among them are those for which a packet is dropped beside others that go on: a bridge floods
/// copies to ports behind which the destination is not (`OTHERHOST`), and `NOT_SPECIFIED` can be
/// anything.
const NOTED_ANYWHERE: [&str; 19] = [
    "INVALID_PROTO",
    "IP_CSUM",
    "IP_INADDRERRORS",
    "IP_INHDR",
    "IP_INNOROUTES",
    "IP_INVALID_DEST",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_LOCAL_SOURCE",
    "IP_NOPROTO",
    NO_SOCKET,
    "SKB_CSUM",
    "TCP_CSUM",
    "TCP_FLAGS",
    "TCP_LISTEN_OVERFLOW",
    "TCP_MINTTL",
    "UNICAST_IN_L2_MULTICAST",
    "VXLAN_VNI_NOT_FOUND",
    "XDP",
];

/// Reason of a packet that met no socket.
const NO_SOCKET: &str = "NO_SOCKET";
/// Reason that can be anything.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Numbers of the recorded reasons on one kernel. All are empty on a kernel without drop reasons
/// (before Linux 5.17).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NotedReasons {
    /// Set of the reasons for a packet of an attempt's socket, a bit each.
    pub(super) of_socket: [u64; DROP_REASON_WORDS],
    /// Set of the reasons for any packet of a handshake, a bit each.
    pub(super) of_packet: [u64; DROP_REASON_WORDS],
    /// Number of `NO_SOCKET`; 0 on a kernel without it.
    pub(super) no_socket: u32,
}

impl NotedReasons {
    pub(super) fn of(btf: &Btf<'_>) -> Self {
        let mut noted = Self::default();
        for (name, value) in btf.enumerators_beside(ANY) {
            let Some(short) = name.strip_prefix(PREFIX.as_bytes()) else {
                continue;
            };
            let is_in = |names: &[&str]| names.iter().any(|name| name.as_bytes() == short);
            if is_in(&NOTED) {
                set(&mut noted.of_socket, value);
            }
            if (is_in(&NOTED) || is_in(&NOTED_ANYWHERE)) && !is_in(&[NOT_SPECIFIED]) {
                set(&mut noted.of_packet, value);
            }
            if is_in(&[NO_SOCKET]) {
                noted.no_socket = value;
            }
        }
        noted
    }

    /// Returns true if the kernel gives drop reasons (Linux 5.17).
    pub(super) fn is_any(&self) -> bool {
        self.of_socket.iter().any(|&word| word != 0)
    }
}

fn set(words: &mut [u64; DROP_REASON_WORDS], value: u32) {
    if let Some(word) = words.get_mut((value / u64::BITS) as usize) {
        *word |= 1 << (value % u64::BITS);
    }
}

/// Lists the full names of the recorded reasons, which include [`ANY`].
pub(super) fn enumerators() -> impl Iterator<Item = String> {
    let short = NOTED.iter().chain(&NOTED_ANYWHERE);
    short.map(|short| format!("{PREFIX}{short}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::test_kernels;

    #[test]
    fn every_kernel_from_5_17_has_reasons() {
        for kernel in test_kernels::all() {
            let btf = Btf::parse(&kernel.btf).unwrap();
            let noted = NotedReasons::of(&btf);
            let has = |set: &[u64; DROP_REASON_WORDS], name: &str| {
                let value = btf.enumerator(&format!("{PREFIX}{name}"))?;
                let word = set.get((value / u64::BITS) as usize).unwrap();
                Some(word >> (value % u64::BITS) & 1 == 1)
            };
            let (of_socket, of_packet) = (&noted.of_socket, &noted.of_packet);
            let gives_reasons = btf.enumerator(ANY).is_some();
            assert!(kernel.is_running || gives_reasons == (kernel.version >= (5, 17)));
            assert_eq!(noted.is_any(), gives_reasons);
            let (yes, no) = (
                gives_reasons.then_some(true),
                gives_reasons.then_some(false),
            );
            assert_eq!(
                has(of_socket, "NETFILTER_DROP"),
                yes,
                "{:?}",
                kernel.version
            );
            assert_eq!(
                has(of_packet, "NETFILTER_DROP"),
                yes,
                "{:?}",
                kernel.version
            );
            assert_eq!(has(of_socket, NOT_SPECIFIED), yes, "{:?}", kernel.version);
            assert_eq!(has(of_packet, NOT_SPECIFIED), no, "{:?}", kernel.version);
            // For a socket of ours it is an answer, and no drop.
            assert_eq!(has(of_socket, NO_SOCKET), no, "{:?}", kernel.version);
            assert_eq!(has(of_packet, NO_SOCKET), yes, "{:?}", kernel.version);
            assert_eq!(noted.no_socket != 0, gives_reasons);
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
