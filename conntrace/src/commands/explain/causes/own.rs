//! Those of this host's own firewall and policies.

use crate::commands::explain::{Explanation, labels::step};

pub(super) static LOCAL_FIREWALL: Explanation = Explanation {
    means: "this host dropped the packets itself",
    recognised: &[
        "The kernel dropped the SYN, or the answer to it, and gave a reason that is a policy of this host: `evidence.drop_reason` is its name (Linux 5.17 and later).",
        "Certain: a rule that drops matches this packet as far as can be told, and is named. Likely: several rules or a chain's policy could have done it.",
    ],
    reasons: &[
        "A rule that drops, or a chain's policy: the SYN at output or postrouting, the answer at prerouting or input (NETFILTER_DROP).",
        "Answers are not let in, because no rule accepts established connections.",
        "A BPF program on the cgroup, traffic control or an IPsec policy.",
        "The reverse path filter: the answer comes by an interface by which nothing would be sent to its sender (IP_RPFILTER).",
    ],
    steps: &[
        step(
            "nft -a list ruleset",
            "every base chain with its hook and policy, every rule with its handle; `iptables-save -c` for legacy iptables",
        ),
        step(
            "nft delete rule FAMILY TABLE CHAIN handle HANDLE",
            "removes the rule that drops. To accept in another base chain does not help: a drop is final, and an accept ends its own base chain only",
        ),
        step(
            "nft insert rule FAMILY TABLE CHAIN tcp dport PORT accept",
            "where the SYN is dropped, and in the very chain that drops it: lets it pass ahead of the drop",
        ),
        step(
            "nft insert rule FAMILY TABLE CHAIN ct state established,related accept",
            "where answers are dropped, in the very chain that drops them: PORT is their source port, so that a rule for `tcp dport PORT` does not match",
        ),
        step(
            "sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.DEVICE.rp_filter",
            "the larger of the two is in force: 1 is strict, 2 takes answers by any interface. Set DEVICE's to 2; 0 has no effect while that of all is 1",
        ),
        step("bpftool cgroup tree", "BPF programs on cgroups"),
    ],
};

pub(super) static DROPPED_HERE: Explanation = Explanation {
    means: "this host dropped the packets, for another reason",
    recognised: &[
        "The kernel dropped the SYN, or the answer to it, for a reason that no other cause covers: `evidence.drop_reason` is its name (enum skb_drop_reason, Linux 5.17 and later).",
        "Likely with NETFILTER_DROP: no rule that drops was found, so that connection tracking or NAT may have dropped the packet.",
    ],
    reasons: &[
        "The connection tracking table is full, or NAT has no port left (NETFILTER_DROP).",
        "A signature that is missing or wrong (TCP_MD5*, TCP_AO*): both sides need the same key.",
        "A queue was full (QDISC_DROP, TC_EGRESS).",
        "A checksum mismatch (TCP_CSUM, IP_CSUM), as offloading between virtual machines can leave it.",
        "A source address that the kernel does not take (IP_LOCAL_SOURCE, IP_INVALID_SOURCE, IP_LOCALNET).",
    ],
    steps: &[
        step(
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
            "a count at its maximum: raise nf_conntrack_max, in /etc/sysctl.d to keep it",
        ),
        step(
            "cat /proc/net/stat/nf_conntrack",
            "insert_failed and drop (hexadecimal, a line per CPU): numbers that grow with each attempt",
        ),
        step(
            "nft -a list ruleset",
            "rules that translate (snat, masquerade): a port range that is too narrow",
        ),
        step("tc -s qdisc show", "drops of each queue on each interface"),
        step(
            "nstat -z | grep -iE 'drop|csum|md5|filter'",
            "what has grown since it was run last",
        ),
    ],
};

pub(super) static CGROUP_POLICY: Explanation = Explanation {
    means: "a program on the cgroup forbids it",
    recognised: &[
        "Likely: connect returned EPERM (--trace-syscalls), and BPF programs on the process's cgroup, or above it, decide on connects.",
    ],
    reasons: &[
        "A network policy of the container platform.",
        "A service's own restriction, by whoever attached the program.",
    ],
    steps: &[
        step(
            "bpftool cgroup tree",
            "the programs (cgroup_inet4_connect, cgroup_inet6_connect) and where they are attached",
        ),
        step(
            "kubectl get networkpolicy -A",
            "the policies, where this is a Kubernetes node",
        ),
    ],
};

pub(super) static SECURITY_MODULE: Explanation = Explanation {
    means: "a security module forbids it",
    recognised: &[
        "Likely: connect returned EACCES (--trace-syscalls), there is a route, and a security module confines the process; `evidence.profile` is its profile.",
        "Likely: connect returned EPERM or EACCES, there is a route, and BPF programs of the security module bpf decide on every connect; `evidence.programs` names them. The kernel tells so from Linux 5.13 on.",
    ],
    reasons: &[
        "SELinux: the domain may not connect to ports of that type.",
        "AppArmor: the profile allows no network.",
        "A security agent's BPF program forbids that destination, or that process to connect.",
    ],
    steps: &[
        step(
            "ausearch -m avc -ts recent",
            "what SELinux forbade, to which type of port",
        ),
        step(
            "journalctl -k -g apparmor",
            "what AppArmor forbade, by which profile",
        ),
        step("bpftool prog show id ID", "which process holds the program"),
    ],
};
