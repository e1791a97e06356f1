//! Coverage of each kind of ending: the reason why it is not seen, and the remedy.

use std::collections::BTreeMap;

use super::EndingCoverage;
use crate::output::event::Coverage;

/// Reason and remedy for a kind of ending that is not seen.
struct Gap {
    reason: &'static str,
    remedy: &'static str,
}

const STATES: Gap = Gap {
    reason: "inet_sock_set_state is not attached",
    remedy: SEE_HOOK,
};
const STALL: Gap = Gap {
    reason: "tcp_retransmit_skb is not attached",
    remedy: SEE_HOOK,
};
const LOCAL_DROP: Gap = Gap {
    reason: "kfree_skb is not attached",
    remedy: "see that hook's reason; reasons for drops came with Linux 5.17",
};
const ICMP6_DETAIL: Gap = Gap {
    reason: "on this tier type, code and sender come from the socket's error queue, which holds \
             ICMPv6 errors only with IPV6_RECVERR",
    remedy: "setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, 1) in the application",
};
const NO_ROUTE: Gap = Gap {
    reason: "such an attempt ends before SYN_SENT; on this tier only its system call shows it",
    remedy: TRACE_SYSCALLS,
};
const LOCAL_DENIAL: Gap = NO_ROUTE;
const BIND_EXHAUSTED: Gap = Gap {
    reason: "on this tier only the system call bind shows it",
    remedy: TRACE_SYSCALLS,
};
/// Gap where some functions could be hooked, but not this one.
const FUNCTION: Gap = Gap {
    reason: "a function that shows it could not be hooked",
    remedy: SEE_HOOKS,
};
/// Remedies that only refer to the hooks' reasons.
pub(super) const SEE_HOOK: &str = "see that hook's reason";
pub(super) const SEE_HOOKS: &str = "see the reasons of the hooks that are missing";
pub(super) const TRACE_SYSCALLS: &str = "conntrace --trace-syscalls, which slows every system call of this \
                              host a little and does not see io_uring";

/// Returns the coverage of every kind; unknown where tracing cannot start. `functions` is true if
/// any function could be hooked.
pub(super) fn table(
    coverage: Option<Coverage>,
    functions: bool,
) -> BTreeMap<&'static str, EndingCoverage> {
    let tried = coverage.is_some();
    let by_functions = |gap: Gap| if functions { FUNCTION } else { gap };
    let seen = |(key, seen, gap): (&'static str, bool, Gap)| {
        let gap = (tried && !seen).then_some(gap);
        let seen = EndingCoverage {
            seen: tried.then_some(seen),
            reason: gap.as_ref().map(|gap| gap.reason),
            remedy: gap.as_ref().map(|gap| gap.remedy),
        };
        (key, seen)
    };
    keys(coverage.unwrap_or_default(), by_functions)
        .map(seen)
        .into()
}

/// Destructured in full, so that a new key cannot be missed.
fn keys(coverage: Coverage, by_functions: impl Fn(Gap) -> Gap) -> [(&'static str, bool, Gap); 16] {
    let Coverage {
        established,
        rst,
        kernel_timeout,
        app_timeout,
        port_exhausted,
        tuple_in_use,
        aborted,
        stall,
        icmp,
        local_drop,
        drops_elsewhere,
        translations,
        icmp6_detail,
        no_route,
        local_denial,
        bind_exhausted,
    } = coverage;
    [
        ("established", established, STATES),
        ("rst", rst, STATES),
        ("kernel_timeout", kernel_timeout, STATES),
        ("app_timeout", app_timeout, STATES),
        ("port_exhausted", port_exhausted, STATES),
        ("tuple_in_use", tuple_in_use, STATES),
        ("aborted", aborted, STATES),
        ("stall", stall, STALL),
        ("icmp", icmp, STATES),
        ("local_drop", local_drop, LOCAL_DROP),
        ("drops_elsewhere", drops_elsewhere, LOCAL_DROP),
        ("translations", translations, LOCAL_DROP),
        ("icmp6_detail", icmp6_detail, by_functions(ICMP6_DETAIL)),
        ("no_route", no_route, by_functions(NO_ROUTE)),
        ("local_denial", local_denial, by_functions(LOCAL_DENIAL)),
        (
            "bind_exhausted",
            bind_exhausted,
            by_functions(BIND_EXHAUSTED),
        ),
    ]
}
